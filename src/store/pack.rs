//! Packs: append-only files that hold everything the backup was given. They are the truth; all else is derived.
//!
//! `meta-%08d.pack` holds batches and manifest pages, `chunk-%08d.pack` holds chunks. A pack is 64 bytes of header
//! ([`record::FileHead`]) and records ([`record::Head`] and payload). Only the newest pack of a series is appended to;
//! it is fsync'd before the next is created, so only the newest can have a torn tail.

pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod record;
pub(crate) mod scan;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

/// Which of the two series a pack belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Series {
    /// Batches and manifest pages: enough to rebuild the catalog's history.
    Meta,
    /// Chunks of files.
    Chunk,
}

/// One pack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackId {
    /// Series.
    pub series: Series,
    /// 1, 2, 3, ... within the series.
    pub number: u32,
}

impl PackId {
    /// The reverse of `Display`; `None` for other file names.
    pub fn parse(name: &str) -> Option<PackId> {
        let (series, number) = name.strip_suffix(".pack")?.split_once('-')?;
        let series = match series {
            "meta" => Series::Meta,
            "chunk" => Series::Chunk,
            _ => return None,
        };
        let id = PackId { series, number: number.parse().ok()? };
        (id.number > 0 && id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series = match self.series {
            Series::Meta => "meta",
            Series::Chunk => "chunk",
        };
        write!(f, "{series}-{:08}.pack", self.number)
    }
}

/// A place in a series: a byte of one of its packs. Places are in order of appending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Place {
    /// Number of the pack; 0 = before the first.
    pub pack: u32,
    /// Byte in it.
    pub offset: u64,
}

/// What can go wrong with packs.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The disk is full; the pack ends at its last whole record, and appending can be tried again.
    #[error("no space left for {pack}: free some space on the backup's disk; nothing acknowledged is lost")]
    NoSpace {
        /// Where.
        pack: PackId,
    },
    /// A system call failed.
    #[error("{pack}: cannot {action}: {source}")]
    Io {
        /// Where.
        pack: PackId,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The packs' directory cannot be used.
    #[error("the packs' directory: cannot {action}: {source}")]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An fsync failed: what was written since the last good one is not trusted, and given up.
    #[error(
        "{pack}: the disk did not confirm what was written ({source}); it was not acknowledged and is sent again. \
         Look for disk errors in the kernel's log"
    )]
    SyncFailed {
        /// Where.
        pack: PackId,
        /// Why.
        source: io::Error,
    },
    /// After a failed fsync the pack could not be cut back either.
    #[error(
        "{pack}: refused until the backup is restarted, because an earlier write or sync failed and could not be undone"
    )]
    Refused {
        /// Where.
        pack: PackId,
    },
    /// Bytes that were durable are no longer what was written.
    #[error(
        "{pack} is damaged at byte {offset}: {reason}. Restore this pack from a copy, or move the backup's directory \
         away and let a first sync make a new one"
    )]
    Damaged {
        /// Where.
        pack: PackId,
        /// Start of the record concerned.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process has the packs open.
    #[error("another process is using {path}: stop it first")]
    InUse {
        /// The lock file.
        path: String,
    },
}

impl PackError {
    /// Waiting for space can help.
    pub fn is_no_space(&self) -> bool {
        matches!(self, PackError::NoSpace { .. })
    }
}
