//! Where a base snapshot goes: a store on this machine, or (in `cli`) one behind a connection.

use crate::store::{Store, Writer};
use bytes::Bytes;
use ehpc_proto::replication::message::Blob;
use ehpc_proto::replication::{Batch, Hash, Position, StreamId, wire};
use std::sync::Arc;

/// Takes chunks and batches of base snapshots. Errors are for people; after one the sink is of no use.
pub trait BaseSink: Send {
    /// The last durable batch (`Position::start` of a stream of the sink's choice when there is none): the next base
    /// chains on it.
    fn position(&self) -> Position;
    /// Which of these (at most 4,096) are not there? Same order.
    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, String>;
    /// Hands over blobs (at most 1 MiB together, or one larger page).
    fn blobs(&mut self, blobs: Vec<Blob>) -> Result<(), String>;
    /// Hands over the next batch, and returns when it is durable.
    fn commit(&mut self, number: u64, encoded: Bytes) -> Result<(), String>;
}

/// A store on this machine.
pub struct StoreSink {
    store: Arc<Store>,
    stream: StreamId,
}

impl StoreSink {
    /// Into `store`.
    pub fn new(store: Arc<Store>) -> StoreSink {
        StoreSink { store, stream: StreamId(rand::random()) }
    }
}

impl BaseSink for StoreSink {
    fn position(&self) -> Position {
        self.store.position().unwrap_or_else(|| Position::start(self.stream))
    }

    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, String> {
        self.store.lacking(hashes).map_err(|error| error.to_string())
    }

    fn blobs(&mut self, blobs: Vec<Blob>) -> Result<(), String> {
        blobs
            .iter()
            .try_for_each(|blob| self.store.put_blob(blob).map(drop))
            .map_err(|error| error.to_string())
    }

    fn commit(&mut self, _number: u64, encoded: Bytes) -> Result<(), String> {
        let batch = wire::decode_batch(&encoded).map_err(|error| error.to_string())?;
        let appended = self.store.append_batch(&encoded, &batch).and_then(|_| self.store.sync());
        appended.map(drop).map_err(|error| error.to_string())
    }
}

/// Enters what is durable into the store's catalog, so that it is found without reading the packs again.
pub(super) fn apply(store: &Store, writer: &mut Writer) -> Result<(), crate::store::StoreError> {
    let last = store.position().map_or(0, |position| position.number);
    let next = writer.applied() + 1;
    for number in next..=last {
        let batch: Batch = store.read_batch(number)?;
        writer.apply(&batch)?;
    }
    writer.index_blobs()?;
    writer.commit()
}
