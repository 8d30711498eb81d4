//! The questions of `Query` in message.rs.

use super::rows::Rows;
use super::state::{self, kind_byte};
use super::{CatalogError, sql, unsql};
use ehpc_proto::replication::digest::{bucket_digest, listing_digest, object_digest};
use ehpc_proto::replication::message::{BUCKET, LiveEntry, Version};
use ehpc_proto::replication::{Hash, Kind, ObjectId, ObjectState};
use rusqlite::{OptionalExtension, Statement};
use std::collections::{BTreeMap, BTreeSet};

/// A slice ends early once its states are this many bytes, so that it fits a frame.
const SLICE_BYTES: usize = 2 * 1024 * 1024;
/// What cannot be divided must fit a frame.
const MOST_BYTES: usize = 7 * 1024 * 1024;
/// Most entries in the versions of one directory.
const VERSION_ENTRIES: usize = 500_000;

/// Live objects in order of number, and every entry whose child is among them.
pub type LiveSlice = (Vec<ObjectState>, Vec<LiveEntry>);
/// Touched objects with their keys, by number, and touched names as (parent, name).
pub type TouchedSlice = (Vec<(ObjectId, Vec<u8>)>, Vec<(ObjectId, Vec<u8>)>);

/// Answer to `Query::Buckets`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buckets {
    /// One a bucket.
    pub digests: Vec<Hash>,
    /// Highest number of a live object; 0 = there is none.
    pub highest: ObjectId,
    /// Live objects.
    pub objects: u64,
}

