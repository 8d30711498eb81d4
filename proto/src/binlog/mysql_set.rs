//! MySQL's sets of GTIDs: intervals of numbers for each server, as text and as bytes.
//!
//! Source: MySQL manual, "GTID Sets"; MySQL internals manual, "COM_BINLOG_DUMP_GTID" (the bytes, also of PREVIOUS_GTIDS).

use super::gtid::{GtidFault, MySqlGtid, Uuid, clipped, parse_uuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Numbers end below this.
const NUMBER_END: u64 = i64::MAX as u64;

/// All transactions that happened. Intervals (first, last) are ascending and never touch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MySqlSet(BTreeMap<[u8; 16], Vec<(u64, u64)>>);

impl MySqlSet {
    /// Nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The intervals (first, last) of each server.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8; 16], &[(u64, u64)])> {
        self.0.iter().map(|(sid, intervals)| (sid, intervals.as_slice()))
    }

    /// One more transaction.
    pub fn add(&mut self, gtid: MySqlGtid) {
        self.add_interval(gtid.sid, gtid.number, gtid.number);
    }

    /// The numbers `first..=last` of a server. Nothing when `first > last`.
    pub fn add_interval(&mut self, sid: [u8; 16], first: u64, last: u64) {
        if first > last {
            return;
        }
        let intervals = self.0.entry(sid).or_default();
        // Those that touch the new one: the others before end too early, the others behind begin too late.
        let from = intervals.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = intervals.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let start = intervals[from..to].first().map_or(first, |(start, _)| first.min(*start));
        let end = intervals[from..to].last().map_or(last, |(_, end)| last.max(*end));
        intervals.splice(from..to, [(start, end)]);
    }

    /// This transaction has happened.
    pub fn contains(&self, gtid: MySqlGtid) -> bool {
        self.contains_interval(&gtid.sid, gtid.number, gtid.number)
    }

    fn contains_interval(&self, sid: &[u8; 16], first: u64, last: u64) -> bool {
        let Some(intervals) = self.0.get(sid) else { return false };
        let at = intervals.partition_point(|(_, end)| *end < first);
        intervals.get(at).is_some_and(|(start, end)| *start <= first && last <= *end)
    }

    /// Everything of `other` has happened here too.
    pub fn contains_all(&self, other: &MySqlSet) -> bool {
        other.iter().all(|(sid, intervals)| {
            intervals.iter().all(|(first, last)| self.contains_interval(sid, *first, *last))
        })
    }

    /// Both together.
    pub fn merge(&mut self, other: &MySqlSet) {
        for (sid, intervals) in other.iter() {
            for (first, last) in intervals {
                self.add_interval(*sid, *first, *last);
            }
        }
    }

    /// Reads the bytes of COM_BINLOG_DUMP_GTID and of PREVIOUS_GTIDS: all of `bytes`.
    ///
    /// # Errors
    ///
    /// Cut, too long, intervals empty or out of order; a tagged set (MySQL 8.3).
    pub fn decode(bytes: &[u8]) -> Result<MySqlSet, GtidFault> {
        let mut rest = bytes;
        let mut set = MySqlSet::default();
        for _ in 0..number(&mut rest)? {
            let (sid, after) = rest.split_first_chunk::<16>().ok_or(GtidFault::Bytes)?;
            rest = after;
            let mut least = 1;
            for _ in 0..number(&mut rest)? {
                let (first, end) = (number(&mut rest)?, number(&mut rest)?);
                if first < least || end <= first || end > NUMBER_END {
                    return Err(GtidFault::Bytes);
                }
                least = end + 1;
                set.add_interval(*sid, first, end - 1);
            }
        }
        if rest.is_empty() { Ok(set) } else { Err(GtidFault::Bytes) }
    }

    /// The bytes of COM_BINLOG_DUMP_GTID and of PREVIOUS_GTIDS.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u64).to_le_bytes().to_vec();
        for (sid, intervals) in self.iter() {
            bytes.extend_from_slice(sid);
            bytes.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for (first, last) in intervals {
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&(last + 1).to_le_bytes());
            }
        }
        bytes
    }
}

fn number(rest: &mut &[u8]) -> Result<u64, GtidFault> {
    let (bytes, after) = rest.split_first_chunk::<8>().ok_or(GtidFault::Bytes)?;
    *rest = after;
    Ok(u64::from_le_bytes(*bytes))
}

impl fmt::Display for MySqlSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (sid, intervals)) in self.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, Uuid(sid))?;
            for (first, last) in intervals {
                match first == last {
                    true => write!(f, ":{first}")?,
                    false => write!(f, ":{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MySqlSet {
    type Err = GtidFault;

    /// Blanks and line ends around the parts are allowed: servers write `,\n` between servers.
    fn from_str(text: &str) -> Result<MySqlSet, GtidFault> {
        let mut set = MySqlSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || GtidFault::MySql(clipped(part));
            let mut fields = part.split(':').map(str::trim);
            let sid = fields.next().and_then(parse_uuid).ok_or_else(bad)?;
            let mut any = false;
            for interval in fields {
                if interval.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    return Err(GtidFault::Tag(clipped(part)));
                }
                let number = |text: &str| {
                    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                    text.parse().ok().filter(|n: &u64| digits && (1..NUMBER_END).contains(n)).ok_or_else(bad)
                };
                let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
                let (first, last) = (number(first.trim())?, number(last.trim())?);
                if first > last {
                    return Err(bad());
                }
                set.add_interval(sid, first, last);
                any = true;
            }
            if !any {
                return Err(bad());
            }
        }
        Ok(set)
    }
}

impl TryFrom<String> for MySqlSet {
    type Error = GtidFault;

    fn try_from(text: String) -> Result<MySqlSet, GtidFault> {
        text.parse()
    }
}

impl From<MySqlSet> for String {
    fn from(set: MySqlSet) -> String {
        set.to_string()
    }
}
