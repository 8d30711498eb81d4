//! What is owed to the disk for an object, and how it is paid.

use super::group_commit::{self, Debt, GroupCommit};
use super::{BorrowedFd, Kind, LocalVfs, ObjectKey, Tree, Use, VfsError, file};
use rustix::fs::OFlags;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl LocalVfs {
    /// The change that is being made is durable with this object's own state on disk, whatever it is.
    pub(super) fn owe_object(&self, key: &ObjectKey, fd: BorrowedFd<'_>, kind: Kind) -> Result<(), VfsError> {
        if !matches!(kind, Kind::File | Kind::Directory) {
            // Links and devices cannot be opened for fsync.
            group_commit::owe(Debt::FileSystem);
            return Ok(());
        }
        let kept =
            [Use::Write, Use::Read, Use::Flush].into_iter().find_map(|how| self.descriptors.get(key, how));
        if let Some(fd) = kept {
            group_commit::owe(Debt::Object(key.clone(), fd));
            return Ok(());
        }
        self.as_self()?;
        match file::reopen(fd, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => {
                let fd = Arc::new(fd);
                self.descriptors.keep(key, Use::Flush, &fd);
                group_commit::owe(Debt::Object(key.clone(), fd));
            }
            // Not ours to read: the whole file system, then.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => group_commit::owe(Debt::FileSystem),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// How debts are paid. A failed fsync may have lost what unstable writes left in the cache, so the verifier changes.
pub(super) fn commits(tree: &Arc<Tree>, verifier: &Arc<AtomicU64>) -> Arc<GroupCommit> {
    let (tree, verifier) = (Arc::clone(tree), Arc::clone(verifier));
    GroupCommit::new(move |debt| {
        let done = match debt {
            Debt::Object(_, fd) => rustix::fs::fsync(fd).map_err(std::io::Error::from),
            Debt::Data(_, fd) => rustix::fs::fdatasync(fd).map_err(std::io::Error::from),
            Debt::FileSystem => tree.sync(),
        };
        done.map_err(|error| {
            verifier.store(rand::random(), Ordering::Release);
            tracing::error!(%error, "fsync failed: clients will be told to write again what was not committed");
            VfsError::from(error)
        })
    })
}
