//! How fast counters grow, and when they grew last: read once a second from the totals, so that counting itself costs
//! nothing more. Between two readings the rate is that of HAProxy's `freq_ctr`: what has come in this second, and of the
//! second before as much as is still within the last 1,000 ms.

use super::{Backend, Frontend, Running};
use crate::observe::Count;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Growth of one counter.
#[derive(Debug, Default)]
pub struct Growth {
    /// The total at the last reading.
    total: AtomicU64,
    /// What came in the second before that.
    last: AtomicU64,
    most: AtomicU64,
    /// When it was seen to have grown last, ms since the start, plus 1; 0: never.
    grew: AtomicU64,
}

/// What [`Growth`] says at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// In the last second.
    pub now: u32,
    /// The most in a second.
    pub most: u32,
    /// Seconds since it grew.
    pub idle: Option<u32>,
}

/// The process's samples.
#[derive(Debug, Default)]
pub struct Samples {
    /// When they were read last, ms since the start.
    read: AtomicU64,
    /// Connections accepted.
    pub connections: Growth,
    /// Bytes to clients.
    pub bytes_out: Growth,
    /// Processor time in ms, and the percentage of the last second that no thread needed.
    processor: AtomicU64,
    idle: AtomicU64,
}

/// A frontend's samples.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct FrontendSamples {
    pub sessions: Growth,
    pub connections: Growth,
    pub requests: Growth,
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Growth {
    fn read(&self, count: &Count, at: u64, elapsed: u64) {
        let total = count.get();
        let grown = total.saturating_sub(self.total.swap(total, Relaxed));
        self.last.store(grown * 1000 / elapsed.max(1), Relaxed);
        self.most.fetch_max(grown * 1000 / elapsed.max(1000), Relaxed);
        if grown > 0 {
            self.grew.store(at + 1, Relaxed);
        }
    }

    fn rate(&self, count: &Count, read: u64, now: u64) -> Rate {
        let elapsed = now.saturating_sub(read);
        let fresh = count.get().saturating_sub(self.total.load(Relaxed));
        let old = self.last.load(Relaxed) * 1000_u64.saturating_sub(elapsed) / 1000;
        let rate = fresh + old;
        let most = self.most.fetch_max(rate, Relaxed).max(rate);
        let idle = match (fresh, self.grew.load(Relaxed)) {
            (0, 0) => None,
            (0, at) => Some(small(now.saturating_sub(at - 1) / 1000)),
            _ => Some(0),
        };
        Rate { now: small(rate), most: small(most), idle }
    }

    /// The most, or everything, is forgotten.
    pub(super) fn clear(&self, all: bool) {
        self.most.store(0, Relaxed);
        if all {
            [&self.total, &self.last, &self.grew].into_iter().for_each(|value| value.store(0, Relaxed));
        }
    }
}

impl Running {
    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// A counter's rate; `growth` is the one that [`Running::sample`] reads from it.
    pub fn rate(&self, growth: &Growth, count: &Count, now: Instant) -> Rate {
        growth.rate(count, self.samples.read.load(Relaxed), self.since_start(now))
    }

    /// Percentage of the last second in which the threads had nothing to do.
    pub fn idle_percent(&self) -> u32 {
        100 - small(self.samples.idle.load(Relaxed)).min(100)
    }

    /// Reads all counters; to be called once a second. `processor`: time that the process has used so far.
    pub fn sample(&self, now: Instant, processor: Duration) {
        let at = self.since_start(now);
        let elapsed = at.saturating_sub(self.samples.read.swap(at, Relaxed));
        let processor = u64::try_from(processor.as_millis()).unwrap_or(u64::MAX);
        let used = processor.saturating_sub(self.samples.processor.swap(processor, Relaxed));
        let threads = u64::from(self.threads.load(Relaxed)).max(1);
        self.samples.idle.store(used * 100 / (elapsed.max(1) * threads), Relaxed);
        let bytes = Count::new();
        for state in &self.proxies {
            if let Some(frontend) = &state.frontend {
                bytes.add(frontend.counters.traffic.bytes_out.get());
                frontend.sample(at, elapsed);
            }
            if let Some(backend) = &state.backend {
                backend.sample(at, elapsed);
            }
        }
        self.samples.bytes_out.read(&bytes, at, elapsed);
        let connections = Count::new();
        connections.add(self.connections.load(Relaxed));
        self.samples.connections.read(&connections, at, elapsed);
    }
}

impl Frontend {
    fn sample(&self, at: u64, elapsed: u64) {
        self.samples.sessions.read(&self.counters.traffic.sessions, at, elapsed);
        self.samples.connections.read(&self.counters.connections, at, elapsed);
        self.samples.requests.read(&self.counters.requests, at, elapsed);
    }
}

impl Backend {
    fn sample(&self, at: u64, elapsed: u64) {
        self.counters.growth.read(&self.counters.traffic.sessions, at, elapsed);
        for server in &self.servers {
            server.counters.growth.read(&server.counters.traffic.sessions, at, elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_second() {
        let (growth, count) = (Growth::default(), Count::new());
        assert_eq!(growth.rate(&count, 0, 500), Rate::default());
        count.add(10);
        assert_eq!(growth.rate(&count, 0, 500), Rate { now: 10, most: 10, idle: Some(0) });
        growth.read(&count, 1000, 1000);
        assert_eq!(growth.rate(&count, 1000, 1000).now, 10);
        // A quarter of a second later three quarters of them are still within a second, and 4 more.
        count.add(4);
        assert_eq!(growth.rate(&count, 1000, 1250), Rate { now: 11, most: 11, idle: Some(0) });
        growth.read(&count, 2000, 1000);
        growth.read(&count, 3000, 1000);
        assert_eq!(growth.rate(&count, 3000, 3500), Rate { now: 0, most: 11, idle: Some(1) });
        // A reading that comes late does not make a peak.
        count.add(100);
        growth.read(&count, 13_000, 10_000);
        assert_eq!(growth.rate(&count, 13_000, 13_000), Rate { now: 10, most: 11, idle: Some(0) });
        growth.clear(false);
        assert_eq!(growth.rate(&count, 13_000, 14_000).most, 0);
        count.set(0);
        growth.clear(true);
        assert_eq!(growth.rate(&count, 13_000, 14_000), Rate::default());
    }
}
