//! The binlog server's door: it accepts a bounded number of connections and ends with the daemon.

use super::connection::{ConnectionEnd, Shared, serve};
use super::feed::Feed;
use super::login::Account;
use super::registry::{Registry, ReplicaStatus};
use super::stream::StreamEnd;
use ehpc_proto::mysql::packet::write_packet;
use ehpc_proto::mysql::response::ServerError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at a time, those that have not logged in with them.
pub const MAX_CONNECTIONS: usize = 64;
/// Pause after an accept that failed (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// A running binlog server.
pub struct BinlogServer {
    address: SocketAddr,
    registry: Arc<Registry>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl BinlogServer {
    /// Serves `feed` to replicas that log in as `user` with `password`, over connections to `listener` (not
    /// blocking or not, it is made so).
    ///
    /// # Errors
    ///
    /// The listener.
    pub fn start(
        runtime: &Handle,
        listener: std::net::TcpListener,
        feed: Arc<dyn Feed>,
        user: &str,
        password: &str,
    ) -> io::Result<BinlogServer> {
        let _entered = runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let registry = Arc::new(Registry::default());
        let address = listener.local_addr()?;
        let account = Account::new(user, password);
        let shared = Arc::new(Shared { feed, account, registry: Arc::clone(&registry) });
        tasks.spawn_on(accept(listener, shared, stop.clone(), tasks.clone()), runtime);
        Ok(BinlogServer { address, registry, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The replicas that are being served.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.registry.status()
    }

    /// Those, and the ones that went within a day.
    pub fn expected(&self) -> Vec<ReplicaStatus> {
        self.registry.expected()
    }

    /// Ends all connections; returns when they have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for BinlogServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "binlog server: a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            full(&stream);
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            connected(shared, stream, address, stop).await;
            drop(place);
        });
    }
}

/// Says that there is no room, if that goes without waiting.
fn full(stream: &TcpStream) {
    let error = ServerError::new(1040, "08004", "Too many connections");
    let (mut bytes, mut sequence) = (Vec::new(), 0);
    write_packet(&mut bytes, &mut sequence, &error.encode_greeting());
    let _ = stream.try_write(&bytes);
}

async fn connected(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, stop: CancellationToken) {
    let visit = shared.registry.enter(address, &stop);
    let _ = stream.set_nodelay(true);
    let (input, output) = stream.into_split();
    let end = tokio::select! {
        () = stop.cancelled() => return,
        end = serve(shared, visit, input, output) => end,
    };
    match &end {
        ConnectionEnd::Stream(StreamEnd::File(_) | StreamEnd::Selection(_) | StreamEnd::Start(_)) => {
            tracing::warn!(%address, %end, "binlog server: a replica cannot be served");
        }
        ConnectionEnd::Refused(_) | ConnectionEnd::Protocol(_) => {
            tracing::warn!(%address, %end, "binlog server: a connection was refused");
        }
        _ => tracing::info!(%address, %end, "binlog server: a connection has ended"),
    }
}
