//! A file system that is mounted for as long as a test needs it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted (lazily) when it goes.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// `mount -t kind -o options source path`. Needs root.
    ///
    /// # Panics
    /// If it cannot be mounted: a test without its file system has failed.
    #[allow(clippy::panic)]
    pub fn new(kind: &str, source: &str, path: &Path, options: &str) -> Mount {
        let done = Command::new("mount").args(["-t", kind, "-o", options, source]).arg(path).output();
        match done {
            Ok(done) if done.status.success() => Mount { path: path.to_owned() },
            Ok(done) => panic!("mount of a {kind}: {}", String::from_utf8_lossy(&done.stderr)),
            Err(error) => panic!("mount: {error}"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
