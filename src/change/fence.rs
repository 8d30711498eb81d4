//! A fence: "everything that happened before now has a number, and it is this one at most".
//!
//! First the operations that NFS has under way end. Then a marker file is made and the watcher waits for
//! it: the kernel's queue is ordered, so all that local processes did before is noted when the marker
//! comes by. Its name is fresh each time, for the kernel merges equal events. If the kernel lost events,
//! the marker may be among them: a scan comes first, then another marker.

use super::dirty::DirtySet;
use super::scans::ScanBlocked;
use super::watch::{MARKER_PREFIX, Sink, Watch};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FenceError {
    #[error("fence: an NFS operation did not end within {0:?}; a disk that hangs would explain it")]
    OperationsOpen(Duration),
    #[error("fence: cannot make the marker {path}: {source}; check the state directory and its disk space")]
    Marker { path: PathBuf, source: io::Error },
    #[error(
        "fence: the watcher did not see its marker within {0:?}; it is too busy or has ended, see `ehpc-store status`"
    )]
    NotDelivered(Duration),
    #[error("fence: {0}")]
    ScanBlocked(String),
    #[error(
        "fence: the scan that must come first did not end within {0:?}; see `ehpc-store status` for its progress"
    )]
    ScanRuns(Duration),
    #[error(
        "fence: the backup has acknowledged change {acknowledged} of {cut} after {waited:?}; is it connected? See `ehpc-store status`"
    )]
    NotAcknowledged { cut: u64, acknowledged: u64, waited: Duration },
}

/// Makes fences. Cheap to clone.
#[derive(Clone)]
pub struct Fence {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Arc<Sink>,
    watch: Arc<Watch>,
    dir: PathBuf,
    counter: AtomicU64,
}

impl Fence {
    pub(super) fn new(sink: Arc<Sink>, watch: Arc<Watch>, dir: &Path) -> Fence {
        let shared = Shared { sink, watch, dir: dir.to_owned(), counter: AtomicU64::new(0) };
        Fence { shared: Arc::new(shared) }
    }

    fn dirty(&self) -> &DirtySet {
        &self.shared.sink.dirty
    }

    /// A number that no change before this call exceeds.
    pub async fn cut(&self, patience: Duration) -> Result<u64, FenceError> {
        let until = Instant::now() + patience;
        tokio::time::timeout_at(until, self.dirty().tickets_closed())
            .await
            .map_err(|_| FenceError::OperationsOpen(patience))?;
        if self.shared.watch.unwatched() > 0 {
            self.shared.sink.scans.demand();
        }
        self.scanned(until, patience).await?;
        while self.shared.watch.delivers() {
            let delivered = self.marker(until, patience).await?;
            // An overflow that the watcher met before the marker, or instead of it.
            self.scanned(until, patience).await?;
            if delivered {
                break;
            }
        }
        Ok(self.dirty().current())
    }

    /// [`Fence::cut`], and the backup has acknowledged it.
    pub async fn wait(&self, patience: Duration) -> Result<u64, FenceError> {
        let until = Instant::now() + patience;
        let cut = self.cut(patience).await?;
        let mut acknowledged = self.dirty().acknowledged();
        let reached = acknowledged.wait_for(|&acknowledged| acknowledged >= cut);
        match tokio::time::timeout_at(until, reached).await {
            Ok(Ok(_)) => Ok(cut),
            _ => {
                let acknowledged = *self.dirty().acknowledged().borrow();
                Err(FenceError::NotAcknowledged { cut, acknowledged, waited: patience })
            }
        }
    }

    /// Waits for the scans that were demanded.
    async fn scanned(&self, until: Instant, patience: Duration) -> Result<(), FenceError> {
        match tokio::time::timeout_at(until, self.shared.sink.scans.covered()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(blocked @ (ScanBlocked::Outcome(_) | ScanBlocked::Stopped))) => {
                Err(FenceError::ScanBlocked(blocked.to_string()))
            }
            Err(_) => Err(FenceError::ScanRuns(patience)),
        }
    }

    /// Makes one marker and waits for it. False: an overflow came first, which may have swallowed it.
    async fn marker(&self, until: Instant, patience: Duration) -> Result<bool, FenceError> {
        let number = self.shared.counter.fetch_add(1, Ordering::Relaxed);
        let prefix = String::from_utf8_lossy(MARKER_PREFIX);
        let name = format!("{prefix}{:032x}-{number}", rand::random::<u128>());
        let path = self.shared.dir.join(&name);
        let _forget = Forget { shared: &self.shared, name: &name };
        let delivered = self.shared.sink.markers.expect(name.as_bytes());
        let file = path.clone();
        let made = tokio::task::spawn_blocking(move || {
            std::fs::OpenOptions::new().write(true).create_new(true).open(&file)?;
            std::fs::remove_file(&file)
        });
        made.await
            .unwrap_or_else(|_| Err(io::Error::other("the thread that made it ended")))
            .map_err(|source| FenceError::Marker { path, source })?;
        tokio::select! {
            delivered = tokio::time::timeout_at(until, delivered) => match delivered {
                Ok(Ok(())) => Ok(true),
                _ => Err(FenceError::NotDelivered(patience)),
            },
            () = self.shared.sink.scans.demanded() => Ok(false),
        }
    }
}

/// A fence that is given up leaves no marker behind.
struct Forget<'a> {
    shared: &'a Shared,
    name: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.sink.markers.forget(self.name.as_bytes());
    }
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
