//! Bytes of packs, version 1, big endian.
//!
//! The check of a record covers the pack and the byte that it was written at, and is keyed with the pack's own random
//! salt: a stale sector, or a file whose content is itself a pack, is never taken for a record.

use super::{PackId, Series};
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::Codec;

/// Length of [`FileHead`].
pub(crate) const FILE_HEAD: usize = 64;
/// Length of [`Head`].
pub(crate) const HEAD: usize = 80;
/// Longest payload, and longest decoded payload: a batch or a manifest root.
pub(crate) const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

const FILE_MAGIC: &[u8; 8] = b"EHPCPACK";
const MAGIC: &[u8; 4] = b"EHPR";
const VERSION: u8 = 1;

/// Start of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileHead {
    pub(crate) id: PackId,
    /// Key of the records' checks.
    pub(crate) salt: [u8; 32],
}

impl FileHead {
    pub(crate) fn encode(&self) -> [u8; FILE_HEAD] {
        let mut out = [0; FILE_HEAD];
        out[..8].copy_from_slice(FILE_MAGIC);
        out[8] = VERSION;
        out[9] = series_byte(self.id.series);
        out[12..16].copy_from_slice(&self.id.number.to_be_bytes());
        out[16..48].copy_from_slice(&self.salt);
        let check = Hash::of(&out[..48]);
        out[48..].copy_from_slice(&check.0[..16]);
        out
    }

    /// `None`: not the header of pack `id`.
    pub(crate) fn decode(id: PackId, bytes: &[u8; FILE_HEAD]) -> Option<FileHead> {
        let mut salt = [0; 32];
        salt.copy_from_slice(&bytes[16..48]);
        let head = FileHead { id, salt };
        (head.encode() == *bytes).then_some(head)
    }
}

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    Chunk,
    Page,
    Batch,
}

/// Start of a record; the payload follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) content: Content,
    pub(crate) codec: Codec,
    /// Length of the decoded payload.
    pub(crate) raw_len: u32,
    /// Length of the payload as it is here.
    pub(crate) stored_len: u32,
    /// Number of a batch, else 0.
    pub(crate) number: u64,
    /// Everything before this byte of the pack was durable when the record was written: what is wrong there is
    /// damage, and no torn tail.
    pub(crate) durable: u64,
    /// Hash of the decoded payload: name of the blob, or chain of the batch.
    pub(crate) hash: Hash,
}

impl Head {
    /// Bytes of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEAD as u64 + u64::from(self.stored_len)
    }

    pub(crate) fn encode(&self, file: &FileHead, offset: u64) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..4].copy_from_slice(MAGIC);
        out[4] = match self.content {
            Content::Chunk => 1,
            Content::Page => 2,
            Content::Batch => 3,
        };
        out[5] = codec_byte(self.codec);
        out[8..12].copy_from_slice(&self.raw_len.to_be_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_be_bytes());
        out[16..24].copy_from_slice(&self.number.to_be_bytes());
        out[24..32].copy_from_slice(&self.durable.to_be_bytes());
        out[32..64].copy_from_slice(&self.hash.0);
        let check = check(file, offset, &out[..64]);
        out[64..].copy_from_slice(&check);
        out
    }

    /// `None`: no record was written here.
    pub(crate) fn decode(file: &FileHead, offset: u64, bytes: &[u8; HEAD]) -> Option<Head> {
        if &bytes[..4] != MAGIC || check(file, offset, &bytes[..64]) != bytes[64..] {
            return None;
        }
        let content = match bytes[4] {
            1 => Content::Chunk,
            2 => Content::Page,
            3 => Content::Batch,
            _ => return None,
        };
        let (mut fields, mut hash) = ([0; 24], [0; 32]);
        fields.copy_from_slice(&bytes[8..32]);
        hash.copy_from_slice(&bytes[32..64]);
        let head = Head {
            content,
            codec: codec_of(bytes[5])?,
            raw_len: u32_at(&fields, 0)?,
            stored_len: u32_at(&fields, 4)?,
            number: u64_at(&fields, 8)?,
            durable: u64_at(&fields, 16)?,
            hash: Hash(hash),
        };
        let bounded = |len: u32| len as usize <= MAX_PAYLOAD;
        (bounded(head.raw_len) && bounded(head.stored_len)).then_some(head)
    }

    /// Is `payload` what was written? Checked by decoding it and by its hash.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        check_blob(self.codec, self.raw_len, &self.hash, payload)
    }
}

/// Decodes `stored` and checks it against its name. Never allocates more than `raw_len`.
pub(crate) fn decode_blob(
    codec: Codec,
    raw_len: u32,
    hash: &Hash,
    stored: Vec<u8>,
) -> Result<Vec<u8>, &'static str> {
    let raw = match codec {
        Codec::Raw => stored,
        Codec::Zstd => unpack(&stored, raw_len as usize)?,
    };
    check_raw(raw_len, hash, &raw)?;
    Ok(raw)
}

/// Checks that `stored` decodes to what `hash` names, without keeping the result.
pub(crate) fn check_blob(codec: Codec, raw_len: u32, hash: &Hash, stored: &[u8]) -> Result<(), &'static str> {
    match codec {
        Codec::Raw => check_raw(raw_len, hash, stored),
        Codec::Zstd => check_raw(raw_len, hash, &unpack(stored, raw_len as usize)?),
    }
}

fn check_raw(raw_len: u32, hash: &Hash, raw: &[u8]) -> Result<(), &'static str> {
    if raw.len() != raw_len as usize {
        return Err("its length is not what was said of it");
    }
    if Hash::of(raw) != *hash {
        return Err("its content does not match its name");
    }
    Ok(())
}

fn unpack(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, &'static str> {
    use std::cell::RefCell;
    thread_local! {
        // Making a context costs more than decoding a small chunk.
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    if raw_len > MAX_PAYLOAD {
        return Err("its length is over the limit");
    }
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Decompressor::new().ok();
        }
        let context = context.as_mut().ok_or("no memory to decompress it")?;
        context.decompress(stored, raw_len).map_err(|_| "it cannot be decompressed")
    })
}

fn check(file: &FileHead, offset: u64, fields: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(&file.salt);
    hasher.update(fields);
    hasher.update(&[series_byte(file.id.series)]);
    hasher.update(&file.id.number.to_be_bytes());
    hasher.update(&offset.to_be_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

fn series_byte(series: Series) -> u8 {
    match series {
        Series::Meta => 1,
        Series::Chunk => 2,
    }
}

/// How a codec is written.
pub(crate) fn codec_byte(codec: Codec) -> u8 {
    match codec {
        Codec::Raw => 0,
        Codec::Zstd => 1,
    }
}

/// The reverse of [`codec_byte`].
pub(crate) fn codec_of(byte: u8) -> Option<Codec> {
    match byte {
        0 => Some(Codec::Raw),
        1 => Some(Codec::Zstd),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
