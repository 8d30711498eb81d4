//! The database on the host of nfs1: its binary log streams to the backup, base snapshots are taken when they are due,
//! and moments are marked that files and database have in common.

use super::base_link::BaseLink;
use super::database_link::DatabaseDial;
use crate::change::{DirtySet, Fence};
use crate::database::base::schedule::{Due, Newest, Schedule};
use crate::database::base::{BaseProgress, BaseRecord, TakeOptions, take};
use crate::database::dsn::Dsn;
use crate::database::preflight::{self, Finding, Severity};
use crate::database::server::Tools;
use crate::database::source::{Source, SourceOptions};
use crate::database::sql::Sql;
use crate::host;
use crate::observe::status::{DatabaseSnapshotStatus, DatabaseSourceStatus, DatabaseStatus, VerifyStatus};
use crate::observe::{metrics, words};
use crate::replication::channel::DialOptions;
use crate::replication::connector::ConnectorOptions;
use crate::replication::sender::SenderControl;
use crate::replication::transport::ALPN_BASE;
use crate::settings::Database;
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{DbAnswer, DbQuery, Mark, MarkKind, Place};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A fence waits so long for the database's end.
const PATIENCE: Duration = Duration::from_secs(600);
/// A periodic mark that takes longer is left out.
const MARK_WITHIN: Duration = Duration::from_secs(60);
/// The schedule is looked at so often.
const LOOK: Duration = Duration::from_secs(15);
/// The server is looked at so often, and sooner while something is wrong with it.
const PREFLIGHT: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(5);
/// A snapshot that is asked for waits so long for the first byte of binary log on the backup.
const BEGUN_WITHIN: Duration = Duration::from_secs(20);
/// After a base that failed.
const RETRY: Duration = Duration::from_secs(600);

/// What the database's side of nfs1 is made of.
pub(super) struct SourceParts {
    pub(super) settings: Database,
    pub(super) dial: DialOptions,
    pub(super) fence: Fence,
    pub(super) sender: SenderControl,
    pub(super) dirty: Arc<DirtySet>,
}

/// The running side.
pub(super) struct DatabaseSource {
    shared: Arc<Shared>,
    /// What the last verification found.
    pub(super) verified: Mutex<VerifyStatus>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    parts: SourceParts,
    source: Source,
    taking: tokio::sync::Mutex<()>,
    snapshot: Mutex<DatabaseSnapshotStatus>,
    /// What the preflight found.
    findings: Mutex<Vec<String>>,
    /// Ends a base that is being taken.
    stop_taking: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl DatabaseSource {
    /// Starts it; whether the server answers is seen later, in `status`.
    pub(super) fn start(parts: SourceParts) -> DatabaseSource {
        let dial = Arc::new(DatabaseDial::new(parts.dial.clone()));
        let source = Source::start(&Handle::current(), SourceOptions::of(&parts.settings, dial));
        let shared = Arc::new(Shared {
            parts,
            source,
            taking: tokio::sync::Mutex::new(()),
            snapshot: Mutex::default(),
            findings: Mutex::default(),
            stop_taking: Arc::default(),
            stop: CancellationToken::new(),
        });
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).take_when_due()),
            tokio::spawn(Arc::clone(&shared).mark_now_and_then()),
            tokio::spawn(Arc::clone(&shared).look_at_the_server()),
        ];
        DatabaseSource { shared, verified: Mutex::default(), tasks: Mutex::new(tasks) }
    }

    /// For `status`.
    pub(super) fn status(&self) -> DatabaseStatus {
        let source = DatabaseSourceStatus {
            findings: self.shared.findings.lock().clone(),
            ..self.shared.source.status()
        };
        DatabaseStatus {
            source: Some(source),
            snapshot: Some(self.shared.snapshot.lock().clone()),
            verify: Some(self.verified.lock().clone()),
            ..DatabaseStatus::default()
        }
    }

    /// For questions to the archive.
    pub(super) fn source(&self) -> &Source {
        &self.shared.source
    }

    /// What the settings say of it.
    pub(super) fn settings(&self) -> &Database {
        &self.shared.parts.settings
    }

    /// The server that is streamed: of several addresses another may answer, too, and not be the one.
    pub(super) fn server(&self) -> Result<Dsn, String> {
        self.shared.server()
    }

    /// Waits until everything that was committed before the call is on the backup.
    pub(super) async fn fence(&self) -> Result<(), String> {
        let place = self.shared.source.fresh(PATIENCE).await?;
        self.shared.reach(place, PATIENCE).await
    }

    /// Where the database is now; before the files' fence begins.
    pub(super) async fn fence_begins(&self) -> Result<(Place, Timestamp), String> {
        let place = self.shared.source.fresh(PATIENCE).await?;
        Ok((place, host::now()))
    }

    /// The files are on the backup: waits until that place is too, and marks the moment.
    pub(super) async fn fence_ends(&self, (place, time): (Place, Timestamp), cut: u64) -> Result<(), String> {
        let batch = self.shared.batch();
        self.shared.reach(place, PATIENCE).await?;
        self.shared.source.mark(Mark { time, place, batch, cut, kind: MarkKind::Fence });
        Ok(())
    }

    /// Takes a base snapshot now.
    pub(super) async fn snapshot(
        &self,
        label: Option<String>,
        step: impl Fn(String) + Send + 'static,
    ) -> Result<BaseRecord, String> {
        step("waiting for the base snapshot that is being taken".to_owned());
        let _one = self.shared.taking.lock().await;
        self.shared.clone().take(label, step).await
    }

    /// Ends it; what was read is on its way.
    pub(super) async fn stop(&self) {
        self.shared.stop_taking.store(true, Ordering::Relaxed);
        self.shared.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            let _ = task.await;
        }
        self.shared.source.stop().await;
    }
}