impl Rows<'_> {
    /// Live objects from after `after`, at most `limit` (fewer if they are large), and their entries. Empty = end.
    pub fn live(&self, after: ObjectId, limit: usize) -> Result<LiveSlice, CatalogError> {
        let query = "SELECT l.id, v.state FROM live l JOIN versions v ON v.id = l.id AND v.batch = l.batch \
                     WHERE l.id > ?1 ORDER BY l.id LIMIT ?2";
        let (mut objects, mut bytes) = (Vec::new(), 0);
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query((sql(after.0), sql(limit as u64)))?;
        while let Some(row) = rows.next()? {
            let id = ObjectId(unsql(row.get(0)?));
            let encoded: Vec<u8> = row.get(1)?;
            bytes += encoded.len() + 64;
            objects
                .push(state::decode(id, &encoded).ok_or(CatalogError::Row { what: "the state", id: id.0 })?);
            if bytes > SLICE_BYTES {
                break;
            }
        }
        let Some(last) = objects.last().map(|object: &ObjectState| object.id) else {
            return Ok((objects, Vec::new()));
        };
        let query = "SELECT parent, name, child FROM entries INDEXED BY entry_child \
                     WHERE child > ?1 AND child <= ?2 ORDER BY child, parent, name";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map((sql(after.0), sql(last.0)), |row| {
            Ok(LiveEntry {
                parent: ObjectId(unsql(row.get(0)?)),
                name: row.get(1)?,
                child: ObjectId(unsql(row.get(2)?)),
            })
        })?;
        let entries = rows.collect::<Result<_, _>>()?;
        Ok((objects, entries))
    }

    /// Objects (live, changed or destroyed, and directories whose entries changed) touched by batches after `since`,
    /// from after `after`, at most `limit` (fewer if there are many names), and the names that were touched in the
    /// directories among them. Empty = end.
    pub fn touched(&self, since: u64, after: ObjectId, limit: usize) -> Result<TouchedSlice, CatalogError> {
        let mut ids = BTreeSet::new();
        for query in [
            "SELECT id FROM live WHERE id > ?1 AND batch > ?2 ORDER BY id LIMIT ?3",
            "SELECT id FROM versions INDEXED BY destroyed WHERE state IS NULL AND id > ?1 AND batch > ?2 \
             ORDER BY id LIMIT ?3",
            "SELECT DISTINCT parent FROM entries WHERE parent > ?1 AND since > ?2 ORDER BY parent LIMIT ?3",
            "SELECT DISTINCT parent FROM past_entries WHERE parent > ?1 AND until > ?2 ORDER BY parent LIMIT ?3",
        ] {
            let mut statement = self.connection.prepare_cached(query)?;
            let rows =
                statement.query_map((sql(after.0), sql(since), sql(limit as u64)), |row| row.get(0))?;
            for id in rows {
                ids.insert(unsql(id?));
            }
        }
        let (mut objects, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        let query = "SELECT name FROM entries WHERE parent = ?1 AND since > ?2 UNION \
                     SELECT name FROM past_entries WHERE parent = ?1 AND until > ?2 ORDER BY name";
        let mut statement = self.connection.prepare_cached(query)?;
        for id in ids.into_iter().take(limit) {
            let (mut names, mut more) = (Vec::new(), 64);
            for name in statement.query_map((sql(id), sql(since)), |row| row.get(0))? {
                let name: Vec<u8> = name?;
                more += name.len() + 12;
                if more > MOST_BYTES {
                    return Err(CatalogError::TooLarge { id, from: since + 1, to: self.applied()? });
                }
                names.push((ObjectId(id), name));
            }
            if bytes > 0 && bytes + more > SLICE_BYTES {
                break;
            }
            bytes += more;
            objects.push((ObjectId(id), self.last_key(id)?));
            entries.append(&mut names);
        }
        Ok((objects, entries))
    }

    /// The primary's key of an object, as of its last state.
    fn last_key(&self, id: u64) -> Result<Vec<u8>, CatalogError> {
        let query =
            "SELECT state FROM versions WHERE id = ?1 AND state IS NOT NULL ORDER BY batch DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(query)?;
        let encoded: Option<Vec<u8>> = statement.query_row([sql(id)], |row| row.get(0)).optional()?;
        let state = encoded.and_then(|encoded| state::decode(ObjectId(id), &encoded));
        Ok(state.map(|state| state.key).unwrap_or_default())
    }

    /// For each object every version that was live at some batch in `from..=to`, oldest first. The first is the one at
    /// `from` (with `state: None` if it did not exist then).
    pub fn versions(
        &self,
        objects: &[ObjectId],
        from: u64,
        to: u64,
    ) -> Result<Vec<Vec<Version>>, CatalogError> {
        objects.iter().map(|id| self.versions_of(*id, from, to)).collect()
    }

    fn versions_of(&self, id: ObjectId, from: u64, to: u64) -> Result<Vec<Version>, CatalogError> {
        let query = "SELECT batch, state FROM versions WHERE id = ?1 AND batch <= ?2 ORDER BY batch DESC";
        let mut states: BTreeMap<u64, Option<ObjectState>> = BTreeMap::new();
        {
            let mut statement = self.connection.prepare_cached(query)?;
            let mut rows = statement.query((sql(id.0), sql(to)))?;
            while let Some(row) = rows.next()? {
                let batch = unsql(row.get(0)?);
                let encoded: Option<Vec<u8>> = row.get(1)?;
                let malformed = CatalogError::Row { what: "a version", id: id.0 };
                let state = match encoded {
                    Some(encoded) => Some(state::decode(id, &encoded).ok_or(malformed)?),
                    None => None,
                };
                states.insert(batch, state);
                if batch <= from {
                    break;
                }
            }
        }
        if states.first_key_value().is_none_or(|(batch, _)| *batch > from) {
            states.insert(from, None);
        }
        let is_directory =
            |state: &Option<ObjectState>| state.as_ref().is_some_and(|state| state.kind == Kind::Directory);
        if !states.values().any(is_directory) {
            let version = |(batch, state)| Version { batch, state, entries: Vec::new() };
            return Ok(states.into_iter().map(version).collect());
        }
        self.directory_versions(id, from, to, &states)
    }

    /// A directory has a new version whenever its listing changes, too.
    fn directory_versions(
        &self,
        id: ObjectId,
        from: u64,
        to: u64,
        states: &BTreeMap<u64, Option<ObjectState>>,
    ) -> Result<Vec<Version>, CatalogError> {
        let mut moments: BTreeSet<u64> = states.keys().copied().collect();
        let query = "SELECT since FROM entries WHERE parent = ?1 AND since > ?2 AND since <= ?3 UNION \
                     SELECT since FROM past_entries WHERE parent = ?1 AND since > ?2 AND since <= ?3 UNION \
                     SELECT until FROM past_entries WHERE parent = ?1 AND until > ?2 AND until <= ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        for moment in statement.query_map((sql(id.0), sql(from), sql(to)), |row| row.get(0))? {
            moments.insert(unsql(moment?));
        }
        let query = "SELECT name, child FROM entries WHERE parent = ?1 AND since <= ?2 UNION ALL \
                     SELECT name, child FROM past_entries WHERE parent = ?1 AND since <= ?2 AND until > ?2 \
                     ORDER BY name";
        let mut listing = self.connection.prepare_cached(query)?;
        let (mut versions, mut total) = (Vec::new(), 0);
        for batch in moments {
            let state = states.range(..=batch).next_back().and_then(|(_, state)| state.clone());
            // The version at `from` may be older than it; its listing is the one at `from`.
            let entries = match &state {
                None => Vec::new(),
                Some(_) => listing
                    .query_map((sql(id.0), sql(batch.max(from))), |row| {
                        Ok((row.get(0)?, ObjectId(unsql(row.get(1)?))))
                    })?
                    .collect::<Result<Vec<_>, _>>()?,
            };
            total += entries.len();
            if total > VERSION_ENTRIES {
                return Err(CatalogError::TooLarge { id: id.0, from, to });
            }
            versions.push(Version { batch, state, entries });
        }
        Ok(versions)
    }

    /// Digests of `count` buckets from `first` on: one pass over `live` and `entries`, both in order of object.
    pub fn buckets(&self, first: u64, count: u32) -> Result<Buckets, CatalogError> {
        let from = first.saturating_mul(BUCKET);
        let to = first.saturating_add(u64::from(count)).saturating_mul(BUCKET);
        let mut live = self
            .connection
            .prepare_cached("SELECT id, kind, digest FROM live WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
        let mut entries = self.connection.prepare_cached(
            "SELECT parent, name, child FROM entries WHERE parent >= ?1 AND parent < ?2 ORDER BY parent, name",
        )?;
        let mut listings = Listings::new(&mut entries, from, to)?;
        let mut rows = live.query((sql(from), sql(to)))?;
        let mut digests = Vec::with_capacity(count as usize);
        let mut bucket: Vec<(ObjectId, Hash)> = Vec::new();
        let empty = bucket_digest(std::iter::empty());
        let mut close = |bucket: &mut Vec<(ObjectId, Hash)>| {
            digests.push(match bucket.is_empty() {
                true => empty,
                false => bucket_digest(bucket.drain(..)),
            });
        };
        let mut at = first;
        while let Some(row) = rows.next()? {
            let id = unsql(row.get(0)?);
            while at < id / BUCKET {
                close(&mut bucket);
                at += 1;
            }
            let kind: u8 = row.get(1)?;
            let is_directory = kind == kind_byte(Kind::Directory);
            let listing = if is_directory { Some(listings.digest(id)?) } else { None };
            bucket.push((ObjectId(id), object_digest(Hash(row.get(2)?), listing)));
        }
        for _ in at..first.saturating_add(u64::from(count)) {
            close(&mut bucket);
        }
        let query = "SELECT max(id) FROM live";
        let highest: Option<i64> = self.connection.prepare_cached(query)?.query_row([], |row| row.get(0))?;
        Ok(Buckets { digests, highest: ObjectId(highest.map_or(0, unsql)), objects: self.count()? })
    }
}

