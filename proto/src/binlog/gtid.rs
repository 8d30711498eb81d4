//! Global transaction identifiers of both families, and how far a log has come in them.
//!
//! Source: MariaDB knowledge base, "Global Transaction ID"; MySQL manual, "GTID Format and Storage".

use super::format::Flavor;
use super::mysql_set::MySqlSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A transaction of MariaDB: `domain-server-sequence`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Gtid {
    /// Replication domain: within one, sequence numbers grow in the order of the log.
    pub domain: u32,
    /// The server that ran the transaction first.
    pub server: u32,
    /// Sequence number.
    pub seq: u64,
}

/// A transaction of MySQL: `uuid:number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MySqlGtid {
    /// `server_uuid` of the server that ran the transaction first.
    pub sid: [u8; 16],
    /// Its number there, 1..2^63-1.
    pub number: u64,
}

/// A transaction of either family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GroupGtid {
    /// MariaDB's.
    Maria(Gtid),
    /// MySQL's.
    MySql(MySqlGtid),
}

/// A text that is not a GTID or not a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GtidFault {
    /// Not `domain-server-sequence`.
    #[error("`{0}` is not a GTID of MariaDB (domain-server-sequence, such as 0-1-100)")]
    Maria(String),
    /// Two places in one domain.
    #[error("domain {0} is named twice")]
    Twice(u32),
    /// Not `uuid:first-last`.
    #[error(
        "`{0}` is not a set of MySQL's GTIDs (uuid:1-100, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5)"
    )]
    MySql(String),
    /// MySQL 8.3's tags.
    #[error("`{0}` has a tag: tagged GTIDs (MySQL 8.3 and later) are not supported")]
    Tag(String),
    /// Bytes of a set that do not end where they say.
    #[error("a set of MySQL's GTIDs is cut or out of order")]
    Bytes,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.seq)
    }
}

impl FromStr for Gtid {
    type Err = GtidFault;

    fn from_str(text: &str) -> Result<Gtid, GtidFault> {
        let bad = || GtidFault::Maria(clipped(text));
        let mut parts = text.trim().split('-');
        fn digits(part: Option<&str>) -> Option<&str> {
            part.filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        }
        let domain = digits(parts.next()).ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let server = digits(parts.next()).ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let seq = digits(parts.next()).ok_or_else(bad)?.parse().map_err(|_| bad())?;
        if parts.next().is_some() { Err(bad()) } else { Ok(Gtid { domain, server, seq }) }
    }
}

impl fmt::Display for MySqlGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Uuid(&self.sid), self.number)
    }
}

impl fmt::Display for GroupGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupGtid::Maria(gtid) => gtid.fmt(f),
            GroupGtid::MySql(gtid) => gtid.fmt(f),
        }
    }
}

/// 16 bytes as `8-4-4-4-12` hexadecimal digits.
pub struct Uuid<'a>(pub &'a [u8; 16]);

impl fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Reads `8-4-4-4-12` hexadecimal digits.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let mut digits = bytes.iter().filter(|b| **b != b'-');
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        let mut digit = || char::from(*digits.next()?).to_digit(16);
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    digits.next().is_none().then_some(uuid)
}

/// What of a bad text goes into an error.
pub(super) fn clipped(text: &str) -> String {
    text.chars().take(80).collect()
}

/// How far a log of MariaDB has come: the newest transaction of each domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MariaState(BTreeMap<u32, Gtid>);

impl MariaState {
    /// The newest transaction of a domain.
    pub fn domain(&self, domain: u32) -> Option<Gtid> {
        self.0.get(&domain).copied()
    }

    /// The newest transaction of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> {
        self.0.values().copied()
    }

    /// No domain has any transaction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The log goes on with this transaction (whatever its number: without strict mode numbers may go back).
    pub fn add(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, gtid);
    }

    /// The log has come to this transaction or past it.
    pub fn contains(&self, gtid: Gtid) -> bool {
        self.domain(gtid.domain).is_some_and(|newest| newest.seq >= gtid.seq)
    }

    /// The higher of both in each domain.
    pub fn merge(&mut self, other: &MariaState) {
        for gtid in other.iter() {
            if !self.contains(gtid) {
                self.add(gtid);
            }
        }
    }
}

