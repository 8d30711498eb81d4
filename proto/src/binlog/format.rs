//! The format description: first event of every file. It says which server wrote the file and how events are summed.
//!
//! Source: MySQL internals manual, "FORMAT_DESCRIPTION_EVENT"; MariaDB knowledge base, "FORMAT_DESCRIPTION_EVENT".

use super::header::{CHECKSUM_LEN, EventHeader, FLAG_IN_USE, HeaderFault, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which of the two families a server belongs to: GTIDs, variables and a few events differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// MariaDB.
    MariaDb,
    /// MySQL, Percona Server.
    MySql,
}

/// What ends each event of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// Nothing (`binlog_checksum = NONE`).
    None,
    /// Four bytes of CRC32, little-endian.
    Crc32,
}

impl Checksum {
    /// Bytes at the end of each event.
    pub fn len(self) -> usize {
        match self {
            Checksum::None => 0,
            Checksum::Crc32 => CHECKSUM_LEN,
        }
    }

    /// The name that servers give it: `NONE`, `CRC32`.
    pub fn name(self) -> &'static str {
        match self {
            Checksum::None => "NONE",
            Checksum::Crc32 => "CRC32",
        }
    }

    /// Nothing follows an event.
    pub fn is_empty(self) -> bool {
        self == Checksum::None
    }
}

/// Most bytes of a format description: a header, 57 fixed bytes, one for each of at most 255 kinds, algorithm, sum.
pub const FORMAT_MAX: usize = EventHeader::LEN + 57 + 255 + 1 + CHECKSUM_LEN;
/// Where parts of it stand, from the event's start.
const VERSION_AT: usize = EventHeader::LEN + 2;
const VERSION_LEN: usize = 50;
const CREATED_AT: usize = VERSION_AT + VERSION_LEN;
const HEADER_LEN_AT: usize = CREATED_AT + 4;
const LOG_POS_AT: usize = 13;
const FLAGS_AT: usize = 17;

/// A format description with the bytes it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatDescription {
    /// Such as `10.11.19-MariaDB-0+deb12u1-log`, `5.6.24-log`.
    pub server_version: String,
    /// Seconds since 1970 when the file was begun; 0 in a copy sent in the middle of a file (a replica then keeps
    /// its open temporary tables).
    pub created: u32,
    /// How events are summed, those after this one.
    pub checksum: Checksum,
    /// The server has the file open, or was killed while it had.
    pub in_use: bool,
    bytes: Vec<u8>,
}

/// What is wrong with a format description.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FormatFault {
    /// The header.
    #[error(transparent)]
    Header(#[from] HeaderFault),
    /// Another event.
    #[error("the first event of a binary log is a format description (15), this one is {}", .0.0)]
    Kind(Kind),
    /// More or fewer bytes than such an event has.
    #[error("a format description of {0} bytes")]
    Length(usize),
    /// Written by MySQL before 5.0, or nothing of the kind.
    #[error("binary log version {version}, event headers of {header} bytes: only version 4 with 19 is known")]
    Version {
        /// Version of the binary log.
        version: u16,
        /// Bytes of an event's header.
        header: u8,
    },
    /// The version is not text.
    #[error("the server's version is not text")]
    ServerVersion,
    /// A way to sum events that does not exist yet.
    #[error("checksum algorithm {0} is not known (0 is NONE, 1 is CRC32)")]
    Algorithm(u8),
    /// Bytes changed on their way or on disk.
    #[error("the checksum of the format description is wrong")]
    Checksum,
}

