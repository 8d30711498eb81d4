//! Appending blobs and batches, and making them durable.
//!
//! Batches wait in memory until the chunks appended before them are on the disk, then they are written. So a batch that
//! is whole in a pack proves that its chunks were durable before it, whatever a crash did to the rest.

use super::Store;
use super::catalog::BatchRow;
use super::error::StoreError;
use super::pack::log::{Item, PackLog};
use super::pack::record::{Content, MAX_PAYLOAD, check_blob};
use super::pack::{PackError, Series};
use super::references::Complete;
use crate::observe::metrics;
use crossbeam_channel::{Sender, bounded};
use ehpc_proto::replication::message::{Blob, BlobKind, Codec};
use ehpc_proto::replication::{Batch, Hash, MAX_CHUNK, Position, StreamId};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Batches that wait for the next sync take at most about this much memory; then the sync is made at once.
const QUEUED_BYTES: usize = 16 << 20;

/// A batch that is not in a pack yet.
struct Queued {
    number: u64,
    chain: Hash,
    codec: Codec,
    raw_len: u32,
    payload: Vec<u8>,
}

/// State of those who append.
#[derive(Default)]
pub(super) struct Appender {
    /// The last batch accepted, durable or not.
    last: Option<Position>,
    queued: Vec<Queued>,
    queued_bytes: usize,
    /// In the pack, not yet synced.
    written: Vec<BatchRow>,
    complete: Complete,
}

impl Appender {
    pub(super) fn after(last: Option<Position>) -> Appender {
        Appender { last, ..Appender::default() }
    }

    /// A blob was found damaged: what leads to it is no longer known to be complete.
    pub(super) fn forget_complete(&mut self) {
        self.complete.clear();
    }
}

impl Store {
    /// Appends a blob unless it is here; true = it was not. The decoded bytes are checked against the name first.
    /// Durable after the next [`Store::sync`].
    pub fn put_blob(&self, blob: &Blob) -> Result<bool, StoreError> {
        let bad = |reason| StoreError::BadBlob { hash: blob.hash, reason };
        let (content, series, most) = match blob.kind {
            BlobKind::Chunk => (Content::Chunk, Series::Chunk, MAX_CHUNK),
            BlobKind::Page => (Content::Page, Series::Meta, MAX_PAYLOAD),
        };
        if blob.raw_len as usize > most || blob.bytes.len() > most || blob.raw_len == 0 {
            return Err(bad("its length is out of bounds"));
        }
        self.recover_from_failure()?;
        check_blob(blob.codec, blob.raw_len, &blob.hash, &blob.bytes).map_err(bad)?;
        let item = Item {
            content,
            codec: blob.codec,
            raw_len: blob.raw_len,
            number: 0,
            hash: blob.hash,
            payload: &blob.bytes,
        };
        {
            // Held from the append until the blob can be looked up: `Writer` relies on it.
            let _appender = self.appender.lock();
            if self.find(&blob.hash)?.is_some() {
                return Ok(false);
            }
            let at = self.appended(self.log(series).append(&item))?;
            self.recent.write().add_blob(blob.hash, at);
        }
        metrics::STORED_BYTES.add(blob.bytes.len() as u64);
        if let Some(flusher) = self.flusher.as_ref().filter(|_| series == Series::Chunk) {
            flusher.consider(&self.chunk);
        }
        Ok(true)
    }

    /// A log that refuses has lost something earlier: that is told as such.
    fn appended<T>(&self, result: Result<T, PackError>) -> Result<T, StoreError> {
        result.map_err(|error| match error {
            PackError::Refused { .. } => StoreError::GivenUp,
            other => other.into(),
        })
    }

    /// Accepts the next batch (`batch` is what `encoded` decodes to): it must follow the last one, and every blob that it
    /// refers to must be here. Durable after the next [`Store::sync`]. Returns its position.
    pub fn append_batch(&self, encoded: &[u8], batch: &Batch) -> Result<Position, StoreError> {
        self.recover_from_failure()?;
        let chain = Hash::of(encoded);
        let (codec, payload) = compress(encoded);
        let bounded = |number: u64| i64::try_from(number).is_ok();
        let ids = batch.objects.iter().map(|object| object.id).chain(batch.destroyed.iter().copied());
        let ids =
            ids.chain(batch.entries.iter().flat_map(|entry| [Some(entry.parent), entry.child]).flatten());
        if let Some(object) = ids.into_iter().find(|id| !bounded(id.0)) {
            return Err(StoreError::ObjectNumber { batch: batch.number, object });
        }
        let full = {
            let mut appender = self.appender.lock();
            let stream = self.follows(appender.last, batch)?;
            let mut held = |hash: &Hash| Ok(self.find(hash)?.is_some());
            appender.complete.check(batch, &mut held, &mut |hash| self.read_blob(hash))?;
            appender.last = Some(Position { stream, number: batch.number, chain });
            appender.queued_bytes += payload.len();
            let (number, raw_len) = (batch.number, encoded.len() as u32);
            appender.queued.push(Queued { number, chain, codec, raw_len, payload });
            appender.queued_bytes > QUEUED_BYTES
        };
        let position = self.appender.lock().last;
        if full {
            self.sync()?;
        }
        position.filter(|position| position.number >= batch.number).ok_or(StoreError::GivenUp)
    }

