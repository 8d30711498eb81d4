//! Looking for rotten files, and remembering them: each is told in `status` until it is whole again.

use super::Archive;
use super::ArchiveError;
use super::disk::{ArchiveDisk, folder};
use super::index;
use super::mending::{self, Source};
use super::seal;
use super::tail::{file_name, read_head};
use ehpc_proto::binlog::Checksum;
use ehpc_proto::replication::database::ArchivedFile;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most files that are named in `status`.
const NAMED_MAX: usize = 3;
/// Longest reason that is kept over a restart, characters.
const REASON_MAX: usize = 500;
/// Who waits to read a file looks so often whether that is still wanted.
const STOPS_WITHIN: Duration = Duration::from_millis(100);
/// What a file has that nobody pruned.
pub(super) const GONE: &str = "it is gone, and was not pruned";

/// What a file has that should have bytes.
pub(super) const EMPTY: &str = "it is empty, and was not";

/// What a mark says; that it is there is enough.
pub(super) fn marked(text: &[u8]) -> Damage {
    let read = serde_json::from_slice(text).ok();
    read.unwrap_or_else(|| Damage::somewhere("it was found damaged before the last start"))
}

/// The mark of a damaged file.
pub(super) fn mark_name(path: &str) -> String {
    format!("{path}.damaged")
}

/// Something that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Damage {
    /// Where its events stop being sound; `None`: somewhere (only the hash of the whole differs).
    pub at: Option<u64>,
    /// For people.
    pub reason: String,
}

impl Damage {
    /// Nobody knows where.
    pub(super) fn somewhere(reason: impl Into<String>) -> Damage {
        Damage { at: None, reason: reason.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        self.at.map_or(Ok(()), |at| write!(f, " (at {at})"))
    }
}

/// A file that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedFile {
    /// Its lineage.
    pub lineage: u32,
    /// Its place there.
    pub ordinal: u32,
    /// The server's name for it.
    pub name: String,
    /// What is wrong.
    pub damage: Damage,
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", file_name(self.lineage, &self.name), self.damage)
    }
}

/// The files that were found damaged and are not repaired yet. Each has a mark beside it on the disk, `NAME.damaged`, so
/// that it is known after a restart, too: that it is there counts, what it holds is for people.
pub(super) struct Damages {
    disk: Arc<dyn ArchiveDisk>,
    files: Mutex<BTreeMap<(u32, u32), DamagedFile>>,
    /// Held while a mark is written or removed.
    marking: Mutex<()>,
}

impl Damages {
    /// What a start has found.
    pub(super) fn of(disk: Arc<dyn ArchiveDisk>, found: &[DamagedFile]) -> Damages {
        let files = found.iter().map(|file| ((file.lineage, file.ordinal), file.clone())).collect();
        Damages { disk, files: Mutex::new(files), marking: Mutex::new(()) }
    }

    /// A disk that does not take the mark is no reason to say nothing.
    pub(super) fn add(&self, file: DamagedFile) {
        let shown = file.to_string();
        if let Err(error) = self.mark(file) {
            tracing::warn!("the next start will not know of the damage of {shown}: {error}");
        }
    }

    /// As [`Damages::add`], of a file that may have its mark.
    pub(super) fn keep(&self, file: DamagedFile) {
        if self.disk.open(&mark_name(&file_name(file.lineage, &file.name))).is_err() {
            self.add(file);
        }
    }

