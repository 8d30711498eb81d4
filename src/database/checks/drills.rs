//! The backup's end of a restore drill (`drill`): the newest base snapshot and the archive go into a server that is made for
//! it, which then follows the archive like a standby until it has been compared. It goes away when nobody asks about it.

use super::sessions::{Absent, StandbySessions};
use crate::database::archive::{Archive, Target};
use crate::database::base::BaseStore;
use crate::database::restore::{
    self, RestoreError, RestoreMoment, RestoreOptions, RestoreTarget, Restored, Vault,
};
use crate::database::server::{Flavor, Mysqld, Tools};
use crate::database::sql::{Dsn, Sql, SqlError};
use crate::database::standby::Upstream;
use ehpc_proto::replication::database::{DbAnswer, DbQuery, DrillState, DrillStep, Drilled};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

/// A drill that nobody asks about for so long ends.
const FORGOTTEN: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
/// Disk space that a server needs before it holds anything.
const SERVER_BYTES: u64 = 512 << 20;
/// The archive needs the same disk: a drill ends before it is full.
const SPARE_BYTES: u64 = 128 << 20;
/// Longest text of an answer, characters; most differences.
const TEXT: usize = 1000;
const DIFFERENCES: usize = 100;

/// What a drill is made of.
pub struct DrillParts {
    /// The binary logs.
    pub archive: Arc<Archive>,
    /// The base snapshots.
    pub bases: Arc<BaseStore>,
    /// Where the server's programs are.
    pub tools: Tools,
    /// The binlog server that the restored server follows.
    pub upstream: Upstream,
    /// Servers are made in `scratch-XXXXXXXX` below it.
    pub directory: PathBuf,
    /// Read-locked while the archive and the bases are read: nothing of them is pruned then.
    pub in_use: Arc<RwLock<()>>,
}

/// Drills, one at a time.
pub struct Drills {
    parts: Arc<DrillParts>,
    sessions: Arc<StandbySessions>,
    now: Arc<Mutex<Option<Now>>>,
    stop: CancellationToken,
}

/// The running one.
struct Now {
    id: u64,
    asked: Instant,
    state: DrillState,
    dsn: Option<Dsn>,
    stop: Arc<AtomicBool>,
    /// Closed when its server and files are gone.
    over: watch::Receiver<()>,
}

impl Drills {
    /// None runs. `stop` ends any.
    pub fn new(parts: DrillParts, stop: CancellationToken) -> Drills {
        let now: Arc<Mutex<Option<Now>>> = Arc::default();
        let of = Arc::clone(&now);
        let sessions = StandbySessions::new(Arc::new(move || {
            let dsn = of.lock().as_ref().and_then(|now| now.dsn.clone());
            dsn.ok_or_else(|| Absent::Wholly("the drill has ended".to_owned()))
        }));
        Drills { parts: Arc::new(parts), sessions: Arc::new(sessions), now, stop }
    }

    /// `None`: the question is not one of a drill.
    pub async fn answer(&self, query: &DbQuery) -> Option<Vec<DbAnswer>> {
        match query {
            DbQuery::Drill { drill, step } => Some(vec![DbAnswer::Drill(self.step(*drill, *step).await)]),
            DbQuery::DrillSql { session, statement } => {
                Some(self.sessions.statement(*session, statement).await)
            }
            DbQuery::DrillClose { session } => Some(self.sessions.close(*session).await),
            _ => None,
        }
    }

    /// Waits for the end of a running one, after `stop`.
    pub async fn stopped(&self) {
        let over = self.now.lock().as_ref().map(|now| now.over.clone());
        if let Some(mut over) = over {
            let _ = over.changed().await;
        }
    }

