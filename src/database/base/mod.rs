//! Base snapshots: the whole database at one place of its binary log, made by the server's own dump program, kept as
//! content-named chunks, so that the next one costs what has changed.

mod compact;
mod content;
mod dump;
mod error;
mod look;
mod read;
mod record;
pub mod schedule;
mod sink;
mod store;
mod sums;
mod take;
#[cfg(test)]
mod tests;

pub use error::BaseError;
pub use read::BaseReader;
pub(crate) use read::io_behind;
pub use record::{AccountsAt, BaseRecord, Branch, LogPlace, Sums, TableRecord, TableSum};
pub use sink::{BaseSink, StoreSink};
pub use store::BaseStore;
pub use take::{BaseProgress, TakeOptions, take};
