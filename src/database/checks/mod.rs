//! Proof that two database servers hold the same: a standby and its primary, or a restored one and what it was made of.
//!
//! Both are read at one exact position while both go on (`position`). Level 1 is the server's own `CHECKSUM TABLE`, one
//! table at a time on both sides at once: 32 bits a table, at the speed of a scan. Where that differs, and for every
//! table with `deep`, level 2 sums the MD5 of rows over ranges of the primary key (`shape`, `rows`) and names what differs.
//! Tables, views, routines, triggers, events and accounts are compared by their descriptions (`catalog`).
//!
//! Nothing is called different that may only have moved: descriptions are not part of a snapshot, so what does not
//! agree is looked at again at a new position, at most [`ROUNDS`] times; what still moves is listed as unchecked.

pub mod answers;
pub mod archive;
mod catalog;
pub(in crate::database) mod definitions;
mod drill;
pub mod drills;
mod fetched;
mod halted;
mod local;
mod position;
pub mod remote;
mod report;
mod rounds;
mod rows;
mod session;
pub mod sessions;
mod shape;
mod tables;
mod whole;

#[cfg(test)]
mod tests;

pub use catalog::{Item, Kind};
pub use drill::DrillReport;
pub use position::Position;
pub use report::{
    Comparison, Difference, KeyDifference, RangeDifference, RowsDiffer, TableSum, Unchecked, Way,
};
pub use session::{Connect, Session};
pub use whole::{DatabaseReport, Whole};

use super::sql::SqlError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// Rounds in which a difference of descriptions must persist.
pub const ROUNDS: u32 = 3;

/// Where a comparison stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Progress {
    pub round: u32,
    pub tables: u64,
    pub tables_total: u64,
    pub bytes: u64,
    pub bytes_total: u64,
}

/// Why nothing is said about equality.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckError {
    #[error("the primary: {0}")]
    Primary(#[source] SqlError),
    #[error("the standby: {0}")]
    Standby(#[source] SqlError),
    #[error(
        "the standby follows {0} servers, and verify compares with one; `SHOW ALL SLAVES STATUS` lists them"
    )]
    Sources(usize),
    #[error(
        "the standby does not replicate ({0}); `ehpc-store db standby --start`, or --init when it cannot go on"
    )]
    NotRunning(String),
    #[error(
        "the standby does not replicate (error {number}: {what}); `ehpc-store db standby --start`, or --init when it cannot \
         go on"
    )]
    Applier { number: u32, what: String },
    #[error(
        "the standby is at {standby}, which the primary's position {primary} does not hold: it has transactions that \
         the primary does not have; `ehpc-store db standby --init` builds it anew"
    )]
    Ahead { standby: String, primary: String },
    #[error(
        "the standby came to {at} instead of {wanted}; somebody else starts or stops it: leave it alone and verify once more"
    )]
    Elsewhere { at: String, wanted: String },
    #[error("the standby is at {at} and does not come nearer to {wanted}; its connection says: {link}")]
    Stuck { at: String, wanted: String, link: String },
    #[error("the GTID position `{text}` is not understood: {error}")]
    Gtid { text: String, error: String },
    #[error("a row is longer than max_allowed_packet; raise it on both servers")]
    LongRow,
    #[error("stopped before it was finished")]
    Stopped,
}

/// A comparison.
pub struct Compare<'a> {
    /// What the standby should be equal to.
    pub primary: &'a dyn Connect,
    /// A server that replicates, straight or over an archive, from the primary.
    pub standby: &'a dyn Connect,
    /// Every table row by row.
    pub deep: bool,
    /// Told now and then where it stands.
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// Set from outside to stop early.
    pub stop: &'a AtomicBool,
}

impl Compare<'_> {
    /// Runs to the end.
    pub async fn run(&self) -> Result<Comparison, CheckError> {
        rounds::run(self).await
    }
}
