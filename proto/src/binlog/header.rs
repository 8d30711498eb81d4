//! The 19 bytes that begin every event of a binary log (version 4).
//!
//! Source: MySQL internals manual, "Event Header"; MariaDB knowledge base, "2-Binlog Event Header".

use thiserror::Error;

/// First bytes of a binary log file.
pub const MAGIC: [u8; 4] = *b"\xfebin";
/// Bytes of a CRC32 at the end of an event.
pub const CHECKSUM_LEN: usize = 4;

/// Flag of a format description: the file is open, or its server was killed. Not part of its checksum.
pub const FLAG_IN_USE: u16 = 0x0001;
/// Flag of an event that the server made for the connection: it stands in no file.
pub const FLAG_ARTIFICIAL: u16 = 0x0020;

/// What an event is: the type code. Codes below 160 are shared or MySQL's own, 160 and up are MariaDB's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u8);

#[allow(missing_docs)] // the manuals' own names
impl Kind {
    pub const QUERY: Kind = Kind(2);
    pub const STOP: Kind = Kind(3);
    pub const ROTATE: Kind = Kind(4);
    pub const INTVAR: Kind = Kind(5);
    pub const APPEND_BLOCK: Kind = Kind(9);
    pub const RAND: Kind = Kind(13);
    pub const USER_VAR: Kind = Kind(14);
    pub const FORMAT_DESCRIPTION: Kind = Kind(15);
    pub const XID: Kind = Kind(16);
    pub const BEGIN_LOAD_QUERY: Kind = Kind(17);
    pub const EXECUTE_LOAD_QUERY: Kind = Kind(18);
    pub const TABLE_MAP: Kind = Kind(19);
    pub const INCIDENT: Kind = Kind(26);
    pub const HEARTBEAT: Kind = Kind(27);
    pub const IGNORABLE: Kind = Kind(28);
    pub const ROWS_QUERY: Kind = Kind(29);
    pub const GTID: Kind = Kind(33);
    pub const ANONYMOUS_GTID: Kind = Kind(34);
    pub const PREVIOUS_GTIDS: Kind = Kind(35);
    pub const XA_PREPARE: Kind = Kind(38);
    pub const TRANSACTION_PAYLOAD: Kind = Kind(40);
    pub const HEARTBEAT_V2: Kind = Kind(41);
    pub const GTID_TAGGED: Kind = Kind(42);
    pub const ANNOTATE_ROWS: Kind = Kind(160);
    pub const BINLOG_CHECKPOINT: Kind = Kind(161);
    pub const MARIA_GTID: Kind = Kind(162);
    pub const GTID_LIST: Kind = Kind(163);
    pub const START_ENCRYPTION: Kind = Kind(164);
    pub const QUERY_COMPRESSED: Kind = Kind(165);
    pub const WRITE_ROWS_COMPRESSED_V1: Kind = Kind(166);
    pub const UPDATE_ROWS_COMPRESSED_V1: Kind = Kind(167);
    pub const DELETE_ROWS_COMPRESSED_V1: Kind = Kind(168);
}

/// The header of one event, in the file's or the wire's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventHeader {
    /// Seconds since 1970 at which the statement began; 0 in events that the server makes up.
    pub timestamp: u32,
    /// Type code.
    pub kind: Kind,
    /// The server on which the event happened first.
    pub server_id: u32,
    /// Bytes of the whole event: header, body and checksum. At least [`EventHeader::LEN`].
    pub size: u32,
    /// Offset of the event's end in its file, modulo 2^32; 0 in events that stand in no file.
    pub log_pos: u32,
    /// Flags, see `FLAG_IN_USE` and `FLAG_ARTIFICIAL`.
    pub flags: u16,
}

/// What is wrong with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderFault {
    /// Fewer than 19 bytes.
    #[error("an event's header has 19 bytes, {0} are there")]
    Short(usize),
    /// A size that does not even hold the header.
    #[error("an event of {0} bytes cannot hold its own header")]
    Size(u32),
}

impl EventHeader {
    /// Bytes of a header.
    pub const LEN: usize = 19;

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Too few bytes; a size below the header's own.
    pub fn decode(bytes: &[u8]) -> Result<EventHeader, HeaderFault> {
        let Some(head) = bytes.first_chunk::<{ EventHeader::LEN }>() else {
            return Err(HeaderFault::Short(bytes.len()));
        };
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let header = EventHeader {
            timestamp: word(0),
            kind: Kind(head[4]),
            server_id: word(5),
            size: word(9),
            log_pos: word(13),
            flags: u16::from_le_bytes([head[17], head[18]]),
        };
        match header.size as usize {
            size if size < EventHeader::LEN => Err(HeaderFault::Size(header.size)),
            _ => Ok(header),
        }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; EventHeader::LEN] {
        let mut head = [0; EventHeader::LEN];
        head[0..4].copy_from_slice(&self.timestamp.to_le_bytes());
        head[4] = self.kind.0;
        head[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        head[9..13].copy_from_slice(&self.size.to_le_bytes());
        head[13..17].copy_from_slice(&self.log_pos.to_le_bytes());
        head[17..19].copy_from_slice(&self.flags.to_le_bytes());
        head
    }

    /// Made for a connection (a fake ROTATE, a heartbeat, an artificial GTID_LIST): it stands in no file.
    ///
    /// `format_description` events sent in the middle of a file have `log_pos` 0 without the flag.
    pub fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0
            || self.log_pos == 0
            || matches!(self.kind, Kind::HEARTBEAT | Kind::HEARTBEAT_V2)
    }
}
