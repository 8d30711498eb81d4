//! The event stream of a server as bytes of its files: what is shipped, in order. Pure.
//!
//! What the server made for this connection (artificial events, heartbeats, the format description of a start in the
//! middle of a file) is not shipped; what stands in the file goes through a `FileScan`, so that checksums and positions
//! are checked before anything counts as received. No event is held whole, but for a format description and a ROTATE.

use super::ship::{Ship, StreamFault};
use bytes::BytesMut;
use ehpc_proto::binlog::event::Rotate;
use ehpc_proto::binlog::format::FORMAT_MAX;
use ehpc_proto::binlog::header::{CHECKSUM_LEN, FLAG_IN_USE, MAGIC};
use ehpc_proto::binlog::{
    EventHeader, FileScan, Flavor, FormatDescription, Grouper, GtidState, Kind, ScanFault,
};
use ehpc_proto::mysql::MAX_RESPONSE;
use ehpc_proto::mysql::command::SEMI_SYNC_MAGIC;
use ehpc_proto::mysql::packet::Piece;
use ehpc_proto::mysql::response::ServerError;
use ehpc_proto::replication::database::{MAX_PIECE, name_is_valid};

/// First byte of a file's first event.
pub const FIRST_EVENT: u64 = MAGIC.len() as u64;
/// Longest event that is kept whole: a format description, a ROTATE.
const KEEP_MAX: usize = if FORMAT_MAX > 512 { FORMAT_MAX } else { 512 };
/// Status byte, semi-sync prefix, header.
const HEAD_MAX: usize = 3 + EventHeader::LEN;

/// What an event is to us.
#[derive(Debug)]
enum Class {
    /// Its bytes are those of the file.
    Copy,
    /// Looked at when it is whole.
    Keep(Vec<u8>),
    /// Nothing of it is needed.
    Drop,
}

#[derive(Debug)]
struct Event {
    header: EventHeader,
    ack_wanted: bool,
    /// Bytes that came, header included.
    have: u64,
    class: Class,
}

/// A packet's first bytes.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; HEAD_MAX],
    have: usize,
}

impl Head {
    /// Takes bytes until `until` are there; whether they are.
    fn fill(&mut self, until: usize, bytes: &mut &[u8]) -> bool {
        let (now, later) = bytes.split_at(bytes.len().min(until.saturating_sub(self.have)));
        self.bytes[self.have..self.have + now.len()].copy_from_slice(now);
        self.have += now.len();
        *bytes = later;
        self.have >= until
    }
}

#[derive(Debug)]
enum State {
    Between,
    Head(Head),
    Event(Event),
    /// ERR or EOF.
    Word(Vec<u8>),
}

/// The stream of one connection.
#[derive(Debug)]
pub struct StreamSession {
    file: String,
    /// Where in the file the next event begins.
    offset: u64,
    /// What lies before it in this file is there already.
    ship_from: u64,
    /// The format description that the file must have.
    expected: Option<FormatDescription>,
    /// Reads what is shipped; `None` until the file's own format description has been seen.
    scan: Option<FileScan>,
    grouper: Grouper,
    /// Events have a prefix; `None`: the first one will tell.
    semi: Option<bool>,
    state: State,
    flavor: Option<Flavor>,
    batch: BytesMut,
    batch_at: u64,
    newest: u32,
    events: u64,
}

impl StreamSession {
    /// The stream of a dump that was asked for at [`StreamSession::dump_from`]. `offset`: bytes of `file` that are there
    /// already. `expected`: the file's format description, where it is known. `semi`: acknowledgements were offered.
    pub fn at(file: &str, offset: u64, expected: Option<FormatDescription>, semi: bool) -> StreamSession {
        StreamSession {
            file: file.to_owned(),
            offset: u64::from(Self::dump_from(offset)),
            ship_from: offset,
            expected,
            scan: None,
            grouper: Grouper::new(),
            semi: if semi { None } else { Some(false) },
            state: State::Between,
            flavor: None,
            batch: BytesMut::new(),
            batch_at: offset,
            newest: 0,
            events: 0,
        }
    }

    /// Where to ask the dump to begin so that bytes from `offset` on can be shipped: a dump names its place with 32
    /// bits; beyond that the file is read from its start.
    pub fn dump_from(offset: u64) -> u32 {
        u32::try_from(offset).unwrap_or(0).max(FIRST_EVENT as u32)
    }

