//! The applier's side of the store: durable batches go to the catalog.

use super::Store;
use super::catalog::{CatalogWriter, Rows};
use super::error::StoreError;
use super::pack::log::Located;
use super::pack::{Place, Series};
use ehpc_proto::replication::{Batch, Hash, ObjectId};
use std::sync::Arc;

/// The one writer of the catalog. Everything between two commits is one transaction; dropped, it forgets what is not
/// committed and can be taken again.
pub struct Writer {
    store: Arc<Store>,
    /// `None` only while it is dropped.
    catalog: Option<CatalogWriter>,
    /// In the open transaction; still in the store's list of recent blobs.
    uncommitted: Vec<(Hash, Located)>,
    scanned_meta: Option<Place>,
    scanned_chunks: Option<Place>,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, catalog: CatalogWriter) -> Writer {
        Writer {
            store,
            catalog: Some(catalog),
            uncommitted: Vec::new(),
            scanned_meta: None,
            scanned_chunks: None,
        }
    }

    fn catalog(&mut self) -> Result<&mut CatalogWriter, StoreError> {
        self.catalog.as_mut().ok_or(StoreError::WriterTaken)
    }

    /// The rows as this transaction sees them.
    pub fn rows(&self) -> Result<Rows<'_>, StoreError> {
        Ok(self.catalog.as_ref().ok_or(StoreError::WriterTaken)?.rows())
    }

    /// Number of the last batch applied, committed or not.
    pub fn applied(&self) -> u64 {
        self.catalog.as_ref().map_or(0, CatalogWriter::applied)
    }

    /// Enters a durable batch, which must be the next, and the blobs appended before it.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let number = batch.number;
        let row = self.store.recent.read().batch(number).ok_or(StoreError::UnknownBatch { number })?;
        self.index_blobs()?;
        self.index(Series::Meta, row.at.place)?;
        self.catalog()?.apply(batch, &row)?;
        let offset = row.at.payload() + u64::from(row.at.stored_len);
        self.scanned_meta = Some(Place { offset, ..row.at.place });
        Ok(())
    }

    /// Enters the durable chunks that no batch may have claimed yet: while a huge file arrives, they should not pile up in
    /// memory.
    pub fn index_blobs(&mut self) -> Result<(), StoreError> {
        // Under the appender's lock there is no chunk that is durable and not yet listed.
        let end = {
            let _appender = self.store.appender.lock();
            self.store.chunk.durable()
        };
        self.index(Series::Chunk, end)?;
        self.scanned_chunks = Some(end);
        Ok(())
    }

    fn index(&mut self, series: Series, end: Place) -> Result<(), StoreError> {
        let taken = self.store.recent.write().take_until(series, end);
        let first = self.uncommitted.len();
        self.uncommitted.extend(taken);
        let catalog = self.catalog.as_mut().ok_or(StoreError::WriterTaken)?;
        for (hash, at) in &self.uncommitted[first..] {
            catalog.put_blob(hash, at)?;
        }
        Ok(())
    }

    /// Forgets where a blob of an applied batch is, because its pack does not hold it intact: it is lacking from the next
    /// commit on, which also takes it off the list of recent ones.
    pub fn forget_blob(&mut self, hash: &Hash) -> Result<(), StoreError> {
        self.store.appender.lock().forget_complete();
        Ok(self.catalog()?.forget_blob(hash)?)
    }

    /// Notes (or forgets) the inode that a live object has in the mirror.
    pub fn set_mirror_inode(&mut self, id: ObjectId, inode: Option<u64>) -> Result<(), StoreError> {
        Ok(self.catalog()?.set_mirror_inode(id, inode)?)
    }

    /// The catalog was made anew and knows no inode of the mirror: the mirror has to be compared with it as a whole.
    pub fn is_mirror_unknown(&self) -> Result<bool, StoreError> {
        Ok(self.catalog.as_ref().ok_or(StoreError::WriterTaken)?.is_mirror_unknown()?)
    }

    /// The mirror was compared as a whole (or, with `true`, has to be). Takes effect with the commit.
    pub fn set_mirror_unknown(&mut self, unknown: bool) -> Result<(), StoreError> {
        Ok(self.catalog()?.set_mirror_unknown(unknown)?)
    }

    /// Commits. The mirror must hold (syncfs) what was applied: after a crash, batches before this are not applied again.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let (meta, chunks) = (self.scanned_meta, self.scanned_chunks);
        let catalog = self.catalog()?;
        if let Some(place) = meta {
            catalog.set_scanned(super::recover::META, place)?;
        }
        if let Some(place) = chunks {
            catalog.set_scanned(super::recover::CHUNKS, place)?;
        }
        catalog.commit()?;
        let applied = catalog.applied();
        (self.scanned_meta, self.scanned_chunks) = (None, None);
        let mut recent = self.store.recent.write();
        recent.drop_blobs(&self.uncommitted);
        recent.drop_batches(applied);
        self.uncommitted.clear();
        Ok(())
    }

    /// Forgets everything since the last commit.
    pub fn rollback(&mut self) -> Result<(), StoreError> {
        (self.scanned_meta, self.scanned_chunks) = (None, None);
        let taken = std::mem::take(&mut self.uncommitted);
        self.store.recent.write().put_back(taken);
        Ok(self.catalog()?.rollback()?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.rollback() {
            tracing::warn!(%error, "the catalog's open transaction could not be rolled back");
        }
        *self.store.writer.lock() = self.catalog.take();
    }
}
