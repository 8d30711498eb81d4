//! Extended attributes of O_PATH descriptors.
//!
//! fgetxattr refuses O_PATH descriptors; the path /proc/self/fd/N leads to the very object, a symlink
//! included (the magic link ends at the symlink and does not follow it).

use super::file::proc_path;
use ehpc_proto::replication::Xattr;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

/// Holds an object's POSIX ACL.
pub const POSIX_ACL_ACCESS: &CStr = c"system.posix_acl_access";
/// Holds the POSIX ACL that new objects in a directory get.
pub const POSIX_ACL_DEFAULT: &CStr = c"system.posix_acl_default";

/// The kernel's limits (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const MAX: usize = 65_536;
/// How often a list or value that grows between two calls is asked for again.
const TRIES: usize = 8;

/// Sorted by name; empty where not supported. Left out: what belongs to the file system itself, and what
/// this process may not read.
pub fn list(fd: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    // The common case of an open file without any costs no walk through /proc.
    if rustix::fs::flistxattr(fd, &mut [0; 64]) == Ok(0) {
        return Ok(Vec::new());
    }
    let path = proc_path(fd);
    let Some(names) = sized(|buffer| rustix::fs::listxattr(path.as_c_str(), buffer))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if !is_kept(name) {
            continue;
        }
        let Ok(c_name) = CString::new(name) else { continue };
        if let Some(value) = sized(|buffer| rustix::fs::getxattr(path.as_c_str(), c_name.as_c_str(), buffer))?
        {
            found.push(Xattr { name: name.to_vec(), value });
        }
    }
    // The POSIX ACL names are not in every file system's list; those that list them were read above.
    found.sort();
    Ok(found)
}

/// The value of one attribute; `None` when the object has none of that name.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(fd);
    sized(|buffer| rustix::fs::getxattr(path.as_c_str(), name, buffer))
}

/// Sets or replaces one attribute.
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(proc_path(fd).as_c_str(), name, value, rustix::fs::XattrFlags::empty())?)
}

/// Removes one attribute; none of that name is fine.
pub fn remove(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::removexattr(proc_path(fd).as_c_str(), name) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_kept(name: &[u8]) -> bool {
    match name.strip_prefix(b"system.") {
        Some(rest) => rest == b"posix_acl_access" || rest == b"posix_acl_default",
        None => !name.starts_with(b"trusted.overlay."),
    }
}

/// Asks with a growing buffer; `None`: no such attribute, not supported, or not ours to read.
fn sized(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 1024];
    for _ in 0..TRIES {
        match ask(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < MAX => buffer.resize((buffer.len() * 8).min(MAX), 0),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}
