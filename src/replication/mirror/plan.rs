//! From a batch and the live rows before it: the ordered list of operations that brings the mirror along.
//! Pure: no file, no clock.
//!
//! Order: (A) names that are vacated, to limbo where their object lives on without a name; (B) new objects,
//! parents first, in their final place: after (A) every name that the batch gives away is free; (C) moves and
//! links; (D) content and attributes; (E) destroyed directories, children first; (F) attributes and times of
//! every directory whose listing or state changed.
//!
//! Two short cuts keep what a reader of the mirror sees whole: a file that takes the name of another file
//! replaces it by one rename, and an object whose old name nobody else takes is moved by one rename. The old
//! holder of a replaced name gets a second name in limbo first if it lives on.

use super::view::{Known, LiveView, SourceError, Spot};
use ehpc_proto::replication::{Batch, Kind, ObjectId, ObjectState};
use std::collections::{HashMap, HashSet};

/// Where an object is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// `limbo/<id>`.
    Limbo,
    /// In the tree.
    At(Spot),
}

/// One step. Directories in a [`Spot`] are meant by identity: wherever they are at that moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Op<'b> {
    /// The object leaves its last name: rename to limbo.
    Vacate { id: ObjectId, from: Spot },
    /// The name will be replaced by a rename, its object lives on: hard link into limbo.
    Keep { id: ObjectId, from: Spot },
    /// The name goes; its object is destroyed or has other names.
    Unlink { at: Spot },
    /// A new object: a file with its content and attributes, a directory bare. `replaces`: another file has the name still.
    Create { state: &'b ObjectState, to: Place, replaces: bool },
    /// Rename.
    Move { id: ObjectId, from: Place, to: Spot, directory: bool },
    /// Another name for a file.
    Link { id: ObjectId, from: Place, to: Spot },
    /// Content and attributes of an existing object that is no directory.
    Update { state: &'b ObjectState, at: Place },
    /// A destroyed object that lay in limbo.
    Discard { id: ObjectId },
    /// A destroyed directory.
    RemoveDirectory { id: ObjectId, at: Place },
    /// Attributes and times of a directory; `state` only if the batch has it.
    Finish { id: ObjectId, state: Option<&'b ObjectState> },
}

/// A batch that cannot be.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum PlanError {
    #[error(
        "batch {batch}: object {id:?} is named but neither in the batch nor in the catalog; the stream is damaged: pair this backup anew"
    )]
    Unknown { batch: u64, id: ObjectId },
    #[error(
        "batch {batch}: directory {id:?} would have two places; the stream is damaged: pair this backup anew"
    )]
    TwoPlaces { batch: u64, id: ObjectId },
    #[error(
        "batch {batch}: directory {id:?} would be below itself; the stream is damaged: pair this backup anew"
    )]
    Cycle { batch: u64, id: ObjectId },
    #[error("batch {batch}: the live rows cannot be read: {source}")]
    View { batch: u64, source: SourceError },
}

/// What the batch does to one object.
struct Item {
    kind: Kind,
    known: bool,
    destroyed: bool,
    removed: Vec<Spot>,
    added: Vec<Spot>,
    /// Names before the batch that stay.
    remaining: Vec<Spot>,
    /// Where it can be found while the plan runs.
    place: Place,
}

impl Item {
    fn directory(&self) -> bool {
        self.kind == Kind::Directory
    }
    /// Its first added name is taken by a rename (or a create that ends in one), not by a link.
    fn arrives(&self) -> bool {
        !self.added.is_empty() && (!self.known || self.remaining.is_empty())
    }
}

struct Planner<'b, 'v> {
    batch: &'b Batch,
    view: &'v dyn LiveView,
    states: HashMap<ObjectId, &'b ObjectState>,
    items: HashMap<ObjectId, Item>,
    /// In order of first mention, so that a plan is the same for the same input.
    order: Vec<ObjectId>,
    /// Names that change hands: who has it before, who after.
    reused: HashMap<Spot, ObjectId>,
    ops: Vec<Op<'b>>,
}

