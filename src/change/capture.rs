//! Change capture as one thing: watcher, scans, watermark and fence over one tree and one dirty set.

use super::directories::DirectorySet;
use super::dirty::{DirtySet, NotedCounts, Trust};
use super::fence::Fence;
use super::reconcile::{Scan, ScanError, ScanOptions, check_root};
use super::scans::{ScanOutcome, ScanStatus, Scans, Wake};
use super::shadow::{Meta, ShadowError, ShadowReader};
use super::watch::{self, Sink, Watch, WatchChoice, WatchStatus};
use super::watermark::{ShadowNote, ShadowNotes, Watermark, suspicious_since};
use crate::host::{KeyKind, Tree, boot_id, coarse_now};
use ehpc_proto::replication::{Kind, ObjectId, Timestamp};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the watermark moves while something changes.
const WATERMARK_EVERY: Duration = Duration::from_secs(30);
/// How often the thread looks for what it is not woken for.
const TICK: Duration = Duration::from_secs(5);
/// A scan that failed or waits for an operator is tried again after this.
const RETRY_SCAN: Duration = Duration::from_secs(60);
/// With directories that cannot be watched, scans come at least this often.
const UNWATCHED_SCAN: Duration = Duration::from_secs(60);
/// A scan after a spill begins when no more than this waits: else it would spill again.
const SPILL_DRAINED: usize = 50_000;

/// Faults of the start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CaptureError {
    #[error("cannot make {path}: {source}; check the state directory")]
    StateDir { path: PathBuf, source: io::Error },
    #[error("cannot read the identity of this boot from /proc/sys/kernel/random/boot_id: {0}")]
    BootId(io::Error),
    #[error(transparent)]
    Root(#[from] ScanError),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error("cannot start the scanning thread: {0}")]
    Thread(io::Error),
}

/// How to capture.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Time between scheduled scans.
    pub scan_every: Duration,
    /// The export may be another directory or file system than the recorded one.
    pub accept_new_export: bool,
    /// Which watcher.
    pub watch: WatchChoice,
}

impl Default for CaptureOptions {
    fn default() -> CaptureOptions {
        CaptureOptions {
            scan_every: Duration::from_secs(6 * 3600),
            accept_new_export: false,
            watch: WatchChoice::Best,
        }
    }
}

/// Opens a connection of its own to the shadow.
pub type ShadowReaders = Arc<dyn Fn() -> Result<ShadowReader, ShadowError> + Send + Sync>;

/// What `status` shows of change capture.
#[derive(Clone, Debug, Serialize)]
pub struct CaptureStatus {
    /// The watcher.
    pub watch: WatchStatus,
    /// The scans.
    pub scan: ScanStatus,
    /// Changes noted since the start, by who noticed them.
    pub noted: NotedCounts,
    /// Changes that wait for the sender.
    pub pending: usize,
    /// Age of the oldest change that the backup has not acknowledged.
    pub lag_ms: Option<u64>,
}

/// Everything that fills the dirty set but NFS itself. Dropping it stops it without the clean-stop mark.
pub struct ChangeCapture {
    dirty: Arc<DirtySet>,
    directories: Arc<DirectorySet>,
    scans: Arc<Scans>,
    watch: Arc<Watch>,
    fence: Fence,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Watermark>>,
}

impl ChangeCapture {
    /// Starts watching `tree`, then scans it against the shadow. `state_dir` must not lie in the export.
    pub fn start(
        tree: &Arc<Tree>,
        dirty: &Arc<DirtySet>,
        readers: ShadowReaders,
        notes: ShadowNotes,
        state_dir: &Path,
        options: &CaptureOptions,
    ) -> Result<ChangeCapture, CaptureError> {
        let fence_dir = fresh_dir(state_dir, "fence")?;
        let alias_dir = fresh_dir(state_dir, "watch")?;
        let shadow = readers()?;
        let meta = shadow.meta()?;
        let boot = boot_id().map_err(CaptureError::BootId)?.into_bytes();
        let new_export = identify(tree, &shadow, &meta, &notes, options.accept_new_export)?;
        let unclean = suspicious_since(&meta, &boot);
        // Read before the scan came by, an object may hide what happened to it before the start.
        let started = coarse_now();
        let suspicious = Some(unclean.map_or(started, |since| since.min(started)));
        notes(ShadowNote::CleanStop(false));

        // Nobody has looked yet for what happened while nobody watched.
        dirty.trust(Trust::Uncertain);
        let directories = DirectorySet::new();
        let scans = Scans::new();
        let sink = Sink::new(Arc::clone(dirty), Arc::clone(&directories), Arc::clone(&scans));
        let watch = Arc::new(watch::start(tree, &sink, &fence_dir, &alias_dir, options.watch));
        let fence = Fence::new(sink, Arc::clone(&watch), &fence_dir);
        // What happened before the watcher ran, only a scan can tell.
        scans.demand();
        let stop = Arc::new(AtomicBool::new(false));
        let runner = Runner {
            tree: Arc::clone(tree),
            shadow,
            dirty: Arc::clone(dirty),
            directories: Arc::clone(&directories),
            scans: Arc::clone(&scans),
            watch: Arc::clone(&watch),
            stop: Arc::clone(&stop),
            scan_every: options.scan_every,
            accept_new_export: options.accept_new_export,
            new_export,
            suspicious,
            unclean: unclean.is_some(),
            settle_at: None,
            room_at: coarse_now(),
            watermark: Watermark::new(Arc::clone(tree), Arc::clone(dirty), notes, boot),
        };
        let thread = std::thread::Builder::new()
            .name("scan".to_owned())
            .spawn(move || runner.run())
            .map_err(CaptureError::Thread)?;
        let dirty = Arc::clone(dirty);
        Ok(ChangeCapture { dirty, directories, scans, watch, fence, stop, thread: Some(thread) })
    }

