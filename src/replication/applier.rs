//! The applier: one thread that takes durable batches in order from the packs to the catalog and the mirror.
//!
//! There is one position, the catalog's. Rows of several batches are one SQLite transaction; the mirror is changed
//! as each batch comes, so that it is a few milliseconds behind; a commit is: syncfs of the mirror, then COMMIT. So
//! the catalog never records what the mirror may lose, and readers see only what is committed: who waits for a
//! batch asks for a commit ([`Applier::request_commit`]). Without anybody waiting a commit comes [`COMMIT_AFTER`] the
//! first uncommitted batch, after [`COMMIT_OBJECTS`] objects, or when nothing has arrived for [`IDLE`].
//!
//! After a stop the mirror may hold any part of the batches after the catalog's position. All that were durable
//! when the applier opened are therefore redone ([`Mirror::redo`]): the mirror is first cleared of what those batches
//! touch, found by inode, and then brought to their end. The same after an error: of the mirror, the batch at hand is
//! redone once the cause is gone; of the catalog or of syncfs, the transaction is rolled back and all since the last
//! commit is redone. No batch is skipped, ever.

mod core;
pub mod past;
mod source;
mod status;

pub use core::ApplierError;
pub use status::{ApplierState, ApplierStatus};

use self::core::Core;
use crate::replication::mirror::check::{Check, Findings};
use crate::replication::queries::{Backstage, ReadPart};
use crate::store::Store;
use ehpc_proto::replication::ObjectId;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Objects and entries between two commits, at most (and one batch more).
const COMMIT_OBJECTS: usize = 20_000;
/// Time between two commits, at most (and one batch more). Not shorter, because a syncfs also delays the fsyncs of the
/// packs, on which acknowledgements wait.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// Nothing new for so long: commit what there is.
const IDLE: Duration = Duration::from_millis(100);
/// Without news the thread looks around once in a while.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after an error, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long a check or repair waits for a mirror that is being put in order.
const UNSETTLED: Duration = Duration::from_secs(60);

/// How an applier is set up.
#[derive(Clone, Debug)]
pub struct ApplierOptions {
    /// Holds `mirror/` and `limbo/`; `None` = `mirror = false`.
    pub directory: Option<PathBuf>,
}

struct Shared {
    store: Arc<Store>,
    /// The apply gate: held while a batch is applied, while a slice of the mirror is compared, while something is repaired.
    core: Mutex<Core>,
    /// Told whenever `core` was changed.
    moved: Condvar,
    applied: watch::Sender<u64>,
    /// Somebody waits for this batch to be committed.
    wanted: AtomicU64,
    /// End gracefully.
    stop: AtomicBool,
    /// End without a commit.
    abandon: AtomicBool,
    status: Mutex<ApplierStatus>,
}

