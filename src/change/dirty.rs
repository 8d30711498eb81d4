//! The dirty set: numbered changes not yet acknowledged by the backup.
//! (Bodies being written by the owner of `change`; signatures are the seam.)

use crate::host::ObjectKey;
use smallvec::SmallVec;
use std::ops::Range;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub struct Entry {
    pub dir: ObjectKey,
    pub name: Box<[u8]>,
}

/// What may differ about an object's content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Content {
    /// Only attributes; content is read again only if size or mtime differ from the shadow's.
    #[default]
    Keep,
    /// These byte ranges (a truncation is `new_size..u64::MAX`).
    Ranges(SmallVec<[Range<u64>; 2]>),
    /// Anywhere: read it all even when the times are equal.
    All,
}

/// What may differ about an object. Merging two touches gives what either says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Touch {
    pub content: Content,
    /// A store through mmap may be unrecorded: sync_file_range before reading.
    pub settle_pages: bool,
    /// For directories: the whole listing may differ.
    pub listing: bool,
}

/// "Look here."
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Object(ObjectKey, Touch),
    /// Entries that must be read and shipped together (both ends of a rename, else one).
    Entries(SmallVec<[Entry; 2]>),
}

/// A share of the dirty set, in order of arrival.
#[derive(Debug, Default)]
pub struct Taken {
    /// Number of the newest change in `changes` or earlier: all changes numbered <= `cut` are here or were taken before.
    pub cut: u64,
    /// Coalesced: at most one per object; entries may repeat.
    pub changes: Vec<Change>,
}

/// Shared by watchers, NFS, scan and sender. All methods are quick and safe from any thread.
#[derive(Default)]
pub struct DirtySet {
    _private: (),
}

/// Open while an operation that will note a change is under way (invariant: taken before the system call).
/// Dropping it closes it.
pub struct Ticket {
    _private: (),
}
