//! Locks: NLM versions 1, 3 and 4, and NSM, on the ports of NFS.
//!
//! `ranges` and `table` are the pure state; `monitor` keeps on the disk which clients hold locks; `procedures` and
//! `status_monitor` do what is asked; `callbacks` tells those who waited, and after a restart everybody who held
//! locks. Locks are this server's own: local processes on the export do not see them.

mod callbacks;
mod files;
mod monitor;
mod procedures;
mod ranges;
mod status_monitor;
mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub(in crate::nfs) use files::Files;
pub use monitor::MonitorError;
pub(in crate::nfs) use procedures::LockContext;

use monitor::Monitor;
use parking_lot::Mutex;
use ranges::Client;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Limits, Table};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What one client, and all of them, may hold and wait for.
const LIMITS: Limits =
    Limits { per_client: 20_000, total: 200_000, waiting_per_client: 1000, waiting: 10_000 };
/// Answers to asynchronous calls that may be under way.
const ANSWERS: usize = 256;
/// How long a client is remembered after its last lock.
const IDLE: Duration = Duration::from_secs(300);
/// How often it is looked for clients that need not be remembered.
const SWEEP: Duration = Duration::from_secs(60);

/// How locks are served.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// Where the clients that hold locks are remembered: `sm/` in here.
    pub state: PathBuf,
    /// After a restart only locks that were held before are granted for this long, if any were held at all.
    pub grace: Duration,
    /// Where the port mapper of a client listens: 111.
    pub mapper_port: u16,
}

impl LockOptions {
    /// The defaults, with this state directory.
    pub fn new(state: PathBuf) -> LockOptions {
        LockOptions { state, grace: Duration::from_secs(45), mapper_port: ehpc_proto::portmap::PORT }
    }
}

/// Every lock, and what it takes to serve them.
pub(in crate::nfs) struct Service {
    table: Mutex<Table>,
    monitor: Monitor,
    /// Only reclaims until then.
    grace_ends: Option<Instant>,
    /// Clients that rebooted, and the state that they told last.
    told: Mutex<HashMap<IpAddr, u32>>,
    mapper_port: u16,
    /// Callbacks come from here, if it matters.
    own_address: IpAddr,
    /// Answers to messages that may be under way.
    answers: Arc<Semaphore>,
    runtime: Handle,
    stop: CancellationToken,
}

impl Service {
    /// Begins a new state: remembers who held locks before, and tells them (until `stop`).
    pub(in crate::nfs) fn start(
        options: &LockOptions,
        own_address: IpAddr,
        stop: CancellationToken,
    ) -> Result<Arc<Service>, MonitorError> {
        let monitor = Monitor::open(&options.state)?;
        let before = monitor.known();
        let grace_ends = if before.is_empty() { None } else { Some(Instant::now() + options.grace) };
        if !before.is_empty() {
            tracing::info!(clients = before.len(), grace = ?options.grace,
                "clients held locks: they are told of the restart, and only they get locks until the grace period ends");
        }
        let service = Arc::new(Service {
            table: Mutex::new(Table::new(LIMITS)),
            monitor,
            grace_ends,
            told: Mutex::default(),
            mapper_port: options.mapper_port,
            own_address,
            answers: Arc::new(Semaphore::new(ANSWERS)),
            runtime: Handle::current(),
            stop,
        });
        callbacks::announce(&service, before);
        let sweeping = Arc::clone(&service);
        service.runtime.spawn(async move { sweeping.sweep().await });
        Ok(service)
    }

    /// Only locks that were held before the restart are granted.
    fn in_grace(&self) -> bool {
        self.grace_ends.is_some_and(|ends| Instant::now() < ends)
    }

    /// Tells those who waited for what has just become free.
    fn tell_granted(self: &Arc<Self>, table: &mut Table) {
        for grant in table.take_granted() {
            self.runtime.spawn(callbacks::tell(Arc::clone(self), grant));
        }
    }

    /// Forgets clients that hold nothing for a while, so that they are not told of a restart.
    async fn sweep(self: Arc<Self>) {
        let mut idle: HashMap<Arc<Client>, Instant> = HashMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let now = Instant::now();
            let busy: std::collections::HashSet<Arc<Client>> = self.table.lock().clients().cloned().collect();
            let known = self.monitor.known();
            idle.retain(|client, _| !busy.contains(client) && known.contains(client));
            for client in known.into_iter().filter(|client| !busy.contains(client)) {
                idle.entry(client).or_insert(now);
            }
            // Who has not taken its locks back yet may still do so.
            if self.in_grace() {
                continue;
            }
            let gone: Vec<Arc<Client>> = idle
                .iter()
                .filter(|(_, since)| now.duration_since(**since) >= IDLE)
                .map(|(client, _)| Arc::clone(client))
                .collect();
            for client in gone {
                idle.remove(&client);
                let service = Arc::clone(&self);
                let done = tokio::task::spawn_blocking(move || service.forget_if_idle(&client)).await;
                if let Ok(Err(error)) = done {
                    tracing::debug!(%error, "a client without locks is still remembered");
                }
            }
        }
    }

    /// Under the table's lock: no lock is granted between the look and the deed.
    fn forget_if_idle(&self, client: &Arc<Client>) -> std::io::Result<()> {
        let table = self.table.lock();
        if table.clients().any(|busy| busy == client) { Ok(()) } else { self.monitor.forget(client) }
    }
}
