//! A damaged range of a complete file, or all of it, is written anew: the bytes collect beside the file, and take the
//! range's place when all are there and are whole, sound events. That last step has a thread of its own: acknowledgements
//! do not wait for it. From before its first byte until it is done the file counts as damaged, also after a kill.

use super::Shared;
use super::check::{Damage, damaged};
use super::disk::{ArchiveDisk, folder};
use super::mending::{self, Source};
use super::recover::clock_before;
use super::seal;
use super::tail::{file_name, read_head};
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::FileScan;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const READ: usize = 1024 * 1024;
/// What the name of such a copy ends with.
pub(super) const BESIDE: &str = ".patch";
/// Most ranges at once.
const OPEN_MAX: usize = 4;

/// Which range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) lineage: u32,
    pub(super) ordinal: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

struct Open {
    wanted: Wanted,
    /// It is the whole file as the server has it.
    whole: bool,
    path: String,
    beside: String,
    copy: Arc<dyn PackFile>,
    at: u64,
    /// When bytes came last, in patches.
    touched: u64,
}

pub(super) struct Refetches {
    disk: Arc<dyn ArchiveDisk>,
    shared: Arc<Shared>,
    open: HashMap<u64, Open>,
    /// Files whose range is being replaced.
    busy: Arc<Mutex<HashSet<String>>>,
    /// Patches that came.
    patches: u64,
}

/// What a patch led to.
pub(super) enum Patched {
    /// More must come, or nobody waits for it any more.
    More,
    /// Nothing was changed.
    Failed(String),
    /// All bytes are there; the range can be replaced.
    Complete(Replacement),
}

impl Refetches {
    pub(super) fn new(disk: Arc<dyn ArchiveDisk>, shared: Arc<Shared>) -> Refetches {
        Refetches { disk, shared, open: HashMap::new(), busy: Arc::default(), patches: 0 }
    }

    /// A new connection: ranges that are not complete are dropped.
    pub(super) fn forget(&mut self) {
        for (_, open) in self.open.drain() {
            // If it stays, the next start removes it.
            let _ = self.disk.remove(&open.beside);
        }
    }

    /// Patches for this range follow. Nobody says that one is given up (nfs1 may have lost its server): one of the same
    /// file, and of too many the one that had no bytes for longest, make room. Gives their numbers.
    pub(super) fn begin(&mut self, id: u64, wanted: Wanted) -> Result<Vec<u64>, String> {
        let Some(file) = self.shared.listed(wanted.lineage, wanted.ordinal) else {
            return Err(format!("file {} of lineage {} is not here", wanted.ordinal, wanted.lineage));
        };
        let path = file_name(wanted.lineage, &file.name);
        // It may have lost its end, or all.
        let least = seal::load(&*self.disk, &path).map_or(file.len, |seal| seal.len);
        let whole = wanted.from == 0 && wanted.to >= least;
        if !file.closed || (wanted.to > file.len && !whole) {
            return Err(format!(
                "{} is {} and has {} bytes, {least} when it was sealed: only closed files are written anew, and are not \
                 made shorter than they were",
                file.name,
                if file.closed { "closed" } else { "open" },
                file.len
            ));
        }
        if self.busy.lock().contains(&path) {
            return Err(format!("a range of {path} is being replaced right now"));
        }
        let mut gone: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.path == path).map(|(id, _)| *id).collect();
        if self.open.len() - gone.len() >= OPEN_MAX {
            gone.extend(self.open.iter().min_by_key(|(_, open)| open.touched).map(|(id, _)| *id));
        }
        for open in gone.iter().filter_map(|id| self.open.remove(id)) {
            let _ = self.disk.remove(&open.beside);
        }
        let beside = format!("{path}{BESIDE}");
        let made = match self.disk.create(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&beside),
            made => made,
        };
        let copy = made.and_then(|copy| copy.truncate(0).map(|()| copy));
        let copy = copy.map_err(|error| format!("cannot write {beside}: {error}"))?;
        let touched = self.patches;
        self.open.insert(id, Open { wanted, whole, path, beside, copy, at: wanted.from, touched });
        Ok(gone)
    }

    /// The next bytes.
    pub(super) fn patch(&mut self, id: u64, offset: u64, bytes: &[u8]) -> Patched {
        self.patches += 1;
        // One that was refused is told once; its patches may still be on their way.
        let Some(open) = self.open.get_mut(&id) else { return Patched::More };
        open.touched = self.patches;
        let fits = offset == open.at && offset + bytes.len() as u64 <= open.wanted.to;
        let written = match fits {
            true => open.copy.write_at([bytes, &[]], offset - open.wanted.from).map_err(|e| e.to_string()),
            false => Err(format!("bytes for offset {offset}, expected are those from {}", open.at)),
        };
        open.at += bytes.len() as u64;
        if written.is_ok() && open.at < open.wanted.to {
            return Patched::More;
        }
        let Some(open) = self.open.remove(&id) else { return Patched::More };
        if let Err(reason) = written {
            // As in `forget`.
            let _ = self.disk.remove(&open.beside);
            return Patched::Failed(reason);
        }
        self.busy.lock().insert(open.path.clone());
        let (disk, shared, busy) = (self.disk.clone(), self.shared.clone(), self.busy.clone());
        Patched::Complete(Replacement { disk, shared, busy, open })
    }
}

