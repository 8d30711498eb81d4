//! The backup's end of the link: accepts, authenticates, and hands what arrives to the store.
//!
//! One thread writes (in order of arrival), one syncs: while a sync runs, the next group of batches is collected.
//! Only a finished sync is acknowledged. The newest connection of the paired primary replaces the one before.

mod accept;
mod connection;
mod writer;

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

/// What all connections share.
struct Shared {
    options: ReceiverOptions,
    status: Mutex<ReceiverStatus>,
    pairing: PairingDesk,
    work: crossbeam_channel::Sender<writer::Work>,
    /// The connection that is in charge: a newer one cancels it.
    current: Mutex<Option<(u64, CancellationToken)>>,
    next_connection: AtomicU64,
    /// How many questions are answered at once.
    answering: Arc<Semaphore>,
    /// No new connections; those that stand drain.
    shutdown: CancellationToken,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut ReceiverStatus)) {
        let mut status = self.status.lock();
        change(&mut status);
    }

    fn turned_away(&self, why: &str) {
        self.note(|status| {
            status.turned_away += 1;
            status.last_error = Some(why.to_owned());
        });
    }

    /// Connection `id` was welcomed: an older one is cancelled.
    fn take_charge(&self, id: u64, stop: CancellationToken, who: &str) {
        if let Some((_, older)) = self.current.lock().replace((id, stop)) {
            older.cancel();
        }
        self.note(|status| {
            status.primary = Some(who.to_owned());
            status.since = seconds_since_1970();
            status.connections += 1;
        });
    }

    fn leave(&self, id: u64, why: &str) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|(current, _)| *current == id) {
            *current = None;
            self.note(|status| {
                status.primary = None;
                status.since = seconds_since_1970();
                status.last_error = Some(why.to_owned());
            });
        }
    }

    fn connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A running receiver.
pub struct Receiver {
    shared: Arc<Shared>,
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
        let durable = options.store.position().map_or(0, |position| position.number);
        let (work, queue) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared {
            status: Mutex::new(ReceiverStatus {
                address: address.to_string(),
                durable,
                ..ReceiverStatus::default()
            }),
            pairing: PairingDesk::default(),
            work,
            current: Mutex::new(None),
            next_connection: AtomicU64::new(1),
            answering: Arc::new(Semaphore::new(8)),
            shutdown: CancellationToken::new(),
            options,
        });
        let threads = writer::start(shared.clone(), queue)?;
        let accepting = runtime.spawn(accept::run(shared.clone(), listener));
        Ok(Receiver { shared, address, accepting, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for status and pairing, from any thread.
    pub fn monitor(&self) -> ReceiverMonitor {
        ReceiverMonitor { shared: self.shared.clone() }
    }

    /// Stops accepting, stores and acknowledges what has arrived, and ends.
    pub async fn shutdown(self) {
        self.shared.shutdown.cancel();
        if tokio::time::timeout(DRAIN_WITHIN, self.accepting).await.is_err() {
            tracing::warn!("the replication link did not drain within {} s", DRAIN_WITHIN.as_secs());
        }
        // The channel is open as long as `shared` is.
        let _ = self.shared.work.send(writer::Work::Stop);
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
    shared: Arc<Shared>,
}

impl ReceiverMonitor {
    /// As it is now.
    pub fn status(&self) -> ReceiverStatus {
        let mut status = self.shared.status.lock().clone();
        status.pairing_open = self.shared.pairing.is_open();
        status
    }

    /// Opens pairing for ten minutes and five tries, in place of an earlier offer; returns the code to type on the
    /// primary.
    pub fn open_pairing(&self) -> String {
        self.shared.pairing.open()
    }

    /// The paired primary, if any.
    pub fn paired(&self) -> Option<PeerRecord> {
        self.shared.options.peers.in_role(super::identity::Role::Primary).ok().flatten()
    }
}
