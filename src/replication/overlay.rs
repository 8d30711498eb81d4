//! The view that the sender compares the disk with: what the backup acknowledged (the shadow), over it the batches
//! in flight, over them the batch under construction.
//!
//! Every value in the overlay is tagged with the number of its batch. An acknowledgement moves the values of that
//! batch to the shadow; abandoning batches takes theirs away and what was under them is seen again.

mod layers;

use crate::change::shadow::{Row, Shadow, ShadowError};
use crate::host::ObjectKey;
use crate::store::manifest::{BoxError, Index, ManifestError};
use ehpc_proto::replication::{EntryState, Hash, Manifest, ObjectId, Position};
use layers::Layers;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash as StdHash;
use std::sync::Arc;

/// A name in a directory, by number.
pub(crate) type Name = (ObjectId, Box<[u8]>);

/// Faults of the view.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum ViewError {
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error("shadow index: {0}; stop nfs1 and remove shadow.sqlite, it is rebuilt from the backup")]
    Manifest(#[from] ManifestError),
}

/// What one batch touched, in order.
#[derive(Default)]
struct Touched {
    objects: Vec<ObjectId>,
    keys: Vec<ObjectKey>,
    names: Vec<Name>,
}

/// What must be looked at again when batches are abandoned.
#[derive(Default, Debug)]
pub(crate) struct Abandoned {
    /// Keys of objects that the batches held.
    pub keys: Vec<ObjectKey>,
    /// Names that they held: key of the directory, name.
    pub names: Vec<(ObjectKey, Box<[u8]>)>,
}

/// The view, and the only writer of the shadow.
pub(crate) struct View {
    shadow: Shadow,
    /// Tag of the batch under construction.
    open: u64,
    objects: Layers<ObjectId, Option<Arc<Row>>>,
    keys: Layers<ObjectKey, Option<ObjectId>>,
    names: Layers<Name, Option<ObjectId>>,
    /// Names that the overlay says something about, by directory and by every child that it gave them.
    by_parent: HashMap<ObjectId, HashSet<Box<[u8]>>>,
    by_child: HashMap<ObjectId, HashSet<Name>>,
    /// Objects that the shadow has no row of.
    fresh: HashSet<ObjectId>,
    in_flight: VecDeque<(Position, Touched)>,
    touched: Touched,
}

impl View {
    /// A view with nothing in flight; the next batch is number `next`.
    pub(crate) fn new(shadow: Shadow, next: u64) -> View {
        View {
            shadow,
            open: next,
            objects: Layers::new(),
            keys: Layers::new(),
            names: Layers::new(),
            by_parent: HashMap::new(),
            by_child: HashMap::new(),
            fresh: HashSet::new(),
            in_flight: VecDeque::new(),
            touched: Touched::default(),
        }
    }

    /// The shadow, for what concerns the acknowledged state alone.
    pub(crate) fn shadow(&mut self) -> &mut Shadow {
        &mut self.shadow
    }

    /// Number of the batch under construction.
    pub(crate) fn open_number(&self) -> u64 {
        self.open
    }

    /// Forgets everything, the shadow's content too; the next batch is number `next`.
    pub(crate) fn reset(&mut self, next: u64) -> Result<(), ShadowError> {
        self.shadow.discard()?;
        self.objects.clear();
        self.keys.clear();
        self.names.clear();
        self.by_parent.clear();
        self.by_child.clear();
        self.fresh.clear();
        self.in_flight.clear();
        self.touched = Touched::default();
        self.open = next;
        Ok(())
    }

    /// The acknowledged state of an object, learnt from the backup. Nothing of it may be in flight.
    pub(crate) fn replace_acknowledged(&mut self, id: ObjectId, row: Option<&Row>) -> Result<(), ViewError> {
        self.store_row(id, row)
    }

    /// The batch under construction is number `next`; nothing may be in flight.
    pub(crate) fn renumber(&mut self, next: u64) {
        self.open = next;
    }

    /// Batches in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    // Questions.

