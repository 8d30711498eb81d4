//! The tree as it was after an earlier batch, written to a directory.

use super::source::PackContent;
use crate::replication::mirror::{
    Identity, Known, LiveView, Mirror, MirrorError, MirrorNotes, SourceError, Spot,
};
use crate::store::catalog::{CatalogReader, Past};
use crate::store::{Store, StoreError};
use ehpc_proto::replication::{Batch, EntryState, Hash, Kind, ObjectId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A batch is waited for so long.
const APPLIED_WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// Names that are made at a time.
const SLICE: usize = 1000;

/// Why the tree was not written. What was written until then is left for a look, beside the target.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum PastError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("writing the tree: {0}")]
    Write(#[from] MirrorError),
    #[error(
        "batch {batch} is on the backup and not yet in its catalog; `ehpc-store status` says why; try again"
    )]
    Behind { batch: u64 },
    #[error("batch {batch} is not in the catalog of the backup")]
    UnknownBatch { batch: u64 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is there already: name a directory that does not exist, or remove it", path.display())]
    Exists { path: PathBuf },
    #[error("it was stopped before the tree was complete")]
    Stopped,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Written {
    pub objects: u64,
    pub bytes: u64,
    /// What the file system or a lack of privilege did not allow.
    pub notes: MirrorNotes,
}

/// Writes the tree after `batch` to `target`, which must not exist; its parent must. `progress` is told what is written
/// so far. The tree is on the disk, and complete, when `target` appears.
pub fn write_tree(
    store: &Arc<Store>,
    batch: u64,
    target: &Path,
    progress: &dyn Fn(Written),
    stop: &AtomicBool,
) -> Result<Written, PastError> {
    if target.symlink_metadata().is_ok() {
        return Err(PastError::Exists { path: target.to_owned() });
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| PastError::Io { path, source }
    };
    if partial.symlink_metadata().is_ok() {
        return Err(PastError::Exists { path: partial });
    }
    let mut mirror = Mirror::open(&partial)?;
    let reader = store.reader()?;
    await_applied(store, &reader, batch, stop)?;
    let past = reader.rows().past(batch).map_err(StoreError::from)?;
    let past = past.ok_or(PastError::UnknownBatch { batch })?;
    let linked = past.linked().map_err(StoreError::from)?.into_iter().collect();
    let mut writing = Writing {
        view: PastView { past, made: HashMap::new() },
        linked,
        content: PackContent::new(Arc::clone(store)),
        written: Written::default(),
    };
    let mut open = vec![Step::Enter(ObjectId::ROOT, None)];
    while let Some(step) = open.pop() {
        let (directory, after) = match step {
            Step::Enter(directory, after) => (directory, after),
            Step::Leave(directory) => {
                writing.view.leave(directory);
                continue;
            }
        };
        if stop.load(Ordering::Relaxed) {
            return Err(PastError::Stopped);
        }
        let (last, below) = writing.slice(&mut mirror, directory, after.as_deref())?;
        open.push(match last {
            Some(last) => Step::Enter(directory, Some(last)),
            None => Step::Leave(directory),
        });
        open.extend(below.into_iter().map(|id| Step::Enter(id, None)));
        progress(writing.written);
    }
    mirror.sync()?;
    let mut written = writing.written;
    written.notes = mirror.notes();
    drop(mirror);
    std::fs::rename(partial.join("mirror"), target).map_err(fault(target))?;
    std::fs::remove_dir_all(&partial).map_err(fault(&partial))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(fault(parent))?;
    Ok(written)
}

/// A batch that is durable and not yet in the catalog will be in a moment: the applier is on its way.
fn await_applied(
    store: &Store,
    reader: &CatalogReader,
    batch: u64,
    stop: &AtomicBool,
) -> Result<(), PastError> {
    let durable = store.position().map_or(0, |position| position.number);
    let until = Instant::now() + APPLIED_WITHIN;
    while batch <= durable && reader.rows().chain(batch).map_err(StoreError::from)?.is_none() {
        if stop.load(Ordering::Relaxed) {
            return Err(PastError::Stopped);
        }
        if Instant::now() > until {
            return Err(PastError::Behind { batch });
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// What is to be done with a directory.
enum Step {
    /// Make the names after this one.
    Enter(ObjectId, Option<Vec<u8>>),
    /// Everything below it is made.
    Leave(ObjectId),
}

struct Writing<'c> {
    view: PastView<'c>,
    /// Objects with several names.
    linked: HashSet<ObjectId>,
    content: PackContent,
    written: Written,
}

impl Writing<'_> {
    /// Makes the next names of a directory; gives the last of them, unless there are no more, and the directories among
    /// them.
    fn slice(
        &mut self,
        mirror: &mut Mirror,
        directory: ObjectId,
        after: Option<&[u8]>,
    ) -> Result<(Option<Vec<u8>>, Vec<ObjectId>), PastError> {
        let past = self.view.past;
        let children = past.children(directory, after, SLICE).map_err(StoreError::from)?;
        let mut batch = Batch {
            number: 0,
            previous: Hash([0; 32]),
            cut: 0,
            time: Timestamp::default(),
            objects: Vec::new(),
            entries: Vec::new(),
            destroyed: Vec::new(),
        };
        if directory == ObjectId::ROOT && after.is_none() {
            batch.objects.extend(past.object(ObjectId::ROOT).map_err(StoreError::from)?);
        }
        let (mut below, mut again) = (Vec::new(), Vec::new());
        for (name, child) in &children {
            let new =
                !self.view.made.contains_key(child) && !batch.objects.iter().rev().any(|o| o.id == *child);
            if new {
                // A name of an object that was never sent cannot be: the batch that brought it was refused.
                let Some(state) = past.object(*child).map_err(StoreError::from)? else { continue };
                if state.kind == Kind::Directory {
                    below.push(*child);
                }
                batch.objects.push(state);
            }
            if self.linked.contains(child) {
                again.push(*child);
            }
            batch.entries.push(EntryState { parent: directory, name: name.clone(), child: Some(*child) });
        }
        let outcome = mirror.apply(&batch, &self.view, &self.content)?;
        self.written.objects += batch.objects.len() as u64;
        self.written.bytes += outcome.bytes;
        // Only these are met again: all others would be as many as the share has files.
        let mut kept = HashSet::from([ObjectId::ROOT]);
        kept.extend(below.iter().chain(&again));
        for (id, identity) in outcome.identities.into_iter().filter(|(id, _)| kept.contains(id)) {
            self.view.made.entry(id).or_insert_with(|| Made { identity, spots: Vec::new(), needed: false });
        }
        for entry in batch.entries {
            if let Some(made) = entry.child.and_then(|child| self.view.made.get_mut(&child)) {
                made.spots.push(Spot { parent: entry.parent, name: entry.name });
            }
        }
        if !again.is_empty() {
            self.view.need(directory);
        }
        let more = children.len() == SLICE;
        Ok((children.into_iter().next_back().filter(|_| more).map(|(name, _)| name), below))
    }
}

struct Made {
    identity: Identity,
    spots: Vec<Spot>,
    /// Of a directory: on the way to an object that has further names.
    needed: bool,
}

/// What of the past is written already, and is still needed: the directories that are open, and what has several names.
struct PastView<'c> {
    past: Past<'c>,
    made: HashMap<ObjectId, Made>,
}

impl PastView<'_> {
    /// Nothing is made in this directory any more.
    fn leave(&mut self, directory: ObjectId) {
        if self.made.get(&directory).is_some_and(|made| !made.needed) {
            self.made.remove(&directory);
        }
    }

    /// This directory is looked for again.
    fn need(&mut self, mut directory: ObjectId) {
        while let Some(made) = self.made.get_mut(&directory).filter(|made| !made.needed) {
            made.needed = true;
            let Some(spot) = made.spots.first() else { return };
            directory = spot.parent;
        }
    }
}

impl LiveView for PastView<'_> {
    fn object(&self, id: ObjectId) -> Result<Option<Known>, SourceError> {
        let Some(made) = self.made.get(&id) else { return Ok(None) };
        let state = self.past.object(id)?;
        Ok(state.map(|state| Known { state, identity: Some(made.identity) }))
    }

    fn child(&self, _: &Spot) -> Result<Option<ObjectId>, SourceError> {
        // No name is written twice.
        Ok(None)
    }

    fn entries_of(&self, child: ObjectId) -> Result<Vec<Spot>, SourceError> {
        Ok(self.made.get(&child).map(|made| made.spots.clone()).unwrap_or_default())
    }

    fn children(
        &self,
        _: ObjectId,
        _: Option<&[u8]>,
        _: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, SourceError> {
        Ok(Vec::new())
    }
}
