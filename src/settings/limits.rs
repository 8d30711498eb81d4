//! `connections`, `in_flight`, `memory` and `slow_request` of [nfs1].

use super::document::{Document, Section};
use super::problem::{Problem, Problems, Site};
use super::units::{Bytes, Seconds};
use std::time::Duration;

/// What NFS clients may make the server hold, and what counts as slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NfsLimits {
    /// Connections open at once.
    pub connections: usize,
    /// Requests of one connection that may be unanswered.
    pub in_flight: usize,
    /// Requests and replies held for all connections.
    pub memory: Bytes,
    /// A request that takes longer is logged; zero: none is.
    pub slow_request: Seconds,
}

impl Default for NfsLimits {
    fn default() -> NfsLimits {
        NfsLimits {
            connections: 16_384,
            in_flight: 128,
            memory: Bytes(64 << 20),
            slow_request: Seconds(Duration::from_secs(1)),
        }
    }
}

impl NfsLimits {
    /// What each may be: (key, as written, allowed, what that is in words).
    fn bounds(&self) -> [(&'static str, String, bool, &'static str); 4] {
        let memory = Bytes(16 << 20)..=Bytes(64 << 30);
        let hour = Duration::from_secs(3600);
        [
            (
                "connections",
                self.connections.to_string(),
                (1..=65_536).contains(&self.connections),
                "from 1 to 65536",
            ),
            (
                "in_flight",
                self.in_flight.to_string(),
                (1..=16_384).contains(&self.in_flight),
                "from 1 to 16384",
            ),
            (
                "memory",
                self.memory.to_string(),
                memory.contains(&self.memory),
                "from \"16 MiB\" to \"64 GiB\"",
            ),
            (
                "slow_request",
                self.slow_request.to_string(),
                self.slow_request.0 <= hour,
                "from \"1ms\" to \"1h\", or \"0s\" for none",
            ),
        ]
    }

    /// For limits that come from options: `site` names the option of a key.
    pub fn check(&self, site: impl Fn(&'static str) -> Site) -> Result<(), Problems> {
        let wrong = self.bounds().into_iter().filter(|(_, _, allowed, _)| !allowed);
        let problems = wrong.map(|(key, value, _, expected)| Problem {
            site: site(key),
            what: format!("{key} of {value}"),
            expected: expected.to_owned(),
            next: String::new(),
        });
        Problems(problems.collect()).into_result()
    }
}

/// Reads them; what is not there has its default.
pub(super) fn read_limits<'t>(document: &mut Document<'t>, nfs1: &Section<'_, 't>) -> NfsLimits {
    let default = NfsLimits::default();
    let limits = NfsLimits {
        connections: document.get(nfs1, "connections").unwrap_or(default.connections),
        in_flight: document.get(nfs1, "in_flight").unwrap_or(default.in_flight),
        memory: document.get(nfs1, "memory").unwrap_or(default.memory),
        slow_request: document.get(nfs1, "slow_request").unwrap_or(default.slow_request),
    };
    for (key, value, allowed, expected) in limits.bounds() {
        if !allowed {
            let site = document.site_of(&nfs1.path(key));
            document.report(site, format!("{key} of {value}"), expected, "");
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_bounds_are_named() {
        assert!(NfsLimits::default().check(Site::Flag).is_ok());
        let limits = NfsLimits {
            connections: 0,
            in_flight: 16_385,
            memory: Bytes(1 << 20),
            slow_request: Seconds(Duration::from_secs(3601)),
        };
        let problems = limits.check(Site::Flag).unwrap_err().to_string();
        for what in ["connections of 0", "in_flight of 16385", "memory of 1 MiB", "slow_request of 1h"] {
            assert!(problems.contains(what), "{what} in {problems}");
        }
        let off = NfsLimits { slow_request: Seconds(Duration::ZERO), ..NfsLimits::default() };
        assert!(off.check(Site::Flag).is_ok());
    }
}