    /// The stream of a batch that follows `last`.
    fn follows(&self, last: Option<Position>, batch: &Batch) -> Result<StreamId, StoreError> {
        let number = batch.number;
        let refuse = |last, reason| Err(StoreError::OutOfOrder { number, last, reason });
        match last {
            Some(last) if number != last.number + 1 => refuse(last.number, "its number is not the next"),
            Some(last) if batch.previous != last.chain => refuse(last.number, "it is of another history"),
            Some(last) => Ok(last.stream),
            None if number != 1 => refuse(0, "a new history begins with batch 1"),
            None => {
                let (stream, rest) = batch.previous.0.split_at(16);
                match <[u8; 16]>::try_from(stream) {
                    Ok(stream) if rest.iter().all(|byte| *byte == 0) => Ok(StreamId(stream)),
                    _ => refuse(0, "it does not name its stream"),
                }
            }
        }
    }

    /// Makes everything accepted before the call durable, chunks first, and returns the last durable batch.
    ///
    /// When the disk is full, nothing is lost and the call can be repeated. After a failed fsync
    /// everything that was not durable is given up: the peer must be asked to send from [`Store::position`] on again.
    pub fn sync(&self) -> Result<Option<Position>, StoreError> {
        self.recover_from_failure()?;
        let _syncing = self.syncing.lock();
        let (queued, last) = {
            let mut appender = self.appender.lock();
            appender.queued_bytes = 0;
            (std::mem::take(&mut appender.queued), appender.last)
        };
        let result = self.chunk.sync().map_err(StoreError::from);
        if let Err(error) = result {
            self.requeue(queued);
            return Err(self.failed(error));
        }
        self.write_batches(queued)?;
        if let Err(error) = self.meta.sync() {
            return Err(self.failed(error.into()));
        }
        let mut appender = self.appender.lock();
        let written = std::mem::take(&mut appender.written);
        drop(appender);
        let mut recent = self.recent.write();
        written.iter().for_each(|row| recent.add_batch(*row));
        drop(recent);
        let mut durable = self.durable.lock();
        if let (Some(row), Some(last)) = (written.last(), last) {
            *durable = Some(Position { stream: last.stream, number: row.number, chain: row.chain });
        }
        // Those who index blobs wait here too, so they are woken even if there was no batch.
        self.made_durable.notify_all();
        Ok(*durable)
    }

    fn requeue(&self, mut queued: Vec<Queued>) {
        let mut appender = self.appender.lock();
        queued.append(&mut appender.queued);
        appender.queued_bytes = queued.iter().map(|batch| batch.payload.len()).sum();
        appender.queued = queued;
    }

    /// Writes batches whose chunks are durable. What finds no space stays queued.
    fn write_batches(&self, queued: Vec<Queued>) -> Result<(), StoreError> {
        let mut queued = queued.into_iter();
        while let Some(batch) = queued.next() {
            let item = Item {
                content: Content::Batch,
                codec: batch.codec,
                raw_len: batch.raw_len,
                number: batch.number,
                hash: batch.chain,
                payload: &batch.payload,
            };
            let mut appender = self.appender.lock();
            match self.meta.append(&item) {
                Ok(at) => {
                    appender.written.push(BatchRow { number: batch.number, chain: batch.chain, at });
                    metrics::STORED_BYTES.add(batch.payload.len() as u64);
                }
                Err(error) => {
                    drop(appender);
                    self.requeue(std::iter::once(batch).chain(queued).collect());
                    return Err(self.failed(error.into()));
                }
            }
        }
        Ok(())
    }

    /// Gives up what is not durable if a log is broken; the error to return.
    fn failed(&self, error: StoreError) -> StoreError {
        match self.give_up() {
            Err(worse) => worse,
            // Repeating the call would not bring back what was given up, so this is not told as a full disk.
            Ok(true) if error.is_no_space() => StoreError::GivenUp,
            Ok(_) if matches!(error, StoreError::Pack(PackError::Refused { .. })) => StoreError::GivenUp,
            Ok(_) => error,
        }
    }

    /// A failure that nobody was told of yet (of the sync in the background) is dealt with and told now.
    fn recover_from_failure(&self) -> Result<(), StoreError> {
        if self.give_up()? { Err(StoreError::GivenUp) } else { Ok(()) }
    }

    /// True = something was given up.
    fn give_up(&self) -> Result<bool, StoreError> {
        let mut appender = self.appender.lock();
        if !self.chunk.is_broken() && !self.meta.is_broken() {
            return Ok(false);
        }
        for series in [Series::Chunk, Series::Meta] {
            let end = self.log(series).give_up_unsynced()?;
            self.recent.write().forget_from(series, end);
        }
        appender.queued.clear();
        appender.queued_bytes = 0;
        appender.written.clear();
        appender.complete.clear();
        appender.last = self.position();
        Ok(true)
    }
}

/// Batches compress well; one that does not is kept as it is.
fn compress(encoded: &[u8]) -> (Codec, Vec<u8>) {
    match zstd::bulk::compress(encoded, 1) {
        Ok(packed) if packed.len() < encoded.len() => (Codec::Zstd, packed),
        _ => (Codec::Raw, encoded.to_vec()),
    }
}

/// Syncs the chunk packs in the background while more is appended.
pub(super) struct Flusher {
    bytes: u64,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(log: Arc<PackLog>, bytes: u64) -> Result<Flusher, StoreError> {
        let (wake, asked) = bounded::<()>(1);
        let thread = std::thread::Builder::new()
            .name("pack-flush".into())
            .spawn(move || {
                while asked.recv().is_ok() {
                    if let Err(error) = log.sync() {
                        tracing::warn!(%error, "the chunk pack could not be synced");
                    }
                }
            })
            .map_err(StoreError::Thread)?;
        Ok(Flusher { bytes, wake: Some(wake), thread: Some(thread) })
    }

    fn consider(&self, log: &PackLog) {
        if let Some(wake) = self.wake.as_ref().filter(|_| log.unsynced() >= self.bytes) {
            // Full: it is asked already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
