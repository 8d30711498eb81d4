//! What the backup does with the database: takes it in, serves it to replicas, restores it.

use super::database_link::wire;
use super::db_keep::{Keep, REPLICA, moment};
use super::db_prune::{Reader, Readers, tidy};
use super::restoring::Restoring;
use crate::database::archive::ArchiveDesk;
use crate::database::binlog_server::{BinlogServer, Feed, ReplicaStatus};
use crate::database::checks::answers::BackupAnswers;
use crate::database::checks::drills::{DrillParts, Drills};
use crate::database::checks::sessions::{Absent, StandbySessions};
use crate::database::dsn::Dsn;
use crate::database::link::BoxFuture;
use crate::database::server::Tools;
use crate::database::standby::{Parts, Standby, Tell, Upstream};
use crate::observe::Refusal;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{DatabaseReplicaStatus, DatabaseStandbyStatus, DatabaseStatus};
use crate::observe::words;
use crate::replication::channel::{Channel, Service};
use crate::replication::receiver::{BackupStore, DeskOptions, QueryHandler};
use crate::replication::transport::ALPN_BASE;
use crate::settings::{Cluster, Database, StandbyMode};
use crate::store::Store;
use anyhow::{Context, Result};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{DbAnswer, DbQuery, Mark, NewestBase};
use ehpc_proto::replication::message::{Answer, Query};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// What can be asked of it.
pub(super) const ACTIONS: [Action; 6] = [
    Action { name: "db-bases", help: "the base snapshots that are kept" },
    Action { name: "db-log", help: "the binary logs that are kept" },
    Action { name: "db-prune", help: "remove binary logs that are no longer kept" },
    Action { name: "db-restore", help: "the database, or one table, as of a moment" },
    Action { name: "restore", help: "share and database of one moment" },
    Action { name: "db-standby", help: "build, start or stop the standby, or say how one follows" },
];

/// The running side.
pub(super) struct DatabaseArchive {
    pub(super) keep: Keep,
    desk: Arc<ArchiveDesk>,
    proof: Arc<BackupAnswers>,
    binlog: Arc<Mutex<Option<BinlogServer>>>,
    standby: Option<Arc<Standby>>,
    address: SocketAddr,
    password: String,
    readers: Readers,
    stop: CancellationToken,
    tidying: Mutex<Option<JoinHandle<()>>>,
}

/// Where the standby is, for those who compare it. An external one answers whoever has its account; a managed one lets
/// only us in.
fn standby_dsn(settings: &Database, standby: Option<&Standby>) -> Result<Dsn, Absent> {
    let wholly = |text: &str| Err(Absent::Wholly(text.to_owned()));
    let standby = match (&settings.standby, standby) {
        (Some(external), _) if external.mode == StandbyMode::External => {
            return Ok(Dsn::of_standby(external));
        }
        (Some(_), Some(managed)) => managed,
        _ => return wholly("there is no [database.standby]"),
    };
    if let Some(dsn) = standby.dsn() {
        return Ok(dsn);
    }
    let DatabaseStandbyStatus { state, error, .. } = standby.status();
    match state.as_str() {
        "stopped" => wholly("the managed standby is stopped; `ehpc-store db standby --start` starts it"),
        "not built" => wholly("the managed standby is not built; `ehpc-store db standby --init` builds it"),
        _ => Err(Absent::Yet(format!(
            "the managed standby does not run yet ({state}{}); `ehpc-store db status` says how it is",
            error.map_or(String::new(), |error| format!(": {error}"))
        ))),
    }
}

