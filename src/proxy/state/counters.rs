//! What is counted of frontends, backends and servers: the numbers of HAProxy's stats (9.1 of the management manual).
//! Every counter is an atomic of its own line of thought: relaxed, never read on a request's way.

use super::samples::Growth;
use super::timings::Timings;
use crate::observe::Count;
use std::sync::atomic::AtomicU32;

/// Bytes and connections.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Traffic {
    /// Sessions since the start (`stot`).
    pub sessions: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
}

/// Responses by class (`hrsp_1xx` ... `hrsp_other`).
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Codes {
    pub c1xx: Count,
    pub c2xx: Count,
    pub c3xx: Count,
    pub c4xx: Count,
    pub c5xx: Count,
    pub other: Count,
}

impl Codes {
    /// Counts one response.
    pub fn add(&self, status: u16) {
        match status / 100 {
            1 => &self.c1xx,
            2 => &self.c2xx,
            3 => &self.c3xx,
            4 => &self.c4xx,
            5 => &self.c5xx,
            _ => &self.other,
        }
        .add(1);
    }
}

/// Of a frontend, or of one listener.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct FrontendCounters {
    pub traffic: Traffic,
    pub connections: Count,
    /// HTTP requests received (`req_tot`).
    pub requests: Count,
    pub codes: Codes,
    /// Denied by rules (`dreq`, `dresp`, `dcon`).
    pub denied_requests: Count,
    pub denied_responses: Count,
    pub denied_connections: Count,
    /// Bad requests (`ereq`).
    pub request_errors: Count,
    /// Answered by this process (`intercepted`).
    pub intercepted: Count,
    pub internal_errors: Count,
}

/// Of a backend as a whole.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct BackendCounters {
    pub traffic: Traffic,
    /// Sessions now and at most (`scur`, `smax`).
    pub now: AtomicU32,
    pub most: AtomicU32,
    pub requests: Count,
    pub codes: Codes,
    pub denied_requests: Count,
    pub denied_responses: Count,
    /// Connections that failed (`econ`), responses that failed (`eresp`).
    pub connect_errors: Count,
    pub response_errors: Count,
    pub retries: Count,
    pub redispatches: Count,
    /// Transfers ended by the client or by the server (`cli_abrt`, `srv_abrt`).
    pub client_aborts: Count,
    pub server_aborts: Count,
    /// Chosen by balancing (`lbtot`).
    pub balanced: Count,
    /// Server connections made and reused.
    pub connects: Count,
    pub reused: Count,
    pub intercepted: Count,
    pub internal_errors: Count,
    /// Times that the whole backend was down (`chkdown`).
    pub downs: Count,
    /// Rate of sessions (`rate`, `rate_max`, `lastsess`).
    pub growth: Growth,
    /// Average and longest times.
    pub timings: Timings,
}

/// Of one server.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ServerCounters {
    pub traffic: Traffic,
    pub most: AtomicU32,
    pub requests: Count,
    pub codes: Codes,
    pub denied_responses: Count,
    pub connect_errors: Count,
    pub response_errors: Count,
    pub retries: Count,
    pub redispatches: Count,
    pub client_aborts: Count,
    pub server_aborts: Count,
    pub balanced: Count,
    pub connects: Count,
    pub reused: Count,
    pub failed_checks: Count,
    pub downs: Count,
    pub internal_errors: Count,
    /// As of a backend.
    pub growth: Growth,
    pub timings: Timings,
}
