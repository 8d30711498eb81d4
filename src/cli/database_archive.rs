//! What the backup does with the database: takes it in, serves it to replicas, restores it.

use super::database_link::wire;
use super::db_keep::{Keep, REPLICA, moment};
use crate::database::archive::ArchiveDesk;
use crate::database::binlog_server::{BinlogServer, Feed};
use crate::database::checks::answers::BackupAnswers;
use crate::database::checks::remote::StandbySessions;
use crate::database::dsn::Dsn;
use crate::database::link::BoxFuture;
use crate::observe::Refusal;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{DatabaseReplicaStatus, DatabaseStatus};
use crate::observe::words;
use crate::replication::channel::{Channel, Service};
use crate::replication::receiver::{BackupStore, DeskOptions, QueryHandler};
use crate::replication::transport::ALPN_BASE;
use crate::settings::{Cluster, Database, StandbyMode};
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
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Closed files are sealed, and what is no longer kept goes, so often.
const TIDY: Duration = Duration::from_secs(60);

/// What can be asked of it.
pub(super) const ACTIONS: [Action; 3] = [
    Action { name: "db-bases", help: "the base snapshots that are kept" },
    Action { name: "db-log", help: "the binary logs that are kept" },
    Action { name: "db-standby", help: "build, start or stop the standby, or say how one follows" },
];

/// The running side.
pub(super) struct DatabaseArchive {
    pub(super) keep: Keep,
    desk: Arc<ArchiveDesk>,
    binlog: Mutex<Option<BinlogServer>>,
    address: SocketAddr,
    password: String,
    stop: CancellationToken,
    tidying: Mutex<Option<JoinHandle<()>>>,
}

/// Where the standby is, for those who compare it.
fn standby_dsn(settings: &Database) -> Result<Dsn, String> {
    match &settings.standby {
        None => Err("there is no [database.standby]".to_owned()),
        Some(standby) if standby.mode == StandbyMode::External => Ok(Dsn::of_standby(standby)),
        Some(_) => {
            Err("the managed standby does not run; `ehpc-store db standby --init` builds it".to_owned())
        }
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
        let marks = Arc::clone(&keep.marks);
        let on_mark = Arc::new(move |mark: Mark| {
            if let Err(error) = marks.append(mark) {
                tracing::warn!("{error}");
            }
        });
        let bases = Arc::clone(&keep.bases);
        let stop = CancellationToken::new();
        let of_standby = keep.settings.clone();
        let sessions = StandbySessions::new(Arc::new(move || standby_dsn(&of_standby)));
        let proof = Arc::new(BackupAnswers::new(Arc::clone(&keep.archive), sessions, stop.clone()));
        let others = Arc::new(move |query: DbQuery| -> BoxFuture<'static, Vec<DbAnswer>> {
            let (bases, proof) = (Arc::clone(&bases), Arc::clone(&proof));
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
        let tidying = tokio::spawn(tidy(keep.clone(), stop.clone()));
        Ok(DatabaseArchive {
            address: binlog.address(),
            keep,
            desk,
            binlog: Mutex::new(Some(binlog)),
            password,
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
        Arc::new(Lane(Arc::clone(&self.desk)))
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
            bases: Some(self.keep.bases_status()),
            replicas: replicas
                .into_iter()
                .map(|replica| DatabaseReplicaStatus {
                    server_id: replica.server_id,
                    address: replica.address,
                    file: replica.file,
                    offset: replica.position,
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
        let position = self.keep.bases.list().last().map(|base| base.gtid.clone()).unwrap_or_default();
        format!(
            "-- Load a base snapshot first (its GTID is {position}), or begin with an empty server.\n\
             CHANGE MASTER TO MASTER_HOST='{}', MASTER_PORT={}, MASTER_USER='{REPLICA}', MASTER_PASSWORD='{}', \
             MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1;\nSTART SLAVE;\n",
            self.address.ip(),
            self.address.port(),
            self.password
        )
    }

    /// Does one of [`ACTIONS`].
    pub(super) fn act(self: Arc<Self>, action: &str, arguments: Value, _progress: Progress) -> Outcome {
        let action = action.to_owned();
        Box::pin(async move {
            let run =
                tokio::task::spawn_blocking(move || match (action.as_str(), arguments["what"].as_str()) {
                    ("db-bases", _) => Ok(self.bases()),
                    ("db-log", _) => Ok(self.log()),
                    ("db-standby", Some("sql")) => Ok(json!({ "text": self.standby_sql() })),
                    _ => Err(Refusal::Failed(format!("the backup cannot do `{action}` yet"))),
                });
            run.await.map_err(|error| Refusal::Failed(format!("it ended abnormally: {error}")))?
        })
    }

    /// Ends it; everything acknowledged is on the disk.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
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

fn newest(base: &crate::database::base::BaseRecord) -> NewestBase {
    NewestBase { number: base.number, taken_at: base.taken_at, lineage: base.lineage }
}

fn ms(time: Timestamp) -> u64 {
    u64::try_from(time.seconds).unwrap_or(0) * 1000 + u64::from(time.nanos / 1_000_000)
}

async fn tidy(keep: Keep, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY) => {}
        }
        let keep = keep.clone();
        let done = tokio::task::spawn_blocking(move || match keep.archive.maintain(&|| false) {
            Ok(wrong) => wrong.iter().for_each(|(file, why)| {
                tracing::error!("{file} in the archive is damaged: {why}");
            }),
            Err(error) => tracing::warn!("{error}"),
        });
        if done.await.is_err() {
            tracing::error!("tidying the archive ended abnormally");
        }
    }
}

struct Lane(Arc<ArchiveDesk>);

impl Service for Lane {
    fn serve(
        &self,
        channel: Channel,
        peer: String,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.serve(wire(channel), peer, stop))
    }
}

/// Nobody asks about base snapshots over the link that brings them.
struct NoQuestions;

impl QueryHandler for NoQuestions {
    fn answer(&self, _query: Query, part: &mut dyn FnMut(Answer, bool) -> bool) {
        part(Answer::Failed { reason: "base snapshots are not asked about here".to_owned() }, false);
    }
}