impl DatabaseArchive {
    /// Opens what is kept, and serves it to replicas.
    pub(super) async fn start(cluster: &Cluster, settings: &Database) -> Result<DatabaseArchive> {
        let listener = super::daemon::listen(cluster, "database.listen", settings.listen).await?;
        let settings = settings.clone();
        let keep = tokio::task::spawn_blocking(move || Keep::open(&settings)).await??;
        let password = keep.replica_password()?;
        let feed = Arc::clone(&keep.archive) as Arc<dyn Feed>;
        let binlog = BinlogServer::start(&Handle::current(), listener.into_std()?, feed, REPLICA, &password)
            .context("starting the binlog server")?;
        let standby = start_standby(&keep, binlog.address(), &password)?;
        let marks = Arc::clone(&keep.marks);
        let on_mark = Arc::new(move |mark: Mark| match marks.append(mark) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(?mark, "a mark lies before the newest one and is left out"),
            Err(error) => tracing::warn!("{error}"),
        });
        let bases = Arc::clone(&keep.bases);
        let stop = CancellationToken::new();
        let proof = Arc::new(answers(&keep, standby.clone(), upstream(binlog.address(), &password), &stop));
        tokio::spawn({
            let proof = Arc::clone(&proof);
            async move { proof.keep_following().await }
        });
        let for_desk = Arc::clone(&proof);
        let others = Arc::new(move |query: DbQuery| -> BoxFuture<'static, Vec<DbAnswer>> {
            let (bases, proof) = (Arc::clone(&bases), Arc::clone(&for_desk));
            Box::pin(async move {
                if let Some(parts) = proof.answer(&query).await {
                    return parts;
                }
                let DbQuery::NewestBase = query else {
                    return vec![DbAnswer::Failed {
                        reason: "the backup does not know this question".to_owned(),
                    }];
                };
                let newest = tokio::task::spawn_blocking(move || bases.list().last().map(newest)).await;
                vec![DbAnswer::NewestBase(newest.ok().flatten())]
            })
        });
        let desk = Arc::new(ArchiveDesk::new(Arc::clone(&keep.archive), on_mark, others));
        let address = binlog.address();
        let binlog = Arc::new(Mutex::new(Some(binlog)));
        let (kept, served, following) = (keep.clone(), Arc::clone(&binlog), standby.clone());
        let readers: Readers = Arc::new(move || readers(&kept, &served, following.as_deref()));
        let tidying = tokio::spawn(tidy(keep.clone(), Arc::clone(&readers), stop.clone()));
        Ok(DatabaseArchive {
            address,
            keep,
            desk,
            proof,
            binlog,
            standby,
            password,
            readers,
            stop,
            tidying: Mutex::new(Some(tidying)),
        })
    }

    /// Where replicas connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the database's lane.
    pub(super) fn service(&self) -> Arc<dyn Service> {
        Arc::new(Lane(Arc::clone(&self.desk), Arc::clone(&self.proof)))
    }

    /// Takes base snapshots in.
    pub(super) fn base_desk(&self) -> DeskOptions {
        DeskOptions {
            alpn: ALPN_BASE,
            store: self.keep.bases.store() as Arc<dyn BackupStore>,
            queries: Arc::new(NoQuestions),
            on_durable: Arc::new(|_| ()),
        }
    }

    /// For `status`.
    pub(super) fn status(&self) -> DatabaseStatus {
        let replicas = self.binlog.lock().as_ref().map(BinlogServer::status).unwrap_or_default();
        DatabaseStatus {
            archive: Some(self.keep.archive.status()),
            standby: self.standby.as_ref().map(|standby| standby.status()),
            bases: Some(self.keep.bases_status()),
            replicas: replicas
                .into_iter()
                .map(|replica| DatabaseReplicaStatus {
                    server_id: replica.server_id,
                    address: replica.address,
                    file: replica.file,
                    offset: replica.place.offset,
                })
                .collect(),
            newest_mark_ms: self.keep.marks.newest().map(|mark| ms(mark.time)),
            ..DatabaseStatus::default()
        }
    }

    /// `db bases`.
    pub(super) fn bases(&self) -> Value {
        let bases = self.keep.bases.list();
        let mut text = String::new();
        for base in &bases {
            let label = base.label.as_ref().map_or(String::new(), |label| format!(" label:{label}"));
            text.push_str(&format!(
                "{:>4}  {}  {} of SQL, {} of it new, {} tables, up to {}:{} (GTID {}){label}\n",
                base.number,
                moment(base.taken_at),
                words::bytes(base.bytes),
                words::bytes(base.new_bytes),
                base.tables.len(),
                base.place.file,
                base.place.offset,
                base.gtid
            ));
            if !base.lacks_history.is_empty() {
                text.push_str(&format!("      without the history of {}\n", base.lacks_history.join(", ")));
            }
        }
        if bases.is_empty() {
            text = "no base snapshot yet; `ehpc-store db snapshot` on nfs1 takes one".to_owned();
        }
        json!({ "text": text, "bases": bases })
    }

    /// `db log`.
    pub(super) fn log(&self) -> Value {
        let files = self.keep.archive.files();
        let bases = self.keep.bases.list();
        let status = self.keep.archive.status();
        let mut text = String::new();
        for file in &files {
            let state = if file.closed { "" } else { "  (being written)" };
            text.push_str(&format!("{:04}/{}  {}{state}\n", file.lineage, file.name, words::bytes(file.len)));
        }
        match (bases.first(), status.newest_ms) {
            (Some(base), Some(newest)) => text.push_str(&format!(
                "any moment from {} to {} can be restored\n",
                moment(base.finished_at),
                words::utc(newest)
            )),
            _ => text.push_str("nothing can be restored yet: there is no base snapshot\n"),
        }
        let files: Vec<Value> = files
            .iter()
            .map(|file| json!({ "lineage": file.lineage, "name": file.name, "bytes": file.len, "closed": file.closed }))
            .collect();
        json!({ "text": text, "files": files, "from": bases.first().map(|base| ms(base.finished_at)), "to": status.newest_ms })
    }

    /// Statements with which a server of the operator's own follows.
    pub(super) fn standby_sql(&self) -> String {
        let upstream =
            Upstream { address: self.address, user: REPLICA.to_owned(), password: self.password.clone() };
        upstream.sql(&self.keep.bases)
    }

    /// Does one of [`ACTIONS`]. `store`: the history of the share.
    pub(super) fn act(
        self: Arc<Self>,
        store: Arc<Store>,
        action: &str,
        arguments: Value,
        progress: Progress,
    ) -> Outcome {
        let action = action.to_owned();
        // A slow reader misses steps; that is all.
        let tell: Tell = {
            let progress = progress.clone();
            Arc::new(move |text: String| drop(progress.try_send(json!({ "text": text }))))
        };
        Box::pin(async move {
            if action == "db-standby" {
                let what = arguments["what"].as_str().unwrap_or_default().to_owned();
                let force = arguments["force"].as_bool().unwrap_or(false);
                return self.standby_act(&what, force, tell).await.map_err(Refusal::Failed);
            }
            let (stop, watching) = given_up(progress, self.stop.clone());
            let run =
                tokio::task::spawn_blocking(move || self.act_here(&store, &action, &arguments, &tell, &stop));
            let done = run.await;
            watching.abort();
            let done = done.map_err(|error| Refusal::Failed(format!("it ended abnormally: {error}")))?;
            done.map_err(Refusal::Failed)
        })
    }

    fn act_here(
        &self,
        store: &Arc<Store>,
        action: &str,
        arguments: &Value,
        tell: &Tell,
        stop: &AtomicBool,
    ) -> Result<Value, String> {
        let runtime = Handle::current();
        let step = |text: String| tell(text);
        let restoring =
            Restoring { keep: &self.keep, store: Some(store), runtime: &runtime, stop, step: &step };
        // What a restore reads stays.
        let _reading = action.ends_with("restore").then(|| self.keep.in_use.blocking_read());
        match action {
            "db-bases" => Ok(self.bases()),
            "db-log" => Ok(self.log()),
            "db-prune" => {
                let dry_run = arguments["dry_run"].as_bool().unwrap_or(false);
                self.keep.prune(dry_run, &*self.readers).map_err(|error| format!("{error:#}"))
            }
            "db-restore" => restoring.database(arguments),
            "restore" => restoring.all(arguments),
            other => Err(format!("the backup cannot do `{other}`")),
        }
    }

    async fn standby_act(&self, what: &str, force: bool, tell: Tell) -> Result<Value, String> {
        let Some(standby) = &self.standby else {
            return match what {
                "sql" => Ok(json!({ "text": self.standby_sql() })),
                _ => Err("there is no standby: add [database.standby] to the cluster file".to_owned()),
            };
        };
        let (done, text) = match what {
            "sql" => return Ok(json!({ "text": standby.sql() })),
            "init" => (standby.init(force, tell).await, "the standby is built and follows the archive"),
            "start" => (standby.resume().await, "the standby runs"),
            "stop" => (standby.stop().await, "the standby is stopped, until `ehpc-store db standby --start`"),
            other => return Err(format!("a standby cannot be asked to `{other}`")),
        };
        done.map_err(|error| error.to_string())?;
        Ok(json!({ "text": text, "standby": standby.status() }))
    }

    /// Ends it; everything acknowledged is on the disk.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.proof.stopped().await;
        if let Some(standby) = &self.standby {
            standby.shutdown().await;
        }
        let binlog = self.binlog.lock().take();
        if let Some(binlog) = binlog {
            binlog.stop().await;
        }
        let tidying = self.tidying.lock().take();
        if let Some(tidying) = tidying {
            let _ = tidying.await;
        }
        let archive = Arc::clone(&self.keep.archive);
        if tokio::task::spawn_blocking(move || archive.stop()).await.is_err() {
            tracing::warn!("the archive did not end in order");
        }
    }
}

