//! Where objects had a name when last seen: how a tree that cannot open by handle finds them.

use super::ObjectKey;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Most objects whose place is remembered.
const MAX_PLACES: usize = 200_000;
/// Most objects that are remembered as not found.
const MAX_MISSING: usize = 4096;
/// How long "not found" is believed without looking again.
const MISSING_FOR: Duration = Duration::from_secs(5);
/// Deepest path that is followed.
pub(super) const MAX_DEPTH: usize = 2048;

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: ObjectKey,
    pub(super) name: Box<[u8]>,
}

/// Bounded memory of places: two generations, the older is dropped when the newer is half full.
#[derive(Default)]
pub(super) struct Places {
    young: HashMap<ObjectKey, Place>,
    old: HashMap<ObjectKey, Place>,
    missing: HashMap<ObjectKey, Instant>,
}

impl Places {
    pub(super) fn remember(&mut self, key: ObjectKey, dir: ObjectKey, name: &[u8]) {
        self.missing.remove(&key);
        if self.young.len() >= MAX_PLACES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, Place { dir, name: name.into() });
    }

    pub(super) fn get(&mut self, key: &ObjectKey) -> Option<Place> {
        if let Some(place) = self.young.get(key) {
            return Some(place.clone());
        }
        let place = self.old.remove(key)?;
        self.remember(key.clone(), place.dir.clone(), &place.name);
        Some(place)
    }

    pub(super) fn forget(&mut self, key: &ObjectKey) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// A walk of the whole tree did not find it, or it was just deleted.
    pub(super) fn note_missing(&mut self, key: &ObjectKey) {
        self.forget(key);
        if self.missing.len() >= MAX_MISSING {
            let now = Instant::now();
            self.missing.retain(|_, since| now.duration_since(*since) < MISSING_FOR);
            if self.missing.len() >= MAX_MISSING {
                self.missing.clear();
            }
        }
        self.missing.insert(key.clone(), Instant::now());
    }

    pub(super) fn is_missing(&mut self, key: &ObjectKey) -> bool {
        match self.missing.get(key) {
            Some(since) if since.elapsed() < MISSING_FOR => true,
            Some(_) => {
                self.missing.remove(key);
                false
            }
            None => false,
        }
    }

    /// Names from the root down to `key`, as remembered.
    pub(super) fn path(&mut self, key: &ObjectKey, root: &ObjectKey) -> Option<Vec<Place>> {
        let mut path = Vec::new();
        let mut seen = HashSet::new();
        let mut at = key.clone();
        while &at != root {
            if path.len() >= MAX_DEPTH || !seen.insert(at.clone()) {
                return None;
            }
            let place = self.get(&at)?;
            at = place.dir.clone();
            path.push(place);
        }
        path.reverse();
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::KeyKind;
    use super::*;
    use smallvec::SmallVec;

    fn key(n: u8) -> ObjectKey {
        ObjectKey { kind: KeyKind::Inode, handle_type: 0, bytes: SmallVec::from_slice(&[n]) }
    }

    #[test]
    fn a_loop_of_stale_places_has_no_path() {
        let mut places = Places::default();
        places.remember(key(2), key(3), b"a");
        places.remember(key(3), key(2), b"b");
        assert!(places.path(&key(2), &key(1)).is_none());
        places.remember(key(3), key(1), b"c");
        let names: Vec<_> = places.path(&key(2), &key(1)).unwrap().iter().map(|p| p.name.to_vec()).collect();
        assert_eq!(names, [b"c".to_vec(), b"a".to_vec()]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut places = Places::default();
        let number = |n: u32| {
            let bytes = SmallVec::from_slice(&n.to_be_bytes());
            ObjectKey { kind: KeyKind::Inode, handle_type: 0, bytes }
        };
        for n in 0..400_000 {
            places.remember(number(n), key(1), b"x");
            if n % 1000 == 0 {
                assert!(places.get(&number(0)).is_some(), "the entry in use was dropped at {n}");
            }
        }
        assert!(places.young.len() + places.old.len() <= MAX_PLACES + 1);
        assert!(places.get(&number(1)).is_none());
    }

    #[test]
    fn missing_until_seen_again() {
        let mut places = Places::default();
        places.note_missing(&key(7));
        assert!(places.is_missing(&key(7)));
        places.remember(key(7), key(1), b"back");
        assert!(!places.is_missing(&key(7)));
    }
}