/// A range whose bytes are all there.
pub(super) struct Replacement {
    disk: Arc<dyn ArchiveDisk>,
    shared: Arc<Shared>,
    busy: Arc<Mutex<HashSet<String>>>,
    open: Open,
}

impl Replacement {
    /// Checks the copy, writes it over the range, and puts index and seal right. Takes its time: a file may have gigabytes.
    pub(super) fn run(self) -> Result<(), String> {
        let Replacement { disk, shared, open, .. } = &self;
        let Wanted { lineage, ordinal, to, .. } = open.wanted;
        let failed = |error: io::Error| format!("{}: {error}", open.path);
        check(&**disk, open)?;
        let _alone = shared.mending.lock();
        shared.replaced.fetch_add(1, Ordering::Relaxed);
        let listed = shared.listed(lineage, ordinal);
        let file = listed.ok_or_else(|| format!("{} was pruned meanwhile", open.path))?;
        if open.whole && is_as_sealed(&**disk, open, file.len).map_err(failed)? {
            return Err(format!(
                "{} is as it was when it was sealed, and what the server sends is not: the server's own file has changed",
                open.path
            ));
        }
        let len = if open.whole { to } else { file.len };
        let broken = Damage::somewhere("it was being fetched from the server again when that broke off");
        shared.damages.mark(damaged(file.clone(), broken)).map_err(failed)?;
        replace(&**disk, open).map_err(failed)?;
        let clock = clock_before(&**disk, &shared.lineages.read().clone(), (lineage, ordinal));
        let source = if open.whole { Source::Server } else { Source::Archive };
        match mending::mend(&**disk, (&open.path, len), clock, source, &|| false).map_err(failed)? {
            Ok(read) => seal::write(&**disk, &open.path, &read).map_err(failed)?,
            Err(damage) => {
                let still = format!("the range is replaced, and {} is still damaged: {damage}", open.path);
                shared.damages.add(damaged(file, damage));
                return Err(still);
            }
        }
        let mut lineages = shared.lineages.write();
        let of = lineages.iter_mut().find(|entry| entry.record.lineage.number == lineage);
        if let Some(entry) = of.and_then(|of| of.files.get_mut(ordinal as usize - 1)) {
            (entry.len, entry.there, entry.lost) = (len, true, false);
        }
        drop(lineages);
        shared.damages.forget(lineage, ordinal);
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // As in `forget`.
        let _ = self.disk.remove(&self.open.beside);
        self.busy.lock().remove(&self.open.path);
    }
}

/// The copy must be whole, sound events that fit.
fn check(disk: &dyn ArchiveDisk, open: &Open) -> Result<(), String> {
    let Wanted { from, to, .. } = open.wanted;
    let mut scan = match from {
        0 => FileScan::new(),
        _ => {
            let head = disk.open(&open.path).and_then(|file| read_head(&*file, from));
            let head = head.map_err(|error| format!("{}: {error}", open.path))?;
            let head = head.ok_or("its format description is damaged: fetch it again from 0")?;
            FileScan::resume(from, &head.format)
        }
    };
    each(&*open.copy, to - from, |_, mut bytes| {
        while scan.next(&mut bytes).map_err(|fault| io::Error::other(fault.to_string()))?.is_some() {}
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    if scan.boundary() != to || scan.position() != to {
        return Err(format!("the range ends at {to}, where no event ends"));
    }
    Ok(())
}

/// The archive's file is sound and what it was when it was sealed, and the copy is not.
fn is_as_sealed(disk: &dyn ArchiveDisk, open: &Open, len: u64) -> io::Result<bool> {
    let Some(seal) = seal::load(disk, &open.path) else { return Ok(false) };
    let mut copied = blake3::Hasher::new();
    each(&*open.copy, open.wanted.to, |_, bytes| {
        copied.update(bytes);
        Ok(())
    })?;
    if copied.finalize().to_hex().as_str() == seal.blake3 {
        return Ok(false);
    }
    let Ok(file) = disk.open(&open.path) else { return Ok(false) };
    let read = seal::read(&*file, len, &|| false, &mut |_| Ok(Ok(())))?;
    Ok(read.fault.is_none() && seal::contradiction(disk, &open.path, &read).is_none())
}

fn replace(disk: &dyn ArchiveDisk, open: &Open) -> io::Result<()> {
    let Wanted { lineage, from, to, .. } = open.wanted;
    let file = match disk.open(&open.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && open.whole => {
            let file = disk.create(&open.path)?;
            disk.sync_folder(&folder(lineage))?;
            file
        }
        opened => opened?,
    };
    each(&*open.copy, to - from, |at, bytes| file.write_at([bytes, &[]], from + at))?;
    if open.whole && file.len()? > to {
        file.truncate(to)?;
    }
    file.sync()
}

fn each(file: &dyn PackFile, len: u64, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    let mut at = 0;
    while at < len {
        let wanted = (len - at).min(READ as u64) as usize;
        let read = file.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the copy is too short"));
        }
        take(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