    async fn step(&self, id: u64, step: DrillStep) -> DrillState {
        let mut over = {
            let mut now = self.now.lock();
            match (&mut *now, step) {
                (Some(now), DrillStep::End) if now.id == id => {
                    now.stop.store(true, Ordering::Relaxed);
                    now.over.clone()
                }
                (Some(now), _) if now.id == id => {
                    now.asked = Instant::now();
                    return now.state.clone();
                }
                (None, DrillStep::Begin) => {
                    let (begun, state) = self.begin(id);
                    *now = Some(begun);
                    return state;
                }
                (Some(_), DrillStep::Begin) => {
                    return DrillState::Failed("another drill is running there; wait for it".to_owned());
                }
                _ => return DrillState::Ended,
            }
        };
        let _ = over.changed().await; // an error, too, says that it is over
        DrillState::Ended
    }

    fn begin(&self, id: u64) -> (Now, DrillState) {
        let state = DrillState::Working("the restore begins".to_owned());
        let stop: Arc<AtomicBool> = Arc::default();
        let (ended, over) = watch::channel(());
        let one = One {
            parts: Arc::clone(&self.parts),
            now: Arc::clone(&self.now),
            stop: Arc::clone(&stop),
            shutdown: self.stop.clone(),
        };
        let sessions = Arc::clone(&self.sessions);
        tokio::spawn(async move {
            one.run().await;
            sessions.forget();
            drop(ended);
        });
        let now = Now { id, asked: Instant::now(), state: state.clone(), dsn: None, stop, over };
        (now, state)
    }
}

/// A drill at work.
struct One {
    parts: Arc<DrillParts>,
    now: Arc<Mutex<Option<Now>>>,
    stop: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

impl One {
    async fn run(self) {
        let directory = self.parts.directory.join(format!("scratch-{:08x}", rand::random::<u32>()));
        let (parts, now, stop) = (Arc::clone(&self.parts), Arc::clone(&self.now), Arc::clone(&self.stop));
        let (runtime, into) = (Handle::current(), directory.clone());
        let mut work = tokio::task::spawn_blocking(move || {
            let tell = |text: String| set(&now, DrillState::Working(short(&text)), None);
            restored(&parts, &into, &runtime, &tell, &stop)
        });
        let mut full = None;
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(TICK) => {
                    full = full.or_else(|| nearly_full(&self.parts.directory));
                    if full.is_some() || self.is_over() {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::of_machine(&error.to_string())));
        let server = match outcome {
            Ok((drilled, server)) => {
                set(&self.now, DrillState::Ready(drilled), Some(server.dsn()));
                Some(server)
            }
            Err(failure) => {
                let Failure { unsound, why } = full.map_or(failure, |why| Failure::of_machine(&why));
                tracing::warn!("a restore drill failed: {why}");
                // What it took is free again, whoever reads the reason.
                remove(&directory).await;
                let state = if unsound { DrillState::Unsound } else { DrillState::Failed };
                set(&self.now, state(why), None);
                None
            }
        };
        while !self.is_over() {
            tokio::time::sleep(TICK).await;
            // What it follows and what the comparison holds back grow on the archive's own disk.
            if let Some(why) = server.as_ref().and_then(|_| nearly_full(&self.parts.directory)) {
                tracing::warn!("a restore drill ends: {why}");
                set(&self.now, DrillState::Failed(short(&why)), None);
                break;
            }
        }
        if let Some(server) = server {
            server.discard().await;
        }
        remove(&directory).await;
        *self.now.lock() = None;
    }

    /// It was ended, nobody asks about it any more, or this host is shutting down.
    fn is_over(&self) -> bool {
        let forgotten = self.now.lock().as_ref().is_some_and(|now| now.asked.elapsed() > FORGOTTEN);
        self.stop.load(Ordering::Relaxed) || self.shutdown.is_cancelled() || forgotten
    }
}

fn set(now: &Mutex<Option<Now>>, state: DrillState, dsn: Option<Dsn>) {
    if let Some(now) = &mut *now.lock() {
        (now.state, now.dsn) = (state, dsn);
    }
}

async fn remove(directory: &Path) {
    let (directory, shown) = (directory.to_owned(), directory.display().to_string());
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
    if let Ok(Err(error)) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("removing {shown}: {error}; it goes at the next start");
    }
}

