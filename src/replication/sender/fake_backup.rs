//! A backup in memory for tests: applies batches to a model tree and checks every rule that a batch must keep.

use crate::replication::link::{Connector, Hello, Link, LinkDown, Welcome};
use crate::store::manifest;
use bytes::Bytes;
use ehpc_proto::replication::message::{Answer, Blob, BlobKind, Codec, LiveEntry, Query, Version};
use ehpc_proto::replication::{Batch, Extent, Hash, Kind, ObjectId, ObjectState, Position, wire};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Live state at one batch.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub objects: BTreeMap<ObjectId, ObjectState>,
    pub entries: BTreeMap<(ObjectId, Vec<u8>), ObjectId>,
}

impl Model {
    /// Object at a path.
    pub(crate) fn at(&self, path: &str) -> Option<&ObjectState> {
        let mut at = ObjectId::ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = *self.entries.get(&(at, part.as_bytes().to_vec()))?;
        }
        self.objects.get(&at)
    }

    fn listing(&self, id: ObjectId) -> Vec<(Vec<u8>, ObjectId)> {
        let from = (id, Vec::new());
        let inside = self.entries.range(from..).take_while(|((parent, _), _)| *parent == id);
        inside.map(|((_, name), child)| (name.clone(), *child)).collect()
    }

    fn check_tree(&self) {
        let mut parents: HashMap<ObjectId, ObjectId> = HashMap::new();
        for ((parent, name), child) in &self.entries {
            let shown = name.escape_ascii();
            assert!(self.objects.contains_key(parent), "entry {shown} is in unknown object {parent:?}");
            let object =
                self.objects.get(child).unwrap_or_else(|| panic!("{shown} leads to unknown {child:?}"));
            assert_eq!(self.objects[parent].kind, Kind::Directory);
            if object.kind == Kind::Directory {
                assert_eq!(
                    parents.insert(*child, *parent),
                    None,
                    "directory {child:?} ({shown}) has two parents"
                );
            }
        }
        assert!(!parents.contains_key(&ObjectId::ROOT));
        for start in parents.keys() {
            let (mut at, mut steps) = (*start, 0);
            while let Some(parent) = parents.get(&at) {
                at = *parent;
                steps += 1;
                assert!(steps < 100_000, "{start:?} is under itself");
            }
        }
    }
}

/// The backup's disk and everything that tests steer.
pub(crate) struct Backup {
    pub blobs: HashMap<Hash, Vec<u8>>,
    /// Blobs that would not survive a crash.
    volatile: HashSet<Hash>,
    pub history: Vec<(Position, Batch, Model)>,
    /// How many of `history` are durable.
    durable: usize,
    connection: u64,
    pub random: StdRng,
    /// A message fails with this probability.
    pub failing: f64,
    /// Acknowledge at once, or only after some later message.
    pub lazy: bool,
    pub blob_bytes: u64,
    pub blobs_received: Vec<(BlobKind, Hash, u32)>,
    pub asked: u64,
}

impl Backup {
    pub(crate) fn new(seed: u64) -> Arc<Mutex<Backup>> {
        Arc::new(Mutex::new(Backup {
            blobs: HashMap::new(),
            volatile: HashSet::new(),
            history: Vec::new(),
            durable: 0,
            connection: 0,
            random: StdRng::seed_from_u64(seed),
            failing: 0.0,
            lazy: false,
            blob_bytes: 0,
            blobs_received: Vec::new(),
            asked: 0,
        }))
    }

    pub(crate) fn model(&self) -> Model {
        self.history.last().map(|(_, _, model)| model.clone()).unwrap_or_default()
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.history.last().map(|(position, _, _)| *position)
    }

    /// Bytes of a file in the model.
    pub(crate) fn content(&self, state: &ObjectState) -> Vec<u8> {
        let mut out = Vec::new();
        let extents = manifest::load(&state.content, &mut |hash| Ok(self.blobs[hash].clone())).unwrap();
        for extent in extents {
            match extent {
                Extent::Data { hash, .. } => out.extend_from_slice(&self.blobs[&hash]),
                Extent::Hole { len } => out.resize(out.len() + len as usize, 0),
            }
        }
        out
    }

    /// Goes back to an older copy of itself.
    pub(crate) fn restore_older(&mut self, keep: usize) {
        self.history.truncate(keep);
        self.durable = self.history.len();
        self.connection += 1;
    }

