//! fanotify: every change of a file system, reported with directory handle, name and object handle.
//!
//! Needs CAP_SYS_ADMIN. Records are parsed with every length checked: a record that does not add up is
//! [`Malformed`], which a watcher answers like a lost one.

use super::object::{KeyKind, MAX_KEY_BYTES, ObjectKey};
use smallvec::SmallVec;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Event bits, as the kernel names them.
#[allow(missing_docs)]
pub mod mask {
    pub const MODIFY: u64 = libc::FAN_MODIFY;
    pub const ATTRIB: u64 = libc::FAN_ATTRIB;
    pub const CLOSE_WRITE: u64 = libc::FAN_CLOSE_WRITE;
    pub const MOVED_FROM: u64 = libc::FAN_MOVED_FROM;
    pub const MOVED_TO: u64 = libc::FAN_MOVED_TO;
    pub const CREATE: u64 = libc::FAN_CREATE;
    pub const DELETE: u64 = libc::FAN_DELETE;
    pub const DELETE_SELF: u64 = libc::FAN_DELETE_SELF;
    pub const RENAME: u64 = 0x1000_0000;
    pub const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;
    pub const ONDIR: u64 = libc::FAN_ONDIR;
}

const REPORT_TARGET_FID: u32 = 0x1000;
const INFO_FID: u8 = 1;
const INFO_DFID_NAME: u8 = 2;
const INFO_DFID: u8 = 3;
const INFO_OLD_DFID_NAME: u8 = 10;
const INFO_NEW_DFID_NAME: u8 = 12;
const METADATA_LEN: usize = 24;
const METADATA_VERSION: u8 = 3;

/// A record of the kernel's that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("fanotify record is malformed: {0}")]
pub struct Malformed(&'static str);

/// A notification group.
pub struct Fanotify {
    fd: OwnedFd,
    renames: bool,
}

impl Fanotify {
    /// Opens a group with an unbounded queue that reports directory, name and object.
    pub fn open() -> io::Result<Fanotify> {
        Fanotify::open_with(libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS)
    }

    /// With the queue's default limit, so that a test can fill it.
    #[cfg(test)]
    pub(crate) fn open_bounded() -> io::Result<Fanotify> {
        Fanotify::open_with(0)
    }

    fn open_with(limits: u32) -> io::Result<Fanotify> {
        let class = libc::FAN_CLOEXEC | libc::FAN_CLASS_NOTIF | libc::FAN_NONBLOCK;
        let names = libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID;
        match init(class | limits | names | REPORT_TARGET_FID) {
            Ok(fd) => Ok(Fanotify { fd, renames: true }),
            // Before Linux 5.17: no object with a name's event, and a rename is two events.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Fanotify { fd: init(class | limits | names)?, renames: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Watches the whole file system that `path` lies on.
    pub fn mark_filesystem(&self, path: &Path) -> io::Result<()> {
        let rename = if self.renames { mask::RENAME } else { mask::MOVED_FROM | mask::MOVED_TO };
        let events = mask::CREATE
            | mask::DELETE
            | mask::MODIFY
            | mask::ATTRIB
            | mask::CLOSE_WRITE
            | mask::DELETE_SELF
            | mask::ONDIR
            | rename;
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, events, path)
    }

    /// Watches files being created in one directory, on whatever file system, in the same queue.
    pub fn mark_directory(&self, path: &Path) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR, mask::CREATE, path)
    }

    fn mark(&self, flags: u32, events: u64, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is a valid C string for the call; the descriptor is ours.
        let result =
            unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), flags, events, libc::AT_FDCWD, path.as_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads what is queued into `buffer`; WouldBlock when nothing is. Feed the bytes to [`events`].
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn init(flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd =
        unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC) as u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A directory and a name in it ("." for the directory itself).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Place<'a> {
    pub dir: ObjectKey,
    pub name: &'a [u8],
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Event<'a> {
    /// Bits of [`mask`]; equal events may have been merged.
    pub mask: u64,
    /// Process that did it.
    pub pid: i32,
    /// Where the object has its name.
    pub place: Option<Place<'a>>,
    /// The object itself.
    pub object: Option<ObjectKey>,
    /// Where a rename took it from.
    pub old: Option<Place<'a>>,
    /// Where a rename put it.
    pub new: Option<Place<'a>>,
}

