//! The nfs1 role: the share, what notices its changes, and what sends them.

use super::assemble::{Faults, Launch, Role};
use super::daemon::listen;
use crate::change::recording;
use crate::change::{DirtySet, Recording};
use crate::host::Tree;
use crate::nfs::{self, HandleKey};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{NfsClient, NfsStatus};
use crate::observe::{Control, NodeStatus, Refusal, metrics};
use crate::settings::{Cluster, Durability, Export};
use crate::vfs::{LocalOptions, LocalVfs};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Part of every file handle; there is one export.
const EXPORT_ID: u32 = 1;
/// Operations per second are an average over this time.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// A running nfs1.
pub(super) struct Nfs1Role {
    cluster: Cluster,
    export: Export,
    server: nfs::Server,
    stop_nfs: CancellationToken,
    rate: Mutex<Rate>,
}

impl Nfs1Role {
    /// Opens the export and starts serving it.
    pub(super) async fn start(launch: &Launch, _faults: Faults, _stop: CancellationToken) -> Result<Nfs1Role> {
        let settings = launch.cluster.nfs1.clone().context("the settings have no nfs1")?;
        let listener = listen(&launch.cluster, "nfs1.listen", settings.listen).await?;
        let path = settings.export.path.clone();
        let tree = Tree::open(&path).with_context(|| format!("opening the export {}", path.display()))?;
        let tree = Arc::new(tree);
        let dirty = DirtySet::new();
        let vfs = LocalVfs::new(tree, LocalOptions { sync: settings.export.sync, read_only: false });
        let durability = match settings.export.durability {
            Durability::Local => recording::Durability::Local,
            Durability::Remote => recording::Durability::Remote,
        };
        let recording = Recording::new(vfs, dirty, durability);
        let stop_nfs = CancellationToken::new();
        let export = nfs::Export {
            id: EXPORT_ID,
            name: settings.export.name.clone(),
            vfs: Arc::new(recording),
            read_only: false,
        };
        let options = nfs::Options::new(HandleKey::load_or_create(&settings.state)?);
        let server = nfs::serve(listener, export, options, stop_nfs.clone())?;
        Ok(Nfs1Role { cluster: launch.cluster.clone(), export: settings.export, server, stop_nfs, rate: Mutex::default() })
    }

    /// Where NFS listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn nfs_status(&self) -> NfsStatus {
        let stats = self.server.stats();
        let clients = stats.clients.iter().map(|client| NfsClient {
            address: client.address.to_string(),
            host: self.cluster.host_named(client.address).map(str::to_owned),
            operations: client.requests,
        });
        NfsStatus {
            export: self.export.name.clone(),
            path: self.export.path.display().to_string(),
            durability: self.export.durability.word().to_owned(),
            clients: clients.collect(),
            operations: stats.requests,
            operations_per_second: self.rate.lock().per_second(stats.requests, Instant::now()),
            errors: stats.errors,
            read_bytes: u64::try_from(metrics::NFS_READ_BYTES.get()).unwrap_or(0),
            written_bytes: u64::try_from(metrics::NFS_WRITTEN_BYTES.get()).unwrap_or(0),
        }
    }
}

impl Role for Nfs1Role {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.stop_nfs.cancel();
            self.server.stopped().await;
        })
    }
}

impl Control for Nfs1Role {
    fn describe(&self, status: &mut NodeStatus) {
        status.nfs = Some(self.nfs_status());
    }

    fn actions(&self) -> Vec<Action> {
        Vec::new()
    }

    fn act(&self, _action: &str, _arguments: Value, _progress: Progress) -> Outcome {
        Box::pin(async { Err(Refusal::Failed(String::new())) })
    }
}

/// A rate from samples of a counter, taken whenever somebody asks.
#[derive(Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// The counter is `count` now: how fast did it grow over the last [`RATE_WINDOW`] (or since the sample before)?
    fn per_second(&mut self, count: u64, now: Instant) -> f64 {
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(at, _)| now - *at >= RATE_WINDOW) {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0.0, |(at, before)| {
            let seconds = (now - *at).as_secs_f64();
            if seconds > 0.0 { count.saturating_sub(*before) as f64 / seconds } else { 0.0 }
        });
        // Many askers do not make many samples.
        if self.samples.back().is_none_or(|(at, _)| now - *at >= Duration::from_secs(1)) {
            self.samples.push_back((now, count));
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_forgets_what_is_older_than_its_window() {
        let mut rate = Rate::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_second(100, at(0)), 0.0);
        assert_eq!(rate.per_second(150, at(5)), 10.0);
        assert_eq!(rate.per_second(200, at(10)), 10.0);
        assert_eq!(rate.per_second(200, at(20)), 0.0);
        assert_eq!(rate.per_second(200, at(30)), 0.0);
    }
}
