//! Bytes of pages and roots, version 1, big endian.
//!
//! Page: `'P' 1 count:u16 extent*`; extent: `1 len:u32 hash:32` or `2 len:u64`.
//! Root: `'R' 1 count:u32 total:u64 (hash:32 bytes:u64 extents:u16)*`.

use super::ManifestError;
use ehpc_proto::replication::{Extent, Hash, INLINE_EXTENTS, MAX_CHUNK, PAGE_EXTENTS};

/// Most pages under one root: what fits a blob of 4 MiB (`wire::check::MAX_PAGE`); about 4 TiB of data.
pub const MAX_PAGES: usize = 98_304;

const VERSION: u8 = 1;
const DATA: u8 = 1;
const HOLE: u8 = 2;
const ROOT_HEADER: usize = 2 + 4 + 8;
const ROOT_ROW: usize = 32 + 8 + 2;

/// A page as its root lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRef {
    /// Name of the page.
    pub hash: Hash,
    /// Bytes of the file that it covers.
    pub bytes: u64,
    /// Extents in it.
    pub extents: u16,
}

pub(super) fn encode_page(extents: &[Extent]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + extents.len() * 37);
    out.extend_from_slice(&[b'P', VERSION]);
    out.extend_from_slice(&(extents.len() as u16).to_be_bytes());
    for extent in extents {
        match extent {
            Extent::Data { hash, len } => {
                out.push(DATA);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(&hash.0);
            }
            Extent::Hole { len } => {
                out.push(HOLE);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
    }
    out
}

/// Takes fixed pieces off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn extent(&mut self) -> Option<Extent> {
        match self.take::<1>()? {
            [DATA] => {
                let len = u32::from_be_bytes(self.take()?);
                Some(Extent::Data { hash: Hash(self.take()?), len })
            }
            [HOLE] => Some(Extent::Hole { len: u64::from_be_bytes(self.take()?) }),
            _ => None,
        }
    }
}

pub(super) fn is_allowed(extent: &Extent) -> bool {
    match extent {
        Extent::Data { len, .. } => (1..=MAX_CHUNK).contains(&(*len as usize)),
        Extent::Hole { len } => *len > 0,
    }
}

/// The extents of a page named `hash`: 1 to 1,024, none empty, none too long, adding up to less than 2^64.
pub fn decode_page(hash: &Hash, bytes: &[u8]) -> Result<Vec<Extent>, ManifestError> {
    let malformed = |reason| ManifestError::Malformed { hash: *hash, reason };
    let mut reader = Reader(bytes);
    if reader.take::<2>() != Some([b'P', VERSION]) {
        return Err(malformed("not a page of version 1"));
    }
    let count = reader.take().map(u16::from_be_bytes).ok_or_else(|| malformed("no count"))?;
    if count == 0 || usize::from(count) > PAGE_EXTENTS {
        return Err(malformed("count out of bounds"));
    }
    let mut extents = Vec::with_capacity(usize::from(count));
    let mut total = 0u64;
    for _ in 0..count {
        let extent = reader.extent().ok_or_else(|| malformed("an extent is cut short or of unknown type"))?;
        if !is_allowed(&extent) {
            return Err(malformed("length of an extent out of bounds"));
        }
        total = total.checked_add(extent.len()).ok_or_else(|| malformed("lengths overflow"))?;
        extents.push(extent);
    }
    if !reader.0.is_empty() {
        return Err(malformed("bytes after the last extent"));
    }
    Ok(extents)
}

pub(super) fn encode_root(pages: &[PageRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ROOT_HEADER + pages.len() * ROOT_ROW);
    out.extend_from_slice(&[b'R', VERSION]);
    out.extend_from_slice(&(pages.len() as u32).to_be_bytes());
    out.extend_from_slice(&pages.iter().map(|page| page.bytes).sum::<u64>().to_be_bytes());
    for page in pages {
        out.extend_from_slice(&page.hash.0);
        out.extend_from_slice(&page.bytes.to_be_bytes());
        out.extend_from_slice(&page.extents.to_be_bytes());
    }
    out
}

/// The pages that a root named `hash` lists: 1 to [`MAX_PAGES`], with sums that match.
pub fn decode_root(hash: &Hash, bytes: &[u8]) -> Result<Vec<PageRef>, ManifestError> {
    let malformed = |reason| ManifestError::Malformed { hash: *hash, reason };
    let mut reader = Reader(bytes);
    if reader.take::<2>() != Some([b'R', VERSION]) {
        return Err(malformed("not a root of version 1"));
    }
    let count = reader.take().map(u32::from_be_bytes).ok_or_else(|| malformed("no count"))? as usize;
    let total = reader.take().map(u64::from_be_bytes).ok_or_else(|| malformed("no total"))?;
    if count == 0 || count > MAX_PAGES || reader.0.len() != count * ROOT_ROW {
        return Err(malformed("count of pages out of bounds or not that of its bytes"));
    }
    let mut pages = Vec::with_capacity(count);
    let (mut sum, mut extents_sum) = (0u64, 0usize);
    while !reader.0.is_empty() {
        let page = (|| {
            let (hash, bytes) = (Hash(reader.take()?), u64::from_be_bytes(reader.take()?));
            Some(PageRef { hash, bytes, extents: u16::from_be_bytes(reader.take()?) })
        })()
        .ok_or_else(|| malformed("a row is cut short"))?;
        if page.bytes == 0 || page.extents == 0 || usize::from(page.extents) > PAGE_EXTENTS {
            return Err(malformed("a page that is empty or over its limit"));
        }
        sum = sum.checked_add(page.bytes).ok_or_else(|| malformed("lengths overflow"))?;
        extents_sum += usize::from(page.extents);
        pages.push(page);
    }
    if sum != total {
        return Err(malformed("the pages do not add up to the total"));
    }
    if extents_sum <= INLINE_EXTENTS {
        return Err(malformed("so few extents belong inline"));
    }
    Ok(pages)
}
