//! The set of the export's directories: what a watcher asks before it cares.
//!
//! A directory is in the set from before it is first listed: whoever adds one inserts it here, *then*
//! lists it, so that every later change in it is noticed and every earlier one is seen by the listing.
//! Every other object is noted the same way before its state is read, as a fingerprint of its key: a
//! write through a hard link outside of the export is told from all other writes of the file system
//! with one look-up. A fingerprint that two keys share costs a change too many, never one too few.

use crate::host::ObjectKey;
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

const SHARDS: usize = 16;

/// Told when the set changes. Called without any lock of the set, by the thread that changed it.
pub trait DirectoryObserver: Send + Sync {
    /// `key` has just become a member; it is listed only after this returns.
    fn inserted(&self, key: &ObjectKey);
    /// `key` is no member any more.
    fn removed(&self, key: &ObjectKey);
}

/// Keys of the export's directories. Shared by watcher, scan and sender.
#[derive(Default)]
pub struct DirectorySet {
    shards: [RwLock<HashSet<ObjectKey>>; SHARDS],
    fingerprints: [RwLock<HashSet<u32, BuildHasherDefault<Fingerprint>>>; SHARDS],
    hashing: RandomState,
    observer: RwLock<Option<Arc<dyn DirectoryObserver>>>,
    /// Insertions and removals reach the observer in the order in which they happened.
    telling: Mutex<()>,
}

impl DirectorySet {
    /// An empty set.
    pub fn new() -> Arc<DirectorySet> {
        Arc::default()
    }

    fn shard(&self, key: &ObjectKey) -> &RwLock<HashSet<ObjectKey>> {
        let hash = usize::try_from(self.hashing.hash_one(key) >> 60).unwrap_or(0);
        &self.shards[hash % SHARDS]
    }

    /// Adds a directory; returns whether it was new. Call it before the directory is listed.
    pub fn insert(&self, key: &ObjectKey) -> bool {
        let observer = self.observer.read();
        // Still under the lock when nobody listens: an observer that comes now finds the key in the set.
        let Some(observer) = observer.clone() else {
            return self.shard(key).write().insert(key.clone());
        };
        let _telling = self.telling.lock();
        let new = self.shard(key).write().insert(key.clone());
        if new {
            observer.inserted(key);
        }
        new
    }

    /// Removes a directory that is gone; returns whether it was there.
    pub fn remove(&self, key: &ObjectKey) -> bool {
        let observer = self.observer.read();
        let Some(observer) = observer.clone() else {
            return self.shard(key).write().remove(key);
        };
        let _telling = self.telling.lock();
        let known = self.shard(key).write().remove(key);
        if known {
            observer.removed(key);
        }
        known
    }

    /// Is this a directory of the export?
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.shard(key).read().contains(key)
    }

    /// Notes an object that is no directory. Call it before its state is read.
    pub fn insert_object(&self, key: &ObjectKey) {
        let (shard, fingerprint) = self.fingerprint(key);
        if !shard.read().contains(&fingerprint) {
            shard.write().insert(fingerprint);
        }
    }

    /// May this be an object of the export, directory or not? Never false for one that is.
    pub fn may_know(&self, key: &ObjectKey) -> bool {
        let (shard, fingerprint) = self.fingerprint(key);
        shard.read().contains(&fingerprint) || self.contains(key)
    }

    fn fingerprint(&self, key: &ObjectKey) -> (&RwLock<HashSet<u32, BuildHasherDefault<Fingerprint>>>, u32) {
        let hash = self.hashing.hash_one(key);
        let shard = usize::try_from(hash >> 60).unwrap_or(0) % SHARDS;
        // The low half: the high bits chose the shard.
        (&self.fingerprints[shard], (hash & u64::from(u32::MAX)) as u32)
    }

    /// Directories known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Installs the observer and tells it of every directory that is known already.
    pub(super) fn observe(&self, observer: Arc<dyn DirectoryObserver>) {
        let _telling = self.telling.lock();
        *self.observer.write() = Some(Arc::clone(&observer));
        for shard in &self.shards {
            let known: Vec<ObjectKey> = shard.read().iter().cloned().collect();
            known.iter().for_each(|key| observer.inserted(key));
        }
    }
}

impl DirectorySet {
    /// Nobody is told any more.
    pub(super) fn unobserve(&self) {
        let _telling = self.telling.lock();
        *self.observer.write() = None;
    }
}

/// A fingerprint is a hash already; the table wants its high bits set too.
#[derive(Default)]
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u32(&mut self, fingerprint: u32) {
        self.0 = u64::from(fingerprint).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::object::KeyKind;
    use smallvec::SmallVec;

    fn key(n: u64) -> ObjectKey {
        ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&n.to_be_bytes()) }
    }

    #[derive(Default)]
    struct Log(Mutex<Vec<(bool, ObjectKey)>>);

    impl DirectoryObserver for Log {
        fn inserted(&self, key: &ObjectKey) {
            self.0.lock().push((true, key.clone()));
        }
        fn removed(&self, key: &ObjectKey) {
            self.0.lock().push((false, key.clone()));
        }
    }

    #[test]
    fn members_come_and_go() {
        let set = DirectorySet::new();
        assert!(set.is_empty());
        assert!((0..1000).all(|n| set.insert(&key(n))));
        assert!(!set.insert(&key(5)));
        assert!(set.contains(&key(999)) && !set.contains(&key(1000)));
        assert!(set.remove(&key(5)) && !set.remove(&key(5)));
        assert_eq!(set.len(), 999);
    }

    #[test]
    fn objects_are_never_denied_and_strangers_almost_always() {
        let set = DirectorySet::new();
        (0..10_000).for_each(|n| set.insert_object(&key(n)));
        set.insert(&key(50_000));
        assert!((0..10_000).all(|n| set.may_know(&key(n))));
        assert!(set.may_know(&key(50_000)) && !set.contains(&key(5)));
        let mistaken = (100_000..200_000).filter(|&n| set.may_know(&key(n))).count();
        assert!(mistaken < 100, "{mistaken} of 100,000 strangers");
    }

    #[test]
    fn the_observer_hears_of_all_members_once() {
        let set = DirectorySet::new();
        set.insert(&key(1));
        let log = Arc::new(Log::default());
        set.observe(log.clone());
        set.insert(&key(1));
        set.insert(&key(2));
        set.remove(&key(1));
        set.remove(&key(3));
        assert_eq!(*log.0.lock(), [(true, key(1)), (true, key(2)), (false, key(1))]);
    }
}
