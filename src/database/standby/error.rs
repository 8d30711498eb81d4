//! Why the standby is not what it should be, for people.

use crate::database::restore::RestoreError;
use crate::database::server::ServerError;
use crate::database::sql::SqlError;
use std::path::PathBuf;

/// What can be wrong with a standby.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StandbyError {
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error("{0}")]
    Sql(#[from] SqlError),
    #[error("{0}")]
    Restore(#[from] RestoreError),
    #[error(
        "the standby is `mode = \"external\"`: it is built, started and stopped by its operator; `ehpc-store db standby \
         --print-sql` says with which statements it follows"
    )]
    External,
    #[error(
        "there is a standby (or something else) in {datadir} already: `--force` gives it up and builds a new one"
    )]
    Exists { datadir: PathBuf },
    #[error("the standby is not built: `ehpc-store db standby --init`")]
    NotBuilt,
    #[error(
        "a managed standby is a MariaDB; for a MySQL use `mode = \"external\"` and what `ehpc-store db standby --print-sql` \
         says"
    )]
    NotMaria,
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not what this program writes there: {reason}")]
    Record { path: PathBuf, reason: String },
    #[error(
        "the database server's binary log commits XA branch {branch} and never prepares it (the server was killed within XA \
         PREPARE): what the branch changed is in no log, and no replica follows over this. Build the standby anew from a new \
         base: `ehpc-store db snapshot`, then `ehpc-store db standby --init --force`"
    )]
    Unprepared { branch: String },
    #[error("stopped: this daemon is shutting down")]
    Stopped,
}
