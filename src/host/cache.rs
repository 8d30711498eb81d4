//! What a large file leaves in the page cache: data that is read or written once must not push out what the machine's
//! applications use. All of it is advice: where the kernel cannot, everything works all the same.

use super::file::write_out;
use super::process::page_size;
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

/// Bytes of a range that are in the cache; `None` where the kernel does not tell.
pub(super) fn cached(fd: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
    let pages = by_cachestat(fd, range).or_else(|| by_mapping(fd, range))?;
    Some(pages.saturating_mul(page_size() as u64))
}

/// Linux 6.5 and newer.
fn by_cachestat(fd: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
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

/// Older kernels: maps the range without touching it. They tell of all pages as cached when the file is not ours to write.
fn by_mapping(fd: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
    let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    let offset = i64::try_from(range.start).ok()?;
    let mut pages = vec![0u8; length.div_ceil(page_size())];
    // SAFETY: a fresh mapping at an address of the kernel's choice, which nothing refers to; it is unmapped below. `pages`
    // has a byte for each of its pages.
    let told = unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            offset,
        );
        if at == libc::MAP_FAILED {
            return None;
        }
        let told = libc::mincore(at, length, pages.as_mut_ptr());
        libc::munmap(at, length);
        told
    };
    (told == 0).then(|| pages.iter().filter(|&&page| page & 1 != 0).count() as u64)
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
                Some(bytes) if bytes >= window.end - window.start => continue,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    const LENGTH: u64 = 5 * WINDOW / 2;

    /// On the disk.
    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; LENGTH as usize]).unwrap();
        file.sync_all().unwrap();
        file
    }

    /// In the cache, by both ways of asking where there are two.
    fn pages(file: &File) -> u64 {
        let range = 0..LENGTH;
        let told = by_mapping(file.as_fd(), &range).unwrap();
        assert_eq!(by_cachestat(file.as_fd(), &range).unwrap_or(told), told);
        told
    }

    fn read(file: &File, mut once: Option<ReadOnce<'_>>) {
        let mut bytes = vec![0; 1 << 20];
        for at in (0..LENGTH).step_by(bytes.len()) {
            if let Some(once) = &mut once {
                once.at(at);
            }
            let wanted = bytes.len().min((LENGTH - at) as usize);
            rustix::io::pread(file, &mut bytes[..wanted], at).unwrap();
        }
    }

    #[test]
    fn what_is_read_once_leaves_the_cache_as_it_was() {
        let file = file();
        drop_cached(file.as_fd(), 0..LENGTH);
        assert_eq!(pages(&file), 0, "the test needs a file system on a disk: set TMPDIR");
        read(&file, Some(ReadOnce::new(file.as_fd(), 0..LENGTH)));
        assert_eq!(pages(&file), 0);
        read(&file, None);
        assert_eq!(pages(&file), LENGTH / page_size() as u64);
        read(&file, Some(ReadOnce::new(file.as_fd(), 0..LENGTH)));
        assert_eq!(pages(&file), LENGTH / page_size() as u64, "somebody else's pages stay");
    }

    #[test]
    fn what_is_written_behind_is_whole_and_leaves_the_cache() {
        let mut file = tempfile::tempfile().unwrap();
        let mut behind = WriteBehind::default();
        let piece: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
        for n in 0..32u64 {
            let at = n * piece.len() as u64;
            rustix::io::pwrite(&file, &piece, at).unwrap();
            behind.wrote(file.as_fd(), at..at + piece.len() as u64);
        }
        let first = cached(file.as_fd(), &(0..2 * WINDOW));
        assert_eq!(first, Some(0), "two windows before the one under way");
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).unwrap();
        assert!(
            whole.chunks(piece.len()).count() == 32 && whole.chunks(piece.len()).all(|part| part == piece)
        );
    }
}
