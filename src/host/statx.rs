//! statx: everything about an object in one call, birth time and mount root included.

use super::tree::Stat;
use ehpc_proto::replication::{Kind, Timestamp};
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp};
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

/// Of a descriptor (O_PATH is fine).
pub fn of(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    at(fd, c"")
}

/// Of `name` in `dir` (empty: `dir` itself). Symlinks are not followed, nothing is mounted by the look.
pub fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let raw = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(convert(&raw))
}

fn convert(raw: &Statx) -> Stat {
    Stat {
        kind: kind_of(FileType::from_raw_mode(u32::from(raw.stx_mode))).unwrap_or(Kind::File),
        mode: raw.stx_mode & 0o7777,
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        used: raw.stx_blocks.saturating_mul(512),
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        atime: timestamp(&raw.stx_atime),
        mtime: timestamp(&raw.stx_mtime),
        ctime: timestamp(&raw.stx_ctime),
        btime: (raw.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| timestamp(&raw.stx_btime)),
        mount_root: raw.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}

fn timestamp(raw: &StatxTimestamp) -> Timestamp {
    Timestamp { seconds: raw.tv_sec, nanos: raw.tv_nsec }
}

/// `None` for what the kernel does not know (DT_UNKNOWN).
pub(super) fn kind_of(file_type: FileType) -> Option<Kind> {
    Some(match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return None,
    })
}
