//! Messages with which two hosts that share a one-time code make each other's keys known.
//!
//! Both ends are inside TLS with unpinned certificates. A proof is a BLAKE3 MAC, keyed with the code, over the
//! connection's exporter value, both certificates' fingerprints and the sender's role: it cannot be relayed,
//! replayed or reflected.

use super::state::Hash;
use serde::{Deserialize, Serialize};

/// What either end says while pairing; the primary speaks first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pairing {
    /// Primary: who it is, and that it knows the code.
    Propose {
        /// Version of the replication protocol.
        version: u32,
        /// Name of the host, for `status`.
        name: String,
        /// See the module.
        proof: Hash,
    },
    /// Backup: the code was right, and it knows it too.
    Accept {
        /// Name of the host, for `status`.
        name: String,
        /// See the module.
        proof: Hash,
    },
    /// Primary: it has recorded the backup; the backup records it now.
    Confirm,
    /// Backup: both have recorded each other.
    Done,
    /// No pairing, and why.
    Refused {
        /// For the operator.
        reason: String,
    },
}