/// The operations that turn the tree of `view` into that of `batch`.
pub fn plan<'b>(view: &dyn LiveView, batch: &'b Batch) -> Result<Vec<Op<'b>>, PlanError> {
    let mut planner = Planner {
        batch,
        view,
        states: batch.objects.iter().map(|state| (state.id, state)).collect(),
        items: HashMap::new(),
        order: Vec::new(),
        reused: HashMap::new(),
        ops: Vec::new(),
    };
    let listings = planner.collect()?;
    planner.check()?;
    planner.vacate();
    planner.create()?;
    planner.place();
    planner.update()?;
    planner.destroy();
    planner.finish(listings);
    Ok(planner.ops)
}

impl<'b> Planner<'b, '_> {
    fn fault(&self) -> impl Fn(SourceError) -> PlanError + use<> {
        let batch = self.batch.number;
        move |source| PlanError::View { batch, source }
    }

    fn item(&mut self, id: ObjectId) -> Result<&mut Item, PlanError> {
        if !self.items.contains_key(&id) {
            let known = self.view.object(id).map_err(self.fault())?;
            self.add(id, known.as_ref())?;
        }
        self.items.get_mut(&id).ok_or(PlanError::Unknown { batch: self.batch.number, id })
    }

    fn add(&mut self, id: ObjectId, known: Option<&Known>) -> Result<(), PlanError> {
        if !self.items.contains_key(&id) {
            let state = self.states.get(&id).copied();
            let Some(kind) = state.map(|state| state.kind).or(known.map(|known| known.state.kind)) else {
                return Err(PlanError::Unknown { batch: self.batch.number, id });
            };
            let remaining = match known {
                Some(_) => self.view.entries_of(id).map_err(self.fault())?,
                None => Vec::new(),
            };
            let item = Item {
                kind,
                known: known.is_some(),
                destroyed: false,
                removed: Vec::new(),
                added: Vec::new(),
                remaining,
                place: Place::Limbo,
            };
            self.items.insert(id, item);
            self.order.push(id);
        }
        Ok(())
    }

    /// Fills `items`; returns the directories whose listing changes.
    fn collect(&mut self) -> Result<Vec<ObjectId>, PlanError> {
        let batch = self.batch;
        for state in &batch.objects {
            // Objects that the batch only updates need no item, unless an entry of theirs is touched.
            if state.id != ObjectId::ROOT && self.view.object(state.id).map_err(self.fault())?.is_none() {
                self.add(state.id, None)?;
            }
        }
        for &id in &batch.destroyed {
            if self.view.object(id).map_err(self.fault())?.is_some() {
                self.item(id)?.destroyed = true;
            }
        }
        let mut listings = Vec::new();
        let mut seen = HashSet::new();
        for entry in &batch.entries {
            let spot = Spot::new(entry.parent, entry.name.clone());
            let in_new = self.items.get(&entry.parent).is_some_and(|parent| !parent.known);
            let before = if in_new { None } else { self.view.child(&spot).map_err(self.fault())? };
            if before == entry.child {
                continue;
            }
            if seen.insert(entry.parent) {
                listings.push(entry.parent);
            }
            if let Some(old) = before {
                self.item(old)?.removed.push(spot.clone());
                if let Some(new) = entry.child {
                    self.reused.insert(spot.clone(), new);
                }
            }
            if let Some(new) = entry.child {
                self.item(new)?.added.push(spot);
            }
        }
        Ok(listings)
    }

    /// Splits the names of every item, and refuses what cannot be.
    fn check(&mut self) -> Result<(), PlanError> {
        for (&id, item) in &mut self.items {
            if item.removed.len() < 8 {
                item.remaining.retain(|spot| !item.removed.contains(spot));
            } else {
                let removed: HashSet<&Spot> = item.removed.iter().collect();
                item.remaining.retain(|spot| !removed.contains(spot));
            }
            if item.directory() && item.remaining.len() + item.added.len() > 1 {
                return Err(PlanError::TwoPlaces { batch: self.batch.number, id });
            }
            let first = item.remaining.first().or(item.removed.first());
            item.place = first.map_or(Place::Limbo, |spot| Place::At(spot.clone()));
        }
        Ok(())
    }

    /// Does a rename put a file over this name, so that its old holder need not be unlinked?
    fn replaced(&self, spot: &Spot) -> bool {
        self.reused
            .get(spot)
            .and_then(|id| self.items.get(id))
            .is_some_and(|new| !new.directory() && new.arrives() && new.added.first() == Some(spot))
    }

    fn vacate(&mut self) {
        let moving = self.items.values().filter(|i| i.directory() && i.known && !i.added.is_empty()).count();
        let order = self.order.clone();
        for id in order {
            let Some(mut item) = self.items.remove(&id) else { continue };
            if item.known && item.directory() {
                self.vacate_directory(id, &mut item, moving == 1);
            } else if item.known {
                self.vacate_file(id, &mut item);
            }
            self.items.insert(id, item);
        }
    }

    fn vacate_directory(&mut self, id: ObjectId, item: &mut Item, moves_alone: bool) {
        let Some(from) = item.removed.first().cloned() else { return };
        let taken = self.reused.contains_key(&from);
        let stays = match item.added.first() {
            // Nobody else moves, or the parent is the same: the new parent cannot be below it.
            Some(to) => !taken && (moves_alone || to.parent == from.parent),
            None => item.destroyed && !taken,
        };
        if !stays {
            item.place = Place::Limbo;
            self.ops.push(Op::Vacate { id, from });
        }
    }

    fn vacate_file(&mut self, id: ObjectId, item: &mut Item) {
        let needs_carrier = !item.destroyed && item.remaining.is_empty() && !item.removed.is_empty();
        let mut carrier = None;
        if needs_carrier {
            // A name that nobody takes is the best: the object moves straight from there.
            let free = item.removed.iter().position(|spot| !self.reused.contains_key(spot));
            carrier = Some(free.unwrap_or(0));
            let from = item.removed[free.unwrap_or(0)].clone();
            if free.is_some() && !item.added.is_empty() {
                item.place = Place::At(from);
            } else if self.replaced(&from) {
                item.place = Place::Limbo;
                self.ops.push(Op::Keep { id, from });
            } else {
                item.place = Place::Limbo;
                self.ops.push(Op::Vacate { id, from });
            }
        }
        for (index, spot) in item.removed.iter().enumerate() {
            if Some(index) != carrier && !self.replaced(spot) {
                self.ops.push(Op::Unlink { at: spot.clone() });
            }
        }
    }

    fn create(&mut self) -> Result<(), PlanError> {
        let new: Vec<ObjectId> = self
            .order
            .iter()
            .copied()
            .filter(|id| self.items.get(id).is_some_and(|item| !item.known))
            .collect();
        let mut made = HashSet::new();
        for &id in &new {
            if self.items.get(&id).is_some_and(Item::directory) {
                self.create_directories(id, &mut made)?;
            }
        }
        for &id in &new {
            if self.items.get(&id).is_some_and(|item| !item.directory()) {
                self.create_one(id)?;
            }
        }
        Ok(())
    }

    /// `id` and the new directories above it, topmost first.
    fn create_directories(&mut self, id: ObjectId, made: &mut HashSet<ObjectId>) -> Result<(), PlanError> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(item) = self.items.get(&id).filter(|item| !item.known && item.directory()) else {
                break;
            };
            if made.contains(&id) {
                break;
            }
            if chain.len() > self.items.len() {
                return Err(PlanError::Cycle { batch: self.batch.number, id });
            }
            chain.push(id);
            next = item.added.first().map(|spot| spot.parent);
        }
        for id in chain.into_iter().rev() {
            if made.insert(id) {
                self.create_one(id)?;
            }
        }
        Ok(())
    }

    fn create_one(&mut self, id: ObjectId) -> Result<(), PlanError> {
        let unknown = PlanError::Unknown { batch: self.batch.number, id };
        let Some(&state) = self.states.get(&id) else { return Err(unknown) };
        let first = self.items.get(&id).and_then(|item| item.added.first().cloned());
        let (to, replaces) = match first {
            Some(spot) => {
                // A directory can replace nothing: what had the name went in (A).
                let replaces = self.replaced(&spot);
                (Place::At(spot), replaces)
            }
            None => (Place::Limbo, false),
        };
        if let Some(item) = self.items.get_mut(&id) {
            item.place = to.clone();
        }
        self.ops.push(Op::Create { state, to, replaces });
        Ok(())
    }

    fn place(&mut self) {
        for id in &self.order {
            let Some(item) = self.items.get_mut(id) else { continue };
            let directory = item.directory();
            let mut added = item.added.iter();
            if item.arrives() {
                let Some(first) = added.next() else { continue };
                if item.known {
                    self.ops.push(Op::Move {
                        id: *id,
                        from: item.place.clone(),
                        to: first.clone(),
                        directory,
                    });
                    item.place = Place::At(first.clone());
                }
            }
            for spot in added {
                self.ops.push(Op::Link { id: *id, from: item.place.clone(), to: spot.clone() });
            }
        }
    }

    fn update(&mut self) -> Result<(), PlanError> {
        for state in &self.batch.objects {
            if state.kind == Kind::Directory {
                continue;
            }
            let at = match self.items.get(&state.id) {
                Some(item) if !item.known || item.destroyed => continue,
                Some(item) => item.place.clone(),
                None => {
                    let entries = self.view.entries_of(state.id).map_err(self.fault())?;
                    entries.into_iter().next().map_or(Place::Limbo, Place::At)
                }
            };
            self.ops.push(Op::Update { state, at });
        }
        Ok(())
    }

    fn destroy(&mut self) {
        let gone: HashMap<ObjectId, Option<ObjectId>> = self
            .items
            .iter()
            .filter(|(_, item)| item.destroyed && item.directory())
            .map(|(&id, item)| {
                (
                    id,
                    match &item.place {
                        Place::At(spot) => Some(spot.parent),
                        Place::Limbo => None,
                    },
                )
            })
            .collect();
        let mut directories: Vec<(usize, ObjectId)> = Vec::with_capacity(gone.len());
        for &id in &self.order {
            let Some(item) = self.items.get(&id).filter(|item| item.destroyed) else { continue };
            if item.directory() {
                directories.push((depth(&gone, id), id));
            } else if item.removed.is_empty() && item.remaining.is_empty() {
                self.ops.push(Op::Discard { id });
            }
        }
        directories.sort_by_key(|&(depth, _)| std::cmp::Reverse(depth));
        for (_, id) in directories {
            if let Some(item) = self.items.get(&id) {
                self.ops.push(Op::RemoveDirectory { id, at: item.place.clone() });
            }
        }
    }

    fn finish(&mut self, listings: Vec<ObjectId>) {
        let mut seen = HashSet::new();
        let changed =
            self.batch.objects.iter().filter(|state| state.kind == Kind::Directory).map(|state| state.id);
        // Children before parents is of use where a directory forbids its owner to enter: the last mentioned
        // are the deepest in a tree that is sent from its root.
        let mut all: Vec<ObjectId> =
            listings.into_iter().chain(changed).filter(|id| seen.insert(*id)).collect();
        all.reverse();
        let destroyed: HashSet<ObjectId> = self.batch.destroyed.iter().copied().collect();
        for id in all {
            if !destroyed.contains(&id) {
                self.ops.push(Op::Finish { id, state: self.states.get(&id).copied() });
            }
        }
    }
}

/// How many destroyed directories are above `id`.
fn depth(gone: &HashMap<ObjectId, Option<ObjectId>>, id: ObjectId) -> usize {
    let mut depth = 0;
    let mut at = id;
    while let Some(Some(parent)) = gone.get(&at) {
        depth += 1;
        at = *parent;
        if depth > gone.len() {
            break;
        }
    }
    depth
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
