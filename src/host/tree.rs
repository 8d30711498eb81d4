//! An export's directory tree, opened once: objects by key, names under a directory.
//! (Bodies being written by the owner of `host`; signatures are the seam.)

use super::ObjectKey;
use ehpc_proto::replication::{Kind, Timestamp};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What statx says of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Stat {
    pub kind: Kind,
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Bytes allocated on disk.
    pub used: u64,
    pub rdev: (u32, u32),
    pub dev: u64,
    pub ino: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Birth time, where the file system has it.
    pub btime: Option<Timestamp>,
    /// The directory is the root of another mount.
    pub mount_root: bool,
}

/// A name that was found.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Found {
    pub key: ObjectKey,
    pub stat: Stat,
}

/// Where an object had a name when last seen; helps trees that cannot open by handle (not root).
pub trait EntryHints: Send + Sync {
    /// (parent, name) pairs that may lead to `key`; may be stale.
    fn entries_of(&self, key: &ObjectKey) -> Vec<(ObjectKey, Vec<u8>)>;
}

/// An export's tree. Cheap to share (`Arc<Tree>`); all calls block and act under the calling thread's ids.
pub struct Tree {
    _private: (),
}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Tree {
    /// Opens `root`, which must be a directory. Never follows symlinks below it, never leaves its mount.
    pub fn open(root: &Path) -> io::Result<Tree> {
        todo!()
    }
    pub fn root_path(&self) -> &PathBuf {
        todo!()
    }
    pub fn root_key(&self) -> &ObjectKey {
        todo!()
    }
    /// st_dev of the root.
    pub fn device(&self) -> u64 {
        todo!()
    }
    /// Identity of the file system that survives a reboot (statfs f_fsid, else device number) as bytes.
    pub fn filesystem_id(&self) -> [u8; 8] {
        todo!()
    }
    /// True when objects open by handle (CAP_DAC_READ_SEARCH and a file system with handles).
    pub fn opens_by_handle(&self) -> bool {
        todo!()
    }
    /// Where to look when an object must be found by name.
    pub fn set_hints(&self, hints: Arc<dyn EntryHints>) {
        todo!()
    }
    /// O_PATH descriptor. ESTALE if the object is gone (also: exists but nlink 0 for non-directories is still openable by handle while someone holds it; such is reported by its Stat).
    pub fn open_path(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        todo!()
    }
    /// For reading content (file) or listing (directory): O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC, O_NOATIME where permitted. ESTALE as above.
    pub fn open_read(&self, key: &ObjectKey) -> io::Result<File> {
        todo!()
    }
    /// statx of a descriptor (O_PATH is fine).
    pub fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
        todo!()
    }
    /// Key of a descriptor.
    pub fn key_of(&self, fd: BorrowedFd<'_>) -> io::Result<ObjectKey> {
        todo!()
    }
    /// The object that `name` in directory `dir` is now; `None` = no such name. Does not cross mounts: a mount point is found with `stat.mount_root`.
    pub fn lookup(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Found>> {
        todo!()
    }
    /// Names in a directory but "." and "..", in directory order, calling `each` (stop by returning false).
    pub fn list(
        &self,
        dir: BorrowedFd<'_>,
        each: &mut dyn FnMut(&[u8], u64 /* inode */, Option<Kind>) -> bool,
    ) -> io::Result<()> {
        todo!()
    }
    /// Target of a symlink.
    pub fn read_link(&self, fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        todo!()
    }
    /// Extended attributes of an object (through /proc/self/fd for O_PATH), sorted by name; empty where not supported.
    /// Skips what belongs to the file system itself (`system.*` but the two posix_acl ones; `trusted.overlay.*`).
    pub fn xattrs(&self, fd: BorrowedFd<'_>, kind: Kind) -> io::Result<Vec<ehpc_proto::replication::Xattr>> {
        todo!()
    }
    /// Path of the object within the export now, for messages ("a/b"); best effort.
    pub fn path_of(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        todo!()
    }
    /// syncfs of the export's file system.
    pub fn sync(&self) -> io::Result<()> {
        todo!()
    }
}
