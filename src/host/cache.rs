//! What a large file leaves in the page cache: data that is read or written once must not push out what the machine's
//! applications use. All of it is advice: where the kernel cannot, everything works all the same.

use super::file::write_out;
use rustix::fs::Advice;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes asked for, or given back, at once.
const WINDOW: u64 = 8 << 20;
/// Windows asked for before they are read.
const AHEAD: u64 = 2;

/// Forgets clean pages of a range. Dirty ones stay.
pub fn drop_cached(fd: BorrowedFd<'_>, range: Range<u64>) {
    advise(fd, range, Advice::DontNeed);
}

fn advise(fd: BorrowedFd<'_>, range: Range<u64>, advice: Advice) {
    if let Some(length) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
        let _ = rustix::fs::fadvise(fd, range.start, Some(length), advice);
    }
}

/// Pages of a range that are in the cache; `None` where the kernel does not tell (before Linux 6.5).
fn cached(fd: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
    /// struct cachestat_range, struct cachestat (linux/mman.h).
    #[repr(C)]
    struct Asked(u64, u64);
    #[repr(C)]
    #[derive(Default)]
    struct Told {
        cached: u64,
        others: [u64; 4],
    }
    const CACHESTAT: libc::c_long = 451;
    let (asked, mut told) = (Asked(range.start, range.end - range.start), Told::default());
    // SAFETY: both structures are laid out as the kernel's and outlive the call.
    let result = unsafe {
        libc::syscall(CACHESTAT, fd.as_raw_fd(), std::ptr::from_ref(&asked), std::ptr::from_mut(&mut told), 0)
    };
    let _ = told.others;
    (result == 0).then_some(told.cached)
}

/// Reading a large file from front to back once: the disk is kept busy ahead of the reader, and what was not in the cache
/// before is not left there.
pub struct ReadOnce<'a> {
    fd: BorrowedFd<'a>,
    end: u64,
    /// Asked for up to here.
    asked: u64,
    /// To be forgotten once they are read.
    ours: VecDeque<Range<u64>>,
}

impl<'a> ReadOnce<'a> {
    /// For reading `range`.
    pub fn new(fd: BorrowedFd<'a>, range: Range<u64>) -> ReadOnce<'a> {
        ReadOnce { fd, end: range.end, asked: range.start, ours: VecDeque::new() }
    }

    /// The reader is at `offset`.
    pub fn at(&mut self, offset: u64) {
        while self.asked < self.end && self.asked < offset.saturating_add(AHEAD * WINDOW) {
            let window = self.asked..(self.asked + WINDOW).min(self.end);
            self.asked = window.end;
            match cached(self.fd, &window) {
                Some(0) => self.ours.push_back(window.clone()),
                // All of it: nothing to ask for.
                Some(pages) if pages.saturating_mul(4096) >= window.end - window.start => continue,
                _ => {}
            }
            advise(self.fd, window, Advice::WillNeed);
        }
        while let Some(window) = self.ours.pop_front_if(|window| window.end <= offset) {
            drop_cached(self.fd, window);
        }
    }
}

impl Drop for ReadOnce<'_> {
    fn drop(&mut self) {
        for window in self.ours.drain(..) {
            drop_cached(self.fd, window);
        }
    }
}

/// Writing a large file from front to back: windows go to the disk while the next are written, and leave the cache.
#[derive(Default)]
pub struct WriteBehind {
    /// Written, not yet on its way to the disk.
    window: Range<u64>,
    /// On its way to the disk.
    under_way: Option<Range<u64>>,
}

impl WriteBehind {
    /// `range` was written. What does not follow on the last is another stretch.
    pub fn wrote(&mut self, fd: BorrowedFd<'_>, range: Range<u64>) {
        if range.start != self.window.end {
            self.window = range.start..range.start;
        }
        self.window.end = range.end;
        if self.window.end - self.window.start < WINDOW {
            return;
        }
        let window = std::mem::replace(&mut self.window, range.end..range.end);
        // Errors show when the file is synced.
        let _ = write_out(fd, window.clone(), false);
        if let Some(before) = self.under_way.replace(window) {
            let _ = write_out(fd, before.clone(), true);
            drop_cached(fd, before);
        }
    }
}
