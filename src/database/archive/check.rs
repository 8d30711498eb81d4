//! Looking for rotten files, and remembering them: each is told in `status` until it is whole again.

use super::Archive;
use super::ArchiveError;
use super::index;
use super::mending::Mending;
use super::recover::clock_before;
use super::seal;
use super::tail::file_name;
use ehpc_proto::replication::database::ArchivedFile;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;

/// Most files that are named in `status`.
const NAMED_MAX: usize = 3;

/// Something that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where its events stop being sound; `None`: somewhere (only the hash of the whole differs).
    pub at: Option<u64>,
    /// For people.
    pub reason: String,
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
    /// What is wrong, for people.
    pub reason: String,
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", file_name(self.lineage, &self.name), self.reason)
    }
}

/// The files that were found damaged and are not repaired yet.
#[derive(Default)]
pub(super) struct Damages(Mutex<BTreeMap<(u32, u32), DamagedFile>>);

impl Damages {
    pub(super) fn add(&self, file: DamagedFile) {
        self.0.lock().insert((file.lineage, file.ordinal), file);
    }

    /// It is whole, or is to be looked at again.
    pub(super) fn forget(&self, lineage: u32, ordinal: u32) {
        self.0.lock().remove(&(lineage, ordinal));
    }

    fn knows(&self, file: &ArchivedFile) -> bool {
        self.0.lock().contains_key(&(file.lineage, file.ordinal))
    }

    /// For `status`.
    pub(super) fn text(&self) -> Option<String> {
        let files = self.0.lock();
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
    /// Reads a whole file: checksum and position of each event, and the hash that it was sealed with. `stop` ends it
    /// early, as an I/O error of kind `Interrupted`.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or cannot be read.
    pub fn check(
        &self,
        lineage: u32,
        ordinal: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Damage>, ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        let path = file_name(lineage, &file.name);
        let opened = self.disk.open(&path).map_err(self.io("open", &path))?;
        let read =
            seal::read(&*opened, file.len, stop, &mut |_| Ok(Ok(()))).map_err(self.io("read", &path))?;
        let mut damage = Vec::new();
        if let Some((at, reason)) = &read.fault {
            damage.push(Damage { at: Some(*at), reason: reason.clone() });
        }
        if let Some(seal) = seal::load(&*self.disk, &path).filter(|_| file.closed) {
            if seal.len != read.len {
                let reason = format!("it has {} bytes, and had {} when it was sealed", read.len, seal.len);
                damage.push(Damage { at: None, reason });
            } else if seal.blake3 != read.hash.to_string() && damage.is_empty() {
                let reason = "its bytes are not those that were sealed".to_owned();
                damage.push(Damage { at: None, reason });
            }
        }
        match damage.first() {
            Some(first) => self.shared.damages.add(damaged(file, first.reason.clone())),
            None => self.shared.damages.forget(lineage, ordinal),
        }
        Ok(damage)
    }

    /// Seals complete files that are not sealed yet, and looks at the index of one that is. Reads each new file once; call
    /// it from time to time, on a thread of its own. Gives the files that it found damaged; they are not read again
    /// until they were written anew.
    ///
    /// # Errors
    ///
    /// The disk; `stop`.
    pub fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Vec<DamagedFile>, ArchiveError> {
        let mut found = Vec::new();
        let closed: Vec<ArchivedFile> = self.files().into_iter().filter(|file| file.closed).collect();
        for file in &closed {
            let path = file_name(file.lineage, &file.name);
            if self.shared.damages.knows(file) || seal::is_sealed(&*self.disk, &path) {
                continue;
            }
            if let Some(reason) = self.seal(file, &path, stop)? {
                let file = damaged(file.clone(), reason);
                self.shared.damages.add(file.clone());
                found.push(file);
            }
        }
        self.look_at_an_index(&closed)?;
        Ok(found)
    }

    /// What is wrong with the file, if it cannot be sealed.
    fn seal(
        &self,
        file: &ArchivedFile,
        path: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<String>, ArchiveError> {
        let failed = self.io("seal", path);
        let _alone = self.mending.lock();
        let lineages = self.shared.lineages.read().clone();
        let clock = clock_before(&*self.disk, &lineages, (file.lineage, file.ordinal));
        let mut mending = Mending::begin(&*self.disk, path, clock).map_err(&failed)?;
        let opened = self.disk.open(path).map_err(&failed)?;
        let read =
            seal::read(&*opened, file.len, stop, &mut |event| mending.event(event)).map_err(&failed)?;
        if let Some((at, reason)) = read.fault {
            return Ok(Some(format!("{reason} (at {at})")));
        }
        let mended = mending.finish().map_err(&failed)?;
        if mended > 0 {
            tracing::warn!(file = path, records = mended, "the index was damaged, and is whole again");
        }
        seal::write(&*self.disk, path, &read).map_err(&failed)?;
        Ok(None)
    }

    /// One file after the other: a rotten record is mended while its file is still sound.
    fn look_at_an_index(&self, closed: &[ArchivedFile]) -> Result<(), ArchiveError> {
        let mut looked = self.looked_at.lock();
        let behind = closed.iter().find(|file| (file.lineage, file.ordinal) > *looked);
        let Some(file) = behind.or(closed.first()) else { return Ok(()) };
        *looked = (file.lineage, file.ordinal);
        if self.shared.damages.knows(file) {
            return Ok(());
        }
        self.ask_index(file, &mut |index, _| index::walk_sound(index, file.len, &mut |_| ())).map(drop)
    }
}

fn damaged(file: ArchivedFile, reason: String) -> DamagedFile {
    DamagedFile { lineage: file.lineage, ordinal: file.ordinal, name: file.name, reason }
}
