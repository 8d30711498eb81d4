//! As whom a server runs: not as root where that can be helped.

use super::error::ServerError;
use crate::host::{self, name_service};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// The account of the server's packages.
const ACCOUNT: &str = "mysql";

/// User and group of a server process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// Our own.
    Own,
    /// Another.
    Other { uid: u32, gid: u32 },
}

impl Owner {
    /// Of the server whose data is in `datadir` (it exists): `mysql` when we are root, that user exists and can reach the
    /// directory; else our own. (The directories of this product are private to root unless they were made otherwise.)
    pub(super) fn of(datadir: &Path) -> Owner {
        if host::privileges().euid != 0 {
            return Owner::Own;
        }
        let user = name_service::user_by_name(ACCOUNT).ok().flatten();
        let group = name_service::group_by_name(ACCOUNT).ok().flatten();
        match (user, group) {
            (Some(uid), Some(gid)) if reaches(datadir, uid, gid) => Owner::Other { uid, gid },
            _ => Owner::Own,
        }
    }

    /// Gives a file to this owner.
    pub(super) fn give(self, path: &Path) -> Result<(), ServerError> {
        match self {
            Owner::Own => Ok(()),
            Owner::Other { uid, gid } => chown(path, Some(uid), Some(gid))
                .map_err(ServerError::file("cannot change the owner of", path)),
        }
    }

    /// Gives a directory and everything below it to this owner.
    pub(super) fn give_all(self, path: &Path) -> Result<(), ServerError> {
        self.give(path)?;
        let read = |error| ServerError::file("cannot read", path)(error);
        for entry in std::fs::read_dir(path).map_err(read)? {
            let entry = entry.map_err(ServerError::file("cannot read", path))?;
            // The type is the entry's own: a symbolic link is not followed, nor given away.
            let kind = entry.file_type().map_err(ServerError::file("cannot read", path))?;
            match (kind.is_dir(), kind.is_symlink()) {
                (true, _) => self.give_all(&entry.path())?,
                (_, true) => {}
                _ => self.give(&entry.path())?,
            }
        }
        Ok(())
    }
}

/// May this user pass through every directory above `path`?
fn reaches(path: &Path, uid: u32, gid: u32) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().skip(1).all(|directory| {
        directory.metadata().is_ok_and(|found| {
            let mode = found.mode();
            match (found.uid() == uid, found.gid() == gid) {
                (true, _) => mode & 0o100 != 0,
                (_, true) => mode & 0o010 != 0,
                _ => mode & 0o001 != 0,
            }
        })
    })
}
