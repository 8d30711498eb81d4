//! Why a restore was not done, for people.

use crate::database::archive::ArchiveError;
use crate::database::base::{BaseError, io_behind};
use crate::database::server::ServerError;
use crate::database::sql::SqlError;
use std::io;

/// What can be wrong with a restore.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RestoreError {
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Base(#[from] BaseError),
    #[error("{0}")]
    Server(#[from] ServerError),
    /// A program that runs what the backup holds, over it.
    #[error("{0}")]
    Content(#[source] ServerError),
    #[error("{0}")]
    Sql(#[from] SqlError),
    #[error("`{0}` is not a transaction's GTID: write it as 0-1-4711 (MariaDB) or as UUID:4711 (MySQL)")]
    Gtid(String),
    #[error("`{0}` is not a table: write it as DATABASE.TABLE")]
    Table(String),
    #[error(
        "no base snapshot leads to {file}:{offset}{place}: the oldest usable one is {oldest}. Choose a later moment{hint}"
    )]
    NoBase { file: String, offset: u64, place: String, oldest: String, hint: &'static str },
    #[error(
        "the branch {branch} was prepared before the archive begins, and base snapshot {base} does not hold its rows: \
         choose a moment that a later base leads to (`ehpc-store db bases`)"
    )]
    LostBranch { branch: String, base: u64 },
    #[error(
        "the server {server} has databases already ({databases}): they would be dropped. Name another server, or say \
         --overwrite"
    )]
    NotEmpty { server: String, databases: String },
    #[error(
        "the table {table} exists on {server} already: give it another name with --as, or say --overwrite"
    )]
    TableExists { table: String, server: String },
    #[error("there is no table {table} at that moment; the tables of that database then: {there}")]
    NoTable { table: String, there: String },
    #[error("--only restores into a server: name it with --to")]
    OnlyNeedsServer,
    #[error("the archive is of {archive}, the server {server} is {found}: a restore needs the same")]
    OtherFlavor { archive: &'static str, server: String, found: String },
    #[error(
        "base snapshot {base} was begun at {file}, which the archive does not have any more: which distributed transactions \
         were prepared and not ended then is not known. Choose a moment that a later base leads to (`ehpc-store db bases`)"
    )]
    LostBefore { base: u64, file: String },
    #[error(
        "{program} has no --exclude-gtids, and the way crosses a failover of a MySQL: install MySQL's own mysqlbinlog (package \
         mysql-client, mysql-community-client), or name its directory in `tools` of [database]"
    )]
    NoExclude { program: String },
    #[error(
        "{name} on {server} was switched off for the restore and cannot be switched on again: {source}. Run `SET GLOBAL {name} \
         = ON`"
    )]
    Switch { name: &'static str, server: String, source: Box<SqlError> },
    /// A file of the archive.
    #[error("{what}: {source}")]
    Archived { what: String, source: io::Error },
    #[error(
        "binary log {ordinal} of lineage {lineage}, which is on the way to that moment, is damaged in the archive: {reason}. \
         On nfs1, `ehpc-store verify --database --repair` fetches it from the server again; where the server has it no more, \
         choose a moment before that, or one that a later base leads to (`ehpc-store db bases`)"
    )]
    Unsound { lineage: u32, ordinal: u32, reason: String },
    #[error("stopped: this daemon is shutting down, or the request was withdrawn")]
    Stopped,
}

/// Errors of a server that say nothing about the statement, whatever it is. Source: MariaDB knowledge base "MariaDB Error
/// Codes", MySQL's errmsg-utf8.txt.
const OF_MACHINE: [&[u32]; 5] = [
    // Files and space: cannot create, close, read, disk full, writing, the engine's own, table full, the relay log.
    &[1004, 1021, 1023, 1024, 1026, 1030, 1114, 1595],
    // Memory, threads, resources, the length of a packet.
    &[1037, 1038, 1041, 1135, 1153],
    // Connections: too many of all or of one account, handshake, host, given up, cut.
    &[1040, 1042, 1043, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1927],
    // Privileges, and what the server's options forbid.
    &[1044, 1045, 1142, 1227, 1290, 1698],
    // Locks, interruptions, times, a failing commit, a shutdown.
    &[1053, 1077, 1079, 1180, 1205, 1206, 1213, 1223, 1297, 1317, 1969, 3024],
];

