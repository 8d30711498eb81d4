//! Packets: a length of 3 bytes, a sequence number of 1, the payload. A payload of 0xffffff bytes or more goes out in
//! parts, all but the last of exactly 0xffffff bytes.
//!
//! [`Assembler`] gives whole packets, bounded, for the conversation; [`StreamAssembler`] gives a packet's bytes as they
//! arrive, for the event stream, where one packet may be a gigabyte.
//!
//! Sequence numbers: a packet's parts must count on in both. From packet to packet only the conversation counts
//! ([`Packet::first`]): in the event stream the server starts again at 1 after each semi-sync acknowledgement.
//!
//! Source: "0 - Packet" of MariaDB's knowledge base.

/// Length and sequence number, bytes.
pub const HEADER: usize = 4;
/// Payload of a part that is not the last.
pub const MAX_PART: usize = 0xff_ffff;

/// Why bytes are no packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    /// More than the receiver takes; nothing was allocated for it.
    #[error("a packet of {length} bytes or more, at most {limit} allowed here")]
    TooLong {
        /// Bytes known so far.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The number does not follow.
    #[error("packet number {found} where {expected} belongs")]
    OutOfOrder {
        /// What should have come.
        expected: u8,
        /// What came.
        found: u8,
    },
}

/// A part's payload length and sequence number.
pub fn header(bytes: [u8; HEADER]) -> (usize, u8) {
    let [a, b, c, sequence] = bytes;
    (u32::from_le_bytes([a, b, c, 0]) as usize, sequence)
}

/// Appends `payload` as a packet, in parts where needed. `sequence` is the number of the first part and becomes that of
/// whatever follows.
pub fn write_packet(out: &mut Vec<u8>, sequence: &mut u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (part, after) = rest.split_at(rest.len().min(MAX_PART));
        out.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
        out.push(*sequence);
        out.extend_from_slice(part);
        *sequence = sequence.wrapping_add(1);
        rest = after;
        if part.len() < MAX_PART {
            return;
        }
    }
}

/// One whole packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Sequence number of its first part.
    pub first: u8,
    /// Sequence number of its last part; what is said next has the number after it.
    pub last: u8,
    /// The parts' payloads, joined.
    pub payload: Vec<u8>,
}

/// A part's header as it arrives.
#[derive(Clone, Copy, Default, Debug)]
struct Head {
    bytes: [u8; HEADER],
    have: usize,
}

impl Head {
    /// Takes bytes; the header once it is whole.
    fn feed(&mut self, bytes: &mut &[u8]) -> Option<(usize, u8)> {
        let take = bytes.len().min(HEADER - self.have);
        let (now, later) = bytes.split_at(take);
        self.bytes[self.have..self.have + take].copy_from_slice(now);
        self.have += take;
        *bytes = later;
        if self.have < HEADER {
            return None;
        }
        self.have = 0;
        Some(header(self.bytes))
    }
}

/// Whole packets, each at most `limit` bytes.
#[derive(Clone, Debug)]
pub struct Assembler {
    limit: usize,
    head: Head,
    /// The part being read: bytes that are missing, and whether another part follows it.
    part: Option<(usize, bool)>,
    /// First and last sequence number of the packet being read.
    numbers: Option<(u8, u8)>,
    payload: Vec<u8>,
}

impl Assembler {
    /// Packets of at most `limit` bytes.
    pub fn new(limit: usize) -> Assembler {
        Assembler { limit, head: Head::default(), part: None, numbers: None, payload: Vec::new() }
    }

