//! The store in the words of the receiver.

use crate::replication::receiver::{BackupStore, StoreFault};
use crate::store::{Store, StoreError};
use ehpc_proto::replication::message::Blob;
use ehpc_proto::replication::{Batch, Hash, Position};
use std::sync::Arc;

/// The backup's store, as the link sees it.
pub(super) struct Packs(pub(super) Arc<Store>);

fn fault(error: StoreError) -> StoreFault {
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

impl BackupStore for Packs {
    fn position(&self) -> Option<Position> {
        self.0.position()
    }

    fn knows(&self, position: &Position) -> Result<bool, StoreFault> {
        self.0.knows(position).map_err(fault)
    }

    fn lacking(&self, hashes: &[Hash]) -> Result<Vec<bool>, StoreFault> {
        self.0.lacking(hashes).map_err(fault)
    }

    fn put_blob(&self, blob: &Blob) -> Result<(), StoreFault> {
        self.0.put_blob(blob).map(drop).map_err(fault)
    }

    fn append_batch(&self, encoded: &[u8], batch: &Batch) -> Result<(), StoreFault> {
        self.0.append_batch(encoded, batch).map(drop).map_err(fault)
    }

    fn sync(&self) -> Result<u64, StoreFault> {
        let durable = self.0.sync().map_err(fault)?;
        Ok(durable.map_or(0, |position| position.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[test]
    fn what_the_primary_sent_wrongly_is_rejected_and_the_rest_goes_through() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(scratch.path(), Options::default()).expect("opens");
        let packs = Packs(store);
        let bytes = b"content".to_vec();
        let blob = |hash| Blob {
            kind: ehpc_proto::replication::message::BlobKind::Chunk,
            hash,
            raw_len: 7,
            codec: ehpc_proto::replication::message::Codec::Raw,
            bytes: bytes.clone(),
        };
        let right = Hash::of(&bytes);
        assert!(matches!(packs.put_blob(&blob(Hash::of(b"other"))), Err(StoreFault::Rejected { .. })));
        packs.put_blob(&blob(right)).expect("stored");
        assert_eq!(packs.lacking(&[right, Hash::of(b"other")]).expect("answers"), [false, true]);
        assert_eq!(packs.sync().expect("syncs"), 0);
        assert_eq!(packs.position(), None);
    }
}
