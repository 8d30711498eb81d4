//! Listings that are kept: names, keys and attributes of directories that were read with READDIRPLUS.
//!
//! What is kept is used only while it is exact. Every change through this server is stamped with a growing number, by
//! object; what was read before the object's last stamp counts no more. Against other processes of this host
//! names hold while the directory's times do, and attributes for a second.

use super::{Node, Stat};
use crate::host::ObjectKey;
use crate::vfs::Memo;
use ehpc_proto::replication::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Attributes, which other processes can change unseen, are believed so long.
const BELIEVED: Duration = Duration::from_secs(1);
/// A directory whose times are younger than this when it is read may change again without their moving.
const TICK_NS: i128 = 20_000_000;
/// Stamps; objects that share one spoil each other's listings, no more.
const STAMPS: usize = 16 * 1024;
/// Bytes of one listing and of all.
const MAX_LISTING: usize = 12 << 20;
const MAX_BYTES: usize = 32 << 20;
/// What an entry costs beside its name and what its reader keeps of it.
const ENTRY: usize = 640;

/// One entry.
pub(super) struct Entry {
    pub(super) fileid: u64,
    pub(super) name: Box<[u8]>,
    /// Resume after it.
    pub(super) cookie: u64,
    /// The object, where there is one to tell of.
    pub(super) node: Option<Node>,
    /// When it was born, where the file system knows.
    pub(super) born: Option<Timestamp>,
    pub(super) memo: Memo,
    /// Number of the newest change when the object was about to be read.
    pub(super) stamp: u64,
    pub(super) read: Instant,
}

/// A directory's entries from its start on, as far as they have been read.
pub(super) struct Listing {
    times: (Timestamp, Timestamp),
    stamp: u64,
    read: Instant,
    racy: bool,
    pub(super) entries: Vec<Entry>,
    /// The last entry is the directory's last.
    pub(super) complete: bool,
    bytes: usize,
}

impl Listing {
    /// Where to go on after `cookie`.
    pub(super) fn after(&self, cookie: u64) -> Option<usize> {
        if cookie == 0 {
            return Some(0);
        }
        self.entries.iter().position(|entry| entry.cookie == cookie).map(|at| at + 1)
    }

    /// Forgets the entries from number `at` on.
    pub(super) fn cut(&mut self, at: usize) {
        self.entries.truncate(at);
        self.complete = false;
        self.bytes = cost(&self.entries);
    }
}

/// A part of a directory that was read just now.
pub(super) struct Part {
    /// Where it starts.
    pub(super) from: u64,
    /// The directory just before it was read.
    pub(super) directory: Stat,
    /// Number of the newest change then.
    pub(super) stamp: u64,
    pub(super) read: Instant,
    pub(super) now: Timestamp,
    pub(super) entries: Vec<Entry>,
    pub(super) complete: bool,
}

/// Is the last stamp no later than `since`?
fn not_after(last: Option<&AtomicU64>, since: u64) -> bool {
    last.is_some_and(|last| last.load(Ordering::SeqCst) <= since)
}

fn cost(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| ENTRY + entry.name.len()).sum()
}

fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// See the module.
pub(super) struct Listings {
    kept: Mutex<Kept>,
    newest: AtomicU64,
    stamps: Box<[AtomicU64]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Kept {
    listings: HashMap<ObjectKey, (Arc<Mutex<Listing>>, usize, Instant)>,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Mutex<Listing>>> {
        let (listing, bytes, _) = self.listings.remove(key)?;
        self.bytes -= bytes;
        Some(listing)
    }
}

impl Listings {
    pub(super) fn new() -> Listings {
        Listings {
            kept: Mutex::default(),
            newest: AtomicU64::new(1),
            stamps: (0..STAMPS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The stamps of the object's attributes and of its entries.
    fn stamps_of(&self, key: &ObjectKey) -> (Option<&AtomicU64>, Option<&AtomicU64>) {
        let hash = self.hasher.hash_one(key);
        let at = |hash: u64| self.stamps.get(hash as usize % STAMPS);
        (at(hash), at(hash.rotate_left(32)))
    }

    /// The object was just changed, its attributes or its entries. To be told before the change is answered.
    pub(super) fn changed(&self, key: &ObjectKey) {
        let (attributes, entries) = self.stamps_of(key);
        self.stamp(attributes);
        self.stamp(entries);
    }

    /// The object was read: its access time may have moved, its entries have not.
    pub(super) fn accessed(&self, key: &ObjectKey) {
        self.stamp(self.stamps_of(key).0);
    }

    fn stamp(&self, stamp: Option<&AtomicU64>) {
        let number = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(stamp) = stamp {
            stamp.fetch_max(number, Ordering::SeqCst);
        }
    }

    /// To be asked before an object is read: its reading counts until a later change of it.
    pub(super) fn now(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// May the entry's attributes be told?
    pub(super) fn is_fresh(&self, entry: &Entry, now: Instant) -> bool {
        now.saturating_duration_since(entry.read) < BELIEVED
            && entry.node.as_ref().is_none_or(|node| not_after(self.stamps_of(&node.key).0, entry.stamp))
    }

    /// What is kept of a directory, which is as `stat` says now.
    pub(super) fn get(&self, key: &ObjectKey, stat: &Stat, now: Instant) -> Option<Arc<Mutex<Listing>>> {
        let listing = {
            let mut kept = self.kept.lock();
            let (listing, _, used) = kept.listings.get_mut(key)?;
            *used = now;
            Arc::clone(listing)
        };
        let valid = self.is_valid(key, &listing.lock(), stat, now);
        if valid {
            return Some(listing);
        }
        let out = self.kept.lock().remove(key);
        drop(out);
        None
    }

    fn is_valid(&self, key: &ObjectKey, listing: &Listing, stat: &Stat, now: Instant) -> bool {
        listing.times == (stat.mtime, stat.ctime)
            && not_after(self.stamps_of(key).1, listing.stamp)
            && (!listing.racy || now.saturating_duration_since(listing.read) < BELIEVED)
    }

    /// Keeps what was read, if it begins where the directory does or where what is kept of it ends.
    pub(super) fn keep(&self, key: &ObjectKey, part: Part) {
        let bytes = cost(&part.entries);
        let known = self.get(key, &part.directory, part.read);
        let total = match known {
            Some(listing) => {
                let mut listing = listing.lock();
                let continues = !listing.complete
                    && listing.entries.last().is_some_and(|last| last.cookie == part.from)
                    && listing.bytes + bytes <= MAX_LISTING;
                if !continues {
                    return;
                }
                listing.entries.extend(part.entries);
                listing.complete = part.complete;
                listing.bytes += bytes;
                listing.bytes
            }
            None if part.from == 0 && bytes <= MAX_LISTING => {
                // Whatever sets other times, or changes entries, moves ctime to now.
                let age = nanoseconds(part.now) - nanoseconds(part.directory.ctime);
                let listing = Listing {
                    times: (part.directory.mtime, part.directory.ctime),
                    stamp: part.stamp,
                    read: part.read,
                    racy: age < TICK_NS,
                    entries: part.entries,
                    complete: part.complete,
                    bytes,
                };
                let new = (Arc::new(Mutex::new(listing)), 0, part.read);
                let mut kept = self.kept.lock();
                let out = kept.remove(key);
                kept.listings.insert(key.clone(), new);
                drop(kept);
                drop(out);
                bytes
            }
            None => return,
        };
        self.account(key, total);
    }

    /// A listing has grown to `bytes`: those that were not used for longest make room.
    fn account(&self, key: &ObjectKey, bytes: usize) {
        let mut out = Vec::new();
        let mut kept = self.kept.lock();
        let Kept { listings, bytes: all } = &mut *kept;
        if let Some((_, counted, _)) = listings.get_mut(key) {
            *all = (*all + bytes).saturating_sub(*counted);
            *counted = bytes;
        }
        while kept.bytes > MAX_BYTES && kept.listings.len() > 1 {
            let oldest = kept.listings.iter().filter(|(other, _)| *other != key);
            let oldest = oldest.min_by_key(|(_, (_, _, used))| *used).map(|(oldest, _)| oldest.clone());
            let Some(oldest) = oldest else { break };
            out.extend(kept.remove(&oldest));
        }
        drop(kept);
        drop(out);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}
