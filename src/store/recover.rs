//! Opening a store: the packs are scanned from where the catalog knows them, and what is new in them is entered.
//! A catalog that is missing or of another version is made again from the whole of them.

use super::append::{Appender, Flusher};
use super::catalog::{BatchRow, CatalogError, CatalogFile, CatalogWriter};
use super::error::StoreError;
use super::pack::disk::Disk;
use super::pack::log::{Located, PackLog, read_located};
use super::pack::record::{Content, Head, decode_blob};
use super::pack::scan::{Payloads, Recovered, recover};
use super::pack::{PackError, PackId, Place, Series};
use super::recent::Recent;
use super::references::Complete;
use super::{Options, Store};
use ehpc_proto::replication::{Batch, Hash, Position, StreamId, wire};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;

/// Keys of the places in the catalog up to which it knows the packs.
pub(super) const META: &str = "scanned_meta";
pub(super) const CHUNKS: &str = "scanned_chunks";
const REBUILDING: &str = "rebuilding";

/// Rows of one transaction while many are entered.
const ROWS: u64 = 50_000;

/// What was done at a start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// The last durable batch.
    pub position: Option<Position>,
    /// The last batch in the catalog; the applier goes on after it.
    pub applied: u64,
    /// The torn tails that were cut: pack, first byte cut, bytes. Nothing in them was acknowledged.
    pub cut: Vec<(PackId, u64, u64)>,
    /// The catalog was made again from the packs; the mirror has to be compared with it as a whole.
    pub catalog_rebuilt: bool,
}

/// See the module.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    catalog: CatalogFile,
    options: Options,
) -> Result<(Arc<Store>, Recovery), StoreError> {
    let writer = open_catalog(&*disk, &catalog)?;
    let rebuild = writer.rows().meta(REBUILDING)?.is_some_and(|value| value == [1]);
    let from = writer.rows().scanned(META)?;
    let last = if from == Place::default() { None } else { writer.rows().position()? };
    let (batches, complete) = (Vec::new(), Complete::default());
    let mut scan = Scan { disk: &*disk, writer, rebuild, rows: 0, last, batches, complete };
    let chunks = scan.chunks()?;
    let meta = scan.meta(from)?;
    let Scan { mut writer, last, batches, .. } = scan;
    writer.set_scanned(CHUNKS, end(&chunks))?;
    if rebuild {
        writer.set_meta(REBUILDING, &[0])?;
        writer.set_scanned(META, end(&meta))?;
    }
    writer.commit()?;
    let recovery = Recovery {
        position: last,
        applied: writer.applied(),
        cut: [chunks.cut, meta.cut].into_iter().flatten().collect(),
        catalog_rebuilt: rebuild,
    };
    let log = |series, found: Recovered| {
        PackLog::new(series, disk.clone(), options, found.newest, found.sealed_bytes)
    };
    let (meta, chunk) = (log(Series::Meta, meta), Arc::new(log(Series::Chunk, chunks)));
    let flusher = options.flush_bytes.map(|bytes| Flusher::start(chunk.clone(), bytes)).transpose()?;
    let mut recent = Recent::default();
    batches.into_iter().for_each(|row| recent.add_batch(row));
    let store = Arc::new(Store {
        disk,
        meta,
        chunk,
        catalog,
        readers: Mutex::new(Vec::new()),
        writer: Mutex::new(Some(writer)),
        syncing: Mutex::new(()),
        appender: Mutex::new(Appender::after(last)),
        recent: RwLock::new(recent),
        durable: Mutex::new(last),
        made_durable: Condvar::new(),
        flusher,
    });
    Ok((store, recovery))
}

/// The catalog's writer; what is no catalog of this version is replaced. Beside packs a new one has to be filled.
fn open_catalog(disk: &dyn Disk, catalog: &CatalogFile) -> Result<CatalogWriter, StoreError> {
    let (mut writer, created) = match catalog.open_writer() {
        Err(CatalogError::NotACatalog { reason }) => {
            tracing::warn!(%reason, "the catalog is not usable and is made again from the packs");
            catalog.remove().map_err(StoreError::RemoveCatalog)?;
            catalog.open_writer()?
        }
        other => other?,
    };
    let names = disk.list().map_err(|source| PackError::Directory { action: "list it", source })?;
    if created && names.iter().any(|name| PackId::parse(name).is_some()) {
        writer.set_meta(REBUILDING, &[1])?;
        writer.set_mirror_unknown(true)?;
        writer.commit()?;
    }
    Ok(writer)
}

