//! Open descriptors kept for the next operation: by object, least recently used out first.
//!
//! A kept descriptor says nothing about who may use it: that is asked of the kernel on every use. It also
//! keeps a deleted file's blocks allocated, so removal drops it at once and what is idle is closed soon.

use crate::host::ObjectKey;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHARDS: usize = 256;
/// Most objects with kept descriptors, all shards together.
const MAX_OBJECTS: u64 = 16_384;
/// An object has up to this many, and as many again are left to sockets and to the rest of the process.
const MAX_PER_OBJECT: u64 = 4;

/// What a descriptor was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// O_PATH.
    Path,
    /// Content, reading.
    Read,
    /// Content, writing.
    Write,
    /// fsync alone, opened under the process's own ids.
    Flush,
}

struct Kept {
    /// Indexed by `Use`.
    open: [Option<Arc<OwnedFd>>; 4],
    used: Instant,
}

pub(super) struct Descriptors {
    shards: [Mutex<HashMap<ObjectKey, Kept>>; SHARDS],
    hasher: RandomState,
    objects_per_shard: usize,
}

impl Descriptors {
    /// For a process that may have `limit` descriptors.
    pub(super) fn new(limit: u64) -> Descriptors {
        let objects = MAX_OBJECTS.min(limit / (2 * MAX_PER_OBJECT));
        let objects_per_shard = usize::try_from(objects).unwrap_or(0) / SHARDS;
        Descriptors {
            objects_per_shard: objects_per_shard.max(1),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, key: &ObjectKey) -> &Mutex<HashMap<ObjectKey, Kept>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards.get(index).unwrap_or(&self.shards[0])
    }

    pub(super) fn get(&self, key: &ObjectKey, how: Use) -> Option<Arc<OwnedFd>> {
        let mut shard = self.shard(key).lock();
        let kept = shard.get_mut(key)?;
        let fd = kept.open.get(how as usize)?.clone()?;
        kept.used = Instant::now();
        Some(fd)
    }

    /// Whatever is open of the object: good for stat, permission questions and reopening.
    pub(super) fn any(&self, key: &ObjectKey) -> Option<Arc<OwnedFd>> {
        let mut shard = self.shard(key).lock();
        let kept = shard.get_mut(key)?;
        kept.used = Instant::now();
        kept.open.iter().flatten().next().cloned()
    }

    pub(super) fn keep(&self, key: &ObjectKey, how: Use, fd: &Arc<OwnedFd>) {
        // Descriptors are closed after the lock is released: closing can take its time.
        let mut out = None;
        let mut shard = self.shard(key).lock();
        if !shard.contains_key(key) && shard.len() >= self.objects_per_shard {
            let oldest = shard.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            out = oldest.and_then(|key| shard.remove(&key));
        }
        let kept = shard
            .entry(key.clone())
            .or_insert_with(|| Kept { open: [const { None }; 4], used: Instant::now() });
        let replaced = kept.open.get_mut(how as usize).and_then(|place| place.replace(fd.clone()));
        drop(shard);
        drop((out, replaced));
    }

    /// The object is deleted, or its descriptors proved useless.
    pub(super) fn drop_object(&self, key: &ObjectKey) {
        let out = self.shard(key).lock().remove(key);
        drop(out);
    }

    /// Closes what was not used for `idle`.
    pub(super) fn sweep(&self, idle: Duration) {
        for shard in &self.shards {
            let now = Instant::now();
            let old: Vec<Kept> = {
                let mut shard = shard.lock();
                shard
                    .extract_if(|_, kept| now.duration_since(kept.used) >= idle)
                    .map(|(_, kept)| kept)
                    .collect()
            };
            drop(old);
        }
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