    fn append(&mut self, encoded: &[u8], start: Position) {
        let batch = wire::decode_batch(encoded).expect("a batch that keeps to the protocol");
        let last = self.position().unwrap_or(start);
        assert_eq!(batch.number, last.number + 1, "order of batches");
        assert_eq!(batch.previous, last.chain, "chain of batches");
        let mut model = self.model();
        for state in &batch.objects {
            let total = manifest::total_len(&state.content, &mut |hash| {
                self.blobs.get(hash).cloned().ok_or_else(|| format!("page {hash} missing").into())
            });
            assert_eq!(total.unwrap(), state.size, "length of the content of {:?}", state.id);
            let chunks =
                manifest::chunks_of(&state.content, &mut |hash| Ok(self.blobs[hash].clone())).unwrap();
            for chunk in chunks {
                assert!(
                    self.blobs.contains_key(&chunk),
                    "chunk {chunk} was not sent ahead of batch {}",
                    batch.number
                );
            }
            if let Some(old) = model.objects.insert(state.id, state.clone()) {
                assert_eq!(old.kind, state.kind, "an object changed its kind");
            }
        }
        for entry in &batch.entries {
            let key = (entry.parent, entry.name.clone());
            match entry.child {
                Some(child) => {
                    model.entries.insert(key, child);
                }
                None => {
                    assert!(model.entries.remove(&key).is_some(), "a vanished entry that was not there");
                }
            }
        }
        for id in &batch.destroyed {
            assert!(model.objects.remove(id).is_some(), "destroyed {id:?} is not known");
        }
        model.check_tree();
        let position = Position { stream: last.stream, number: batch.number, chain: wire::chain(encoded) };
        self.history.push((position, batch, model));
    }

    fn sync(&mut self) {
        self.durable = self.history.len();
        self.volatile.clear();
    }

    /// The connection breaks; what was not acknowledged survives or does not.
    fn crash(&mut self) {
        self.connection += 1;
        if self.random.random_bool(0.5) {
            self.sync();
            return;
        }
        let keep = self.random.random_range(self.durable..=self.history.len());
        if keep == self.durable {
            for hash in std::mem::take(&mut self.volatile) {
                self.blobs.remove(&hash);
            }
        }
        self.history.truncate(keep);
        self.sync();
    }

    fn answer(&self, query: Query) -> Answer {
        let model = self.model();
        match query {
            Query::Live { after, limit } => {
                let live = model.objects.range(ObjectId(after.0 + 1)..).take(limit.min(40) as usize);
                let objects: Vec<ObjectState> = live.map(|(_, state)| state.clone()).collect();
                let ids: HashSet<ObjectId> = objects.iter().map(|state| state.id).collect();
                let entries = model.entries.iter().filter(|(_, child)| ids.contains(child));
                let entries = entries.map(|((parent, name), child)| LiveEntry {
                    parent: *parent,
                    name: name.clone(),
                    child: *child,
                });
                Answer::Live { entries: entries.collect(), objects }
            }
            Query::Touched { since, after } => {
                let (mut objects, mut entries) = (BTreeMap::new(), BTreeMap::new());
                for (_, batch, _) in self.history.iter().filter(|(position, _, _)| position.number > since) {
                    objects.extend(batch.objects.iter().map(|state| (state.id, state.key.clone())));
                    objects.extend(batch.destroyed.iter().map(|id| (*id, Vec::new())));
                    entries
                        .extend(batch.entries.iter().map(|entry| ((entry.parent, entry.name.clone()), ())));
                }
                let ids: std::collections::BTreeSet<ObjectId> = objects
                    .keys()
                    .copied()
                    .chain(entries.keys().map(|(parent, _)| *parent))
                    .filter(|id| *id > after)
                    .take(40)
                    .collect();
                Answer::Touched {
                    objects: objects.into_iter().filter(|(id, _)| ids.contains(id)).collect(),
                    entries: entries.into_keys().filter(|(parent, _)| ids.contains(parent)).collect(),
                }
            }
            Query::Versions { objects, from, to } => {
                assert_eq!((from, Some(from)), (to, self.position().map(|position| position.number)));
                let version = |id: &ObjectId| Version {
                    batch: to,
                    state: model.objects.get(id).cloned(),
                    entries: model.listing(*id),
                };
                Answer::Versions(objects.iter().map(|id| vec![version(id)]).collect())
            }
            other => panic!("the sender does not ask {other:?}"),
        }
    }
}