/// Is an error of that number one of the machine, or of the connection, whatever was to be done? (Below 1000 are those of
/// operations on files, from 2000 on those of client programs.)
pub(in crate::database) fn is_of_machine(number: u32) -> bool {
    OF_MACHINE.iter().any(|some| some.contains(&number)) || number < 1000 || (2000..3000).contains(&number)
}

impl RestoreError {
    /// An error of a program that runs what the backup holds.
    pub(super) fn running(error: ServerError) -> RestoreError {
        match error {
            ServerError::Stopped => RestoreError::Stopped,
            error @ (ServerError::Failed { .. } | ServerError::Source(_)) => RestoreError::Content(error),
            other => other.into(),
        }
    }

    /// Is it what the backup holds that cannot be restored? Else it is something of this machine, or of the asker's.
    pub fn is_of_backup(&self) -> bool {
        match self {
            RestoreError::Unsound { .. }
            | RestoreError::NoBase { .. }
            | RestoreError::LostBranch { .. }
            | RestoreError::LostBefore { .. } => true,
            RestoreError::Content(ServerError::Failed { said, .. }) => is_refusal(said),
            // A disk that fails is found by the archive's own check.
            RestoreError::Content(ServerError::Source(source))
            | RestoreError::Archived { source, .. }
            | RestoreError::Archive(ArchiveError::Io { source, .. }) => is_damage(source),
            RestoreError::Archive(error) => matches!(
                error,
                ArchiveError::Empty
                    | ArchiveError::Lineage { .. }
                    | ArchiveError::NoFile { .. }
                    | ArchiveError::Damaged { .. }
                    | ArchiveError::Index { .. }
            ),
            RestoreError::Base(error @ (BaseError::Store(_) | BaseError::Manifest(_))) => {
                io_behind(error).is_none_or(is_damage)
            }
            RestoreError::Base(error) => {
                matches!(error, BaseError::Damaged { .. } | BaseError::Unknown { .. })
            }
            _ => false,
        }
    }
}

/// Does an error of reading what is kept say that it is not there, or not what it was? Else it could not be read.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// Do these last words of a client program (`ERROR 1062 (23000) at line 7: ..`) or of a binary log program (`ERROR: ..`) say
/// that it is what it was given that is wrong?
fn is_refusal(said: &str) -> bool {
    let numbers = said.match_indices("ERROR ").filter_map(|(at, word)| {
        let digits = said[at + word.len()..].split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    let no_space = said.contains("Errcode: 28") || said.contains("No space left");
    said.contains("ERROR") && !no_space && !numbers.into_iter().any(is_of_machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_backup_holds_is_told_from_trouble_of_the_machine() {
        let failed = |said: &str| {
            let failed = ServerError::Failed {
                program: "mariadb".into(),
                status: "exit status: 1".to_owned(),
                said: said.to_owned(),
            };
            RestoreError::running(failed).is_of_backup()
        };
        assert!(failed("ERROR 1062 (23000) at line 7: Duplicate entry '1' for key 'PRIMARY'"));
        assert!(failed("ERROR: Error in Log_event::read_log_event(): 'Event crc check failed!'"));
        assert!(!failed("ERROR 2013 (HY000) at line 7: Lost connection to server during query"));
        assert!(!failed("ERROR 1114 (HY000) at line 7: The table 't' is full"));
        assert!(!failed(
            "ERROR 1 (HY000): Can't create/write to file '/x' (Errcode: 28 \"No space left on device\")"
        ));
        for number in [1040, 1153, 1206, 29] {
            assert!(!failed(&format!("ERROR {number} (08004): of the machine")), "{number}");
        }
        assert!(!failed(""));
        assert!(!RestoreError::running(ServerError::Stopped).is_of_backup());
        let source = |kind| RestoreError::running(ServerError::Source(io::Error::from(kind))).is_of_backup();
        assert!(source(io::ErrorKind::InvalidData) && !source(io::ErrorKind::PermissionDenied));
        // A file of the archive that is gone is the backup's fault, one of the server that is filled is not.
        let (what, gone) = ("reading", || io::Error::from(io::ErrorKind::NotFound));
        assert!(RestoreError::Archived { what: what.to_owned(), source: gone() }.is_of_backup());
        let file = ServerError::File { what, path: "/datadir".into(), source: gone() };
        assert!(!RestoreError::from(file).is_of_backup());
        assert!(!RestoreError::from(ArchiveError::NoGtid("0-1-5".to_owned())).is_of_backup());
    }
}
