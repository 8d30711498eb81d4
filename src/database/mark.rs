//! Marks: moments that files and database have in common, in a file of their own on the backup.
//!
//! A record is 56 bytes, little-endian: CRC-32 of the rest, version (1), kind, two zero bytes, seconds, nanoseconds,
//! lineage, file, four zero bytes, offset, batch, cut. Records are only ever appended, their times and places never go
//! back, and each is on disk before `append` returns. A torn or damaged record at the end is cut at the next start: a
//! mark that is lost is replaced by the next one. A damaged one in the middle is passed over.

use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{Mark, MarkKind, Place};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a record.
const LEN: u64 = 56;
const VERSION: u8 = 1;

/// Why marks cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("the file of marks {path}: {source}")]
pub struct MarkError {
    path: PathBuf,
    source: io::Error,
}

/// The marks of an archive.
#[derive(Debug)]
pub struct Marks {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Whole records.
    count: u64,
    newest: Option<Mark>,
}

impl Marks {
    /// Opens the file, makes it when it is not there, and cuts what is torn at its end; says how many bytes that was.
    pub fn open(path: &Path) -> Result<(Marks, u64), MarkError> {
        let fault = |source| MarkError { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fault)?;
        sync_directory(path).map_err(fault)?;
        let len = file.metadata().map_err(fault)?.len();
        let mut count = len / LEN;
        let mut newest = None;
        while count > 0 {
            newest = read(&file, count - 1).map_err(fault)?;
            if newest.is_some() {
                break;
            }
            count -= 1;
        }
        let torn = len - count * LEN;
        if torn > 0 {
            file.set_len(count * LEN).map_err(fault)?;
            file.sync_data().map_err(fault)?;
        }
        Ok((Marks { path: path.to_owned(), state: Mutex::new(State { file, count, newest }) }, torn))
    }

    /// Writes one, on disk when it returns. One whose place lies before the newest (sent twice over a connection that
    /// was cut) is left out: `false`. Its time is the newest's when a clock was set back.
    pub fn append(&self, mark: Mark) -> Result<bool, MarkError> {
        let mut state = self.state.lock();
        let mut mark = mark;
        if let Some(newest) = state.newest {
            if mark.place < newest.place || mark.batch < newest.batch {
                return Ok(false);
            }
            mark.time = mark.time.max(newest.time);
        }
        let fault = |source| MarkError { path: self.path.clone(), source };
        // At a known place: what a full disk has left of an earlier try is written over.
        state.file.write_all_at(&encode(&mark), state.count * LEN).map_err(fault)?;
        state.file.sync_data().map_err(fault)?;
        state.count += 1;
        state.newest = Some(mark);
        Ok(true)
    }

    /// The newest.
    pub fn newest(&self) -> Option<Mark> {
        self.state.lock().newest
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// The newest mark at or before a time.
    pub fn at_or_before(&self, time: Timestamp) -> Result<Option<Mark>, MarkError> {
        self.last_where(|mark| mark.time <= time)
    }

    /// The newest mark whose place is at or before one.
    pub fn covered_by(&self, place: Place) -> Result<Option<Mark>, MarkError> {
        self.last_where(|mark| mark.place <= place)
    }

    /// The oldest mark.
    pub fn oldest(&self) -> Result<Option<Mark>, MarkError> {
        let state = self.state.lock();
        first_from(&state, 0, state.count)
            .map_err(|source| self.fault(source))
            .map(|found| found.map(|(_, mark)| mark))
    }

    /// Removes the marks before a place: what they name cannot be restored any more. The file is written anew beside
    /// the old one and takes its name when it is on disk.
    pub fn forget_before(&self, place: Place) -> Result<u64, MarkError> {
        let mut state = self.state.lock();
        let keep_from = partition(&state, |mark| mark.place < place).map_err(|source| self.fault(source))?;
        if keep_from == 0 {
            return Ok(0);
        }
        let file = self.rewrite(&state, keep_from).map_err(|source| self.fault(source))?;
        let count = state.count - keep_from;
        let newest = state.newest.filter(|_| count > 0);
        *state = State { file, count, newest };
        Ok(keep_from)
    }

    fn rewrite(&self, state: &State, from: u64) -> io::Result<File> {
        let new = self.path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
        let mut piece = vec![0; 64 * 1024];
        let (mut at, end) = (from * LEN, state.count * LEN);
        let mut written = 0;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            state.file.read_exact_at(&mut piece[..len], at)?;
            file.write_all_at(&piece[..len], written)?;
            at += len as u64;
            written += len as u64;
        }
        file.sync_data()?;
        std::fs::rename(&new, &self.path)?;
        sync_directory(&self.path)?;
        Ok(file)
    }

