//! The primary's questions, answered from the catalog, the packs and the mirror; and the store as the receiver sees it.

use super::receiver::{BackupStore, QueryHandler, StoreFault};
use crate::store::{CatalogReader, Rows, Store, StoreError};
use ehpc_proto::replication::message::{Answer, Blob, Damage, Query, ReadProgress, Version};
use ehpc_proto::replication::{Batch, Hash, ObjectId, Position};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl From<StoreError> for StoreFault {
    fn from(error: StoreError) -> StoreFault {
        let reason = error.to_string();
        match error {
            error if error.is_no_space() => StoreFault::Full { reason },
            StoreError::BadBlob { .. }
            | StoreError::OutOfOrder { .. }
            | StoreError::MissingBlob { .. }
            | StoreError::BadManifest { .. }
            | StoreError::ObjectNumber { .. } => StoreFault::Rejected { reason },
            _ => StoreFault::Broken { reason },
        }
    }
}

impl BackupStore for Store {
    fn position(&self) -> Option<Position> {
        Store::position(self)
    }

    fn knows(&self, position: &Position) -> Result<bool, StoreFault> {
        Ok(Store::knows(self, position)?)
    }

    fn lacking(&self, hashes: &[Hash]) -> Result<Vec<bool>, StoreFault> {
        Ok(Store::lacking(self, hashes)?)
    }

    fn put_blob(&self, blob: &Blob) -> Result<(), StoreFault> {
        Store::put_blob(self, blob)?;
        Ok(())
    }

    fn append_batch(&self, encoded: &[u8], batch: &Batch) -> Result<(), StoreFault> {
        Store::append_batch(self, encoded, batch)?;
        Ok(())
    }

    fn sync(&self) -> Result<u64, StoreFault> {
        Ok(Store::sync(self)?.map_or(0, |position| position.number))
    }
}

/// What only the applier and the mirror know.
pub trait Backstage: Send + Sync + 'static {
    /// Waits until the catalog has applied `batch`, at most `timeout`; returns the last applied batch.
    fn wait_applied(&self, batch: u64, timeout: Duration) -> u64;
    /// Re-reads mirror and live chunks. Gives what it found (progress, damage, unchecked) to `part`, stops when that
    /// returns false. An error is why it could not be done.
    fn read_data(&self, part: &mut ReadPart<'_>) -> Result<(), String>;
    /// Writes these objects of the mirror anew from the packs, and forgets chunks that the packs do not hold intact;
    /// returns the objects that need such chunks from the primary.
    fn repair(&self, objects: &[ObjectId]) -> Result<Vec<ObjectId>, String>;
}

/// Takes a part of what [`Backstage::read_data`] found.
pub type ReadPart<'a> = dyn FnMut(ReadProgress, Vec<Damage>, Vec<Damage>) -> bool + 'a;

/// A question fails when the catalog does not move for so long.
const STUCK_AFTER: Duration = Duration::from_secs(120);
/// Parts of an answer stay below this, so that they fit a frame.
const PART_BYTES: usize = 3 * 1024 * 1024;
/// What cannot be split must fit a frame.
const MOST_BYTES: usize = 7 * 1024 * 1024;
/// Touched objects in one answer.
const TOUCHED_LIMIT: usize = 4096;
/// Catalog connections kept.
const IDLE_READERS: usize = 4;

/// Answers from a store.
pub struct StoreQueries {
    store: Arc<Store>,
    backstage: Arc<dyn Backstage>,
    readers: Mutex<Vec<CatalogReader>>,
    stuck_after: Duration,
}

/// Why a question has no answer; the text goes to the primary.
struct Unanswered(String);

impl<E: std::error::Error> From<E> for Unanswered {
    fn from(error: E) -> Unanswered {
        Unanswered(error.to_string())
    }
}

/// Takes the parts of an answer; false = the asker is gone.
type Part<'a> = &'a mut dyn FnMut(Answer, bool) -> bool;

impl StoreQueries {
    /// Answers from `store`; `backstage` knows how far the catalog is.
    pub fn new(store: Arc<Store>, backstage: Arc<dyn Backstage>) -> StoreQueries {
        StoreQueries { store, backstage, readers: Mutex::new(Vec::new()), stuck_after: STUCK_AFTER }
    }

