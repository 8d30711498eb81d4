//! Values tagged with the number of the batch that they come from.

use smallvec::SmallVec;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash as StdHash;

/// Values by batch, oldest first.
pub(super) struct Layers<K, V>(HashMap<K, SmallVec<[(u64, V); 1]>>);

impl<K: Eq + StdHash, V: Clone> Layers<K, V> {
    pub(super) fn new() -> Layers<K, V> {
        Layers(HashMap::new())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does any batch say something of `key`?
    pub(super) fn holds<Q: ?Sized + Eq + StdHash>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// All values of `key`, oldest first.
    pub(super) fn all(&self, key: &K) -> impl Iterator<Item = &V> {
        self.0.get(key).into_iter().flatten().map(|(_, value)| value)
    }

    pub(super) fn get<Q: ?Sized + Eq + StdHash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).and_then(|values| values.last()).map(|(_, value)| value)
    }

    /// The value under that of batch `tag`.
    pub(super) fn below<Q: ?Sized + Eq + StdHash>(&self, key: &Q, tag: u64) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)?.iter().rev().find(|(number, _)| *number < tag).map(|(_, value)| value)
    }

    /// Sets the value of batch `tag`, which is the newest. True if this batch had none yet.
    pub(super) fn set(&mut self, key: K, tag: u64, value: V) -> bool {
        let values = self.0.entry(key).or_default();
        match values.last_mut() {
            Some((number, held)) if *number == tag => {
                *held = value;
                false
            }
            _ => {
                values.push((tag, value));
                true
            }
        }
    }

    /// Replaces the newest value, whatever its batch. False if there is none.
    pub(super) fn replace<Q: ?Sized + Eq + StdHash>(&mut self, key: &Q, value: V) -> bool
    where
        K: Borrow<Q>,
    {
        match self.0.get_mut(key).and_then(|values| values.last_mut()) {
            Some((_, held)) => {
                *held = value;
                true
            }
            None => false,
        }
    }

    /// Takes the value of batch `tag` away.
    pub(super) fn take<Q: ?Sized + Eq + StdHash>(&mut self, key: &Q, tag: u64) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let values = self.0.get_mut(key)?;
        let at = values.iter().position(|(number, _)| *number == tag)?;
        let (_, value) = values.remove(at);
        if values.is_empty() {
            self.0.remove(key);
        }
        Some(value)
    }
}
