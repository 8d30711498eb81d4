//! The bodies of the few events that mean something to us. All of them are given without header and checksum.
//!
//! Source: MySQL internals manual, "Binlog Event"; MariaDB knowledge base, "Replication Protocol", and the headers of
//! MariaDB's `sql/log_event.h` for flags.

use super::gtid::{Gtid, GtidFault, MySqlGtid};
use super::header::EventHeader;
use super::mysql_set::MySqlSet;
use thiserror::Error;

/// Longest name of a file, in bytes.
pub const FILE_NAME_MAX: usize = 255;
/// Longest part of a branch's name (`gtrid` or `bqual`), in bytes.
const XID_PART_MAX: usize = 64;

/// A body that is not what its kind says.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BodyFault {
    /// It ends too early.
    #[error("the {0} event is cut")]
    Short(&'static str),
    /// The next file's name has other characters than `A-Za-z0-9_.-`, a dot in front or more than 255 of them.
    #[error(
        "`{0}` is not a name of a binary log file that is accepted here (letters, digits, `_`, `.`, `-`)"
    )]
    FileName(String),
    /// A branch of a distributed transaction with too long a name.
    #[error("the name of an XA transaction is longer than 64 bytes")]
    Xid,
    /// A GTID in it.
    #[error(transparent)]
    Gtid(#[from] GtidFault),
}

/// A name that may stand in the archive: `[A-Za-z0-9_.-]`, no dot in front, at most 255 bytes.
pub fn is_file_name(name: &[u8]) -> bool {
    (1..=FILE_NAME_MAX).contains(&name.len())
        && name[0] != b'.'
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], BodyFault> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(BodyFault::Short(what))?;
    *rest = after;
    Ok(*bytes)
}

fn slice<'a>(rest: &mut &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8], BodyFault> {
    let (bytes, after) = rest.split_at_checked(len).ok_or(BodyFault::Short(what))?;
    *rest = after;
    Ok(bytes)
}

/// ROTATE: the log goes on in another file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotate {
    /// Where in that file; 4 but in a fake one.
    pub position: u64,
    /// Its name.
    pub next: String,
}

impl Rotate {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// Cut; a name that is not accepted.
    pub fn decode(mut body: &[u8]) -> Result<Rotate, BodyFault> {
        let position = u64::from_le_bytes(take(&mut body, "ROTATE")?);
        match std::str::from_utf8(body) {
            Ok(name) if is_file_name(body) => Ok(Rotate { position, next: name.to_owned() }),
            _ => Err(BodyFault::FileName(String::from_utf8_lossy(body).chars().take(80).collect())),
        }
    }
}

/// Name of a branch of a distributed transaction (`XA START 'gtrid','bqual',format`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Xid {
    /// Format number; 1 unless said otherwise.
    pub format: u32,
    /// Global part, at most 64 bytes.
    pub gtrid: Vec<u8>,
    /// Branch part, at most 64 bytes.
    pub bqual: Vec<u8>,
}

impl std::fmt::Display for Xid {
    /// As servers write it: `X'706179',X'6272',1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.gtrid, &self.bqual] {
            f.write_str("X'")?;
            part.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("',")?;
        }
        write!(f, "{}", self.format)
    }
}

impl Xid {
    /// Reads `X'706179',X'6272',1`, as servers log it.
    pub fn parse(text: &[u8]) -> Option<Xid> {
        fn part(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
            let rest = text.strip_prefix(b"X'")?;
            let end = rest.iter().position(|b| *b == b'\'').filter(|end| *end <= 2 * XID_PART_MAX)?;
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let bytes = rest[..end].chunks(2).map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            });
            Some((bytes.collect::<Option<Vec<u8>>>()?, rest[end + 1..].strip_prefix(b",")?))
        }
        let (gtrid, rest) = part(text)?;
        let (bqual, rest) = part(rest)?;
        let format = std::str::from_utf8(rest).ok()?.trim().parse().ok()?;
        Some(Xid { format, gtrid, bqual })
    }

    fn checked(format: u32, gtrid: &[u8], bqual: &[u8]) -> Result<Xid, BodyFault> {
        if gtrid.len() > XID_PART_MAX || bqual.len() > XID_PART_MAX {
            return Err(BodyFault::Xid);
        }
        Ok(Xid { format, gtrid: gtrid.to_vec(), bqual: bqual.to_vec() })
    }
}

