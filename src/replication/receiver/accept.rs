//! Accepting connections: who is let in, and for what.

use super::{Shared, connection};
use crate::replication::identity::Role;
use crate::replication::pairing;
use crate::replication::transport::{
    self, ALPN_PAIR, ALPN_STORE, HANDSHAKE_WITHIN, Socket, TransportError, Trust, off_runtime,
};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Connections that have not shown who they are.
const UNKNOWN_AT_ONCE: usize = 16;
/// Lines in the log about connections that are not let in: one in this time.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Lets a line through now and then, and counts the others.
struct Quiet {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Quiet {
    /// How many were kept back since the last line; `None` = keep this one back too.
    fn allows(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let (last, kept) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            *kept += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(kept))
    }
}

struct Door {
    shared: Arc<Shared>,
    quiet: Quiet,
}

impl Door {
    fn turn_away(&self, from: SocketAddr, why: &str) {
        self.shared.turned_away(why);
        if let Some(kept) = self.quiet.allows() {
            tracing::warn!(%from, unlogged = kept, "replication: a connection is not let in: {why}");
        }
    }
}

/// Accepts until shutdown, then waits until the connections have drained.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let unknown = Arc::new(Semaphore::new(UNKNOWN_AT_ONCE));
    let door = Arc::new(Door { shared: shared.clone(), quiet: Quiet { state: Mutex::new((None, 0)) } });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => match unknown.clone().try_acquire_owned() {
                Ok(permit) => drop(connections.spawn(serve(door.clone(), socket, from, permit))),
                Err(_) => door.turn_away(from, "too many connections that have not shown who they are"),
            },
            Err(error) => {
                if door.quiet.allows().is_some() {
                    tracing::warn!("replication: cannot accept connections: {error}");
                }
                // Out of descriptors, most likely: it passes.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What a connection turned out to be for.
enum Purpose {
    Replication(TlsStream<Socket>, String),
    Pairing(TlsStream<Socket>),
}

async fn serve(door: Arc<Door>, socket: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    let shared = door.shared.clone();
    let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, secure(&shared, socket));
    let secured = tokio::select! {
        () = shared.shutdown.cancelled() => return,
        secured = handshake => secured.unwrap_or(Err(TransportError::Late)),
    };
    match secured {
        Ok(Purpose::Replication(stream, name)) => {
            drop(permit);
            connection::run(shared, stream, format!("{name} ({from})")).await;
        }
        Ok(Purpose::Pairing(stream)) => {
            let options = &shared.options;
            // The permit is held: whoever pairs is not known yet.
            let talk = pairing::serve(stream, &options.identity, &options.peers, &shared.pairing);
            let paired = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                paired = talk => paired,
            };
            match paired {
                Ok(peer) => tracing::info!(%from, name = peer.name, "paired with a primary"),
                Err(error) => door.turn_away(from, &format!("pairing: {error}")),
            }
        }
        Err(error) => {
            let why = match error {
                TransportError::WrongKey => "its key is not that of the paired primary".to_owned(),
                other => other.to_string(),
            };
            door.turn_away(from, &why);
        }
    }
}

/// The TLS handshake; what the client names as protocol decides whom to trust.
async fn secure(shared: &Shared, socket: TcpStream) -> Result<Purpose, TransportError> {
    let socket = transport::tuned(socket)?;
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await;
    let start = start.map_err(TransportError::from_tls)?;
    let hello = start.client_hello();
    let names = |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|name| name == wanted));
    let (replication, pairing) = (names(ALPN_STORE), names(ALPN_PAIR));
    let options = &shared.options;
    if !replication && !pairing {
        return Err(TransportError::Protocol { protocol: String::from_utf8_lossy(ALPN_STORE).into_owned() });
    }
    if !replication {
        let config = transport::server_config(&options.identity, Trust::Unpinned, ALPN_PAIR)?;
        let stream = start.into_stream(config).await.map_err(TransportError::from_tls)?;
        return Ok(Purpose::Pairing(stream));
    }
    let peers = options.peers.clone();
    let primary = off_runtime(move || peers.in_role(Role::Primary)).await?;
    let primary = primary.map_err(|e| TransportError::Io(std::io::Error::other(e)))?;
    let (trust, name) = match primary {
        Some(peer) => (Trust::Pinned(peer.fingerprint), peer.name),
        None => (Trust::Nobody, String::new()),
    };
    let config = transport::server_config(&options.identity, trust, ALPN_STORE)?;
    let stream = start.into_stream(config).await.map_err(TransportError::from_tls)?;
    Ok(Purpose::Replication(stream, name))
}