    /// The object's row, if it is known.
    pub(crate) fn row(&self, id: ObjectId) -> Result<Option<Arc<Row>>, ShadowError> {
        match self.objects.get(&id) {
            Some(row) => Ok(row.clone()),
            None if self.fresh.contains(&id) => Ok(None),
            None => Ok(self.shadow.by_id(id)?.map(Arc::new)),
        }
    }

    /// The object with this key.
    pub(crate) fn row_by_key(&self, key: &ObjectKey) -> Result<Option<Arc<Row>>, ShadowError> {
        match self.keys.get(key) {
            Some(Some(id)) => self.row(*id),
            Some(None) => Ok(None),
            None => match self.shadow.by_key(key)? {
                Some(row) => match self.objects.get(&row.id) {
                    Some(newer) => Ok(newer.clone()),
                    None => Ok(Some(Arc::new(row))),
                },
                None => Ok(None),
            },
        }
    }

    /// Where this name leads.
    pub(crate) fn entry(&self, parent: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, ShadowError> {
        if let Some(names) = self.by_parent.get(&parent)
            && names.contains(name)
            && let Some(child) = self.names.get(&(parent, Box::from(name)))
        {
            return Ok(*child);
        }
        if self.fresh.contains(&parent) {
            return Ok(None);
        }
        self.shadow.entry(parent, name)
    }

    /// A directory's entries, sorted by name.
    pub(crate) fn entries(&self, parent: ObjectId) -> Result<Vec<(Vec<u8>, ObjectId)>, ShadowError> {
        let mut entries = self.shadow.entries(parent)?;
        let Some(newer) = self.by_parent.get(&parent) else { return Ok(entries) };
        entries.retain(|(name, _)| !newer.contains(name.as_slice()));
        for name in newer {
            if let Some(Some(child)) = self.names.get(&(parent, name.clone())) {
                entries.push((name.to_vec(), *child));
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// An object's names.
    pub(crate) fn names_of(&self, child: ObjectId) -> Result<Vec<Name>, ShadowError> {
        let mut names: Vec<Name> = Vec::new();
        for (parent, name) in self.shadow.entries_of(child)? {
            let overlaid = self.by_parent.get(&parent).is_some_and(|names| names.contains(name.as_slice()));
            if !overlaid {
                names.push((parent, name.into()));
            }
        }
        for name in self.by_child.get(&child).into_iter().flatten() {
            if self.names.get(name) == Some(&Some(child)) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Path within the export by one of its names; `None` if it has none.
    pub(crate) fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, ShadowError> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT {
            let Some((parent, name)) = self.names_of(at)?.into_iter().next() else { return Ok(None) };
            if names.len() > 4096 {
                return Ok(None);
            }
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// A manifest page or root.
    pub(crate) fn page(&self, hash: &Hash) -> Result<Vec<u8>, BoxError> {
        match self.shadow.page(hash)? {
            Some(bytes) => Ok(bytes),
            None => Err("it is not in the shadow index".into()),
        }
    }

    /// Where this batch stands with a name that it touched: before it, and now.
    fn before_and_now(&self, name: &Name) -> Result<(Option<ObjectId>, Option<ObjectId>), ShadowError> {
        let now = self.names.get(name).copied().flatten();
        let before = match self.names.below(name, self.open) {
            Some(child) => *child,
            None if self.fresh.contains(&name.0) => None,
            None => self.shadow.entry(name.0, &name.1)?,
        };
        Ok((before, now))
    }

    /// The entries of the batch under construction that differ from what was before it.
    pub(crate) fn changed_entries(&self) -> Result<Vec<EntryState>, ShadowError> {
        let mut changed = Vec::new();
        for name in &self.touched.names {
            let (before, child) = self.before_and_now(name)?;
            if before != child {
                changed.push(EntryState { parent: name.0, name: name.1.to_vec(), child });
            }
        }
        Ok(changed)
    }

    /// Objects that the batch under construction destroys and that were known before it.
    pub(crate) fn destroyed(&self) -> Result<Vec<ObjectId>, ShadowError> {
        let mut destroyed = Vec::new();
        for id in &self.touched.objects {
            if !matches!(self.objects.get(id), Some(None)) {
                continue;
            }
            let before = match self.objects.below(id, self.open) {
                Some(row) => row.is_some(),
                None => self.shadow.by_id(*id)?.is_some(),
            };
            if before {
                destroyed.push(*id);
            }
        }
        Ok(destroyed)
    }

    /// Names and objects that the batch under construction has touched.
    pub(crate) fn open_size(&self) -> usize {
        self.touched.objects.len() + self.touched.names.len()
    }

    // Changes by the batch under construction.

    /// The number of a new object.
    pub(crate) fn new_id(&mut self) -> ObjectId {
        let id = self.shadow.new_id();
        self.fresh.insert(id);
        id
    }

    /// The object could not be read: its number is not used.
    pub(crate) fn waste_id(&mut self, id: ObjectId) {
        self.fresh.remove(&id);
    }

    /// The object's row from this batch on.
    pub(crate) fn put(&mut self, row: Row) {
        let (id, key) = (row.id, row.key.clone());
        if self.keys.set(key.clone(), self.open, Some(id)) {
            self.touched.keys.push(key);
        }
        if self.objects.set(id, self.open, Some(Arc::new(row))) {
            self.touched.objects.push(id);
        }
    }

    /// The backup has this state; only what the primary notes beside it (ctime, racy) is new.
    pub(crate) fn put_unshipped(&mut self, row: Row) -> Result<(), ViewError> {
        let id = row.id;
        if self.objects.holds(&id) {
            self.objects.replace(&id, Some(Arc::new(row)));
            return Ok(());
        }
        self.adopt_pages(&row.manifest)?;
        Ok(self.shadow.put(&row)?)
    }

    /// Pages of a manifest that was learnt of from the backup, now read from the disk: they are worth keeping.
    fn adopt_pages(&mut self, manifest: &Manifest) -> Result<(), ViewError> {
        if let Manifest::Paged { root } = manifest
            && !self.shadow.holds_page(root)?
        {
            for hash in self.pages_of(Some(manifest))? {
                self.shadow.retain_page(&hash)?;
            }
        }
        Ok(())
    }

    /// The object is gone; its names have been taken away.
    pub(crate) fn destroy(&mut self, row: &Row) {
        if self.keys.get(&row.key).is_none_or(|id| *id == Some(row.id))
            && self.keys.set(row.key.clone(), self.open, None)
        {
            self.touched.keys.push(row.key.clone());
        }
        if self.objects.set(row.id, self.open, None) {
            self.touched.objects.push(row.id);
        }
    }

    /// No object has this key from this batch on.
    pub(crate) fn forget_key(&mut self, key: &ObjectKey) {
        if self.keys.set(key.clone(), self.open, None) {
            self.touched.keys.push(key.clone());
        }
    }

    /// Where a name leads from this batch on.
    pub(crate) fn set_entry(&mut self, parent: ObjectId, name: &[u8], child: Option<ObjectId>) {
        let name: Name = (parent, Box::from(name));
        self.by_parent.entry(parent).or_default().insert(name.1.clone());
        if let Some(child) = child {
            self.by_child.entry(child).or_default().insert(name.clone());
        }
        let replaced = self.names.get(&name).copied().flatten();
        if self.names.set(name.clone(), self.open, child) {
            self.touched.names.push(name);
        } else {
            self.unlist(&name, replaced);
        }
    }

    /// The batch under construction is closed and on its way; the next one begins.
    pub(crate) fn seal(&mut self, position: Position) {
        self.in_flight.push_back((position, std::mem::take(&mut self.touched)));
        self.open = position.number + 1;
    }

    /// The batch under construction turned out to ship nothing: what it noted goes away.
    pub(crate) fn drop_open(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        self.forget(&touched, self.open);
    }

    // The fate of batches.

    /// The backup has everything up to batch `number`: to the shadow with it. Returns the positions acknowledged.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Result<Vec<Position>, ViewError> {
        let mut positions = Vec::new();
        while let Some((position, _)) = self.in_flight.front()
            && position.number <= number
            && let Some((position, touched)) = self.in_flight.pop_front()
        {
            for id in &touched.objects {
                if let Some(row) = self.objects.take(id, position.number) {
                    self.store_row(*id, row.as_deref())?;
                }
            }
            for name in &touched.names {
                if let Some(child) = self.names.take(name, position.number) {
                    self.shadow.put_entry(name.0, &name.1, child)?;
                    self.unlist(name, child);
                }
            }
            for key in &touched.keys {
                self.keys.take(key, position.number);
            }
            self.shadow.set_position(position)?;
            positions.push(position);
        }
        Ok(positions)
    }

    fn store_row(&mut self, id: ObjectId, row: Option<&Row>) -> Result<(), ViewError> {
        let is_new = self.fresh.remove(&id);
        let old = if is_new { None } else { self.shadow.by_id(id)?.map(|row| row.manifest) };
        let new = row.map(|row| &row.manifest);
        if old.as_ref() != new {
            let (old, new) = (self.pages_of(old.as_ref())?, self.pages_of(new)?);
            for hash in new.difference(&old) {
                self.shadow.retain_page(hash)?;
            }
            for hash in old.difference(&new) {
                self.shadow.release_page(hash)?;
            }
        } else if let Some(manifest) = new {
            self.adopt_pages(manifest)?;
        }
        match row {
            Some(row) => self.shadow.put(row)?,
            None => self.shadow.remove(id)?,
        }
        Ok(())
    }

    /// Names of the blobs that hold a manifest. Of one that was rebuilt from the backup only what is here counts.
    fn pages_of(&self, manifest: Option<&Manifest>) -> Result<HashSet<Hash>, ViewError> {
        let Some(Manifest::Paged { root }) = manifest else { return Ok(HashSet::new()) };
        let mut hashes = HashSet::from([*root]);
        if self.shadow.page(root)?.is_some() {
            let paged = Manifest::Paged { root: *root };
            let index = Index::open(&paged, &mut |hash| self.page(hash))?;
            hashes.extend(index.page_refs().iter().map(|page| page.hash));
        }
        Ok(hashes)
    }

    /// The overlay lost the value `child` of a name.
    fn unlist(&mut self, name: &Name, child: Option<ObjectId>) {
        if let Some(child) = child
            && !self.names.all(name).any(|other| *other == Some(child))
        {
            drop_from(&mut self.by_child, &child, name);
        }
        if !self.names.holds(name) {
            drop_from(&mut self.by_parent, &name.0, &name.1);
        }
    }

    fn forget(&mut self, touched: &Touched, tag: u64) {
        for id in &touched.objects {
            self.objects.take(id, tag);
            if !self.objects.holds(id) {
                self.fresh.remove(id);
            }
        }
        for key in &touched.keys {
            self.keys.take(key, tag);
        }
        for name in &touched.names {
            if let Some(child) = self.names.take(name, tag) {
                self.unlist(name, child);
            }
        }
    }

    /// Batches numbered `first` and later, and the one under construction, will never be: what they held must be
    /// read again.
    pub(crate) fn abandon(&mut self, first: u64) -> Result<Abandoned, ShadowError> {
        let mut batches = vec![(self.open, std::mem::take(&mut self.touched))];
        while self.in_flight.back().is_some_and(|(position, _)| position.number >= first)
            && let Some((position, touched)) = self.in_flight.pop_back()
        {
            batches.push((position.number, touched));
        }
        let mut abandoned = Abandoned::default();
        for (tag, touched) in batches {
            for name in &touched.names {
                if let Some(row) = self.row(name.0)? {
                    abandoned.names.push((row.key.clone(), name.1.clone()));
                }
            }
            abandoned.keys.extend(touched.keys.iter().cloned());
            self.forget(&touched, tag);
            self.open = tag;
        }
        abandoned.keys.sort();
        abandoned.keys.dedup();
        Ok(abandoned)
    }
}

fn drop_from<K: Eq + StdHash, V: Eq + StdHash>(sets: &mut HashMap<K, HashSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
