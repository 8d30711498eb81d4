//! An index that does not tell what its file holds is made whole again: the file is the truth. Records that are sound
//! stay, because times of arrival are told by nothing else.

use super::check::{Damage, damaged, unopened};
use super::disk::ArchiveDisk;
use super::index::{self, Entry, IndexFault};
use super::recover::clock_before;
use super::seal::{self, Read};
use super::tail::{file_name, measured, open_index};
use super::{Archive, ArchiveError};
use crate::database::moment::Running;
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::{Event, Group, Grouper};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::ArchivedFile;
use std::io;
use std::sync::Arc;

/// Records that are looked at for the next sound one behind a rotten one.
const NEXT_WITHIN: u64 = 64;

/// Compares an index with its file's events as they are read, and puts right what differs.
struct Mending {
    index: Arc<dyn PackFile>,
    grouper: Grouper,
    /// Times never go back.
    clock: Running,
    /// Records that are as they must be.
    count: u64,
    /// Records that were not.
    mended: u64,
}

impl Mending {
    /// Of the file at `path`; `clock` is that of the files before it.
    fn begin(disk: &dyn ArchiveDisk, path: &str, clock: Running) -> io::Result<Mending> {
        let index = open_index(disk, path)?;
        Ok(Mending { index, grouper: Grouper::new(), clock, count: 0, mended: 0 })
    }

    /// The file's next event.
    fn event(&mut self, event: &Event<'_>) -> io::Result<Result<(), String>> {
        Ok(match self.grouper.event(event) {
            Err(fault) => Err(fault.to_string()),
            Ok(None) => Ok(()),
            Ok(Some(group)) => self.group(&group).map(Ok)?,
        })
    }

    fn group(&mut self, group: &Group) -> io::Result<()> {
        let there = index::nth(&*self.index, self.count)?;
        let right = |entry: &Entry| *entry == Entry::of(group, entry.time, entry.live);
        match there.filter(right) {
            Some(entry) => drop(self.clock.next(entry.time)),
            None => {
                let mut time = self.clock.next(measured(group, Timestamp::default()));
                // Nor is it after what comes behind.
                if let Some(next) = self.next_sound(group.end)? {
                    time = time.min(next.time);
                }
                index::append(&*self.index, self.count, &[Entry::of(group, time, false)])?;
                self.mended += 1;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn next_sound(&self, from: u64) -> io::Result<Option<Entry>> {
        for number in self.count + 1..=self.count + NEXT_WITHIN {
            let entry = index::nth(&*self.index, number)?;
            if let Some(entry) = entry.filter(|entry| entry.start >= from) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The whole file was read and is sound: nothing follows its last group. Gives the number of records put right.
    fn finish(mut self) -> io::Result<u64> {
        if self.index.len()? != self.count * index::LEN as u64 {
            self.index.truncate(self.count * index::LEN as u64)?;
            self.mended += 1;
        }
        if self.mended > 0 {
            self.index.sync()?;
        }
        Ok(self.mended)
    }
}

/// Whose bytes a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Those that were there: they must be what the file's seal says.
    Archive,
    /// They have just come from the server.
    Server,
}

/// Reads a complete file of so many bytes and puts its index right. What was read, or what is wrong with the file itself.
pub(super) fn mend(
    disk: &dyn ArchiveDisk,
    (path, len): (&str, u64),
    clock: Running,
    source: Source,
    stop: &dyn Fn() -> bool,
) -> io::Result<Result<Read, Damage>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(Damage::somewhere(unopened(&error)))),
    };
    let mut mending = Mending::begin(disk, path, clock)?;
    let read = seal::read(&*file, len, stop, &mut |event| mending.event(event))?;
    if let Some((at, reason)) = &read.fault {
        return Ok(Err(Damage { at: Some(*at), reason: reason.clone() }));
    }
    if source == Source::Archive
        && let Some(reason) = seal::contradiction(disk, path, &read)
    {
        return Ok(Err(Damage::somewhere(reason)));
    }
    let records = mending.finish()?;
    if records > 0 {
        tracing::warn!(file = path, records, "the index was damaged, and is whole again");
    }
    Ok(Ok(read))
}

impl Archive {
    /// Asks the index of a file, and gives the number of its records to `ask`. One that is found damaged is put right and
    /// asked again, unless its file is still being written: then it is an error.
    pub(super) fn ask_index<T>(
        &self,
        file: &ArchivedFile,
        ask: &mut dyn FnMut(&dyn PackFile, u64) -> Result<T, IndexFault>,
    ) -> Result<T, ArchiveError> {
        let path = file_name(file.lineage, &file.name);
        let mut fault = match self.ask_once(file, &path, ask) {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        if matches!(fault, IndexFault::Rotten(_)) && file.closed {
            tracing::warn!(file = path, "{fault}: it is made anew from the file");
            self.mend_index(file, &path)?;
            fault = match self.ask_once(file, &path, ask) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
        }
        match fault {
            IndexFault::Io(error) => Err(self.io("read the index of", &path)(error)),
            IndexFault::Rotten(record) => {
                Err(ArchiveError::Index { path: self.disk.path(&format!("{path}.index")), record })
            }
        }
    }

    fn ask_once<T>(
        &self,
        file: &ArchivedFile,
        path: &str,
        ask: &mut dyn FnMut(&dyn PackFile, u64) -> Result<T, IndexFault>,
    ) -> Result<T, IndexFault> {
        let index = match self.disk.open(&format!("{path}.index")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IndexFault::Rotten(0)),
            opened => opened?,
        };
        let length = index.len()?;
        let count = length / index::LEN as u64;
        // A file that grows may have a record that is half written; nobody relies on it yet.
        let sealed = seal::load(&*self.disk, path).filter(|_| file.closed);
        if sealed.is_some_and(|seal| seal.index != length) {
            return Err(IndexFault::Rotten(count));
        }
        ask(&*index, count)
    }

    /// Puts the index of a complete file right.
    pub(super) fn mend_index(&self, file: &ArchivedFile, path: &str) -> Result<(), ArchiveError> {
        let failed =
            |damage: &Damage| ArchiveError::Damaged { name: path.to_owned(), reason: damage.to_string() };
        if let Some(known) = self.known_damage(file.lineage, file.ordinal) {
            return Err(failed(&known));
        }
        // Two at a time would write the same records.
        let _alone = self.shared.mending.lock();
        let mended = mend(&*self.disk, (path, file.len), self.clock_before(file), Source::Archive, &|| false);
        match mended.map_err(self.io("read", path))? {
            Ok(_) => Ok(()),
            Err(damage) => {
                let failed = failed(&damage);
                // Not one that was pruned meanwhile.
                if self.shared.file(file.lineage, file.ordinal).is_some() {
                    self.shared.damages.add(damaged(file.clone(), damage));
                }
                Err(failed)
            }
        }
    }

    pub(super) fn clock_before(&self, file: &ArchivedFile) -> Running {
        let lineages = self.shared.lineages.read().clone();
        clock_before(&*self.disk, &lineages, (file.lineage, file.ordinal))
    }
}
