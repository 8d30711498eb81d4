//! When to read again: to follow every commit of a busy server costs a wake-up, a message and a sync of the backup each,
//! and all of them take processor and disk from others. So what comes in quick succession is gathered for a moment. A
//! commit now and then is never held back, nor is a stream that flows (a server that sends what is older).

use std::time::{Duration, Instant};

/// The moment: so much later, at most, is on the backup what a busy server commits.
pub(super) const GATHER: Duration = Duration::from_millis(8);
/// Reads to the end within [`GATHER`] from which on a server counts as busy; a commit takes one or a few.
const READS: u32 = 12;
/// A gathered read of fewer bytes (a small commit) shows that it is busy no more.
const FEW: usize = 600;
/// One of so many shows a stream that a pause would hold back: a server that sends what is older, or large commits.
const MUCH: usize = 64 * 1024;
/// Such a stream is not held back again for so long.
const FLOW: Duration = Duration::from_secs(1);

/// Looks at the reads of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    reads: u32,
    busy: bool,
    /// Until then it flows.
    flows: Instant,
}

impl Pace {
    /// Of a connection that begins.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { began: now, reads: 0, busy: false, flows: now }
    }

    /// All that had come was read, `bytes`: wait for [`GATHER`] before the next look?
    pub(super) fn gathers(&mut self, now: Instant, bytes: usize) -> bool {
        if self.busy {
            self.busy = (FEW..MUCH).contains(&bytes);
            if bytes >= MUCH {
                self.flows = now + FLOW;
            }
        } else if now < self.flows || now.duration_since(self.began) > GATHER {
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

    #[test]
    fn a_stream_that_flows_is_held_back_once_in_a_while_at_most() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut pauses = 0;
        // Read faster than it is sent, for two seconds.
        for _ in 0..50_000 {
            let gathers = pace.gathers(now, 16 * 1024);
            pauses += u32::from(gathers);
            now += if gathers { GATHER } else { Duration::from_micros(40) };
            if gathers && !pace.gathers(now, 200 * 1024) {
                now += Duration::from_micros(40);
            }
        }
        assert!((1..=3).contains(&pauses), "{pauses}");
    }
}
