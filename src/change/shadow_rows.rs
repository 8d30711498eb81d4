//! Rows of the shadow index and the questions that writer and readers both ask of it.

use super::shadow::ShadowError;
use crate::host::ObjectKey;
use ehpc_proto::replication::{
    Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Position, StreamId, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use smallvec::SmallVec;

/// What the backup last acknowledged of one object, and how the primary's disk looked when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Row {
    pub id: ObjectId,
    pub key: ObjectKey,
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Timestamp,
    /// ctime when read; [`Row::UNREAD`] in a row rebuilt from the backup, which no disk was compared with yet.
    pub ctime: Timestamp,
    pub rdev: (u32, u32),
    /// [`meta_digest`] of target and extended attributes.
    pub meta: Hash,
    pub manifest: Manifest,
    /// A later store may have left the times as they are: read again by the next scan.
    pub racy: bool,
    pub fuzzy: bool,
}

impl Row {
    /// ctime of a row that was rebuilt from the backup: equal to no object's ctime.
    pub const UNREAD: Timestamp = Timestamp { seconds: i64::MIN, nanos: 0 };

    /// The row for a state read at `ctime`.
    pub fn of_state(state: &ObjectState, key: ObjectKey, ctime: Timestamp, racy: bool) -> Row {
        Row {
            id: state.id,
            key,
            kind: state.kind,
            mode: state.mode,
            uid: state.uid,
            gid: state.gid,
            size: state.size,
            mtime: state.mtime,
            ctime,
            rdev: state.rdev,
            meta: meta_digest(state),
            manifest: state.content.clone(),
            racy,
            fuzzy: state.fuzzy,
        }
    }

    /// Is `state` what the backup has already? (`key`, `ctime` and `racy` are the primary's own business.)
    pub fn equals_state(&self, state: &ObjectState) -> bool {
        self.kind == state.kind
            && self.mode == state.mode
            && self.uid == state.uid
            && self.gid == state.gid
            && self.size == state.size
            && self.mtime == state.mtime
            && self.rdev == state.rdev
            && self.fuzzy == state.fuzzy
            && self.manifest == state.content
            && self.meta == meta_digest(state)
    }
}

/// Digest of what a row does not hold itself: symlink target and extended attributes. All zeros when there is neither.
pub fn meta_digest(state: &ObjectState) -> Hash {
    if state.target.is_empty() && state.xattrs.is_empty() {
        return Hash([0; 32]);
    }
    let mut hasher = blake3::Hasher::new();
    let mut counted = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    counted(&state.target);
    for xattr in &state.xattrs {
        counted(&xattr.name);
        counted(&xattr.value);
    }
    Hash(*hasher.finalize().as_bytes())
}