fn end(found: &Recovered) -> Place {
    found
        .newest
        .as_ref()
        .map_or(Place::default(), |newest| Place { pack: newest.head.id.number, offset: newest.len })
}

/// Enters what the packs hold. A scan makes durable what it finds, so all of it may go to the catalog at once.
struct Scan<'a> {
    disk: &'a dyn Disk,
    writer: CatalogWriter,
    /// Batches are applied here, not by the applier.
    rebuild: bool,
    rows: u64,
    /// The last batch seen.
    last: Option<Position>,
    /// Those that the applier has to apply.
    batches: Vec<BatchRow>,
    complete: Complete,
}

impl Scan<'_> {
    fn chunks(&mut self) -> Result<Recovered, StoreError> {
        let from = self.writer.rows().scanned(CHUNKS)?;
        let disk = self.disk;
        recover(Series::Chunk, disk, from, Payloads::Newest, &mut |at, head, _| {
            if head.content != Content::Chunk {
                return Err(damaged(at, "a chunk pack holds something else"));
            }
            self.put_blob(at, head)
        })
    }

    fn meta(&mut self, from: Place) -> Result<Recovered, StoreError> {
        let disk = self.disk;
        recover(Series::Meta, disk, from, Payloads::All, &mut |at, head, payload| match head.content {
            Content::Page => self.put_blob(at, head),
            Content::Batch => self.batch(at, head, payload.unwrap_or_default()),
            Content::Chunk => Err(damaged(at, "a metadata pack holds a chunk")),
        })
    }

    fn put_blob(&mut self, at: &Located, head: &Head) -> Result<(), StoreError> {
        self.writer.put_blob(&head.hash, at)?;
        self.count(1)
    }

    fn count(&mut self, rows: u64) -> Result<(), StoreError> {
        self.rows += rows;
        if self.rows >= ROWS {
            self.rows = 0;
            self.writer.commit()?;
        }
        Ok(())
    }

    fn batch(&mut self, at: &Located, head: &Head, payload: &[u8]) -> Result<(), StoreError> {
        let encoded = decode_blob(head.codec, head.raw_len, &head.hash, payload.to_vec())
            .map_err(|reason| damaged(at, reason))?;
        let number = head.number;
        let batch =
            wire::decode_batch(&encoded).map_err(|source| StoreError::BatchEncoding { number, source })?;
        let stream = self.follows(at, &batch)?;
        self.last = Some(Position { stream, number, chain: head.hash });
        if number <= self.writer.applied() {
            return Ok(());
        }
        let (disk, rows) = (self.disk, self.writer.rows());
        let mut held = |hash: &Hash| Ok(rows.blob(hash)?.is_some());
        self.complete.check(&batch, &mut held, &mut |hash| {
            let at = rows.blob(hash)?.ok_or(StoreError::UnknownBlob { hash: *hash })?;
            Ok(read_located(disk, &at, hash)?)
        })?;
        let row = BatchRow { number, chain: head.hash, at: *at };
        if self.rebuild {
            self.writer.apply(&batch, &row)?;
            self.count((batch.objects.len() + batch.entries.len()) as u64)
        } else {
            self.batches.push(row);
            Ok(())
        }
    }

    fn follows(&self, at: &Located, batch: &Batch) -> Result<StreamId, StoreError> {
        let (number, chain) = match self.last {
            Some(last) => (last.number, last.chain),
            None => (0, batch.previous),
        };
        if batch.number != number + 1 || batch.previous != chain {
            return Err(damaged(at, "this batch does not follow the one before it"));
        }
        let stream = batch.previous.0.first_chunk().copied().map(StreamId);
        let stream = self.last.map(|last| last.stream).or(stream);
        stream.ok_or_else(|| damaged(at, "this batch does not name its stream"))
    }
}

fn damaged(at: &Located, reason: &'static str) -> StoreError {
    PackError::Damaged { pack: at.pack(), offset: at.place.offset, reason }.into()
}
