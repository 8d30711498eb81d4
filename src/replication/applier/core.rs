//! Catalog and mirror together, and what is left to be put in order between them.

use super::source::{CatalogView, PackContent};
use super::status::{ApplierState, ApplierStatus};
use crate::observe::metrics;
use crate::replication::mirror::check::{Check, Finding, Findings, LongRead};
#[cfg(test)]
use crate::replication::mirror::disk::{Step, Verdict};
use crate::replication::mirror::{LiveView, Mirror, MirrorError, Outcome, SourceError};
use crate::store::manifest::Index;
use crate::store::{Store, StoreError, Writer};
use ehpc_proto::replication::{Batch, Extent, Hash, Kind, Manifest, ObjectId, ObjectState};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Objects and entries that are redone as one, at most (and one batch more).
const WINDOW_ITEMS: usize = 20_000;
/// Bytes that the batches of a window may take in memory, about.
const WINDOW_BYTES: usize = 32 << 20;

/// Why a batch is not applied. It stays to be applied.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum ApplierError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error("the mirror's file system could not be synced: {0}")]
    Sync(io::Error),
    #[error("no thread could be started: {0}")]
    Thread(io::Error),
    #[error("an internal error of the applier (the log has it); it goes on from the last commit")]
    Panicked,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Nothing,
    Applied,
}

pub(super) struct Core {
    store: Arc<Store>,
    writer: Writer,
    mirror: Option<Mirror>,
    content: PackContent,
    committed: u64,
    /// Batches up to this one may be in the mirror in part.
    suspect: u64,
    /// Directories whose listing is to be compared with the catalog, and how far that is.
    rebuild: Vec<(ObjectId, Option<Vec<u8>>)>,
    /// The whole mirror is under comparison.
    whole: bool,
    /// Uncommitted: since when, how much.
    since: Option<Instant>,
    weight: usize,
    /// Goes up with every change of the mirror.
    generation: u64,
    /// `generation` of the last syncfs that is committed.
    synced: u64,
    /// Commits since the start.
    commits: u64,
    /// Commit without waiting.
    urgent: bool,
    items: u64,
    bytes: u64,
}

impl Core {
    pub(super) fn open(store: Arc<Store>, directory: Option<&Path>) -> Result<Core, ApplierError> {
        let writer = store.writer()?;
        let mirror = directory.map(Mirror::open).transpose()?;
        let committed = writer.applied();
        let suspect = store.position().map_or(0, |position| position.number);
        let mut core = Core {
            content: PackContent::new(store.clone()),
            store,
            writer,
            mirror,
            committed,
            suspect,
            rebuild: Vec::new(),
            whole: false,
            since: None,
            weight: 0,
            generation: 0,
            synced: 0,
            commits: 0,
            urgent: false,
            items: 0,
            bytes: 0,
        };
        core.begin()?;
        Ok(core)
    }

    /// Looks at what there is, after opening and after a rollback.
    fn begin(&mut self) -> Result<(), ApplierError> {
        let unknown = self.writer.is_mirror_unknown()?;
        let Some(mirror) = &mut self.mirror else {
            // The mirror that may be there falls behind from now on.
            if !unknown && self.committed > 0 {
                self.writer.set_mirror_unknown(true)?;
                self.writer.commit()?;
            }
            self.suspect = 0;
            return Ok(());
        };
        if self.committed == 0 {
            mirror.clear()?;
            return Ok(());
        }
        let root = self.writer.rows()?.mirror_inode(ObjectId::ROOT).map_err(StoreError::from)?;
        if unknown || root != Some(mirror.root_identity()?.0) {
            tracing::warn!(
                "the mirror is not the one that the catalog knows: it is made anew from the packs"
            );
            if !unknown {
                self.writer.set_mirror_unknown(true)?;
                self.writer.commit()?;
            }
            self.whole = true;
            self.rebuild = vec![(ObjectId::ROOT, None)];
        }
        Ok(())
    }

