//! For tests: a primary whose tree changes at random, and the batches that it sends.

use super::{Chunks, Model};
use crate::replication::mirror::view::{Known, Spot};
use ehpc_proto::replication::{
    Batch, EntryState, Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Timestamp, Xattr,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};

/// A primary whose tree changes at random.
pub(crate) struct Primary {
    pub(crate) rng: StdRng,
    pub(crate) tree: Model,
    pub(crate) chunks: Chunks,
    extents: HashMap<ObjectId, Vec<Extent>>,
    next: u64,
    number: u64,
    touched: BTreeSet<ObjectId>,
    spots: BTreeSet<Spot>,
    gone: BTreeSet<ObjectId>,
}

impl Primary {
    pub(crate) fn new(seed: u64) -> Primary {
        let mut primary = Primary {
            rng: StdRng::seed_from_u64(seed),
            tree: Model::default(),
            chunks: Chunks::new(),
            extents: HashMap::new(),
            next: 1,
            number: 0,
            touched: BTreeSet::new(),
            spots: BTreeSet::new(),
            gone: BTreeSet::new(),
        };
        primary.object(Kind::Directory);
        primary
    }

    fn time(&mut self) -> Timestamp {
        Timestamp {
            seconds: self.rng.random_range(-1000..2_000_000_000),
            nanos: self.rng.random_range(0..1_000_000_000),
        }
    }