    /// From now on this is the limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// No packet has begun that is not finished.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_none() && self.head.have == 0
    }

    /// Takes bytes up to a packet's end; the packet once it is whole. Call again with what is left of `bytes`.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Packet>, PacketError> {
        loop {
            let (missing, more) = match self.part {
                Some(part) => part,
                None => match self.head.feed(bytes) {
                    Some((length, number)) => self.begin_part(length, number)?,
                    None => return Ok(None),
                },
            };
            let take = missing.min(bytes.len());
            let (now, later) = bytes.split_at(take);
            self.payload.extend_from_slice(now);
            *bytes = later;
            if take < missing {
                self.part = Some((missing - take, more));
                return Ok(None);
            }
            self.part = None;
            if !more && let Some((first, last)) = self.numbers.take() {
                return Ok(Some(Packet { first, last, payload: std::mem::take(&mut self.payload) }));
            }
        }
    }

    fn begin_part(&mut self, length: usize, number: u8) -> Result<(usize, bool), PacketError> {
        let first = match self.numbers {
            Some((first, last)) => {
                follows(last, number)?;
                first
            }
            None => number,
        };
        self.numbers = Some((first, number));
        let total = self.payload.len() + length;
        if total > self.limit {
            return Err(PacketError::TooLong { length: total, limit: self.limit });
        }
        let part = (length, length == MAX_PART);
        self.part = Some(part);
        Ok(part)
    }
}

fn follows(last: u8, number: u8) -> Result<(), PacketError> {
    let expected = last.wrapping_add(1);
    if number == expected { Ok(()) } else { Err(PacketError::OutOfOrder { expected, found: number }) }
}

/// What is new of a packet whose parts are joined silently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// A packet begins; its first bytes, as many as are there (none only when the packet is empty).
    Start {
        /// The bytes.
        first: &'a [u8],
    },
    /// More of the packet; never empty.
    More(&'a [u8]),
    /// The packet is complete.
    End,
}

/// Packets in pieces: holds four bytes of header and nothing else, whatever a packet's length.
#[derive(Clone, Default, Debug)]
pub struct StreamAssembler {
    head: Head,
    state: StreamState,
}

#[derive(Clone, Copy, Default, Debug)]
enum StreamState {
    /// At a packet's first header.
    #[default]
    Between,
    /// In a part.
    Part {
        /// `Start` was given.
        started: bool,
        /// Bytes of this part that have not come.
        missing: usize,
        /// Another part follows.
        more: bool,
        /// Of this part.
        number: u8,
    },
    /// At the header of a further part.
    Continued {
        /// `Start` was given.
        started: bool,
        /// Of the part before.
        number: u8,
    },
}

impl StreamAssembler {
    /// At the start of a packet.
    pub fn new() -> StreamAssembler {
        StreamAssembler::default()
    }

    /// Between two packets: a connection that ends here lost nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self.state, StreamState::Between) && self.head.have == 0
    }

    /// Takes bytes off the front of `bytes`; `None` when more are needed.
    pub fn push<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, PacketError> {
        loop {
            match self.state {
                StreamState::Between => {
                    let Some((length, number)) = self.head.feed(bytes) else { return Ok(None) };
                    self.state = part(false, length, number);
                }
                StreamState::Continued { started, number: before } => {
                    let Some((length, number)) = self.head.feed(bytes) else { return Ok(None) };
                    follows(before, number)?;
                    self.state = part(started, length, number);
                }
                StreamState::Part { started: false, missing: 0, more: false, number } => {
                    self.state = StreamState::Part { started: true, missing: 0, more: false, number };
                    return Ok(Some(Piece::Start { first: &[] }));
                }
                StreamState::Part { missing: 0, more: false, .. } => {
                    self.state = StreamState::Between;
                    return Ok(Some(Piece::End));
                }
                StreamState::Part { started, missing: 0, more: true, number } => {
                    self.state = StreamState::Continued { started, number };
                }
                StreamState::Part { started, missing, more, number } => {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let (now, later) = bytes.split_at(missing.min(bytes.len()));
                    *bytes = later;
                    self.state =
                        StreamState::Part { started: true, missing: missing - now.len(), more, number };
                    return Ok(Some(if started { Piece::More(now) } else { Piece::Start { first: now } }));
                }
            }
        }
    }
}

fn part(started: bool, length: usize, number: u8) -> StreamState {
    StreamState::Part { started, missing: length, more: length == MAX_PART, number }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
