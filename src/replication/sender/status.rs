//! What the sender tells of itself; shared, and cheap to look at.

use crate::change::touch::Entry;
use crate::host::ObjectKey;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

/// Objects that are listed by name; the others are counted.
const MOST_LISTED: usize = 1_000;

/// What the sender is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum SenderState {
    /// Not connected yet.
    #[default]
    Starting,
    /// No connection, and why.
    Waiting(String),
    /// The shadow is being rebuilt from the backup.
    Rebuilding,
    /// Connected.
    Running,
    /// It cannot go on, and what to do.
    Failed(String),
    /// Stopped as asked.
    Stopped,
}

/// An object that could not be read, and so is not on the backup as it is here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unreadable {
    /// Path within the export, or what is known of it.
    pub path: String,
    /// What failed.
    pub reason: String,
}

/// A large file that is being read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct FileProgress {
    pub path: String,
    pub bytes: u64,
    pub bytes_total: u64,
}

/// A copy of the sender's status.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SenderReport {
    /// What it is doing.
    pub state: SenderState,
    /// Last batch that the backup acknowledged.
    pub acknowledged_batch: u64,
    /// When that was.
    pub acknowledged_at: Option<SystemTime>,
    /// Batches acknowledged since the start.
    pub batches: u64,
    /// Batches sent that are not acknowledged.
    pub batches_in_flight: u64,
    /// Object states sent since the start.
    pub objects: u64,
    /// File content read since the start, bytes.
    pub read_bytes: u64,
    /// Directories that are still to be listed.
    pub directories_to_list: u64,
    /// States shipped since the start whose content moved while it was read.
    pub fuzzy_states: u64,
    /// Objects that could not be read: the first thousand.
    pub unreadable: Vec<Unreadable>,
    /// How many there are.
    pub unreadable_total: u64,
    /// Other mounts within the export, which are not part of it.
    pub mount_points: Vec<String>,
    /// The large file that is being read.
    pub current_file: Option<FileProgress>,
}

#[derive(Default)]
struct Inner {
    report: SenderReport,
    /// What could not be read, and the entry to look at when that may have changed.
    unreadable: HashMap<ObjectKey, (Unreadable, Option<Entry>)>,
    /// More than are kept.
    unlisted: u64,
    mount_points: BTreeSet<Vec<u8>>,
}

/// The sender's status.
#[derive(Default)]
pub struct SenderStatus {
    inner: Mutex<Inner>,
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

impl SenderStatus {
    /// A copy.
    pub fn report(&self) -> SenderReport {
        let inner = self.inner.lock();
        let mut report = inner.report.clone();
        report.unreadable = inner.unreadable.values().map(|(what, _)| what.clone()).collect();
        report.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        report.unreadable_total = inner.unreadable.len() as u64 + inner.unlisted;
        report.mount_points = inner.mount_points.iter().map(|path| shown(path)).collect();
        report
    }

    /// Is it connected and at work?
    pub fn is_running(&self) -> bool {
        self.inner.lock().report.state == SenderState::Running
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SenderReport)) {
        change(&mut self.inner.lock().report);
    }

    pub(crate) fn set_state(&self, state: SenderState) {
        self.update(|report| report.state = state);
    }

    /// An object could not be read; `entry` is the name by which it is tried again.
    pub(crate) fn unreadable(&self, key: &ObjectKey, entry: Option<Entry>, what: Unreadable) {
        let mut inner = self.inner.lock();
        if inner.unreadable.len() >= MOST_LISTED && !inner.unreadable.contains_key(key) {
            inner.unlisted += 1;
            return;
        }
        inner.unreadable.insert(key.clone(), (what, entry));
    }

    /// It could, or it is gone. Gives the name by which it was known to be unreadable.
    pub(crate) fn readable(&self, key: &ObjectKey) -> Option<Entry> {
        let mut inner = self.inner.lock();
        if inner.unreadable.is_empty() {
            return None;
        }
        inner.unreadable.remove(key)?.1
    }

    /// The names by which the unreadable are tried again.
    pub(crate) fn retry(&self) -> Vec<Entry> {
        self.inner.lock().unreadable.values().filter_map(|(_, entry)| entry.clone()).collect()
    }

    /// Is anything unreadable?
    pub(crate) fn has_unreadable(&self) -> bool {
        !self.inner.lock().unreadable.is_empty()
    }

    /// A scan has finished: it has found anew what cannot be read and what is mounted.
    pub(crate) fn scanned(&self) {
        let mut inner = self.inner.lock();
        inner.unlisted = 0;
        inner.mount_points.clear();
    }

    pub(crate) fn mount_point(&self, path: Vec<u8>) {
        let mut inner = self.inner.lock();
        if inner.mount_points.len() < MOST_LISTED {
            inner.mount_points.insert(path);
        }
    }
}

/// When a file that changes all the time may be read again: ten times as long after its last reading as that took,
/// but within a few seconds, or as long as the reading itself.
pub(crate) fn hot_file_pause(reading: Duration) -> Duration {
    (reading * 10).min(reading.max(Duration::from_secs(3)))
}
