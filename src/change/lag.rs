//! How old the oldest unacknowledged change is, without a clock reading for each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Changes closer than this share a mark.
const GRAIN: Duration = Duration::from_millis(5);
/// More marks than this are thinned: an estimate gets older, never younger.
const MAX_MARKS: usize = 4096;

/// Marks: "number n was noted at t"; numbers between two marks are no older than the first of them.
#[derive(Default)]
pub(super) struct LagMarks {
    marks: VecDeque<(u64, Instant)>,
    newest: u64,
}

impl LagMarks {
    pub(super) fn noted(&mut self, number: u64, now: Instant) {
        self.newest = number;
        if self.marks.back().is_some_and(|&(_, at)| now.duration_since(at) < GRAIN) {
            return;
        }
        if self.marks.len() >= MAX_MARKS {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((number, now));
    }

    pub(super) fn acknowledge(&mut self, cut: u64) {
        if cut >= self.newest {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|&(number, _)| number <= cut + 1) {
            self.marks.pop_front();
        }
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.marks.front().map(|&(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unacknowledged_sets_the_lag() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut marks = LagMarks::default();
        assert_eq!(marks.oldest(), None);
        marks.noted(1, at(0));
        marks.noted(2, at(1));
        marks.noted(3, at(100));
        marks.noted(4, at(200));
        assert_eq!(marks.oldest(), Some(at(0)));
        marks.acknowledge(1);
        assert_eq!(marks.oldest(), Some(at(0)), "2 shares the mark of 1");
        marks.acknowledge(2);
        assert_eq!(marks.oldest(), Some(at(100)));
        marks.acknowledge(3);
        assert_eq!(marks.oldest(), Some(at(200)));
        marks.acknowledge(4);
        assert_eq!(marks.oldest(), None);
        marks.noted(5, at(201));
        assert_eq!(marks.oldest(), Some(at(201)));
    }

    #[test]
    fn marks_are_bounded_and_never_younger_than_the_truth() {
        let start = Instant::now();
        let mut marks = LagMarks::default();
        for n in 1..=50_000u64 {
            marks.noted(n, start + GRAIN * u32::try_from(n).unwrap());
        }
        assert!(marks.marks.len() <= MAX_MARKS);
        for cut in (0..49_999u64).step_by(997) {
            marks.acknowledge(cut);
            let truth = start + GRAIN * u32::try_from(cut + 1).unwrap();
            assert!(marks.oldest().unwrap() <= truth, "cut {cut}");
        }
    }
}
