//! Accepts connections, and stops in order.

use super::Options;
use super::budget::{self, Budget};
use super::complaints::Complaints;
use super::engine::{Engine, Newcomer};
use super::exports::{Exports, Table};
use super::lock;
use super::lookup::Lookups;
use super::meters::Traffic;
use super::mount::Mounts;
use super::portmap::{Network, Service};
use super::reply_cache::ReplyCaches;
use super::stats::{Counters, Stats};
use super::udp;
use super::workers::Workers;
use crate::observe::metrics;
use ehpc_proto::{mount, nfs3, nlm, nsm};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
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
    /// Nobody could remember who holds locks.
    #[error(transparent)]
    Locks(#[from] lock::MonitorError),
    /// No threads.
    #[error("cannot start the NFS server's threads: {0}; is a limit on processes too low?")]
    Threads(#[source] io::Error),
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) exports: Exports,
    pub(super) lookups: Lookups,
    pub(super) options: Options,
    pub(super) cache: ReplyCaches,
    pub(super) mounts: Mounts,
    pub(super) counters: Counters,
    pub(super) complaints: Complaints,
    /// NLM and NSM, if they are served.
    pub(super) locks: Option<Arc<lock::Service>>,
    pub(super) slow: Complaints,
    /// Connections open now.
    open: AtomicUsize,
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
        let exports = self.shared.exports.snapshot().stats();
        let reply_cache_bytes = self.shared.cache.bytes() as u64;
        Stats {
            mounts: mounts.map(readable).collect(),
            exports,
            reply_cache_bytes,
            ..self.shared.counters.snapshot()
        }
    }

    /// Serves over UDP, too, what is asked over UDP; until `stop`. The task ends when all of it is done.
    pub fn serve_datagrams(&self, socket: UdpSocket, stop: CancellationToken) -> io::Result<JoinHandle<()>> {
        Ok(tokio::spawn(udp::serve(Arc::clone(&self.shared), socket, stop)?))
    }

    /// What clients can find here, over TCP, and over UDP if that is served at `udp`.
    pub fn services(&self, udp: Option<SocketAddr>) -> Vec<Service> {
        const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);
        const MOUNT: (u32, u32) = (mount::PROGRAM, mount::VERSION);
        let mut both = vec![MOUNT];
        if self.shared.locks.is_some() {
            both.extend(nlm::VERSIONS.map(|version| (nlm::PROGRAM, version)));
            both.push((nsm::PROGRAM, nsm::VERSION));
        }
        let mut services = Service::at(self.address, Network::Tcp, &[NFS]);
        services.extend(Service::at(self.address, Network::Tcp, &both));
        services.extend(udp.into_iter().flat_map(|at| Service::at(at, Network::Udp, &both)));
        services
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
    let workers = Arc::new(Workers::start(options.workers, options.queue).map_err(ServeError::Threads)?);
    let locks = match &options.locks {
        Some(locks) => Some(lock::Service::start(locks, address.ip(), shutdown.clone())?),
        None => None,
    };
    let lookups = Lookups::system().map_err(ServeError::Threads)?;
    // Asked now, so that a name without an address is in the log before its client stands at the door.
    exports.ask_names(&lookups);
    let shared = Arc::new(Shared {
        cache: ReplyCaches::new(options.reply_cache),
        mounts: Mounts::default(),
        counters: Counters::default(),
        complaints: Complaints::default(),
        locks,
        slow: Complaints::default(),
        open: AtomicUsize::new(0),
        runtime: tokio::runtime::Handle::current(),
        started: Instant::now(),
        exports: Exports::new(exports),
        lookups,
        options,
    });
    let mut engine = Engine::start(&shared, &workers, &shutdown).map_err(ServeError::Threads)?;
    let (running_sender, running) = watch::channel(());
    let server = Server { shared: Arc::clone(&shared), address, running };
    tokio::spawn(async move {
        let _running = running_sender;
        accept_until(listener, &shared, &mut engine, &shutdown).await;
        stop(engine, workers).await;
    });
    Ok(server)
}

async fn accept_until(
    listener: TcpListener,
    shared: &Arc<Shared>,
    engine: &mut Engine,
    shutdown: &CancellationToken,
) {
    let memory = shared.options.memory;
    let all_memory = budget::shared(memory);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if shared.open.load(Ordering::Acquire) < shared.options.connections => {
                let budget = Budget::new(&all_memory, memory, shared.options.connection_memory);
                match welcome(shared, budget, stream, peer) {
                    Ok(newcomer) => engine.hand_over(newcomer),
                    Err(error) => tracing::debug!(client = %peer, %error, "an NFS connection is lost"),
                }
            }
            Ok((_, peer)) => {
                shared.counters.refused.add(1);
                metrics::NFS_CONNECTIONS_REFUSED.inc();
                shared.complaints.say(|held_back| {
                    tracing::warn!(client = %peer, limit = shared.options.connections, held_back,
                        "an NFS connection is refused: too many are open");
                });
            }
            Err(error) => {
                shared.complaints.say(|held_back| {
                    tracing::warn!(%error, held_back, "cannot accept an NFS connection");
                });
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until connections have answered what they have in flight, and then for the workers.
async fn stop(engine: Engine, workers: Arc<Workers>) {
    let stopped = tokio::task::spawn_blocking(move || {
        engine.join();
        if let Some(workers) = Arc::into_inner(workers) {
            workers.stop();
        }
    });
    if stopped.await.is_err() {
        tracing::error!("stopping the NFS server's threads failed");
    }
}

/// Counts a connection for as long as it is there.
pub(super) struct Counted {
    shared: Arc<Shared>,
    address: IpAddr,
    traffic: Arc<Traffic>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Release);
        self.shared.counters.meters.disconnected(self.address, &self.traffic);
        metrics::NFS_CONNECTIONS.set(i64::from(self.shared.counters.meters.connections()));
    }
}

fn welcome(
    shared: &Arc<Shared>,
    budget: Budget,
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<Newcomer> {
    // A dual-stack listener shows IPv4 clients as mapped addresses.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let traffic = shared.counters.meters.connected(peer.ip());
    shared.open.fetch_add(1, Ordering::AcqRel);
    let counted = Counted { shared: Arc::clone(shared), address: peer.ip(), traffic: Arc::clone(&traffic) };
    metrics::NFS_CONNECTIONS.set(i64::from(shared.counters.meters.connections()));
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        tracing::debug!(client = %peer, %error, "cannot set socket options");
    }
    // It leaves this runtime for that of the thread that will serve it.
    Ok(Newcomer { stream: stream.into_std()?, peer, budget, traffic, counted })
}