/// The events in what [`Fanotify::read`] returned. Ends after the first malformed one.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Result<Event<'_>, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split_event(rest) {
            Ok((record, after)) => {
                rest = after;
                Some(event(record))
            }
            Err(malformed) => {
                rest = &[];
                Some(Err(malformed))
            }
        }
    })
}

// The kernel's records are in this machine's byte order and never leave it.
#[allow(clippy::host_endian_bytes)]
mod native {
    use super::Malformed;

    fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
        let end = at.checked_add(N).ok_or(Malformed("offset overflows"))?;
        bytes.get(at..end).and_then(|part| part.try_into().ok()).ok_or(Malformed("truncated field"))
    }

    pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
        array(bytes, at).map(u16::from_ne_bytes)
    }

    pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
        array(bytes, at).map(u32::from_ne_bytes)
    }

    pub(super) fn i32_at(bytes: &[u8], at: usize) -> Result<i32, Malformed> {
        array(bytes, at).map(i32::from_ne_bytes)
    }

    pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Malformed> {
        array(bytes, at).map(u64::from_ne_bytes)
    }
}
use native::{i32_at, u16_at, u32_at, u64_at};

fn split_event(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let len = u32_at(bytes, 0)? as usize;
    if len < METADATA_LEN {
        return Err(Malformed("event shorter than its metadata"));
    }
    bytes.split_at_checked(len).ok_or(Malformed("event longer than what was read"))
}

fn event(record: &[u8]) -> Result<Event<'_>, Malformed> {
    if record.get(4) != Some(&METADATA_VERSION) {
        return Err(Malformed("unknown metadata version"));
    }
    let metadata_len = usize::from(u16_at(record, 6)?);
    let mut event = Event { mask: u64_at(record, 8)?, pid: i32_at(record, 20)?, ..Event::default() };
    let mut rest =
        record.get(metadata_len.max(METADATA_LEN)..).ok_or(Malformed("metadata longer than its event"))?;
    while !rest.is_empty() {
        let kind = *rest.first().ok_or(Malformed("truncated field"))?;
        let len = usize::from(u16_at(rest, 2)?);
        let (info, after) = rest.split_at_checked(len).ok_or(Malformed("info longer than its event"))?;
        if info.len() < 4 {
            return Err(Malformed("info shorter than its header"));
        }
        match kind {
            INFO_FID => event.object = handle(info)?.0,
            INFO_DFID_NAME => event.place = place(info)?,
            INFO_DFID => event.place = handle(info)?.0.map(|dir| Place { dir, name: b"." }),
            INFO_OLD_DFID_NAME => event.old = place(info)?,
            INFO_NEW_DFID_NAME => event.new = place(info)?,
            _ => {}
        }
        rest = after;
    }
    Ok(event)
}

/// Header (4), fsid (8), handle length (4), handle type (4), handle: the key and what follows it.
/// No key for what cannot be one (too long for any object that we know).
fn handle(info: &[u8]) -> Result<(Option<ObjectKey>, &[u8]), Malformed> {
    let len = u32_at(info, 12)? as usize;
    let handle_type = i32_at(info, 16)?;
    let rest = info.get(20..).ok_or(Malformed("info shorter than a handle's header"))?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(Malformed("handle longer than its info"))?;
    let key = (1..=MAX_KEY_BYTES).contains(&len).then(|| ObjectKey {
        kind: KeyKind::Handle,
        handle_type,
        bytes: SmallVec::from_slice(bytes),
    });
    Ok((key, after))
}

