//! The backup's history: chunks, manifests, packs (the truth), catalog (derived).
//!
//! [`Store`] is shared by the receiver (appends), the applier (reads batches, writes the catalog through
//! [`Writer`]), and everybody who reads. What a caller may rely on: a batch in a pack never names a blob that was not
//! durable before it, and the catalog never knows what is not durable in the packs.

mod append;
pub mod catalog;
pub mod chunker;
mod error;
pub mod manifest;
pub mod pack;
mod recent;
mod recover;
mod references;
#[cfg(test)]
mod tests;
mod writer;

pub use catalog::{CatalogReader, Live, Rows};
pub use error::StoreError;
pub use pack::{PackId, Series};
pub use recover::Recovery;
pub use writer::Writer;

use append::Appender;
use catalog::{CatalogFile, CatalogWriter};
use ehpc_proto::replication::message::Codec;
use ehpc_proto::replication::{Batch, Hash, Position, wire};
use pack::disk::{Disk, RealDisk};
use pack::log::{Located, PackLog};
use parking_lot::{Condvar, Mutex, RwLock};
use recent::Recent;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Reader connections kept for the store's own look-ups.
const IDLE_READERS: usize = 4;

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A pack takes no further record once it is this long, bytes.
    pub pack_bytes: u64,
    /// Unsynced chunk bytes at which a sync in the background begins, so that the one before an acknowledgement is
    /// short; `None` = never.
    pub flush_bytes: Option<u64>,
    /// What is on the disk is not kept in the page cache: nobody reads it soon (no mirror is made of it).
    pub drop_cached: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { pack_bytes: 256 << 20, flush_bytes: Some(8 << 20), drop_cached: false }
    }
}

/// The history of one stream. All methods may be called from any thread; they block on the disk.
pub struct Store {
    disk: Arc<dyn Disk>,
    meta: PackLog,
    chunk: Arc<PackLog>,
    catalog: CatalogFile,
    readers: Mutex<Vec<CatalogReader>>,
    writer: Mutex<Option<CatalogWriter>>,
    /// Lock order: `syncing`, `appender`, then `recent` or `durable`.
    syncing: Mutex<()>,
    appender: Mutex<Appender>,
    recent: RwLock<Recent>,
    durable: Mutex<Option<Position>>,
    made_durable: Condvar,
    flusher: Option<append::Flusher>,
}

/// Where a blob's stored bytes are, for those who copy them within the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobLocation {
    /// The pack.
    pub pack: PackId,
    /// Its file.
    pub path: PathBuf,
    /// First stored byte in it.
    pub offset: u64,
    /// Stored bytes.
    pub stored_len: u32,
    /// Decoded bytes; with [`Codec::Raw`] the stored bytes are the content itself.
    pub raw_len: u32,
    /// Encoding.
    pub codec: Codec,
}

/// For `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Last durable batch.
    pub position: Option<Position>,
    /// Last batch in the catalog.
    pub applied: u64,
    /// Bytes of the packs with batches and manifest pages.
    pub meta_bytes: u64,
    /// Bytes of the packs with chunks.
    pub chunk_bytes: u64,
    /// Blobs that are in packs and not yet in the catalog.
    pub blobs_unapplied: usize,
}

impl Store {
    /// Opens (and makes) the store in `directory` and recovers it: torn tails are cut, a missing catalog is made again.
    /// Damage of what was durable is an error that names pack and byte.
    pub fn open(directory: &Path, options: Options) -> Result<(Arc<Store>, Recovery), StoreError> {
        let disk = Arc::new(RealDisk::open(&directory.join("packs"))?);
        recover::open(disk, CatalogFile::new(directory.join("catalog.sqlite")), options)
    }

    /// The last durable batch; `None` = no stream yet.
    pub fn position(&self) -> Option<Position> {
        *self.durable.lock()
    }

    /// Is `position` part of this history (equal number and chain, and durable)?
    pub fn knows(&self, position: &Position) -> Result<bool, StoreError> {
        let Some(durable) = self.position() else { return Ok(false) };
        if durable.stream != position.stream || position.number > durable.number {
            return Ok(false);
        }
        if position.number == 0 {
            return Ok(*position == Position::start(position.stream));
        }
        let recent = self.recent.read().batch(position.number).map(|row| row.chain);
        let chain = match recent {
            Some(chain) => Some(chain),
            None => self.with_rows(|rows| Ok(rows.chain(position.number)?))?,
        };
        Ok(chain == Some(position.chain))
    }