    fn object(&mut self, kind: Kind) -> ObjectId {
        let id = ObjectId(self.next);
        self.next += 1;
        let state = ObjectState {
            id,
            key: id.0.to_be_bytes().to_vec(),
            kind,
            mode: if kind == Kind::Symlink {
                0o777
            } else {
                [0o644, 0o755, 0o600, 0o4755, 0o500][self.rng.random_range(0..5)]
            },
            uid: [0, 0, 33, 1000][self.rng.random_range(0..4)],
            gid: [0, 0, 33][self.rng.random_range(0..3)],
            size: 0,
            mtime: self.time(),
            rdev: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                (8, self.rng.random_range(0..9))
            } else {
                (0, 0)
            },
            target: if kind == Kind::Symlink {
                format!("to/{}", self.rng.random_range(0..9)).into_bytes()
            } else {
                Vec::new()
            },
            xattrs: Vec::new(),
            content: Manifest::EMPTY,
            fuzzy: false,
        };
        self.tree.objects.insert(id, Known { state, identity: None });
        self.touched.insert(id);
        id
    }

    fn state(&mut self, id: ObjectId) -> &mut ObjectState {
        self.touched.insert(id);
        &mut self.tree.objects.get_mut(&id).unwrap().state
    }

    fn put(&mut self, spot: Spot, child: Option<ObjectId>) {
        let parent = spot.parent;
        self.spots.insert(spot.clone());
        self.tree.set(spot, child);
        if self.rng.random_range(0..8) > 0 {
            let time = self.time();
            self.state(parent).mtime = time;
        }
    }

    fn pick(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<ObjectId> {
        let all: Vec<ObjectId> =
            self.tree.objects.iter().filter(|(_, known)| wanted(known)).map(|(id, _)| *id).collect();
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())]) }
    }

    fn directory(&mut self) -> ObjectId {
        self.pick(|known| known.state.kind == Kind::Directory).unwrap()
    }

    fn spot(&mut self) -> Spot {
        let parent = self.directory();
        Spot::new(parent, vec![b'a' + self.rng.random_range(0..6u8)])
    }

    fn taken(&mut self) -> Option<(Spot, ObjectId)> {
        if self.tree.entries.is_empty() {
            return None;
        }
        let at = self.rng.random_range(0..self.tree.entries.len());
        self.tree.entries.iter().nth(at).map(|(spot, child)| (spot.clone(), *child))
    }

    fn is_directory(&self, id: ObjectId) -> bool {
        self.tree.objects[&id].state.kind == Kind::Directory
    }

    /// Is `id` at or below `top`?
    fn below(&self, id: ObjectId, top: ObjectId) -> bool {
        let mut at = id;
        loop {
            if at == top {
                return true;
            }
            match self.tree.names.get(&at).and_then(|names| names.first()) {
                Some(spot) => at = spot.parent,
                None => return false,
            }
        }
    }

    /// Takes the name away; the object is destroyed if that was the last and `destroy`.
    fn remove(&mut self, spot: &Spot, destroy: bool) {
        let Some(&id) = self.tree.entries.get(spot) else { return };
        if self.is_directory(id) && destroy {
            for (name, _) in self.tree.listing(id) {
                self.remove(&Spot::new(id, name), true);
            }
        }
        self.put(spot.clone(), None);
        if destroy && self.tree.names.get(&id).is_none_or(BTreeSet::is_empty) {
            self.tree.objects.remove(&id);
            self.gone.insert(id);
        }
    }

    fn mutate(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.create(),
            22..34 => self.rename(),
            34..42 => self.swap(),
            42..50 => self.hard_link(),
            50..60 => {
                if let Some((spot, _)) = self.taken() {
                    let destroy = self.rng.random_range(0..6) > 0;
                    self.remove(&spot, destroy);
                }
            }
            60..64 => self.revive(),
            64..84 => self.write(),
            84..88 => self.replace_kind(),
            _ => self.attributes(),
        }
    }

    fn create(&mut self) {
        let spot = self.spot();
        if self.tree.entries.contains_key(&spot) && self.rng.random_range(0..3) > 0 {
            return;
        }
        self.remove(&spot, true);
        if !self.tree.objects.contains_key(&spot.parent) {
            return;
        }
        let kind = match self.rng.random_range(0..20) {
            0..9 => Kind::File,
            9..15 => Kind::Directory,
            15..17 => Kind::Symlink,
            17 => Kind::Fifo,
            18 => Kind::Socket,
            _ => Kind::CharDevice,
        };
        let id = self.object(kind);
        self.put(spot, Some(id));
        if kind == Kind::File {
            self.write_to(id);
        }
    }

    fn rename(&mut self) {
        let Some((from, id)) = self.taken() else { return };
        let to = self.spot();
        if from == to || (self.is_directory(id) && self.below(to.parent, id)) {
            return;
        }
        if let Some(&there) = self.tree.entries.get(&to)
            && (there == id || self.is_directory(there) && self.below(from.parent, there))
        {
            return;
        }
        self.remove(&to, true);
        self.put(from, None);
        self.put(to, Some(id));
    }

    fn swap(&mut self) {
        let (Some((a, x)), Some((b, y))) = (self.taken(), self.taken()) else { return };
        let bad = |this: &Primary, id, spot: &Spot| this.is_directory(id) && this.below(spot.parent, id);
        if a == b || x == y || bad(self, x, &b) || bad(self, y, &a) {
            return;
        }
        self.put(a, Some(y));
        self.put(b, Some(x));
    }

    fn hard_link(&mut self) {
        let Some(id) = self.pick(|known| known.state.kind != Kind::Directory) else { return };
        let to = self.spot();
        if !self.tree.entries.contains_key(&to) {
            self.put(to, Some(id));
        }
    }

    fn revive(&mut self) {
        let nameless: Vec<ObjectId> = self
            .tree
            .objects
            .keys()
            .copied()
            .filter(|id| *id != ObjectId::ROOT && self.tree.names.get(id).is_none_or(BTreeSet::is_empty))
            .collect();
        let Some(&id) = nameless.first() else { return };
        let to = self.spot();
        if self.rng.random_range(0..3) == 0 {
            for (name, _) in self.tree.listing(id) {
                self.remove(&Spot::new(id, name), true);
            }
            self.tree.objects.remove(&id);
            self.gone.insert(id);
        } else if !self.tree.entries.contains_key(&to) && !self.below(to.parent, id) {
            self.put(to, Some(id));
        }
    }

    /// A name of a file becomes a directory, or the other way round.
    fn replace_kind(&mut self) {
        let Some((spot, id)) = self.taken() else { return };
        let kind = if self.is_directory(id) { Kind::File } else { Kind::Directory };
        let destroy = self.rng.random_range(0..2) == 0;
        self.remove(&spot, destroy);
        let new = self.object(kind);
        self.put(spot.clone(), Some(new));
        if destroy || !self.tree.objects.contains_key(&id) || self.is_directory(new) && self.below(new, id) {
            return;
        }
        if self.is_directory(new) && self.tree.names.get(&id).is_none_or(BTreeSet::is_empty) {
            self.put(Spot::new(new, b"moved".as_slice()), Some(id));
        }
    }

    fn write(&mut self) {
        if let Some(id) = self.pick(|known| known.state.kind == Kind::File) {
            self.write_to(id);
        }
    }

    fn data(&mut self) -> Extent {
        let len = match self.rng.random_range(0..12) {
            0 => self.rng.random_range(16_384..40_000),
            1..4 => 4096,
            _ => self.rng.random_range(1..200),
        };
        let mut bytes = vec![0u8; len];
        self.rng.fill(bytes.as_mut_slice());
        Extent::Data { hash: self.chunks.put(bytes), len: len as u32 }
    }

    fn write_to(&mut self, id: ObjectId) {
        let mut extents = self.extents.remove(&id).unwrap_or_default();
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..=extents.len());
            match self.rng.random_range(0..6) {
                0 => extents.truncate(at),
                1 => extents.insert(at, Extent::Hole { len: 4096 * self.rng.random_range(1..4) }),
                2 if at < extents.len() => {
                    extents.remove(at);
                }
                3 if self.rng.random_range(0..6) == 0 => {
                    for _ in 0..30 {
                        let data = self.data();
                        extents.push(data);
                    }
                }
                _ => {
                    let data = self.data();
                    extents.insert(at, data);
                }
            }
        }
        let content = self.chunks.manifest(&extents);
        let size = extents.iter().map(Extent::len).sum();
        let mtime = self.time();
        self.extents.insert(id, extents);
        let state = self.state(id);
        (state.content, state.size, state.mtime) = (content, size, mtime);
    }

    fn attributes(&mut self) {
        let Some(id) = self.pick(|_| true) else { return };
        let mtime = self.time();
        let kind = self.tree.objects[&id].state.kind;
        let roll = self.rng.random_range(0..6);
        let (mode, uid) =
            ([0o640, 0o700, 0o444, 0o6711][self.rng.random_range(0..4)], self.rng.random_range(0..3));
        let value = vec![self.rng.random(); self.rng.random_range(0..30)];
        let name = [b"user.a".to_vec(), b"user.b".to_vec()][self.rng.random_range(0..2)].clone();
        let state = self.state(id);
        match roll {
            0 if kind != Kind::Symlink => state.mode = mode,
            1 => (state.uid, state.gid) = (uid, uid + 1),
            2 => state.mtime = mtime,
            3 if matches!(kind, Kind::File | Kind::Directory) => {
                state.xattrs.retain(|xattr| xattr.name != name);
                state.xattrs.push(Xattr { name, value });
                state.xattrs.sort();
            }
            4 => state.xattrs.clear(),
            _ => {} // touched without a change
        }
    }

    /// The next batch has this object's state again.
    pub(crate) fn touch(&mut self, id: ObjectId) {
        self.touched.insert(id);
    }

    /// The next batch: what `mutations` changes leave.
    pub(crate) fn batch(&mut self, mutations: usize) -> Batch {
        for _ in 0..mutations {
            self.mutate();
        }
        self.number += 1;
        let objects = std::mem::take(&mut self.touched)
            .into_iter()
            .filter_map(|id| self.tree.objects.get(&id).map(|known| known.state.clone()))
            .collect();
        let entries = std::mem::take(&mut self.spots)
            .into_iter()
            .map(|spot| EntryState {
                child: self.tree.entries.get(&spot).copied(),
                parent: spot.parent,
                name: spot.name,
            })
            .collect();
        let destroyed = std::mem::take(&mut self.gone).into_iter().collect();
        Batch {
            number: self.number,
            previous: Hash([0; 32]),
            cut: self.number,
            time: Timestamp::default(),
            objects,
            entries,
            destroyed,
        }
    }
}
