//! How long to wait before the next attempt to connect.

use rand::{Rng, RngCore};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// 100 ms, doubling to 10 s, each up to a quarter shorter or longer so that hosts do not come back in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt: none before the first.
    pub fn delay(&self, random: &mut dyn RngCore) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let full = FIRST.saturating_mul(1 << doublings.min(10)).min(LONGEST);
        full.mul_f64(random.random_range(0.75..=1.25))
    }

    /// The attempt failed, or the connection was refused.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The connection worked; when it breaks, the next attempt comes after the shortest wait.
    pub fn worked(&mut self) {
        self.failures = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn doubles_to_ten_seconds_with_a_quarter_of_jitter() {
        let mut random = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.delay(&mut random), Duration::ZERO);
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        for full in expected {
            backoff.failed();
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..50 {
                let delay = backoff.delay(&mut random).as_millis();
                assert!(delay >= full * 3 / 4 && delay <= full * 5 / 4, "{delay} for {full}");
                seen.insert(delay);
            }
            assert!(seen.len() > 5, "no jitter");
        }
        (0..100).for_each(|_| backoff.failed());
        assert!(backoff.delay(&mut random) <= Duration::from_millis(12_500));
        backoff.worked();
        assert!(backoff.delay(&mut random) <= Duration::from_millis(125));
    }
}