    fn answered(&self, query: Query, part: Part<'_>) -> Result<(), Unanswered> {
        match query {
            Query::Live { after, limit } => {
                self.applied(self.durable())?;
                let (objects, entries) = self.read(|rows| Ok(rows.live(after, limit as usize)?))?;
                part(Answer::Live { objects, entries }, false);
            }
            Query::Touched { since, after } => {
                self.applied(self.durable())?;
                let (objects, entries) =
                    self.read(|rows| Ok(rows.touched(since, after, TOUCHED_LIMIT)?))?;
                part(Answer::Touched { objects, entries }, false);
            }
            Query::Blobs(hashes) => self.blobs(&hashes, part)?,
            Query::Buckets { applied, first, count } => {
                self.applied(applied)?;
                let buckets = self.read(|rows| Ok(rows.buckets(first, count)?))?;
                let (digests, highest, objects) = (buckets.digests, buckets.highest, buckets.objects);
                part(Answer::Buckets { digests, highest, objects }, false);
            }
            Query::Versions { objects, from, to } => {
                self.applied(to)?;
                self.versions(&objects, from, to, part)?;
            }
            Query::Repair { objects } => {
                let resend = self.backstage.repair(&objects).map_err(Unanswered)?;
                part(Answer::Repaired { resend }, false);
            }
            Query::ReadData { applied } => {
                self.applied(applied)?;
                self.read_data(part)?;
            }
        }
        Ok(())
    }

    fn durable(&self) -> u64 {
        self.store.position().map_or(0, |position| position.number)
    }

    /// Waits until the catalog has applied `batch`, for as long as it gets on.
    fn applied(&self, batch: u64) -> Result<(), Unanswered> {
        let mut last = 0;
        let mut moved = Instant::now();
        loop {
            let applied = self.backstage.wait_applied(batch, self.stuck_after.min(Duration::from_secs(1)));
            if applied >= batch {
                return Ok(());
            }
            if applied > last {
                (last, moved) = (applied, Instant::now());
            }
            if moved.elapsed() >= self.stuck_after {
                let seconds = self.stuck_after.as_secs();
                return Err(Unanswered(format!(
                    "the backup's catalog has applied batch {applied} of {batch} and did not move for {seconds} s; \
                     `ehpc-store status` on the backup says why"
                )));
            }
        }
    }

    /// All that `read` does sees one state of the catalog.
    fn read<T>(&self, read: impl FnOnce(&Rows<'_>) -> Result<T, Unanswered>) -> Result<T, Unanswered> {
        let idle = self.readers.lock().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => self.store.reader()?,
        };
        let result = reader.snapshot(read);
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        result
    }

    fn blobs(&self, hashes: &[Hash], part: Part<'_>) -> Result<(), Unanswered> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for hash in hashes {
            let blob = match self.store.read_blob(hash) {
                Ok(blob) => Some(blob),
                Err(StoreError::UnknownBlob { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let length = blob.as_ref().map_or(0, Vec::len);
            if bytes > 0 && bytes + length > PART_BYTES {
                if !part(Answer::Blobs(std::mem::take(&mut found)), true) {
                    return Ok(());
                }
                bytes = 0;
            }
            bytes += length;
            found.push(blob);
        }
        part(Answer::Blobs(found), false);
        Ok(())
    }

    fn versions(&self, objects: &[ObjectId], from: u64, to: u64, part: Part<'_>) -> Result<(), Unanswered> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for id in objects {
            let mut lists = self.read(|rows| Ok(rows.versions(std::slice::from_ref(id), from, to)?))?;
            let list = lists.pop().unwrap_or_default();
            let length: usize = list.iter().map(weight).sum();
            if length > MOST_BYTES {
                return Err(Unanswered(format!(
                    "the versions of object {} between batch {from} and {to} are {length} bytes long, more than one \
                     answer holds: ask for fewer batches",
                    id.0
                )));
            }
            if bytes > 0 && bytes + length > PART_BYTES {
                if !part(Answer::Versions(std::mem::take(&mut found)), true) {
                    return Ok(());
                }
                bytes = 0;
            }
            bytes += length;
            found.push(list);
        }
        part(Answer::Versions(found), false);
        Ok(())
    }

    fn read_data(&self, part: Part<'_>) -> Result<(), Unanswered> {
        let mut last = ReadProgress::default();
        let mut gone = false;
        let done = self.backstage.read_data(&mut |progress, damage, unchecked| {
            last = progress;
            gone = !part(Answer::ReadData { progress, damage, unchecked }, true);
            !gone
        });
        done.map_err(Unanswered)?;
        if !gone {
            part(Answer::ReadData { progress: last, damage: Vec::new(), unchecked: Vec::new() }, false);
        }
        Ok(())
    }
}

/// About what a version takes in an answer.
fn weight(version: &Version) -> usize {
    let state = version.state.as_ref().map_or(0, |state| {
        let xattrs: usize = state.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 8).sum();
        1024 + state.target.len() + xattrs
    });
    let entries: usize = version.entries.iter().map(|(name, _)| name.len() + 12).sum();
    32 + state + entries
}

impl QueryHandler for StoreQueries {
    fn answer(&self, query: Query, part: &mut dyn FnMut(Answer, bool) -> bool) {
        if let Err(Unanswered(reason)) = self.answered(query, part) {
            tracing::warn!("a question of the primary has no answer: {reason}");
            part(Answer::Failed { reason }, false);
        }
    }
}

#[cfg(test)]
mod tests;
