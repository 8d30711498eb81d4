//! A body on its way from one connection to another: which of the bytes that arrive go on as they are.

use super::chunked::{Chunks, Kind};
use super::fault::BadMessage;
use super::framing::Framing;
use crate::http::Fields;

/// What to do with the bytes at hand: pass on the first `send`, forget the next `skip`, then ask again with the rest.
/// Both 0: more must arrive, or the body is done. More may be left than both: ask again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Bytes from the start that go to the other side as they are.
    pub send: usize,
    /// Bytes after them that do not.
    pub skip: usize,
    /// How many of the bytes to send are the body's own, not the framing of chunks.
    pub data: usize,
}

/// A body that is relayed. Nothing is copied: chunks that stay chunks are passed on with their sizes, but for
/// extensions and leading zeros; for a peer without chunks the framing is left out.
#[derive(Clone, Debug)]
pub struct Body {
    reader: Reader,
    to_chunks: bool,
    /// Whoever sends it must put it into chunks.
    wraps: bool,
    /// The other side gets nothing of it.
    drops: bool,
    payload: u64,
}

#[derive(Clone, Debug)]
enum Reader {
    Length(u64),
    Chunked(Chunks),
    UntilClose { closed: bool },
}

impl Body {
    /// A body that arrives framed as `incoming` and leaves as `outgoing`: the same, [`Framing::UntilClose`], chunks
    /// (see [`Body::wraps`]) or [`Framing::None`] (it is read, and forgotten).
    pub fn new(incoming: Framing, outgoing: Framing) -> Body {
        let reader = match incoming {
            Framing::None => Reader::Length(0),
            Framing::Length(length) => Reader::Length(length),
            Framing::Chunked => Reader::Chunked(Chunks::default()),
            Framing::UntilClose => Reader::UntilClose { closed: false },
        };
        let to_chunks = outgoing == Framing::Chunked;
        let wraps = to_chunks && incoming != Framing::Chunked;
        Body { reader, to_chunks, wraps, drops: outgoing == Framing::None, payload: 0 }
    }

    /// Bytes to send have to be put into chunks ([`write_chunk`]): they arrived without.
    pub fn wraps(&self) -> bool {
        self.wraps
    }

    /// Reads on. `input` are the bytes behind those of the step before; bytes behind the body are not touched.
    ///
    /// # Errors
    /// Broken chunks or trailers, with the place in `input`. Nothing more can be read from that connection, and what
    /// was sent to the other side must not be ended properly.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BadMessage> {
        match &mut self.reader {
            Reader::Length(left) => {
                let send = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= send as u64;
                self.payload += send as u64;
                Ok(plain(send, self.drops))
            }
            Reader::UntilClose { closed } => {
                let send = if *closed { 0 } else { input.len() };
                self.payload += send as u64;
                Ok(plain(send, self.drops))
            }
            Reader::Chunked(chunks) => {
                let mut step = Step::default();
                while let Some(first) = input.get(step.send + step.skip) {
                    let kind = chunks.kind(*first);
                    let passes = !self.drops && (kind == Kind::Data || kind == Kind::Frame && self.to_chunks);
                    let at = step.send + step.skip;
                    if passes && step.skip > 0 {
                        break;
                    }
                    let len =
                        chunks.run(&input[at..]).map_err(|bad| BadMessage { at: bad.at + at, ..bad })?;
                    if kind == Kind::Data {
                        self.payload += len as u64;
                    }
                    match (len, passes) {
                        (0, _) => break,
                        (_, true) => {
                            step.send += len;
                            step.data += if kind == Kind::Data { len } else { 0 };
                        }
                        (_, false) => step.skip += len,
                    }
                }
                Ok(step)
            }
        }
    }

    /// All of it has arrived.
    pub fn is_done(&self) -> bool {
        match &self.reader {
            Reader::Length(left) => *left == 0,
            Reader::Chunked(chunks) => chunks.is_done(),
            Reader::UntilClose { closed } => *closed,
        }
    }

    /// The connection it came from was closed: whether all of it has arrived.
    pub fn close(&mut self) -> bool {
        if let Reader::UntilClose { closed } = &mut self.reader {
            *closed = true;
        }
        self.is_done()
    }

    /// Bytes of data that have arrived, without what frames them.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Bytes that are still to come, when that is known.
    pub fn left(&self) -> Option<u64> {
        match &self.reader {
            Reader::Length(left) => Some(*left),
            Reader::Chunked(chunks) => chunks.is_done().then_some(0),
            Reader::UntilClose { closed } => closed.then_some(0),
        }
    }

    /// Fields that came after the last chunk.
    pub fn trailers(&self) -> Option<&Fields> {
        match &self.reader {
            Reader::Chunked(chunks) => chunks.trailers(),
            _ => None,
        }
    }

    /// Appends what ends the body on the other side, once it is done: the last chunk and the trailers, for a peer
    /// that is sent chunks.
    pub fn write_end(&self, out: &mut Vec<u8>) {
        if self.to_chunks {
            out.extend_from_slice(b"0\r\n");
            if let Some(trailers) = self.trailers() {
                trailers.write_to(out);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A step over bytes that are all body.
fn plain(count: usize, drops: bool) -> Step {
    match drops {
        true => Step { send: 0, skip: count, data: 0 },
        false => Step { send: count, skip: 0, data: count },
    }
}

/// Appends a chunk of a body that this proxy makes itself. Nothing for no data: an empty chunk would end the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789ABCDEF"[data.len() >> (place * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
