//! The chunked transfer coding (RFC 9112 section 7.1), read strictly: CR LF only, sizes without sign or overflow,
//! extensions bounded and never passed on, trailers checked like the fields of a head.

use super::codes::is_blank;
use super::fault::{BadMessage, Fault};
use super::fields::{Line, Tolerance, read_line};
use crate::http::Fields;

/// Chunk sizes stay below this: no peer's 64-bit arithmetic wraps around.
const SIZE_END: u64 = 1 << 60;
/// Most bytes of one chunk's line.
const LINE_MAX: u32 = 4096;
/// Most bytes that chunk lines may have beyond what the data of the chunks is worth: a stream of single bytes with
/// long extensions costs its sender more than its reader.
const EXCESS_MAX: u64 = 16 * 1024;
/// Most bytes of a trailer section.
const TRAILERS_MAX: usize = 16 * 1024;
/// Most fields of a trailer section.
const TRAILER_FIELDS_MAX: usize = 100;

/// Fields that change how the message is framed, routed, who sent it or what its body is (RFC 9110 section 6.5.1),
/// or that belong to one hop.
const FORBIDDEN_TRAILERS: &[&[u8]] = &[
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// What a run of bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Body.
    Data,
    /// Sizes and line ends: worth passing on to a peer that is sent chunks.
    Frame,
    /// Leading zeros, blanks, extensions, the last chunk and the trailers: not passed on as they are.
    Noise,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before the first digit of a size that is not a zero.
    SizeStart {
        zeros: bool,
    },
    /// Inside the digits.
    Size(u64),
    /// Behind the digits: blanks, then an extension.
    AfterSize(u64),
    Extension(u64),
    /// LF of a chunk's line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    TrailerStart,
    TrailerLine,
    /// LF of the empty line.
    EndLf,
    Done,
}

/// Reader of one chunked body.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    state: State,
    line_len: u32,
    excess: u64,
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Debug, Default)]
struct Trailers {
    line: Vec<u8>,
    size: usize,
    fields: Fields,
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { state: State::SizeStart { zeros: false }, line_len: 0, excess: 0, trailers: None }
    }
}

