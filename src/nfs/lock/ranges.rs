//! Byte ranges of one file and who holds them (pure).

use core::net::IpAddr;
use std::sync::Arc;

/// A client: where it calls from, and its name. Both, so that nobody releases another's locks by using its name,
/// and so that hosts behind one address are told apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in crate::nfs) struct Client {
    pub(in crate::nfs) address: IpAddr,
    pub(in crate::nfs) name: Box<[u8]>,
}

/// Who holds a lock: a process of a client. As in the Linux and BSD servers, the opaque owner handle that comes
/// with it is kept for replies, and is no part of the identity.
#[derive(Clone, Debug)]
pub(in crate::nfs) struct Owner {
    pub(in crate::nfs) client: Arc<Client>,
    pub(in crate::nfs) svid: u32,
    /// `oh`, for the holder in TEST and for callbacks.
    pub(in crate::nfs) handle: Box<[u8]>,
}

impl PartialEq for Owner {
    fn eq(&self, other: &Owner) -> bool {
        self.svid == other.svid && self.client == other.client
    }
}

impl Eq for Owner {}

/// Bytes from `first` to `last`, both included; `last` = [`u64::MAX`]: to the end, however far it may move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in crate::nfs) struct Range {
    pub(in crate::nfs) first: u64,
    pub(in crate::nfs) last: u64,
}

impl Range {
    /// Of an offset and a length, 0 meaning to the end; `None` if it ends past what a file can hold (2^63 - 1).
    pub(in crate::nfs) fn new(offset: u64, length: u64) -> Option<Range> {
        const END: u64 = i64::MAX as u64;
        if offset > END {
            return None;
        }
        if length == 0 {
            return Some(Range { first: offset, last: u64::MAX });
        }
        let last = offset.checked_add(length - 1).filter(|last| *last <= END)?;
        // The last byte of all is the end.
        Some(Range { first: offset, last: if last == END { u64::MAX } else { last } })
    }

    /// As on the wire: 0 = to the end.
    pub(in crate::nfs) fn length(self) -> u64 {
        if self.last == u64::MAX { 0 } else { self.last - self.first + 1 }
    }

    pub(in crate::nfs) fn overlaps(self, other: Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The other starts right behind this one.
    fn meets(self, other: Range) -> bool {
        self.last != u64::MAX && self.last + 1 == other.first
    }
}

/// A stretch that an owner holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nfs) struct Held {
    pub(in crate::nfs) owner: Arc<Owner>,
    pub(in crate::nfs) range: Range,
    pub(in crate::nfs) exclusive: bool,
    /// The client's state number when it was locked; 0 = not told.
    pub(in crate::nfs) state: u32,
}

/// Every stretch of a file, by its first byte. One owner's stretches do not overlap; those of the same kind do not
/// touch.
#[derive(Clone, Debug, Default)]
pub(in crate::nfs) struct Ranges {
    held: Vec<Held>,
}

impl Ranges {
    pub(in crate::nfs) fn len(&self) -> usize {
        self.held.len()
    }

    pub(in crate::nfs) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(in crate::nfs) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    /// What keeps `owner` from this lock.
    pub(in crate::nfs) fn conflict(&self, owner: &Owner, range: Range, exclusive: bool) -> Option<&Held> {
        self.conflicts(owner, range, exclusive).next()
    }

    /// Everything that keeps `owner` from this lock.
    pub(in crate::nfs) fn conflicts(
        &self,
        owner: &Owner,
        range: Range,
        exclusive: bool,
    ) -> impl Iterator<Item = &Held> {
        let in_reach = self.held.iter().take_while(move |held| held.range.first <= range.last);
        in_reach.filter(move |held| {
            (exclusive || held.exclusive) && held.range.overlaps(range) && *held.owner != *owner
        })
    }

    /// What `owner` holds of `range`, cut to it.
    pub(in crate::nfs) fn within(&self, owner: &Owner, range: Range) -> Vec<Held> {
        let cut = |held: &Held| Held {
            range: Range { first: held.range.first.max(range.first), last: held.range.last.min(range.last) },
            ..held.clone()
        };
        self.held.iter().filter(|held| *held.owner == *owner && held.range.overlaps(range)).map(cut).collect()
    }

    /// Takes `range` from `owner`; the rest of what it holds stays.
    pub(in crate::nfs) fn release(&mut self, owner: &Owner, range: Range) {
        let mut rest = Vec::new();
        self.held.retain(|held| {
            if *held.owner != *owner || !held.range.overlaps(range) {
                return true;
            }
            if held.range.first < range.first {
                let before = Range { first: held.range.first, last: range.first - 1 };
                rest.push(Held { range: before, ..held.clone() });
            }
            if held.range.last > range.last {
                let behind = Range { first: range.last + 1, last: held.range.last };
                rest.push(Held { range: behind, ..held.clone() });
            }
            false
        });
        rest.into_iter().for_each(|held| self.insert(held));
    }

    /// Gives a stretch to its owner, in place of what it holds there. Conflicts are the caller's to look for.
    pub(in crate::nfs) fn grant(&mut self, mut new: Held) {
        self.release(&new.owner, new.range);
        self.held.retain(|held| {
            if *held.owner != *new.owner || held.exclusive != new.exclusive {
                return true;
            }
            if held.range.meets(new.range) {
                new.range.first = held.range.first;
                return false;
            }
            if new.range.meets(held.range) {
                new.range.last = held.range.last;
                return false;
            }
            true
        });
        self.insert(new);
    }

    /// Forgets the stretches for which `gone` holds.
    pub(in crate::nfs) fn forget(&mut self, gone: impl Fn(&Held) -> bool) {
        self.held.retain(|held| !gone(held));
    }

    fn insert(&mut self, held: Held) {
        let at = self.held.partition_point(|other| other.range.first <= held.range.first);
        self.held.insert(at, held);
    }
}
