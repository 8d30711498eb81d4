//! For tests: live rows and content in memory, and the comparison with a real tree.

mod primary;

pub(crate) use primary::Primary;

use super::disk::{self, Target};
use super::view::{ContentSource, Known, LiveView, RawPlace, SourceError, Spot};
use super::{Mirror, Outcome, limbo_name};
use ehpc_proto::replication::{Batch, Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Timestamp};
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
