//! Watching the export for changes by local processes: fanotify as root, `notify` (inotify) otherwise.
//!
//! A watcher notes changes in the dirty set, tells a fence when its marker file went by, and demands a
//! scan when the kernel lost events.

mod fanotify;
mod inotify;

use super::directories::DirectorySet;
use super::dirty::{Change, DirtySet, Source, Touch, Trust};
use super::scans::Scans;
use crate::host::{ObjectKey, Tree};
use crate::observe::metrics;
use ehpc_proto::replication::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// What the names of marker files begin with; the rest cannot be guessed.
pub(super) const MARKER_PREFIX: &[u8] = b"fence-";
/// Files that were seen being written and not yet closed; forgetting some costs a page flush.
const MAX_WRITTEN: usize = 65_536;

/// Faults of a watcher's start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WatchError {
    #[error("cannot open a fanotify group: {0}; it needs root (CAP_SYS_ADMIN) and Linux 5.9 or newer")]
    FanotifyOpen(std::io::Error),
    #[error(
        "cannot watch the file system of {path} with fanotify: {source}; some file systems (overlayfs) have no handles"
    )]
    FanotifyMark { path: PathBuf, source: std::io::Error },
    #[error("cannot watch {path}: {source}; check that the directory exists and may be read")]
    Fence { path: PathBuf, source: std::io::Error },
    #[error("cannot start inotify: {0}; see /proc/sys/fs/inotify/max_user_instances")]
    InotifyStart(notify::Error),
    #[error("cannot watch {path} with inotify: {source}; see /proc/sys/fs/inotify/max_user_watches")]
    InotifyWatch { path: PathBuf, source: notify::Error },
    #[error("cannot make the directory {path} for watches: {source}; check the state directory")]
    Aliases { path: PathBuf, source: std::io::Error },
    #[error("cannot start the watcher's thread: {0}")]
    Thread(std::io::Error),
    #[error("objects are known by inode here, fanotify reports handles")]
    NoHandles,
}

/// Which watcher runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Watcher {
    Fanotify,
    Inotify,
    /// None could be started: only the NFS server's own changes and scans are noticed.
    None,
}

/// What `status` shows of the watcher.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WatchStatus {
    /// Which.
    pub watcher: Watcher,
    /// Why not a better one; why some directories are not watched.
    pub why: Option<String>,
    /// Directories watched.
    pub watched: u64,
    /// Directories of the export that only scans look at.
    pub unwatched: u64,
    /// Events taken from the kernel's queue.
    pub events: u64,
    /// Times that the kernel lost events; each was answered with a scan.
    pub overflows: u64,
}

/// What a fence waits for: names of marker files, each told when its creation went by in the queue.
#[derive(Default)]
pub(super) struct Markers(Mutex<HashMap<Box<[u8]>, oneshot::Sender<()>>>);

impl Markers {
    /// Registers a name before its file is created.
    pub(super) fn expect(&self, name: &[u8]) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().insert(name.into(), sender);
        receiver
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, name: &[u8]) {
        self.0.lock().remove(name);
    }

    fn delivered(&self, name: &[u8]) {
        if !name.starts_with(MARKER_PREFIX) {
            return;
        }
        if let Some(waiting) = self.0.lock().remove(name) {
            // A fence that gave up does not care.
            let _ = waiting.send(());
        }
    }
}

/// Where a watcher puts what it sees.
pub(super) struct Sink {
    pub(super) dirty: Arc<DirtySet>,
    pub(super) directories: Arc<DirectorySet>,
    pub(super) markers: Markers,
    pub(super) scans: Arc<Scans>,
    events: AtomicU64,
    overflows: AtomicU64,
}

impl Sink {
    pub(super) fn new(dirty: Arc<DirtySet>, directories: Arc<DirectorySet>, scans: Arc<Scans>) -> Arc<Sink> {
        Arc::new(Sink {
            dirty,
            directories,
            markers: Markers::default(),
            scans,
            events: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        })
    }

    fn note(&self, change: Change) {
        self.dirty.note_from(Source::Watcher, change);
    }

    fn object(&self, key: ObjectKey, touch: Touch) {
        self.note(Change::Object(key, touch));
    }

    fn count(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        metrics::WATCH_EVENTS.add(events);
    }

    /// The kernel lost events that happened at `since` or later: only a scan can tell what they were.
    pub(super) fn overflow(&self, since: Timestamp) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
        metrics::WATCH_OVERFLOWS.inc();
        // First the demand, then the distrust: `set_trust` looks the other way round.
        self.scans.demand_since(since);
        self.dirty.trust(Trust::Uncertain);
    }

    /// Believes sources up to `trust`, unless a scan is outstanding.
    fn set_trust(&self, trust: Trust) {
        self.dirty.trust(trust);
        // An overflow in between would otherwise be forgotten.
        if self.scans.outstanding() {
            self.dirty.trust(Trust::Uncertain);
        }
    }
}

