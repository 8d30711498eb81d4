//! Base snapshots of the database, as nfs1 takes them: on schedule, when none is new enough, and when somebody asks.

use super::base_link::BaseLink;
use crate::database::base::schedule::{Due, Newest, Schedule};
use crate::database::base::{BaseProgress, BaseRecord, TakeOptions, take};
use crate::database::server::Tools;
use crate::database::source::Source;
use crate::host;
use crate::observe::control::Progress;
use crate::observe::status::DatabaseSnapshotStatus;
use crate::observe::{metrics, words};
use crate::replication::channel::DialOptions;
use crate::replication::connector::ConnectorOptions;
use crate::replication::transport::ALPN_BASE;
use crate::settings::Database;
use ehpc_proto::replication::database::{DbAnswer, DbQuery};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// The schedule is looked at so often.
const LOOK: Duration = Duration::from_secs(15);
/// A snapshot that is asked for waits so long for the first byte of binary log on the backup.
const BEGUN_WITHIN: Duration = Duration::from_secs(20);
/// After a base that failed.
const RETRY: Duration = Duration::from_secs(600);
/// Whether somebody still wants it is looked at so often.
const WANTED: Duration = Duration::from_millis(200);
/// What is being taken when nfs1 stops has so long to notice.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Takes base snapshots, one at a time.
pub(super) struct Bases {
    settings: Database,
    dial: DialOptions,
    source: Arc<Source>,
    stop: CancellationToken,
    taking: Arc<tokio::sync::Mutex<()>>,
    status: Mutex<DatabaseSnapshotStatus>,
}

impl Bases {
    /// None is taken yet. `stop` ends the one that is being taken.
    pub(super) fn new(
        settings: Database,
        dial: DialOptions,
        source: Arc<Source>,
        stop: CancellationToken,
    ) -> Bases {
        Bases { settings, dial, source, stop, taking: Arc::default(), status: Mutex::default() }
    }

    /// For status.
    pub(super) fn status(&self) -> DatabaseSnapshotStatus {
        self.status.lock().clone()
    }

