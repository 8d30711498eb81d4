//! The applier for `status`.

use crate::replication::mirror::MirrorNotes;
use std::fmt;

/// What it is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ApplierState {
    /// Opening.
    #[default]
    Starting,
    /// The mirror does not match the catalog and is made anew from the packs.
    Rebuilding,
    /// What an unclean stop or an error left is redone.
    Redoing,
    /// As it should.
    Running,
    /// Cannot go on; tries again by itself.
    Paused {
        /// Why.
        reason: String,
    },
    /// Ended.
    Stopped,
}

impl fmt::Display for ApplierState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplierState::Starting => write!(f, "starting"),
            ApplierState::Rebuilding => write!(f, "making the mirror anew from the packs"),
            ApplierState::Redoing => write!(f, "redoing what was under way when it stopped"),
            ApplierState::Running => write!(f, "running"),
            ApplierState::Paused { reason } => write!(f, "paused, will try again: {reason}"),
            ApplierState::Stopped => write!(f, "stopped"),
        }
    }
}

/// See [`super::Applier::status`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ApplierStatus {
    /// State.
    pub state: ApplierState,
    /// Last batch in the mirror.
    pub applied: u64,
    /// Last batch that is committed in the catalog and synced in the mirror.
    pub committed: u64,
    /// Objects and entries applied since the start.
    pub items: u64,
    /// Bytes of content written to the mirror since the start.
    pub bytes: u64,
    /// What the mirror could not keep; `None` = there is no mirror.
    pub notes: Option<MirrorNotes>,
}
