//! What a person sees and does in a real browser: Chromium, in a network of its own.

mod cluster;
mod driver;
mod sockets;
mod statistics;

use std::time::{Duration, Instant};

/// Waits for a condition that is asked for over and over; what was seen last when it does not come.
fn eventually<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, holds: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "not within a minute: {what}; last seen: {seen:?}");
        crate::proxy::pause(20);
    }
}
