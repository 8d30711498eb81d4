//! Operations per second from a counter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The average is over this time.
const WINDOW: Duration = Duration::from_secs(10);

/// A rate from samples of a counter, taken whenever somebody asks.
#[derive(Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// The counter is `count` now: how fast did it grow over the last [`WINDOW`] (or since the sample before)?
    pub(super) fn per_second(&mut self, count: u64, now: Instant) -> f64 {
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0.0, |(at, before)| {
            let seconds = (now - *at).as_secs_f64();
            if seconds > 0.0 { count.saturating_sub(*before) as f64 / seconds } else { 0.0 }
        });
        // Many askers do not make many samples.
        if self.samples.back().is_none_or(|(at, _)| now - *at >= Duration::from_secs(1)) {
            self.samples.push_back((now, count));
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_forgets_what_is_older_than_its_window() {
        let mut rate = Rate::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_second(100, at(0)), 0.0);
        assert_eq!(rate.per_second(150, at(5)), 10.0);
        assert_eq!(rate.per_second(200, at(10)), 10.0);
        assert_eq!(rate.per_second(200, at(20)), 0.0);
        assert_eq!(rate.per_second(200, at(30)), 0.0);
    }
}
