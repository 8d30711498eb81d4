//! A primary that changes at random, with the whole of its past: what the store is compared with.

use crate::store::{chunker, manifest};
use ehpc_proto::replication::message::{Blob, BlobKind, Codec};
use ehpc_proto::replication::{
    Batch, EntryState, Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Position, StreamId, Timestamp,
    wire,
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

/// The state after one batch.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Moment {
    pub(crate) objects: BTreeMap<ObjectId, ObjectState>,
    pub(crate) entries: BTreeMap<(ObjectId, Vec<u8>), ObjectId>,
}

/// What is sent as one.
#[derive(Clone)]
pub(crate) struct Shipment {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) batch: Batch,
    pub(crate) encoded: Vec<u8>,
    pub(crate) position: Position,
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    /// `moments[n]` is the state after batch n.
    pub(crate) moments: Vec<Moment>,
    pub(crate) position: Position,
    next: u64,
}

pub(crate) fn blob(kind: BlobKind, bytes: &[u8]) -> Blob {
    let packed = zstd::bulk::compress(bytes, 1).unwrap();
    let (codec, stored) =
        if packed.len() < bytes.len() { (Codec::Zstd, packed) } else { (Codec::Raw, bytes.to_vec()) };
    Blob { kind, hash: Hash::of(bytes), raw_len: bytes.len() as u32, codec, bytes: stored.into() }
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let position = Position::start(StreamId(rng.random()));
        World { rng, moments: vec![Moment::default()], position, next: 2 }
    }

    pub(crate) fn now(&self) -> &Moment {
        &self.moments[self.moments.len() - 1]
    }

    fn object(&mut self, kind: Kind) -> ObjectState {
        let id = ObjectId(self.next);
        self.next += self.rng.random_range(1..400);
        ObjectState {
            id,
            key: id.0.to_be_bytes().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp { seconds: self.rng.random_range(-5..5_000_000), nanos: 1 },
            rdev: (0, 0),
            target: if kind == Kind::Symlink { b"target".to_vec() } else { Vec::new() },
            xattrs: Vec::new(),
            content: Manifest::EMPTY,
            fuzzy: false,
        }
    }

    /// New content for a file: mostly small, at times with a hole, at times in pages.
    fn fill(&mut self, object: &mut ObjectState, blobs: &mut Vec<Blob>) {
        let mut extents = Vec::new();
        let pieces = if self.rng.random_bool(0.1) { 40 } else { self.rng.random_range(0..3) };
        for _ in 0..pieces {
            let mut bytes = vec![0; self.rng.random_range(1..600)];
            if self.rng.random_bool(0.5) {
                self.rng.fill_bytes(&mut bytes);
            } else {
                bytes.fill(self.rng.random());
            }
            for chunk in chunker::split(&bytes) {
                extents.push(Extent::Data { hash: Hash::of(chunk), len: chunk.len() as u32 });
                blobs.push(blob(BlobKind::Chunk, chunk));
            }
            if self.rng.random_bool(0.2) {
                extents.push(Extent::Hole { len: 4096 });
            }
        }
        object.size = extents.iter().map(Extent::len).sum();
        let (content, pages) = manifest::build(extents).unwrap();
        blobs.extend(pages.iter().map(|(_, bytes)| blob(BlobKind::Page, bytes)));
        object.content = content;
    }

    fn pick(&mut self, choose: impl Fn(&ObjectState) -> bool) -> Option<ObjectState> {
        let of: Vec<ObjectState> = self.now().objects.values().filter(|o| choose(o)).cloned().collect();
        (!of.is_empty()).then(|| of[self.rng.random_range(0..of.len())].clone())
    }

    /// The next batch: a few random changes.
    pub(crate) fn step(&mut self) -> Shipment {
        let mut moment = self.now().clone();
        let (mut objects, mut entries) = (BTreeMap::new(), BTreeMap::new());
        let (mut destroyed, mut blobs) = (BTreeSet::new(), Vec::new());
        if self.position.number == 0 {
            let mut root = self.object(Kind::Directory);
            (root.id, root.key) = (ObjectId::ROOT, 1u64.to_be_bytes().to_vec());
            objects.insert(root.id, root);
        }
        for _ in 0..self.rng.random_range(0..8) {
            let gone = destroyed.clone();
            let is_directory =
                |object: &ObjectState| object.kind == Kind::Directory && !gone.contains(&object.id);
            let Some(directory) = self.pick(is_directory) else { break };
            let name = vec![b'a' + self.rng.random_range(0..12u8)];
            let slot = (directory.id, name);
            let taken = moment.entries.get(&slot).copied();
            match (self.rng.random_range(0..8), taken) {
                (0..=2, None) => {
                    let kinds = [Kind::File, Kind::File, Kind::Directory, Kind::Symlink];
                    let kind = kinds[self.rng.random_range(0..kinds.len())];
                    let mut object = self.object(kind);
                    if kind == Kind::File {
                        self.fill(&mut object, &mut blobs);
                    }
                    moment.entries.insert(slot.clone(), object.id);
                    entries.insert(slot, Some(object.id));
                    objects.insert(object.id, object);
                }
                // A second name, or another file under an old name.
                (3, _) => {
                    let file = self.pick(|object| object.kind == Kind::File);
                    if let Some(file) = file.filter(|file| !destroyed.contains(&file.id)) {
                        moment.entries.insert(slot.clone(), file.id);
                        entries.insert(slot, Some(file.id));
                    }
                }
                (4, Some(child)) => {
                    let is_parent = moment.entries.keys().any(|(parent, _)| *parent == child);
                    let links = moment.entries.values().filter(|other| **other == child).count();
                    if links == 1 && !is_parent && !objects.contains_key(&child) {
                        moment.entries.remove(&slot);
                        entries.insert(slot, None);
                        destroyed.insert(child);
                    }
                }
                _ => {
                    let object = self.pick(|object| object.kind == Kind::File);
                    if let Some(mut file) = object.filter(|object| !destroyed.contains(&object.id)) {
                        self.fill(&mut file, &mut blobs);
                        file.mtime.seconds += 1;
                        objects.insert(file.id, file);
                    }
                }
            }
        }
        moment.objects.extend(objects.clone());
        moment.objects.retain(|id, _| !destroyed.contains(id));
        self.moments.push(moment);
        self.ship(objects, entries, destroyed, blobs)
    }

    fn ship(
        &mut self,
        objects: BTreeMap<ObjectId, ObjectState>,
        entries: BTreeMap<(ObjectId, Vec<u8>), Option<ObjectId>>,
        destroyed: BTreeSet<ObjectId>,
        blobs: Vec<Blob>,
    ) -> Shipment {
        let entry = |((parent, name), child)| EntryState { parent, name, child };
        let batch = Batch {
            number: self.position.number + 1,
            previous: self.position.chain,
            cut: self.position.number * 10,
            time: Timestamp::default(),
            objects: objects.into_values().collect(),
            entries: entries.into_iter().map(entry).collect(),
            destroyed: destroyed.into_iter().collect(),
        };
        let encoded = wire::encode_batch(&batch);
        assert_eq!(wire::decode_batch(&encoded).as_ref(), Ok(&batch));
        let (stream, chain) = (self.position.stream, Hash::of(&encoded));
        self.position = Position { stream, number: batch.number, chain };
        Shipment { blobs, batch, encoded, position: self.position }
    }
}
