//! A binary log file, in pieces of any size, to its events: where each begins and ends, that it follows the one before,
//! that its bytes are the ones that the server summed.
//!
//! Memory: a header and the beginning of one body, never a whole event (they may have gigabytes).

use super::format::{Checksum, FORMAT_MAX, FormatDescription, FormatFault};
use super::header::{CHECKSUM_LEN, EventHeader, HeaderFault, Kind, MAGIC};
use thiserror::Error;

/// Most bytes of a body that are kept.
pub const KEPT_MAX: usize = 64 * 1024;
/// The same for the lists of GTIDs at a file's beginning: 65,536 intervals.
pub const KEPT_LIST_MAX: usize = 1024 * 1024;

/// One event of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// Offset of its header in the file.
    pub start: u64,
    /// Its header.
    pub header: EventHeader,
    /// Its body without checksum, at most `KEPT_MAX` bytes of it (`KEPT_LIST_MAX` for lists of GTIDs). Kept for the
    /// kinds that `event` decodes, empty for all others.
    pub body: &'a [u8],
    /// Nothing of the body is missing.
    pub complete: bool,
}

impl Event<'_> {
    /// Offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.header.size)
    }
}

/// Why bytes are not those of a binary log file. Offsets are where the event begins.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ScanFault {
    /// The first four bytes.
    #[error("this is no binary log: it does not begin with fe 62 69 6e")]
    Magic,
    /// A header that cannot be.
    #[error("the event at {at}: {fault}")]
    Header {
        /// Where.
        at: u64,
        /// What.
        fault: HeaderFault,
    },
    /// The size has no room for the checksum.
    #[error("the event at {at} has {size} bytes: too few for its checksum")]
    Size {
        /// Where.
        at: u64,
        /// Bytes.
        size: u32,
    },
    /// No format description where there must be one.
    #[error("the first event: {0}")]
    Format(FormatFault),
    /// A format description where there must be none.
    #[error("a second format description at {at}: no server writes that")]
    SecondFormat {
        /// Where.
        at: u64,
    },
    /// The file's events do not follow each other: something is missing or from elsewhere.
    #[error(
        "the event at {at} of {size} bytes says that it ends at {log_pos}: bytes are missing or were added"
    )]
    LogPos {
        /// Where.
        at: u64,
        /// Bytes.
        size: u32,
        /// What its header says.
        log_pos: u32,
    },
    /// Bytes changed.
    #[error("the checksum of the event at {at} (kind {}) is wrong: its bytes changed", kind.0)]
    Checksum {
        /// Where.
        at: u64,
        /// Its kind.
        kind: Kind,
    },
    /// `encrypt_binlog`.
    #[error("from {at} on the binary log is encrypted (encrypt_binlog): it cannot be kept byte for byte")]
    Encrypted {
        /// Where the START_ENCRYPTION event stands.
        at: u64,
    },
}

/// Reads one file.
#[derive(Clone, Debug)]
pub struct FileScan {
    /// Bytes taken so far, from the file's beginning.
    position: u64,
    /// Where the event that is being read begins.
    start: u64,
    head: [u8; EventHeader::LEN],
    header: Option<EventHeader>,
    kept: Vec<u8>,
    sum: crc32fast::Hasher,
    tail: [u8; CHECKSUM_LEN],
    checksum: Checksum,
    format: Option<FormatDescription>,
    fault: Option<ScanFault>,
}

impl Default for FileScan {
    fn default() -> FileScan {
        FileScan::new()
    }
}

impl FileScan {
    /// A file from its first byte.
    pub fn new() -> FileScan {
        FileScan {
            position: 0,
            start: 0,
            head: [0; EventHeader::LEN],
            header: None,
            kept: Vec::new(),
            sum: crc32fast::Hasher::new(),
            tail: [0; CHECKSUM_LEN],
            checksum: Checksum::None,
            format: None,
            fault: None,
        }
    }

    /// A file from `offset` on, where an event begins (or will: the end of the file).
    pub fn resume(offset: u64, format: &FormatDescription) -> FileScan {
        let mut scan = FileScan::new();
        scan.position = offset;
        scan.start = offset;
        scan.checksum = format.checksum;
        scan.format = Some(format.clone());
        scan
    }

    /// Bytes taken so far, counted from the file's beginning.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// End of the last whole event: where the file may be cut. 0 before the file's first four bytes are there.
    pub fn boundary(&self) -> u64 {
        self.start
    }