    fn last_where(&self, holds: impl Fn(&Mark) -> bool) -> Result<Option<Mark>, MarkError> {
        let state = self.state.lock();
        let mut end = partition(&state, holds).map_err(|source| self.fault(source))?;
        // Damaged ones are passed over.
        while end > 0 {
            if let Some(mark) = read(&state.file, end - 1).map_err(|source| self.fault(source))? {
                return Ok(Some(mark));
            }
            end -= 1;
        }
        Ok(None)
    }

    fn fault(&self, source: io::Error) -> MarkError {
        MarkError { path: self.path.clone(), source }
    }
}

/// How many records at the start hold; those that hold are a prefix, for times and places never go back.
fn partition(state: &State, holds: impl Fn(&Mark) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (0, state.count);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(state, middle, high)? {
            Some((at, mark)) if holds(&mark) => low = at + 1,
            // All from `middle` to `high` are damaged, or what follows them does not hold.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first undamaged record of a range.
fn first_from(state: &State, from: u64, to: u64) -> io::Result<Option<(u64, Mark)>> {
    for at in from..to {
        if let Some(mark) = read(&state.file, at)? {
            return Ok(Some((at, mark)));
        }
    }
    Ok(None)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// A record; `None` when it is damaged.
fn read(file: &File, at: u64) -> io::Result<Option<Mark>> {
    let mut record = [0; LEN as usize];
    file.read_exact_at(&mut record, at * LEN)?;
    Ok(decode(&record))
}

fn encode(mark: &Mark) -> [u8; LEN as usize] {
    let kind = match mark.kind {
        MarkKind::Periodic => 0,
        MarkKind::Fence => 1,
    };
    let mut record = [0; LEN as usize];
    record[4] = VERSION;
    record[5] = kind;
    record[8..16].copy_from_slice(&mark.time.seconds.to_le_bytes());
    record[16..20].copy_from_slice(&mark.time.nanos.to_le_bytes());
    record[20..24].copy_from_slice(&mark.place.lineage.to_le_bytes());
    record[24..28].copy_from_slice(&mark.place.file.to_le_bytes());
    record[32..40].copy_from_slice(&mark.place.offset.to_le_bytes());
    record[40..48].copy_from_slice(&mark.batch.to_le_bytes());
    record[48..56].copy_from_slice(&mark.cut.to_le_bytes());
    let sum = crc32fast::hash(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    record
}

fn decode(record: &[u8; LEN as usize]) -> Option<Mark> {
    let u32_at = |at: usize| record[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let u64_at = |at: usize| record[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let seconds = record[8..].first_chunk().map(|bytes| i64::from_le_bytes(*bytes))?;
    if u32_at(0)? != crc32fast::hash(&record[4..]) || record[4] != VERSION {
        return None;
    }
    let kind = match record[5] {
        0 => MarkKind::Periodic,
        1 => MarkKind::Fence,
        _ => return None,
    };
    Some(Mark {
        time: Timestamp { seconds, nanos: u32_at(16)? },
        place: Place { lineage: u32_at(20)?, file: u32_at(24)?, offset: u64_at(32)? },
        batch: u64_at(40)?,
        cut: u64_at(48)?,
        kind,
    })
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
