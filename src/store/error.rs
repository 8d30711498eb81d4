//! What can go wrong in the store.

use super::catalog::CatalogError;
use super::manifest::ManifestError;
use super::pack::PackError;
use ehpc_proto::replication::wire::WireError;
use ehpc_proto::replication::{Hash, ObjectId};

/// See the variants.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Packs.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A blob does not match its name or its length.
    #[error("blob {hash} was refused: {reason}")]
    BadBlob {
        /// The name it came with.
        hash: Hash,
        /// What is wrong.
        reason: &'static str,
    },
    /// No blob of that name.
    #[error("blob {hash} is not in the store")]
    UnknownBlob {
        /// The name.
        hash: Hash,
    },
    /// No durable batch of that number.
    #[error("batch {number} is not in the store")]
    UnknownBatch {
        /// The number.
        number: u64,
    },
    /// A stored batch cannot be decoded, although its hash is right.
    #[error("batch {number} in the packs was written by another version: {source}")]
    BatchEncoding {
        /// The number.
        number: u64,
        /// Why.
        source: WireError,
    },
    /// A batch does not follow the last one.
    #[error("batch {number} does not follow batch {last} of this history: {reason}")]
    OutOfOrder {
        /// The batch.
        number: u64,
        /// The last one here.
        last: u64,
        /// How it does not.
        reason: &'static str,
    },
    /// A batch refers to a blob that was not sent before it.
    #[error("batch {batch}, object {object}: blob {hash} is not in the store")]
    MissingBlob {
        /// The batch.
        batch: u64,
        /// The object.
        object: u64,
        /// The blob.
        hash: Hash,
    },
    /// The manifest of an object in a batch is wrong.
    #[error("batch {batch}, object {object}: {source}")]
    BadManifest {
        /// The batch.
        batch: u64,
        /// The object.
        object: u64,
        /// What is wrong.
        source: ManifestError,
    },
    /// The numbers of a batch are beyond what can be stored.
    #[error("batch {batch}: object number {} is out of bounds", .object.0)]
    ObjectNumber {
        /// The batch.
        batch: u64,
        /// The object.
        object: ObjectId,
    },
    /// An earlier fsync failed; what had not been acknowledged was given up and must be sent again.
    #[error(
        "an earlier write to the packs was not confirmed by the disk; what had not been acknowledged was given up and \
         must be sent again. Look for disk errors in the kernel's log"
    )]
    GivenUp,
    /// The catalog has one writer.
    #[error("the catalog's writer is in use")]
    WriterTaken,
    /// The catalog's file cannot be replaced.
    #[error("the catalog cannot be made again, its old file cannot be removed: {0}")]
    RemoveCatalog(std::io::Error),
    /// No thread for syncing in the background.
    #[error("no thread could be started: {0}")]
    Thread(std::io::Error),
}

impl StoreError {
    /// The disk is full: nothing is lost, and the same call succeeds when there is space again.
    pub fn is_no_space(&self) -> bool {
        matches!(self, StoreError::Pack(error) if error.is_no_space())
    }
}
