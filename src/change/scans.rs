//! When to scan: demands that a fence waits for, requests, and what came of the last scan.

use crossbeam_channel::{Receiver, Sender, bounded};
use ehpc_proto::replication::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

/// How far the scan that runs now has come.
#[derive(Default)]
pub struct ScanProgress {
    pub(super) directories: AtomicU64,
    pub(super) objects: AtomicU64,
    pub(super) changes: AtomicU64,
}

/// Counts of a scan.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ScanCounts {
    /// Directories listed.
    pub directories: u64,
    /// Objects compared with the shadow.
    pub objects: u64,
    /// Changes noted.
    pub changes: u64,
}

impl ScanProgress {
    pub(super) fn counts(&self) -> ScanCounts {
        ScanCounts {
            directories: self.directories.load(Ordering::Relaxed),
            objects: self.objects.load(Ordering::Relaxed),
            changes: self.changes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn reset(&self) {
        for counter in [&self.directories, &self.objects, &self.changes] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// What a scan came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanOutcome {
    /// Everything that differs was noted.
    Finished(ScanReport),
    /// Nothing was noted of what it found missing: an operator must say that this is meant.
    NeedsConsent {
        /// Objects that the backup would lose from its live state.
        would_remove: u64,
        /// Objects that the backup has.
        known: u64,
    },
    /// It could not be done.
    Failed(String),
}

/// A finished scan.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ScanReport {
    /// What was looked at and found.
    pub counts: ScanCounts,
    /// Other file systems below the export, which are not part of it (paths within the export).
    pub mount_points: Vec<String>,
    /// Directories that could not be read, and the first of them with the reason.
    pub unreadable: u64,
    /// The first of them.
    pub first_unreadable: Option<String>,
}

/// What `status` shows of scans.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScanStatus {
    /// A scan runs now; how far it has come.
    pub running: Option<ScanCounts>,
    /// The last one's outcome.
    pub last: Option<ScanOutcome>,
    /// When it ended, seconds since 1970.
    pub finished_at: Option<u64>,
    /// Changes may have been missed that no scan has looked for yet.
    pub outstanding: bool,
}

/// Why scan now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wake {
    /// Demanded, asked for, or a consent was given.
    Signal,
    /// The time of the next scheduled one has come.
    Due,
    /// The end.
    Stop,
}

#[derive(Clone, Copy, Default)]
struct Demand {
    demanded: u64,
    covered: u64,
    /// The last scan needs an operator: waiting for it would be for ever.
    blocked: bool,
    stopped: bool,
}

#[derive(Default)]
struct Record {
    running: bool,
    last: Option<ScanOutcome>,
    finished_at: Option<u64>,
    asked: bool,
    consent: bool,
    /// Rows that were read since then may hide what was missed.
    suspicious_since: Option<Timestamp>,
}

/// Demands for scans; shared by watchers, fence, sender and the scanning thread.
pub struct Scans {
    demand: watch::Sender<Demand>,
    record: Mutex<Record>,
    signal: (Sender<()>, Receiver<()>),
    pub(super) progress: ScanProgress,
}

/// A scan that a fence waits for does not come.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ScanBlocked {
    #[error("{0}")]
    Outcome(String),
    #[error("the scanning thread has ended")]
    Stopped,
}

impl Scans {
    pub(super) fn new() -> Arc<Scans> {
        Arc::new(Scans {
            demand: watch::Sender::default(),
            record: Mutex::default(),
            signal: bounded(1),
            progress: ScanProgress::default(),
        })
    }

    /// Changes may have been missed: fences wait until a scan that begins after this has noted them.
    pub fn demand(&self) {
        self.demand.send_modify(|demand| {
            demand.demanded += 1;
            demand.blocked = false;
        });
        self.wake();
    }

    /// As [`Scans::demand`], when what was missed happened at `since` or later: rows of that time are
    /// read again, for a reading that knew of another change only may have hidden it.
    pub(super) fn demand_since(&self, since: Timestamp) {
        {
            let mut record = self.record.lock();
            record.suspicious_since = Some(record.suspicious_since.map_or(since, |known| known.min(since)));
        }
        self.demand();
    }

    /// Takes what [`Scans::demand_since`] was told.
    pub(super) fn take_suspicious(&self) -> Option<Timestamp> {
        self.record.lock().suspicious_since.take()
    }

    /// A scan is outstanding.
    pub(super) fn outstanding(&self) -> bool {
        let demand = *self.demand.borrow();
        demand.covered < demand.demanded
    }

    /// A scan would be welcome; nobody waits for it.
    pub fn ask(&self) {
        self.record.lock().asked = true;
        self.wake();
    }

    /// An operator says that the removal which the last scan stopped at is meant.
    pub fn consent(&self) {
        self.record.lock().consent = true;
        self.demand();
    }