impl Shared {
    /// Waits until the archive holds everything before `place`.
    async fn reach(&self, place: Place, patience: Duration) -> Result<(), String> {
        let mut durable = self.source.durable();
        let reached = durable.wait_for(|durable| durable.is_some_and(|durable| durable >= place));
        let reached = tokio::time::timeout(patience, reached).await;
        match reached.map(|durable| durable.map(|durable| *durable)) {
            // A failover in between: what was before it may not have arrived.
            Ok(Ok(Some(durable))) if durable.lineage != place.lineage => {
                Err("the database: another server took its place meanwhile; ask again".to_owned())
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the database: nfs1 is stopping".to_owned()),
            Err(_) => Err(format!(
                "the database: the backup does not have everything within {} s; `ehpc-store db status` says why",
                patience.as_secs()
            )),
        }
    }

    /// The newest batch on the backup. Right after a fence: it holds the fence's cut.
    fn batch(&self) -> u64 {
        self.parts.sender.status().report().acknowledged_batch
    }

    fn server(&self) -> Result<Dsn, String> {
        let server = self.source.server();
        server.ok_or_else(|| "the database does not stream now; `ehpc-store db status` says why".to_owned())
    }

    async fn mark_now_and_then(self: Arc<Shared>) {
        let mut every = tokio::time::interval(self.parts.settings.mark_every.0);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = every.tick() => {}
            }
            if last.is_some() && last == self.source.end().map(|place| (place, self.parts.dirty.current())) {
                continue;
            }
            // The database first: whatever a transaction before `place` names was durable before the files' fence. A
            // source that lags makes no marks: they would name an older database.
            let fresh = tokio::select! {
                () = self.stop.cancelled() => return,
                fresh = self.source.fresh(MARK_WITHIN) => fresh,
            };
            let (Ok(place), time) = (fresh, host::now()) else { continue };
            let fenced = tokio::select! {
                () = self.stop.cancelled() => return,
                fenced = self.parts.fence.wait(MARK_WITHIN) => fenced,
            };
            let Ok(cut) = fenced else { continue };
            let batch = self.batch();
            if self.reach(place, MARK_WITHIN).await.is_ok() {
                self.source.mark(Mark { time, place, batch, cut, kind: MarkKind::Periodic });
                last = Some((place, cut));
            }
        }
    }

    /// Whether the server is as a backup needs it: at the start, and now and then.
    async fn look_at_the_server(self: Arc<Shared>) {
        loop {
            let mut pause = PREFLIGHT;
            if let Ok(dsn) = reachable(&self.parts.settings).await
                && let Ok(mut sql) = Sql::connect(&dsn).await
            {
                let found = preflight::check(&mut sql, &self.parts.settings).await;
                sql.close().await;
                let worth = |finding: &Finding| finding.severity != Severity::Advice;
                let texts = |found: Vec<Finding>| {
                    found.iter().filter(|finding| worth(finding)).map(|f| format!("database: {f}")).collect()
                };
                let texts: Vec<String> = found.map(texts).unwrap_or_default();
                if texts != *self.findings.lock() {
                    texts.iter().for_each(|text| tracing::warn!("{text}"));
                }
                if !texts.is_empty() {
                    pause = SOON;
                }
                *self.findings.lock() = texts;
            } else {
                pause = SOON;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn take_when_due(self: Arc<Shared>) {
        let schedule = Schedule {
            every: self.parts.settings.base_every.0,
            at: self.parts.settings.base_at.map(|at| at.minutes),
        };
        let mut pause = Duration::from_secs(1);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = LOOK;
            let Ok(due) = self.due(schedule).await else {
                pause = Duration::from_secs(2);
                continue;
            };
            let Some(due) = due else { continue };
            let Ok(_one) = self.taking.try_lock() else { continue };
            tracing::info!(?due, "a base snapshot of the database is due");
            if let Err(error) = Arc::clone(&self).take(None, |_| ()).await {
                tracing::warn!("the base snapshot failed: {error}");
                pause = RETRY;
            }
        }
    }

    async fn due(&self, schedule: Schedule) -> Result<Option<Due>, String> {
        // In the archive first: a base is worth nothing without what follows it.
        let Some(place) = *self.source.durable().borrow() else { return Err("no archive yet".to_owned()) };
        let newest = match self.source.ask(DbQuery::NewestBase).await?.into_iter().next() {
            Some(DbAnswer::NewestBase(newest)) => newest,
            other => return Err(format!("the backup answered {other:?}")),
        };
        let now = host::now().seconds;
        let local = i64::from(host::local_time::local_time(now).offset_seconds);
        let newest = newest.map(|base| Newest { taken_at: base.taken_at.seconds, lineage: base.lineage });
        self.snapshot.lock().next_ms = newest
            .map(|base| schedule.next(base.taken_at, local))
            .and_then(|next| u64::try_from(next).ok())
            .map(|next| next * 1000);
        Ok(schedule.due(now, local, newest, place.lineage))
    }

    /// On a thread of its own, with which the dump program ends.
    async fn take(
        self: Arc<Shared>,
        label: Option<String>,
        step: impl Fn(String) + Send + 'static,
    ) -> Result<BaseRecord, String> {
        let mut durable = self.source.durable();
        let begun = tokio::time::timeout(BEGUN_WITHIN, durable.wait_for(Option::is_some)).await;
        let place = begun.ok().and_then(|begun| begun.ok().and_then(|place| *place));
        let lineage =
            place.ok_or("the backup has no binary log yet; `ehpc-store db status` says why")?.lineage;
        let settings = &self.parts.settings;
        let dsn = self.server()?;
        let mut options = TakeOptions::new(dsn, Tools::new(settings.tools.clone()), lineage);
        options.label = label;
        options.lock = settings.base_lock;
        options.sums = settings.base_sums;
        let (done, result) = tokio::sync::oneshot::channel();
        let (shared, runtime) = (Arc::clone(&self), Handle::current());
        self.snapshot.lock().running = Some("connecting".to_owned());
        let thread = std::thread::Builder::new().name("base".to_owned()).spawn(move || {
            let _ = done.send(shared.take_here(&options, &runtime, &step));
        });
        let outcome = match thread {
            Ok(_) => result.await.unwrap_or_else(|_| Err("it ended abnormally; the log says why".to_owned())),
            Err(error) => Err(error.to_string()),
        };
        let mut status = self.snapshot.lock();
        status.running = None;
        match &outcome {
            Ok(_) => {
                metrics::DATABASE_BASES_TAKEN.inc();
                status.last_ms = Some(words::now_ms());
                status.last_error = None;
            }
            Err(error) => status.last_error = Some(error.clone()),
        }
        outcome
    }

    fn take_here(
        &self,
        options: &TakeOptions,
        runtime: &Handle,
        step: &dyn Fn(String),
    ) -> Result<BaseRecord, String> {
        let connector = ConnectorOptions {
            address: self.parts.dial.address.clone(),
            identity: Arc::clone(&self.parts.dial.identity),
            peers: self.parts.dial.peers.clone(),
            shutdown: self.stop.child_token(),
            seed: rand::random(),
            alpn: ALPN_BASE,
        };
        let mut sink = BaseLink::connect(runtime.clone(), connector)?;
        let progress = |now: BaseProgress| {
            let again =
                now.again.map_or(String::new(), |why| format!("; try {}, because {why}", now.attempt));
            let text = format!(
                "{} of about {} dumped, {} new{again}",
                words::bytes(now.bytes),
                words::bytes(now.expected.max(now.bytes)),
                words::bytes(now.new_bytes)
            );
            step(text.clone());
            self.snapshot.lock().running = Some(text);
        };
        take(options, runtime, &mut sink, &progress, &self.stop_taking).map_err(|error| error.to_string())
    }
}

/// The first server of the settings that answers.
async fn reachable(settings: &Database) -> Result<Dsn, String> {
    let mut refusals = Vec::new();
    for address in &settings.address {
        let dsn = Dsn::of(settings, address);
        match Sql::connect(&dsn).await {
            Ok(sql) => {
                sql.close().await;
                return Ok(dsn);
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(refusals.join("; "))
}
