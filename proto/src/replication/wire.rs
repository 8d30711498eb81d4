//! The encoding of the replication link: the only module that knows bincode, and its limits.
//!
//! A frame is `[length, u32 big endian][kind, u8][payload]`, where `length` counts kind and payload
//! ([`frame`]). A payload is one bincode message (standard configuration: little endian, variable-length
//! integers). The long byte strings of a [`ToBackup`] (chunks, pages, batches) and of a [`ToArchive`] (pieces of a binary
//! log) are not part of the bincode: their lengths (u32 big endian each) and then the strings themselves follow it, so that neither side copies them. Decoding
//! allocates in proportion to what is really there, refuses trailing bytes, and checks what the types cannot say
//! ([`check`]).

pub mod check;
pub mod check_database;
pub mod frame;

use super::database::{ToArchive, ToSource};
use super::message::{ToBackup, ToPrimary};
use super::pairing::Pairing;
use super::state::{Batch, Hash};
use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

pub use frame::{Frame, FrameAssembler, FrameKind};

/// Largest frame after its length: kind and payload, bytes.
pub const MAX_FRAME: usize = 8 * 1024 * 1024;
/// Largest encoded batch: fits a frame with its message around it.
pub const MAX_BATCH: usize = MAX_FRAME - 64;
/// Largest frame of the pairing conversation, which an unknown host may send.
pub const MAX_PAIRING_FRAME: usize = 1024;

/// bincode counts the size of the type, not of its variable-length form, so the limit is a multiple of the frame's.
const DECODE_LIMIT: usize = 16 * MAX_FRAME;

