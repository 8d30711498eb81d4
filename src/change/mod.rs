//! What may differ from the backup, and how that is noticed.

pub mod directories;
pub mod dirty;
mod lag;
pub mod recording;
mod tickets;
pub mod touch;

use crate::host::ObjectKey;
pub use dirty::{Change, DirtySet, Entry, Source, Taken, Ticket, Touch};
