//! For tests: live rows and content in memory, a generator of random batches, and the comparison with a real tree.

use super::disk::{self, Target};
use super::view::{ContentSource, Known, LiveView, RawPlace, SourceError, Spot};
use super::{Mirror, Outcome, limbo_name};
use ehpc_proto::replication::{
    Batch, EntryState, Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Timestamp, Xattr,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Live rows.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<ObjectId, Known>,
    pub(crate) entries: BTreeMap<Spot, ObjectId>,
    pub(crate) names: BTreeMap<ObjectId, BTreeSet<Spot>>,
}

impl Model {
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for state in &batch.objects {
            let identity = self.objects.get(&state.id).and_then(|known| known.identity);
            self.objects.insert(state.id, Known { state: state.clone(), identity });
        }
        for entry in &batch.entries {
            let spot = Spot::new(entry.parent, entry.name.clone());
            self.set(spot, entry.child);
        }
        for id in &batch.destroyed {
            assert!(self.names.get(id).is_none_or(BTreeSet::is_empty), "destroyed with a name");
            self.objects.remove(id);
        }
    }

    fn set(&mut self, spot: Spot, child: Option<ObjectId>) {
        if let Some(old) = self.entries.remove(&spot) {
            self.names.entry(old).or_default().remove(&spot);
        }
        if let Some(new) = child {
            self.names.entry(new).or_default().insert(spot.clone());
            self.entries.insert(spot, new);
        }
    }

    pub(crate) fn record(&mut self, outcome: &Outcome) {
        for (id, identity) in &outcome.identities {
            if let Some(known) = self.objects.get_mut(id) {
                known.identity = Some(*identity);
            }
        }
    }

    fn listing(&self, id: ObjectId) -> Vec<(Vec<u8>, ObjectId)> {
        let from = Spot::new(id, Vec::new());
        self.entries
            .range(from..)
            .take_while(|(spot, _)| spot.parent == id)
            .map(|(spot, child)| (spot.name.clone(), *child))
            .collect()
    }
}

impl LiveView for Model {
    fn object(&self, id: ObjectId) -> Result<Option<Known>, SourceError> {
        Ok(self.objects.get(&id).cloned())
    }
    fn child(&self, spot: &Spot) -> Result<Option<ObjectId>, SourceError> {
        Ok(self.entries.get(spot).copied())
    }
    fn entries_of(&self, child: ObjectId) -> Result<Vec<Spot>, SourceError> {
        Ok(self.names.get(&child).into_iter().flatten().cloned().collect())
    }
    fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, SourceError> {
        let listing = self.listing(parent).into_iter();
        Ok(listing
            .filter(|(name, _)| after.is_none_or(|after| name.as_slice() > after))
            .take(limit)
            .collect())
    }
}

/// Chunks and pages; large chunks also in a file, for the kernel to copy.
pub(crate) struct Chunks {
    pub(crate) blobs: HashMap<Hash, Vec<u8>>,
    raw: HashMap<Hash, u64>,
    pack: Arc<std::fs::File>,
}

impl Chunks {
    pub(crate) fn new() -> Chunks {
        Chunks { blobs: HashMap::new(), raw: HashMap::new(), pack: Arc::new(tempfile::tempfile().unwrap()) }
    }

    pub(crate) fn put(&mut self, bytes: Vec<u8>) -> Hash {
        let hash = Hash::of(&bytes);
        if bytes.len() >= 16 * 1024 && !self.raw.contains_key(&hash) {
            let mut pack = &*self.pack;
            let at = pack.seek(SeekFrom::End(0)).unwrap();
            pack.write_all(&bytes).unwrap();
            self.raw.insert(hash, at);
        }
        self.blobs.insert(hash, bytes);
        hash
    }

    pub(crate) fn manifest(&mut self, extents: &[Extent]) -> Manifest {
        let (manifest, blobs) = crate::store::manifest::build(extents.iter().copied()).unwrap();
        self.blobs.extend(blobs);
        manifest
    }

    /// Root and pages of a paged manifest.
    pub(crate) fn pages(&self, manifest: &Manifest) -> Vec<Hash> {
        let Manifest::Paged { root } = manifest else { return Vec::new() };
        let index = crate::store::manifest::Index::open(manifest, &mut |hash| self.blob(hash)).unwrap();
        let mut pages: Vec<Hash> = index.page_refs().iter().map(|page| page.hash).collect();
        pages.push(*root);
        pages
    }

    pub(crate) fn first_chunk(&self, manifest: &Manifest) -> Option<Hash> {
        let extents = crate::store::manifest::load(manifest, &mut |hash| self.blob(hash)).unwrap();
        extents.iter().find_map(|extent| match extent {
            Extent::Data { hash, .. } => Some(*hash),
            Extent::Hole { .. } => None,
        })
    }

    pub(crate) fn bytes(&self, manifest: &Manifest) -> Vec<u8> {
        let mut out = Vec::new();
        let extents = crate::store::manifest::load(manifest, &mut |hash| self.blob(hash)).unwrap();
        for extent in extents {
            match extent {
                Extent::Data { hash, .. } => out.extend_from_slice(&self.blobs[&hash]),
                Extent::Hole { len } => out.resize(out.len() + len as usize, 0),
            }
        }
        out
    }
}

