//! Applying batches. One transaction over several of them, committed when the caller says so.

use super::rows::{Rows, pack_number};
use super::state::{self, kind_byte};
use super::{CatalogError, sql};
use crate::store::pack::Place;
use crate::store::pack::log::Located;
use crate::store::pack::record::codec_byte;
use ehpc_proto::replication::{Batch, EntryState, Hash, ObjectId, ObjectState};
use rusqlite::Connection;

/// A batch's place in the packs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchRow {
    pub(crate) number: u64,
    pub(crate) chain: Hash,
    pub(crate) at: Located,
}

/// The one connection that writes.
pub struct CatalogWriter {
    connection: Connection,
    open: bool,
    applied: u64,
    row: Vec<u8>,
}

impl CatalogWriter {
    pub(super) fn new(connection: Connection) -> Result<CatalogWriter, CatalogError> {
        let applied = Rows::new(&connection).applied()?;
        Ok(CatalogWriter { connection, open: false, applied, row: Vec::new() })
    }

    /// What it sees, uncommitted rows included.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.connection)
    }

    /// Number of the last batch applied, committed or not.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    fn begin(&mut self) -> Result<(), CatalogError> {
        if !self.open {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.open = true;
        }
        Ok(())
    }

    /// The rows of one batch, which must be the next.
    pub(crate) fn apply(&mut self, batch: &Batch, place: &BatchRow) -> Result<(), CatalogError> {
        if batch.number != self.applied + 1 {
            return Err(CatalogError::OutOfOrder { number: batch.number, applied: self.applied });
        }
        self.begin()?;
        if batch.number == 1 {
            self.set_meta("stream", &batch.previous.0[..16])?;
        }
        let number = sql(batch.number);
        for object in &batch.objects {
            self.put_object(object, number)?;
        }
        for entry in &batch.entries {
            self.put_entry(entry, number)?;
        }
        for id in &batch.destroyed {
            self.destroy(*id, number)?;
        }
        self.connection
            .prepare_cached(
                "INSERT INTO batches(number, chain, pack, offset, stored, raw, codec, cut, seconds, nanos) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute((
                number,
                &place.chain.0[..],
                pack_number(&place.at),
                sql(place.at.place.offset),
                place.at.stored_len,
                place.at.raw_len,
                codec_byte(place.at.codec),
                sql(batch.cut),
                batch.time.seconds,
                batch.time.nanos,
            ))?;
        self.applied = batch.number;
        Ok(())
    }

    fn put_object(&mut self, object: &ObjectState, batch: i64) -> Result<(), CatalogError> {
        state::encode(object, &mut self.row);
        let id = sql(object.id.0);
        self.connection
            .prepare_cached("INSERT INTO versions(id, batch, state) VALUES (?1, ?2, ?3)")?
            .execute((id, batch, &self.row[..]))?;
        self.connection
            .prepare_cached(
                "INSERT INTO live(id, batch, kind, digest) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT(id) DO UPDATE SET batch = ?2, kind = ?3, digest = ?4",
            )?
            .execute((id, batch, kind_byte(object.kind), &object.digest().0[..]))?;
        Ok(())
    }

    fn put_entry(&mut self, entry: &EntryState, batch: i64) -> Result<(), CatalogError> {
        let (parent, name) = (sql(entry.parent.0), &entry.name[..]);
        if let Some(child) = entry.child {
            // Most entries are new.
            let new = self
                .connection
                .prepare_cached(
                    "INSERT INTO entries(parent, name, child, since) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT DO NOTHING",
                )?
                .execute((parent, name, sql(child.0), batch))?;
            if new == 1 || self.rows().entry(entry.parent, name)? == Some(child) {
                return Ok(());
            }
        }
        self.connection
            .prepare_cached(
                "INSERT INTO past_entries(parent, name, since, until, child) \
                 SELECT parent, name, since, ?3, child FROM entries WHERE parent = ?1 AND name = ?2",
            )?
            .execute((parent, name, batch))?;
        match entry.child {
            Some(child) => self
                .connection
                .prepare_cached("UPDATE entries SET child = ?3, since = ?4 WHERE parent = ?1 AND name = ?2")?
                .execute((parent, name, sql(child.0), batch))?,
            None => self
                .connection
                .prepare_cached("DELETE FROM entries WHERE parent = ?1 AND name = ?2")?
                .execute((parent, name))?,
        };
        Ok(())
    }

    fn destroy(&mut self, id: ObjectId, batch: i64) -> Result<(), CatalogError> {
        let was = self.connection.prepare_cached("DELETE FROM live WHERE id = ?1")?.execute([sql(id.0)])?;
        if was == 1 {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO versions(id, batch, state) VALUES (?1, ?2, NULL)")?
                .execute((sql(id.0), batch))?;
        }
        Ok(())
    }

    /// Notes where a blob is. Of two records of it the later counts: the earlier was found damaged.
    pub(crate) fn put_blob(&mut self, hash: &Hash, at: &Located) -> Result<(), CatalogError> {
        self.begin()?;
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO blobs(hash, pack, offset, stored, raw, codec) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                &hash.0[..],
                pack_number(at),
                sql(at.place.offset),
                at.stored_len,
                at.raw_len,
                codec_byte(at.codec),
            ))?;
        Ok(())
    }

    /// The blob is not where it was noted to be.
    pub(crate) fn forget_blob(&mut self, hash: &Hash) -> Result<(), CatalogError> {
        self.begin()?;
        self.connection.prepare_cached("DELETE FROM blobs WHERE hash = ?1")?.execute([&hash.0[..]])?;
        Ok(())
    }

    /// Notes (or forgets) the inode that a live object has in the mirror.
    pub fn set_mirror_inode(&mut self, id: ObjectId, inode: Option<u64>) -> Result<(), CatalogError> {
        self.begin()?;
        self.connection
            .prepare_cached("UPDATE live SET mirror_inode = ?2 WHERE id = ?1")?
            .execute((sql(id.0), inode.map(|inode| inode as i64)))?;
        Ok(())
    }

    /// The catalog was made anew and knows no inode of the mirror: it has to be compared as a whole.
    pub fn is_mirror_unknown(&self) -> Result<bool, CatalogError> {
        Ok(self.rows().meta("mirror_unknown")?.is_some_and(|value| value == [1]))
    }

    /// The mirror was compared with the catalog as a whole (or, with `true`, has to be).
    pub fn set_mirror_unknown(&mut self, unknown: bool) -> Result<(), CatalogError> {
        self.begin()?;
        self.set_meta("mirror_unknown", &[u8::from(unknown)])
    }

    pub(crate) fn set_meta(&mut self, key: &str, value: &[u8]) -> Result<(), CatalogError> {
        self.begin()?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)")?
            .execute((key, value))?;
        Ok(())
    }

    /// Everything before this place of the series is in the catalog; a scan begins there.
    pub(crate) fn set_scanned(&mut self, key: &str, place: Place) -> Result<(), CatalogError> {
        let mut value = [0; 12];
        value[..4].copy_from_slice(&place.pack.to_be_bytes());
        value[4..].copy_from_slice(&place.offset.to_be_bytes());
        self.set_meta(key, &value)
    }

    /// Makes everything since the last commit visible to readers.
    pub(crate) fn commit(&mut self) -> Result<(), CatalogError> {
        if self.open {
            self.connection.execute_batch("COMMIT")?;
            self.open = false;
        }
        Ok(())
    }

    /// Forgets everything since the last commit.
    pub(crate) fn rollback(&mut self) -> Result<(), CatalogError> {
        if self.open {
            // A full disk makes SQLite roll back by itself (sqlite.org/lang_transaction.html).
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
            self.open = false;
            self.applied = self.rows().applied()?;
        }
        Ok(())
    }
}