/// What answers for verify.
fn answers(
    keep: &Keep,
    standby: Option<Arc<Standby>>,
    upstream: Upstream,
    stop: &CancellationToken,
) -> BackupAnswers {
    let settings = keep.settings.clone();
    let is_external = settings.standby.as_ref().is_some_and(|standby| standby.mode == StandbyMode::External);
    let note = settings.directory.join("standby.halted");
    let drills = DrillParts {
        archive: Arc::clone(&keep.archive),
        bases: Arc::clone(&keep.bases),
        tools: Tools::new(settings.tools.clone()),
        upstream,
        directory: settings.directory.clone(),
        in_use: Arc::clone(&keep.in_use),
    };
    let whereabouts = Arc::new(move || standby_dsn(&settings, standby.as_deref()));
    let sessions = match is_external {
        true => StandbySessions::of_external(whereabouts, note),
        // A managed one is looked after by whoever runs it.
        false => StandbySessions::new(whereabouts),
    };
    BackupAnswers::new(Arc::clone(&keep.archive), sessions, Drills::new(drills, stop.clone()), stop.clone())
}

/// What replicas here follow.
fn upstream(address: SocketAddr, password: &str) -> Upstream {
    Upstream { address, user: REPLICA.to_owned(), password: password.to_owned() }
}