/// Why nothing was restored.
struct Failure {
    /// It is what the backup holds.
    unsound: bool,
    why: String,
}

impl Failure {
    fn of_machine(why: &str) -> Failure {
        Failure { unsound: false, why: short(why) }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Failure {
        Failure { unsound: error.is_of_backup(), why: short(&error.to_string()) }
    }
}

/// The server with everything in it, which follows the archive. Blocks.
fn restored(
    parts: &DrillParts,
    directory: &Path,
    runtime: &Handle,
    tell: &dyn Fn(String),
    stop: &AtomicBool,
) -> Result<(Drilled, Mysqld), Failure> {
    let started = Instant::now();
    let DrillParts { archive, bases, tools, .. } = parts;
    let _reading = parts.in_use.blocking_read();
    if archive.lineages().last().is_some_and(|record| record.lineage.flavor == Flavor::MySql) {
        // It would have to follow in MySQL's own way, which no test here has shown.
        return Err(Failure::of_machine(
            "the archive is of a MySQL, and a drill restores MariaDB only; `ehpc-store db restore` restores both, and \
             compares with what was recorded when the base was taken",
        ));
    }
    let newest = bases.list().last().map_or(0, |base| base.bytes);
    let (free, needed) = (free_bytes(&parts.directory), newest * 2 + SERVER_BYTES);
    if free.is_some_and(|free| free < needed) {
        let bytes = crate::observe::words::bytes;
        return Err(Failure::of_machine(&format!(
            "it may need {}, and {} has {} left",
            bytes(needed),
            parts.directory.display(),
            bytes(free.unwrap_or(0))
        )));
    }
    let options = RestoreOptions {
        moment: RestoreMoment::At(Target::Latest),
        target: RestoreTarget::Datadir(directory.to_owned()),
        only: None,
        as_table: None,
        overwrite: false,
        keep_running: true,
        scratch: parts.directory.clone(),
    };
    let vault = Vault { archive, bases, tools, runtime };
    let mut restored = restore::run(&vault, &options, tell, stop)?;
    let ended = || Failure::of_machine("the restored server has ended");
    let server = restored.server.take().ok_or_else(ended)?;
    tell("it follows the archive".to_owned());
    match runtime.block_on(follow(&server.dsn(), &parts.upstream)) {
        Ok(()) => Ok((drilled(&restored, started), server)),
        Err(error) => {
            runtime.block_on(server.discard());
            Err(Failure::of_machine(&error.to_string()))
        }
    }
}

async fn follow(dsn: &Dsn, upstream: &Upstream) -> Result<(), SqlError> {
    let mut sql = Sql::connect(dsn).await?;
    sql.run(&upstream.change_master()).await?;
    sql.run("START SLAVE").await?;
    sql.close().await;
    Ok(())
}

fn drilled(restored: &Restored, started: Instant) -> Drilled {
    let some =
        |texts: &mut dyn Iterator<Item = String>| texts.take(DIFFERENCES).map(|text| short(&text)).collect();
    Drilled {
        base: restored.base,
        file: restored.file.clone(),
        offset: restored.place.offset,
        gtid: restored.gtid.clone(),
        recorded: restored.compared as u64,
        differences: some(&mut restored.differences.iter().map(ToString::to_string)),
        compared_note: restored.compared_note.as_deref().map(short),
        lacks_history: some(&mut restored.lacks_history.iter().cloned()),
        unlogged_branches: some(&mut restored.unlogged_branches.iter().cloned()),
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// Bytes that are free where `directory` is; `None`: nobody knows.
fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn nearly_full(directory: &Path) -> Option<String> {
    let free = free_bytes(directory).filter(|free| *free < SPARE_BYTES)?;
    let (free, directory) = (crate::observe::words::bytes(free), directory.display());
    Some(format!("{directory} has only {free} left, which the archive needs"))
}