impl Rows<'_> {
    /// See [`CatalogWriter::set_scanned`].
    pub(crate) fn scanned(&self, key: &str) -> Result<Place, CatalogError> {
        let Some(value) = self.meta(key)? else { return Ok(Place::default()) };
        let parts = value.split_first_chunk::<4>().and_then(|(pack, rest)| {
            let offset = <[u8; 8]>::try_from(rest).ok()?;
            Some(Place { pack: u32::from_be_bytes(*pack), offset: u64::from_be_bytes(offset) })
        });
        parts.ok_or(CatalogError::Row { what: "the place in the packs", id: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::CatalogFile;

    #[test]
    fn a_transaction_that_sqlite_ended_by_itself_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, _) =
            CatalogFile::new(directory.path().join("catalog.sqlite")).open_writer().unwrap();
        // A disk that is full at so many pages: the statement that meets it ends the whole transaction.
        writer.connection.pragma_update(None, "max_page_count", 40).unwrap();
        writer.set_meta("small", b"1").unwrap();
        let mut number = 0;
        while writer.set_meta(&format!("filler {number}"), &[7; 3000]).is_ok() {
            number += 1;
            assert!(number < 1000, "the page limit does not hold");
        }
        if !writer.connection.is_autocommit() {
            writer.connection.execute_batch("ROLLBACK").unwrap();
        }
        writer.commit().unwrap_err();
        writer.rollback().unwrap();
        writer.set_meta("small", b"2").unwrap();
        writer.commit().unwrap();
        assert_eq!(writer.rows().meta("small").unwrap().as_deref(), Some(&b"2"[..]));
    }
}
