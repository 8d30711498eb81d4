//! The backup's end of the link: a door that authenticates, and desks that hand what arrives to a store.
//!
//! The name of the protocol in the TLS handshake says which desk, or which service, a connection is for. At a desk one
//! thread writes (in order of arrival), one syncs: while a sync runs, the next group of batches is collected.
//! Only a finished sync is acknowledged. The newest connection of the paired primary replaces the one before, at each
//! desk and service for itself.

mod accept;
mod connection;
mod writer;

use super::channel::{Protocol, Service};
use super::identity::{Identity, PeerRecord, Peers};
use super::pairing::PairingDesk;
use ehpc_proto::replication::message::{Answer, Blob, Query};
use ehpc_proto::replication::{Batch, Hash, Position};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why the store did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreFault {
    /// No space; nothing is lost, and it works again when there is space.
    #[error("the backup's disk is full: {reason}")]
    Full { reason: String },
    /// What the primary sent is wrong: a blob that does not match its name, a batch whose blobs are missing.
    #[error("{reason}")]
    Rejected { reason: String },
    /// The store itself is in trouble.
    #[error("the backup's store has failed: {reason}")]
    Broken { reason: String },
}

/// What the receiver needs of the store. All calls block; `sync` may run beside all others.
pub trait BackupStore: Send + Sync + 'static {
    /// Where the stream stands on disk; `None` before its first batch.
    fn position(&self) -> Option<Position>;
    /// Is this position part of the history (equal number and chain)?
    fn knows(&self, position: &Position) -> Result<bool, StoreFault>;
    /// One flag a hash: true = not held.
    fn lacking(&self, hashes: &[Hash]) -> Result<Vec<bool>, StoreFault>;
    /// Decodes, checks the name, appends. Not yet durable.
    fn put_blob(&self, blob: &Blob) -> Result<(), StoreFault>;
    /// Appends a batch, after the blobs that it needs. Not yet durable.
    fn append_batch(&self, encoded: &[u8], batch: &Batch) -> Result<(), StoreFault>;
    /// Makes everything appended before the call durable; returns the last durable batch.
    fn sync(&self) -> Result<u64, StoreFault>;
}

/// Answers the primary's questions. Blocks; several may be answered at once.
pub trait QueryHandler: Send + Sync + 'static {
    /// Gives the answer to `part`, in one or more parts, each with "more follow"; stops when `part` returns false.
    fn answer(&self, query: Query, part: &mut dyn FnMut(Answer, bool) -> bool);
}

/// How the receiver is set up.
pub struct ReceiverOptions {
    /// This host.
    pub identity: Arc<Identity>,
    /// Its paired hosts.
    pub peers: Peers,
    /// Stores that are filled, the one of the files first.
    pub desks: Vec<DeskOptions>,
    /// What else may be connected to.
    pub services: Vec<(Protocol, Arc<dyn Service>)>,
}

/// One store, and what belongs to it.
pub struct DeskOptions {
    /// Name of the protocol in the TLS handshake: connections with this name are for this store.
    pub alpn: &'static [u8],
    /// Where blobs and batches go.
    pub store: Arc<dyn BackupStore>,
    /// Who answers questions.
    pub queries: Arc<dyn QueryHandler>,
    /// Told of newly durable batches (the applier). Two threads call it: the highest number counts.
    pub on_durable: Arc<dyn Fn(u64) + Send + Sync>,
}

/// The receiver for `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReceiverStatus {
    /// Where it listens.
    pub address: String,
    /// Name and address of the primary that is connected.
    pub primary: Option<String>,
    /// When it connected or left, seconds since 1970.
    pub since: u64,
    /// Last durable batch.
    pub durable: u64,
    pub bytes_received: u64,
    /// Connections of the primary so far.
    pub connections: u64,
    /// Connections that were not let in.
    pub turned_away: u64,
    /// Why the last connection ended.
    pub last_error: Option<String>,
    /// The store has no space.
    pub disk_full: bool,
    /// A pairing code is waiting to be used.
    pub pairing_open: bool,
}

/// The connection that is in charge, and what ends it. A newer one takes its place.
#[derive(Default)]
struct Charge(Mutex<Option<(u64, CancellationToken)>>);

impl Charge {
    /// Connection `id` is in charge from now on: the one before is cancelled.
    fn take(&self, id: u64, stop: CancellationToken) {
        if let Some((_, older)) = self.0.lock().replace((id, stop)) {
            older.cancel();
        }
    }

    /// Connection `id` is over: was it the one in charge?
    fn leave(&self, id: u64) -> bool {
        self.0.lock().take_if(|(current, _)| *current == id).is_some()
    }
}

/// What all connections share: who is let in, and where to.
struct Door {
    identity: Arc<Identity>,
    peers: Peers,
    pairing: PairingDesk,
    desks: Vec<Arc<Desk>>,
    services: Vec<Serving>,
    next_connection: AtomicU64,
    /// No new connections; those that stand drain.
    shutdown: CancellationToken,
}

/// A service, and its connection.
struct Serving {
    protocol: Protocol,
    service: Arc<dyn Service>,
    current: Charge,
}

