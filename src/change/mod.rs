//! What may differ from the backup, and how that is noticed.
//!
//! [`DirtySet`] holds changes: "look here". They come from NFS itself ([`Recording`]), from the watcher
//! ([`watch`]), and from the scan against the [`shadow`]; [`ChangeCapture`] runs the latter two. The
//! sender takes them, and a [`Fence`] tells it when everything before a moment has been taken.

pub mod capture;
pub mod directories;
pub mod dirty;
pub mod fence;
mod lag;
pub mod reconcile;
pub mod recording;
pub mod scans;
pub mod shadow;
mod shadow_rows;
mod tickets;
pub mod touch;
pub mod watch;
pub mod watermark;

use crate::host::ObjectKey;
pub use capture::{CaptureError, CaptureOptions, CaptureStatus, ChangeCapture, ShadowReaders};
pub use directories::DirectorySet;
pub use dirty::{Change, DirtySet, Entry, Source, Taken, Ticket, Touch};
pub use fence::{Fence, FenceError};
pub use recording::{Durability, Recording};
pub use scans::{ScanOutcome, Scans};
pub use shadow::{Shadow, ShadowReader};
pub use watch::{WatchChoice, WatchStatus};
pub use watermark::{ShadowNote, ShadowNotes};