/// GTID (162) of MariaDB: begins a group of events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MariaGtid {
    /// Which transaction.
    pub gtid: Gtid,
    /// The flags below.
    pub flags: u8,
    /// Transactions with one id were committed together.
    pub commit_id: Option<u64>,
    /// The branch, in the group of an XA PREPARE, XA COMMIT or XA ROLLBACK.
    pub xid: Option<Xid>,
}

impl MariaGtid {
    /// One statement without COMMIT: the group ends with its first event that is more than a preparation.
    pub const STANDALONE: u8 = 1;
    /// A commit id follows.
    pub const GROUP_COMMIT: u8 = 2;
    /// Can be rolled back.
    pub const TRANSACTIONAL: u8 = 4;
    /// Data definition.
    pub const DDL: u8 = 32;
    /// XA PREPARE.
    pub const PREPARED_XA: u8 = 64;
    /// XA COMMIT or XA ROLLBACK.
    pub const COMPLETED_XA: u8 = 128;

    /// Reads the body; the server stands in the header.
    ///
    /// # Errors
    ///
    /// Cut; too long a branch.
    pub fn decode(header: &EventHeader, mut body: &[u8]) -> Result<MariaGtid, BodyFault> {
        let seq = u64::from_le_bytes(take(&mut body, "GTID")?);
        let domain = u32::from_le_bytes(take(&mut body, "GTID")?);
        let [flags] = take(&mut body, "GTID")?;
        let commit_id = match flags & MariaGtid::GROUP_COMMIT {
            0 => None,
            _ => Some(u64::from_le_bytes(take(&mut body, "GTID")?)),
        };
        let xid = match flags & (MariaGtid::PREPARED_XA | MariaGtid::COMPLETED_XA) {
            0 => None,
            _ => {
                let format = u32::from_le_bytes(take(&mut body, "GTID")?);
                let [gtrid, bqual] = take(&mut body, "GTID")?;
                let gtrid = slice(&mut body, gtrid.into(), "GTID")?;
                Some(Xid::checked(format, gtrid, slice(&mut body, bqual.into(), "GTID")?)?)
            }
        };
        Ok(MariaGtid { gtid: Gtid { domain, server: header.server_id, seq }, flags, commit_id, xid })
    }
}

/// GTID_LIST (163) of MariaDB: second event of every file, what happened before the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GtidList {
    /// The newest transaction of each server in each domain; the last one of a domain is the domain's newest.
    pub gtids: Vec<Gtid>,
    /// In an artificial one: the replica has all it asked for with `@slave_until_gtid`.
    pub until_reached: bool,
}

impl GtidList {
    /// Bits of the count that are the count.
    pub const COUNT_MASK: u32 = (1 << 28) - 1;
    /// Bit of the count: until reached.
    pub const UNTIL_REACHED: u32 = 1 << 28;

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// Cut, or longer than its count says.
    pub fn decode(mut body: &[u8]) -> Result<GtidList, BodyFault> {
        let count = u32::from_le_bytes(take(&mut body, "GTID_LIST")?);
        let entries = (count & GtidList::COUNT_MASK) as usize;
        // A list without entries is padded: events of less than a certain size upset old replicas.
        let list = if entries == 0 { &[] } else { body };
        if list.len() != entries * 16 {
            return Err(BodyFault::Short("GTID_LIST"));
        }
        let gtids = list.chunks_exact(16).map(|entry| {
            let mut entry = entry;
            Ok(Gtid {
                domain: u32::from_le_bytes(take(&mut entry, "GTID_LIST")?),
                server: u32::from_le_bytes(take(&mut entry, "GTID_LIST")?),
                seq: u64::from_le_bytes(take(&mut entry, "GTID_LIST")?),
            })
        });
        let gtids = gtids.collect::<Result<_, BodyFault>>()?;
        Ok(GtidList { gtids, until_reached: count & GtidList::UNTIL_REACHED != 0 })
    }
}