/// Files seen being written, so that a close after a write is told from a close after a store through mmap.
#[derive(Default)]
struct Written(HashSet<ObjectKey>);

impl Written {
    /// What a write says.
    fn modified(&mut self, key: &ObjectKey) -> Touch {
        if self.0.len() >= MAX_WRITTEN {
            self.0.clear();
        }
        self.0.insert(key.clone());
        Touch::CONTENT
    }

    /// What the close of a file that was open for writing says.
    fn closed(&mut self, key: &ObjectKey) -> Touch {
        if self.0.remove(key) { Touch::CONTENT } else { Touch::SETTLED_CONTENT }
    }
}

enum Running {
    /// Works until it is dropped.
    Fanotify {
        _watch: fanotify::FanotifyWatch,
    },
    Inotify(inotify::InotifyWatch),
    None,
}

/// The watcher at work; dropping it stops it.
pub struct Watch {
    running: Running,
    why: Option<String>,
    sink: Arc<Sink>,
}

/// How to watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum WatchChoice {
    /// fanotify if it works, else inotify.
    #[default]
    Best,
    /// inotify only.
    Inotify,
    /// Scans only.
    None,
}

/// Starts the best watcher that works. `fence` is the directory of marker files, `aliases` an empty
/// directory of our own (for inotify).
pub(super) fn start(
    tree: &Arc<Tree>,
    sink: &Arc<Sink>,
    fence: &Path,
    aliases: &Path,
    choice: WatchChoice,
) -> Watch {
    let watch = |running, why| Watch { running, why, sink: Arc::clone(sink) };
    if choice == WatchChoice::None {
        return watch(Running::None, Some("watching is switched off".to_owned()));
    }
    let mut why = "fanotify is switched off".to_owned();
    if choice == WatchChoice::Best {
        match fanotify::FanotifyWatch::start(tree, sink, fence) {
            Ok(running) => return watch(Running::Fanotify { _watch: running }, None),
            Err(error) => why = error.to_string(),
        }
    }
    match inotify::InotifyWatch::start(tree, sink, fence, aliases) {
        Ok(running) => watch(Running::Inotify(running), Some(why)),
        Err(error) => {
            tracing::warn!(fanotify = %why, inotify = %error, "changes by local processes are found by scans only");
            watch(Running::None, Some(format!("{why}; {error}")))
        }
    }
}

impl Watch {
    /// For `status`.
    pub fn status(&self) -> WatchStatus {
        let known = self.sink.directories.len() as u64;
        let (watcher, unwatched, failure) = match &self.running {
            Running::Fanotify { .. } => (Watcher::Fanotify, 0, None),
            Running::Inotify(inotify) => {
                let (unwatched, failure) = inotify.unwatched();
                (Watcher::Inotify, unwatched, failure)
            }
            Running::None => (Watcher::None, known, None),
        };
        let why = match (&self.why, failure) {
            (Some(why), Some(failure)) => Some(format!("{why}; {failure}")),
            (why, failure) => why.clone().or(failure),
        };
        WatchStatus {
            watcher,
            why,
            watched: known.saturating_sub(unwatched),
            unwatched,
            events: self.sink.events.load(Ordering::Relaxed),
            overflows: self.sink.overflows.load(Ordering::Relaxed),
        }
    }

    /// Tries again what failed for want of a resource.
    pub(super) fn retry(&self) {
        if let Running::Inotify(inotify) = &self.running {
            inotify.retry();
        }
    }

    /// Does each directory need a watch of its own?
    pub(super) fn needs_watches(&self) -> bool {
        matches!(self.running, Running::Inotify(_))
    }

    /// Does a marker in the fence directory come back?
    pub(super) fn delivers(&self) -> bool {
        !matches!(self.running, Running::None)
    }

    /// A scan has ended: sources may be believed again as far as the watcher allows.
    pub(super) fn restore_trust(&self) {
        self.sink.set_trust(self.trust());
    }

    fn trust(&self) -> Trust {
        match &self.running {
            Running::Fanotify { .. } => Trust::Exact,
            Running::Inotify(_) | Running::None => Trust::Loose,
        }
    }

    /// Directories that a fence must scan for.
    pub(super) fn unwatched(&self) -> u64 {
        match &self.running {
            Running::Fanotify { .. } => 0,
            Running::Inotify(inotify) => inotify.unwatched().0,
            Running::None => u64::MAX,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
