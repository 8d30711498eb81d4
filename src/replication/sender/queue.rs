//! What is to be looked at, and the cut that follows from what was.
//!
//! Each share of the dirty set that was taken is a *take*; the work that it leads to (also directories found on the
//! way) is counted under it. When all work of a take and of those before it is done, its cut is reached.

use crate::change::touch::{Change, Entry, Touch};
use crate::host::ObjectKey;
use ehpc_proto::replication::ObjectId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

/// Order of a take; older ones are smaller.
pub(crate) type TakeId = u64;

/// Something to look at.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Object(ObjectKey, Touch),
    Entries(SmallVec<[Entry; 2]>),
    /// The object exists no more; what is still under a directory is taken away first.
    Destroy(ObjectId),
}

/// A directory to be listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub take: TakeId,
    pub dir: ObjectKey,
    /// Also the known directories under it, and files whose times differ.
    pub deep: bool,
    /// Names still to be looked up, the next one last; `None` = the directory was not read yet.
    pub names: Option<Vec<Box<[u8]>>>,
    /// Share of the names that is being looked at, of how many: a huge directory is read once for each share.
    pub share: u32,
    pub shares: u32,
}

struct Take {
    cut: u64,
    left: usize,
}

/// All work that is not done.
pub(crate) struct Queue {
    work: VecDeque<(TakeId, Work)>,
    /// Taken from the end: depth first keeps it short.
    listings: Vec<Listing>,
    /// Directories in `listings` whose reading has not begun.
    unread: HashMap<ObjectKey, usize>,
    deferred: Vec<(Instant, TakeId, ObjectKey, Touch)>,
    takes: BTreeMap<TakeId, Take>,
    next_take: TakeId,
    reached: u64,
    /// While set, the cut stays there: only a scan finds what was lost. The second: what must be reached for it to go.
    hold: Option<(u64, Option<u64>)>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            work: VecDeque::new(),
            listings: Vec::new(),
            unread: HashMap::new(),
            deferred: Vec::new(),
            takes: BTreeMap::new(),
            // Work that must be done again goes before everything else.
            next_take: 1 << 32,
            reached: 0,
            hold: None,
        }
    }
}

impl Queue {
    /// Adds a share of the dirty set.
    pub(crate) fn add(&mut self, cut: u64, changes: Vec<Change>) {
        let take = self.next_take;
        self.next_take += 1;
        self.takes.insert(take, Take { cut, left: changes.len() });
        self.work.extend(changes.into_iter().map(|change| (take, work_of(change))));
        self.settle();
    }

    /// Adds work that was thought done: until it is, the cut is back at `reached`.
    pub(crate) fn redo(&mut self, reached: u64, work: Vec<Work>) {
        let take = self.takes.first_key_value().map_or(self.next_take, |(first, _)| *first) - 1;
        self.takes.insert(take, Take { cut: self.reached, left: work.len() });
        self.reached = reached;
        for work in work.into_iter().rev() {
            self.work.push_front((take, work));
        }
        self.settle();
    }

    /// More work that follows from work of `take`.
    pub(crate) fn spawn(&mut self, take: TakeId, work: Work) {
        self.count(take);
        self.work.push_back((take, work));
    }

    /// A directory to be listed, following from work of `take`.
    pub(crate) fn list(&mut self, take: TakeId, dir: ObjectKey, deep: bool) {
        self.count(take);
        *self.unread.entry(dir.clone()).or_default() += 1;
        self.listings.push(Listing { take, dir, deep, names: None, share: 0, shares: 1 });
    }

    /// An object that is left alone until `due`.
    pub(crate) fn defer(&mut self, due: Instant, take: TakeId, key: ObjectKey, touch: Touch) {
        for (_, waiting_take, waiting, waiting_touch) in &mut self.deferred {
            if *waiting == key {
                // Its own take holds the cut back; this one does too when it is older.
                waiting_touch.merge(touch);
                if take == *waiting_take {
                    return;
                }
                self.deferred_shares(take, key, due);
                return;
            }
        }
        self.count(take);
        self.deferred.push((due, take, key, touch));
    }

    fn deferred_shares(&mut self, take: TakeId, key: ObjectKey, due: Instant) {
        self.count(take);
        self.deferred.push((due, take, key, Touch::ATTRIBUTES));
    }

