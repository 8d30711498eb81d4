//! An export's directory tree, opened once: objects by key, names under a directory.
//!
//! With CAP_DAC_READ_SEARCH and a file system that has handles, an object is opened by its handle.
//! Otherwise it is found by name (`by_name`): a bounded memory of where objects were seen, then the
//! [`EntryHints`], then one bounded walk of the tree; what is found counts only if its key is the one asked for.

use super::file::{c_name, open_name, reopen};
use super::names::Places;
use super::object::KeyKind;
use super::{ObjectKey, directory, handle, statx, xattr};
use ehpc_proto::replication::{Kind, Timestamp};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use smallvec::SmallVec;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// The object is the root of a mount (the export's own root may be one).
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
    path: PathBuf,
    /// Readable where permitted: open_by_handle_at and syncfs want more than O_PATH.
    root: OwnedFd,
    root_key: ObjectKey,
    device: u64,
    filesystem_id: [u8; 8],
    has_handles: bool,
    by_handle: bool,
    /// Files may have device numbers of their own without being on another file system (overlayfs).
    devices_vary: bool,
    pub(super) places: Mutex<Places>,
    /// One search at a time; the others profit from what it finds.
    pub(super) search: Mutex<()>,
    pub(super) hints: RwLock<Option<Arc<dyn EntryHints>>>,
}

/// f_type of overlayfs.
const OVERLAYFS: u64 = 0x794c_7630;

/// Who is called for each name of a listing: name, inode, kind; false stops.
pub type EachName<'a> = dyn FnMut(&[u8], u64, Option<Kind>) -> bool + 'a;

impl Tree {
    /// Opens `root`, which must be a directory. Never follows symlinks below it, never leaves its mount.
    pub fn open(root: &Path) -> io::Result<Tree> {
        Tree::open_as(root, true, true)
    }

    /// As [`Tree::open`] does without CAP_DAC_READ_SEARCH: objects are found by name.
    pub fn open_without_handles(root: &Path) -> io::Result<Tree> {
        Tree::open_as(root, true, false)
    }

    /// As [`Tree::open`] does on a file system without handles (overlayfs): keys are inode and birth time.
    pub fn open_with_inode_keys(root: &Path) -> io::Result<Tree> {
        Tree::open_as(root, false, false)
    }