/// The entries in order of parent, of which one directory's are taken at a time.
struct Listings<'s> {
    rows: rusqlite::Rows<'s>,
    next: Option<(u64, Vec<u8>, ObjectId)>,
    held: Vec<(Vec<u8>, ObjectId)>,
}

impl<'s> Listings<'s> {
    fn new(statement: &'s mut Statement<'_>, from: u64, to: u64) -> Result<Listings<'s>, CatalogError> {
        let rows = statement.query((sql(from), sql(to)))?;
        let mut listings = Listings { rows, next: None, held: Vec::new() };
        listings.advance()?;
        Ok(listings)
    }

    fn advance(&mut self) -> Result<(), CatalogError> {
        self.next = match self.rows.next()? {
            Some(row) => Some((unsql(row.get(0)?), row.get(1)?, ObjectId(unsql(row.get(2)?)))),
            None => None,
        };
        Ok(())
    }

    fn digest(&mut self, directory: u64) -> Result<Hash, CatalogError> {
        self.held.clear();
        while let Some((parent, name, child)) = self.next.take_if(|(parent, ..)| *parent <= directory) {
            if parent == directory {
                self.held.push((name, child));
            }
            self.advance()?;
        }
        Ok(listing_digest(self.held.iter().map(|(name, child)| (name.as_slice(), *child))))
    }
}
