//! `clear counters`: highest values, or everything that was counted, begins anew.

use super::counters::{BackendCounters, Codes, FrontendCounters, ServerCounters, Traffic};
use super::samples::{FrontendSamples, Samples};
use super::{Backend, Frontend, Running};
use crate::observe::Count;
use std::sync::atomic::Ordering::Relaxed;

impl Running {
    /// Forgets the highest values; with `all` everything that was counted of frontends, backends, servers.
    pub fn clear_counters(&self, all: bool) {
        let Samples { connections, bytes_out, .. } = &self.samples;
        // Of the process itself nothing but the highest values begins anew.
        [connections, bytes_out].into_iter().for_each(|growth| growth.clear(false));
        self.gate.forget_most();
        for state in &self.proxies {
            if let Some(frontend) = &state.frontend {
                frontend.clear(all);
            }
            if let Some(backend) = &state.backend {
                backend.clear(all);
            }
        }
    }
}

impl Frontend {
    fn clear(&self, all: bool) {
        self.gate.forget_most();
        let FrontendSamples { sessions, connections, requests } = &self.samples;
        [sessions, connections, requests].into_iter().for_each(|growth| growth.clear(all));
        for listener in &self.listeners {
            listener.most.store(listener.sessions.load(Relaxed), Relaxed);
            listener.gate.as_ref().inspect(|gate| gate.forget_most());
        }
        if all {
            self.counters.clear();
            self.listeners.iter().for_each(|listener| listener.counters.clear());
        }
    }
}

impl Backend {
    fn clear(&self, all: bool) {
        self.counters.most.store(self.counters.now.load(Relaxed), Relaxed);
        for server in &self.servers {
            server.counters.most.store(server.sessions.load(Relaxed), Relaxed);
            server.counters.growth.clear(all);
            server.counters.timings.clear(all);
        }
        self.counters.growth.clear(all);
        self.counters.timings.clear(all);
        if all {
            self.counters.clear();
            self.servers.iter().for_each(|server| server.counters.clear());
        }
    }
}

fn zero<const N: usize>(counts: [&Count; N]) {
    counts.into_iter().for_each(|count| count.set(0));
}

impl Traffic {
    fn clear(&self) {
        let Traffic { sessions, bytes_in, bytes_out } = self;
        zero([sessions, bytes_in, bytes_out]);
    }
}

impl Codes {
    fn clear(&self) {
        let Codes { c1xx, c2xx, c3xx, c4xx, c5xx, other } = self;
        zero([c1xx, c2xx, c3xx, c4xx, c5xx, other]);
    }
}

// Every field is named, so that a new one is not forgotten here.

impl FrontendCounters {
    fn clear(&self) {
        let FrontendCounters {
            traffic,
            connections,
            requests,
            codes,
            denied_requests,
            denied_responses,
            denied_connections,
            request_errors,
            intercepted,
            internal_errors,
        } = self;
        traffic.clear();
        codes.clear();
        zero([connections, requests, denied_requests, denied_responses, denied_connections]);
        zero([request_errors, intercepted, internal_errors]);
    }
}

impl BackendCounters {
    fn clear(&self) {
        let BackendCounters {
            traffic,
            now: _,
            most: _,
            requests,
            codes,
            denied_requests,
            denied_responses,
            connect_errors,
            response_errors,
            retries,
            redispatches,
            client_aborts,
            server_aborts,
            balanced,
            connects,
            reused,
            intercepted,
            internal_errors,
            downs,
            growth: _,
            timings: _,
        } = self;
        traffic.clear();
        codes.clear();
        zero([requests, denied_requests, denied_responses, connect_errors, response_errors, retries]);
        zero([redispatches, client_aborts, server_aborts, balanced, connects, reused]);
        zero([intercepted, internal_errors, downs]);
    }
}

impl ServerCounters {
    fn clear(&self) {
        let ServerCounters {
            traffic,
            most: _,
            requests,
            codes,
            denied_responses,
            connect_errors,
            response_errors,
            retries,
            redispatches,
            client_aborts,
            server_aborts,
            balanced,
            connects,
            reused,
            failed_checks,
            downs,
            internal_errors,
            growth: _,
            timings: _,
        } = self;
        traffic.clear();
        codes.clear();
        zero([requests, denied_responses, connect_errors, response_errors, retries, redispatches]);
        zero([
            client_aborts,
            server_aborts,
            balanced,
            connects,
            reused,
            failed_checks,
            downs,
            internal_errors,
        ]);
    }
}
