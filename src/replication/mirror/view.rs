//! What the mirror must know from outside: the live rows of the catalog and the content of the packs.
//! Pure: traits and words only.

use ehpc_proto::replication::{Hash, ObjectId, ObjectState};
use std::fs::File;
use std::sync::Arc;

/// What went wrong on the other side of one of these traits; it says itself what and where.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Which inode of the mirror holds an object: inode number mixed with birth time, so that a number that the
/// file system used again is not mistaken for the object that had it before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity(pub u64);

impl Identity {
    /// From what statx says. Without a birth time it is the inode number alone.
    pub fn of(inode: u64, birth: Option<(i64, u32)>) -> Identity {
        let Some((seconds, nanos)) = birth else { return Identity(inode) };
        let mut x = seconds.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanos));
        // splitmix64: neighbouring times must not cancel against neighbouring inode numbers
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Identity(inode ^ x ^ (x >> 31))
    }
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Spot {
    /// The directory.
    pub parent: ObjectId,
    /// The name in it.
    pub name: Vec<u8>,
}

impl Spot {
    /// `name` in `parent`.
    pub fn new(parent: ObjectId, name: impl Into<Vec<u8>>) -> Spot {
        Spot { parent, name: name.into() }
    }
}

/// A live object as the catalog has it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its state.
    pub state: ObjectState,
    /// The inode that the mirror made for it; `None` if it has none (yet).
    pub identity: Option<Identity>,
}

/// The live rows of the catalog, as of the batch before the one that is applied.
/// A live object without an entry lies in limbo.
pub trait LiveView {
    /// A live object.
    fn object(&self, id: ObjectId) -> Result<Option<Known>, SourceError>;
    /// Who has this name.
    fn child(&self, spot: &Spot) -> Result<Option<ObjectId>, SourceError>;
    /// Every name of an object.
    fn entries_of(&self, child: ObjectId) -> Result<Vec<Spot>, SourceError>;
    /// Names in a directory in order, from after `after`, at most `limit`.
    fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, SourceError>;
}

/// Where the bytes of a chunk that is stored uncompressed lie.
pub struct RawPlace {
    /// The pack.
    pub file: Arc<File>,
    /// Offset of the chunk's first byte in it.
    pub offset: u64,
}

/// The content that batches refer to, read from the packs.
pub trait ContentSource {
    /// The bytes of a chunk, manifest page or root, checked against its name.
    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, SourceError>;
    /// Where a chunk lies if the kernel may copy it as it is; `None` = read it with [`ContentSource::blob`].
    fn raw(&self, hash: &Hash) -> Result<Option<RawPlace>, SourceError>;
}
