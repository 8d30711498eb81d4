//! What can go wrong with the archive.

use ehpc_proto::binlog::{GroupFault, ScanFault};
use ehpc_proto::replication::database::Place;
use std::io;
use std::path::PathBuf;

/// Why the archive cannot be opened, or cannot say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another process has it.
    #[error("the archive {path} is in use: the backup daemon runs. Ask it, or stop it first")]
    InUse {
        /// The archive's directory.
        path: PathBuf,
    },
    /// The file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `lineage.json` of a lineage that has files.
    #[error(
        "{path} cannot be read ({reason}): it says which server the binary logs beside it are from. Restore it, or move \
         that directory away"
    )]
    Lineage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nothing arrived yet.
    #[error("the archive is empty: no transaction has arrived yet")]
    Empty,
    /// No such file, or pruned.
    #[error("file {file} of lineage {lineage} is not in the archive (pruned, or never there)")]
    NoFile {
        /// Lineage.
        lineage: u32,
        /// Ordinal.
        file: u32,
    },
    /// No file of that name.
    #[error("the archive holds no file `{0}`; `ehpc-store db log` lists those it holds")]
    NoName(String),
    /// A moment before the first group.
    #[error("the archive begins later: its first transaction is of {first}")]
    BeforeStart {
        /// RFC 3339.
        first: String,
    },
    /// A position that is no end of a group.
    #[error(
        "position {position} of {name} is inside a transaction, which goes from {start} to {end}: take one of these \
         (the first without it, the second with it)"
    )]
    InsideGroup {
        /// The file.
        name: String,
        /// What was asked for.
        position: u64,
        /// Start of the group.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// A position past the end.
    #[error("{name} ends at {end} in the archive: there is no position {position}")]
    PastEnd {
        /// The file.
        name: String,
        /// What was asked for.
        position: u64,
        /// Durable bytes.
        end: u64,
    },
    /// No group of that GTID.
    #[error("no transaction {0} is in the archive")]
    NoGtid(String),
    /// The bytes are not what they were.
    #[error(
        "{name} in the archive is damaged: {reason}; `ehpc-store verify --database --repair` fetches it again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// How.
        reason: String,
    },
    /// A record of the index of a file that is still being written.
    #[error(
        "{path}: record {record} is damaged, and its binary log is still being written: FLUSH BINARY LOGS on the server \
         ends that file, and its index is made anew; so does a restart of the backup daemon"
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// From 0 on.
        record: u64,
    },
    /// The writing thread is gone.
    #[error("the archive is closed")]
    Closed,
}

/// Why bytes could not be kept. After a fault the connection ends; the next one begins where the archive ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// No space: nothing is lost, the server keeps its binary logs, and it works again when there is space.
    #[error("the disk of the archive is full ({reason}): nothing is acknowledged until there is space")]
    Full {
        /// Where.
        reason: String,
    },
    /// The disk fails.
    #[error("the archive cannot be written: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
    /// These are not the bytes that follow.
    #[error("the archive does not take this: {reason}")]
    Rejected {
        /// Why.
        reason: String,
    },
}

impl Fault {
    pub(super) fn rejected(reason: impl Into<String>) -> Fault {
        Fault::Rejected { reason: reason.into() }
    }

    /// An I/O error on `path`.
    pub(super) fn io(action: &str, path: &str, error: &io::Error) -> Fault {
        let reason = format!("cannot {action} {path}: {error}");
        let quota = rustix::io::Errno::DQUOT.raw_os_error();
        if error.kind() == io::ErrorKind::StorageFull || error.raw_os_error() == Some(quota) {
            return Fault::Full { reason };
        }
        Fault::Broken { reason }
    }
}

impl From<ScanFault> for Fault {
    fn from(fault: ScanFault) -> Fault {
        Fault::rejected(fault.to_string())
    }
}

impl From<GroupFault> for Fault {
    fn from(fault: GroupFault) -> Fault {
        Fault::rejected(fault.to_string())
    }
}

/// A place for people.
pub(super) fn shown(place: Place) -> String {
    format!("lineage {}, file {}, offset {}", place.lineage, place.file, place.offset)
}
