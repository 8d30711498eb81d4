//! The dirty set: numbered changes not yet acknowledged by the backup.
//!
//! Changes wait in a queue of places, in order of arrival. A change that finds its object or its name
//! already waiting joins that place: the state is read when the place is taken, which is later than
//! both, so one reading serves both. Every note still gets a number of its own, and the cut is the
//! number before the first that still waits: a join can only make it smaller than it might be.

use super::lag::LagMarks;
pub use super::tickets::Ticket;
use super::tickets::Tickets;
pub use super::touch::{Change, Content, Entry, Touch};
use crate::observe::metrics;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// Entries that one place may gather from renames that share names.
const MAX_JOINED_ENTRIES: usize = 64;
/// From here on, single names are noted as "the whole listing of their directory".
const COARSEN_FROM: usize = 200_000;
/// From here on, changes are not kept one by one: only a scan can find them (`DirtySet::spilled`).
const SPILL_FROM: usize = 400_000;

/// Who noticed a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The NFS server itself.
    Nfs,
    /// fanotify or inotify.
    Watcher,
    /// The reconcile scan.
    Scan,
    /// The sender (read again), verify (repair), the backup's catalog.
    Other,
}

/// How far what a source says of an object's content may be believed.
///
/// The sender stores a new ctime with whatever it read. If something else happened to the content that
/// nobody has told of yet, a reading of less than all of it would hide that from the scan for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trust {
    /// Changes may have been missed that no scan has looked for yet: all content is read.
    Uncertain,
    /// Other writers may be noticed late or by scans only: ranges mean all of the content.
    Loose,
    /// Every other change has its own note: what is said is exact.
    Exact,
}

/// Changes noted since the start, by who noticed them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[allow(missing_docs)]
pub struct NotedCounts {
    pub nfs: u64,
    pub watcher: u64,
    pub scan: u64,
    pub other: u64,
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
pub struct DirtySet {
    queue: Mutex<Queue>,
    filled: Notify,
    tickets: Arc<Tickets>,
    acknowledged: watch::Sender<u64>,
    noted: [AtomicU64; 4],
    trust: AtomicU8,
}

impl Default for DirtySet {
    fn default() -> DirtySet {
        DirtySet {
            queue: Mutex::new(Queue::new(COARSEN_FROM, SPILL_FROM)),
            filled: Notify::new(),
            tickets: Arc::default(),
            acknowledged: watch::Sender::new(0),
            noted: Default::default(),
            trust: AtomicU8::new(Trust::Exact as u8),
        }
    }
}

impl DirtySet {
    /// An empty set.
    pub fn new() -> Arc<DirtySet> {
        Arc::new(DirtySet::default())
    }

    /// Opened before an operation that will note a change; closed by dropping it.
    pub fn ticket(&self) -> Ticket {
        Tickets::open(&self.tickets)
    }

    /// Notes a change after the system call that made it; returns its number.
    pub fn note(&self, change: Change) -> u64 {
        self.note_from(Source::Other, change)
    }

    /// [`DirtySet::note`], counted under `source`.
    pub fn note_from(&self, source: Source, change: Change) -> u64 {
        self.noted[source as usize].fetch_add(1, Ordering::Relaxed);
        metrics::CHANGES_NOTED.inc();
        let change = match change {
            Change::Object(key, touch) if matches!(source, Source::Nfs | Source::Watcher) => {
                Change::Object(key, self.believed(touch))
            }
            other => other,
        };
        let (number, was_empty) = {
            let mut queue = self.queue.lock();
            let was_empty = queue.waiting == 0;
            (queue.note(change), was_empty)
        };
        if was_empty {
            self.filled.notify_one();
        }
        number
    }

    /// From now on what is noted is believed so far. Change capture sets it; without it all is exact.
    pub(super) fn trust(&self, trust: Trust) {
        self.trust.store(trust as u8, Ordering::SeqCst);
    }

    fn believed(&self, touch: Touch) -> Touch {
        let trust = self.trust.load(Ordering::SeqCst);
        let exact = match touch.content {
            Content::All => true,
            Content::Ranges(_) => trust >= Trust::Exact as u8,
            Content::Keep => trust >= Trust::Loose as u8,
        };
        if exact || touch.listing { touch } else { Touch { content: Content::All, ..touch } }
    }

    /// Newest number given out; 0 before the first.
    pub fn current(&self) -> u64 {
        self.queue.lock().current
    }

    /// Takes up to `max` changes from the front of the queue.
    pub fn take(&self, max: usize) -> Taken {
        self.queue.lock().take(max)
    }