/// Everything the shadow knows besides objects and entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Where the acknowledged state stands; `None` = empty shadow.
    pub position: Option<Position>,
    /// Boot that the rows were compared with the disk in.
    pub boot_id: Vec<u8>,
    /// The last process stopped after a final syncfs, and nothing has been written to the shadow since.
    pub clean_stop: bool,
    /// Read-start time of the last completed syncfs of the export.
    pub watermark: Option<Timestamp>,
    /// Key of the export's root.
    pub root_key: Option<ObjectKey>,
    /// `Tree::filesystem_id` of the export.
    pub filesystem_id: Vec<u8>,
    /// Number of the next new object.
    pub next_id: u64,
}

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS objects(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, mode INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    rdev INTEGER NOT NULL, meta BLOB, manifest BLOB NOT NULL, flags INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entries(
    parent INTEGER NOT NULL, name BLOB NOT NULL, child INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_child ON entries(child);
CREATE TABLE IF NOT EXISTS pages(hash BLOB PRIMARY KEY, refs INTEGER NOT NULL, bytes BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

const RACY: i64 = 1;
const FUZZY: i64 = 2;
const COLUMNS: &str = "o.id, o.key, o.kind, o.mode, o.uid, o.gid, o.size, o.mtime, o.mtime_ns, o.ctime, o.ctime_ns, \
                       o.rdev, o.meta, o.manifest, o.flags";

type Found<T> = Result<T, ShadowError>;

fn sql<T>(what: &'static str, result: rusqlite::Result<T>) -> Found<T> {
    result.map_err(|source| ShadowError::Sqlite { what, source })
}

/// The questions; `Shadow` asks them inside its open transaction, a `ShadowReader` of the committed state.
pub(super) struct Queries<'a>(pub(super) &'a Connection);

impl Queries<'_> {
    fn row(&self, text: &str, param: &dyn rusqlite::ToSql) -> Found<Option<Row>> {
        let mut statement = sql("look up an object", self.0.prepare_cached(text))?;
        let found = statement.query_row([param], |row| Ok(decode_row(row))).optional();
        sql("look up an object", found)?.transpose()
    }

    pub(super) fn by_key(&self, key: &ObjectKey) -> Found<Option<Row>> {
        // The text is constant, so that the statement is prepared once.
        self.row(const_by_key(), &key.to_bytes().as_slice())
    }

    pub(super) fn by_id(&self, id: ObjectId) -> Found<Option<Row>> {
        self.row(const_by_id(), &to_sql(id.0))
    }

    pub(super) fn id_of(&self, key: &ObjectKey) -> Found<Option<ObjectId>> {
        let what = "look up a key";
        let mut statement = sql(what, self.0.prepare_cached("SELECT id FROM objects WHERE key = ?"))?;
        let id = sql(what, statement.query_row([key.to_bytes().as_slice()], |row| row.get(0)).optional())?;
        Ok(id.map(|id: i64| ObjectId(id as u64)))
    }

    pub(super) fn entry(&self, parent: ObjectId, name: &[u8]) -> Found<Option<ObjectId>> {
        let what = "look up an entry";
        let mut statement =
            sql(what, self.0.prepare_cached("SELECT child FROM entries WHERE parent = ? AND name = ?"))?;
        let child =
            sql(what, statement.query_row(params![to_sql(parent.0), name], |row| row.get(0)).optional())?;
        Ok(child.map(|id: i64| ObjectId(id as u64)))
    }

    pub(super) fn entries(&self, parent: ObjectId) -> Found<Vec<(Vec<u8>, ObjectId)>> {
        let what = "list a directory's entries";
        let mut statement = sql(
            what,
            self.0.prepare_cached("SELECT name, child FROM entries WHERE parent = ? ORDER BY name"),
        )?;
        let rows = sql(
            what,
            statement.query_map([to_sql(parent.0)], |row| {
                Ok((row.get(0)?, ObjectId(row.get::<_, i64>(1)? as u64)))
            }),
        )?;
        sql(what, rows.collect())
    }

    pub(super) fn each_child(&self, parent: ObjectId, each: &mut dyn FnMut(&[u8], Row) -> bool) -> Found<()> {
        let what = "list a directory's objects";
        let mut statement = sql(what, self.0.prepare_cached(const_children()))?;
        let mut rows = sql(what, statement.query([to_sql(parent.0)]))?;
        while let Some(sql_row) = sql(what, rows.next())? {
            let row = decode_row(sql_row)?;
            let name = sql(what, sql_row.get_ref(15))?.as_blob().map_err(|_| ShadowError::BadRow { what })?;
            if !each(name, row) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn each_object(&self, after: ObjectId, limit: u32) -> Found<Vec<Row>> {
        let what = "walk the objects";
        let mut statement = sql(what, self.0.prepare_cached(const_walk()))?;
        let rows =
            sql(what, statement.query_map(params![to_sql(after.0), limit], |row| Ok(decode_row(row))))?;
        rows.map(|row| sql(what, row).and_then(|row| row)).collect()
    }

    pub(super) fn entries_of(&self, child: ObjectId) -> Found<Vec<(ObjectId, Vec<u8>)>> {
        let what = "look up an object's names";
        let mut statement = sql(
            what,
            self.0.prepare_cached("SELECT parent, name FROM entries WHERE child = ? ORDER BY parent, name"),
        )?;
        let rows = sql(
            what,
            statement.query_map([to_sql(child.0)], |row| {
                Ok((ObjectId(row.get::<_, i64>(0)? as u64), row.get(1)?))
            }),
        )?;
        sql(what, rows.collect())
    }

    pub(super) fn path_of(&self, id: ObjectId) -> Found<Option<Vec<u8>>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT {
            // Deeper than any path: entries that loop are a damaged index, not a place.
            let Some((parent, name)) = self.entries_of(at)?.into_iter().next() else { return Ok(None) };
            if names.len() > 4096 {
                return Ok(None);
            }
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    fn count(&self, what: &'static str, text: &str, params: impl rusqlite::Params) -> Found<u64> {
        let mut statement = sql(what, self.0.prepare_cached(text))?;
        let count: i64 = sql(what, statement.query_row(params, |row| row.get(0)))?;
        Ok(count as u64)
    }

    pub(super) fn object_count(&self) -> Found<u64> {
        self.count("count the objects", "SELECT count(*) FROM objects", [])
    }

    pub(super) fn highest_id(&self) -> Found<u64> {
        self.count("find the highest object number", "SELECT ifnull(max(id), 0) FROM objects", [])
    }

    pub(super) fn descendants_count(&self, id: ObjectId) -> Found<u64> {
        self.count(
            "count what is under a directory",
            "WITH RECURSIVE below(id) AS (SELECT child FROM entries WHERE parent = ?1
                UNION SELECT child FROM entries JOIN below ON entries.parent = below.id)
             SELECT count(*) FROM below",
            [to_sql(id.0)],
        )
    }

    pub(super) fn orphans(&self, after: ObjectId, limit: u32) -> Found<Vec<ObjectId>> {
        let what = "find objects without a name";
        let mut statement = sql(
            what,
            self.0.prepare_cached(
                "SELECT id FROM objects o WHERE id > ? AND id <> 1
                    AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.child = o.id) ORDER BY id LIMIT ?",
            ),
        )?;
        let rows =
            sql(what, statement.query_map(params![to_sql(after.0), limit], |row| row.get::<_, i64>(0)))?;
        rows.map(|id| sql(what, id).map(|id| ObjectId(id as u64))).collect()
    }

    pub(super) fn page(&self, hash: &Hash) -> Found<Option<Vec<u8>>> {
        let what = "look up a manifest page";
        let mut statement = sql(what, self.0.prepare_cached("SELECT bytes FROM pages WHERE hash = ?"))?;
        sql(what, statement.query_row([hash.0.as_slice()], |row| row.get(0)).optional())
    }

    pub(super) fn holds_page(&self, hash: &Hash) -> Found<bool> {
        let what = "look up a manifest page";
        let mut statement = sql(what, self.0.prepare_cached("SELECT refs > 0 FROM pages WHERE hash = ?"))?;
        Ok(sql(what, statement.query_row([hash.0.as_slice()], |row| row.get(0)).optional())?.unwrap_or(false))
    }

    pub(super) fn meta(&self) -> Found<Meta> {
        let what = "read the shadow's position";
        let mut meta = Meta::default();
        let (mut stream, mut number, mut chain) = (None, None, None);
        let mut statement = sql(what, self.0.prepare_cached("SELECT name, value FROM meta"))?;
        let mut rows = sql(what, statement.query([]))?;
        while let Some(row) = sql(what, rows.next())? {
            let name: String = sql(what, row.get(0))?;
            let value: Vec<u8> = sql(what, row.get(1))?;
            match name.as_str() {
                "stream" => stream = value.as_slice().try_into().ok().map(StreamId),
                "number" => number = u64_of(&value),
                "chain" => chain = value.as_slice().try_into().ok().map(Hash),
                "boot_id" => meta.boot_id = value,
                "clean_stop" => meta.clean_stop = value == [1],
                "watermark" => meta.watermark = timestamp_of(&value),
                "root_key" => meta.root_key = ObjectKey::from_bytes(&value),
                "filesystem_id" => meta.filesystem_id = value,
                "next_id" => meta.next_id = u64_of(&value).unwrap_or(0),
                _ => {}
            }
        }
        if let (Some(stream), Some(number), Some(chain)) = (stream, number, chain) {
            meta.position = Some(Position { stream, number, chain });
        }
        meta.next_id = meta.next_id.max(2);
        Ok(meta)
    }
}

macro_rules! select {
    ($name:ident, $rest:literal) => {
        fn $name() -> &'static str {
            static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
            TEXT.get_or_init(|| format!("SELECT {COLUMNS}{}", $rest))
        }
    };
}
select!(const_by_key, " FROM objects o WHERE o.key = ?");
select!(const_by_id, " FROM objects o WHERE o.id = ?");
select!(
    const_children,
    ", e.name FROM entries e JOIN objects o ON o.id = e.child WHERE e.parent = ? ORDER BY e.name"
);
select!(const_walk, " FROM objects o WHERE o.id > ? ORDER BY o.id LIMIT ?");

pub(super) fn to_sql(number: u64) -> i64 {
    number as i64
}

pub(super) fn timestamp_bytes(time: Timestamp) -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(&time.seconds.to_be_bytes());
    out[8..].copy_from_slice(&time.nanos.to_be_bytes());
    out
}

