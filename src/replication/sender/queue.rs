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
    /// It could not be opened where it was last seen; so many times.
    Again(Box<Work>, u8),
}

/// A directory to be listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub take: TakeId,
    pub dir: ObjectKey,
    /// Also the known directories under it, and files whose times differ.
    pub deep: bool,
    /// Names still to be looked up, the next one last; `None` = the directory was not read yet.
    pub names: Option<Vec<Name>>,
    /// From this place on the files among them have been asked for.
    pub asked: usize,
    /// Share of the names that is being looked at, of how many: a huge directory is read once for each share.
    pub share: u32,
    pub shares: u32,
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub name: Box<[u8]>,
    /// A regular file of which nothing is known: it will be read.
    pub is_new_file: bool,
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
    unread: HashMap<ObjectKey, SmallVec<[TakeId; 1]>>,
    deferred: Vec<(Instant, TakeId, Work)>,
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
        self.unread.entry(dir.clone()).or_default().push(take);
        self.listings.push(Listing { take, dir, deep, names: None, asked: 0, share: 0, shares: 1 });
    }

    /// Work that is left alone until `due`; an object that waits already is read once for both.
    pub(crate) fn defer(&mut self, due: Instant, take: TakeId, work: Work) {
        if let Work::Object(key, touch) = &work {
            let waiting = self.deferred.iter_mut().find_map(|(_, take, work)| match work {
                Work::Object(other, waiting) if other == key => Some((take, waiting)),
                _ => None,
            });
            if let Some((waiting_take, waiting)) = waiting {
                waiting.merge(touch.clone());
                // Cuts are reached in the order of takes, so the earlier of the two holds both back. (0 is no take.)
                let later = *waiting_take;
                if take != 0 && (later == 0 || take < later) {
                    *waiting_take = take;
                    self.count(take);
                    self.done(later);
                }
                return;
            }
        }
        self.count(take);
        self.deferred.push((due, take, work));
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
        if listing.names.is_none()
            && listing.share == 0
            && let Some(takes) = self.unread.get_mut(&listing.dir)
        {
            if let Some(at) = takes.iter().position(|take| *take == listing.take) {
                takes.swap_remove(at);
            }
            if takes.is_empty() {
                self.unread.remove(&listing.dir);
            }
        }
        Some(listing)
    }

    /// Goes on with it later; directories found meanwhile come first.
    pub(crate) fn put_listing_back(&mut self, listing: Listing) {
        if listing.names.is_none() && listing.share == 0 {
            self.unread.entry(listing.dir.clone()).or_default().push(listing.take);
        }
        self.listings.push(listing);
    }

    /// Will this directory be read from its beginning before the cut of `take` is reached, so that no name in it needs
    /// to be looked at now? (Take 0 is no take.)
    pub(crate) fn will_be_listed(&self, take: TakeId, dir: &ObjectKey) -> bool {
        self.unread.get(dir).is_some_and(|takes| takes.iter().any(|listed| (1..=take).contains(listed)))
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
        for (due, take, work) in std::mem::take(&mut self.deferred) {
            if due <= now {
                self.work.push_back((take, work));
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
                kept.push((due, take, work));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::KeyKind;
    use std::time::Duration;

    fn object(n: u8) -> Change {
        Change::Object(key(n), Touch::CONTENT)
    }

    fn key(n: u8) -> ObjectKey {
        ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&[n]) }
    }

    #[test]
    fn the_cut_is_reached_when_everything_before_it_is_done() {
        let mut queue = Queue::default();
        queue.add(5, vec![object(1), object(2)]);
        queue.add(7, vec![object(3)]);
        queue.add(9, Vec::new());
        let (first, _) = queue.next().unwrap();
        let (second, _) = queue.next().unwrap();
        let (third, _) = queue.next().unwrap();
        queue.done(third);
        queue.list(first, key(9), false);
        queue.done(first);
        assert_eq!(queue.reached(), 0, "a directory is still to be listed, and one object");
        queue.done(second);
        assert!(queue.will_be_listed(first, &key(9)) && queue.will_be_listed(third, &key(9)));
        assert!(!queue.will_be_listed(0, &key(9)));
        let listing = queue.next_listing().unwrap();
        assert!(!queue.will_be_listed(third, &key(9)));
        assert_eq!(queue.reached(), 0);
        queue.done(listing.take);
        assert_eq!(queue.reached(), 9);
        assert!(queue.is_idle());
    }

    #[test]
    fn work_to_be_done_again_takes_the_cut_back() {
        let mut queue = Queue::default();
        queue.add(5, vec![object(1)]);
        queue.add(6, vec![object(2)]);
        let (take, _) = queue.next().unwrap();
        queue.done(take);
        assert_eq!(queue.reached(), 5);
        queue.redo(3, vec![Work::Object(key(1), Touch::CONTENT)]);
        assert_eq!(queue.reached(), 3);
        let (again, work) = queue.next().unwrap();
        assert!(matches!(work, Work::Object(redone, _) if redone == key(1)), "it comes first");
        let (other, _) = queue.next().unwrap();
        queue.done(other);
        assert_eq!(queue.reached(), 3);
        queue.done(again);
        assert_eq!(queue.reached(), 6);
        queue.redo(2, Vec::new());
        assert_eq!(queue.reached(), 6, "nothing is to be done again");
    }

    #[test]
    fn deferred_work_holds_the_cut_and_comes_back() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add(4, vec![object(1)]);
        let (take, _) = queue.next().unwrap();
        queue.defer(now + Duration::from_secs(1), take, Work::Object(key(1), Touch::CONTENT));
        queue.done(take);
        queue.add(8, vec![object(1)]);
        let (later, _) = queue.next().unwrap();
        queue.defer(now + Duration::from_secs(1), later, Work::Object(key(1), Touch::CONTENT));
        queue.done(later);
        assert_eq!(queue.reached(), 0);
        assert_eq!(queue.wake_deferred(now), Some(now + Duration::from_secs(1)));
        assert!(queue.is_idle());
        assert_eq!(queue.wake_deferred(now + Duration::from_secs(2)), None);
        let mut touches = Vec::new();
        while let Some((take, Work::Object(_, touch))) = queue.next() {
            assert_eq!(queue.reached(), 0);
            touches.push(touch);
            queue.done(take);
        }
        assert_eq!(touches, [Touch::CONTENT], "read once for all takes, and not looked at again for each");
        assert_eq!(queue.reached(), 8);
    }

    #[test]
    fn deferred_work_is_held_by_the_earliest_of_its_takes() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add(4, vec![object(1)]);
        queue.add(8, vec![object(1)]);
        let (earlier, _) = queue.next().unwrap();
        let (later, _) = queue.next().unwrap();
        // No take at all, then the later, then the earlier one.
        for take in [0, later, earlier] {
            queue.defer(now, take, Work::Object(key(1), Touch::CONTENT));
            queue.done(take);
        }
        assert_eq!(queue.reached(), 0);
        assert_eq!(queue.wake_deferred(now), None);
        let (take, _) = queue.next().unwrap();
        assert_eq!(take, earlier);
        assert!(queue.next().is_none());
        queue.done(take);
        assert_eq!(queue.reached(), 8);
    }

    #[test]
    fn a_hold_ends_when_what_a_scan_found_is_done() {
        let mut queue = Queue::default();
        queue.add(5, vec![object(1)]);
        queue.hold(2);
        queue.clear();
        assert_eq!(queue.reached(), 2, "what was lost is known to a scan only");
        queue.add(9, vec![object(2)]);
        queue.scanned(9);
        assert_eq!(queue.reached(), 2);
        let (take, _) = queue.next().unwrap();
        queue.done(take);
        assert_eq!(queue.reached(), 9);
    }
}