    /// Changes that wait to be taken.
    pub fn pending(&self) -> usize {
        self.queue.lock().waiting
    }

    /// Until something is pending, or the cut moves though nothing is. For one waiter, the sender.
    pub async fn wait(&self) {
        loop {
            {
                let queue = self.queue.lock();
                if queue.waiting > 0 || queue.cut_moved {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The backup has a state, read at or after it, of every change numbered <= `cut`.
    pub fn acknowledge(&self, cut: u64) {
        self.queue.lock().marks.acknowledge(cut);
        self.acknowledged.send_if_modified(|acknowledged| {
            let newer = cut > *acknowledged;
            *acknowledged = cut.max(*acknowledged);
            newer
        });
    }

    /// Follows the newest acknowledged number.
    pub fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    /// When the oldest change was noted that the backup has not acknowledged (to about 5 ms).
    pub fn oldest_unacknowledged(&self) -> Option<Instant> {
        self.queue.lock().marks.oldest()
    }

    /// Resolves when all tickets are closed that are open now.
    pub async fn tickets_closed(&self) {
        self.tickets.closed().await;
    }

    /// Changes noted since the start.
    pub fn noted(&self) -> NotedCounts {
        let count = |source: Source| self.noted[source as usize].load(Ordering::Relaxed);
        NotedCounts {
            nfs: count(Source::Nfs),
            watcher: count(Source::Watcher),
            scan: count(Source::Scan),
            other: count(Source::Other),
        }
    }

    /// True while changes were dropped for want of room: a full scan must find them, and the cut stays
    /// below them until [`DirtySet::scanned`] says that one did.
    pub fn spilled(&self) -> bool {
        self.queue.lock().spilled.is_some()
    }

    /// A full scan has noted all it found; it began when [`DirtySet::current`] was `began`.
    pub fn scanned(&self, began: u64) {
        let mut queue = self.queue.lock();
        if queue.spilled.is_some_and(|(_, last)| last <= began) {
            queue.spilled = None;
            queue.cut_moved = true;
            // A cut that was held back must reach the sender even if nothing else happens.
            drop(queue);
            self.filled.notify_one();
        }
    }
}

/// A change in its place.
struct Slot {
    /// The oldest number that it stands for.
    first: u64,
    /// `None`: joined to an older place.
    change: Option<Change>,
}

struct Queue {
    /// Newest number given out.
    current: u64,
    /// Place of `slots[0]`.
    base: u64,
    slots: VecDeque<Slot>,
    /// Slots that hold a change.
    waiting: usize,
    /// Hash of an object or entry -> its place. A hash is not the thing: the slot is compared.
    places: HashMap<u64, u64, BuildHasherDefault<Identity>>,
    hashing: RandomState,
    marks: LagMarks,
    /// First and last number dropped for want of room.
    spilled: Option<(u64, u64)>,
    /// A hold on the cut was lifted since the last `take`.
    cut_moved: bool,
    coarsen_from: usize,
    spill_from: usize,
}

impl Queue {
    fn new(coarsen_from: usize, spill_from: usize) -> Queue {
        Queue {
            current: 0,
            base: 0,
            slots: VecDeque::new(),
            waiting: 0,
            places: HashMap::default(),
            hashing: RandomState::new(),
            marks: LagMarks::default(),
            spilled: None,
            cut_moved: false,
            coarsen_from,
            spill_from,
        }
    }

    fn note(&mut self, change: Change) -> u64 {
        self.current += 1;
        self.marks.noted(self.current, Instant::now());
        match change {
            Change::Object(key, touch) => self.note_object(key, touch),
            Change::Entries(entries) if entries.is_empty() => {}
            Change::Entries(mut entries) => match entries.len() {
                1 => {
                    if let Some(entry) = entries.pop() {
                        self.note_entry(entry);
                    }
                }
                _ => self.note_joined(entries.into_vec()),
            },
        }
        self.current
    }

    fn note_object(&mut self, key: super::ObjectKey, touch: Touch) {
        let hash = self.hashing.hash_one(&key);
        if let Some(Change::Object(known, waiting)) = self.at(hash)
            && *known == key
        {
            waiting.merge(touch);
            return;
        }
        if self.waiting >= self.spill_from {
            self.spill();
            return;
        }
        let place = self.push(Change::Object(key, touch));
        self.places.insert(hash, place);
    }

    fn note_entry(&mut self, entry: Entry) {
        let hash = self.hashing.hash_one(&entry);
        if self.holds_entry(hash, &entry) {
            return;
        }
        // A listing that is still to be read covers every name in it.
        let dir_hash = self.hashing.hash_one(&entry.dir);
        if let Some(Change::Object(known, touch)) = self.at(dir_hash)
            && *known == entry.dir
            && touch.listing
        {
            return;
        }
        if self.waiting >= self.coarsen_from {
            self.note_object(entry.dir, Touch::LISTING);
            return;
        }
        let place = self.push(Change::Entries([entry].into_iter().collect()));
        self.places.insert(hash, place);
    }

    /// Both ends of a rename: they join all places that hold one of them, at the oldest of these places,
    /// so that no prefix of the queue ends between them.
    fn note_joined(&mut self, mut entries: Vec<Entry>) {
        let mut places: Vec<u64> = entries.iter().filter_map(|entry| self.entry_place(entry)).collect();
        places.sort_unstable();
        places.dedup();
        let size = |place: &u64| match self.slot(*place).and_then(|slot| slot.change.as_ref()) {
            Some(Change::Entries(held)) => held.len(),
            _ => 0,
        };
        if places.iter().map(size).sum::<usize>() + entries.len() > MAX_JOINED_ENTRIES {
            places.clear();
        }
        let target = match places.first() {
            Some(&oldest) => oldest,
            None if self.waiting >= self.spill_from => return self.spill(),
            None => self.push(Change::Entries(Default::default())),
        };
        for &place in places.iter().skip(1) {
            if let Some(Change::Entries(moved)) = self.slot_mut(place).and_then(|slot| slot.change.take()) {
                self.waiting -= 1;
                entries.extend(moved);
            }
        }
        for entry in entries {
            let hash = self.hashing.hash_one(&entry);
            if let Some(Change::Entries(held)) = self.slot_mut(target).and_then(|slot| slot.change.as_mut())
                && !held.contains(&entry)
            {
                held.push(entry);
            }
            self.places.insert(hash, target);
        }
    }

    /// Number `current` is known to a scan only; later numbers too until then.
    fn spill(&mut self) {
        let first = self.spilled.map_or(self.current, |(first, _)| first);
        self.spilled = Some((first, self.current));
    }

    fn push(&mut self, change: Change) -> u64 {
        self.slots.push_back(Slot { first: self.current, change: Some(change) });
        self.waiting += 1;
        self.base + self.slots.len() as u64 - 1
    }

    fn slot(&self, place: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(place.checked_sub(self.base)?).ok()?)
    }

    fn slot_mut(&mut self, place: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(place.checked_sub(self.base)?).ok()?)
    }

    fn at(&mut self, hash: u64) -> Option<&mut Change> {
        let place = *self.places.get(&hash)?;
        self.slot_mut(place)?.change.as_mut()
    }

    fn holds_entry(&mut self, hash: u64, entry: &Entry) -> bool {
        matches!(self.at(hash), Some(Change::Entries(held)) if held.contains(entry))
    }

    fn entry_place(&mut self, entry: &Entry) -> Option<u64> {
        let hash = self.hashing.hash_one(entry);
        let place = *self.places.get(&hash)?;
        self.holds_entry(hash, entry).then_some(place)
    }

    fn take(&mut self, max: usize) -> Taken {
        self.cut_moved = false;
        let mut changes = Vec::with_capacity(max.min(self.waiting));
        while changes.len() < max
            && let Some(slot) = self.slots.pop_front()
        {
            let place = self.base;
            self.base += 1;
            let Some(change) = slot.change else { continue };
            self.waiting -= 1;
            self.forget(&change, place);
            changes.push(change);
        }
        // Places that joined older ones do not hold the cut back.
        while self.slots.front().is_some_and(|slot| slot.change.is_none()) {
            self.slots.pop_front();
            self.base += 1;
        }
        if self.slots.is_empty() {
            // Give back what a burst took.
            self.slots.shrink_to(1024);
            self.places.shrink_to(1024);
        }
        let waiting = self.slots.front().map_or(self.current, |slot| slot.first - 1);
        let cut = self.spilled.map_or(waiting, |(first, _)| waiting.min(first - 1));
        Taken { cut, changes }
    }

    fn forget(&mut self, change: &Change, place: u64) {
        let mut forget = |hash: u64| {
            if self.places.get(&hash) == Some(&place) {
                self.places.remove(&hash);
            }
        };
        match change {
            Change::Object(key, _) => forget(self.hashing.hash_one(key)),
            Change::Entries(entries) => entries.iter().for_each(|entry| forget(self.hashing.hash_one(entry))),
        }
    }
}

/// The map's keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
#[path = "dirty_tests.rs"]
mod tests;