fn place(info: &[u8]) -> Result<Option<Place<'_>>, Malformed> {
    let (dir, after) = handle(info)?;
    let end = after.iter().position(|&byte| byte == 0).ok_or(Malformed("name without its end"))?;
    let name = after.get(..end).unwrap_or_default();
    Ok(dir.map(|dir| Place { dir, name }))
}

/// For tests of watchers: stores `bytes` at the start of a file through a shared mapping.
#[cfg(test)]
pub(crate) fn store_through_mmap(file: &std::fs::File, bytes: &[u8]) -> io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping; it is as long as what is copied, and unmapped before this returns.
    unsafe {
        let map = mmap(std::ptr::null_mut(), bytes.len(), protection, MapFlags::SHARED, file, 0)?;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>(), bytes.len());
        munmap(map, bytes.len())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::host_endian_bytes)]
mod tests {
    use super::*;

    fn info(kind: u8, handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.extend_from_slice(&(handle.len() as u32).to_ne_bytes());
        body.extend_from_slice(&1i32.to_ne_bytes());
        body.extend_from_slice(handle);
        if let Some(name) = name {
            body.extend_from_slice(name);
            body.push(0);
        }
        while !body.len().is_multiple_of(4) {
            body.push(0);
        }
        let mut out = vec![kind, 0];
        out.extend_from_slice(&((body.len() + 4) as u16).to_ne_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn record(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let len = METADATA_LEN + infos.iter().map(Vec::len).sum::<usize>();
        let mut out = (len as u32).to_ne_bytes().to_vec();
        out.extend_from_slice(&[METADATA_VERSION, 0]);
        out.extend_from_slice(&(METADATA_LEN as u16).to_ne_bytes());
        out.extend_from_slice(&mask.to_ne_bytes());
        out.extend_from_slice(&(-1i32).to_ne_bytes());
        out.extend_from_slice(&42i32.to_ne_bytes());
        infos.iter().for_each(|info| out.extend_from_slice(info));
        out
    }

    fn key(bytes: &[u8]) -> ObjectKey {
        ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(bytes) }
    }

    #[test]
    fn directory_name_object_and_rename_are_read() {
        let mut bytes = record(
            mask::CREATE,
            &[info(INFO_DFID_NAME, b"dir-hand", Some(b"name")), info(INFO_FID, b"object-h", None)],
        );
        bytes.extend(record(
            mask::RENAME,
            &[
                info(INFO_OLD_DFID_NAME, b"old-hand", Some(b"a")),
                info(INFO_NEW_DFID_NAME, b"new-hand", Some(b"bb")),
                info(99, b"whatever", None),
            ],
        ));
        let read: Vec<Event<'_>> = events(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].place, Some(Place { dir: key(b"dir-hand"), name: b"name" }));
        assert_eq!(read[0].object, Some(key(b"object-h")));
        assert_eq!((read[0].mask, read[0].pid), (mask::CREATE, 42));
        assert_eq!(read[1].old, Some(Place { dir: key(b"old-hand"), name: b"a" }));
        assert_eq!(read[1].new, Some(Place { dir: key(b"new-hand"), name: b"bb" }));
    }

    #[test]
    fn every_truncation_is_malformed_and_no_garbage_panics() {
        let whole = record(mask::CREATE, &[info(INFO_DFID_NAME, b"dir-hand", Some(b"name"))]);
        for len in 1..whole.len() {
            assert!(events(&whole[..len]).any(|event| event.is_err()), "{len} bytes");
        }
        use rand::{Rng, SeedableRng};
        for seed in 0..2000u64 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            assert!(events(&bytes).count() <= bytes.len() / METADATA_LEN + 1, "seed {seed}");
        }
    }

    #[test]
    fn a_handle_that_is_no_key_leaves_the_event_without_one() {
        let bytes = record(mask::MODIFY, &[info(INFO_FID, &[1; 64], None)]);
        let read: Vec<Event<'_>> = events(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(read[0].object, None);
    }
}