impl FormatDescription {
    /// Reads a whole event, header and checksum with it.
    ///
    /// # Errors
    ///
    /// Another event, another version of the format, a wrong checksum.
    pub fn decode(event: &[u8]) -> Result<FormatDescription, FormatFault> {
        let header = EventHeader::decode(event)?;
        if header.kind != Kind::FORMAT_DESCRIPTION {
            return Err(FormatFault::Kind(header.kind));
        }
        if header.size as usize != event.len() || event.len() > FORMAT_MAX || event.len() <= HEADER_LEN_AT {
            return Err(FormatFault::Length(event.len()));
        }
        let version = u16::from_le_bytes([event[EventHeader::LEN], event[EventHeader::LEN + 1]]);
        if version != 4 || usize::from(event[HEADER_LEN_AT]) != EventHeader::LEN {
            return Err(FormatFault::Version { version, header: event[HEADER_LEN_AT] });
        }
        let text = event[VERSION_AT..CREATED_AT].split(|&b| b == 0).next().unwrap_or_default();
        let server_version = match std::str::from_utf8(text) {
            Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
            _ => return Err(FormatFault::ServerVersion),
        };
        let mut created = [0; 4];
        created.copy_from_slice(&event[CREATED_AT..HEADER_LEN_AT]);
        let in_use = header.flags & FLAG_IN_USE != 0;
        let created = u32::from_le_bytes(created);
        let mut format = FormatDescription {
            server_version,
            created,
            checksum: Checksum::None,
            in_use,
            bytes: event.to_vec(),
        };
        format.checksum = format.own_checksum()?;
        Ok(format)
    }

    /// Since MySQL 5.6.1 and MariaDB 5.3 a format description ends with an algorithm and a sum, whatever the algorithm;
    /// older servers are not supported.
    fn own_checksum(&self) -> Result<Checksum, FormatFault> {
        let Some(at) = self.bytes.len().checked_sub(1 + CHECKSUM_LEN).filter(|at| *at > HEADER_LEN_AT) else {
            return Err(FormatFault::Length(self.bytes.len()));
        };
        let checksum = match self.bytes[at] {
            0 => Checksum::None,
            1 => Checksum::Crc32,
            other => return Err(FormatFault::Algorithm(other)),
        };
        if self.sum() != self.bytes[at + 1..] {
            return Err(FormatFault::Checksum);
        }
        Ok(checksum)
    }

    /// The checksum, which does not see the bit "in use": the server changes that bit in place.
    fn sum(&self) -> [u8; CHECKSUM_LEN] {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.bytes[..FLAGS_AT]);
        sum.update(&[self.bytes[FLAGS_AT] & !1]);
        sum.update(&self.bytes[FLAGS_AT + 1..self.bytes.len() - CHECKSUM_LEN]);
        sum.finalize().to_le_bytes()
    }

    /// Which family wrote the file.
    pub fn flavor(&self) -> Flavor {
        if self.server_version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql }
    }

    /// The event's bytes, header and checksum with them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its header.
    pub fn header(&self) -> EventHeader {
        let none = EventHeader { timestamp: 0, kind: Kind(0), server_id: 0, size: 0, log_pos: 0, flags: 0 };
        EventHeader::decode(&self.bytes).unwrap_or(none) // decoded before
    }

    /// The same with the bit "in use" set or not; the checksum stays right, it does not see that bit.
    #[must_use]
    pub fn with_in_use(mut self, in_use: bool) -> FormatDescription {
        self.in_use = in_use;
        self.bytes[FLAGS_AT] = self.bytes[FLAGS_AT] & !1 | u8::from(in_use);
        self
    }

    /// The same as a server sends it to a replica that has some of the log already: not in use, `created` 0, so that the
    /// replica keeps its open temporary tables.
    #[must_use]
    pub fn as_continued(self) -> FormatDescription {
        let mut format = self.with_in_use(false);
        format.created = 0;
        format.bytes[CREATED_AT..HEADER_LEN_AT].fill(0);
        format.summed_anew()
    }

    /// The same as a server sends it to a replica that starts at a position behind the file's beginning: continued, and
    /// `log_pos` 0, so that the replica does not move there.
    #[must_use]
    pub fn as_mid_file(self) -> FormatDescription {
        let mut format = self.as_continued();
        format.bytes[LOG_POS_AT..FLAGS_AT].fill(0);
        format.summed_anew()
    }

    fn summed_anew(mut self) -> FormatDescription {
        let at = self.bytes.len() - CHECKSUM_LEN;
        let sum = self.sum();
        self.bytes[at..].copy_from_slice(&sum);
        self
    }
}
