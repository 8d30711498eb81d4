//! The source, on the host beside the server: a replica of our own that ships every event to the archive.
//!
//! It keeps nothing on disk. The archive says where it ends ([`lane`]), the server is asked whether its history goes on
//! there ([`locate`]), a replica's connection is opened at that byte ([`connect`]), and what comes from it is shipped as
//! it comes ([`session`], [`stream`]). Whatever fails, all of this begins anew.
//!
//! Memory: what the archive's credit allows (32 MiB) and a few buffers, whatever a transaction weighs.

pub mod acks;
pub mod connect;
pub mod dump;
pub mod facts;
pub mod fault;
pub mod lane;
pub mod locate;
mod pace;
pub mod probe;
pub mod semisync;
pub mod session;
mod shared;
mod shell;
pub mod ship;
mod socket;
mod stream;

use crate::database::dsn::Dsn;
use crate::database::link::Dial;
use crate::observe::status::DatabaseSourceStatus;
use crate::settings::{Database, Durability, OnGap};
use ehpc_proto::replication::database::{DbAnswer, DbQuery, Mark, Place};
use parking_lot::Mutex;
use shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How a source works.
pub struct SourceOptions {
    /// Where the server may be, tried in order.
    pub servers: Vec<Dsn>,
    /// Our number among the server's replicas.
    pub server_id: u32,
    /// Commits wait for the backup's disk.
    pub semi_sync: bool,
    /// Go on behind a gap, in a new lineage.
    pub over_gaps: bool,
    /// Connects to the archive.
    pub dial: Arc<dyn Dial>,
}

impl SourceOptions {
    /// What the settings say.
    pub fn of(settings: &Database, dial: Arc<dyn Dial>) -> SourceOptions {
        SourceOptions {
            servers: settings.address.iter().map(|address| Dsn::of(settings, address)).collect(),
            server_id: settings.server_id,
            semi_sync: settings.durability == Durability::Remote,
            over_gaps: settings.on_gap == OnGap::NewBase,
            dial,
        }
    }
}

/// A running source.
pub struct Source {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Source {
    /// Starts it.
    pub fn start(runtime: &Handle, options: SourceOptions) -> Source {
        let shared = Arc::new(Shared::new(options));
        let stop = CancellationToken::new();
        let (worker, token) = (shared.clone(), stop.clone());
        let task = runtime.spawn(shell::keep(worker, token));
        Source { shared, stop, task: Mutex::new(Some(task)) }
    }

    /// For status. `findings` is the preflight's and left empty.
    pub fn status(&self) -> DatabaseSourceStatus {
        self.shared.status()
    }

    /// End of the last whole group that was shipped, as a place of the archive; `None` until one is known (the archive
    /// may end within one).
    pub fn end(&self) -> Option<Place> {
        *self.shared.end.borrow()
    }

    /// The same, to wait on.
    pub fn shipped(&self) -> watch::Receiver<Option<Place>> {
        self.shared.end.subscribe()
    }

    /// What is on the backup's disk.
    pub fn durable(&self) -> watch::Receiver<Option<Place>> {
        self.shared.exchange.durable()
    }

    /// Asks the server where its log ends now and waits until all of that was shipped; the place of the archive. For
    /// fences: who then waits until that place is durable has every transaction that was committed before the call.
    ///
    /// # Errors
    ///
    /// Nothing is shipped within `within`, and why.
    pub async fn fresh(&self, within: Duration) -> Result<Place, String> {
        match tokio::time::timeout(within, self.shared.fresh()).await {
            Ok(place) => place,
            Err(_) => {
                let status = self.status();
                let why = status.last_error.unwrap_or(status.state);
                Err(format!("the database's binary log did not reach the backup within {within:?}: {why}"))
            }
        }
    }

    /// The server whose binary log is streamed now; `None` while none is.
    pub fn server(&self) -> Option<Dsn> {
        self.shared.server.borrow().as_ref().map(|(dsn, _)| dsn.clone())
    }

    /// That server and its lineage, to wait on: a stream begins or ends.
    pub fn connected(&self) -> watch::Receiver<Option<(Dsn, u32)>> {
        self.shared.server.subscribe()
    }

    /// Sends a mark to the archive, and waits until it is kept there.
    ///
    /// # Errors
    ///
    /// There is no connection to the backup, or it fell meanwhile: it may be kept or not.
    pub async fn mark(&self, mark: Mark) -> Result<(), String> {
        self.shared.exchange.mark(mark).await
    }

    /// Asks the archive.
    ///
    /// # Errors
    ///
    /// There is no connection to the backup, or it fell before the answer was complete.
    pub async fn ask(&self, query: DbQuery) -> Result<Vec<DbAnswer>, String> {
        self.shared.exchange.ask(query).await
    }

    /// A person says: go on with what the server has, although the archive has more (`db accept-loss`). Holds for the
    /// next attempt that needs it.
    pub fn accept_loss(&self) {
        self.shared.accept_loss();
    }

    /// A complete file of the archive is fetched again, as the server of its lineage has it now: one that is damaged, that
    /// has lost its end, or that is gone.
    ///
    /// # Errors
    ///
    /// For a person: the server is not the one of that lineage any more, or has the file no more; it or the archive
    /// refuses, or a connection was lost.
    pub async fn refetch_file(&self, lineage: u32, ordinal: u32) -> Result<(), String> {
        self.shared.refetch_file(lineage, ordinal).await
    }

    /// Ends it in order. What the server sent and the archive's connection has not taken is asked for again at the next
    /// start.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await; // it was cancelled, or it panicked and said so
        }
    }
}

#[cfg(test)]
mod tests;
