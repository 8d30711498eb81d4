//! Files that no base snapshot needs any more.

use super::Archive;
use super::disk::folder;
use super::error::ArchiveError;
use super::tail::file_name;
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{ArchivedFile, Place};
use std::io;

/// What was removed, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Oldest first.
    pub files: Vec<ArchivedFile>,
    /// Their bytes together.
    pub bytes: u64,
}

/// What the name of the mark behind the newest file that was pruned ends with.
const MARK: &str = ".pruned";

pub(super) fn mark_name(path: &str) -> String {
    format!("{path}{MARK}")
}

impl Archive {
    /// Removes the oldest files, as long as each lies wholly before `before` (the place of the oldest base that is kept)
    /// and its newest group is older than `older_than`. The newest file always stays. With `dry_run` nothing is removed.
    ///
    /// # Errors
    ///
    /// The disk. What was removed until then is gone.
    pub fn prune(&self, before: Place, older_than: Timestamp, dry_run: bool) -> Result<Pruned, ArchiveError> {
        let mut pruned = Pruned::default();
        let files = self.files();
        let mut last = Timestamp { seconds: i64::MIN, nanos: 0 };
        for (at, file) in files.iter().enumerate().take(files.len().saturating_sub(1)) {
            let path = file_name(file.lineage, &file.name);
            let failed = |source| ArchiveError::Io { action: "prune", path: self.disk.path(&path), source };
            // A file without groups is as old as the one before it.
            last = self.not_after(&files[at..])?.unwrap_or(last);
            if (file.lineage, file.ordinal) >= (before.lineage, before.file) || last >= older_than {
                break;
            }
            if !dry_run {
                self.remove(file, &path).map_err(failed)?;
            }
            pruned.bytes += file.len;
            pruned.files.push(file.clone());
        }
        Ok(pruned)
    }

    /// No group of the first of these files is newer; `None`: it has none. Of one whose index does not tell, and cannot be
    /// put right because the file is damaged, the first group behind it that tells is taken: times never go back.
    fn not_after(&self, files: &[ArchivedFile]) -> Result<Option<Timestamp>, ArchiveError> {
        let Some((file, later)) = files.split_first() else { return Ok(None) };
        let error = match self.last_group(file) {
            Ok(found) => return Ok(found.map(|entry| entry.time)),
            Err(error) => error,
        };
        let first = later.iter().find_map(|file| self.first_group(file).ok().flatten());
        first.map(|entry| Some(entry.time)).ok_or(error)
    }

    /// First the mark that says so: what is not there behind it is lost. Then what is derived, so that a file without it
    /// is never taken for complete.
    fn remove(&self, file: &ArchivedFile, path: &str) -> io::Result<()> {
        let _alone = self.shared.mending.lock();
        let of = folder(file.lineage);
        match self.disk.create(&mark_name(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => drop(made?),
        }
        self.disk.sync_folder(&of)?;
        if let Some(entry) =
            self.shared.lineages.write().iter_mut().find(|e| e.record.lineage.number == file.lineage)
            && let Some(of) = entry.files.get_mut(file.ordinal as usize - 1)
        {
            of.there = false;
        }
        for name in [format!("{path}.sealed"), format!("{path}.index"), path.to_owned()] {
            match self.disk.remove(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        // Nobody can mend it any more; nor what was lost before it.
        self.shared.damages.forget_until(file.lineage, file.ordinal);
        for entry in self.shared.lineages.write().iter_mut() {
            let number = entry.record.lineage.number;
            for (old, ordinal) in entry.files.iter_mut().zip(1..) {
                old.lost &= (number, ordinal) > (file.lineage, file.ordinal);
            }
        }
        // One mark is enough.
        for mark in self.disk.files(&of)?.iter().map(|name| format!("{of}/{name}")) {
            if mark.ends_with(MARK) && mark != mark_name(path) {
                self.disk.remove(&mark)?;
            }
        }
        self.disk.sync_folder(&of)
    }
}
