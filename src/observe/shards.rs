//! Values that many threads add to at once: each thread adds to a cache line of its own, and who reads adds them up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More than threads that count much at the same time.
const SHARDS: usize = 8;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// This thread's shard.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

#[derive(Debug)]
#[repr(align(64))]
struct Line<T>(T);

/// One `T` for each of several groups of threads.
#[derive(Debug)]
pub struct Sharded<T> {
    lines: [Line<T>; SHARDS],
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Sharded<T> {
        Sharded { lines: std::array::from_fn(|_| Line(T::default())) }
    }
}

impl<T> Sharded<T> {
    /// This thread's.
    pub fn here(&self) -> &T {
        &self.lines.get(shard()).unwrap_or(&self.lines[0]).0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().map(|line| &line.0)
    }
}

/// A number that grows; it wraps around, so that what is taken off on another thread than it was added is right, too.
#[derive(Debug)]
pub struct Count(Sharded<AtomicU64>);

impl Default for Count {
    fn default() -> Count {
        Count::new()
    }
}

impl Count {
    /// Zero.
    pub const fn new() -> Count {
        Count(Sharded { lines: [const { Line(AtomicU64::new(0)) }; SHARDS] })
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.here().fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off.
    pub fn sub(&self, n: u64) {
        self.0.here().fetch_sub(n, Ordering::Relaxed);
    }

    /// It is `value` from now on; not for what others add to meanwhile.
    pub fn set(&self, value: u64) {
        for (at, line) in self.0.iter().enumerate() {
            line.store(if at == 0 { value } else { 0 }, Ordering::Relaxed);
        }
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.iter().fold(0, |sum, line| sum.wrapping_add(line.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_and_take_off_adds_up() {
        let count = Count::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| (0..1000).for_each(|_| count.add(3)));
            }
        });
        assert_eq!(count.get(), 2 * SHARDS as u64 * 3000);
        // Taken off by a thread that added nothing.
        std::thread::scope(|scope| {
            scope.spawn(|| count.sub(2 * SHARDS as u64 * 3000 - 7));
        });
        assert_eq!(count.get(), 7);
        count.set(5);
        assert_eq!(count.get(), 5);
    }
}
