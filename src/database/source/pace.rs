//! When to read again: to follow every commit of a busy server costs a wake-up, a message and a sync of the backup each,
//! and all of them take processor and disk from others. So what comes in quick succession is gathered for a moment. A
//! commit now and then is never held back, nor is a stream that is never read to its end.

use std::time::{Duration, Instant};

/// The moment: so much later, at most, is on the backup what a busy server commits.
pub(super) const GATHER: Duration = Duration::from_millis(8);
/// Reads to the end within [`GATHER`] from which on a server counts as busy; a commit takes one or a few.
const READS: u32 = 12;
/// A gathered read of fewer bytes (a small commit) shows that it is busy no more.
const FEW: usize = 600;

/// Looks at the reads of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    reads: u32,
    busy: bool,
}

impl Pace {
    /// Of a connection that begins.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { began: now, reads: 0, busy: false }
    }

    /// All that had come was read, `bytes`: wait for [`GATHER`] before the next look?
    pub(super) fn gathers(&mut self, now: Instant, bytes: usize) -> bool {
        if self.busy {
            self.busy = bytes >= FEW;
        } else if now.duration_since(self.began) > GATHER {
            (self.began, self.reads) = (now, 1);
        } else {
            self.reads += 1;
            self.busy = self.reads > READS;
        }
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_now_and_then_is_read_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            now += GATHER + Duration::from_millis(1);
            for _ in 0..5 {
                now += Duration::from_micros(20);
                assert!(!pace.gathers(now, 80));
            }
        }
    }

    #[test]
    fn commits_in_quick_succession_are_gathered_until_they_are_few() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let first = (0..100).position(|_| {
            now += Duration::from_micros(300);
            pace.gathers(now, 450)
        });
        assert_eq!(first, Some(READS as usize));
        assert!(pace.gathers(now + GATHER, 5000));
        assert!(!pace.gathers(now + 2 * GATHER, 450), "a single commit");
        assert!(!pace.gathers(now + 4 * GATHER, 450), "and the next");
    }
}
