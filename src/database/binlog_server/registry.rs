//! Who is connected: for the status, and so that one replica's second connection ends its first.

use super::stream::StreamEnd;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;

/// A replica that is being served.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ReplicaStatus {
    /// Its `server_id`.
    pub server_id: u32,
    /// Where it connected from.
    pub address: String,
    /// The file that it is being sent.
    pub file: String,
    /// How far that is sent, in bytes.
    pub position: u64,
}

struct Entry {
    address: SocketAddr,
    server_id: Option<u32>,
    file: String,
    position: u64,
    token: CancellationToken,
    replaced: Arc<AtomicBool>,
}

/// All connections.
#[derive(Default)]
pub struct Registry {
    last: AtomicU32,
    entries: Mutex<HashMap<u32, Entry>>,
}

/// One connection; leaves the registry when it is dropped.
pub struct Visit {
    /// Its number (`CONNECTION_ID()`).
    pub id: u32,
    registry: Arc<Registry>,
    token: CancellationToken,
    replaced: Arc<AtomicBool>,
}

impl Registry {
    /// A connection begins; `stop` ends all of them.
    pub fn enter(self: &Arc<Registry>, address: SocketAddr, stop: &CancellationToken) -> Visit {
        let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (token, replaced) = (stop.child_token(), Arc::new(AtomicBool::new(false)));
        let entry = Entry {
            address,
            server_id: None,
            file: String::new(),
            position: 0,
            token: token.clone(),
            replaced: Arc::clone(&replaced),
        };
        self.entries.lock().insert(id, entry);
        Visit { id, registry: Arc::clone(self), token, replaced }
    }

    /// Ends a connection by its number.
    pub fn kill(&self, id: u32) -> bool {
        let entries = self.entries.lock();
        let found = entries.get(&id);
        if let Some(entry) = found {
            entry.token.cancel();
        }
        found.is_some()
    }

    /// The replicas that are being served, by server_id.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        let entries = self.entries.lock();
        let mut replicas: Vec<_> = entries
            .values()
            .filter_map(|entry| {
                Some(ReplicaStatus {
                    server_id: entry.server_id?,
                    address: entry.address.to_string(),
                    file: entry.file.clone(),
                    position: entry.position,
                })
            })
            .collect();
        replicas.sort_by(|a, b| (a.server_id, &a.address).cmp(&(b.server_id, &b.address)));
        replicas
    }
}

impl Visit {
    /// It takes the log now; another connection of the same replica ends. 0 is no replica's number: programs use it.
    pub fn serves(&self, server_id: u32) {
        let mut entries = self.registry.entries.lock();
        for (id, entry) in entries.iter_mut() {
            if *id == self.id {
                entry.server_id = Some(server_id);
            } else if server_id != 0 && entry.server_id == Some(server_id) {
                entry.replaced.store(true, Ordering::Release);
                entry.token.cancel();
            }
        }
    }

    /// How far it is.
    pub fn progress(&self, file: &str, position: u64) {
        if let Some(entry) = self.registry.entries.lock().get_mut(&self.id) {
            entry.position = position;
            if entry.file != file {
                file.clone_into(&mut entry.file);
            }
        }
    }

    /// Whether somebody ended it.
    ///
    /// # Errors
    ///
    /// Who did.
    pub fn ended(&self) -> Result<(), StreamEnd> {
        match (self.token.is_cancelled(), self.replaced.load(Ordering::Acquire)) {
            (false, _) => Ok(()),
            (true, true) => Err(StreamEnd::Replaced),
            (true, false) => Err(StreamEnd::Stopped),
        }
    }

    /// Resolves when somebody ends it.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.registry.entries.lock().remove(&self.id);
    }
}