/// The way to a [`Backup`].
pub(crate) struct FakeConnector(pub Arc<Mutex<Backup>>);

struct FakeLink {
    backup: Arc<Mutex<Backup>>,
    connection: u64,
    start: Position,
    acked: Option<u64>,
    reported: Option<u64>,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

fn lost() -> LinkDown {
    LinkDown::Lost { reason: "the test said so".to_owned() }
}

impl Connector for FakeConnector {
    fn connect(&mut self, hello: Hello) -> Result<(Welcome, Box<dyn Link>), LinkDown> {
        let mut backup = self.0.lock();
        backup.connection += 1;
        backup.sync();
        let shadow_known = hello.position.is_some_and(|position| {
            position == Position::start(position.stream)
                && backup.position().is_some_and(|p| p.stream == position.stream)
                || backup.history.iter().any(|(known, _, _)| *known == position)
        });
        let welcome = Welcome { position: backup.position(), shadow_known };
        let link = FakeLink {
            backup: Arc::clone(&self.0),
            connection: backup.connection,
            start: Position::start(hello.stream),
            acked: None,
            reported: None,
            wake: None,
        };
        Ok((welcome, Box::new(link)))
    }
}

impl FakeLink {
    fn message<T>(&mut self, then: impl FnOnce(&mut Backup) -> T) -> Result<T, LinkDown> {
        let mut backup = self.backup.lock();
        if backup.connection != self.connection {
            return Err(lost());
        }
        let failing = backup.failing;
        let (before, after) =
            (backup.random.random_bool(failing / 2.0), backup.random.random_bool(failing / 2.0));
        if before {
            backup.crash();
            return Err(lost());
        }
        let result = then(&mut backup);
        if !backup.lazy || backup.random.random_bool(0.2) {
            backup.sync();
            self.acked = backup.position().map(|position| position.number);
            if let Some(wake) = &self.wake {
                wake();
            }
        }
        if after {
            backup.crash();
            return Err(lost());
        }
        Ok(result)
    }
}

impl Link for FakeLink {
    fn send_blobs(&mut self, blobs: Vec<Blob>) -> Result<(), LinkDown> {
        self.message(|backup| {
            for blob in blobs {
                let raw = match blob.codec {
                    Codec::Raw => blob.bytes.to_vec(),
                    Codec::Zstd => zstd::bulk::decompress(&blob.bytes, blob.raw_len as usize).unwrap(),
                };
                assert_eq!(raw.len(), blob.raw_len as usize);
                assert_eq!(Hash::of(&raw), blob.hash);
                backup.blob_bytes += raw.len() as u64;
                backup.blobs_received.push((blob.kind, blob.hash, blob.raw_len));
                if backup.blobs.insert(blob.hash, raw).is_none() {
                    backup.volatile.insert(blob.hash);
                }
            }
        })
    }

    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, LinkDown> {
        assert!(hashes.len() <= 4096 && !hashes.is_empty());
        self.message(|backup| {
            backup.asked += hashes.len() as u64;
            hashes.iter().map(|hash| !backup.blobs.contains_key(hash)).collect()
        })
    }

    fn send_batch(&mut self, number: u64, encoded: Bytes) -> Result<(), LinkDown> {
        assert!(encoded.len() <= wire::MAX_BATCH);
        let start = self.start;
        self.message(|backup| {
            backup.append(&encoded, start);
            assert_eq!(backup.position().map(|position| position.number), Some(number));
        })
    }

    fn poll_acks(&mut self) -> Option<u64> {
        // An idle backup acknowledges everything sooner or later.
        let backup = Arc::clone(&self.backup);
        let mut backup = backup.lock();
        if backup.connection == self.connection && backup.random.random_bool(0.5) {
            backup.sync();
            self.acked = backup.position().map(|position| position.number);
        }
        if self.acked == self.reported {
            return None;
        }
        self.reported = self.acked;
        self.acked
    }

    fn ask(&mut self, query: Query) -> Result<Answer, LinkDown> {
        self.message(|backup| backup.answer(query))
    }

    fn check(&self) -> Result<(), LinkDown> {
        if self.backup.lock().connection == self.connection { Ok(()) } else { Err(lost()) }
    }

    fn on_event(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.wake = Some(wake);
    }
}
