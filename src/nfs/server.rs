//! Accepts connections, and stops in order.

use super::Options;
use super::budget::{self, Budget};
use super::complaints::Complaints;
use super::connection::Connection;
use super::exports::{Exports, Table};
use super::mount::Mounts;
use super::reply_cache::ReplyCache;
use super::stats::{Counters, Stats};
use super::workers::Workers;
use crate::observe::metrics;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An accept that fails (no descriptors left) is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A silent peer is asked whether it is alive after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener is not usable.
    #[error("the NFS listener has no address: {0}")]
    Listener(#[source] io::Error),
    /// No threads.
    #[error("cannot start the NFS worker threads: {0}; is a limit on processes too low?")]
    Threads(#[source] io::Error),
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) exports: Exports,
    pub(super) options: Options,
    pub(super) cache: Mutex<ReplyCache>,
    pub(super) mounts: Mounts,
    pub(super) counters: Counters,
    pub(super) complaints: Complaints,
    pub(super) runtime: tokio::runtime::Handle,
    started: Instant,
}

impl Shared {
    /// Time since the server's start: the reply cache's clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A server that runs. Cloning it makes another view of the same one; it runs on when all are dropped.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: watch::Receiver<()>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is served: it may be replaced at any time.
    pub fn exports(&self) -> &Exports {
        &self.shared.exports
    }

    /// Clients, requests and mounts.
    pub fn stats(&self) -> Stats {
        let mounts = self.shared.mounts.list().into_iter();
        let readable = |(host, path): (String, Vec<u8>)| (host, String::from_utf8_lossy(&path).into_owned());
        Stats { mounts: mounts.map(readable).collect(), ..self.shared.counters.snapshot() }
    }

    /// Resolves when the server has stopped: nothing of it uses the file system any more.
    pub async fn stopped(&self) {
        // The sender is dropped at the end and never sends.
        while self.running.clone().changed().await.is_ok() {}
    }
}

/// Serves `exports` on `listener` until `shutdown`. Must be called within a tokio runtime.
pub fn serve(
    listener: TcpListener,
    exports: Table,
    options: Options,
    shutdown: CancellationToken,
) -> Result<Server, ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let workers = Workers::start(options.workers, options.queue).map_err(ServeError::Threads)?;
    let shared = Arc::new(Shared {
        cache: Mutex::new(ReplyCache::new(options.reply_cache)),
        mounts: Mounts::default(),
        counters: Counters::default(),
        complaints: Complaints::default(),
        runtime: tokio::runtime::Handle::current(),
        started: Instant::now(),
        exports: Exports::new(exports),
        options,
    });
    let (running_sender, running) = watch::channel(());
    let server = Server { shared: Arc::clone(&shared), address, running };
    tokio::spawn(async move {
        let _running = running_sender;
        accept_until(listener, shared, Arc::new(workers), shutdown).await;
    });
    Ok(server)
}

async fn accept_until(
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    shutdown: CancellationToken,
) {
    let memory = shared.options.memory;
    let all_memory = budget::shared(memory);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < shared.options.connections => {
                let budget = Budget::new(&all_memory, memory, shared.options.connection_memory);
                let one = welcome(&shared, &workers, budget, stream, peer, shutdown.clone());
                connections.spawn(one);
            }
            Ok((_, peer)) => shared.complaints.say(|held_back| {
                tracing::warn!(client = %peer, limit = shared.options.connections, held_back,
                    "an NFS connection is refused: too many are open");
            }),
            Err(error) => {
                shared.complaints.say(|held_back| {
                    tracing::warn!(%error, held_back, "cannot accept an NFS connection");
                });
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drain(connections, shared.options.drain).await;
    if let Some(workers) = Arc::into_inner(workers) {
        let stopped = tokio::task::spawn_blocking(move || workers.stop()).await;
        if stopped.is_err() {
            tracing::error!("stopping the NFS workers failed");
        }
    }
}

/// Waits for connections to answer what they have in flight; ends them when that takes too long.
async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let in_order = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(patience, in_order).await.is_err() {
        tracing::warn!(connections = connections.len(), "ending NFS connections with unanswered requests");
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a fault ended an NFS connection; the server goes on");
    }
}

/// Counts a connection for as long as it is there.
struct Counted {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.counters.disconnected(self.address);
        metrics::NFS_CONNECTIONS.set(i64::from(self.shared.counters.connections()));
    }
}

fn welcome(
    shared: &Arc<Shared>,
    workers: &Arc<Workers>,
    budget: Budget,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    // A dual-stack listener shows IPv4 clients as mapped addresses.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let requests = shared.counters.connected(peer.ip());
    let counted = Counted { shared: Arc::clone(shared), address: peer.ip() };
    metrics::NFS_CONNECTIONS.set(i64::from(shared.counters.connections()));
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        tracing::debug!(client = %peer, %error, "cannot set socket options");
    }
    let connection =
        Connection { shared: Arc::clone(shared), workers: Arc::clone(workers), budget, peer, requests };
    async move {
        let _counted = counted;
        connection.run(stream, stop).await;
    }
}
