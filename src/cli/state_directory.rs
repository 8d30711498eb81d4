//! The directory that a daemon keeps its state in: private, and locked while the daemon runs.

use anyhow::{Context, Result, bail};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An open state directory. The lock goes with the process, however it ends.
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Creates it (for its owner only) if it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<StateDirectory> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("creating the state directory {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("opening {}", path.display()))?;
        let mut lock = open_lock(&path).with_context(|| {
            format!("{} cannot be written: change its owner, or name another", path.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder =
                    read_pid(&mut lock).map_or("another process".to_owned(), |pid| format!("pid {pid}"));
                bail!("{} is in use by {holder}: stop it first, or name another directory", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(StateDirectory { path, _lock: lock })
    }

    /// Absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock"))
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds a state directory now.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let mut lock = File::open(path.join("lock")).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_pid(&mut lock),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_process_at_a_time_and_it_is_named() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("a/state");
        assert_eq!(holder(&path), None);
        let first = StateDirectory::open(&path).expect("free");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(holder(&path), Some(std::process::id()));
        let error = StateDirectory::open(&path).err().expect("held").to_string();
        assert!(error.contains(&format!("is in use by pid {}", std::process::id())), "{error}");
        drop(first);
        assert_eq!(holder(&path), None);
        StateDirectory::open(&path).expect("free again");
    }
}
