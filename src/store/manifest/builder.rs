//! From a stream of extents to pages; memory is one page and the list of pages.

use super::encoding::{MAX_PAGES, PageRef, encode_page, encode_root, is_allowed};
use super::{ManifestError, NamedBlob};
use ehpc_proto::replication::{Extent, Hash, INLINE_EXTENTS, Manifest, PAGE_EXTENTS};

/// A page ends here at the earliest (but for the file's last).
pub(super) const MIN_PAGE_EXTENTS: usize = 256;
/// A page ends after a chunk whose hash has these bits (of its first 8 bytes, little endian) all zero.
const END_MASK: u64 = 0x1FF;

/// Builds a manifest extent by extent. Page blobs appear in [`Builder::take_blobs`] as they are completed.
#[derive(Default)]
pub struct Builder {
    /// A hole that may still grow: neighbours become one.
    hole: u64,
    page: Vec<Extent>,
    pages: Vec<PageRef>,
    blobs: Vec<NamedBlob>,
    total: u64,
}

impl Builder {
    /// Adds the next extent.
    pub fn push(&mut self, extent: Extent) -> Result<(), ManifestError> {
        if !is_allowed(&extent) {
            return Err(ManifestError::ExtentLength { len: extent.len() });
        }
        self.total = self.total.checked_add(extent.len()).ok_or(ManifestError::TooLong)?;
        match extent {
            Extent::Hole { len } => self.hole += len,
            Extent::Data { .. } => {
                self.flush_hole()?;
                self.place(extent)?;
            }
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// No extent so far.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The page blobs completed since the last call, so that the caller can send them early.
    pub fn take_blobs(&mut self) -> Vec<NamedBlob> {
        std::mem::take(&mut self.blobs)
    }

    /// The manifest, and the blobs not yet taken; the root is the last.
    pub fn finish(mut self) -> Result<(Manifest, Vec<NamedBlob>), ManifestError> {
        self.flush_hole()?;
        if self.pages.is_empty() && self.page.len() <= INLINE_EXTENTS {
            return Ok((Manifest::Inline(self.page), self.blobs));
        }
        if !self.page.is_empty() {
            self.end_page()?;
        }
        let bytes = encode_root(&self.pages);
        let root = Hash::of(&bytes);
        self.blobs.push((root, bytes));
        Ok((Manifest::Paged { root }, self.blobs))
    }

    /// At the start of a page, with nothing held back: a page of an older manifest fits as it is.
    pub(super) fn at_page_start(&self) -> bool {
        self.hole == 0 && self.page.is_empty()
    }

    /// Takes over a page that ended by the same rule.
    pub(super) fn reuse(&mut self, page: PageRef) -> Result<(), ManifestError> {
        self.total = self.total.checked_add(page.bytes).ok_or(ManifestError::TooLong)?;
        self.list(page)
    }

    fn flush_hole(&mut self) -> Result<(), ManifestError> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            len => self.place(Extent::Hole { len }),
        }
    }

    fn place(&mut self, extent: Extent) -> Result<(), ManifestError> {
        self.page.push(extent);
        if is_page_end(self.page.len(), &extent) { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<(), ManifestError> {
        let bytes = encode_page(&self.page);
        let page = PageRef {
            hash: Hash::of(&bytes),
            bytes: self.page.iter().map(Extent::len).sum(),
            extents: self.page.len() as u16,
        };
        self.page.clear();
        self.blobs.push((page.hash, bytes));
        self.list(page)
    }

    fn list(&mut self, page: PageRef) -> Result<(), ManifestError> {
        if self.pages.len() == MAX_PAGES {
            return Err(ManifestError::TooManyPages);
        }
        self.pages.push(page);
        Ok(())
    }
}

/// Does a page end with `last` as its `count`th extent?
fn is_page_end(count: usize, last: &Extent) -> bool {
    let by_content = match last {
        Extent::Data { hash, .. } => {
            hash.0.first_chunk().is_some_and(|bytes| u64::from_le_bytes(*bytes) & END_MASK == 0)
        }
        Extent::Hole { .. } => false,
    };
    count == PAGE_EXTENTS || (count >= MIN_PAGE_EXTENTS && by_content)
}
