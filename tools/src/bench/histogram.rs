//! Times in buckets that grow by a sixteenth.

use std::time::Duration;

const STEPS: u32 = 16;

/// Counts of times.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; 64 * STEPS as usize], count: 0 }
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(u64::from(STEPS));
    let top = nanos.ilog2();
    let below = (nanos >> (top - 4)) & 15;
    (top * STEPS) as usize + below as usize
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
    }

    /// Microseconds below which `percent` of the times lie.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (top, below) = (at / STEPS as usize, at % STEPS as usize);
                return (16 + below as u64 + 1) as f64 * 2f64.powi(top as i32 - 4) / 1000.0;
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let mut times = Histogram::default();
        (1..=1000).for_each(|us| times.add(Duration::from_micros(us)));
        for (percent, us) in [(50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = times.percentile_us(percent);
            assert!(found >= us && found <= us * 1.0625 + 1.0, "{percent}: {found}");
        }
    }
}
