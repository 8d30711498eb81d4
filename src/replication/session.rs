//! What either end of a replication link may say and when: pure state machines, time and messages in, actions out.
//!
//! A session is one connection. It keeps no state that must survive it: the backup's history says where the
//! stream stands, and the primary's sender makes anew what was not acknowledged.

mod backoff;
mod backup;
mod primary;

pub use backoff::Backoff;
pub use backup::{Action, BackupSession};
pub use primary::{Event, PrimarySession, Tick};

use ehpc_proto::replication::message::Blob;
use std::time::Duration;

/// A side that heard nothing for so long asks with a ping.
pub const PING_AFTER: Duration = Duration::from_secs(5);
/// A side that heard nothing for so long takes the connection for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(20);
/// Hello and welcome must be exchanged within this time.
pub const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// Most batches sent and not acknowledged.
pub const BATCHES_IN_FLIGHT: usize = 8;
/// Most bytes of batches sent and not acknowledged (one batch is always allowed).
pub const BATCH_BYTES_IN_FLIGHT: usize = 16 * 1024 * 1024;
/// Blob bytes sent and not written that a backup allows.
pub const CREDIT: u64 = 32 * 1024 * 1024;
/// A smaller credit could not carry the largest message.
pub const LEAST_CREDIT: u64 = 10 * 1024 * 1024;
/// Returned credit is saved up to this, so that small blobs do not cost a message each.
const CREDIT_STEP: u64 = 1024 * 1024;
/// Most offers, and most questions, sent and not answered.
pub const QUESTIONS_IN_FLIGHT: usize = 64;

/// What sending `blobs` takes from the credit; both sides count alike.
pub fn cost(blobs: &[Blob]) -> u64 {
    blobs.iter().map(|blob| blob.bytes.len() as u64 + 64).sum()
}
