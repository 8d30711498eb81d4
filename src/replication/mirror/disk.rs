//! The system calls that change the mirror, each relative to a directory descriptor and never through a symlink.
//! They all pass one gate, so that tests can stop between any two or lose what a power cut would lose.

use super::view::{Identity, RawPlace};
use crate::host::cache::{WriteBehind, drop_cached};
use crate::host::pread_append;
use ehpc_proto::replication::{Kind, Timestamp, Xattr};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes copied out of one pack, one after the other.
const MUCH: u64 = 16 << 20;

/// What is about to happen, for the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A name appears, moves or goes.
    Names,
    /// Bytes of a file.
    Content,
    /// Mode, owner, times, extended attributes.
    Attributes,
}

/// What the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))] // production has no gate
pub(crate) enum Verdict {
    /// Do it.
    Go,
    /// Report success without doing it (not for [`Step::Names`]): what an unclean stop may do to unsynced data.
    Lose,
    /// The process dies here.
    Die,
}

/// What is said of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    #[cfg_attr(not(test), allow(dead_code))] // tests compare it
    pub(crate) nlink: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) rdev: (u32, u32),
}

fn stat_of(statx: &Statx) -> io::Result<Stat> {
    let mode = u32::from(statx.stx_mode);
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return Err(io::Error::other(format!("unknown file type, mode {mode:o}"))),
    };
    let birth = (statx.stx_mask & StatxFlags::BTIME.bits() != 0)
        .then_some((statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec));
    Ok(Stat {
        identity: Identity::of(statx.stx_ino, birth),
        kind,
        mode: statx.stx_mode & 0o7777,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        size: statx.stx_size,
        nlink: statx.stx_nlink,
        mtime: Timestamp { seconds: statx.stx_mtime.tv_sec, nanos: statx.stx_mtime.tv_nsec },
        rdev: (statx.stx_rdev_major, statx.stx_rdev_minor),
    })
}

const STAT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// statx of a descriptor.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    stat_of(&rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, STAT)?)
}

/// lstat; `None` = no such name.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, STAT) {
        Ok(statx) => stat_of(&statx).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory for work in it.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Names in a directory but "." and "..".
