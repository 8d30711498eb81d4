//! How long things take: counts in buckets that grow with the time, so that short and long ones are told apart alike.

use super::shards::Sharded;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of an octave: a percentile is exact to an eighth.
const PER_OCTAVE: usize = 4;
/// The last octave ends at 2^27 microseconds, 134 s; longer ones are counted in the last bucket.
const OCTAVES: usize = 26;
const BUCKETS: usize = PER_OCTAVE * OCTAVES;

struct Buckets {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

/// Counts times as they come; takes two additions without a lock.
#[derive(Default)]
pub struct Latency {
    shards: Sharded<Buckets>,
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Latency").field(&self.counts()).finish()
    }
}

/// The bucket of a time. Bucket b of the first octave holds the times up to b + 1 microseconds; after it, each octave is
/// cut in four, and a bucket ends at its upper bound inclusively, as Prometheus has it.
fn bucket(nanos: u64) -> usize {
    let us = nanos.saturating_sub(1) / 1000;
    if us < PER_OCTAVE as u64 {
        return us as usize;
    }
    let octave = us.ilog2() as usize;
    let quarter = (us >> (octave - 2)) as usize & (PER_OCTAVE - 1);
    (PER_OCTAVE * (octave - 1) + quarter).min(BUCKETS - 1)
}

/// Where a bucket ends, in microseconds.
fn upper_us(bucket: usize) -> u64 {
    if bucket < PER_OCTAVE {
        return bucket as u64 + 1;
    }
    let octave = bucket / PER_OCTAVE + 1;
    (1 << octave) + ((bucket % PER_OCTAVE) as u64 + 1) * (1 << (octave - 2))
}

impl Latency {
    /// One that took so long.
    pub fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let here = self.shards.here();
        if let Some(counter) = here.buckets.get(bucket(nanos)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        here.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> LatencyCounts {
        let mut fine = [0; BUCKETS];
        let mut sum_ns = 0u64;
        for shard in self.shards.iter() {
            for (sum, counter) in fine.iter_mut().zip(&shard.buckets) {
                *sum += counter.load(Ordering::Relaxed);
            }
            sum_ns = sum_ns.wrapping_add(shard.sum_ns.load(Ordering::Relaxed));
        }
        let count: u64 = fine.iter().sum();
        // One octave a bucket for Prometheus, the first being the first four microseconds.
        let octave = |at: usize| fine.iter().skip(PER_OCTAVE * at).take(PER_OCTAVE).sum();
        LatencyCounts {
            count,
            sum_us: sum_ns / 1000,
            p50_us: percentile(&fine, count, 50),
            p99_us: percentile(&fine, count, 99),
            octaves: if count == 0 { Vec::new() } else { (0..OCTAVES).map(octave).collect() },
        }
    }
}

/// Upper end of the bucket in which the given hundredth lies.
fn percentile(fine: &[u64; BUCKETS], count: u64, hundredth: u64) -> u64 {
    let wanted = (count.saturating_mul(hundredth)).div_ceil(100).max(1);
    let mut seen = 0;
    for (at, n) in fine.iter().enumerate() {
        seen += n;
        if seen >= wanted {
            return upper_us(at);
        }
    }
    0
}

/// What a [`Latency`] counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LatencyCounts {
    /// How many.
    pub count: u64,
    /// All of them together, in microseconds.
    pub sum_us: u64,
    /// Half of them took no longer, in microseconds; exact to an eighth; 0 if there is none.
    pub p50_us: u64,
    /// Of a hundred, 99 took no longer.
    pub p99_us: u64,
    /// How many ended in each octave: up to 4 microseconds, 8, 16 and so on; the last one has no end.
    pub octaves: Vec<u64>,
}

impl LatencyCounts {
    /// Cumulative, as Prometheus wants them: (upper bound in seconds, how many took no longer); without the last octave,
    /// whose bound is +Inf.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.octaves.iter().take(OCTAVES - 1).enumerate().map(move |(at, n)| {
            sum += n;
            ((4u64 << at) as f64 / 1e6, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_end_where_they_say() {
        assert_eq!([0, 1, 1000, 1001, 4000, 4001].map(bucket), [0, 0, 0, 1, 3, 4]);
        let mut last = 0;
        for at in 0..BUCKETS {
            let end = upper_us(at) * 1000;
            assert!(end > last, "{at}");
            assert_eq!(bucket(end), at, "its end is in it");
            assert_eq!(bucket(end + 1), (at + 1).min(BUCKETS - 1), "and nothing beyond");
            last = end;
        }
        assert_eq!(upper_us(BUCKETS - 1), 1 << (OCTAVES + 1));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_and_sums() {
        let latency = Latency::default();
        assert_eq!(latency.counts(), LatencyCounts::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..249).for_each(|_| latency.add(Duration::from_micros(100))));
            }
        });
        (0..4).for_each(|_| latency.add(Duration::from_millis(100)));
        let counts = latency.counts();
        assert_eq!((counts.count, counts.sum_us), (1000, 996 * 100 + 4 * 100_000));
        assert_eq!((counts.p50_us, counts.p99_us), (112, 112));
        (0..10).for_each(|_| latency.add(Duration::from_millis(100)));
        assert_eq!(latency.counts().p99_us, 114_688);
        let cumulative: Vec<_> = latency.counts().cumulative().collect();
        assert_eq!(cumulative.first(), Some(&(4e-6, 0)));
        assert_eq!(cumulative.iter().find(|(end, _)| *end >= 1e-4), Some(&(1.28e-4, 996)));
        assert_eq!(cumulative.last().map(|(_, n)| *n), Some(1010));
    }
}
