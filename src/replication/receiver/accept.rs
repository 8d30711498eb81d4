//! Accepting connections: who is let in, and for what.

use super::{Desk, Door, Serving, connection};
use crate::replication::channel::Channel;
use crate::replication::identity::Role;
use crate::replication::pairing;
use crate::replication::transport::{
    self, ALPN_PAIR, HANDSHAKE_WITHIN, Socket, TransportError, Trust, off_runtime,
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

struct Doorkeeper {
    door: Arc<Door>,
    quiet: Quiet,
}

impl Doorkeeper {
    fn turn_away(&self, from: SocketAddr, why: &str) {
        self.door.turned_away(why);
        if let Some(kept) = self.quiet.allows() {
            tracing::warn!(%from, unlogged = kept, "replication: a connection is not let in: {why}");
        }
    }
}

/// Accepts until shutdown, then waits until the connections have drained.
pub(super) async fn run(door: Arc<Door>, listener: TcpListener) {
    let unknown = Arc::new(Semaphore::new(UNKNOWN_AT_ONCE));
    let shutdown = door.shutdown.clone();
    let keeper = Arc::new(Doorkeeper { door, quiet: Quiet { state: Mutex::new((None, 0)) } });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => match unknown.clone().try_acquire_owned() {
                Ok(permit) => drop(connections.spawn(serve(keeper.clone(), socket, from, permit))),
                Err(_) => keeper.turn_away(from, "too many connections that have not shown who they are"),
            },
            Err(error) => {
                if keeper.quiet.allows().is_some() {
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
#[derive(Clone, Copy)]
enum Purpose {
    /// One of the desks.
    Store(usize),
    /// One of the services.
    Service(usize),
    Pairing,
}

async fn serve(keeper: Arc<Doorkeeper>, socket: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    let door = &*keeper.door;
    let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, secure(door, socket));
    let secured = tokio::select! {
        () = door.shutdown.cancelled() => return,
        secured = handshake => secured.unwrap_or(Err(TransportError::Late)),
    };
    let (purpose, stream, name) = match secured {
        Ok(secured) => secured,
        Err(error) => {
            let why = match error {
                TransportError::WrongKey => "its key is not that of the paired primary".to_owned(),
                other => other.to_string(),
            };
            return keeper.turn_away(from, &why);
        }
    };
    let who = format!("{name} ({from})");
    match purpose {
        Purpose::Store(desk) => {
            drop(permit);
            let desk: Arc<Desk> = door.desks[desk].clone();
            connection::run(desk, door.connection_id(), stream, who).await;
        }
        Purpose::Service(service) => {
            drop(permit);
            service_connection(door, &door.services[service], stream, who).await;
        }
        Purpose::Pairing => {
            // The permit is held: whoever pairs is not known yet.
            let talk = pairing::serve(stream, &door.identity, &door.peers, &door.pairing);
            let paired = tokio::select! {
                () = door.shutdown.cancelled() => return,
                paired = talk => paired,
            };
            match paired {
                Ok(peer) => tracing::info!(%from, name = peer.name, "paired with a primary"),
                Err(error) => keeper.turn_away(from, &format!("pairing: {error}")),
            }
        }
    }
}

/// Hands a connection to a service; it is the one in charge there until a newer one comes.
async fn service_connection(door: &Door, serving: &Serving, stream: TlsStream<Socket>, who: String) {
    let (id, stop) = (door.connection_id(), door.shutdown.child_token());
    serving.current.take(id, stop.clone());
    let channel = Channel::accepted(stream.into(), serving.protocol);
    serving.service.serve(channel, who, stop).await;
    serving.current.leave(id);
}

/// The TLS handshake; what the client names as protocol decides whom to trust. Gives the peer's name, too.
async fn secure(
    door: &Door,
    socket: TcpStream,
) -> Result<(Purpose, TlsStream<Socket>, String), TransportError> {
    let socket = transport::tuned(socket)?;
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await;
    let start = start.map_err(TransportError::from_tls)?;
    let hello = start.client_hello();
    let names = |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|name| name == wanted));
    let desk = || {
        let desk = door.desks.iter().position(|desk| names(desk.options.alpn))?;
        Some((Purpose::Store(desk), door.desks[desk].options.alpn))
    };
    let service = || {
        let service = door.services.iter().position(|serving| names(serving.protocol.alpn))?;
        Some((Purpose::Service(service), door.services[service].protocol.alpn))
    };
    let pairing = || names(ALPN_PAIR).then_some((Purpose::Pairing, ALPN_PAIR));
    let Some((purpose, alpn)) = desk().or_else(service).or_else(pairing) else {
        let known = door.desks.first().map_or(ALPN_PAIR, |desk| desk.options.alpn);
        // The handshake fails, but says why.
        let config = transport::server_config(&door.identity, Trust::Nobody, known)?;
        let failed = start.into_stream(config).await.map(|_| ());
        return failed.map_err(TransportError::from_tls).and(Err(TransportError::protocol(known)));
    };
    let (trust, name) = match purpose {
        Purpose::Pairing => (Trust::Unpinned, String::new()),
        Purpose::Store(_) | Purpose::Service(_) => {
            let peers = door.peers.clone();
            let primary = off_runtime(move || peers.in_role(Role::Primary)).await?;
            match primary.map_err(|e| TransportError::Io(std::io::Error::other(e)))? {
                Some(peer) => (Trust::Pinned(peer.fingerprint), peer.name),
                None => (Trust::Nobody, String::new()),
            }
        }
    };
    let config = transport::server_config(&door.identity, trust, alpn)?;
    let stream = start.into_stream(config).await.map_err(TransportError::from_tls)?;
    Ok((purpose, stream, name))
}
