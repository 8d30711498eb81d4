//! Several consecutive batches as one: what they leave in the end, and every name and content that they touch
//! on the way. Pure.

use super::view::{Identity, Known, LiveView, SourceError, Spot};
use ehpc_proto::replication::{Batch, EntryState, Hash, Manifest, ObjectId, ObjectState};
use std::collections::{HashMap, HashSet};

pub(super) struct Window {
    /// The merged batch.
    pub(super) batch: Batch,
    /// Where an object's state is in `batch.objects`.
    states: HashMap<ObjectId, usize>,
    /// Every content that an object had on the way, in order.
    contents: HashMap<ObjectId, Vec<Manifest>>,
    /// Where a name's entry is in `batch.entries`.
    touched: HashMap<Spot, usize>,
    pub(super) destroyed: HashSet<ObjectId>,
}

impl Window {
    pub(super) fn merge(batches: &[Batch]) -> Window {
        let last = batches.last();
        let batch = Batch {
            number: last.map_or(0, |batch| batch.number),
            previous: last.map_or(Hash([0; 32]), |batch| batch.previous),
            cut: last.map_or(0, |batch| batch.cut),
            time: last.map_or(Default::default(), |batch| batch.time),
            objects: Vec::new(),
            entries: Vec::new(),
            destroyed: Vec::new(),
        };
        let mut window = Window {
            batch,
            states: HashMap::new(),
            contents: HashMap::new(),
            touched: HashMap::new(),
            destroyed: batches.iter().flat_map(|batch| batch.destroyed.iter().copied()).collect(),
        };
        for batch in batches {
            for state in &batch.objects {
                if !window.destroyed.contains(&state.id) {
                    window.contents.entry(state.id).or_default().push(state.content.clone());
                    window.set_state(state.clone());
                }
            }
            for entry in &batch.entries {
                window.touch(Spot::new(entry.parent, entry.name.clone()), entry.child);
            }
        }
        window.batch.destroyed = window.destroyed.iter().copied().collect();
        window.batch.destroyed.sort_unstable();
        window
    }

    fn set_state(&mut self, state: ObjectState) {
        match self.states.get(&state.id).and_then(|&at| self.batch.objects.get_mut(at)) {
            Some(place) => *place = state,
            None => {
                self.states.insert(state.id, self.batch.objects.len());
                self.batch.objects.push(state);
            }
        }
    }

    /// Makes sure that the merged batch can make this object anew.
    pub(super) fn ensure_state(&mut self, state: &ObjectState) {
        if !self.states.contains_key(&state.id) && !self.destroyed.contains(&state.id) {
            self.set_state(state.clone());
        }
    }

    /// The name will have this child in the end. True if it was not touched before.
    pub(super) fn touch(&mut self, spot: Spot, child: Option<ObjectId>) -> bool {
        if let Some(entry) = self.touched.get(&spot).and_then(|&at| self.batch.entries.get_mut(at)) {
            entry.child = child;
            return false;
        }
        self.batch.entries.push(EntryState { parent: spot.parent, name: spot.name.clone(), child });
        self.touched.insert(spot, self.batch.entries.len() - 1);
        true
    }

    pub(super) fn touches(&self, spot: &Spot) -> bool {
        self.touched.contains_key(spot)
    }

    pub(super) fn has_state(&self, id: ObjectId) -> bool {
        self.states.contains_key(&id)
    }

    /// The content that a file had before and at each state of the window.
    pub(super) fn versions<'w>(&'w self, id: ObjectId, before: &'w Manifest) -> Vec<&'w Manifest> {
        let mut versions = vec![before];
        versions.extend(self.contents.get(&id).into_iter().flatten());
        versions
    }
}

/// The live rows, after every name that a window touches was cleared: what had only such names is in limbo.
pub(super) struct Cleared<'a> {
    pub(super) view: &'a dyn LiveView,
    pub(super) window: &'a Window,
    /// Objects that were not found: they do not exist, for the plan.
    pub(super) missing: HashSet<ObjectId>,
}

impl LiveView for Cleared<'_> {
    fn object(&self, id: ObjectId) -> Result<Option<Known>, SourceError> {
        if self.missing.contains(&id) { Ok(None) } else { self.view.object(id) }
    }

    fn child(&self, spot: &Spot) -> Result<Option<ObjectId>, SourceError> {
        if self.window.touches(spot) || self.missing.contains(&spot.parent) {
            return Ok(None);
        }
        self.view.child(spot)
    }

    fn entries_of(&self, child: ObjectId) -> Result<Vec<Spot>, SourceError> {
        if self.missing.contains(&child) {
            return Ok(Vec::new());
        }
        let mut entries = self.view.entries_of(child)?;
        entries.retain(|spot| !self.window.touches(spot));
        Ok(entries)
    }

    fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, SourceError> {
        self.view.children(parent, after, limit)
    }
}

impl Cleared<'_> {
    /// Is the object live without a name once the window is applied?
    pub(super) fn nameless_after(
        &self,
        named: &HashSet<ObjectId>,
        id: ObjectId,
    ) -> Result<bool, SourceError> {
        if self.window.destroyed.contains(&id) || named.contains(&id) {
            return Ok(false);
        }
        let live = self.window.has_state(id) || self.object(id)?.is_some();
        Ok(live && self.entries_of(id)?.is_empty())
    }
}

/// Identities of live objects, for matching what is found on disk.
pub(super) type ByIdentity = HashMap<Identity, ObjectId>;