impl Door {
    /// The desk of the files tells what happens at the door.
    fn turned_away(&self, why: &str) {
        if let Some(desk) = self.desks.first() {
            desk.note(|status| {
                status.turned_away += 1;
                status.last_error = Some(why.to_owned());
            });
        }
    }

    fn connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the connections to one store share.
struct Desk {
    options: DeskOptions,
    status: Mutex<ReceiverStatus>,
    work: crossbeam_channel::Sender<writer::Work>,
    current: Charge,
    /// How many questions are answered at once.
    answering: Arc<Semaphore>,
    /// The door's.
    shutdown: CancellationToken,
}

impl Desk {
    /// A desk, and the threads that work for it.
    fn open(
        options: DeskOptions,
        address: SocketAddr,
        shutdown: CancellationToken,
    ) -> io::Result<(Arc<Desk>, Vec<std::thread::JoinHandle<()>>)> {
        let durable = options.store.position().map_or(0, |position| position.number);
        let status = ReceiverStatus { address: address.to_string(), durable, ..ReceiverStatus::default() };
        let (work, queue) = crossbeam_channel::unbounded();
        let desk = Arc::new(Desk {
            options,
            status: Mutex::new(status),
            work,
            current: Charge::default(),
            answering: Arc::new(Semaphore::new(8)),
            shutdown,
        });
        let threads = writer::start(desk.clone(), queue)?;
        Ok((desk, threads))
    }

    fn note(&self, change: impl FnOnce(&mut ReceiverStatus)) {
        let mut status = self.status.lock();
        change(&mut status);
    }

    /// Connection `id` was welcomed: an older one is cancelled.
    fn take_charge(&self, id: u64, stop: CancellationToken, who: &str) {
        self.current.take(id, stop);
        self.note(|status| {
            status.primary = Some(who.to_owned());
            status.since = seconds_since_1970();
            status.connections += 1;
        });
    }

    fn leave(&self, id: u64, why: &str) {
        if self.current.leave(id) {
            self.note(|status| {
                status.primary = None;
                status.since = seconds_since_1970();
                status.last_error = Some(why.to_owned());
            });
        }
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A running receiver.
pub struct Receiver {
    door: Arc<Door>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Most time that a shutdown gives connections to drain.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

impl Receiver {
    /// Starts on a listening socket.
    pub fn start(runtime: &Handle, listener: TcpListener, options: ReceiverOptions) -> io::Result<Receiver> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let shutdown = CancellationToken::new();
        let (mut desks, mut threads) = (Vec::new(), Vec::new());
        for desk in options.desks {
            let (desk, working) = Desk::open(desk, address, shutdown.clone())?;
            desks.push(desk);
            threads.extend(working);
        }
        let serving = options.services.into_iter();
        let door = Arc::new(Door {
            identity: options.identity,
            peers: options.peers,
            pairing: PairingDesk::default(),
            desks,
            services: serving
                .map(|(protocol, service)| Serving { protocol, service, current: Charge::default() })
                .collect(),
            next_connection: AtomicU64::new(1),
            shutdown,
        });
        let accepting = runtime.spawn(accept::run(door.clone(), listener));
        Ok(Receiver { door, address, accepting, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for status and pairing, from any thread. The status is that of the first desk.
    pub fn monitor(&self) -> ReceiverMonitor {
        ReceiverMonitor { desk: self.door.desks.first().cloned(), door: self.door.clone() }
    }

    /// The same with the status of another desk; `None`: there is no desk of this name.
    pub fn monitor_of(&self, alpn: &[u8]) -> Option<ReceiverMonitor> {
        let desk = self.door.desks.iter().find(|desk| desk.options.alpn == alpn)?.clone();
        Some(ReceiverMonitor { desk: Some(desk), door: self.door.clone() })
    }

    /// Stops accepting, stores and acknowledges what has arrived, and ends.
    pub async fn shutdown(self) {
        self.door.shutdown.cancel();
        if tokio::time::timeout(DRAIN_WITHIN, self.accepting).await.is_err() {
            tracing::warn!("the replication link did not drain within {} s", DRAIN_WITHIN.as_secs());
        }
        for desk in &self.door.desks {
            // The channel is open as long as the desk is.
            let _ = desk.work.send(writer::Work::Stop);
        }
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok())).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread of the receiver ended with a panic");
        }
    }
}

/// Status and pairing of a running receiver.
#[derive(Clone)]
pub struct ReceiverMonitor {
    desk: Option<Arc<Desk>>,
    door: Arc<Door>,
}

impl ReceiverMonitor {
    /// As it is now.
    pub fn status(&self) -> ReceiverStatus {
        let mut status = self.desk.as_ref().map(|desk| desk.status.lock().clone()).unwrap_or_default();
        status.pairing_open = self.door.pairing.is_open();
        status
    }

    /// Opens pairing for ten minutes and five tries, in place of an earlier offer; returns the code to type on the
    /// primary.
    pub fn open_pairing(&self) -> String {
        self.door.pairing.open()
    }

    /// The paired primary, if any.
    pub fn paired(&self) -> Option<PeerRecord> {
        self.door.peers.in_role(super::identity::Role::Primary).ok().flatten()
    }
}