    /// After an error: everything that may be in the mirror in part will be redone.
    pub(super) fn recover(&mut self, error: &ApplierError) {
        // The batch at hand is not in the rows but may be in the mirror in part.
        let durable = self.store.position().map_or(0, |position| position.number);
        self.suspect = self.suspect.max((self.writer.applied() + 1).min(durable));
        if matches!(error, ApplierError::Mirror(error) if !matches!(error, MirrorError::View(_))) {
            return; // the rows are those of the batches before
        }
        self.since = None;
        self.weight = 0;
        self.urgent = false;
        self.whole = false;
        self.rebuild.clear();
        let again = self.writer.rollback().map_err(ApplierError::from).and_then(|()| self.begin());
        if let Err(error) = again {
            tracing::error!("the applier cannot start anew yet: {error}");
        }
    }

    #[cfg(test)]
    pub(super) fn gate(&mut self, gate: Option<Box<dyn FnMut(Step) -> Verdict + Send>>) {
        if let Some(mirror) = &mut self.mirror {
            mirror.set_gate(gate);
        }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn applied(&self) -> u64 {
        self.writer.applied()
    }

    /// The mirror is what the transaction's rows say.
    pub(super) fn is_settled(&self) -> bool {
        self.rebuild.is_empty() && self.writer.applied() >= self.suspect
    }

    pub(super) fn is_uncommitted(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits
    }

    /// The next step commits.
    pub(super) fn hurry(&mut self) {
        self.urgent = self.since.is_some();
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// For a syncfs without the gate; `None` = nothing to sync.
    pub(super) fn mirror_handle(&self) -> Result<Option<File>, ApplierError> {
        let Some(mirror) = self.mirror.as_ref().filter(|_| self.synced != self.generation) else {
            return Ok(None);
        };
        let handle = mirror.root().try_clone_to_owned().map_err(ApplierError::Sync)?;
        Ok(Some(File::from(handle)))
    }

    pub(super) fn report(&self, status: &mut ApplierStatus, progress: Progress) {
        status.applied = self.writer.applied();
        status.committed = self.committed;
        (status.items, status.bytes) = (self.items, self.bytes);
        status.notes = self.mirror.as_ref().map(Mirror::notes);
        let paused = matches!(status.state, ApplierState::Paused { .. });
        if progress == Progress::Applied || !paused || self.is_settled() {
            status.state = if !self.rebuild.is_empty() {
                ApplierState::Rebuilding
            } else if self.is_settled() {
                ApplierState::Running
            } else {
                ApplierState::Redoing
            };
        }
    }

    /// The next piece of work.
    pub(super) fn advance(&mut self) -> Result<Progress, ApplierError> {
        if self.rebuild_next()? {
            return Ok(Progress::Applied);
        }
        let next = self.writer.applied() + 1;
        if next <= self.suspect {
            self.redo(next)?;
            return Ok(Progress::Applied);
        }
        let durable = self.store.position().map_or(0, |position| position.number);
        if next > durable {
            // While a huge file arrives its chunks must not pile up in memory.
            self.writer.index_blobs()?;
            if self.store.stats()?.blobs_unapplied > 0 {
                self.since.get_or_insert_with(Instant::now);
            }
            return Ok(Progress::Nothing);
        }
        let batch = self.store.read_batch(next)?;
        self.apply(&batch)?;
        Ok(Progress::Applied)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), ApplierError> {
        let outcome = match &mut self.mirror {
            Some(mirror) => {
                let view = CatalogView(self.writer.rows()?);
                let result = match mirror.apply(batch, &view, &self.content) {
                    Err(error) if error.is_disorder() => {
                        tracing::warn!("batch {}: {error}", batch.number);
                        mirror.redo(std::slice::from_ref(batch), &view, &self.content)
                    }
                    result => result,
                };
                self.generation += 1;
                result?
            }
            None => Outcome::default(),
        };
        self.enter(std::slice::from_ref(batch), outcome)
    }

    /// Batches from `next` to the last suspect one, as many as fit.
    fn redo(&mut self, next: u64) -> Result<(), ApplierError> {
        let (mut batches, mut items, mut bytes) = (Vec::new(), 0, 0);
        for number in next..=self.suspect {
            let batch = self.store.read_batch(number)?;
            items += weight(&batch);
            bytes += batch.objects.iter().map(memory).sum::<usize>();
            batches.push(batch);
            if items >= WINDOW_ITEMS || bytes >= WINDOW_BYTES {
                break;
            }
        }
        let Some(mirror) = &mut self.mirror else { return self.enter(&batches, Outcome::default()) };
        let view = CatalogView(self.writer.rows()?);
        let outcome = mirror.redo(&batches, &view, &self.content);
        self.generation += 1;
        self.enter(&batches, outcome?)?;
        if self.writer.applied() >= self.suspect
            && let Some(mirror) = &mut self.mirror
        {
            mirror.sweep(&CatalogView(self.writer.rows()?))?;
        }
        Ok(())
    }

    /// The rows of batches that are in the mirror.
    fn enter(&mut self, batches: &[Batch], outcome: Outcome) -> Result<(), ApplierError> {
        self.since.get_or_insert_with(Instant::now);
        for batch in batches {
            self.writer.apply(batch)?;
            metrics::BATCHES_APPLIED.inc();
            self.weight += weight(batch);
            self.items += weight(batch) as u64;
        }
        self.record(outcome)
    }

    fn record(&mut self, outcome: Outcome) -> Result<(), ApplierError> {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += outcome.bytes;
        self.weight += outcome.identities.len();
        for (id, identity) in outcome.identities {
            self.writer.set_mirror_inode(id, Some(identity.0))?;
        }
        if !outcome.rebuild.is_empty() && self.rebuild.is_empty() {
            // If it stops before that is done, all is compared.
            self.writer.set_mirror_unknown(true)?;
        }
        self.rebuild.extend(outcome.rebuild.into_iter().map(|id| (id, None)));
        Ok(())
    }

    /// One slice of what is to be rebuilt; false = nothing is.
    fn rebuild_next(&mut self) -> Result<bool, ApplierError> {
        let Some((directory, after)) = self.rebuild.pop() else { return Ok(false) };
        let result = self.rebuild_directory(directory, after.clone());
        if result.is_err() {
            self.rebuild.push((directory, after));
        }
        result.map(|()| true)
    }

    /// One slice of one directory.
    fn rebuild_directory(&mut self, directory: ObjectId, after: Option<Vec<u8>>) -> Result<(), ApplierError> {
        let Some(mirror) = &mut self.mirror else { return Ok(()) };
        let view = CatalogView(self.writer.rows()?);
        let below = if self.whole { directories_in(&view, directory, after.as_deref())? } else { Vec::new() };
        self.generation += 1;
        let slice = mirror.rebuild(directory, after.as_deref(), &view, &self.content)?;
        if let Some((last, mut outcome)) = slice {
            self.rebuild.push((directory, Some(last)));
            if self.whole {
                outcome.rebuild = below;
            }
            self.record(outcome)?;
        }
        if self.rebuild.is_empty() {
            if let Some(mirror) = &mut self.mirror {
                mirror.sweep(&CatalogView(self.writer.rows()?))?;
            }
            self.whole = false;
            self.writer.set_mirror_unknown(false)?;
            self.since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// The mirror was synced when it stood at `generation`.
    pub(super) fn commit(&mut self, generation: u64) -> Result<(), ApplierError> {
        if generation != self.generation
            && let Some(mirror) = &self.mirror
        {
            mirror.sync()?;
        }
        self.synced = self.generation;
        self.writer.commit()?;
        self.committed = self.writer.applied();
        self.since = None;
        self.weight = 0;
        self.urgent = false;
        self.commits += 1;
        Ok(())
    }

    /// Writes an object of the mirror anew; true = chunks of it are missing or damaged in the packs.
    pub(super) fn repair(&mut self, id: ObjectId) -> Result<bool, ApplierError> {
        let view = CatalogView(self.writer.rows()?);
        let Some(known) = view.object(id).map_err(MirrorError::View)? else { return Ok(false) };
        let broken = broken_blobs(&self.store, &known.state.content);
        if !broken.is_empty() {
            self.since.get_or_insert_with(Instant::now);
            for hash in broken {
                self.writer.forget_blob(&hash)?;
            }
            return Ok(true);
        }
        let Some(mirror) = &mut self.mirror else { return Ok(false) };
        self.generation += 1;
        let outcome = mirror.repair(id, &view, &self.content)?;
        self.record(outcome)?;
        if known.state.kind == Kind::Directory {
            self.rebuild.push((id, None));
            while self.rebuild_next()? {}
        }
        Ok(false)
    }

    /// Compares the next objects; what takes long is left in `check` for [`Check::next_long`].
    pub(super) fn check_slice(&mut self, check: &mut Check) -> Result<Findings, ApplierError> {
        let rows = self.writer.rows()?;
        let total = match check.progress().objects_total {
            0 => rows.count().map_err(StoreError::from)?, // reads every row
            known => known,
        };
        let (objects, _) = rows.live(check.after(), Check::SLICE).map_err(StoreError::from)?;
        let view = CatalogView(rows);
        Ok(check.slice(self.mirror.as_mut(), &view, &self.content, objects, total)?)
    }

    /// A long read counts if its object has not changed.
    pub(super) fn conclude(
        &mut self,
        check: &mut Check,
        read: LongRead,
        found: Finding,
    ) -> Result<(), ApplierError> {
        let view = CatalogView(self.writer.rows()?);
        Ok(check.conclude(self.mirror.as_mut(), &view, &self.content, read, found)?)
    }
}

fn weight(batch: &Batch) -> usize {
    batch.objects.len() + batch.entries.len() + batch.destroyed.len()
}

/// About what a state takes.
fn memory(state: &ObjectState) -> usize {
    let xattrs: usize = state.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 48).sum();
    let extents = match &state.content {
        Manifest::Inline(extents) => extents.len() * 40,
        Manifest::Paged { .. } => 32,
    };
    256 + xattrs + extents + state.target.len()
}

/// The directories among the names that the next slice of a rebuild covers, or more.
fn directories_in(
    view: &CatalogView<'_>,
    directory: ObjectId,
    after: Option<&[u8]>,
) -> Result<Vec<ObjectId>, MirrorError> {
    let children = view.children(directory, after, Mirror::REBUILD_SLICE).map_err(MirrorError::View)?;
    let mut found = Vec::new();
    for (_, child) in children {
        let known = view.object(child).map_err(MirrorError::View)?;
        if known.is_some_and(|known| known.state.kind == Kind::Directory) {
            found.push(child);
        }
    }
    Ok(found)
}

/// Chunks and pages of a file that the packs do not hold intact.
fn broken_blobs(store: &Store, manifest: &Manifest) -> Vec<Hash> {
    let mut broken = Vec::new();
    let mut pages = Vec::new();
    let mut fetch = |hash: &Hash| {
        store.read_blob(hash).map_err(|error| {
            pages.push(*hash);
            SourceError::from(error)
        })
    };
    if let Ok(index) = Index::open(manifest, &mut fetch) {
        for page in 0..index.page_count() {
            let Ok(extents) = index.page(page, &mut fetch) else { continue };
            for extent in extents.iter() {
                if let Extent::Data { hash, .. } = extent
                    && store.verify_blob(hash).is_err()
                {
                    broken.push(*hash);
                }
            }
        }
    }
    broken.extend(pages);
    broken
}