impl fmt::Display for MariaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.iter().enumerate() {
            write!(f, "{}{gtid}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for MariaState {
    type Err = GtidFault;

    fn from_str(text: &str) -> Result<MariaState, GtidFault> {
        let mut state = MariaState::default();
        if text.trim().is_empty() {
            return Ok(state);
        }
        for part in text.split(',') {
            let gtid: Gtid = part.parse()?;
            if state.domain(gtid.domain).is_some() {
                return Err(GtidFault::Twice(gtid.domain));
            }
            state.add(gtid);
        }
        Ok(state)
    }
}

impl TryFrom<String> for MariaState {
    type Error = GtidFault;

    fn try_from(text: String) -> Result<MariaState, GtidFault> {
        text.parse()
    }
}

impl From<MariaState> for String {
    fn from(state: MariaState) -> String {
        state.to_string()
    }
}

impl FromIterator<Gtid> for MariaState {
    /// In the order of the log (or of a GTID_LIST): the last one of a domain counts.
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> MariaState {
        let mut state = MariaState::default();
        gtids.into_iter().for_each(|gtid| state.add(gtid));
        state
    }
}

/// How far a log has come, in the GTIDs of its family. MySQL without GTIDs has an empty set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GtidState {
    /// The newest transaction of each domain.
    Maria(MariaState),
    /// All transactions.
    MySql(MySqlSet),
}

impl GtidState {
    /// Before the first transaction.
    pub fn empty(flavor: Flavor) -> GtidState {
        match flavor {
            Flavor::MariaDb => GtidState::Maria(MariaState::default()),
            Flavor::MySql => GtidState::MySql(MySqlSet::default()),
        }
    }

    /// Reads what `Display` writes: `gtid_binlog_pos` of MariaDB, `gtid_executed` of MySQL. An empty text is the empty state.
    ///
    /// # Errors
    ///
    /// Not such a text.
    pub fn parse(flavor: Flavor, text: &str) -> Result<GtidState, GtidFault> {
        match flavor {
            Flavor::MariaDb => text.parse().map(GtidState::Maria),
            Flavor::MySql => text.parse().map(GtidState::MySql),
        }
    }

    /// Whose GTIDs these are.
    pub fn flavor(&self) -> Flavor {
        match self {
            GtidState::Maria(_) => Flavor::MariaDb,
            GtidState::MySql(_) => Flavor::MySql,
        }
    }

    /// No transaction at all.
    pub fn is_empty(&self) -> bool {
        match self {
            GtidState::Maria(state) => state.is_empty(),
            GtidState::MySql(set) => set.is_empty(),
        }
    }

    /// The log goes on with this transaction. One of the other family changes nothing.
    pub fn add(&mut self, gtid: &GroupGtid) {
        match (self, gtid) {
            (GtidState::Maria(state), GroupGtid::Maria(gtid)) => state.add(*gtid),
            (GtidState::MySql(set), GroupGtid::MySql(gtid)) => set.add(*gtid),
            _ => {}
        }
    }

    /// This transaction has happened. Never true for one of the other family.
    pub fn contains(&self, gtid: &GroupGtid) -> bool {
        match (self, gtid) {
            (GtidState::Maria(state), GroupGtid::Maria(gtid)) => state.contains(*gtid),
            (GtidState::MySql(set), GroupGtid::MySql(gtid)) => set.contains(*gtid),
            _ => false,
        }
    }

    /// Everything of `other` has happened here too. Never true for a state of the other family, unless it is empty.
    pub fn contains_all(&self, other: &GtidState) -> bool {
        match (self, other) {
            (GtidState::Maria(state), GtidState::Maria(other)) => {
                other.iter().all(|gtid| state.contains(gtid))
            }
            (GtidState::MySql(set), GtidState::MySql(other)) => set.contains_all(other),
            _ => other.is_empty(),
        }
    }

    /// Both together. A state of the other family changes nothing.
    pub fn merge(&mut self, other: &GtidState) {
        match (self, other) {
            (GtidState::Maria(state), GtidState::Maria(other)) => state.merge(other),
            (GtidState::MySql(set), GtidState::MySql(other)) => set.merge(other),
            _ => {}
        }
    }
}

impl fmt::Display for GtidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidState::Maria(state) => state.fmt(f),
            GtidState::MySql(set) => set.fmt(f),
        }
    }
}
