//! `NAME.index`: where each group of a file begins and ends, when, and which it is. One record of 72 bytes a group.
//!
//! It is derived from the file, but for the times of arrival. A record is written only after the bytes of its group are
//! on the disk: a sound record proves that everything up to its end was durable, so a start reads on from there. Layout,
//! little-endian: start u64, end u64, time i64 (nanoseconds since 1970), header time u32, version u8 (1), kind u8, flags u8
//! (1: the time is that of arrival), family of the GTID u8 (0: none, 1: MariaDB, 2: MySQL), GTID 24 bytes, XA branch u64
//! (hash, 0: none), four zero bytes, CRC-32 of all that u32.

use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::{Group, GroupGtid, GroupKind, Gtid, MySqlGtid, Xid};
use ehpc_proto::replication::Timestamp;
use std::io;

/// Bytes of a record.
pub(crate) const LEN: usize = 72;
const VERSION: u8 = 1;
/// Records read at once.
const AT_ONCE: usize = 2048;

/// What a group does, as the index tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum IndexedKind {
    Ddl,
    Transaction,
    XaPrepare,
    XaEnd,
    Other,
}

/// One group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last.
    pub end: u64,
    /// When it arrived, or by its header if it was not seen live; never before the group before it.
    pub time: Timestamp,
    /// The time was measured when it arrived.
    pub live: bool,
    /// Seconds since 1970 in its header.
    pub header_time: u32,
    /// What it does.
    pub kind: IndexedKind,
    /// Which transaction it is.
    pub gtid: Option<GroupGtid>,
    /// Hash of the XA branch that it prepares or ends; 0: none.
    pub branch: u64,
}

