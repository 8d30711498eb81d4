//! What may differ from the backup, and how that is noticed.

pub mod dirty;
pub mod shadow;
mod shadow_rows;

pub use dirty::{Change, DirtySet, Entry, Taken, Touch};
pub use shadow::{Shadow, ShadowReader};
