//! What `status` shows of the server.

use super::meters::Meters;
pub use super::meters::{ClientStats, ProcedureStats};
use crate::observe::Count;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What went through an export.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ExportStats {
    /// The path that clients mount.
    pub name: String,
    /// Its requests.
    pub requests: u64,
    /// Bytes that clients read.
    pub read_bytes: u64,
    /// Bytes that clients wrote.
    pub written_bytes: u64,
}

/// The server since its start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Clients that were ever connected, by address, while there are not too many; then all others together.
    pub clients: Vec<ClientStats>,
    /// Exports that were used.
    pub exports: Vec<ExportStats>,
    /// Procedures that were called.
    pub procedures: Vec<ProcedureStats>,
    /// Connections open now.
    pub connections: u32,
    /// Connections that were closed at once because too many were open.
    pub refused: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error status.
    pub errors: u64,
    /// Records or calls that could not be decoded.
    pub bad_requests: u64,
    /// Requests that took longer than the limit.
    pub slow: u64,
    /// Requests answered from the reply cache.
    pub replayed: u64,
    /// Bytes that the reply cache holds.
    pub reply_cache_bytes: u64,
    /// What clients say they have mounted: (address, directory).
    pub mounts: Vec<(String, String)>,
}

impl Stats {
    /// Requests done, by procedure, without those never called and those answered from the reply cache.
    pub fn operations(&self) -> BTreeMap<&str, u64> {
        self.procedures.iter().map(|procedure| (procedure.name.as_str(), procedure.latency.count)).collect()
    }
}

/// Counts as the server works.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) meters: Meters,
    pub(super) refused: Count,
    pub(super) requests: Count,
    pub(super) errors: Count,
    pub(super) bad_requests: Count,
    pub(super) slow: Count,
    pub(super) replayed: Count,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            clients: self.meters.clients(),
            exports: Vec::new(),
            procedures: self.meters.procedures(),
            connections: self.meters.connections(),
            refused: self.refused.get(),
            requests: self.requests.get(),
            errors: self.errors.get(),
            bad_requests: self.bad_requests.get(),
            slow: self.slow.get(),
            replayed: self.replayed.get(),
            reply_cache_bytes: 0,
            mounts: Vec::new(),
        }
    }
}