    fn open_as(path: &Path, use_handles: bool, by_handle: bool) -> io::Result<Tree> {
        let path = path.canonicalize()?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(&path, flags | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::ACCESS) => rustix::fs::open(&path, flags | OFlags::PATH, Mode::empty()),
            other => other,
        }?;
        let stat = statx::of(root.as_fd())?;
        let handle = if use_handles { handle::name_to_handle(root.as_fd(), c"").ok() } else { None };
        let by_handle = by_handle
            && handle
                .as_ref()
                .is_some_and(|key| handle::open_by_handle(root.as_fd(), key, libc::O_PATH).is_ok());
        let fsid = rustix::fs::fstatvfs(&root)?.f_fsid;
        Ok(Tree {
            path,
            root_key: handle.clone().unwrap_or_else(|| inode_key(&stat)),
            device: stat.dev,
            filesystem_id: if fsid != 0 { fsid } else { stat.dev }.to_be_bytes(),
            has_handles: handle.is_some(),
            by_handle,
            devices_vary: rustix::fs::fstatfs(&root)?.f_type as u64 == OVERLAYFS,
            root,
            places: Mutex::default(),
            search: Mutex::default(),
            hints: RwLock::default(),
        })
    }

    /// Where it was opened (absolute, without symlinks).
    pub fn root_path(&self) -> &PathBuf {
        &self.path
    }

    /// Key of the root directory.
    pub fn root_key(&self) -> &ObjectKey {
        &self.root_key
    }

    /// Descriptor of the root directory.
    pub fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// st_dev of the root.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Identity of the file system that survives a reboot (statfs f_fsid, else device number) as bytes.
    pub fn filesystem_id(&self) -> [u8; 8] {
        self.filesystem_id
    }

    /// True when objects open by handle (CAP_DAC_READ_SEARCH and a file system with handles).
    pub fn opens_by_handle(&self) -> bool {
        self.by_handle
    }

    /// How objects are identified here.
    pub fn key_kind(&self) -> KeyKind {
        if self.has_handles { KeyKind::Handle } else { KeyKind::Inode }
    }

    /// Where to look when an object must be found by name.
    pub fn set_hints(&self, hints: Arc<dyn EntryHints>) {
        *self.hints.write() = Some(hints);
    }

    /// O_PATH descriptor. ESTALE if the object is gone (also: exists but nlink 0 for non-directories is
    /// still openable by handle while someone holds it; such is reported by its Stat).
    pub fn open_path(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        if key == &self.root_key {
            return Ok(rustix::fs::openat(
                &self.root,
                c".",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&self.root, 0))?);
        }
        if self.by_handle {
            handle::open_by_handle(self.root.as_fd(), key, libc::O_PATH | libc::O_NOFOLLOW)
        } else {
            self.find_by_name(key)
        }
    }

    /// For reading content (file) or listing (directory): O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC, O_NOATIME
    /// where permitted. ESTALE as above; EINVAL for what is neither.
    pub fn open_read(&self, key: &ObjectKey) -> io::Result<File> {
        let path = self.open_path(key)?;
        let stat = statx::of(path.as_fd())?;
        if !matches!(stat.kind, Kind::File | Kind::Directory) {
            // Opening a device or fifo has effects of its own.
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match reopen(path.as_fd(), flags | OFlags::NOATIME) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Ok(File::from(reopen(path.as_fd(), flags)?))
            }
            other => Ok(File::from(other?)),
        }
    }

    /// statx of a descriptor (O_PATH is fine).
    pub fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
        statx::of(fd)
    }

    /// Key of a descriptor.
    pub fn key_of(&self, fd: BorrowedFd<'_>) -> io::Result<ObjectKey> {
        if self.has_handles { handle::name_to_handle(fd, c"") } else { Ok(inode_key(&statx::of(fd)?)) }
    }

    /// The object that `name` in directory `dir` is now; `None` = no such name. Does not cross mounts: a
    /// mount point is found with `stat.mount_root`.
    pub fn lookup(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Found>> {
        Ok(self.lookup_open(dir, name)?.map(|(_, found)| found))
    }

    /// As [`Tree::lookup`], with the O_PATH descriptor.
    pub fn lookup_open(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<(OwnedFd, Found)>> {
        let name = c_name(name)?;
        let fd = match open_name(dir, &name) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut stat = statx::of(fd.as_fd())?;
        if self.is_foreign(&stat) {
            stat.mount_root = true;
            // Not ours: its key would say nothing within this file system.
            return Ok(Some((fd, Found { key: inode_key(&stat), stat })));
        }
        let key = if self.has_handles { handle::name_to_handle(fd.as_fd(), c"")? } else { inode_key(&stat) };
        if !self.by_handle {
            let dir = self.key_of(dir)?;
            self.places.lock().remember(key.clone(), dir, name.as_bytes());
        }
        Ok(Some((fd, Found { key, stat })))
    }

    /// Names in a directory but "." and "..", in directory order, calling `each` (stop by returning false).
    /// `dir` may be O_PATH; if it is not, its position is moved.
    pub fn list(&self, dir: BorrowedFd<'_>, each: &mut EachName<'_>) -> io::Result<()> {
        let mut adapter = |entry: directory::Listed<'_>| {
            let name = entry.name.to_bytes();
            name == b"." || name == b".." || each(name, entry.ino, entry.kind)
        };
        match directory::read(dir, 0, &mut adapter) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                let readable = reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
                directory::read(readable.as_fd(), 0, &mut adapter)?;
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Target of a symlink.
    pub fn read_link(&self, fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(fd, c"", Vec::with_capacity(256))?.into_bytes())
    }

    /// Extended attributes of an object (through /proc/self/fd for O_PATH), sorted by name; empty where not
    /// supported. Skips what belongs to the file system itself (`system.*` but the two posix_acl ones;
    /// `trusted.overlay.*`).
    pub fn xattrs(&self, fd: BorrowedFd<'_>, _kind: Kind) -> io::Result<Vec<ehpc_proto::replication::Xattr>> {
        xattr::list(fd)
    }

    /// Path of the object within the export now, for messages ("a/b"); best effort.
    pub fn path_of(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        self.path_of_at_depth(key, 0)
    }

    fn path_of_at_depth(&self, key: &ObjectKey, depth: usize) -> Option<Vec<u8>> {
        if key == &self.root_key {
            return Some(Vec::new());
        }
        if depth > 64 {
            return None;
        }
        if let Some(path) = self.path_from_kernel(key) {
            return Some(path);
        }
        // A file opened by handle alone may have no name that the kernel knows.
        let hints = self.hints.read().clone()?;
        let (dir, name) = hints.entries_of(key).into_iter().next()?;
        let mut path = self.path_of_at_depth(&dir, depth + 1)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        Some(path)
    }

    fn path_from_kernel(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        let fd = self.open_path(key).ok()?;
        let now = rustix::fs::readlink(super::file::proc_path(fd.as_fd()).as_c_str(), Vec::new()).ok()?;
        let below = now.to_bytes().strip_prefix(self.path.as_os_str().as_bytes())?;
        let below = if self.path.as_os_str() == "/" { below } else { below.strip_prefix(b"/")? };
        if below.is_empty() || below.ends_with(b" (deleted)") { None } else { Some(below.to_vec()) }
    }

    /// syncfs of the export's file system.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::syncfs(&self.root) {
            // The root is not readable for us and was opened O_PATH.
            Err(Errno::BADF) => {
                rustix::fs::sync();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Mount points below the root (paths within the export): they are not part of it.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = super::mounts::table()
            .unwrap_or_default()
            .into_iter()
            .map(|mount| mount.point)
            .filter_map(|path| path.strip_prefix(&self.path).ok().map(Path::to_path_buf))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// `key` now has the name `name` in `dir` (a tree that opens by handle need not know).
    pub fn remember(&self, key: &ObjectKey, dir: &ObjectKey, name: &[u8]) {
        if !self.by_handle {
            self.places.lock().remember(key.clone(), dir.clone(), name);
        }
    }

    /// `key` was deleted: it need not be searched for.
    pub fn forget(&self, key: &ObjectKey) {
        if !self.by_handle {
            self.places.lock().note_missing(key);
        }
    }

    /// Does what a name led to lie on another mount or file system?
    pub fn is_foreign(&self, stat: &Stat) -> bool {
        stat.mount_root || (stat.dev != self.device && !self.devices_vary)
    }

    /// Key of `name` in `dir` without opening it (one system call where the file system has handles).
    pub fn key_at(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<ObjectKey> {
        if self.has_handles {
            handle::name_to_handle(dir, name)
        } else {
            Ok(inode_key(&statx::at(dir, name)?))
        }
    }
}

/// Inode and birth time, 8 + 8 + 4 bytes, big endian.
fn inode_key(stat: &Stat) -> ObjectKey {
    let born = stat.btime.unwrap_or_default();
    let mut bytes = SmallVec::new();
    bytes.extend_from_slice(&stat.ino.to_be_bytes());
    bytes.extend_from_slice(&born.seconds.to_be_bytes());
    bytes.extend_from_slice(&born.nanos.to_be_bytes());
    ObjectKey { kind: KeyKind::Inode, handle_type: 0, bytes }
}