pub(crate) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// An inode to be changed: by descriptor where one is open for it, else by name.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Target<'_> {
    /// For calls that know no "at" form; the last component is not followed by them.
    fn path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    }

    /// Names and values of all extended attributes; empty where there are none to be had.
    pub(crate) fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        let mut names: Vec<u8> = Vec::with_capacity(1024);
        loop {
            names.clear();
            let spare = rustix::buffer::spare_capacity(&mut names);
            let result = match self {
                Target::Open(fd) => rustix::fs::flistxattr(fd, spare),
                Target::Named(dir, name) => rustix::fs::llistxattr(Self::path(*dir, name), spare),
            };
            match result {
                Ok(_) => break,
                Err(Errno::RANGE) => names = Vec::with_capacity(names.capacity() * 4),
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            }
        }
        let mut found = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty() && carried(name)) {
            if let Some(value) = self.xattr(name)? {
                found.push(Xattr { name: name.to_vec(), value });
            }
        }
        found.sort();
        Ok(found)
    }

    /// One extended attribute.
    pub(crate) fn xattr(&self, attribute: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value: Vec<u8> = Vec::with_capacity(256);
        loop {
            value.clear();
            let spare = rustix::buffer::spare_capacity(&mut value);
            let result = match self {
                Target::Open(fd) => rustix::fs::fgetxattr(fd, attribute, spare),
                Target::Named(dir, name) => rustix::fs::lgetxattr(Self::path(*dir, name), attribute, spare),
            };
            match result {
                Ok(_) => return Ok(Some(value)),
                Err(Errno::RANGE) => value = Vec::with_capacity(64 * 1024),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Is this attribute part of an object's state? (What the file system keeps for itself is not.)
fn carried(name: &[u8]) -> bool {
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => !name.starts_with(b"system.") && !name.starts_with(b"trusted.overlay."),
    }
}

fn timestamps(mtime: Timestamp) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The gate and the calls behind it.
#[derive(Default)]
pub(crate) struct Disk {
    /// For content that is copied.
    buffer: Vec<u8>,
    behind: WriteBehind,
    /// The pack last copied from, and how much.
    source: Option<(Arc<File>, u64)>,
    #[cfg(test)]
    pub(crate) gate: Option<Box<dyn FnMut(Step) -> Verdict + Send>>,
}

impl Disk {
    #[cfg(test)]
    fn pass(&mut self, step: Step) -> io::Result<bool> {
        match self.gate.as_mut().map_or(Verdict::Go, |gate| gate(step)) {
            Verdict::Go => Ok(true),
            Verdict::Lose => Ok(step == Step::Names),
            Verdict::Die => Err(io::Error::other("stopped here by the test")),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn pass(&mut self, _step: Step) -> io::Result<bool> {
        Ok(true)
    }

    pub(crate) fn rename(
        &mut self,
        from: (BorrowedFd<'_>, &[u8]),
        to: (BorrowedFd<'_>, &[u8]),
    ) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?)
    }

    pub(crate) fn link(
        &mut self,
        from: (BorrowedFd<'_>, &[u8]),
        to: (BorrowedFd<'_>, &[u8]),
    ) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())?)
    }

    pub(crate) fn unlink(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    pub(crate) fn rmdir(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    pub(crate) fn mkdir(&mut self, dir: BorrowedFd<'_>, name: &[u8], mode: u16) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(u32::from(mode)))?)
    }

    pub(crate) fn symlink(&mut self, target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.pass(Step::Names)?;
        Ok(rustix::fs::symlinkat(target, dir, name)?)
    }

    pub(crate) fn mknod(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        file_type: FileType,
        mode: u16,
        rdev: (u32, u32),
    ) -> io::Result<()> {
        self.pass(Step::Names)?;
        let dev = rustix::fs::makedev(rdev.0, rdev.1);
        Ok(rustix::fs::mknodat(dir, name, file_type, Mode::from_raw_mode(u32::from(mode)), dev)?)
    }

    /// A new regular file, open for writing.
    pub(crate) fn create(&mut self, dir: BorrowedFd<'_>, name: &[u8], mode: u16) -> io::Result<OwnedFd> {
        self.pass(Step::Names)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(u32::from(mode)))?)
    }

    pub(crate) fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.pass(Step::Content)? {
            return Ok(());
        }
        write_all(fd, bytes, offset)?;
        self.behind.wrote(fd, offset..offset + bytes.len() as u64);
        Ok(())
    }

    /// Another file is written from here on.
    pub(crate) fn begin_content(&mut self) {
        self.behind = WriteBehind::default();
    }

    /// Copies `len` bytes out of a pack; `false` = they are not all there. (copy_file_range takes twice the time between
    /// two page caches, and shares no blocks, for a record's bytes are aligned to nothing.)
    pub(crate) fn copy(
        &mut self,
        from: &RawPlace,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u32,
    ) -> io::Result<bool> {
        if !self.pass(Step::Content)? {
            return Ok(true);
        }
        self.buffer.clear();
        pread_append(from.file.as_fd(), from.offset, len as usize, &mut self.buffer)?;
        if self.buffer.len() < len as usize {
            return Ok(false);
        }
        write_all(fd, &self.buffer, offset)?;
        self.behind.wrote(fd, offset..offset + u64::from(len));
        self.copied_from(from, len);
        Ok(true)
    }

    /// A pack that gave much of its content is not needed in the page cache any more.
    fn copied_from(&mut self, from: &RawPlace, len: u32) {
        match &mut self.source {
            Some((pack, bytes)) if Arc::ptr_eq(pack, &from.file) => *bytes += u64::from(len),
            _ => {
                if let Some((pack, bytes)) = self.source.replace((from.file.clone(), u64::from(len)))
                    && bytes >= MUCH
                {
                    drop_cached(pack.as_fd(), 0..i64::MAX as u64);
                }
            }
        }
    }

    pub(crate) fn truncate(&mut self, fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
        if self.pass(Step::Content)? {
            rustix::fs::ftruncate(fd, size)?;
        }
        Ok(())
    }

    /// Makes a hole; `false` = not on this file system.
    pub(crate) fn punch(&mut self, fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<bool> {
        if !self.pass(Step::Content)? {
            return Ok(true);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(fd, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn chown(&mut self, target: Target<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        if self.pass(Step::Attributes)? {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            match target {
                Target::Open(fd) => rustix::fs::fchown(fd, uid, gid)?,
                Target::Named(dir, name) => {
                    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?
                }
            }
        }
        Ok(())
    }

    /// Not for symlinks, which have no mode of their own.
    pub(crate) fn chmod(&mut self, target: Target<'_>, mode: u16) -> io::Result<()> {
        if !self.pass(Step::Attributes)? {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(u32::from(mode));
        match target {
            Target::Open(fd) => rustix::fs::fchmod(fd, mode)?,
            Target::Named(dir, name) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let held = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                if stat_fd(rustix::fd::AsFd::as_fd(&held))?.kind == Kind::Symlink {
                    return Err(Errno::LOOP.into());
                }
                rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), mode)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_mtime(&mut self, target: Target<'_>, mtime: Timestamp) -> io::Result<()> {
        if self.pass(Step::Attributes)? {
            let times = timestamps(mtime);
            match target {
                Target::Open(fd) => rustix::fs::futimens(fd, &times)?,
                Target::Named(dir, name) => {
                    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?
                }
            }
        }
        Ok(())
    }

    pub(crate) fn set_xattr(&mut self, target: Target<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
        if self.pass(Step::Attributes)? {
            match target {
                Target::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?,
                Target::Named(dir, file) => {
                    rustix::fs::lsetxattr(Target::path(dir, file), name, value, XattrFlags::empty())?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn remove_xattr(&mut self, target: Target<'_>, name: &[u8]) -> io::Result<()> {
        if self.pass(Step::Attributes)? {
            let result = match target {
                Target::Open(fd) => rustix::fs::fremovexattr(fd, name),
                Target::Named(dir, file) => rustix::fs::lremovexattr(Target::path(dir, file), name),
            };
            match result {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