    /// Which of these blobs are not here? Same order.
    pub fn lacking(&self, hashes: &[Hash]) -> Result<Vec<bool>, StoreError> {
        let held: Vec<bool> = {
            let recent = self.recent.read();
            hashes.iter().map(|hash| recent.blob(hash).is_some()).collect()
        };
        if held.iter().all(|held| *held) {
            return Ok(vec![false; hashes.len()]);
        }
        self.with_rows(|rows| {
            let lacks = |(hash, held): (&Hash, bool)| Ok(!held && rows.blob(hash)?.is_none());
            hashes.iter().zip(held).map(lacks).collect()
        })
    }

    /// The decoded bytes of a blob, checked against its name. An error about damage names pack and byte.
    pub fn read_blob(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let at = self.find(hash)?.ok_or(StoreError::UnknownBlob { hash: *hash })?;
        Ok(self.log(at.series).read(&at, hash)?)
    }

    /// Reads a blob from its pack and checks it.
    pub fn verify_blob(&self, hash: &Hash) -> Result<(), StoreError> {
        self.read_blob(hash).map(drop)
    }

    /// Where the stored bytes of a blob are; `None` = not here.
    pub fn locate(&self, hash: &Hash) -> Result<Option<BlobLocation>, StoreError> {
        Ok(self.find(hash)?.map(|at| BlobLocation {
            pack: at.pack(),
            path: self.disk.path(&at.pack().to_string()),
            offset: at.payload(),
            stored_len: at.stored_len,
            raw_len: at.raw_len,
            codec: at.codec,
        }))
    }

    /// A durable batch.
    pub fn read_batch(&self, number: u64) -> Result<Batch, StoreError> {
        let unknown = StoreError::UnknownBatch { number };
        if self.position().is_none_or(|durable| number > durable.number) {
            return Err(unknown);
        }
        let recent = self.recent.read().batch(number).map(|row| (row.at, row.chain));
        let (at, chain) = match recent {
            Some(found) => found,
            None => self.with_rows(|rows| Ok(rows.batch(number)?))?.ok_or(unknown)?,
        };
        let encoded = self.log(at.series).read(&at, &chain)?;
        wire::decode_batch(&encoded).map_err(|source| StoreError::BatchEncoding { number, source })
    }

    /// Durable batches from `from` on, at most `limit`.
    pub fn read_batches(&self, from: u64, limit: usize) -> Result<Vec<Batch>, StoreError> {
        let last = self.position().map_or(0, |durable| durable.number);
        (from..=last).take(limit).map(|number| self.read_batch(number)).collect()
    }

    /// Waits until a batch after `number` is durable, at most `timeout`; returns the last durable number, which may still
    /// be `number`: it also returns after a [`Store::wake`] or a sync without a batch (chunks may be worth indexing).
    pub fn wait_durable(&self, number: u64, timeout: Duration) -> u64 {
        let mut durable = self.durable.lock();
        if durable.is_none_or(|position| position.number <= number) {
            self.made_durable.wait_for(&mut durable, timeout);
        }
        durable.map_or(0, |position| position.number)
    }

    /// Wakes everybody in [`Store::wait_durable`], for shutting down.
    pub fn wake(&self) {
        let _durable = self.durable.lock();
        self.made_durable.notify_all();
    }

    /// A connection of the caller's own that sees what the applier has committed.
    pub fn reader(&self) -> Result<CatalogReader, StoreError> {
        Ok(self.catalog.open_reader()?)
    }

    /// The one writer of the catalog; an error while another is in use.
    pub fn writer(self: &Arc<Store>) -> Result<Writer, StoreError> {
        let catalog = self.writer.lock().take().ok_or(StoreError::WriterTaken)?;
        Ok(Writer::new(self.clone(), catalog))
    }

    /// For `status`.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        Ok(Stats {
            position: self.position(),
            applied: self.with_rows(|rows| Ok(rows.applied()?))?,
            meta_bytes: self.meta.bytes(),
            chunk_bytes: self.chunk.bytes(),
            blobs_unapplied: self.recent.read().len(),
        })
    }

    fn log(&self, series: Series) -> &PackLog {
        match series {
            Series::Meta => &self.meta,
            Series::Chunk => &self.chunk,
        }
    }

    /// The order matters: what leaves `recent` is committed in the catalog before.
    fn find(&self, hash: &Hash) -> Result<Option<Located>, StoreError> {
        if let Some(at) = self.recent.read().blob(hash) {
            return Ok(Some(at));
        }
        self.with_rows(|rows| Ok(rows.blob(hash)?))
    }

    fn with_rows<T>(&self, read: impl FnOnce(&Rows<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.catalog.open_reader()?,
        };
        let result = read(&reader.rows());
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        result
    }
}
