//! The catalog: SQLite over the packs. Derived: deleted, it is made again from them.
//!
//! One writer (the applier's thread, [`writer::CatalogWriter`]); readers have connections of their own
//! ([`CatalogReader`]) and see whole commits only.

mod answers;
mod past;
mod rows;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use answers::{Buckets, LiveSlice, TouchedSlice};
pub use past::Past;
pub use rows::{Live, Rows};
pub(crate) use writer::BatchRow;
pub use writer::CatalogWriter;

use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Changes with the tables: a catalog of another version is made anew.
const VERSION: i64 = 1;
const STATEMENTS: usize = 64;

/// Rows are small and keyed by integers where there can be millions:
/// `live` is one short row an object for the digest pass; states are only in `versions`.
const SCHEMA: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE batches(number INTEGER PRIMARY KEY, chain BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
    stored INTEGER NOT NULL, raw INTEGER NOT NULL, codec INTEGER NOT NULL, cut INTEGER NOT NULL,
    seconds INTEGER NOT NULL, nanos INTEGER NOT NULL);
CREATE TABLE blobs(hash BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL,
    raw INTEGER NOT NULL, codec INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE versions(id INTEGER NOT NULL, batch INTEGER NOT NULL, state BLOB, PRIMARY KEY(id, batch)) WITHOUT ROWID;
CREATE INDEX destroyed ON versions(id, batch) WHERE state IS NULL;
CREATE TABLE live(id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, kind INTEGER NOT NULL, digest BLOB NOT NULL,
    mirror_inode INTEGER);
CREATE TABLE entries(parent INTEGER NOT NULL, name BLOB NOT NULL, child INTEGER NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE INDEX entry_child ON entries(child);
CREATE TABLE past_entries(parent INTEGER NOT NULL, name BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
    child INTEGER NOT NULL, PRIMARY KEY(parent, name, since)) WITHOUT ROWID;
";

/// What can go wrong with the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite's own error.
    #[error(
        "catalog: {0}. It is derived: stop the backup, delete catalog.sqlite*, and it is made again from the packs"
    )]
    Sqlite(#[from] rusqlite::Error),
    /// A row is not what this version writes.
    #[error(
        "catalog: {what} of object {id} cannot be read. The catalog is derived: stop the backup, delete \
         catalog.sqlite*, and it is made again from the packs"
    )]
    Row {
        /// What.
        what: &'static str,
        /// Of which object.
        id: u64,
    },
    /// A batch was given out of order.
    #[error("catalog: batch {number} cannot be applied after batch {applied}")]
    OutOfOrder {
        /// The batch.
        number: u64,
        /// The last applied.
        applied: u64,
    },
    /// The answer would be larger than one message holds.
    #[error(
        "catalog: directory {id} has too many entries in batches {from} to {to} to be told in one answer"
    )]
    TooLarge {
        /// The directory.
        id: u64,
        /// First batch.
        from: u64,
        /// Last batch.
        to: u64,
    },
    /// The file is not a catalog of this version.
    #[error("catalog: {reason}")]
    NotACatalog {
        /// Why.
        reason: String,
    },
}

/// Where the catalog is.
#[derive(Clone, Debug)]
pub(crate) struct CatalogFile(PathBuf);

impl CatalogFile {
    pub(crate) fn new(path: PathBuf) -> CatalogFile {
        CatalogFile(path)
    }

    /// The writer's connection; true = the catalog was created. A file that is no catalog of this version is refused.
    pub(crate) fn open_writer(&self) -> Result<(CatalogWriter, bool), CatalogError> {
        let connection = Connection::open(&self.0)?;
        let created = prepare(&connection).map_err(|e| match e {
            CatalogError::Sqlite(source) => CatalogError::NotACatalog { reason: source.to_string() },
            other => other,
        })?;
        Ok((CatalogWriter::new(connection)?, created))
    }

    pub(crate) fn open_reader(&self) -> Result<CatalogReader, CatalogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.0, flags)?;
        connection.pragma_update(None, "cache_size", -4096)?;
        configure(&connection)?;
        Ok(CatalogReader { connection })
    }

    /// Deletes it, so that it is made again.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            match std::fs::remove_file(Path::new(&name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn configure(connection: &Connection) -> Result<(), CatalogError> {
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Creates the tables if there are none; true = they were created.
fn prepare(connection: &Connection) -> Result<bool, CatalogError> {
    configure(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A lost commit is made again from the packs; a catalog that is ahead of them must not be, hence the order in
    // `Store`: packs are synced first.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -24576)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (VERSION, _) => Ok(false),
        (0, 0) => {
            connection.execute_batch(&format!("BEGIN;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;"))?;
            Ok(true)
        }
        _ => Err(CatalogError::NotACatalog {
            reason: format!("it has version {version}, this program writes version {VERSION}"),
        }),
    }
}

/// A connection that reads what is committed.
pub struct CatalogReader {
    connection: Connection,
}

impl CatalogReader {
    /// One statement sees one commit; two of them may see two. For more see [`CatalogReader::snapshot`].
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.connection)
    }

    /// Everything that `read` does sees the same commit.
    pub fn snapshot<T, E: From<CatalogError>>(
        &mut self,
        read: impl FnOnce(&Rows<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.connection.transaction().map_err(CatalogError::from)?;
        read(&Rows::new(&transaction))
    }
}

/// Numbers are at most 2^63 - 1 (`Store::append_batch` refuses others), so that SQLite keeps their order.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
