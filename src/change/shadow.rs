//! The shadow index: SQLite on the primary, what the backup last acknowledged of every object and entry.
//!
//! One writer ([`Shadow`], owned by the sender's thread) keeps a transaction open and commits it about twice a
//! second; each [`ShadowReader`] is a read-only connection of its own and sees committed state. It is a cache of
//! the backup's live state: a file that cannot be read is thrown away and rebuilt from the backup.

pub use super::shadow_rows::{Meta, Row, meta_digest};
use super::shadow_rows::{Queries, SCHEMA, insert_row, timestamp_bytes, to_sql};
use crate::host::ObjectKey;
use crate::host::tree::EntryHints;
use ehpc_proto::replication::{Hash, ObjectId, Position, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Faults of the shadow index.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ShadowError {
    #[error(
        "shadow index {path}: cannot open it: {source}; check that the state directory is writable and its disk has space"
    )]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(
        "shadow index: cannot remove the damaged file {path}: {source}; remove it by hand, it is rebuilt from the backup"
    )]
    Remove { path: PathBuf, source: std::io::Error },
    #[error(
        "shadow index: cannot {what}: {source}; if this persists stop nfs1 and remove shadow.sqlite, it is rebuilt from the backup"
    )]
    Sqlite { what: &'static str, source: rusqlite::Error },
    #[error(
        "shadow index: a damaged row was met when it tried to {what}; stop nfs1 and remove shadow.sqlite, it is rebuilt from the backup"
    )]
    BadRow { what: &'static str },
}

/// Layout of the tables; another number means another program wrote the file: it is rebuilt.
const LAYOUT: i64 = 1;
/// Most rows between commits.
const COMMIT_ROWS: u32 = 5_000;
/// Most time between commits.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

fn sql<T>(what: &'static str, result: rusqlite::Result<T>) -> Result<T, ShadowError> {
    result.map_err(|source| ShadowError::Sqlite { what, source })
}

/// The writer. Questions see what it has written, committed or not.
pub struct Shadow {
    conn: Connection,
    path: PathBuf,
    meta: Meta,
    /// Rows since the transaction was opened, and when that was.
    open_since: Option<Instant>,
    rows: u32,
}