    /// Nothing is begun: the file may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.fault.is_none() && self.position == self.start && self.start != 0
    }

    /// The file's format, once its event has been read.
    pub fn format(&self) -> Option<&FormatDescription> {
        self.format.as_ref()
    }

    /// Takes of `bytes` what belongs to the event that is being read and says when it is complete; `None` when all is
    /// taken. To be called until it is.
    ///
    /// # Errors
    ///
    /// These are not the bytes of a file; the same again at each further call.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event<'_>>, ScanFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        match self.step(bytes) {
            Ok(None) => Ok(None),
            Ok(Some(header)) => {
                let start = self.start;
                self.start = self.position;
                let body = header.size as usize - EventHeader::LEN - self.checksum_of(header.kind).len();
                let complete = is_kept(header.kind) && self.kept.len() >= body;
                let body = &self.kept[..self.kept.len().min(body)];
                Ok(Some(Event { start, header, body, complete }))
            }
            Err(fault) => {
                self.fault = Some(fault.clone());
                Err(fault)
            }
        }
    }

    fn step(&mut self, bytes: &mut &[u8]) -> Result<Option<EventHeader>, ScanFault> {
        while self.position < MAGIC.len() as u64 {
            let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
            if *byte != MAGIC[self.position as usize] {
                return Err(ScanFault::Magic);
            }
            *bytes = rest;
            self.position += 1;
            if self.position == MAGIC.len() as u64 {
                self.start = self.position;
            }
        }
        let header = match self.header {
            Some(header) => header,
            None => match self.read_header(bytes)? {
                Some(header) => *self.header.insert(header),
                None => return Ok(None),
            },
        };
        self.read_body(header, bytes);
        if self.position < self.start + u64::from(header.size) {
            return Ok(None);
        }
        self.header = None;
        self.finish(header)?;
        Ok(Some(header))
    }

    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<Option<EventHeader>, ScanFault> {
        let have = (self.position - self.start) as usize;
        let (taken, rest) = bytes.split_at(bytes.len().min(EventHeader::LEN - have));
        self.head[have..have + taken.len()].copy_from_slice(taken);
        *bytes = rest;
        self.position += taken.len() as u64;
        if have + taken.len() < EventHeader::LEN {
            return Ok(None);
        }
        let at = self.start;
        let header = EventHeader::decode(&self.head).map_err(|fault| ScanFault::Header { at, fault })?;
        let is_format = header.kind == Kind::FORMAT_DESCRIPTION;
        match (&self.format, is_format) {
            (Some(_), true) => return Err(ScanFault::SecondFormat { at }),
            (None, false) => return Err(ScanFault::Format(FormatFault::Kind(header.kind))),
            (None, true) if header.size as usize > FORMAT_MAX => {
                return Err(ScanFault::Format(FormatFault::Length(header.size as usize)));
            }
            _ => {}
        }
        let size = header.size;
        if (size as usize) < EventHeader::LEN + self.checksum_of(header.kind).len() {
            return Err(ScanFault::Size { at, size });
        }
        // Offsets in headers have 32 bits; files of more than 4 GiB are legal.
        if u64::from(header.log_pos) != (at + u64::from(size)) & u64::from(u32::MAX) {
            return Err(ScanFault::LogPos { at, size, log_pos: header.log_pos });
        }
        self.kept.clear();
        self.sum = crc32fast::Hasher::new();
        self.sum.update(&self.head);
        Ok(Some(header))
    }

    /// How the event itself is summed. A format description checks its own sum.
    fn checksum_of(&self, kind: Kind) -> Checksum {
        if kind == Kind::FORMAT_DESCRIPTION { Checksum::None } else { self.checksum }
    }

    fn read_body(&mut self, header: EventHeader, bytes: &mut &[u8]) {
        let end = self.start + u64::from(header.size);
        let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        let (taken, rest) = bytes.split_at(bytes.len().min(left));
        *bytes = rest;
        if is_kept(header.kind) {
            let room = kept_max(header.kind).saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&taken[..taken.len().min(room)]);
        }
        // The last bytes are the sum itself, wherever the pieces are cut.
        let sum_start = end - self.checksum_of(header.kind).len() as u64;
        let summed =
            usize::try_from(sum_start.saturating_sub(self.position)).unwrap_or(usize::MAX).min(taken.len());
        self.sum.update(&taken[..summed]);
        let at = (self.position + summed as u64).saturating_sub(sum_start) as usize;
        self.tail[at..at + taken.len() - summed].copy_from_slice(&taken[summed..]);
        self.position += taken.len() as u64;
    }

    fn finish(&mut self, header: EventHeader) -> Result<(), ScanFault> {
        let at = self.start;
        match header.kind {
            Kind::FORMAT_DESCRIPTION => {
                let event = [&self.head[..], &self.kept].concat();
                let format = FormatDescription::decode(&event).map_err(ScanFault::Format)?;
                self.checksum = format.checksum;
                self.format = Some(format);
                return Ok(());
            }
            Kind::START_ENCRYPTION => return Err(ScanFault::Encrypted { at }),
            _ => {}
        }
        if self.checksum == Checksum::Crc32 && self.sum.clone().finalize().to_le_bytes() != self.tail {
            return Err(ScanFault::Checksum { at, kind: header.kind });
        }
        Ok(())
    }
}

/// The kinds whose bodies mean something here.
fn is_kept(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::QUERY
            | Kind::ROTATE
            | Kind::FORMAT_DESCRIPTION
            | Kind::GTID
            | Kind::ANONYMOUS_GTID
            | Kind::PREVIOUS_GTIDS
            | Kind::XA_PREPARE
            | Kind::MARIA_GTID
            | Kind::GTID_LIST
    )
}

fn kept_max(kind: Kind) -> usize {
    // With the checksum, so that a body of just the limit is complete.
    let max = if matches!(kind, Kind::PREVIOUS_GTIDS | Kind::GTID_LIST) { KEPT_LIST_MAX } else { KEPT_MAX };
    max + CHECKSUM_LEN
}