impl ContentSource for Chunks {
    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, SourceError> {
        self.blobs.get(hash).cloned().ok_or_else(|| format!("no blob {hash}").into())
    }
    fn raw(&self, hash: &Hash) -> Result<Option<RawPlace>, SourceError> {
        Ok(self.raw.get(hash).map(|at| RawPlace { file: self.pack.clone(), offset: *at }))
    }
}

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
            60..64 => self.from_limbo(),
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

    fn from_limbo(&mut self) {
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

/// How strict a comparison is.
#[derive(Clone, Copy)]
pub(crate) struct Strict {
    /// The recorded inodes are those on disk.
    pub(crate) recorded: bool,
    /// Owners and devices are there.
    pub(crate) privileged: bool,
}

impl Strict {
    pub(crate) const WHOLLY: Strict = Strict { recorded: true, privileged: true };
}

/// Panics where the mirror on disk differs from the model.
pub(crate) fn compare(mirror: &Mirror, model: &Model, chunks: &Chunks, strict: Strict) {
    let mut inodes = HashMap::new();
    let mut open = vec![(ObjectId::ROOT, mirror.root.clone(), String::new())];
    while let Some((id, fd, path)) = open.pop() {
        let listing = model.listing(id);
        let wanted: HashSet<Vec<u8>> = listing.iter().map(|(name, _)| name.clone()).collect();
        let there: HashSet<Vec<u8>> = disk::list(fd.as_fd()).unwrap().into_iter().collect();
        assert_eq!(there, wanted, "names in {path}/");
        compare_one(Target::Open(fd.as_fd()), disk::stat_fd(fd.as_fd()).unwrap(), model, id, &path, strict);
        for (name, child) in listing {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let stat = disk::stat_at(fd.as_fd(), &name).unwrap().unwrap();
            if model.objects[&child].state.kind == Kind::Directory {
                open.push((child, Arc::new(disk::open_dir(fd.as_fd(), &name).unwrap()), path));
                continue;
            }
            assert_eq!(
                *inodes.entry(child).or_insert(stat.identity),
                stat.identity,
                "{path}: not the same inode"
            );
            assert_eq!(stat.nlink as usize, model.names[&child].len(), "{path}: links");
            compare_one(Target::Named(fd.as_fd(), &name), stat, model, child, &path, strict);
            compare_content(fd.as_fd(), &name, &model.objects[&child].state, chunks, &path);
        }
    }
    let nameless =
        |id: &&ObjectId| **id != ObjectId::ROOT && model.names.get(*id).is_none_or(BTreeSet::is_empty);
    let wanted: BTreeSet<Vec<u8>> = model.objects.keys().filter(nameless).map(|id| limbo_name(*id)).collect();
    let there: BTreeSet<Vec<u8>> = disk::list(mirror.limbo.as_fd()).unwrap().into_iter().collect();
    assert!(
        there.is_subset(&wanted) && (!strict.recorded || there == wanted),
        "limbo: {there:?} and not {wanted:?}"
    );
}

fn compare_one(
    target: Target<'_>,
    stat: disk::Stat,
    model: &Model,
    id: ObjectId,
    path: &str,
    strict: Strict,
) {
    let known = &model.objects[&id];
    let state = &known.state;
    assert!(!strict.recorded || known.identity == Some(stat.identity), "{path}: recorded inode of {id:?}");
    if !strict.privileged && state.kind == Kind::CharDevice {
        assert_eq!((stat.kind, stat.size, stat.mode), (Kind::File, 0, 0), "{path}: what stands for a device");
        return;
    }
    assert_eq!(stat.kind, state.kind, "{path}: kind of {id:?}");
    if state.kind != Kind::Symlink {
        assert_eq!(stat.mode, state.mode, "{path}: mode of {id:?}");
    }
    if strict.privileged {
        assert_eq!((stat.uid, stat.gid), (state.uid, state.gid), "{path}: owner of {id:?}");
    }
    assert_eq!(stat.mtime, state.mtime, "{path}: mtime of {id:?}");
    assert_eq!(stat.rdev, state.rdev, "{path}: device");
    assert_eq!(target.xattrs().unwrap(), state.xattrs, "{path}: extended attributes of {id:?}");
}

fn compare_content(
    dir: rustix::fd::BorrowedFd<'_>,
    name: &[u8],
    state: &ObjectState,
    chunks: &Chunks,
    path: &str,
) {
    if state.kind == Kind::Symlink {
        let target = rustix::fs::readlinkat(dir, name, Vec::new()).unwrap();
        assert_eq!(target.to_bytes(), state.target, "{path}: target");
    }
    if state.kind == Kind::File {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW;
        let mut file =
            std::fs::File::from(rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()).unwrap());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes == chunks.bytes(&state.content), "{path}: content of {:?}", state.id);
    }
}

/// A plain state.
pub(crate) fn state_of(id: ObjectId, kind: Kind) -> ObjectState {
    ObjectState {
        id,
        key: id.0.to_be_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp { seconds: 1_000_000_000, nanos: 5 },
        rdev: (0, 0),
        target: Vec::new(),
        xattrs: Vec::new(),
        content: Manifest::EMPTY,
        fuzzy: false,
    }
}