/// A running applier. Dropped, it ends after the batch at hand without a commit; [`Applier::stop`] is the graceful end.
pub struct Applier {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Applier {
    /// Opens catalog and mirror and starts. Redoing what an unclean stop left is done by the thread.
    pub fn start(store: Arc<Store>, options: ApplierOptions) -> Result<Arc<Applier>, ApplierError> {
        let core = Core::open(store.clone(), options.directory.as_deref())?;
        let (applied, _) = watch::channel(core.committed());
        let status =
            ApplierStatus { applied: core.committed(), committed: core.committed(), ..Default::default() };
        let shared = Arc::new(Shared {
            store,
            core: Mutex::new(core),
            moved: Condvar::new(),
            applied,
            wanted: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            status: Mutex::new(status),
        });
        let running = shared.clone();
        let thread = std::thread::Builder::new()
            .name("applier".to_owned())
            .stack_size(8 << 20) // directories are opened recursively while the mirror is put in order
            .spawn(move || running.run())
            .map_err(ApplierError::Thread)?;
        Ok(Arc::new(Applier { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// A batch has become durable. (The thread also hears of it from the store itself.)
    pub fn durable(&self, _number: u64) {
        self.shared.store.wake();
    }

    /// Number of the last batch that readers of the catalog see and that is safe in the mirror.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Commits as soon as `number` is applied.
    pub fn request_commit(&self, number: u64) {
        self.shared.wanted.fetch_max(number, Ordering::SeqCst);
        self.shared.store.wake();
    }

    /// For `status`.
    pub fn status(&self) -> ApplierStatus {
        self.shared.status.lock().clone()
    }

    /// Finishes the batch at hand, commits, ends.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.join();
    }

    fn join(&self) {
        self.shared.store.wake();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the applier's thread ended with a panic");
        }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.shared.abandon.store(true, Ordering::SeqCst);
        self.join();
    }
}

impl Backstage for Applier {
    fn wait_applied(&self, batch: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        self.request_commit(batch);
        let mut core = self.shared.core.lock();
        while core.committed() < batch {
            if self.shared.moved.wait_until(&mut core, deadline).timed_out() {
                break;
            }
        }
        core.committed()
    }

    fn read_data(&self, part: &mut ReadPart<'_>) -> Result<(), String> {
        let mut check = Check::default();
        let mut more = true;
        while more {
            let mut core = self.shared.settled()?;
            let mut slice = core.check_slice(&mut check).map_err(|error| error.to_string())?;
            MutexGuard::unlock_fair(core);
            // The long reads are done without the gate, and count only if nothing has changed meanwhile.
            while let Some(read) = check.next_long() {
                let found = read.run(&mut check, &self.shared.store);
                let mut core = self.shared.settled()?;
                core.conclude(&mut check, read, found).map_err(|error| error.to_string())?;
                MutexGuard::unlock_fair(core);
            }
            check.verify_chunks(&self.shared.store, &mut slice);
            more = !check.is_done();
            slice.merge(&mut check);
            let Findings { damage, unchecked } = slice;
            if !part(check.progress(), damage, unchecked) {
                break;
            }
        }
        Ok(())
    }

    fn repair(&self, objects: &[ObjectId]) -> Result<Vec<ObjectId>, String> {
        let mut resend = Vec::new();
        for id in objects {
            let mut core = self.shared.settled()?;
            if core.repair(*id).map_err(|error| error.to_string())? {
                resend.push(*id);
            }
            MutexGuard::unlock_fair(core);
        }
        self.shared.commit_now();
        Ok(resend)
    }
}

impl Shared {
    /// The core, once the mirror is as the catalog's rows say.
    fn settled(&self) -> Result<MutexGuard<'_, Core>, String> {
        let deadline = Instant::now() + UNSETTLED;
        let mut core = self.core.lock();
        while !core.is_settled() {
            if self.moved.wait_until(&mut core, deadline).timed_out() {
                return Err(format!("the mirror is being put in order ({})", self.status.lock().state));
            }
        }
        Ok(core)
    }

    /// Waits until what was just done is committed, so that others see it.
    fn commit_now(&self) {
        let deadline = Instant::now() + UNSETTLED;
        let mut core = self.core.lock();
        core.hurry();
        let before = core.commits();
        self.store.wake();
        while core.is_urgent() && core.commits() == before {
            if self.moved.wait_until(&mut core, deadline).timed_out() {
                break;
            }
        }
    }

    fn run(&self) {
        let mut pause = RETRY.0;
        let mut last_news = Instant::now();
        while !self.abandon.load(Ordering::SeqCst) {
            let stopping = self.stop.load(Ordering::SeqCst);
            // What a panic left half done is taken back like after any other error.
            let step = std::panic::AssertUnwindSafe(|| self.step(stopping, &mut last_news));
            match std::panic::catch_unwind(step).unwrap_or(Err(ApplierError::Panicked)) {
                Ok(()) if stopping => break,
                Ok(()) => pause = RETRY.0,
                Err(error) => {
                    tracing::error!("the applier pauses: {error}");
                    self.status.lock().state = ApplierState::Paused { reason: error.to_string() };
                    self.core.lock().recover(&error);
                    self.save();
                    if stopping {
                        break;
                    }
                    self.pause(pause);
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
        self.status.lock().state = ApplierState::Stopped;
    }

    /// Applies one batch (or puts a stretch of the mirror in order) if there is one, and commits if it is time.
    fn step(&self, stopping: bool, last_news: &mut Instant) -> Result<(), ApplierError> {
        let applied = {
            let mut core = self.core.lock();
            let progress = if stopping { core::Progress::Nothing } else { core.advance()? };
            match progress {
                core::Progress::Nothing => {}
                core::Progress::Applied => *last_news = Instant::now(),
            }
            self.publish(&core, progress);
            core.applied()
        };
        let due = stopping || self.is_due(last_news.elapsed() >= IDLE);
        if due {
            self.commit()?;
        }
        if !stopping && !self.abandon.load(Ordering::SeqCst) {
            let core = self.core.lock();
            let (settled, uncommitted) = (core.is_settled(), core.is_uncommitted());
            drop(core);
            if settled {
                self.store.wait_durable(applied, if uncommitted { IDLE } else { LOOK });
            }
        }
        Ok(())
    }

    fn is_due(&self, idle: bool) -> bool {
        let core = self.core.lock();
        let wanted = self.wanted.load(Ordering::SeqCst);
        let asked = wanted > core.committed() && wanted <= core.applied();
        let enough = core.weight() >= COMMIT_OBJECTS || core.age() >= COMMIT_AFTER;
        core.is_uncommitted() && (asked || enough || core.is_urgent() || (idle && core.weight() > 0))
    }

    /// What was applied before an error need not be done again.
    fn save(&self) {
        let uncommitted = self.core.lock().is_uncommitted();
        if uncommitted && let Err(error) = self.commit() {
            tracing::error!("the applier cannot commit: {error}");
            self.core.lock().recover(&error);
        }
    }

    fn commit(&self) -> Result<(), ApplierError> {
        // The long part without the gate: nobody but this thread applies batches.
        let (sync, generation) = {
            let core = self.core.lock();
            (core.mirror_handle()?, core.generation())
        };
        if let Some(directory) = sync {
            rustix::fs::syncfs(&directory).map_err(|errno| ApplierError::Sync(errno.into()))?;
        }
        let mut core = self.core.lock();
        core.commit(generation)?;
        self.publish(&core, core::Progress::Nothing);
        Ok(())
    }

    fn publish(&self, core: &Core, progress: core::Progress) {
        let committed = core.committed();
        self.applied.send_if_modified(|applied| std::mem::replace(applied, committed) != committed);
        let mut status = self.status.lock();
        core.report(&mut status, progress);
        self.moved.notify_all();
    }

    /// Waits; a stop ends it.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.stop.load(Ordering::SeqCst) && !self.abandon.load(Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.store.wait_durable(u64::MAX, left);
        }
    }
}

#[cfg(test)]
#[path = "applier/tests.rs"]
mod tests;
