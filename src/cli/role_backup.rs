//! The backup role: the store, what fills it, and what makes catalog and live replica of it.

use super::assemble::{Launch, Role};
use super::daemon::listen;
use super::database_archive::{self, DatabaseArchive};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{BackupStatus, LinkStatus};
use crate::observe::{Control, NodeStatus, Refusal};
use crate::replication::applier::{Applier, ApplierOptions, ApplierState};
use crate::replication::channel;
use crate::replication::identity::{Identity, Peers};
use crate::replication::mirror::MirrorNotes;
use crate::replication::queries::{Backstage, StoreQueries};
use crate::replication::receiver::{BackupStore, DeskOptions, Receiver, ReceiverMonitor, ReceiverOptions};
use crate::replication::transport::ALPN_STORE;
use crate::settings::Backup;
use crate::store::{self, Recovery, Store};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A running backup.
pub(super) struct BackupRole {
    settings: Backup,
    address: SocketAddr,
    store: Arc<Store>,
    monitor: ReceiverMonitor,
    receiver: Mutex<Option<Receiver>>,
    applier: Arc<Applier>,
    /// The database beside the share.
    database: Option<Arc<DatabaseArchive>>,
}

impl BackupRole {
    /// Opens the store, then lets the primary in.
    pub(super) async fn start(launch: &Launch) -> Result<BackupRole> {
        let settings = launch.cluster.backup.clone().context("the settings have no backup")?;
        let listener = listen(&launch.cluster, "backup.listen", settings.listen).await?;
        let directory = settings.directory.clone();
        let packs = store::Options {
            pack_bytes: settings.pack_size.0,
            drop_cached: !settings.mirror,
            ..store::Options::default()
        };
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory, packs));
        let (store, recovery) = opened.await??;
        tell(&recovery);
        let applier = {
            let options = ApplierOptions { directory: settings.mirror.then(|| settings.directory.clone()) };
            let store = Arc::clone(&store);
            tokio::task::spawn_blocking(move || Applier::start(store, options)).await??
        };
        let identity = Identity::load_or_create(&settings.directory, &settings.host)?;
        let database = match &launch.cluster.database {
            Some(database) => Some(Arc::new(DatabaseArchive::start(&launch.cluster, database).await?)),
            None => None,
        };
        let mut options = ReceiverOptions {
            identity: Arc::new(identity),
            peers: Peers::of(&settings.directory),
            desks: vec![DeskOptions {
                alpn: ALPN_STORE,
                store: Arc::clone(&store) as Arc<dyn BackupStore>,
                queries: Arc::new(StoreQueries::new(
                    Arc::clone(&store),
                    Arc::clone(&applier) as Arc<dyn Backstage>,
                )),
                on_durable: {
                    let applier = Arc::clone(&applier);
                    Arc::new(move |number| applier.durable(number))
                },
            }],
            services: Vec::new(),
        };
        if let Some(database) = &database {
            options.desks.push(database.base_desk());
            options.services.push((channel::DATABASE, database.service()));
        }
        let receiver = Receiver::start(&Handle::current(), listener.into_std()?, options)?;
        Ok(BackupRole {
            settings,
            address: receiver.address(),
            store,
            monitor: receiver.monitor(),
            receiver: Mutex::new(Some(receiver)),
            applier,
            database,
        })
    }

    /// Where replication listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where replicas of the database connect.
    pub(super) fn binlog_address(&self) -> Option<SocketAddr> {
        self.database.as_ref().map(|database| database.address())
    }

    fn backup_status(&self) -> BackupStatus {
        let directory = &self.settings.directory;
        let free = rustix::fs::statvfs(directory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        let receiver = self.monitor.status();
        let mut status = BackupStatus {
            directory: directory.display().to_string(),
            free_bytes: free,
            mirror: self.settings.mirror.then(|| directory.join("mirror").display().to_string()),
            ..BackupStatus::default()
        };
        if receiver.disk_full {
            status.error = Some(format!(
                "the disk of {} is full: nothing is acknowledged until there is space; nothing is lost",
                directory.display()
            ));
        }
        match self.store.stats() {
            Ok(stats) => {
                status.durable = stats.position.map_or(0, |position| position.number);
                status.stream = stats.position.map(|position| hex(&position.stream.0));
                status.packs_bytes = stats.meta_bytes + stats.chunk_bytes;
            }
            Err(error) => status.error = Some(error.to_string()),
        }
        let applier = self.applier.status();
        status.applied = applier.committed;
        match applier.state {
            ApplierState::Running => {}
            ApplierState::Paused { reason } => {
                status.error =
                    Some(format!("catalog and live replica do not follow, and will try again: {reason}"));
            }
            other => status.notes.push(other.to_string()),
        }
        if let Some(notes) = applier.notes.filter(|notes| *notes != MirrorNotes::default()) {
            status.notes.push(notes.to_string());
        }
        status
    }

    fn link_status(&self) -> LinkStatus {
        let receiver = self.monitor.status();
        let paired = self.monitor.paired();
        LinkStatus {
            up: receiver.primary.is_some(),
            state: match (&receiver.primary, &paired) {
                (Some(_), _) => "connected",
                (None, Some(_)) => "waiting for the primary",
                (None, None) => "not paired",
            }
            .to_owned(),
            peer: receiver.primary.or(paired.map(|peer| peer.name)).unwrap_or_else(|| "nobody".to_owned()),
            since_ms: (receiver.since > 0).then_some(receiver.since * 1000),
            bytes_sent: 0,
            last_error: receiver.last_error,
        }
    }

    fn pair(&self) -> Value {
        let code = self.monitor.open_pairing();
        json!({ "code": code, "address": self.address.to_string() })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was found at the start.
fn tell(recovery: &Recovery) {
    for (pack, at, bytes) in &recovery.cut {
        tracing::warn!(%pack, at, bytes, "a torn tail was cut; nothing in it had been acknowledged");
    }
    if recovery.catalog_rebuilt {
        tracing::warn!("the catalog was made again from the packs");
    }
    let batch = recovery.position.map_or(0, |position| position.number);
    tracing::info!(batch, applied = recovery.applied, "the history is open");
}

impl Role for BackupRole {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let receiver = self.receiver.lock().take();
            if let Some(receiver) = receiver {
                receiver.shutdown().await;
            }
            if let Some(database) = &self.database {
                database.stop().await;
            }
            let applier = Arc::clone(&self.applier);
            if tokio::task::spawn_blocking(move || applier.stop()).await.is_err() {
                tracing::warn!("the applier did not end in order; what it did is redone at the next start");
            }
        })
    }
}

impl Control for BackupRole {
    fn describe(&self, status: &mut NodeStatus) {
        status.backup = Some(self.backup_status());
        if let Some(database) = &self.database {
            status.add_database(database.status());
        }
        if status.link.is_none() {
            status.link = Some(self.link_status());
        }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action { name: "pair", help: "open pairing and give the one-time code" }];
        if self.database.is_some() {
            actions.extend(database_archive::ACTIONS);
        }
        actions
    }

    fn act(&self, action: &str, arguments: Value, progress: Progress) -> Outcome {
        if let Some(database) = self.database.as_ref().filter(|_| action != "pair") {
            return Arc::clone(database).act(Arc::clone(&self.store), action, arguments, progress);
        }
        let done = match action {
            "pair" => Ok(self.pair()),
            other => Err(Refusal::Failed(format!("the backup cannot do `{other}`"))),
        };
        Box::pin(async move { done })
    }
}
