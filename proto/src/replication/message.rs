//! Messages of the replication link. The session (src/replication/session.rs) says when each may be sent.

use super::state::{Hash, ObjectId, ObjectState, Position, StreamId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Version of this protocol; both sides must name the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a content-named blob is: decides which pack it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BlobKind {
    /// A chunk of a file: chunk packs.
    Chunk,
    /// A manifest page or root: metadata packs.
    Page,
}

/// How `Blob::bytes` is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Codec {
    Raw,
    Zstd,
}

/// A content-named piece on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blob {
    /// Chunk or page.
    pub kind: BlobKind,
    /// BLAKE3 of the decoded bytes; the receiver checks it.
    pub hash: Hash,
    /// Length of the decoded bytes.
    pub raw_len: u32,
    /// Encoding of `bytes`.
    pub codec: Codec,
    /// The encoded bytes; they follow the message (`wire`).
    #[serde(skip)]
    pub bytes: Bytes,
}

/// Primary to backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToBackup {
    /// First message. `position` is where the shadow stands, `None` when there is no shadow.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// Name of the export, as configured on the primary.
        export: String,
        /// Stream that the primary will write if the backup has none.
        stream: StreamId,
        /// The shadow's position.
        position: Option<Position>,
    },
    /// Which of these does the backup lack? Answered in order by [`ToPrimary::Lacking`].
    Offer {
        /// At most 4,096.
        hashes: Vec<Hash>,
    },
    /// Pieces that a later batch needs.
    Blobs(Vec<Blob>),
    /// An encoded [`super::state::Batch`] (`wire::encode_batch`): its hash is the chain of the next. It follows the
    /// message (`wire`).
    Batch(#[serde(skip)] Bytes),
    /// A question; answered by [`ToPrimary::Answer`] with the same `id`, in any order.
    Ask {
        /// Chosen by the asker, unique within the connection.
        id: u64,
        /// The question.
        query: Query,
    },
    /// Keeps the connection alive; answered by [`ToPrimary::Pong`].
    Ping(u64),
}

/// Backup to primary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToPrimary {
    /// First message, answer to [`ToBackup::Hello`].
    Welcome {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// Last durable batch; `None` when the backup holds no stream yet.
        position: Option<Position>,
        /// Is the Hello's position part of the backup's history (equal number and chain)?
        shadow_known: bool,
        /// Blob bytes that may be in flight unacknowledged.
        credit: u64,
    },
    /// The link ends here, and why.
    Refused {
        /// For the operator.
        reason: String,
    },
    /// Answer to [`ToBackup::Offer`]: one flag a hash, true = send it.
    Lacking(Vec<bool>),
    /// Everything up to this batch is on the backup's disk.
    Ack {
        /// Batch number.
        number: u64,
    },
    /// Blob bytes written: they may be sent anew.
    Credit {
        /// Bytes.
        bytes: u64,
    },
    /// Answer to [`ToBackup::Ask`].
    Answer {
        /// The asker's id.
        id: u64,
        /// More parts follow under this id.
        more: bool,
        /// The answer, or this part of it.
        answer: Answer,
    },
    /// Answer to [`ToBackup::Ping`].
    Pong(u64),
}

/// What the primary may ask of the backup's catalog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// Live objects with their entries, by number, from after `after`; for rebuilding a shadow.
    Live {
        /// Exclusive lower bound.
        after: ObjectId,
        /// Most objects to return, at most 4,096.
        limit: u32,
    },
    /// Objects and entries touched by batches > `since`.
    Touched {
        /// Batch number.
        since: u64,
        /// Exclusive lower bound for paging.
        after: ObjectId,
    },
    /// Manifest pages or chunks by name.
    Blobs(Vec<Hash>),
    /// Digests of live objects in buckets of [`BUCKET`] consecutive numbers, at or after batch `applied`.
    Buckets {
        /// The catalog must have applied this batch before it answers.
        applied: u64,
        /// First bucket.
        first: u64,
        /// How many, at most 65,536.
        count: u32,
    },
    /// Every version that was live at some batch in `from..=to` (`to` is waited for), of each object.
    Versions {
        /// At most 4,096.
        objects: Vec<ObjectId>,
        /// Batch number.
        from: u64,
        /// Batch number.
        to: u64,
    },
    /// The backup writes these objects of its mirror anew from its packs (attributes, content, listings), and forgets
    /// those of their chunks that its packs do not hold intact, so that the primary can send them again.
    Repair {
        /// At most 4,096.
        objects: Vec<ObjectId>,
    },
    /// The backup re-reads its mirror and its live chunks, and reports what is wrong.
    ReadData {
        /// The catalog must have applied this batch before it starts.
        applied: u64,
    },
}

/// Object numbers in one digest bucket.
pub const BUCKET: u64 = 1024;

/// A directory's entry as the backup has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LiveEntry {
    pub parent: ObjectId,
    pub name: Vec<u8>,
    pub child: ObjectId,
}

/// One version of an object in the catalog. For a directory `entries` is its listing at that batch, sorted by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Batch that made it.
    pub batch: u64,
    /// The state; `None` = did not exist.
    pub state: Option<ObjectState>,
    /// Listing of a directory: (name, child), sorted by name.
    pub entries: Vec<(Vec<u8>, ObjectId)>,
}

/// Something wrong on the backup's own disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    /// Path within the export.
    pub path: Vec<u8>,
    /// Object concerned.
    pub object: ObjectId,
    /// What is wrong, for a person: "mirror: content differs at byte 4096", "pack chunk-...: chunk ... does not match its name".
    pub reason: String,
}

/// Progress of a long answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReadProgress {
    pub objects: u64,
    pub objects_total: u64,
    pub bytes: u64,
}

/// Answers to [`Query`], one variant each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Answer {
    /// Objects in order of number, and every entry whose *child* is among them. Empty = end.
    Live { objects: Vec<ObjectState>, entries: Vec<LiveEntry> },
    /// Sorted by object number, each with its key (empty if none is known); entries are those touched: (parent, name),
    /// and their parents are among the objects. Empty = end; the next `after` is the last object.
    Touched { objects: Vec<(ObjectId, Vec<u8>)>, entries: Vec<(ObjectId, Vec<u8>)> },
    /// Decoded, same order; `None` = not held.
    Blobs(Vec<Option<Vec<u8>>>),
    /// One digest a bucket (see `store::catalog::bucket_digest`), and the highest live object number.
    Buckets { digests: Vec<Hash>, highest: ObjectId, objects: u64 },
    /// One list of versions an object, same order.
    Versions(Vec<Vec<Version>>),
    /// Parts, the last with `more = false`.
    ReadData { progress: ReadProgress, damage: Vec<Damage>, unchecked: Vec<Damage> },
    /// Objects of a [`Query::Repair`] that need chunks from the primary.
    Repaired { resend: Vec<ObjectId> },
    /// The query cannot be answered, and why.
    Failed { reason: String },
}