fn timestamp_of(bytes: &[u8]) -> Option<Timestamp> {
    let (seconds, nanos) = bytes.split_first_chunk::<8>()?;
    Some(Timestamp {
        seconds: i64::from_be_bytes(*seconds),
        nanos: u32::from_be_bytes(nanos.try_into().ok()?),
    })
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::CharDevice => 5,
        Kind::BlockDevice => 6,
    }
}

fn kind_of(number: i64) -> Option<Kind> {
    Some(match number {
        0 => Kind::File,
        1 => Kind::Directory,
        2 => Kind::Symlink,
        3 => Kind::Fifo,
        4 => Kind::Socket,
        5 => Kind::CharDevice,
        6 => Kind::BlockDevice,
        _ => return None,
    })
}

/// `[3][root]` of a paged manifest, else for each extent `[1][hash][len, 4]` or `[2][len, 8]`.
fn manifest_bytes(manifest: &Manifest) -> SmallVec<[u8; 40]> {
    let mut out = SmallVec::new();
    match manifest {
        Manifest::Paged { root } => {
            out.push(3);
            out.extend_from_slice(&root.0);
        }
        Manifest::Inline(extents) => {
            for extent in extents {
                match extent {
                    Extent::Data { hash, len } => {
                        out.push(1);
                        out.extend_from_slice(&hash.0);
                        out.extend_from_slice(&len.to_be_bytes());
                    }
                    Extent::Hole { len } => {
                        out.push(2);
                        out.extend_from_slice(&len.to_be_bytes());
                    }
                }
            }
        }
    }
    out
}

