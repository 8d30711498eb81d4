//! Why a base snapshot could not be taken, kept or read, for people.

use crate::database::checks::definitions::Item;
use crate::database::server::ServerError;
use crate::database::sql::SqlError;
use crate::store::StoreError;
use crate::store::manifest::ManifestError;
use std::io;

/// So many things are named in one message.
const NAMED: usize = 5;

/// What can be wrong with a base snapshot.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BaseError {
    #[error("{0}")]
    Sql(#[from] SqlError),
    #[error("{0}")]
    Program(#[from] ServerError),
    #[error("the backup does not take the base snapshot: {0}")]
    Sink(String),
    #[error("the dump cannot be read: {0}")]
    Read(io::Error),
    #[error("the dump program failed ({status}): {said}")]
    Dump { status: String, said: String },
    #[error(
        "{program} is MariaDB's and cannot dump this MySQL: {said}. Install MySQL's own mysqldump (package mysql-client, \
         mysql-community-client), or name its directory in `tools` of [database]"
    )]
    ForeignDump { program: String, said: String },
    #[error("the dump is not complete: {0}")]
    Incomplete(&'static str),
    #[error("accounts or privileges were changed while the dump ran")]
    AccountsMoved,
    #[error("while the dump ran, somebody made, altered, emptied or dropped {what}")]
    DefinitionsMoved { what: String },
    #[error(
        "the server does not know the GTID of {place} in its binary log: the file was purged while the dump ran"
    )]
    NoGtid { place: String },
    #[error(
        "the server has no binary log (`SHOW MASTER STATUS` is empty): a base snapshot without a position is of no use. \
         Put `log_bin = mysql-bin` into [mysqld] and restart the server"
    )]
    NoBinaryLog,
    #[error(
        "no base snapshot in {tries} tries; the last fault: {last}. A dump is of no use when definitions (CREATE, ALTER, DROP, \
         TRUNCATE, accounts) change under it: hold the job that does it for as long as `ehpc-store db snapshot` takes, or \
         set base_at in [database] to an hour without it"
    )]
    GivenUp { tries: u32, last: Box<BaseError> },
    #[error("stopped: this daemon is shutting down, or the request was withdrawn")]
    Stopped,
    #[error("there is no base snapshot {number}")]
    Unknown { number: u64 },
    #[error("base snapshot {number} cannot be read: {reason}")]
    Damaged { number: u64, reason: String },
    #[error("the store of base snapshots: {0}")]
    Store(#[from] StoreError),
    #[error("the list of chunks of the base snapshot: {0}")]
    Manifest(#[from] ManifestError),
    #[error("{what}: {source}")]
    File { what: String, source: io::Error },
}

impl BaseError {
    /// Of what was changed, the first few.
    pub(super) fn moved(items: &[Item]) -> BaseError {
        let named: Vec<String> = items.iter().take(NAMED).map(Item::to_string).collect();
        let more = match items.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        BaseError::DefinitionsMoved { what: named.join(", ") + &more }
    }

    /// May another try succeed? (Schemas and accounts move on; a wrong password does not.)
    pub fn is_passing(&self) -> bool {
        match self {
            BaseError::AccountsMoved
            | BaseError::DefinitionsMoved { .. }
            | BaseError::NoGtid { .. }
            | BaseError::Incomplete(_) => true,
            // 1412: a table's definition changed after the snapshot; 1146, 1051: a table went away; 1305: a routine did;
            // 1356: a view names what is gone; 1205, 1213: locks.
            BaseError::Dump { said, .. } => {
                ["1412", "1146", "1051", "1305", "1356", "1205", "1213", "1049", "2013"].iter().any(
                    |number| said.contains(&format!("{number}:")) || said.contains(&format!("({number})")),
                )
            }
            BaseError::Sql(error) => {
                error.number().is_some_and(|number| [1412, 1146, 1205, 1213].contains(&number))
            }
            _ => false,
        }
    }
}