impl Chunks {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().map(|trailers| &trailers.fields)
    }

    /// What the next run of bytes is, by its first byte.
    pub(super) fn kind(&self, first: u8) -> Kind {
        let frame = |frame| if frame { Kind::Frame } else { Kind::Noise };
        match self.state {
            State::Data(_) => Kind::Data,
            State::DataCr | State::DataLf => Kind::Frame,
            State::SizeStart { .. } => frame(first != b'0' && first.is_ascii_hexdigit()),
            State::Size(_) => frame(first == b'\r' || first.is_ascii_hexdigit()),
            State::AfterSize(size) | State::Extension(size) => frame(first == b'\r' && size > 0),
            State::SizeLf(size) => frame(size > 0),
            State::TrailerStart | State::TrailerLine | State::EndLf | State::Done => Kind::Noise,
        }
    }

    /// Takes a run of bytes of one kind from the start of `input`; how many. 0: `input` is empty or the body is done.
    /// Runs of the same kind may follow each other.
    pub(super) fn run(&mut self, input: &[u8]) -> Result<usize, BadMessage> {
        let Some(first) = input.first().copied() else { return Ok(0) };
        match self.state {
            State::Data(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - taken as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok(taken);
            }
            State::DataCr if first == b'\r' => self.state = State::DataLf,
            State::DataLf if first == b'\n' => {
                self.line_len = 0;
                self.state = State::SizeStart { zeros: false };
            }
            State::DataCr | State::DataLf => return Err(BadMessage::new(Fault::ChunkEnd, 0)),
            State::Done => return Ok(0),
            State::TrailerStart | State::TrailerLine | State::EndLf => return self.trailer(input, first),
            _ => self.state = self.size_line(first)?,
        }
        Ok(1)
    }

    /// One byte of a chunk's line.
    fn size_line(&mut self, byte: u8) -> Result<State, BadMessage> {
        let bad = |fault| Err(BadMessage::new(fault, 0));
        self.line_len += 1;
        if self.line_len > LINE_MAX {
            return bad(Fault::ChunkExtensionTooLarge);
        }
        match (self.state, byte) {
            (State::SizeStart { .. }, b'0') => Ok(State::SizeStart { zeros: true }),
            (State::SizeStart { zeros }, _) => match hexadecimal(byte) {
                Some(digit) => Ok(State::Size(digit)),
                None if zeros => after_size(0, byte),
                None => bad(Fault::ChunkSize),
            },
            (State::Size(size), _) => match hexadecimal(byte) {
                Some(digit) if size < SIZE_END >> 4 => Ok(State::Size(size << 4 | digit)),
                Some(_) => bad(Fault::ChunkSize),
                None => after_size(size, byte),
            },
            (State::AfterSize(size), _) => after_size(size, byte),
            (State::Extension(size), b'\r') => Ok(State::SizeLf(size)),
            (State::Extension(_), b'\n') => bad(Fault::BareLineFeed),
            (State::Extension(_), 0..=8 | 0x0b..0x20 | 0x7f) => bad(Fault::ChunkExtension),
            (State::Extension(size), _) => Ok(State::Extension(size)),
            (State::SizeLf(size), b'\n') => self.size_lf(size),
            _ => bad(Fault::BareCarriageReturn),
        }
    }

    fn size_lf(&mut self, size: u64) -> Result<State, BadMessage> {
        // A line is worth 16 bytes and twice what its chunk holds.
        let worth = size.saturating_mul(2).saturating_add(16);
        self.excess = (self.excess + u64::from(self.line_len)).saturating_sub(worth);
        if self.excess > EXCESS_MAX {
            return Err(BadMessage::new(Fault::ChunkExtensionTooLarge, 0));
        }
        Ok(if size == 0 { State::TrailerStart } else { State::Data(size) })
    }

    fn trailer(&mut self, input: &[u8], first: u8) -> Result<usize, BadMessage> {
        match (self.state, first) {
            (State::TrailerStart, b'\r') => {
                self.state = State::EndLf;
                return Ok(1);
            }
            (State::TrailerStart, b'\n') => return Err(BadMessage::new(Fault::BareLineFeed, 0)),
            (State::EndLf, b'\n') => {
                self.state = State::Done;
                return Ok(1);
            }
            (State::EndLf, _) => return Err(BadMessage::new(Fault::BareCarriageReturn, 0)),
            _ => {}
        }
        let trailers = self.trailers.get_or_insert_default();
        let end = input.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(input.len());
        trailers.size += taken;
        if trailers.size > TRAILERS_MAX {
            return Err(BadMessage::new(Fault::TooLarge, 0));
        }
        trailers.line.extend_from_slice(&input[..taken]);
        self.state = State::TrailerLine;
        if end.is_some() {
            trailers.read()?;
            self.state = State::TrailerStart;
        }
        Ok(taken)
    }
}

impl Trailers {
    /// Reads the line that is complete.
    fn read(&mut self) -> Result<(), BadMessage> {
        let here = |fault| BadMessage::new(fault, 0);
        let field = read_line(&self.line, 0, Tolerance::default(), &mut self.fields)
            .map_err(|bad| here(bad.fault))?;
        let (Line::Field { next, .. }, Some((name, _))) = (field, self.fields.last()) else {
            return Err(here(Fault::NoColon));
        };
        if next != self.line.len() {
            return Err(here(Fault::BareLineFeed));
        }
        if FORBIDDEN_TRAILERS.contains(&name) {
            return Err(here(Fault::ForbiddenTrailer));
        }
        if self.fields.len() > TRAILER_FIELDS_MAX {
            return Err(here(Fault::TooManyFields));
        }
        self.line.clear();
        Ok(())
    }
}

fn after_size(size: u64, byte: u8) -> Result<State, BadMessage> {
    match byte {
        b'\r' => Ok(State::SizeLf(size)),
        b';' => Ok(State::Extension(size)),
        b'\n' => Err(BadMessage::new(Fault::BareLineFeed, 0)),
        byte if is_blank(byte) => Ok(State::AfterSize(size)),
        _ => Err(BadMessage::new(Fault::ChunkSize, 0)),
    }
}

fn hexadecimal(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}