/// What is wrong with bytes from the other side.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WireError {
    /// The length is over the limit; nothing was allocated for it.
    #[error(
        "a frame claims {length} bytes, more than the limit of {limit}: not a replication peer, or a damaged stream"
    )]
    TooLong { length: u64, limit: usize },
    /// A frame without a kind.
    #[error("a frame of length 0: not a replication peer, or a damaged stream")]
    Empty,
    /// A kind that this version does not know.
    #[error("frame of unknown kind {kind:#04x}: not a replication peer, or a newer version")]
    UnknownKind { kind: u8 },
    /// The frame is of a kind that this end does not receive.
    #[error("a {found:?} frame where a {expected:?} frame belongs")]
    WrongKind { found: FrameKind, expected: FrameKind },
    /// bincode could not read it.
    #[error("{what} cannot be decoded: {reason}")]
    Encoding { what: &'static str, reason: String },
    /// Bytes are left after the message.
    #[error("{extra} bytes follow the end of a {what}")]
    Trailing { what: &'static str, extra: usize },
    /// It decodes, but says something that is not allowed.
    #[error("{what} is not valid: {reason}")]
    Invalid { what: &'static str, reason: String },
}

/// The payload of a frame in pieces, so that long byte strings are not copied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    /// What comes first.
    pub head: Vec<u8>,
    /// What follows, one after the other.
    pub strings: Vec<Bytes>,
}

impl Payload {
    /// Bytes of the whole.
    pub fn len(&self) -> usize {
        self.head.len() + self.strings.iter().map(Bytes::len).sum::<usize>()
    }

    /// No bytes at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In one piece.
    pub fn joined(mut self) -> Vec<u8> {
        self.strings.iter().for_each(|string| self.head.extend_from_slice(string));
        self.head
    }
}

impl From<Vec<u8>> for Payload {
    fn from(head: Vec<u8>) -> Payload {
        Payload { head, strings: Vec::new() }
    }
}

/// The message as payload of a [`FrameKind::ToBackup`] frame.
pub fn encode_to_backup(message: &ToBackup) -> Payload {
    let strings = match message {
        ToBackup::Blobs(blobs) => blobs.iter().map(|blob| blob.bytes.clone()).collect(),
        ToBackup::Batch(encoded) => vec![encoded.clone()],
        _ => Vec::new(),
    };
    with_strings(encode(message), strings)
}

/// Decodes and checks the payload of a [`FrameKind::ToBackup`] frame, whose byte strings stay where they are. (A batch
/// inside stays encoded: [`decode_batch`].)
pub fn decode_to_backup(payload: Bytes) -> Result<ToBackup, WireError> {
    let what = "message to the backup";
    let (mut message, used) = decode_front(&payload, what)?;
    let strings = match &mut message {
        ToBackup::Blobs(blobs) => blobs.iter_mut().map(|blob| &mut blob.bytes).collect(),
        ToBackup::Batch(encoded) => vec![encoded],
        _ => Vec::new(),
    };
    take_strings(payload.slice(used..), strings, what)?;
    check::to_backup(&message)?;
    Ok(message)
}

/// The message as payload of a [`FrameKind::ToArchive`] frame.
pub fn encode_to_archive(message: &ToArchive) -> Payload {
    let strings = match message {
        ToArchive::Bytes { bytes, .. } | ToArchive::Patch { bytes, .. } => vec![bytes.clone()],
        _ => Vec::new(),
    };
    with_strings(encode(message), strings)
}

/// Decodes and checks the payload of a [`FrameKind::ToArchive`] frame, whose byte string stays where it is.
pub fn decode_to_archive(payload: Bytes) -> Result<ToArchive, WireError> {
    let what = "message to the archive";
    let (mut message, used) = decode_front(&payload, what)?;
    let strings = match &mut message {
        ToArchive::Bytes { bytes, .. } | ToArchive::Patch { bytes, .. } => vec![bytes],
        _ => Vec::new(),
    };
    take_strings(payload.slice(used..), strings, what)?;
    check_database::to_archive(&message)?;
    Ok(message)
}

/// The message as payload of a [`FrameKind::ToSource`] frame.
pub fn encode_to_source(message: &ToSource) -> Vec<u8> {
    encode(message)
}

/// Decodes and checks the payload of a [`FrameKind::ToSource`] frame.
pub fn decode_to_source(payload: &[u8]) -> Result<ToSource, WireError> {
    let message = decode(payload, "message to the source")?;
    check_database::to_source(&message)?;
    Ok(message)
}

/// An encoded message and the strings that follow it, behind their lengths.
fn with_strings(mut head: Vec<u8>, strings: Vec<Bytes>) -> Payload {
    for string in &strings {
        // One that is too long does not fit a frame, and is refused there.
        head.extend_from_slice(&u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    Payload { head, strings }
}

/// Fills `strings` with what follows a message.
fn take_strings(mut payload: Bytes, strings: Vec<&mut Bytes>, what: &'static str) -> Result<(), WireError> {
    let short = || WireError::Encoding { what, reason: "it ends within its byte strings".to_owned() };
    let mut lengths = take(&mut payload, 4 * strings.len()).ok_or_else(short)?;
    for string in strings {
        *string = take(&mut payload, lengths.get_u32() as usize).ok_or_else(short)?;
    }
    if !payload.is_empty() {
        return Err(WireError::Trailing { what, extra: payload.len() });
    }
    Ok(())
}

/// Takes `length` bytes from the front; `None` if there are not so many.
fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// The message as payload of a [`FrameKind::ToPrimary`] frame.
pub fn encode_to_primary(message: &ToPrimary) -> Vec<u8> {
    encode(message)
}

/// Decodes and checks the payload of a [`FrameKind::ToPrimary`] frame.
pub fn decode_to_primary(payload: &[u8]) -> Result<ToPrimary, WireError> {
    let message = decode(payload, "message to the primary")?;
    check::to_primary(&message)?;
    Ok(message)
}

/// The message as payload of a [`FrameKind::Pairing`] frame.
pub fn encode_pairing(message: &Pairing) -> Vec<u8> {
    encode(message)
}

/// Decodes the payload of a [`FrameKind::Pairing`] frame.
pub fn decode_pairing(payload: &[u8]) -> Result<Pairing, WireError> {
    let message = decode(payload, "pairing message")?;
    check::pairing(&message)?;
    Ok(message)
}

/// A batch as it travels, is stored and is chained. At most [`MAX_BATCH`] bytes may be sent.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    encode(batch)
}

/// Decodes a batch and checks everything that can be checked without a catalog.
pub fn decode_batch(encoded: &[u8]) -> Result<Batch, WireError> {
    if encoded.len() > MAX_BATCH {
        return Err(WireError::TooLong { length: encoded.len() as u64, limit: MAX_BATCH });
    }
    let batch = decode(encoded, "batch")?;
    check::batch(&batch)?;
    Ok(batch)
}

/// `Position::chain` of an encoded batch; it is `Batch::previous` of the next.
pub fn chain(encoded: &[u8]) -> Hash {
    Hash::of(encoded)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_LIMIT>()
}

/// Encoding to memory fails only for sequences of unknown length, which these types do not have; were it to
/// fail, the empty payload is refused by the other side.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap_or_default()
}

/// The message at the front of `bytes`, and its length.
fn decode_front<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, usize), WireError> {
    // Borrowing: byte strings are taken from the slice, so their length is checked before anything is allocated.
    bincode::serde::borrow_decode_from_slice(bytes, config())
        .map_err(|e| WireError::Encoding { what, reason: e.to_string() })
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, WireError> {
    let (value, used) = decode_front(bytes, what)?;
    match bytes.len() - used {
        0 => Ok(value),
        extra => Err(WireError::Trailing { what, extra }),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_database;