    /// For `status`.
    pub fn status(&self) -> ScanStatus {
        let demand = *self.demand.borrow();
        let record = self.record.lock();
        ScanStatus {
            running: record.running.then(|| self.progress.counts()),
            last: record.last.clone(),
            finished_at: record.finished_at,
            outstanding: demand.covered < demand.demanded,
        }
    }

    fn wake(&self) {
        // Full: the thread will look anyway.
        let _ = self.signal.0.try_send(());
    }

    /// Until there is a reason to scan.
    pub(super) fn next(&self, due: Instant) -> Wake {
        loop {
            let demand = *self.demand.borrow();
            if demand.stopped {
                return Wake::Stop;
            }
            let asked = std::mem::take(&mut self.record.lock().asked);
            if asked || demand.covered < demand.demanded && !demand.blocked {
                return Wake::Signal;
            }
            if self.signal.1.recv_deadline(due).is_err() {
                return Wake::Due;
            }
        }
    }

    /// A scan begins: what was demanded until now, and whether removals are meant.
    pub(super) fn begin(&self) -> (u64, bool) {
        self.progress.reset();
        let mut record = self.record.lock();
        record.running = true;
        (self.demand.borrow().demanded, std::mem::take(&mut record.consent))
    }

    /// It ended.
    pub(super) fn end(&self, demanded: u64, outcome: ScanOutcome) {
        let finished = matches!(outcome, ScanOutcome::Finished(_));
        {
            let mut record = self.record.lock();
            record.running = false;
            record.last = Some(outcome);
            record.finished_at =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        }
        self.demand.send_modify(|demand| {
            // A newer demand deserves its own attempt.
            demand.blocked = !finished && demand.demanded == demanded;
            if finished {
                demand.covered = demand.covered.max(demanded);
            }
        });
    }

    /// A scan that stopped for an operator or failed may be tried again.
    pub(super) fn unblock(&self) {
        self.demand.send_if_modified(|demand| std::mem::take(&mut demand.blocked));
    }

    pub(super) fn stop(&self) {
        self.demand.send_modify(|demand| demand.stopped = true);
        self.wake();
    }

    /// Waits until everything demanded before the call is covered.
    pub(super) async fn covered(&self) -> Result<(), ScanBlocked> {
        let demanded = self.demand.borrow().demanded;
        let mut demand = self.demand.subscribe();
        let reached = |demand: &Demand| demand.covered >= demanded || demand.blocked || demand.stopped;
        let state = *demand.wait_for(reached).await.map_err(|_| ScanBlocked::Stopped)?;
        if state.covered >= demanded {
            Ok(())
        } else if state.blocked {
            Err(ScanBlocked::Outcome(self.why_blocked()))
        } else {
            Err(ScanBlocked::Stopped)
        }
    }

    /// Resolves when a scan is outstanding.
    pub(super) async fn demanded(&self) {
        let mut demand = self.demand.subscribe();
        if demand.wait_for(|demand| demand.covered < demand.demanded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn why_blocked(&self) -> String {
        match &self.record.lock().last {
            Some(ScanOutcome::NeedsConsent { would_remove, known }) => format!(
                "a scan found {would_remove} of {known} objects missing and stopped; if that is meant, say so with `ehpc-store ctl accept-removal`"
            ),
            Some(ScanOutcome::Failed(why)) => format!("a scan failed: {why}"),
            _ => "a scan is outstanding".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn finished() -> ScanOutcome {
        ScanOutcome::Finished(ScanReport::default())
    }

    #[tokio::test]
    async fn a_demand_is_covered_by_a_scan_that_began_after_it() {
        let scans = Scans::new();
        assert_eq!(scans.next(soon()), Wake::Due);
        assert_eq!(scans.covered().await, Ok(()));
        scans.demand();
        assert_eq!(scans.next(soon()), Wake::Signal);
        let (demanded, _) = scans.begin();
        scans.demand();
        scans.end(demanded, finished());
        assert!(scans.status().outstanding, "the second demand came while the scan ran");
        assert_eq!(scans.next(soon()), Wake::Signal);
        let waiting = {
            let scans = Arc::clone(&scans);
            tokio::spawn(async move { scans.covered().await })
        };
        tokio::task::yield_now().await;
        let (demanded, _) = scans.begin();
        scans.end(demanded, finished());
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(scans.next(soon()), Wake::Due);
    }

    #[tokio::test]
    async fn who_waits_for_a_scan_that_needs_an_operator_is_told() {
        let scans = Scans::new();
        scans.demand();
        let (demanded, consent) = scans.begin();
        assert!(!consent);
        scans.end(demanded, ScanOutcome::NeedsConsent { would_remove: 900, known: 1200 });
        let error = scans.covered().await.unwrap_err().to_string();
        assert!(error.contains("900 of 1200") && error.contains("accept-removal"), "{error}");
        assert_eq!(scans.next(soon()), Wake::Due, "it is not tried again at once");
        scans.consent();
        assert_eq!(scans.next(soon()), Wake::Signal);
        assert!(scans.begin().1);
    }
}
