//! What may differ from the backup, and how that is noticed.

pub mod dirty;

pub use dirty::{Change, DirtySet, Entry, Taken, Touch};
