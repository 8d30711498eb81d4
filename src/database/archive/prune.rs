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

impl Archive {
    /// Removes the oldest files, as long as each lies wholly before `before` (the place of the oldest base that is kept)
    /// and its newest group is older than `older_than`. The newest file always stays. With `dry_run` nothing is removed.
    ///
    /// # Errors
    ///
    /// The disk, or an index that cannot be put right. What was removed until then is gone.
    pub fn prune(&self, before: Place, older_than: Timestamp, dry_run: bool) -> Result<Pruned, ArchiveError> {
        let mut pruned = Pruned::default();
        let files = self.files();
        let oldest = files.split_last().map_or(&[][..], |(_, older)| older);
        let mut last = Timestamp { seconds: i64::MIN, nanos: 0 };
        for file in oldest {
            let path = file_name(file.lineage, &file.name);
            let failed = |source| ArchiveError::Io { action: "prune", path: self.disk.path(&path), source };
            // A file without groups is as old as the one before it.
            last = self.last_group(file)?.map_or(last, |entry| entry.time);
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

    /// First what is derived, so that a file without it is never taken for complete.
    fn remove(&self, file: &ArchivedFile, path: &str) -> io::Result<()> {
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
        // Nobody can mend it any more.
        self.shared.damages.forget(file.lineage, file.ordinal);
        self.disk.sync_folder(&folder(file.lineage))
    }
}
