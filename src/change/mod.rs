//! What may differ from the backup, and how that is noticed.

pub mod dirty;
mod lag;
mod tickets;
pub mod touch;

use crate::host::ObjectKey;
pub use dirty::{Change, DirtySet, Entry, Source, Taken, Ticket, Touch};
