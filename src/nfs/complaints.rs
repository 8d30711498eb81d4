//! Bad input is worth a log line, but not one for every packet of a flood.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// At most one line in this time.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one complaint through in a while and counts the others.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Complaints {
    /// Calls `log` with the number of complaints that were held back before, unless this one is held back too.
    pub(super) fn say(&self, log: impl FnOnce(u64)) {
        if let Some(held_back) = self.pass(Instant::now()) {
            log(held_back);
        }
    }

    fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.0.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.pass(start), Some(0));
        for _ in 0..5 {
            assert_eq!(complaints.pass(start + EVERY / 2), None);
        }
        assert_eq!(complaints.pass(start + EVERY), Some(5));
        assert_eq!(complaints.pass(start + 3 * EVERY), Some(0));
    }
}
