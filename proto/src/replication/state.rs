//! The data model that both ends share: objects, entries, manifests, batches, positions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of an object within one stream; the primary assigns it, never reuses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The root directory of the export.
    pub const ROOT: ObjectId = ObjectId(1);
}

/// BLAKE3 hash: the name of a chunk or manifest page, or a digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A point in time: seconds since 1970 (may be negative) and nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Type of a file-system object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One stretch of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Extent {
    /// `len` bytes whose BLAKE3 hash is `hash`.
    Data {
        /// Name of the chunk.
        hash: Hash,
        /// Bytes, 1 to [`MAX_CHUNK`].
        len: u32,
    },
    /// `len` zero bytes that occupy no disk.
    Hole {
        /// Bytes, at least 1.
        len: u64,
    },
}

impl Extent {
    /// Bytes of the file that this extent covers.
    pub fn len(&self) -> u64 {
        match self {
            Extent::Data { len, .. } => u64::from(*len),
            Extent::Hole { len } => *len,
        }
    }

    /// Extents are never empty; here for the lint that wants it beside `len`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Longest chunk, bytes (FastCDC 16/64/256 KiB).
pub const MAX_CHUNK: usize = 256 * 1024;
/// Most extents in one manifest page.
pub const PAGE_EXTENTS: usize = 1024;
/// Most extents that a manifest keeps inline in the object's state.
pub const INLINE_EXTENTS: usize = 16;

/// The content of a file. Two files with equal bytes and equal holes have equal manifests.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Manifest {
    /// At most [`INLINE_EXTENTS`] extents.
    Inline(Vec<Extent>),
    /// More: a content-named root blob that lists content-named pages of extents.
    Paged {
        /// Name of the root blob (see `store::manifest`).
        root: Hash,
    },
}

impl Manifest {
    /// The manifest of an empty file.
    pub const EMPTY: Manifest = Manifest::Inline(Vec::new());
}

/// One extended attribute (POSIX ACLs are `system.posix_acl_access` and `_default`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Xattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// Everything that the backup keeps of one object. Names are entries, not here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectState {
    /// Its number.
    pub id: ObjectId,
    /// The primary's key for it (`host::ObjectKey::to_bytes`), opaque to the backup: with it a lost shadow is rebuilt.
    pub key: Vec<u8>,
    /// Type.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; 0 for all but files (a symlink's target has its own length).
    pub size: u64,
    /// Modification time. (Directories too: applied last.)
    pub mtime: Timestamp,
    /// Major and minor device number; (0, 0) for all but devices.
    pub rdev: (u32, u32),
    /// Target of a symlink, else empty.
    pub target: Vec<u8>,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Content of a file; `Manifest::EMPTY` for all else.
    pub content: Manifest,
    /// The content moved while it was read (invariant 3).
    pub fuzzy: bool,
}

impl ObjectState {
    /// Digest of what verify compares: everything but `id`, `key` and `fuzzy`.
    pub fn digest(&self) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(&[self.kind as u8]);
        h.update(&self.mode.to_be_bytes());
        h.update(&self.uid.to_be_bytes());
        h.update(&self.gid.to_be_bytes());
        h.update(&self.size.to_be_bytes());
        h.update(&self.mtime.seconds.to_be_bytes());
        h.update(&self.mtime.nanos.to_be_bytes());
        h.update(&self.rdev.0.to_be_bytes());
        h.update(&self.rdev.1.to_be_bytes());
        let mut counted = |bytes: &[u8]| {
            h.update(&(bytes.len() as u64).to_be_bytes());
            h.update(bytes);
        };
        counted(&self.target);
        for xattr in &self.xattrs {
            counted(&xattr.name);
            counted(&xattr.value);
        }
        match &self.content {
            Manifest::Inline(extents) => {
                h.update(&[0]);
                for extent in extents {
                    match extent {
                        Extent::Data { hash, len } => {
                            h.update(&[1]);
                            h.update(&hash.0);
                            h.update(&len.to_be_bytes());
                        }
                        Extent::Hole { len } => {
                            h.update(&[2]);
                            h.update(&len.to_be_bytes());
                        }
                    }
                }
            }
            Manifest::Paged { root } => {
                h.update(&[3]);
                h.update(&root.0);
            }
        }
        Hash(*h.finalize().as_bytes())
    }
}

/// "The name `name` in `parent` is `child`", or is no more.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EntryState {
    pub parent: ObjectId,
    /// Bytes, 1 to 255, no '/' and no NUL, not "." or "..".
    pub name: Vec<u8>,
    pub child: Option<ObjectId>,
}

/// What is shipped, stored and acknowledged as one unit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// 1, 2, 3, ... within a stream.
    pub number: u64,
    /// `chain` of the batch before it; the stream id padded with zeros for batch 1.
    pub previous: Hash,
    /// Holds a state, read at or after it, for every change numbered <= `cut`.
    pub cut: u64,
    /// Primary's wall clock when it was closed.
    pub time: Timestamp,
    /// Full states of new and changed objects, at most one each.
    pub objects: Vec<ObjectState>,
    /// New, changed and vanished entries, at most one for each (parent, name).
    pub entries: Vec<EntryState>,
    /// Objects that exist no more (ESTALE or nlink 0); none of their entries is left.
    pub destroyed: Vec<ObjectId>,
}

/// Identity of a stream: made at random when a primary first meets its backup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StreamId(pub [u8; 16]);

/// Where a stream stands. Equal positions mean equal histories: `chain` is the hash of the encoded
/// batch `number`, which holds the chain of the one before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Position {
    pub stream: StreamId,
    pub number: u64,
    pub chain: Hash,
}

impl Position {
    /// Before batch 1.
    pub fn start(stream: StreamId) -> Position {
        let mut chain = [0; 32];
        chain[..16].copy_from_slice(&stream.0);
        Position { stream, number: 0, chain: Hash(chain) }
    }
}