    fn count(&mut self, take: TakeId) {
        if let Some(take) = self.takes.get_mut(&take) {
            take.left += 1;
        }
    }

    /// The next piece of work; [`Queue::done`] is called when it is done.
    pub(crate) fn next(&mut self) -> Option<(TakeId, Work)> {
        self.work.pop_front()
    }

    /// It could not be done now.
    pub(crate) fn put_back(&mut self, take: TakeId, work: Work) {
        self.work.push_front((take, work));
    }

    /// The next directory to go on with.
    pub(crate) fn next_listing(&mut self) -> Option<Listing> {
        let listing = self.listings.pop()?;
        if listing.names.is_none() && listing.share == 0 {
            match self.unread.get_mut(&listing.dir) {
                Some(1) | None => {
                    self.unread.remove(&listing.dir);
                }
                Some(count) => *count -= 1,
            }
        }
        Some(listing)
    }

    /// Goes on with it later; directories found meanwhile come first.
    pub(crate) fn put_listing_back(&mut self, listing: Listing) {
        if listing.names.is_none() && listing.share == 0 {
            *self.unread.entry(listing.dir.clone()).or_default() += 1;
        }
        self.listings.push(listing);
    }

    /// Will this directory be read from its beginning, so that no name in it needs to be looked at now?
    pub(crate) fn will_be_listed(&self, dir: &ObjectKey) -> bool {
        self.unread.contains_key(dir)
    }

    /// A piece of work is done (its results are in the batch under construction).
    pub(crate) fn done(&mut self, take: TakeId) {
        if let Some(take) = self.takes.get_mut(&take) {
            take.left = take.left.saturating_sub(1);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(first) = self.takes.first_entry()
            && first.get().left == 0
        {
            self.reached = self.reached.max(first.remove().cut);
        }
    }

    /// All changes numbered up to this have been looked at.
    pub(crate) fn reached(&self) -> u64 {
        match self.hold {
            Some((held, until)) if until.is_none_or(|until| self.reached < until) => held.min(self.reached),
            _ => self.reached,
        }
    }

    /// The cut stays at `acknowledged` until a scan has finished and what it noted was looked at.
    pub(crate) fn hold(&mut self, acknowledged: u64) {
        self.hold = Some((acknowledged, None));
    }

    /// The cut moves on by itself again.
    pub(crate) fn unhold(&mut self) {
        self.hold = None;
    }

    /// Work that no change stands for.
    pub(crate) fn extra(&mut self, work: Vec<Work>) {
        self.work.extend(work.into_iter().map(|work| (0, work)));
    }

    /// A scan has finished; everything that it noted is numbered up to `current`.
    pub(crate) fn scanned(&mut self, current: u64) {
        if let Some((_, until)) = &mut self.hold {
            *until = Some(current);
        }
    }

    /// Forgets all work. (The cut does not pass it: see [`Queue::hold`].)
    pub(crate) fn clear(&mut self) {
        let (reached, hold) = (self.reached(), self.hold);
        let mut newest = reached;
        for take in self.takes.values() {
            newest = newest.max(take.cut);
        }
        *self = Queue { next_take: self.next_take, reached: newest, hold, ..Queue::default() };
    }

    /// Is there anything to do right now?
    pub(crate) fn is_idle(&self) -> bool {
        self.work.is_empty() && self.listings.is_empty()
    }

    /// Pieces of work besides directories.
    pub(crate) fn work_len(&self) -> usize {
        self.work.len()
    }

    /// Directories to list.
    pub(crate) fn listings_len(&self) -> usize {
        self.listings.len()
    }

    /// Puts what was deferred until now back to work; when the next of it is due.
    pub(crate) fn wake_deferred(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut kept = Vec::new();
        for (due, take, key, touch) in std::mem::take(&mut self.deferred) {
            if due <= now {
                self.work.push_back((take, Work::Object(key, touch)));
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
                kept.push((due, take, key, touch));
            }
        }
        self.deferred = kept;
        next
    }
}

fn work_of(change: Change) -> Work {
    match change {
        Change::Object(key, touch) => Work::Object(key, touch),
        Change::Entries(entries) => Work::Entries(entries),
    }
}
