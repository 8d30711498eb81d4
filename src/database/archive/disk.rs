//! The archive's directory: a folder for each lineage. The seam to the file system, so that tests can put a disk under it
//! that crashes, fills up and fails.

use super::error::ArchiveError;
use crate::store::pack::PackError;
use crate::store::pack::disk::{Disk, RealDisk};
use std::io;
use std::path::Path;

/// Files are named `FOLDER/NAME`.
pub(crate) trait ArchiveDisk: Disk {
    /// Names of the lineages' folders.
    fn folders(&self) -> io::Result<Vec<String>>;
    /// A new folder, if there is none.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// Names of the files in a folder.
    fn files(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes creations and removals in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// The folder of a lineage.
pub(super) fn folder(lineage: u32) -> String {
    format!("{lineage:04}")
}

/// The lineage of a folder's name.
pub(super) fn lineage_of(folder: &str) -> Option<u32> {
    let number: u32 = folder.parse().ok().filter(|&number| number > 0)?;
    (self::folder(number) == folder).then_some(number)
}

/// The real directory, locked.
pub(super) fn open(directory: &Path) -> Result<RealDisk, ArchiveError> {
    RealDisk::open(directory).map_err(|error| match error {
        PackError::InUse { .. } => ArchiveError::InUse { path: directory.to_owned() },
        PackError::Directory { action, source } => {
            let action = if action == "sync its parent" { "sync the parent of" } else { "make or lock" };
            ArchiveError::Io { action, path: directory.to_owned(), source }
        }
        other => ArchiveError::Io {
            action: "open",
            path: directory.to_owned(),
            source: io::Error::other(other.to_string()),
        },
    })
}

fn names(path: &Path, wanted: impl Fn(&std::fs::Metadata) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if wanted(&entry.metadata()?)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

impl ArchiveDisk for RealDisk {
    fn folders(&self) -> io::Result<Vec<String>> {
        names(&self.path(""), std::fs::Metadata::is_dir)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        match std::fs::create_dir(self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn files(&self, folder: &str) -> io::Result<Vec<String>> {
        names(&self.path(folder), std::fs::Metadata::is_file)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        std::fs::File::open(self.path(folder))?.sync_all()
    }
}