    /// Takes one now, as soon as no other is being taken. It ends when `asker` leaves.
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        label: Option<String>,
        asker: Progress,
    ) -> Result<BaseRecord, String> {
        let waits = "waiting for the base snapshot that is being taken";
        let one = match Arc::clone(&self.taking).try_lock_owned() {
            Ok(one) => one,
            Err(_) => {
                // A slow reader misses steps; that is all.
                let _ = asker.try_send(json!({ "text": waits }));
                Arc::clone(&self.taking).lock_owned().await
            }
        };
        // A task of its own: whoever asked may go, and what is being taken must still end in order.
        let taken = tokio::spawn(Arc::clone(self).take(one, label, Some(asker)));
        taken.await.unwrap_or_else(|error| Err(format!("it ended abnormally: {error}")))
    }

    /// Takes them when they are due, until nfs1 stops.
    pub(super) async fn take_when_due(self: Arc<Self>) {
        let schedule =
            Schedule { every: self.settings.base_every.0, at: self.settings.base_at.map(|at| at.minutes) };
        let mut pause = Duration::from_secs(1);
        loop {
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = LOOK;
            let Some(due) = self.stop.run_until_cancelled(self.due(schedule)).await else { return };
            let Ok(due) = due else {
                pause = Duration::from_secs(2);
                continue;
            };
            let Some(due) = due else { continue };
            let Ok(one) = Arc::clone(&self.taking).try_lock_owned() else { continue };
            tracing::info!(?due, "a base snapshot of the database is due");
            if let Err(error) = Arc::clone(&self).take(one, None, None).await {
                tracing::warn!("the base snapshot failed: {error}");
                pause = RETRY;
            }
        }
    }

    /// Waits for the one that is being taken when nfs1 stops.
    pub(super) async fn ended(&self) {
        if tokio::time::timeout(END_WITHIN, self.taking.lock()).await.is_err() {
            tracing::warn!(
                "the base snapshot that is being taken did not end within {} s",
                END_WITHIN.as_secs()
            );
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
        self.status.lock().next_ms = newest
            .map(|base| schedule.next(base.taken_at, local))
            .and_then(|next| u64::try_from(next).ok())
            .map(|next| next * 1000);
        Ok(schedule.due(now, local, newest, place.lineage))
    }

    async fn take(
        self: Arc<Self>,
        _one: OwnedMutexGuard<()>,
        label: Option<String>,
        asker: Option<Progress>,
    ) -> Result<BaseRecord, String> {
        let wanted = || !asker.as_ref().is_some_and(Progress::is_closed) && !self.stop.is_cancelled();
        let outcome = match self.options(label).await {
            Ok(options) => self.take_there(options, &asker, &wanted).await,
            Err(why) => Err(why),
        };
        let mut status = self.status.lock();
        status.running = None;
        match &outcome {
            Ok(_) => {
                metrics::DATABASE_BASES_TAKEN.inc();
                status.last_ms = Some(words::now_ms());
                status.last_error = None;
            }
            // Nobody wants it any more: that is no failure.
            Err(_) if !wanted() => tracing::info!("the base snapshot was withdrawn"),
            Err(error) => status.last_error = Some(error.clone()),
        }
        outcome
    }

    async fn options(&self, label: Option<String>) -> Result<TakeOptions, String> {
        let mut durable = self.source.durable();
        let begun = tokio::time::timeout(BEGUN_WITHIN, durable.wait_for(Option::is_some));
        let begun = self.stop.run_until_cancelled(begun).await.ok_or("nfs1 is stopping")?;
        let place = begun.ok().and_then(|begun| begun.ok().and_then(|place| *place));
        let lineage =
            place.ok_or("the backup has no binary log yet; `ehpc-store db status` says why")?.lineage;
        // Of several addresses another may answer, too, and not be the one that is streamed.
        let dsn = self.source.server();
        let dsn = dsn.ok_or("the database does not stream now; `ehpc-store db status` says why")?;
        let mut options = TakeOptions::new(dsn, Tools::new(self.settings.tools.clone()), lineage);
        options.label = label;
        options.lock = self.settings.base_lock;
        options.sums = self.settings.base_sums;
        Ok(options)
    }

    /// On a thread of its own, with which the dump program ends.
    async fn take_there(
        self: &Arc<Self>,
        options: TakeOptions,
        asker: &Option<Progress>,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<BaseRecord, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (done, mut result) = tokio::sync::oneshot::channel();
        let (bases, runtime, asker, told) =
            (Arc::clone(self), Handle::current(), asker.clone(), stop.clone());
        self.status.lock().running = Some("connecting".to_owned());
        std::thread::Builder::new()
            .name("base".to_owned())
            .spawn(move || {
                let step = |text: String| {
                    if let Some(asker) = &asker {
                        let _ = asker.try_send(json!({ "text": text })); // as above
                    }
                };
                let _ = done.send(bases.take_here(&options, &runtime, &step, &told));
            })
            .map_err(|error| format!("starting a thread: {error}"))?;
        let mut looks = tokio::time::interval(WANTED);
        loop {
            tokio::select! {
                result = &mut result => {
                    return result.unwrap_or_else(|_| Err("it ended abnormally; the log says why".to_owned()));
                }
                _ = looks.tick() => if !wanted() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn take_here(
        &self,
        options: &TakeOptions,
        runtime: &Handle,
        step: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<BaseRecord, String> {
        let connector = ConnectorOptions {
            address: self.dial.address.clone(),
            identity: Arc::clone(&self.dial.identity),
            peers: self.dial.peers.clone(),
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
            self.status.lock().running = Some(text);
        };
        take(options, runtime, &mut sink, &progress, stop).map_err(|error| error.to_string())
    }
}
