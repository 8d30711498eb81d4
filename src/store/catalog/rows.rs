//! Reading single rows, from the writer's connection (its own uncommitted rows too) or a reader's.

use super::state;
use super::{CatalogError, sql, unsql};
use crate::store::pack::log::Located;
use crate::store::pack::record::codec_of;
use crate::store::pack::{Place, Series};
use ehpc_proto::replication::message::LiveEntry;
use ehpc_proto::replication::{Hash, ObjectId, ObjectState, Position, StreamId};
use rusqlite::{Connection, OptionalExtension, Row};

/// A path longer than this many names is a cycle.
const DEEPEST: usize = 4096;

/// An object as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// Its state.
    pub state: ObjectState,
    /// Batch that made it.
    pub batch: u64,
    /// Its inode in the mirror, as the mirror noted it.
    pub mirror_inode: Option<u64>,
}

/// The rows that a connection sees.
#[derive(Clone, Copy)]
pub struct Rows<'c> {
    pub(super) connection: &'c Connection,
}

impl<'c> Rows<'c> {
    pub(super) fn new(connection: &'c Connection) -> Rows<'c> {
        Rows { connection }
    }

    fn optional<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, CatalogError> {
        Ok(self.connection.prepare_cached(query)?.query_row(parameters, read).optional()?)
    }

    pub(crate) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        self.optional("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
    }

    /// The last applied batch; `None` before the first.
    pub fn position(&self) -> Result<Option<Position>, CatalogError> {
        let row =
            self.optional("SELECT number, chain FROM batches ORDER BY number DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let (Some((number, chain)), Some(stream)) = (row, self.meta("stream")?) else { return Ok(None) };
        let malformed = || CatalogError::Row { what: "the stream", id: 0 };
        let stream = StreamId(stream.try_into().map_err(|_| malformed())?);
        Ok(Some(Position { stream, number: unsql(number), chain: Hash(chain) }))
    }

    /// Number of the last applied batch; 0 before the first.
    pub fn applied(&self) -> Result<u64, CatalogError> {
        Ok(self.position()?.map_or(0, |position| position.number))
    }

    /// The chain of an applied batch.
    pub fn chain(&self, number: u64) -> Result<Option<Hash>, CatalogError> {
        let query = "SELECT chain FROM batches WHERE number = ?1";
        self.optional(query, [sql(number)], |row| Ok(Hash(row.get(0)?)))
    }

    pub(crate) fn batch(&self, number: u64) -> Result<Option<(Located, Hash)>, CatalogError> {
        let query = "SELECT pack, offset, stored, raw, codec, chain FROM batches WHERE number = ?1";
        self.optional(query, [sql(number)], |row| Ok((located(row, 0)?, Hash(row.get(5)?))))
    }

    pub(crate) fn blob(&self, hash: &Hash) -> Result<Option<Located>, CatalogError> {
        let query = "SELECT pack, offset, stored, raw, codec FROM blobs WHERE hash = ?1";
        self.optional(query, [&hash.0[..]], |row| located(row, 0))
    }

    /// A live object.
    pub fn live_object(&self, id: ObjectId) -> Result<Option<Live>, CatalogError> {
        let query = "SELECT l.batch, l.mirror_inode, v.state FROM live l \
                     JOIN versions v ON v.id = l.id AND v.batch = l.batch WHERE l.id = ?1";
        let row = self.optional(query, [sql(id.0)], |row| {
            let bytes: Vec<u8> = row.get(2)?;
            Ok((unsql(row.get(0)?), row.get::<_, Option<i64>>(1)?, state::decode(id, &bytes)))
        })?;
        let Some((batch, inode, state)) = row else { return Ok(None) };
        let state = state.ok_or(CatalogError::Row { what: "the state", id: id.0 })?;
        Ok(Some(Live { state, batch, mirror_inode: inode.map(|inode| inode as u64) }))
    }

    /// Is the object live?
    pub fn is_live(&self, id: ObjectId) -> Result<bool, CatalogError> {
        Ok(self.optional("SELECT 1 FROM live WHERE id = ?1", [sql(id.0)], |_| Ok(()))?.is_some())
    }

    /// The mirror's inode of a live object, if it was noted.
    pub fn mirror_inode(&self, id: ObjectId) -> Result<Option<u64>, CatalogError> {
        let query = "SELECT mirror_inode FROM live WHERE id = ?1";
        let inode = self.optional(query, [sql(id.0)], |row| row.get::<_, Option<i64>>(0))?.flatten();
        Ok(inode.map(|inode| inode as u64))
    }

    /// What the name stands for now.
    pub fn entry(&self, parent: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, CatalogError> {
        let query = "SELECT child FROM entries WHERE parent = ?1 AND name = ?2";
        self.optional(query, (sql(parent.0), name), |row| Ok(ObjectId(unsql(row.get(0)?))))
    }

    /// Every name of an object now (a hard link has several), by parent and name.
    pub fn entries_of(&self, child: ObjectId) -> Result<Vec<LiveEntry>, CatalogError> {
        let query = "SELECT parent, name FROM entries WHERE child = ?1 ORDER BY parent, name";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map([sql(child.0)], |row| {
            Ok(LiveEntry { parent: ObjectId(unsql(row.get(0)?)), name: row.get(1)?, child })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A directory's entries in order of name, from after `after`, at most `limit`.
    pub fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, CatalogError> {
        // No name is empty, so the empty one is before all.
        let query = "SELECT name, child FROM entries WHERE parent = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let after = after.unwrap_or_default();
        let rows = statement.query_map((sql(parent.0), after, sql(limit as u64)), |row| {
            Ok((row.get(0)?, ObjectId(unsql(row.get(1)?))))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One path of a live object from the export's root, without a leading '/'; empty for the root. `None`: it has no
    /// name now, or an ancestor has none.
    pub fn path_of(&self, id: ObjectId) -> Result<Option<Vec<u8>>, CatalogError> {
        let query = "SELECT parent, name FROM entries WHERE child = ?1 ORDER BY parent, name LIMIT 1";
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT {
            let row = self.optional(query, [sql(at.0)], |row| Ok((unsql(row.get(0)?), row.get(1)?)))?;
            let Some((parent, name)) = row else { return Ok(None) };
            if names.len() == DEEPEST {
                return Err(CatalogError::Row { what: "the path", id: id.0 });
            }
            names.push(name);
            at = ObjectId(parent);
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// Number of live objects.
    pub fn count(&self) -> Result<u64, CatalogError> {
        Ok(self.optional("SELECT count(*) FROM live", [], |row| row.get(0))?.map_or(0, unsql))
    }
}

/// One number says series and pack.
pub(super) fn pack_number(at: &Located) -> i64 {
    i64::from(at.place.pack) * 2 + i64::from(at.series == Series::Chunk)
}

fn located(row: &Row<'_>, first: usize) -> rusqlite::Result<Located> {
    let pack: i64 = row.get(first)?;
    let codec: u8 = row.get(first + 4)?;
    let series = if pack % 2 == 1 { Series::Chunk } else { Series::Meta };
    Ok(Located {
        series,
        place: Place { pack: (pack / 2) as u32, offset: unsql(row.get(first + 1)?) },
        stored_len: row.get(first + 2)?,
        raw_len: row.get(first + 3)?,
        codec: codec_of(codec).ok_or(rusqlite::Error::IntegralValueOutOfRange(first + 4, codec.into()))?,
    })
}
