//! Kernel file handles: name_to_handle_at (needs no privilege) and open_by_handle_at (CAP_DAC_READ_SEARCH).

use super::object::{KeyKind, MAX_KEY_BYTES, ObjectKey};
use smallvec::SmallVec;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct file_handle` with room for the longest handle that is accepted.
#[repr(C)]
struct RawHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u8; MAX_KEY_BYTES],
}

/// The handle of `name` in `dir`; with an empty name that of `dir` itself. Symlinks are not followed.
///
/// EOPNOTSUPP where the file system has no handles, EOVERFLOW where they are longer than a key may be.
pub fn name_to_handle(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<ObjectKey> {
    let mut raw = RawHandle { bytes: MAX_KEY_BYTES as libc::c_uint, kind: 0, data: [0; MAX_KEY_BYTES] };
    let mut mount: libc::c_int = 0;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `raw` has the layout of struct file_handle followed by the `bytes` that it announces; all
    // pointers are valid for the call.
    let result = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut raw).cast::<libc::file_handle>(),
            &raw mut mount,
            flags,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = (raw.bytes as usize).min(MAX_KEY_BYTES);
    Ok(ObjectKey {
        kind: KeyKind::Handle,
        handle_type: raw.kind,
        bytes: SmallVec::from_slice(raw.data.get(..len).unwrap_or_default()),
    })
}

/// Opens what the handle names, on the file system that `mount` (not an O_PATH descriptor) lies on.
/// ESTALE when there is no such object any more, EPERM without CAP_DAC_READ_SEARCH.
pub fn open_by_handle(mount: BorrowedFd<'_>, key: &ObjectKey, flags: i32) -> io::Result<OwnedFd> {
    if key.kind != KeyKind::Handle || key.bytes.len() > MAX_KEY_BYTES {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let mut raw =
        RawHandle { bytes: key.bytes.len() as libc::c_uint, kind: key.handle_type, data: [0; MAX_KEY_BYTES] };
    if let Some(into) = raw.data.get_mut(..key.bytes.len()) {
        into.copy_from_slice(&key.bytes);
    }
    // SAFETY: as above; the kernel only reads `bytes` bytes of `data`.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut raw).cast::<libc::file_handle>(),
            flags | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        // A handle that this file system cannot have made is as dead as a deleted object's.
        return Err(if error.raw_os_error() == Some(libc::EINVAL) {
            io::Error::from_raw_os_error(libc::ESTALE)
        } else {
            error
        });
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
