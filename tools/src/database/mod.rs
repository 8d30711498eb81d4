//! Real database servers of a test's own, in temporary directories, and concurrent work for them.
//!
//! ```no_run
//! use ehpc_tools::database::{Maria, Options, Workload, Work};
//! # fn main() -> anyhow::Result<()> {
//! let server = Maria::start(Options::default().with("--log-bin-compress=1"))?;
//! let work = Workload::start(&server.access(), Work::maria(7))?;
//! work.wait_for(500)?;
//! let seen = work.stop()?;
//! assert_eq!(server.sql("SELECT COUNT(*) FROM work.log WHERE worker = 0")?[0][0], seen.of(0).len().to_string());
//! # Ok(()) }
//! ```

mod client;
mod clock;
mod maria;
mod mysql56;
mod server;
mod stack;
mod statements;
mod workload;

#[cfg(test)]
mod tests;

pub use client::{Access, Client, Row};
pub use clock::Clock;
pub use maria::{Maria, Options};
pub use mysql56::MySql56;
pub use stack::Stack;
pub use workload::{Seen, Work, Workload};
