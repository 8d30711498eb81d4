//! What may differ from the backup, and how that is noticed.

pub mod directories;
pub mod dirty;
mod lag;
pub mod recording;
pub mod shadow;
mod shadow_rows;
mod tickets;
pub mod touch;

use crate::host::ObjectKey;
pub use directories::DirectorySet;
pub use dirty::{Change, DirtySet, Entry, Source, Taken, Ticket, Touch};
pub use recording::{Durability, Recording};
