//! Who is connected: for the status, and so that one replica's second connection ends its first.

use super::feed::FeedFile;
use super::stream::StreamEnd;
use ehpc_proto::replication::database::Place;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A replica that went is expected back for so long: what it has not been sent is kept for it.
const EXPECTED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Most replicas that are remembered.
const GONE_MAX: usize = 1024;

/// A replica that is being served.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ReplicaStatus {
    /// Its `server_id`.
    pub server_id: u32,
    /// Where it connected from.
    pub address: String,
    /// The file that it is being sent.
    pub file: String,
    /// How far that is sent, as a place of the archive.
    pub place: Place,
}

struct Entry {
    address: SocketAddr,
    server_id: Option<u32>,
    file: String,
    place: Place,
    token: CancellationToken,
    replaced: Arc<AtomicBool>,
}

/// All connections.
#[derive(Default)]
pub struct Registry {
    last: AtomicU32,
    entries: Mutex<HashMap<u32, Entry>>,
    /// Replicas that have gone, and when.
    gone: Mutex<Vec<(ReplicaStatus, Instant)>>,
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
            place: Place::default(),
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
        let mut replicas: Vec<_> = entries.values().filter_map(Entry::status).collect();
        replicas.sort_by(|a, b| (a.server_id, &a.address).cmp(&(b.server_id, &b.address)));
        replicas
    }

    /// Those, and the replicas that went a short time ago: they are expected back.
    pub fn expected(&self) -> Vec<ReplicaStatus> {
        let mut replicas = self.status();
        let mut gone = self.gone.lock();
        gone.retain(|(_, since)| since.elapsed() < EXPECTED_FOR);
        for (replica, _) in gone.iter() {
            if !replicas.iter().any(|there| there.server_id == replica.server_id) {
                replicas.push(replica.clone());
            }
        }
        replicas
    }
}

impl Entry {
    fn status(&self) -> Option<ReplicaStatus> {
        Some(ReplicaStatus {
            server_id: self.server_id?,
            address: self.address.to_string(),
            file: self.file.clone(),
            place: self.place,
        })
    }
}

impl Visit {
    /// It takes the log now, from there on; another connection of the same replica ends. 0 is no replica's number:
    /// programs use it.
    pub fn serves(&self, server_id: u32, file: &FeedFile, position: u64) {
        self.progress(file, position);
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
    pub fn progress(&self, file: &FeedFile, position: u64) {
        if let Some(entry) = self.registry.entries.lock().get_mut(&self.id) {
            entry.place = Place { lineage: file.lineage, file: file.file, offset: position };
            if entry.file != file.name {
                file.name.clone_into(&mut entry.file);
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
        let entry = self.registry.entries.lock().remove(&self.id);
        let replica = entry.and_then(|entry| entry.status()).filter(|replica| replica.server_id != 0);
        if let Some(replica) = replica {
            let mut gone = self.registry.gone.lock();
            gone.retain(|(other, _)| other.server_id != replica.server_id);
            if gone.len() < GONE_MAX {
                gone.push((replica, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_went_is_expected_back_where_it_was() {
        let registry = Arc::new(Registry::default());
        let (stop, address) = (CancellationToken::new(), SocketAddr::from(([127, 0, 0, 1], 5)));
        let file = |number| FeedFile { lineage: 1, file: number, name: format!("bin.{number:06}") };
        let visit = |id, number| {
            let visit = registry.enter(address, &stop);
            visit.serves(id, &file(number), 4);
            visit
        };
        let expected = || -> Vec<(u32, u32)> {
            registry.expected().iter().map(|replica| (replica.server_id, replica.place.file)).collect()
        };
        let (one, program) = (visit(1, 3), visit(0, 1));
        one.progress(&file(4), 100);
        assert_eq!(expected(), [(0, 1), (1, 4)]);
        drop((one, program));
        assert_eq!((registry.status(), expected()), (vec![], vec![(1, 4)]));
        // Where it is now counts.
        let again = visit(1, 5);
        assert_eq!(expected(), [(1, 5)]);
        drop(again);
        assert_eq!(expected(), [(1, 5)]);
    }
}
