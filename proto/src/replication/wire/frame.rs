//! Frames: bytes in, frames out, bounded.

use super::WireError;
use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of length and kind before the payload.
pub const HEADER: usize = 5;
/// Set in the kind byte when the payload is compressed; the transport does that.
const COMPRESSED: u8 = 0x80;
/// Payload space is made in steps, so that a length alone costs little memory. A message of chunks fits the first.
const STEP: usize = 1024 * 1024 + 256 * 1024;

/// Who the payload is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// A `ToBackup` message.
    ToBackup,
    /// A `ToPrimary` message.
    ToPrimary,
    /// A `Pairing` message.
    Pairing,
    /// A `ToArchive` message.
    ToArchive,
    /// A `ToSource` message.
    ToSource,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            FrameKind::ToBackup => 1,
            FrameKind::ToPrimary => 2,
            FrameKind::Pairing => 3,
            FrameKind::ToArchive => 4,
            FrameKind::ToSource => 5,
        }
    }

    fn parse(byte: u8) -> Result<(FrameKind, bool), WireError> {
        let kind = match byte & !COMPRESSED {
            1 => FrameKind::ToBackup,
            2 => FrameKind::ToPrimary,
            3 => FrameKind::Pairing,
            4 => FrameKind::ToArchive,
            5 => FrameKind::ToSource,
            _ => return Err(WireError::UnknownKind { kind: byte }),
        };
        Ok((kind, byte & COMPRESSED != 0))
    }
}

/// One frame as received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Direction.
    pub kind: FrameKind,
    /// The payload is compressed (by the transport, which also decompresses it).
    pub compressed: bool,
    /// Payload.
    pub payload: Bytes,
}

/// What goes before a payload of `payload_len` bytes.
pub fn header(kind: FrameKind, compressed: bool, payload_len: usize) -> Result<[u8; HEADER], WireError> {
    if payload_len >= super::MAX_FRAME {
        return Err(WireError::TooLong { length: payload_len as u64 + 1, limit: super::MAX_FRAME });
    }
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(&(payload_len as u32 + 1).to_be_bytes());
    out[4] = kind.byte() | if compressed { COMPRESSED } else { 0 };
    Ok(out)
}

/// Puts frames together from pieces of any size. Read into [`FrameAssembler::space`], then take what is complete with
/// [`FrameAssembler::filled`]; or give bytes to [`FrameAssembler::push`].
#[derive(Debug)]
pub struct FrameAssembler {
    limit: usize,
    /// The payload's kind and length, once the header is complete.
    expected: Option<(FrameKind, bool, usize)>,
    /// The header, then the payload.
    buffer: BytesMut,
}

impl FrameAssembler {
    /// Refuses frames whose kind and payload are longer than `limit`.
    pub fn new(limit: usize) -> FrameAssembler {
        FrameAssembler { limit, expected: None, buffer: BytesMut::new() }
    }

    /// Changes the limit, from the next frame on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// True between frames: the stream may end here.
    pub fn is_idle(&self) -> bool {
        self.expected.is_none() && self.buffer.is_empty()
    }

    /// Where the next bytes belong: never full, never past the frame's end.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        let missing = match self.expected {
            None => HEADER - self.buffer.len(),
            Some((_, _, length)) => length - self.buffer.len(),
        };
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(missing.min(STEP.max(self.buffer.len())));
        }
        let room = missing.min(self.buffer.capacity() - self.buffer.len());
        (&mut self.buffer).limit(room)
    }

    /// Something was put into [`FrameAssembler::space`]. After an error the stream is of no use.
    pub fn filled(&mut self) -> Result<Option<Frame>, WireError> {
        let (kind, compressed, length) = match self.expected {
            Some(expected) => expected,
            None => {
                // A bad length is refused as soon as it is there.
                let Some(length) =
                    self.buffer.first_chunk().map(|length| u32::from_be_bytes(*length) as usize)
                else {
                    return Ok(None);
                };
                if length == 0 {
                    return Err(WireError::Empty);
                }
                if length > self.limit {
                    return Err(WireError::TooLong { length: length as u64, limit: self.limit });
                }
                let Some(kind) = self.buffer.get(HEADER - 1) else { return Ok(None) };
                let (kind, compressed) = FrameKind::parse(*kind)?;
                self.buffer.clear();
                *self.expected.insert((kind, compressed, length - 1))
            }
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.expected = None;
        let payload = std::mem::take(&mut self.buffer).freeze();
        Ok(Some(Frame { kind, compressed, payload }))
    }

    /// Takes bytes from the front of `bytes` (which is moved on) until a frame is complete or they are used up.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, WireError> {
        while !bytes.is_empty() {
            let mut space = self.space();
            let (now, later) = bytes.split_at(space.remaining_mut().min(bytes.len()));
            space.put_slice(now);
            *bytes = later;
            if let Some(frame) = self.filled()? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}
