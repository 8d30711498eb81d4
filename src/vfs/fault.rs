//! The kernel's errors in the words of RFC 1813.

use super::VfsError;
use std::io;

impl From<io::Error> for VfsError {
    fn from(error: io::Error) -> VfsError {
        error.raw_os_error().map_or(VfsError::Io, of_errno)
    }
}

impl From<rustix::io::Errno> for VfsError {
    fn from(error: rustix::io::Errno) -> VfsError {
        of_errno(error.raw_os_error())
    }
}

fn of_errno(errno: i32) -> VfsError {
    match errno {
        libc::EPERM => VfsError::Perm,
        libc::ENOENT => VfsError::NoEnt,
        libc::ENXIO | libc::ENODEV => VfsError::Nxio,
        // EBUSY: a mount point, which is not part of the export. ETXTBSY: a program being executed.
        libc::EACCES | libc::EBUSY | libc::ETXTBSY => VfsError::Access,
        libc::EEXIST => VfsError::Exist,
        libc::EXDEV => VfsError::XDev,
        libc::ENOTDIR => VfsError::NotDir,
        libc::EISDIR => VfsError::IsDir,
        // ELOOP: a symlink where a file was wanted; they are not followed here.
        libc::EINVAL | libc::ELOOP => VfsError::Inval,
        libc::EFBIG | libc::EOVERFLOW => VfsError::FBig,
        libc::ENOSPC => VfsError::NoSpc,
        libc::EROFS => VfsError::Rofs,
        libc::EMLINK => VfsError::MLink,
        libc::ENAMETOOLONG => VfsError::NameTooLong,
        libc::ENOTEMPTY => VfsError::NotEmpty,
        libc::EDQUOT => VfsError::DQuot,
        libc::ESTALE => VfsError::Stale,
        libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY => VfsError::NotSupp,
        // Short of memory or descriptors, a lease being broken, a search that was cut short: the client waits and retries.
        libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EINTR => VfsError::Jukebox,
        _ => VfsError::Io,
    }
}