    /// As [`Damages::add`]; the mark is on the disk when this returns.
    pub(super) fn mark(&self, file: DamagedFile) -> io::Result<()> {
        let _alone = self.marking.lock();
        let Damage { at, reason } = &file.damage;
        let kept = Damage { at: *at, reason: reason.chars().take(REASON_MAX).collect() };
        let text = serde_json::to_vec(&kept).map_err(io::Error::other)?;
        let (folder, name) = (folder(file.lineage), mark_name(&file_name(file.lineage, &file.name)));
        self.files.lock().insert((file.lineage, file.ordinal), file);
        let mark = match self.disk.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&name)?,
            made => made?,
        };
        mark.truncate(0)?;
        mark.write_at([&text, b"\n"], 0)?;
        mark.sync()?;
        self.disk.sync_folder(&folder)
    }

    /// It is whole.
    pub(super) fn forget(&self, lineage: u32, ordinal: u32) {
        let _alone = self.marking.lock();
        let Some(file) = self.files.lock().remove(&(lineage, ordinal)) else { return };
        let name = mark_name(&file_name(lineage, &file.name));
        let removed = match self.disk.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.disk.sync_folder(&folder(lineage))),
        };
        if let Err(error) = removed {
            tracing::warn!(
                "the next start will take {} for damaged until verify reads it: {error}",
                file.name
            );
        }
    }

    /// Nobody needs these any more.
    pub(super) fn forget_until(&self, lineage: u32, ordinal: u32) {
        let old: Vec<_> = self.files.lock().range(..=(lineage, ordinal)).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|(lineage, ordinal)| self.forget(lineage, ordinal));
    }

    fn of_file(&self, lineage: u32, ordinal: u32) -> Option<Damage> {
        self.files.lock().get(&(lineage, ordinal)).map(|file| file.damage.clone())
    }

    /// The first damaged file of a lineage behind that one.
    pub(super) fn behind(&self, lineage: u32, ordinal: u32) -> Option<DamagedFile> {
        let files = self.files.lock();
        files
            .range((lineage, ordinal.saturating_add(1))..=(lineage, u32::MAX))
            .next()
            .map(|(_, file)| file.clone())
    }

    pub(super) fn knows(&self, file: &ArchivedFile) -> bool {
        self.files.lock().contains_key(&(file.lineage, file.ordinal))
    }

    /// For `status`.
    pub(super) fn text(&self) -> Option<String> {
        let files = self.files.lock();
        let named: Vec<String> = files.values().take(NAMED_MAX).map(DamagedFile::to_string).collect();
        let more = files.len().checked_sub(named.len()).filter(|more| *more > 0);
        let more = more.map_or(String::new(), |more| format!("; and {more} more"));
        (!named.is_empty()).then(|| {
            format!(
                "binary logs of the archive are damaged: {}{more}. On nfs1, `ehpc-store verify --database --repair` fetches \
                 them from the server again; where it has them no more, take a new base snapshot (`ehpc-store db snapshot`)",
                named.join("; ")
            )
        })
    }
}

