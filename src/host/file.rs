//! What is done with open files beyond std: durability, holes, reopening.

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `/proc/self/fd/N`: a path that leads to the very object of the descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Where the object of a descriptor (also O_PATH) lies, as the kernel remembers it: for people, not for decisions.
pub fn path_of(fd: BorrowedFd<'_>) -> io::Result<std::path::PathBuf> {
    let link = rustix::fs::readlink(proc_path(fd).as_c_str(), Vec::new())?;
    Ok(std::path::PathBuf::from(std::ffi::OsStr::from_bytes(link.as_bytes())))
}

/// Opens the object of a descriptor (also O_PATH) anew, under the thread's ids. A symlink gives ELOOP.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::open(proc_path(fd).as_c_str(), flags, rustix::fs::Mode::empty())?)
}

/// chmod of the object of a descriptor (also O_PATH).
pub fn chmod(fd: BorrowedFd<'_>, mode: u16) -> io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(u32::from(mode & 0o7777));
    Ok(rustix::fs::chmod(proc_path(fd).as_c_str(), mode)?)
}

/// faccessat2 on the object of a descriptor (also O_PATH) under the thread's file-system ids:
/// the kernel's own answer, POSIX ACLs and read-only mounts included. `mode`: R_OK 4, W_OK 2, X_OK 1.
pub fn permits(fd: BorrowedFd<'_>, mode: u32) -> io::Result<bool> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: plain integers and a NUL-terminated constant.
    let result = unsafe {
        libc::syscall(libc::SYS_faccessat2, fd.as_raw_fd(), c"".as_ptr(), mode as libc::c_int, flags)
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY) => Ok(false),
        _ => Err(error),
    }
}

/// Writes the dirty pages of a file and waits for them (no metadata, no disk flush): makes stores through
/// mmap visible as a new mtime.
pub fn sync_file_range(fd: BorrowedFd<'_>) -> io::Result<()> {
    write_out(fd, 0..0, true)
}

/// Begins to write the dirty pages of a range; `wait`: and waits until they are written (data alone, no disk flush).
pub(super) fn write_out(fd: BorrowedFd<'_>, range: std::ops::Range<u64>, wait: bool) -> io::Result<()> {
    let whole =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let flags = if wait { whole } else { libc::SYNC_FILE_RANGE_WRITE };
    let offset = |offset| i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (start, length) = (offset(range.start)?, offset(range.end.saturating_sub(range.start))?);
    // SAFETY: plain integers.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), start, length, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Everything dirty of the file system that `fd` (not O_PATH) lies on, on disk.
pub fn syncfs(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// A directory's entries on disk.
pub fn fsync_dir(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    Ok(rustix::fs::fsync(dir)?)
}

/// Start of the next data at or after `offset`; `None` = only a hole up to the end. Moves the position.
pub fn seek_data(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(fd, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Start of the next hole at or after `offset` (the end of the file counts as one); `None` = `offset` is
/// at or past the end. Moves the position.
pub fn seek_hole(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(fd, SeekFrom::Hole(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a hole; the size stays. EOPNOTSUPP where the file system cannot.
pub fn punch_hole(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(fd, flags, offset, len)?)
}

/// Appends at most `count` bytes from `offset` of the file, without zeroing them first; fewer only at the end.
pub fn pread_append(fd: BorrowedFd<'_>, offset: u64, count: usize, into: &mut Vec<u8>) -> io::Result<usize> {
    into.reserve(count);
    let mut done = 0;
    while done < count {
        let Some(spare) = into.spare_capacity_mut().get_mut(..count - done) else { break };
        let (read, _) = match rustix::io::pread(fd, spare, offset.saturating_add(done as u64)) {
            Ok(parts) => parts,
            Err(Errno::INTR) => continue,
            // What was read before the fault is an answer of its own.
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        };
        let read = read.len();
        if read == 0 {
            break;
        }
        // SAFETY: the kernel initialised `read` bytes right after the current length.
        unsafe { into.set_len(into.len() + read) };
        done += read;
    }
    Ok(done)
}

/// As [`pread_append`] from the page cache alone (RWF_NOWAIT): `None`, and `into` as it was, when the disk would have to
/// be waited for before all that the file has there is read. EOPNOTSUPP where the file system cannot tell.
pub fn pread_cached(
    fd: BorrowedFd<'_>,
    offset: u64,
    count: usize,
    into: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    let start = into.len();
    into.reserve(count);
    let mut done = 0;
    while done < count {
        let Some(spare) = into.spare_capacity_mut().get_mut(..count - done) else { break };
        let part = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
        let at = i64::try_from(offset.saturating_add(done as u64))
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: `part` names memory of `into` that nobody else uses during the call.
        let read = unsafe { libc::preadv2(fd.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) };
        let Ok(read) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => {
                    into.truncate(start);
                    return Ok(None);
                }
                _ => {
                    into.truncate(start);
                    return Err(error);
                }
            }
        };
        if read == 0 {
            break;
        }
        // SAFETY: the kernel initialised `read` bytes right after the current length.
        unsafe { into.set_len(into.len() + read) };
        done += read;
    }
    Ok(Some(done))
}

/// Most hard links to one object of the file system.
pub fn link_max(fd: BorrowedFd<'_>) -> u32 {
    // SAFETY: plain integers.
    let limit = unsafe { libc::fpathconf(fd.as_raw_fd(), libc::_PC_LINK_MAX) };
    u32::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(32_000)
}

/// `name` as the system calls want it. EINVAL for what is not the name of an entry: it must not become a path.
pub(crate) fn c_name(name: &[u8]) -> io::Result<CString> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Opens `name` in `dir` without following it: O_PATH.
pub(super) fn open_name(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())?)
}

/// Largest file of the file system, as far as it is known (ext4: 16 TiB less one block with 4 KiB blocks).
pub fn max_size(fd: BorrowedFd<'_>) -> u64 {
    const EXT4: i64 = 0xef53;
    match rustix::fs::fstatfs(fd) {
        // Block numbers of a file are 32 bits.
        Ok(stat) if stat.f_type == EXT4 => {
            let block = u64::try_from(stat.f_bsize).unwrap_or(4096);
            u64::from(u32::MAX).saturating_mul(block)
        }
        _ => i64::MAX as u64,
    }
}

/// A second name for the object of a descriptor (also O_PATH; a symlink itself, not its target).
pub fn link(object: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let source = proc_path(object);
    // The magic link is followed to the object, and no further.
    Ok(rustix::fs::linkat(
        rustix::fs::CWD,
        source.as_c_str(),
        dir,
        name,
        rustix::fs::AtFlags::SYMLINK_FOLLOW,
    )?)
}
