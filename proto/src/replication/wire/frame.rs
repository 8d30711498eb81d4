//! Frames: bytes in, frames out, bounded.

use super::WireError;

/// Bytes of length and kind before the payload.
pub const HEADER: usize = 5;
/// Set in the kind byte when the payload is compressed; the transport does that.
const COMPRESSED: u8 = 0x80;
/// Payload space is made in steps, so that a length alone costs little memory.
const STEP: usize = 256 * 1024;

/// Who the payload is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// A `ToBackup` message.
    ToBackup,
    /// A `ToPrimary` message.
    ToPrimary,
    /// A `Pairing` message.
    Pairing,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            FrameKind::ToBackup => 1,
            FrameKind::ToPrimary => 2,
            FrameKind::Pairing => 3,
        }
    }

    fn parse(byte: u8) -> Result<(FrameKind, bool), WireError> {
        let kind = match byte & !COMPRESSED {
            1 => FrameKind::ToBackup,
            2 => FrameKind::ToPrimary,
            3 => FrameKind::Pairing,
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
    pub payload: Vec<u8>,
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

/// Puts frames together from pieces of any size. Read into [`FrameAssembler::space`], then say how much came with
/// [`FrameAssembler::filled`]; or give bytes to [`FrameAssembler::push`].
#[derive(Debug)]
pub struct FrameAssembler {
    limit: usize,
    head: [u8; HEADER],
    head_len: usize,
    /// Length of the payload to come, once the header is complete.
    expected: usize,
    payload: Vec<u8>,
    payload_len: usize,
}

impl FrameAssembler {
    /// Refuses frames whose kind and payload are longer than `limit`.
    pub fn new(limit: usize) -> FrameAssembler {
        FrameAssembler {
            limit,
            head: [0; HEADER],
            head_len: 0,
            expected: 0,
            payload: Vec::new(),
            payload_len: 0,
        }
    }

    /// Changes the limit, from the next frame on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// True between frames: the stream may end here.
    pub fn is_idle(&self) -> bool {
        self.head_len == 0
    }

    /// Where the next bytes belong; never empty, never past the frame's end.
    pub fn space(&mut self) -> &mut [u8] {
        if self.head_len < HEADER {
            return &mut self.head[self.head_len..];
        }
        if self.payload.len() == self.payload_len {
            let more = (self.expected - self.payload_len).min(STEP);
            self.payload.resize(self.payload_len + more, 0);
        }
        &mut self.payload[self.payload_len..]
    }

    /// `count` bytes were put at the start of [`FrameAssembler::space`]. After an error the stream is of no use.
    pub fn filled(&mut self, count: usize) -> Result<Option<Frame>, WireError> {
        if self.head_len < HEADER {
            self.head_len = (self.head_len + count).min(HEADER);
            // A bad length is refused as soon as it is there.
            if self.head_len >= 4 {
                let [a, b, c, d, _] = self.head;
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if length == 0 {
                    return Err(WireError::Empty);
                }
                if length > self.limit {
                    return Err(WireError::TooLong { length: length as u64, limit: self.limit });
                }
                self.expected = length - 1;
            }
            if self.head_len < HEADER {
                return Ok(None);
            }
            FrameKind::parse(self.head[4])?;
        } else {
            self.payload_len = (self.payload_len + count).min(self.payload.len());
        }
        if self.payload_len < self.expected {
            return Ok(None);
        }
        let (kind, compressed) = FrameKind::parse(self.head[4])?;
        let payload = std::mem::take(&mut self.payload);
        self.head_len = 0;
        self.payload_len = 0;
        self.expected = 0;
        Ok(Some(Frame { kind, compressed, payload }))
    }

    /// Takes bytes from the front of `bytes` (which is moved on) until a frame is complete or they are used up.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, WireError> {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            *bytes = &bytes[count..];
            if let Some(frame) = self.filled(count)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}
