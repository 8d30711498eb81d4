//! Directory listings: getdents64 with the kernel's own positions (`d_off`).

use super::statx::kind_of;
use ehpc_proto::replication::Kind;
use rustix::fs::{RawDir, SeekFrom};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// Bytes asked of the kernel at once.
const BUFFER: usize = 32 * 1024;

/// One entry as getdents64 gives it.
pub struct Listed<'a> {
    /// As it is on disk; "." and ".." too.
    pub name: &'a CStr,
    /// d_ino (of the directory below, if something is mounted there).
    pub ino: u64,
    /// Where the next entry is: seek there to go on after this one.
    pub next: u64,
    /// d_type, where the file system fills it in.
    pub kind: Option<Kind>,
}

/// Calls `each` for the entries from position `from` (0 = the start) until it returns false.
/// True in the result: the end was reached. `dir` is open for reading; its position is moved.
pub fn read(dir: BorrowedFd<'_>, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) -> io::Result<bool> {
    rustix::fs::seek(dir, SeekFrom::Start(from))?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // A directory removed while it is open has no entries any more.
            Err(rustix::io::Errno::NOENT) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let go_on = each(Listed {
            name: entry.file_name(),
            ino: entry.ino(),
            next: entry.next_entry_cookie(),
            kind: kind_of(entry.file_type()),
        });
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}