    /// The file that the stream is in.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// End of the last whole event.
    pub fn end(&self) -> u64 {
        self.offset
    }

    /// Time of the newest event, seconds since 1970 by the server's clock; 0 before the first.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Whether the server wants acknowledgements; `None` until the first event.
    pub fn acknowledges(&self) -> Option<bool> {
        self.semi
    }

    /// Whether the file is the one that was asked for: its format description was seen.
    pub fn is_described(&self) -> bool {
        self.scan.is_some()
    }

    /// What happened before the file, once its list of GTIDs was read.
    pub fn initial(&self) -> Option<&GtidState> {
        self.grouper.initial()
    }

    /// Events of files that came since the start.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Takes what is new of a packet.
    pub fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        match piece {
            Piece::Start { first } => {
                self.state = State::Head(Head { bytes: [0; HEAD_MAX], have: 0 });
                self.feed(first, out)
            }
            Piece::More(bytes) => self.feed(bytes, out),
            Piece::End => self.packet_ends(out),
        }
    }

    /// What is collected goes out, because nothing more is there at the moment.
    pub fn flush(&mut self, out: &mut Vec<Ship>) {
        if !self.batch.is_empty() {
            let bytes = self.batch.split().freeze();
            let offset = self.batch_at;
            self.batch_at += bytes.len() as u64;
            out.push(Ship::Bytes { offset, bytes });
        }
    }

    /// After a fault: the same, up to the last whole event.
    pub fn flush_whole(&mut self, out: &mut Vec<Ship>) {
        self.batch.truncate(usize::try_from(self.offset.saturating_sub(self.batch_at)).unwrap_or(usize::MAX));
        self.flush(out);
    }

    fn damaged(&self, what: &'static str) -> StreamFault {
        StreamFault::Event { file: self.file.clone(), offset: self.offset, what }
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        if let State::Head(_) = self.state {
            self.head(&mut bytes, out)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.state {
            State::Event(_) => self.body(bytes, out),
            State::Word(word) if word.len() + bytes.len() <= MAX_RESPONSE => {
                word.extend_from_slice(bytes);
                Ok(())
            }
            _ => Err(StreamFault::Damaged("bytes that belong to no event")),
        }
    }

    /// Collects status byte, prefix and header.
    fn head(&mut self, bytes: &mut &[u8], out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        let State::Head(mut head) = self.state else { return Ok(()) };
        let mut whole = head.fill(1, bytes);
        if whole && head.bytes[0] != 0 {
            self.state = State::Word(vec![head.bytes[0]]);
            return Ok(());
        }
        if whole && self.semi.is_none() {
            // The first event is a fake ROTATE, whose time is 0: the prefix cannot be taken for it.
            whole = head.fill(2, bytes);
            if whole {
                self.semi = Some(head.bytes[1] == SEMI_SYNC_MAGIC);
            }
        }
        let prefix = if self.semi == Some(true) { 3 } else { 1 };
        whole = whole && head.fill(prefix + EventHeader::LEN, bytes);
        if !whole {
            self.state = State::Head(head);
            return Ok(());
        }
        if prefix == 3 && head.bytes[1] != SEMI_SYNC_MAGIC {
            return Err(StreamFault::Damaged("an event without the prefix that semi-sync has"));
        }
        let ack_wanted = prefix == 3 && head.bytes[2] & 1 != 0;
        self.event_begins(&head.bytes[prefix..prefix + EventHeader::LEN], ack_wanted, out)
    }

    fn event_begins(
        &mut self,
        head: &[u8],
        ack_wanted: bool,
        out: &mut Vec<Ship>,
    ) -> Result<(), StreamFault> {
        let header =
            EventHeader::decode(head).map_err(|_| self.damaged("its header is shorter than a header"))?;
        let class = match header.kind {
            Kind::START_ENCRYPTION => return Err(StreamFault::Encrypted),
            Kind::FORMAT_DESCRIPTION => Class::Keep(Vec::new()),
            Kind::ROTATE if header.is_artificial() => Class::Keep(Vec::new()),
            _ if header.is_artificial() => Class::Drop,
            _ if self.scan.is_none() => {
                return Err(self.damaged("the file's format description did not come before it"));
            }
            _ => Class::Copy,
        };
        if matches!(class, Class::Keep(_)) && header.size as usize > KEEP_MAX {
            return Err(self.damaged("it is too long for its kind"));
        }
        self.state = State::Event(Event { header, ack_wanted, have: 0, class });
        self.body(head, out)
    }

    fn body(&mut self, bytes: &[u8], out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        let State::Event(event) = &mut self.state else { return Ok(()) };
        let size = u64::from(event.header.size);
        let at = event.have;
        event.have += bytes.len() as u64;
        if event.have > size {
            return Err(self.damaged("it is longer than its header says"));
        }
        match &mut event.class {
            Class::Drop => Ok(()),
            Class::Keep(kept) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Class::Copy => {
                let place = self.offset + at;
                self.copy(place, bytes, out)
            }
        }
    }

    /// Bytes of the file: checked, and shipped where they are new.
    fn copy(&mut self, place: u64, bytes: &[u8], out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        self.ship(place, bytes, out);
        let Some(scan) = &mut self.scan else { return Ok(()) };
        let mut rest = bytes;
        loop {
            match scan.next(&mut rest) {
                Ok(None) => return Ok(()),
                Ok(Some(event)) => match self.grouper.event(&event) {
                    // Begun in the middle of a group, its rest looks like groups: MariaDB's have a GTID.
                    Ok(Some(group)) if group.gtid.is_some() || self.flavor == Some(Flavor::MySql) => {
                        if group.end > self.ship_from {
                            out.push(Ship::Group(group));
                        }
                    }
                    Ok(_) => {}
                    Err(fault) => return Err(StreamFault::Group { file: self.file.clone(), fault }),
                },
                Err(ScanFault::Encrypted { .. }) => return Err(StreamFault::Encrypted),
                Err(fault) => return Err(StreamFault::Scan { file: self.file.clone(), fault }),
            }
        }
    }

    /// Collects bytes of the file, in pieces of [`MAX_PIECE`].
    fn ship(&mut self, place: u64, bytes: &[u8], out: &mut Vec<Ship>) {
        let skipped = self.ship_from.saturating_sub(place).min(bytes.len() as u64) as usize;
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            if self.batch.capacity() == 0 {
                self.batch.reserve(MAX_PIECE);
            }
            let room = MAX_PIECE - self.batch.len();
            let (now, later) = rest.split_at(rest.len().min(room));
            self.batch.extend_from_slice(now);
            rest = later;
            if self.batch.len() == MAX_PIECE {
                self.flush(out);
            }
        }
    }

    fn packet_ends(&mut self, out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Event(event) if event.have == u64::from(event.header.size) => self.event_ends(event, out),
            State::Event(_) => Err(self.damaged("it is shorter than its header says")),
            State::Word(word) if word.first() == Some(&0xff) => {
                let error = ServerError::decode(&word);
                Err(error.map_or(StreamFault::Damaged("an error packet that is cut"), StreamFault::Server))
            }
            State::Word(word) if word.first() == Some(&0xfe) && word.len() < 9 => Err(StreamFault::Ended),
            State::Word(_) => Err(StreamFault::Damaged("a packet that is neither event, error nor EOF")),
            State::Between | State::Head(_) => {
                Err(StreamFault::Damaged("a packet that is too short for an event"))
            }
        }
    }

    fn event_ends(&mut self, event: Event, out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        match event.class {
            Class::Copy => {
                self.offset += u64::from(event.header.size);
                self.newest = event.header.timestamp;
                self.events += 1;
                if event.ack_wanted {
                    out.push(Ship::AckWanted { end: self.offset });
                }
                Ok(())
            }
            Class::Keep(bytes) if event.header.kind == Kind::ROTATE => self.rotated(&bytes, out),
            Class::Keep(bytes) => self.described(&event.header, &bytes, out),
            Class::Drop if matches!(event.header.kind, Kind::HEARTBEAT | Kind::HEARTBEAT_V2) => {
                out.push(Ship::Alive);
                Ok(())
            }
            Class::Drop => Ok(()),
        }
    }

    /// A fake ROTATE: the stream is in that file now.
    fn rotated(&mut self, event: &[u8], out: &mut Vec<Ship>) -> Result<(), StreamFault> {
        let rotate = fake_rotate(event).ok_or(StreamFault::Damaged("a ROTATE that names no file"))?;
        if rotate.next == self.file {
            return match rotate.position == self.offset || self.scan.is_none() {
                true => Ok(()),
                false => Err(StreamFault::Damaged("a ROTATE into the middle of the same file")),
            };
        }
        if self.scan.is_none() {
            return Err(StreamFault::AnotherFile { file: self.file.clone(), found: rotate.next });
        }
        if !name_is_valid(&rotate.next) || rotate.position != FIRST_EVENT {
            return Err(StreamFault::AnotherFile { file: self.file.clone(), found: rotate.next });
        }
        if self.offset < self.ship_from {
            return Err(StreamFault::Shorter { file: self.file.clone(), len: self.offset });
        }
        self.flush(out);
        out.push(Ship::Rotated { len: self.offset, next: rotate.next.clone() });
        self.file = rotate.next;
        self.offset = FIRST_EVENT;
        (self.ship_from, self.batch_at) = (0, 0);
        (self.scan, self.grouper, self.expected) = (None, Grouper::new(), None);
        Ok(())
    }

    /// A format description: the file's own, or a copy of it for a start in its middle.
    fn described(
        &mut self,
        header: &EventHeader,
        event: &[u8],
        out: &mut Vec<Ship>,
    ) -> Result<(), StreamFault> {
        let copy = header.log_pos == 0;
        let summed_anew = if copy { summed_anew(event) } else { event.to_vec() };
        let format = FormatDescription::decode(&summed_anew)
            .map_err(|_| self.damaged("it is no format description of version 4"))?;
        if self.scan.is_some() {
            return Err(self.damaged("a second format description"));
        }
        if let Some(expected) = &self.expected
            && !same_file(expected, &format)
        {
            return Err(StreamFault::AnotherServer { file: self.file.clone() });
        }
        self.flavor = Some(format.flavor());
        if copy {
            self.scan = Some(FileScan::resume(self.offset, &format));
            return match self.offset > FIRST_EVENT {
                true => Ok(()),
                false => Err(self.damaged("a copy of a format description at the start of the file")),
            };
        }
        if self.offset != FIRST_EVENT {
            return Err(self.damaged("a format description in the middle of the file"));
        }
        if self.ship_from == 0 {
            let mut first_event = [0; EventHeader::LEN];
            first_event.copy_from_slice(&event[..EventHeader::LEN]);
            first_event[EventHeader::LEN - 2] &= !(FLAG_IN_USE as u8);
            out.push(Ship::Begin { file: self.file.clone(), first_event });
        }
        self.scan = Some(FileScan::new());
        self.copy(0, &MAGIC, out)?;
        // The file on disk has the bit while it is open (and for ever, when its server was killed); the archive never.
        self.copy(FIRST_EVENT, format.with_in_use(false).bytes(), out)?;
        self.offset += u64::from(header.size);
        self.events += 1;
        Ok(())
    }
}

