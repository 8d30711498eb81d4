//! The seam between packs and the file system, so that tests can put a disk under them that crashes, fills up and fails.

use super::PackError;
use crate::host::cache::drop_cached;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A directory of packs.
pub(crate) trait Disk: Send + Sync {
    /// Names in the directory.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file, which must not exist.
    fn create(&self, name: &str) -> io::Result<Arc<dyn PackFile>>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn PackFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Where a file is, for those who use its descriptor themselves.
    fn path(&self, name: &str) -> PathBuf;
}

/// One file.
pub(crate) trait PackFile: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes both parts, one after the other. On an error any part of them may have been written.
    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<()>;
    /// Length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file to `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Data and length are on the disk when this returns.
    fn sync(&self) -> io::Result<()>;
    /// What is on the disk leaves the page cache.
    fn drop_cached(&self) {}
}

/// A lock is waited for: a process that was killed lets go of its own at its very end, and whoever is about to run a program
/// holds all of its parent's until it does.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// A real directory, locked against a second process.
pub(crate) struct RealDisk {
    directory: PathBuf,
    _lock: File,
}

impl RealDisk {
    /// Opens (and makes) the directory.
    pub(crate) fn open(directory: &Path) -> Result<RealDisk, PackError> {
        let failed = |action| move |source| PackError::Directory { action, source };
        std::fs::create_dir_all(directory).map_err(failed("create it"))?;
        if let Some(parent) = directory.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync its parent"))?;
        }
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("create its lock file"))?;
        let deadline = Instant::now() + PATIENCE;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > deadline {
                return Err(PackError::InUse { path: path.display().to_string() });
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(RealDisk { directory: directory.to_owned(), _lock: lock })
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.directory)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn PackFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(self.path(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn PackFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.path(name))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

struct RealFile(File);

impl PackFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, [first, second]: [&[u8]; 2], offset: u64) -> io::Result<()> {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let done = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, &slices, offset))?;
        let (rest, at) = (done.saturating_sub(first.len()), offset + done as u64);
        if done < first.len() {
            self.0.write_all_at(&first[done..], at)?;
        }
        self.0.write_all_at(&second[rest..], offset + (first.len() + rest) as u64)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn drop_cached(&self) {
        drop_cached(self.0.as_fd(), 0..i64::MAX as u64);
    }
}