impl Archive {
    /// Reads a whole file: checksum and position of each event, and the hash that it was sealed with. A file that is
    /// lost or cannot be read is damaged. `stop` ends it early, as an I/O error of kind `Interrupted`.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or no more; `stop`.
    pub fn check(
        &self,
        lineage: u32,
        ordinal: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Damage>, ArchiveError> {
        let listed =
            || self.shared.listed(lineage, ordinal).ok_or(ArchiveError::NoFile { lineage, file: ordinal });
        loop {
            let replaced = self.alone(stop)?.1;
            let file = listed()?;
            let damage = self.look_at(&file, stop)?;
            // What was read while it was written anew says nothing.
            let (_alone, now) = self.alone(stop)?;
            if now != replaced {
                continue;
            }
            match &damage {
                Some(damage) => {
                    // Pruned meanwhile?
                    listed()?;
                    self.shared.damages.add(damaged(file, damage.clone()));
                }
                None => self.shared.damages.forget(lineage, ordinal),
            }
            return Ok(damage.into_iter().collect());
        }
    }

    /// Waits until nobody writes into complete files, and gives how many were written anew until now.
    fn alone(&self, stop: &dyn Fn() -> bool) -> Result<(MutexGuard<'_, ()>, u64), ArchiveError> {
        loop {
            if let Some(alone) = self.shared.mending.try_lock_for(STOPS_WITHIN) {
                return Ok((alone, self.shared.replaced.load(Ordering::Relaxed)));
            }
            if stop() {
                return Err(self.io("read", "")(io::ErrorKind::Interrupted.into()));
            }
        }
    }

    /// What is wrong with the file.
    fn look_at(&self, file: &ArchivedFile, stop: &dyn Fn() -> bool) -> Result<Option<Damage>, ArchiveError> {
        let path = file_name(file.lineage, &file.name);
        if file.len == 0 {
            let known = self.known_damage(file.lineage, file.ordinal);
            return Ok(Some(known.unwrap_or_else(|| Damage::somewhere(GONE))));
        }
        let opened = match self.disk.open(&path) {
            Ok(opened) => opened,
            Err(error) => return Ok(Some(Damage::somewhere(unopened(&error)))),
        };
        let read = seal::read(&*opened, file.len, stop, &mut |_| Ok(Ok(())));
        let read = read.map_err(self.io("read", &path))?;
        let differs = || seal::contradiction(&*self.disk, &path, &read).filter(|_| file.closed);
        Ok(match &read.fault {
            Some((at, reason)) => Some(Damage { at: Some(*at), reason: reason.clone() }),
            None => differs().map(Damage::somewhere),
        })
    }

    /// What is known to be wrong with a file, without reading it.
    pub fn known_damage(&self, lineage: u32, ordinal: u32) -> Option<Damage> {
        self.shared.damages.of_file(lineage, ordinal)
    }

    /// Whether the events of a file have checksums, by which the server's own programs find damage.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or cannot be read.
    pub fn has_checksums(&self, lineage: u32, ordinal: u32) -> Result<bool, ArchiveError> {
        let path = file_name(lineage, &self.file(lineage, ordinal)?.name);
        let head = self.disk.open(&path).and_then(|file| read_head(&*file, u64::MAX));
        let head = head.map_err(self.io("read", &path))?;
        Ok(head.is_some_and(|head| head.format.checksum != Checksum::None))
    }

    /// Seals complete files that are not sealed yet, and looks at the index of one that is. Reads each new file once; call
    /// it from time to time, on a thread of its own. Gives the files that it found damaged; they are not read again
    /// until they were written anew.
    ///
    /// # Errors
    ///
    /// `stop`; the first file that could not be sealed because of its index or the disk. All others are.
    pub fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Vec<DamagedFile>, ArchiveError> {
        let (mut found, mut failed) = (Vec::new(), None);
        let mut closed = self.files();
        // If the one behind it is taken back, it goes on.
        closed.pop();
        closed.retain(|file| file.closed);
        for file in &closed {
            let path = file_name(file.lineage, &file.name);
            if self.shared.damages.knows(file) || seal::is_sealed(&*self.disk, &path) {
                continue;
            }
            match self.seal(file, &path, stop) {
                Ok(None) => {}
                Ok(Some(damaged)) => found.push(damaged),
                Err(error) if stop() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let looked = self.look_at_an_index(&closed);
        failed.map_or(looked, Err).map(|()| found)
    }

    /// That the file is damaged, if it cannot be sealed.
    fn seal(
        &self,
        file: &ArchivedFile,
        path: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<DamagedFile>, ArchiveError> {
        let _alone = self.shared.mending.lock();
        if self.shared.file(file.lineage, file.ordinal).is_none() {
            return Ok(None); // pruned meanwhile
        }
        let clock = self.clock_before(file);
        let read = match mending::mend(&*self.disk, (path, file.len), clock, Source::Archive, stop) {
            Ok(Ok(read)) => read,
            Ok(Err(damage)) => {
                let file = damaged(file.clone(), damage);
                self.shared.damages.add(file.clone());
                return Ok(Some(file));
            }
            Err(error) => return Err(self.io("seal", path)(error)),
        };
        seal::write(&*self.disk, path, &read).map_err(self.io("seal", path))?;
        Ok(None)
    }

    /// One file after the other: a rotten record is mended while its file is still sound.
    fn look_at_an_index(&self, closed: &[ArchivedFile]) -> Result<(), ArchiveError> {
        let mut looked = self.looked_at.lock();
        let behind = closed.iter().find(|file| (file.lineage, file.ordinal) > *looked);
        let Some(file) = behind.or(closed.first()) else { return Ok(()) };
        *looked = (file.lineage, file.ordinal);
        let there = self.shared.file(file.lineage, file.ordinal).is_some();
        if !there || self.shared.damages.knows(file) {
            return Ok(());
        }
        self.ask_index(file, &mut |index, _| index::walk_sound(index, file.len, &mut |_| ())).map(drop)
    }
}

pub(super) fn damaged(file: ArchivedFile, damage: Damage) -> DamagedFile {
    DamagedFile { lineage: file.lineage, ordinal: file.ordinal, name: file.name, damage }
}

/// What is wrong with a file that is listed and gives this error.
pub(super) fn unopened(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => GONE.to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}