/// What a fake ROTATE says. It has a checksum when the file before it has them, and the first one of a connection may have
/// none although the connection has. `None`: it names no file.
pub fn fake_rotate(event: &[u8]) -> Option<Rotate> {
    let body_end = event.len().saturating_sub(CHECKSUM_LEN);
    let summed = body_end >= EventHeader::LEN
        && crc32fast::hash(&event[..body_end]).to_le_bytes() == event[body_end..];
    let event = if summed { &event[..body_end] } else { event };
    Rotate::decode(event.get(EventHeader::LEN..)?).ok()
}

/// A copy of a format description with a checksum that is right: with `binlog_checksum=NONE` a server changes the copy and
/// not its checksum.
fn summed_anew(event: &[u8]) -> Vec<u8> {
    let body = &event[..event.len().saturating_sub(CHECKSUM_LEN)];
    [body, &crc32fast::hash(body).to_le_bytes()].concat()
}

/// Whether two format descriptions are those of one file: who wrote it, and when. What differs between the original and
/// a copy sent in the middle (created, position, flags) does not count.
fn same_file(a: &FormatDescription, b: &FormatDescription) -> bool {
    let (first, second) = (a.header(), b.header());
    (first.timestamp, first.server_id, first.size) == (second.timestamp, second.server_id, second.size)
        && a.server_version == b.server_version
        && a.checksum == b.checksum
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
