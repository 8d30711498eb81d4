//! What is in the packs and not yet in the catalog.

use super::catalog::BatchRow;
use super::pack::log::Located;
use super::pack::{Place, Series};
use ehpc_proto::replication::Hash;
use std::collections::{HashMap, VecDeque};

/// See the module. Blobs are also listed in the order of appending, in which they go to the catalog.
#[derive(Default)]
pub(super) struct Recent {
    blobs: HashMap<Hash, Located>,
    chunks: VecDeque<Hash>,
    pages: VecDeque<Hash>,
    /// Durable and not applied, or not committed; consecutive.
    batches: VecDeque<BatchRow>,
}

impl Recent {
    fn order(&mut self, series: Series) -> &mut VecDeque<Hash> {
        match series {
            Series::Meta => &mut self.pages,
            Series::Chunk => &mut self.chunks,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.blobs.len()
    }

    pub(super) fn blob(&self, hash: &Hash) -> Option<Located> {
        self.blobs.get(hash).copied()
    }

    pub(super) fn add_blob(&mut self, hash: Hash, at: Located) {
        self.blobs.insert(hash, at);
        self.order(at.series).push_back(hash);
    }

    /// Takes the blobs of `series` before `end` off the list; they can still be looked up until
    /// [`Recent::drop_blobs`].
    pub(super) fn take_until(&mut self, series: Series, end: Place) -> Vec<(Hash, Located)> {
        let mut taken = Vec::new();
        while let Some(hash) = self.order(series).front().copied() {
            let Some(at) = self.blob(&hash).filter(|at| at.place < end) else { break };
            self.order(series).pop_front();
            taken.push((hash, at));
        }
        taken
    }

    /// Undoes [`Recent::take_until`].
    pub(super) fn put_back(&mut self, taken: Vec<(Hash, Located)>) {
        for (hash, at) in taken.into_iter().rev() {
            self.order(at.series).push_front(hash);
        }
    }

    pub(super) fn drop_blobs(&mut self, taken: &[(Hash, Located)]) {
        for (hash, _) in taken {
            self.blobs.remove(hash);
        }
        self.blobs.shrink_to(self.blobs.len() * 4);
    }

    /// Forgets the blobs of `series` from `end` on, which are in no pack any more.
    pub(super) fn forget_from(&mut self, series: Series, end: Place) {
        while let Some(hash) = self.order(series).back().copied() {
            if self.blob(&hash).is_some_and(|at| at.place < end) {
                break;
            }
            self.blobs.remove(&hash);
            self.order(series).pop_back();
        }
    }

    pub(super) fn batch(&self, number: u64) -> Option<BatchRow> {
        let first = self.batches.front()?.number;
        self.batches.get(usize::try_from(number.checked_sub(first)?).ok()?).copied()
    }

    pub(super) fn add_batch(&mut self, row: BatchRow) {
        self.batches.push_back(row);
    }

    pub(super) fn drop_batches(&mut self, applied: u64) {
        while self.batches.front().is_some_and(|row| row.number <= applied) {
            self.batches.pop_front();
        }
    }
}