/// The one of the settings.
fn start_standby(keep: &Keep, address: SocketAddr, password: &str) -> Result<Option<Arc<Standby>>> {
    let Some(settings) = keep.settings.standby.clone() else { return Ok(None) };
    let parts = Parts {
        settings,
        tools: Tools::new(keep.settings.tools.clone()),
        upstream: upstream(address, password),
        archive: Arc::clone(&keep.archive),
        bases: Arc::clone(&keep.bases),
        in_use: Arc::clone(&keep.in_use),
    };
    Ok(Some(Arc::new(Standby::start(parts)?)))
}

fn newest(base: &crate::database::base::BaseRecord) -> NewestBase {
    NewestBase { number: base.number, taken_at: base.taken_at, lineage: base.lineage }
}

pub(super) fn ms(time: Timestamp) -> u64 {
    u64::try_from(time.seconds).unwrap_or(0) * 1000 + u64::from(time.nanos / 1_000_000)
}

/// Who still reads binary logs: replicas, and a standby that has not applied all that it was sent.
fn readers(keep: &Keep, binlog: &Mutex<Option<BinlogServer>>, standby: Option<&Standby>) -> Vec<Reader> {
    let replicas = binlog.lock().as_ref().map(BinlogServer::expected).unwrap_or_default();
    let named = |id: u32, address: &str| format!("the replica with server_id {id} ({address})");
    let of = |replica: ReplicaStatus| Reader {
        who: named(replica.server_id, &replica.address),
        from: replica.place,
    };
    let applied = standby.map(|standby| standby.status().gtid).filter(|gtid| !gtid.is_empty());
    let applied = applied.and_then(|gtid| keep.goes_on_in(&gtid));
    let standby = applied.map(|from| Reader { who: "the standby".to_owned(), from });
    replicas.into_iter().map(of).chain(standby).collect()
}

/// Set when nobody waits for a restore any more, or the daemon ends.
fn given_up(progress: Progress, stop: CancellationToken) -> (Arc<AtomicBool>, AbortHandle) {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let watching = tokio::spawn(async move {
        tokio::select! {
            () = progress.closed() => {}
            () = stop.cancelled() => {}
        }
        set.store(true, Ordering::Relaxed);
    });
    (flag, watching.abort_handle())
}

struct Lane(Arc<ArchiveDesk>, Arc<BackupAnswers>);

impl Service for Lane {
    fn serve(
        &self,
        channel: Channel,
        peer: String,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.0.serve(wire(channel), peer, stop).await;
            self.1.asker_gone();
        })
    }
}

/// Nobody asks about base snapshots over the link that brings them.
struct NoQuestions;

impl QueryHandler for NoQuestions {
    fn answer(&self, _query: Query, part: &mut dyn FnMut(Answer, bool) -> bool) {
        part(Answer::Failed { reason: "base snapshots are not asked about here".to_owned() }, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restore_is_given_up_when_nobody_waits_for_it_or_the_daemon_ends() {
        for the_daemon_ends in [false, true] {
            let ((progress, waiting), stop) = (tokio::sync::mpsc::channel(1), CancellationToken::new());
            let (flag, watching) = given_up(progress, stop.clone());
            tokio::task::yield_now().await;
            assert!(!flag.load(Ordering::Relaxed));
            let held = if the_daemon_ends {
                stop.cancel();
                Some(waiting)
            } else {
                drop(waiting);
                None
            };
            let seen = async {
                while !flag.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), seen).await.unwrap();
            drop((held, watching));
        }
    }
}
