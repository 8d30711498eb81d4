//! Rows as they were after an earlier batch.

use super::rows::Rows;
use super::state;
use super::{CatalogError, sql, unsql};
use ehpc_proto::replication::{ObjectId, ObjectState, Timestamp};
use rusqlite::OptionalExtension;

/// The tree as it was when `batch` had been applied.
#[derive(Clone, Copy)]
pub struct Past<'c> {
    rows: Rows<'c>,
    batch: i64,
}

impl<'c> Rows<'c> {
    /// The tree after `batch`; `None`: that batch is not (or not yet) in the catalog.
    pub fn past(self, batch: u64) -> Result<Option<Past<'c>>, CatalogError> {
        Ok(self.chain(batch)?.map(|_| Past { rows: self, batch: sql(batch) }))
    }

    /// When the primary made a batch, by its own clock.
    pub fn batch_time(&self, number: u64) -> Result<Option<Timestamp>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT seconds, nanos FROM batches WHERE number = ?1")?;
        let time = statement
            .query_row([sql(number)], |row| Ok(Timestamp { seconds: row.get(0)?, nanos: row.get(1)? }));
        Ok(time.optional()?)
    }
}

impl Past<'_> {
    /// An object; `None`: it was not there.
    pub fn object(&self, id: ObjectId) -> Result<Option<ObjectState>, CatalogError> {
        let query = "SELECT state FROM versions WHERE id = ?1 AND batch <= ?2 ORDER BY batch DESC LIMIT 1";
        let mut statement = self.rows.connection.prepare_cached(query)?;
        let row = statement.query_row((sql(id.0), self.batch), |row| row.get::<_, Option<Vec<u8>>>(0));
        let Some(bytes) = row.optional()?.flatten() else { return Ok(None) };
        let state = state::decode(id, &bytes);
        state.map(Some).ok_or(CatalogError::Row { what: "the state", id: id.0 })
    }

    /// A directory's entries in order of name, from after `after`, at most `limit`.
    pub fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, CatalogError> {
        // No name is empty, so the empty one is before all. A name stood for one object at a time.
        let query = "SELECT name, child FROM entries WHERE parent = ?1 AND name > ?2 AND since <= ?3 \
                     UNION ALL \
                     SELECT name, child FROM past_entries \
                     WHERE parent = ?1 AND name > ?2 AND since <= ?3 AND until > ?3 \
                     ORDER BY name LIMIT ?4";
        let mut statement = self.rows.connection.prepare_cached(query)?;
        let after = after.unwrap_or_default();
        let rows = statement.query_map((sql(parent.0), after, self.batch, sql(limit as u64)), |row| {
            Ok((row.get(0)?, ObjectId(unsql(row.get(1)?))))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Objects that had more than one name: hard links. SQLite groups on the disk, what is given is few.
    pub fn linked(&self) -> Result<Vec<ObjectId>, CatalogError> {
        let query = "SELECT child FROM (SELECT child FROM entries WHERE since <= ?1 UNION ALL \
                     SELECT child FROM past_entries WHERE since <= ?1 AND until > ?1) GROUP BY child HAVING COUNT(*) > 1";
        let mut statement = self.rows.connection.prepare(query)?;
        let rows = statement.query_map([self.batch], |row| Ok(ObjectId(unsql(row.get(0)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