fn manifest_of(mut bytes: &[u8]) -> Option<Manifest> {
    if let [3, root @ ..] = bytes {
        return Some(Manifest::Paged { root: Hash(root.try_into().ok()?) });
    }
    let mut extents = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        bytes = match tag {
            1 => {
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                let (len, rest) = rest.split_first_chunk::<4>()?;
                extents.push(Extent::Data { hash: Hash(*hash), len: u32::from_be_bytes(*len) });
                rest
            }
            2 => {
                let (len, rest) = rest.split_first_chunk::<8>()?;
                extents.push(Extent::Hole { len: u64::from_be_bytes(*len) });
                rest
            }
            _ => return None,
        };
    }
    Some(Manifest::Inline(extents))
}

pub(super) fn insert_row(conn: &Connection, row: &Row) -> Found<()> {
    let what = "write an object";
    let mut statement = sql(
        what,
        conn.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"),
    )?;
    let flags = if row.racy { RACY } else { 0 } | if row.fuzzy { FUZZY } else { 0 };
    let meta = (row.meta.0 != [0; 32]).then_some(row.meta.0.as_slice());
    let rdev = (i64::from(row.rdev.0) << 32) | i64::from(row.rdev.1);
    sql(
        what,
        statement.execute(params![
            to_sql(row.id.0),
            row.key.to_bytes().as_slice(),
            kind_number(row.kind),
            row.mode,
            row.uid,
            row.gid,
            to_sql(row.size),
            row.mtime.seconds,
            row.mtime.nanos,
            row.ctime.seconds,
            row.ctime.nanos,
            rdev,
            meta,
            manifest_bytes(&row.manifest).as_slice(),
            flags,
        ]),
    )?;
    Ok(())
}

fn decode_row(row: &SqlRow<'_>) -> Found<Row> {
    let what = "read an object's row";
    let bad = || ShadowError::BadRow { what };
    let get = |column: usize| -> Found<i64> { sql(what, row.get(column)) };
    let blob = |column: usize| -> Found<&[u8]> {
        sql(what, row.get_ref(column))?.as_blob().map_err(|_| ShadowError::BadRow { what })
    };
    let rdev = get(11)? as u64;
    let flags = get(14)?;
    let meta = match sql(what, row.get_ref(12))?.as_blob_or_null().map_err(|_| bad())? {
        Some(bytes) => Hash(bytes.try_into().map_err(|_| bad())?),
        None => Hash([0; 32]),
    };
    Ok(Row {
        id: ObjectId(get(0)? as u64),
        key: ObjectKey::from_bytes(blob(1)?).ok_or_else(bad)?,
        kind: kind_of(get(2)?).ok_or_else(bad)?,
        mode: get(3)? as u16,
        uid: get(4)? as u32,
        gid: get(5)? as u32,
        size: get(6)? as u64,
        mtime: Timestamp { seconds: get(7)?, nanos: get(8)? as u32 },
        ctime: Timestamp { seconds: get(9)?, nanos: get(10)? as u32 },
        rdev: ((rdev >> 32) as u32, rdev as u32),
        meta,
        manifest: manifest_of(blob(13)?).ok_or_else(bad)?,
        racy: flags & RACY != 0,
        fuzzy: flags & FUZZY != 0,
    })
}