impl Entry {
    /// The entry of a group.
    pub(super) fn of(group: &Group, time: Timestamp, live: bool) -> Entry {
        let (kind, branch) = match &group.kind {
            GroupKind::Ddl => (IndexedKind::Ddl, 0),
            GroupKind::Transaction => (IndexedKind::Transaction, 0),
            GroupKind::XaPrepare(xid) => (IndexedKind::XaPrepare, branch(xid)),
            GroupKind::XaEnd(xid) => (IndexedKind::XaEnd, branch(xid)),
            GroupKind::Other => (IndexedKind::Other, 0),
        };
        let (start, end, header_time) = (group.start, group.end, group.time);
        Entry { start, end, time, live, header_time, kind, gtid: group.gtid, branch }
    }

    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let nanos = self.time.seconds.saturating_mul(1_000_000_000).saturating_add(self.time.nanos.into());
        out[0..8].copy_from_slice(&self.start.to_le_bytes());
        out[8..16].copy_from_slice(&self.end.to_le_bytes());
        out[16..24].copy_from_slice(&nanos.to_le_bytes());
        out[24..28].copy_from_slice(&self.header_time.to_le_bytes());
        let kind = match self.kind {
            IndexedKind::Ddl => 0,
            IndexedKind::Transaction => 1,
            IndexedKind::XaPrepare => 2,
            IndexedKind::XaEnd => 3,
            IndexedKind::Other => 4,
        };
        let family = match self.gtid {
            None => 0,
            Some(GroupGtid::Maria(gtid)) => {
                out[32..36].copy_from_slice(&gtid.domain.to_le_bytes());
                out[36..40].copy_from_slice(&gtid.server.to_le_bytes());
                out[40..48].copy_from_slice(&gtid.seq.to_le_bytes());
                1
            }
            Some(GroupGtid::MySql(gtid)) => {
                out[32..48].copy_from_slice(&gtid.sid);
                out[48..56].copy_from_slice(&gtid.number.to_le_bytes());
                2
            }
        };
        out[28..32].copy_from_slice(&[VERSION, kind, u8::from(self.live), family]);
        out[56..64].copy_from_slice(&self.branch.to_le_bytes());
        let sum = crc32fast::hash(&out[..LEN - 4]);
        out[LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None`: torn or damaged.
    pub(super) fn decode(bytes: &[u8; LEN]) -> Option<Entry> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if crc32fast::hash(&bytes[..LEN - 4]) != word(LEN - 4) || bytes[28] != VERSION {
            return None;
        }
        let kind = match bytes[29] {
            0 => IndexedKind::Ddl,
            1 => IndexedKind::Transaction,
            2 => IndexedKind::XaPrepare,
            3 => IndexedKind::XaEnd,
            _ => IndexedKind::Other,
        };
        let gtid = match bytes[31] {
            1 => Some(GroupGtid::Maria(Gtid { domain: word(32), server: word(36), seq: long(40) })),
            2 => {
                let mut sid = [0; 16];
                sid.copy_from_slice(&bytes[32..48]);
                Some(GroupGtid::MySql(MySqlGtid { sid, number: long(48) }))
            }
            _ => None,
        };
        let nanos = long(16) as i64;
        Some(Entry {
            start: long(0),
            end: long(8),
            time: Timestamp {
                seconds: nanos.div_euclid(1_000_000_000),
                nanos: nanos.rem_euclid(1_000_000_000) as u32,
            },
            live: bytes[30] & 1 != 0,
            header_time: word(24),
            kind,
            gtid,
            branch: long(56),
        })
    }
}

/// Names a branch in the index: the first bytes of a hash of it, never 0.
pub(super) fn branch(xid: &Xid) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&xid.format.to_le_bytes());
    hasher.update(&(xid.gtrid.len() as u64).to_le_bytes());
    hasher.update(&xid.gtrid);
    hasher.update(&xid.bqual);
    let hash = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first).max(1)
}

/// Why an index does not tell what it is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexFault {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// This record is not what was written, or is gone.
    #[error("record {0} of its index is damaged")]
    Rotten(u64),
}

/// What was found by reading an index from its beginning.
pub(super) struct Walked {
    /// Records that may be relied on.
    pub(super) count: u64,
    /// The one behind them is there, and is damaged or out of order.
    pub(super) rotten: bool,
}

/// The entries of an index that may be relied on: sound, in order, none past `end`. Calls `each` for every one.
pub(super) fn walk(file: &dyn PackFile, end: u64, each: &mut dyn FnMut(&Entry)) -> io::Result<Walked> {
    let mut buffer = vec![0; AT_ONCE * LEN];
    let (mut count, mut last) = (0u64, 0u64);
    loop {
        let read = file.read_at(&mut buffer, count * LEN as u64)?;
        let mut whole = buffer[..read].chunks_exact(LEN);
        for bytes in &mut whole {
            let sound = bytes.first_chunk::<LEN>().and_then(Entry::decode);
            let Some(entry) = sound.filter(|entry| entry.start >= last && entry.end > entry.start) else {
                return Ok(Walked { count, rotten: true });
            };
            if entry.end > end {
                return Ok(Walked { count, rotten: false });
            }
            last = entry.end;
            count += 1;
            each(&entry);
        }
        if read < buffer.len() {
            return Ok(Walked { count, rotten: false });
        }
    }
}

/// As [`walk`], and all of them are sound. Gives their number.
pub(super) fn walk_sound(
    file: &dyn PackFile,
    end: u64,
    each: &mut dyn FnMut(&Entry),
) -> Result<u64, IndexFault> {
    match walk(file, end, each)? {
        Walked { count, rotten: true } => Err(IndexFault::Rotten(count)),
        Walked { count, .. } => Ok(count),
    }
}

/// One entry; `None` past the end, or if it is damaged.
pub(super) fn nth(file: &dyn PackFile, number: u64) -> io::Result<Option<Entry>> {
    let mut bytes = [0; LEN];
    let read = file.read_at(&mut bytes, number * LEN as u64)?;
    Ok(if read == LEN { Entry::decode(&bytes) } else { None })
}

/// One entry that must be there.
pub(super) fn entry(file: &dyn PackFile, number: u64) -> Result<Entry, IndexFault> {
    nth(file, number)?.ok_or(IndexFault::Rotten(number))
}

/// Number of whole entries.
pub(super) fn count(file: &dyn PackFile) -> io::Result<u64> {
    Ok(file.len()? / LEN as u64)
}

/// The first entry for which `after` is true, if it is false for all before and true for all behind. Gives its number.
pub(super) fn first(
    file: &dyn PackFile,
    count: u64,
    after: &dyn Fn(&Entry) -> bool,
) -> Result<u64, IndexFault> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if after(&entry(file, middle)?) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Appends entries as number `at` and following.
pub(super) fn append(file: &dyn PackFile, at: u64, entries: &[Entry]) -> io::Result<()> {
    let bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    file.write_at([&bytes, &[]], at * LEN as u64)
}
