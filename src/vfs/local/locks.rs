//! One lock per object around "stat, change, stat": without it a reply's wcc data would claim another
//! client's change as part of this one, and a client would keep stale pages.

use crate::host::ObjectKey;
use parking_lot::{Mutex, MutexGuard};
use std::hash::{BuildHasher, RandomState};

const SHARDS: usize = 1024;

pub(super) struct Locks {
    shards: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(super) fn new() -> Locks {
        Locks { shards: (0..SHARDS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    fn index(&self, key: &ObjectKey) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    pub(super) fn one(&self, key: &ObjectKey) -> Option<MutexGuard<'_, ()>> {
        self.shards.get(self.index(key)).map(|shard| shard.lock())
    }

    /// Both, always in the same order; once if they share a lock.
    pub(super) fn two(
        &self,
        a: &ObjectKey,
        b: &ObjectKey,
    ) -> (Option<MutexGuard<'_, ()>>, Option<MutexGuard<'_, ()>>) {
        let (a, b) = (self.index(a), self.index(b));
        let (low, high) = (a.min(b), a.max(b));
        let first = self.shards.get(low).map(|shard| shard.lock());
        let second = if low == high { None } else { self.shards.get(high).map(|shard| shard.lock()) };
        (first, second)
    }
}
