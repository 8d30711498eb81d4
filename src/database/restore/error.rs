//! Why a restore was not done, for people.

use crate::database::archive::ArchiveError;
use crate::database::base::BaseError;
use crate::database::server::ServerError;
use crate::database::sql::SqlError;

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
    #[error("{what}: {source}")]
    File { what: String, source: std::io::Error },
    #[error(
        "binary log {ordinal} of lineage {lineage}, which is on the way to that moment, is damaged in the archive: {reason}. \
         On nfs1, `ehpc-store verify --database --repair` fetches it from the server again; where the server has it no more, \
         choose a moment before it, or one that a later base leads to (`ehpc-store db bases`)"
    )]
    Unsound { lineage: u32, ordinal: u32, reason: String },
    #[error("stopped: this daemon is shutting down, or the request was withdrawn")]
    Stopped,
}
