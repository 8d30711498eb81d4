//! Average times over about the last 1,024 requests, and the longest (`qtime`, `ctime`, `rtime`, `ttime` and their
//! `_max`). Each thread keeps averages of its own; who reads puts them together.

use crate::observe::Sharded;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Requests that an average is over.
const WINDOW: u64 = 1024;

/// One request's times in ms. `None`: that part did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Spent {
    pub queue: Option<u32>,
    pub connect: Option<u32>,
    pub response: Option<u32>,
    pub total: Option<u32>,
}

/// Averages and maxima of one server or backend, in the order of [`Spent`]'s fields.
#[derive(Debug, Default)]
pub struct Timings {
    averages: Sharded<[Average; 4]>,
    longest: [AtomicU32; 4],
}

/// A sum that loses a 1,024th of itself with every value: that many times the average.
#[derive(Debug, Default)]
struct Average {
    sum: AtomicU64,
    /// Values so far, at most [`WINDOW`].
    count: AtomicU64,
}

impl Average {
    /// Only its own thread adds: a lost update of a thread that shares the place costs one value of a thousand.
    fn add(&self, value: u32) {
        let (sum, count) = (self.sum.load(Relaxed), self.count.load(Relaxed));
        let kept = if count < WINDOW { sum } else { sum - sum / WINDOW };
        self.sum.store(kept + u64::from(value), Relaxed);
        if count < WINDOW {
            self.count.store(count + 1, Relaxed);
        }
    }
}

impl Timings {
    /// Counts a request.
    pub fn add(&self, spent: Spent) {
        let values = [spent.queue, spent.connect, spent.response, spent.total];
        let averages = self.averages.here();
        for ((value, average), longest) in values.into_iter().zip(averages).zip(&self.longest) {
            if let Some(value) = value {
                average.add(value);
                if value > longest.load(Relaxed) {
                    longest.fetch_max(value, Relaxed);
                }
            }
        }
    }

    /// Averages in ms: queue, connect, response, total.
    pub fn averages(&self) -> [u32; 4] {
        std::array::from_fn(|which| {
            let parts = self.averages.iter().map(|shard| &shard[which]);
            let (sum, count) = parts.fold((0, 0), |(sum, count), part| {
                (sum + part.sum.load(Relaxed), count + part.count.load(Relaxed))
            });
            u32::try_from(sum.div_ceil(count.max(1))).unwrap_or(u32::MAX)
        })
    }

    /// The longest in ms, in the same order.
    pub fn longest(&self) -> [u32; 4] {
        std::array::from_fn(|which| self.longest[which].load(Relaxed))
    }

    /// The longest, or everything, is forgotten.
    pub(super) fn clear(&self, all: bool) {
        self.longest.iter().for_each(|longest| longest.store(0, Relaxed));
        if all {
            for average in self.averages.iter().flatten() {
                average.sum.store(0, Relaxed);
                average.count.store(0, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_and_maxima_stay() {
        let timings = Timings::default();
        assert_eq!(timings.averages(), [0; 4]);
        timings.add(Spent { queue: Some(0), connect: Some(3), response: None, total: Some(10) });
        timings.add(Spent { queue: Some(0), connect: Some(5), response: Some(7), total: Some(20) });
        assert_eq!(timings.averages(), [0, 4, 7, 15]);
        // Many more of another value, on several threads: the average goes there, the longest stays.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..20_000).for_each(|_| timings.add(Spent { total: Some(2), ..Spent::default() }))
                });
            }
        });
        let total = timings.averages()[3];
        assert!((2..=3).contains(&total), "{total}");
        assert_eq!(timings.longest(), [0, 5, 7, 20]);
        timings.clear(false);
        assert_eq!((timings.longest(), timings.averages()[1]), ([0; 4], 4));
        timings.clear(true);
        assert_eq!(timings.averages(), [0; 4]);
    }
}
