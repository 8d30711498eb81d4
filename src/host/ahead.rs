//! Asking a disk for many small files before they are read one after the other: a reader who waits for each of them
//! uses a disk that could serve many at once.

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{Advice, Mode, OFlags};
use std::cell::OnceCell;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Most bytes that are asked for of one file. (A constant: that it is not zero is seen at compile time.)
const MOST: NonZeroU64 = NonZeroU64::new(1 << 20).unwrap();
/// Threads: opening a file may wait for its inode.
const THREADS: usize = 2;
/// Orders that wait; one more is dropped, and whoever reads waits for the disk himself.
const ORDERS: usize = 8;

struct Order {
    dir: Arc<OwnedFd>,
    files: Vec<Box<[u8]>>,
}

/// Threads that ask, from the first order on; they end when it is dropped.
#[derive(Default)]
pub struct Ahead {
    orders: OnceCell<Option<Sender<Order>>>,
}

impl Ahead {
    /// These names of `dir` (regular files) will soon be read. Only advice: what fails is left to the reader to notice.
    pub fn ask(&self, dir: &Arc<OwnedFd>, files: Vec<Box<[u8]>>) {
        if let Some(orders) = self.orders.get_or_init(start)
            && !files.is_empty()
        {
            let _ = orders.try_send(Order { dir: Arc::clone(dir), files });
        }
    }
}

fn start() -> Option<Sender<Order>> {
    let (sender, orders) = bounded(ORDERS);
    for number in 0..THREADS {
        let orders: Receiver<Order> = orders.clone();
        let run = move || {
            for Order { dir, files } in orders {
                for name in files {
                    ask(&dir, &name);
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name(format!("read-ahead-{number}")).spawn(run) {
            tracing::warn!(%error, "no thread to read ahead: small files are read one after the other");
            return None;
        }
    }
    Some(sender)
}

/// No reading, so that the file's atime stays as it is.
fn ask(dir: &OwnedFd, name: &[u8]) {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::openat(dir, name, flags, Mode::empty()) {
        let _ = rustix::fs::fadvise(&fd, 0, Some(MOST), Advice::WillNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cache::{cached, drop_cached};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    #[test]
    fn files_that_are_asked_for_come_into_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<std::fs::File> = (0..40)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                std::fs::write(&path, [7; 8192]).unwrap();
                let file = std::fs::File::open(path).unwrap();
                rustix::fs::fsync(&file).unwrap();
                drop_cached(file.as_fd(), 0..8192);
                file
            })
            .collect();
        let in_cache = || files.iter().filter(|file| cached(file.as_fd(), &(0..8192)) == Some(8192)).count();
        assert_eq!(in_cache(), 0, "the test needs a file system on a disk: set TMPDIR");
        let names = (0..40).map(|number: u32| number.to_string().into_bytes().into_boxed_slice());
        let ahead = Ahead::default();
        ahead.ask(&Arc::new(std::fs::File::open(dir.path()).unwrap().into()), names.collect());
        let begun = Instant::now();
        while in_cache() < 40 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} files came", in_cache());
            std::thread::yield_now();
        }
    }
}