    /// The set in which the sender registers what it ships, before it reads it.
    pub fn directories(&self) -> &Arc<DirectorySet> {
        &self.directories
    }

    /// Demands and requests for scans.
    pub fn scans(&self) -> &Arc<Scans> {
        &self.scans
    }

    /// Makes fences.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// For `status`.
    pub fn status(&self) -> CaptureStatus {
        CaptureStatus {
            watch: self.watch.status(),
            scan: self.scans.status(),
            noted: self.dirty.noted(),
            pending: self.dirty.pending(),
            lag_ms: self
                .dirty
                .oldest_unacknowledged()
                .map(|oldest| u64::try_from(oldest.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Stops, syncs the export and has the clean stop recorded. The shadow's writer must still run.
    pub fn stop(mut self) -> io::Result<()> {
        match self.end() {
            Some(mut watermark) => watermark.stop(),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Option<Watermark> {
        self.stop.store(true, Ordering::Relaxed);
        self.scans.stop();
        // A thread that panicked has reported it; without its watermark the stop is not clean.
        self.thread.take()?.join().ok()
    }
}

impl Drop for ChangeCapture {
    fn drop(&mut self) {
        self.end();
    }
}

/// An empty directory for files that mean nothing after a restart.
fn fresh_dir(state_dir: &Path, name: &str) -> Result<PathBuf, CaptureError> {
    let path = state_dir.join(name);
    let made = match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(&path),
    };
    made.and_then(|()| path.canonicalize()).map_err(|source| CaptureError::StateDir { path, source })
}

/// Refuses a foreign root, or returns that it was accepted; records which root and file system this is when that is new.
fn identify(
    tree: &Tree,
    shadow: &ShadowReader,
    meta: &Meta,
    notes: &ShadowNotes,
    accept: bool,
) -> Result<bool, CaptureError> {
    let foreign = match check_root(tree, shadow) {
        Err(error @ ScanError::ForeignRoot { .. }) if accept => {
            tracing::warn!(%error, "accepted as a new export");
            true
        }
        other => other.map(|()| false)?,
    };
    if foreign || meta.root_key.is_none() {
        let filesystem_id = tree.filesystem_id().to_vec();
        let keys_are_dead = foreign && !meta.filesystem_id.is_empty() && meta.filesystem_id != filesystem_id;
        notes(ShadowNote::Export { root_key: tree.root_key().clone(), filesystem_id, keys_are_dead });
    }
    Ok(foreign)
}

/// The thread that scans and moves the watermark.
struct Runner {
    tree: Arc<Tree>,
    shadow: ShadowReader,
    dirty: Arc<DirtySet>,
    directories: Arc<DirectorySet>,
    scans: Arc<Scans>,
    watch: Arc<Watch>,
    stop: Arc<AtomicBool>,
    scan_every: Duration,
    accept_new_export: bool,
    /// Set until the first scan of an accepted new export: the old one's objects may all be gone.
    new_export: bool,
    /// Set until a scan has noted every row that cannot be believed.
    suspicious: Option<Timestamp>,
    /// Among them are rows that a power cut may have made wrong, and no scan has noted them yet.
    unclean: bool,
    /// Those rows have been read again when the backup has acknowledged this change.
    settle_at: Option<u64>,
    /// The dirty set had not spilled yet.
    room_at: Timestamp,
    watermark: Watermark,
}

impl Runner {
    fn run(mut self) -> Watermark {
        if let Err(error) = self.prefill() {
            tracing::warn!(%error, "the shadow could not be read ahead; the scan will find what it holds");
        }
        let mut scanned = Instant::now();
        let mut watermark_due = Instant::now();
        loop {
            match self.scans.next(Instant::now() + TICK) {
                Wake::Stop => return self.watermark,
                Wake::Signal => {
                    self.scan();
                    scanned = Instant::now();
                }
                Wake::Due => {
                    self.look_for_spill();
                    if scanned.elapsed() >= self.next_scan() {
                        self.scans.unblock();
                        self.scans.ask();
                    }
                }
            }
            if Instant::now() >= watermark_due && self.settled() {
                watermark_due = Instant::now() + WATERMARK_EVERY;
                if let Err(error) = self.watermark.advance() {
                    tracing::error!(%error, "syncfs of the export failed; after a power cut more will be read again");
                }
            }
        }
    }

    /// After a spill a scan comes when there is room for what it finds.
    fn look_for_spill(&mut self) {
        if !self.dirty.spilled() {
            self.room_at = coarse_now();
            return;
        }
        self.dirty.trust(Trust::Uncertain);
        if self.dirty.pending() < SPILL_DRAINED {
            // What was dropped had happened shortly before it was noted.
            let seconds = self.room_at.seconds - i64::try_from(TICK.as_secs()).unwrap_or(0);
            self.scans.demand_since(Timestamp { seconds, ..self.room_at });
        }
    }

    fn next_scan(&self) -> Duration {
        let status = self.scans.status();
        if !matches!(status.last, Some(ScanOutcome::Finished(_))) {
            return RETRY_SCAN.min(self.scan_every);
        }
        if self.watch.unwatched() > 0 { UNWATCHED_SCAN.min(self.scan_every) } else { self.scan_every }
    }

    /// Makes known what the shadow holds, so that its changes are noticed before the scan comes by.
    /// Not where each directory needs a watch: the scan, which opens it anyway, adds it.
    fn prefill(&self) -> Result<(), ShadowError> {
        if self.tree.key_kind() != KeyKind::Handle || self.watch.needs_watches() {
            return Ok(());
        }
        let mut after = ObjectId(0);
        while !self.stop.load(Ordering::Relaxed) {
            let rows = self.shadow.objects_after(after, 4096)?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in &rows {
                if row.kind == Kind::Directory {
                    self.directories.insert(&row.key);
                } else {
                    self.directories.insert_object(&row.key);
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self) {
        self.watch.retry();
        let (demanded, accept_removal) = self.scans.begin();
        let began = self.dirty.current();
        if let Some(since) = self.scans.take_suspicious() {
            self.suspicious = Some(self.suspicious.map_or(since, |known| known.min(since)));
        }
        let scan = Scan {
            tree: &self.tree,
            shadow: &self.shadow,
            dirty: &self.dirty,
            directories: &self.directories,
            options: ScanOptions {
                accept_new_export: self.accept_new_export,
                accept_removal: accept_removal || self.new_export,
                suspicious_since: self.suspicious,
            },
            progress: &self.scans.progress,
            stop: &self.stop,
        };
        let outcome = scan.run().unwrap_or_else(|error| ScanOutcome::Failed(error.to_string()));
        match &outcome {
            ScanOutcome::Finished(report) => {
                self.dirty.scanned(began);
                self.watermark.scanned(self.dirty.current());
                self.new_export = false;
                self.suspicious = None;
                if std::mem::take(&mut self.unclean) {
                    self.settle_at = Some(self.dirty.current());
                }
                tracing::info!(
                    directories = report.counts.directories,
                    objects = report.counts.objects,
                    changes = report.counts.changes,
                    "scan finished"
                );
                if let Some(first) = &report.first_unreadable {
                    tracing::warn!(count = report.unreadable, %first, "directories could not be read");
                }
            }
            ScanOutcome::NeedsConsent { would_remove, known } => {
                tracing::error!(
                    would_remove,
                    known,
                    "scan stopped: most of the tree is missing; is its disk complete?"
                );
            }
            ScanOutcome::Failed(why) => tracing::error!(%why, "scan failed"),
        }
        let finished = matches!(outcome, ScanOutcome::Finished(_));
        self.scans.end(demanded, outcome);
        if finished && !self.dirty.spilled() {
            self.watch.restore_trust();
        }
    }

    /// May the watermark move?
    fn settled(&mut self) -> bool {
        if self.unclean {
            return false;
        }
        if self.settle_at.is_some_and(|at| *self.dirty.acknowledged().borrow() < at) {
            return false;
        }
        self.settle_at = None;
        true
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