/// GTID (33) and ANONYMOUS_GTID (34) of MySQL: begins a group of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MySqlGtidEvent {
    /// The server's uuid and the transaction's number; of no meaning in an anonymous one.
    pub gtid: MySqlGtid,
    /// When the server that wrote this log committed it, in microseconds since 1970 (MySQL 8.0 and later).
    pub commit_micros: Option<u64>,
}

impl MySqlGtidEvent {
    /// Reads the body: flags, sid, number; since 5.7 a logical clock (kind 2 and two numbers), since 8.0 the commit's
    /// time in 7 bytes (the highest bit says that the original server's time follows).
    ///
    /// # Errors
    ///
    /// Cut.
    pub fn decode(mut body: &[u8]) -> Result<MySqlGtidEvent, BodyFault> {
        let [_flags] = take(&mut body, "GTID")?;
        let sid = take(&mut body, "GTID")?;
        let number = u64::from_le_bytes(take(&mut body, "GTID")?);
        let micros = match body.split_first() {
            Some((2, clock)) => clock.get(16..23),
            _ => None,
        };
        let commit_micros = micros.map(|bytes| {
            let mut word = [0; 8];
            word[..7].copy_from_slice(bytes);
            u64::from_le_bytes(word) & !(1 << 55)
        });
        Ok(MySqlGtidEvent { gtid: MySqlGtid { sid, number }, commit_micros })
    }
}

/// PREVIOUS_GTIDS (35) of MySQL: what happened before the file.
///
/// # Errors
///
/// Not the bytes of a set.
pub fn decode_previous_gtids(body: &[u8]) -> Result<MySqlSet, BodyFault> {
    Ok(MySqlSet::decode(body)?)
}

/// QUERY (2): a statement, perhaps only its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query<'a> {
    /// Current database.
    pub database: &'a [u8],
    /// The statement, as far as it is there.
    pub statement: &'a [u8],
}

impl Query<'_> {
    /// Reads the body or its beginning.
    ///
    /// # Errors
    ///
    /// It ends before the statement.
    pub fn decode(mut body: &[u8]) -> Result<Query<'_>, BodyFault> {
        slice(&mut body, 8, "QUERY")?; // thread, seconds
        let [database] = take(&mut body, "QUERY")?;
        slice(&mut body, 2, "QUERY")?; // error code
        let status = u16::from_le_bytes(take(&mut body, "QUERY")?);
        slice(&mut body, status.into(), "QUERY")?;
        let database = slice(&mut body, database.into(), "QUERY")?;
        slice(&mut body, 1, "QUERY")?; // NUL behind it
        Ok(Query { database, statement: body })
    }
}

/// XA_PREPARE (38): ends the group of a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XaPrepare {
    /// `XA COMMIT .. ONE PHASE`: committed at once.
    pub one_phase: bool,
    /// The branch.
    pub xid: Xid,
}

impl XaPrepare {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// Cut; too long a branch.
    pub fn decode(mut body: &[u8]) -> Result<XaPrepare, BodyFault> {
        let [one_phase] = take(&mut body, "XA_PREPARE")?;
        let format = u32::from_le_bytes(take(&mut body, "XA_PREPARE")?);
        let gtrid = u32::from_le_bytes(take(&mut body, "XA_PREPARE")?) as usize;
        let bqual = u32::from_le_bytes(take(&mut body, "XA_PREPARE")?) as usize;
        let gtrid = slice(&mut body, gtrid, "XA_PREPARE")?;
        let xid = Xid::checked(format, gtrid, slice(&mut body, bqual, "XA_PREPARE")?)?;
        Ok(XaPrepare { one_phase: one_phase != 0, xid })
    }
}