impl Shadow {
    /// Opens or creates the index. One that is damaged or of another layout is replaced by an empty one.
    pub fn open(path: &Path) -> Result<Shadow, ShadowError> {
        match Shadow::try_open(path) {
            Ok(shadow) => Ok(shadow),
            Err(error) if is_damage(&error) => {
                tracing::warn!(path = %path.display(), %error, "shadow index is unusable and is rebuilt from the backup");
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    match std::fs::remove_file(&file) {
                        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                            return Err(ShadowError::Remove { path: file.into(), source });
                        }
                        _ => {}
                    }
                }
                Shadow::try_open(path)
            }
            Err(error) => Err(error),
        }
    }

    fn try_open(path: &Path) -> Result<Shadow, ShadowError> {
        let at_open = |source| ShadowError::Open { path: path.to_owned(), source };
        let conn = Connection::open(path).map_err(at_open)?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -24576; PRAGMA wal_autocheckpoint = 4000; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;")
            .map_err(at_open)?;
        conn.set_prepared_statement_cache_capacity(64);
        let layout: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(at_open)?;
        if layout != 0 && layout != LAYOUT {
            return Err(ShadowError::BadRow { what: "read the layout's version" });
        }
        conn.execute_batch(SCHEMA).map_err(at_open)?;
        conn.execute_batch(&format!("PRAGMA user_version = {LAYOUT}; DELETE FROM pages WHERE refs <= 0;"))
            .map_err(at_open)?;
        let queries = Queries(&conn);
        let mut meta = queries.meta()?;
        meta.next_id = meta.next_id.max(queries.highest_id()? + 1);
        Ok(Shadow { conn, path: path.to_owned(), meta, open_since: None, rows: 0 })
    }

    /// A reader of the same index.
    pub fn reader(&self) -> Result<ShadowReader, ShadowError> {
        ShadowReader::open(&self.path)
    }

    /// Everything but objects and entries, as of now.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Takes the number of a new object.
    pub fn new_id(&mut self) -> ObjectId {
        let id = ObjectId(self.meta.next_id);
        self.meta.next_id += 1;
        id
    }

    /// New objects get numbers above `id`.
    pub fn raise_next_id(&mut self, id: ObjectId) {
        self.meta.next_id = self.meta.next_id.max(id.0 + 1);
    }

    /// The object with this key.
    pub fn by_key(&self, key: &ObjectKey) -> Result<Option<Row>, ShadowError> {
        Queries(&self.conn).by_key(key)
    }

    /// The number of the object with this key.
    pub fn id_of(&self, key: &ObjectKey) -> Result<Option<ObjectId>, ShadowError> {
        Queries(&self.conn).id_of(key)
    }

    /// The object with this number.
    pub fn by_id(&self, id: ObjectId) -> Result<Option<Row>, ShadowError> {
        Queries(&self.conn).by_id(id)
    }

    /// The object that has this name.
    pub fn entry(&self, parent: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, ShadowError> {
        Queries(&self.conn).entry(parent, name)
    }

    /// A directory's entries, sorted by name.
    pub fn entries(&self, parent: ObjectId) -> Result<Vec<(Vec<u8>, ObjectId)>, ShadowError> {
        Queries(&self.conn).entries(parent)
    }

    /// An object's names.
    pub fn entries_of(&self, child: ObjectId) -> Result<Vec<(ObjectId, Vec<u8>)>, ShadowError> {
        Queries(&self.conn).entries_of(child)
    }

    /// Path within the export ("a/b"; empty for the root) by one of its names; `None` if it has none.
    pub fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, ShadowError> {
        Queries(&self.conn).path_of(id)
    }

    /// Objects known.
    pub fn object_count(&self) -> Result<u64, ShadowError> {
        Queries(&self.conn).object_count()
    }

    /// Up to `limit` objects without any name, by number, from after `after`.
    pub fn orphans(&self, after: ObjectId, limit: u32) -> Result<Vec<ObjectId>, ShadowError> {
        Queries(&self.conn).orphans(after, limit)
    }

    /// A manifest page or root.
    pub fn page(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ShadowError> {
        Queries(&self.conn).page(hash)
    }

    fn begin(&mut self) -> Result<(), ShadowError> {
        self.hold()?;
        self.rows += 1;
        Ok(())
    }

    /// Keeps one transaction open until the next commit: look-ups within it take no locks of their own.
    pub fn hold(&mut self) -> Result<(), ShadowError> {
        if self.open_since.is_none() {
            sql("begin a transaction", self.conn.execute_batch("BEGIN IMMEDIATE"))?;
            self.open_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Writes an object's row.
    pub fn put(&mut self, row: &Row) -> Result<(), ShadowError> {
        self.begin()?;
        insert_row(&self.conn, row)
    }

    /// Forgets an object; its entries are taken away by [`Shadow::put_entry`].
    pub fn remove(&mut self, id: ObjectId) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "remove an object";
        sql(
            what,
            sql(what, self.conn.prepare_cached("DELETE FROM objects WHERE id = ?"))?.execute([to_sql(id.0)]),
        )?;
        Ok(())
    }

    /// Sets or removes an entry.
    pub fn put_entry(
        &mut self,
        parent: ObjectId,
        name: &[u8],
        child: Option<ObjectId>,
    ) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "write an entry";
        match child {
            Some(child) => {
                let mut statement =
                    sql(what, self.conn.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"))?;
                sql(what, statement.execute(params![to_sql(parent.0), name, to_sql(child.0)]))?;
            }
            None => {
                let mut statement =
                    sql(what, self.conn.prepare_cached("DELETE FROM entries WHERE parent = ? AND name = ?"))?;
                sql(what, statement.execute(params![to_sql(parent.0), name]))?;
            }
        }
        Ok(())
    }

    /// Keeps a manifest page that no row refers to yet (it goes away at the next start unless [`Shadow::retain_page`]d).
    pub fn put_page(&mut self, hash: &Hash, bytes: &[u8]) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "write a manifest page";
        let mut statement =
            sql(what, self.conn.prepare_cached("INSERT OR IGNORE INTO pages VALUES (?, 0, ?)"))?;
        sql(what, statement.execute(params![hash.0.as_slice(), bytes]))?;
        Ok(())
    }

    /// Does a row refer to this page?
    pub fn holds_page(&self, hash: &Hash) -> Result<bool, ShadowError> {
        Queries(&self.conn).holds_page(hash)
    }

    /// One more row refers to this page.
    pub fn retain_page(&mut self, hash: &Hash) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "retain a manifest page";
        let mut statement =
            sql(what, self.conn.prepare_cached("UPDATE pages SET refs = refs + 1 WHERE hash = ?"))?;
        sql(what, statement.execute([hash.0.as_slice()]))?;
        Ok(())
    }

    /// One row fewer refers to this page; the last one takes it away.
    pub fn release_page(&mut self, hash: &Hash) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "release a manifest page";
        let mut statement =
            sql(what, self.conn.prepare_cached("UPDATE pages SET refs = refs - 1 WHERE hash = ?"))?;
        sql(what, statement.execute([hash.0.as_slice()]))?;
        let mut statement =
            sql(what, self.conn.prepare_cached("DELETE FROM pages WHERE hash = ? AND refs <= 0"))?;
        sql(what, statement.execute([hash.0.as_slice()]))?;
        Ok(())
    }

    fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), ShadowError> {
        self.begin()?;
        let what = "write the shadow's position";
        let mut statement = sql(what, self.conn.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?, ?)"))?;
        sql(what, statement.execute(params![name, value]))?;
        Ok(())
    }

    /// The rows now stand at `position` (written with the next commit).
    pub fn set_position(&mut self, position: Position) -> Result<(), ShadowError> {
        self.begin()?;
        self.meta.position = Some(position);
        Ok(())
    }

    /// Content of everything with an older ctime is on the primary's disk.
    pub fn set_watermark(&mut self, watermark: Timestamp) -> Result<(), ShadowError> {
        self.meta.watermark = Some(watermark);
        self.put_meta("watermark", &timestamp_bytes(watermark))
    }

    /// The rows were compared with the disk in this boot.
    pub fn set_boot_id(&mut self, boot_id: &[u8]) -> Result<(), ShadowError> {
        self.meta.boot_id = boot_id.to_vec();
        self.put_meta("boot_id", boot_id)
    }

    /// Set after the final syncfs, cleared at the start of a session.
    pub fn set_clean_stop(&mut self, clean: bool) -> Result<(), ShadowError> {
        self.meta.clean_stop = clean;
        self.put_meta("clean_stop", &[u8::from(clean)])
    }

    /// What export this is. A root with another key takes the old root's row over (`--accept-new-export`).
    pub fn set_export(&mut self, root_key: &ObjectKey, filesystem_id: &[u8]) -> Result<(), ShadowError> {
        self.meta.root_key = Some(root_key.clone());
        self.meta.filesystem_id = filesystem_id.to_vec();
        self.put_meta("root_key", &root_key.to_bytes())?;
        self.put_meta("filesystem_id", filesystem_id)
    }

    /// Makes every key but the root's unusable: they are of another file system, where equal keys mean nothing.
    /// (The dead key is `KeyKind::Inode`, type -1, the object's number.)
    pub fn kill_keys(&mut self) -> Result<(), ShadowError> {
        self.begin()?;
        let dead =
            "UPDATE objects SET key = CAST(x'02ffffffff' || printf('%016x', id) AS BLOB) WHERE id <> 1";
        sql("forget the keys of the former file system", self.conn.execute(dead, []))?;
        Ok(())
    }

    /// Empties the index; object numbers go on, the watermark and boot are forgotten.
    pub fn discard(&mut self) -> Result<(), ShadowError> {
        self.begin()?;
        let next_id = self.meta.next_id;
        sql(
            "empty the shadow index",
            self.conn.execute_batch(
                "DELETE FROM objects; DELETE FROM entries; DELETE FROM pages; DELETE FROM meta;",
            ),
        )?;
        self.meta = Meta { next_id, ..Meta::default() };
        self.commit()
    }

    /// Commits when enough rows or time have gathered. True if it did.
    pub fn commit_if_due(&mut self) -> Result<bool, ShadowError> {
        match self.open_since {
            Some(since) if self.rows >= COMMIT_ROWS || since.elapsed() >= COMMIT_EVERY => {
                self.commit().map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// When the open transaction wants its commit.
    pub fn commit_due(&self) -> Option<Instant> {
        self.open_since.map(|since| since + COMMIT_EVERY)
    }

    /// Makes everything written visible to readers.
    pub fn commit(&mut self) -> Result<(), ShadowError> {
        if self.open_since.is_none() {
            return Ok(());
        }
        if self.rows == 0 {
            sql("end a transaction", self.conn.execute_batch("COMMIT"))?;
            self.open_since = None;
            return Ok(());
        }
        if let Some(position) = self.meta.position {
            self.put_meta("stream", &position.stream.0)?;
            self.put_meta("number", &position.number.to_be_bytes())?;
            self.put_meta("chain", &position.chain.0)?;
        }
        self.put_meta("next_id", &self.meta.next_id.to_be_bytes())?;
        sql("commit", self.conn.execute_batch("COMMIT"))?;
        self.open_since = None;
        self.rows = 0;
        Ok(())
    }
}

fn is_damage(error: &ShadowError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        ShadowError::Open { source, .. } | ShadowError::Sqlite { source, .. } => {
            matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
        }
        ShadowError::BadRow { .. } => true,
        ShadowError::Remove { .. } => false,
    }
}

/// A read-only view of the committed state, with a connection of its own. Safe to share.
pub struct ShadowReader {
    conn: Mutex<Connection>,
}

impl ShadowReader {
    /// Opens an index that [`Shadow::open`] has created.
    pub fn open(path: &Path) -> Result<ShadowReader, ShadowError> {
        let at_open = |source| ShadowError::Open { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(at_open)?;
        conn.busy_timeout(Duration::from_secs(5)).map_err(at_open)?;
        conn.execute_batch("PRAGMA cache_size = -8192").map_err(at_open)?;
        conn.set_prepared_statement_cache_capacity(32);
        Ok(ShadowReader { conn: Mutex::new(conn) })
    }

    /// The object with this key.
    pub fn by_key(&self, key: &ObjectKey) -> Result<Option<Row>, ShadowError> {
        Queries(&self.conn.lock()).by_key(key)
    }

    /// The number of the object with this key.
    pub fn id_of(&self, key: &ObjectKey) -> Result<Option<ObjectId>, ShadowError> {
        Queries(&self.conn.lock()).id_of(key)
    }

    /// The object with this number.
    pub fn by_id(&self, id: ObjectId) -> Result<Option<Row>, ShadowError> {
        Queries(&self.conn.lock()).by_id(id)
    }

    /// The object that has this name.
    pub fn entry(&self, parent: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, ShadowError> {
        Queries(&self.conn.lock()).entry(parent, name)
    }

    /// A directory's entries, sorted by name.
    pub fn entries(&self, parent: ObjectId) -> Result<Vec<(Vec<u8>, ObjectId)>, ShadowError> {
        Queries(&self.conn.lock()).entries(parent)
    }

    /// A directory's entries with their objects' rows, sorted by name: one query for the scan.
    pub fn entries_with_rows(&self, parent: ObjectId) -> Result<Vec<(Vec<u8>, Row)>, ShadowError> {
        let mut out = Vec::new();
        self.each_child(parent, &mut |name, row| {
            out.push((name.to_vec(), row));
            true
        })?;
        Ok(out)
    }

    /// The same without collecting them; stops when `each` returns false. `each` must not ask this reader anything.
    pub fn each_child(
        &self,
        parent: ObjectId,
        each: &mut dyn FnMut(&[u8], Row) -> bool,
    ) -> Result<(), ShadowError> {
        Queries(&self.conn.lock()).each_child(parent, each)
    }

    /// Up to `limit` objects by number, from after `after`; for walking all of them.
    pub fn objects_after(&self, after: ObjectId, limit: u32) -> Result<Vec<Row>, ShadowError> {
        Queries(&self.conn.lock()).each_object(after, limit)
    }

    /// An object's names.
    pub fn entries_of(&self, child: ObjectId) -> Result<Vec<(ObjectId, Vec<u8>)>, ShadowError> {
        Queries(&self.conn.lock()).entries_of(child)
    }

    /// Path within the export ("a/b"; empty for the root) by one of its names; `None` if it has none.
    pub fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, ShadowError> {
        Queries(&self.conn.lock()).path_of(id)
    }

    /// Objects known.
    pub fn object_count(&self) -> Result<u64, ShadowError> {
        Queries(&self.conn.lock()).object_count()
    }

    /// How many objects are below a directory (for "this would remove most of the tree").
    pub fn descendants_count(&self, id: ObjectId) -> Result<u64, ShadowError> {
        Queries(&self.conn.lock()).descendants_count(id)
    }

    /// A manifest page or root.
    pub fn page(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ShadowError> {
        Queries(&self.conn.lock()).page(hash)
    }

    /// Everything but objects and entries.
    pub fn meta(&self) -> Result<Meta, ShadowError> {
        Queries(&self.conn.lock()).meta()
    }
}

impl EntryHints for ShadowReader {
    fn entries_of(&self, key: &ObjectKey) -> Vec<(ObjectKey, Vec<u8>)> {
        let conn = self.conn.lock();
        let queries = Queries(&conn);
        let names = || -> Result<Vec<(ObjectKey, Vec<u8>)>, ShadowError> {
            let Some(id) = queries.id_of(key)? else { return Ok(Vec::new()) };
            let mut out = Vec::new();
            for (parent, name) in queries.entries_of(id)? {
                if let Some(row) = queries.by_id(parent)? {
                    out.push((row.key, name));
                }
            }
            Ok(out)
        };
        names().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look up where an object was");
            Vec::new()
        })
    }
}

#[cfg(test)]
#[path = "shadow_tests.rs"]
mod tests;
