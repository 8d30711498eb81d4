//! Reading a manifest page by page.

use super::encoding::{PageRef, decode_page, decode_root};
use super::{Fetch, ManifestError};
use ehpc_proto::replication::{Extent, Hash, Manifest};
use std::borrow::Cow;
use std::ops::Range;

/// Where the extents of a file are: the decoded root. An inline manifest is one page that needs no look-up.
pub struct Index {
    pages: Vec<PageRef>,
    /// First byte of each page, and the length of the file at the end.
    starts: Vec<u64>,
    inline: Option<Vec<Extent>>,
}

impl Index {
    /// Decodes the root (or takes the inline extents).
    pub fn open(manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<Index, ManifestError> {
        let (pages, inline) = match manifest {
            Manifest::Inline(extents) => {
                let bytes = extents
                    .iter()
                    .try_fold(0u64, |sum, extent| sum.checked_add(extent.len()))
                    .ok_or(ManifestError::TooLong)?;
                let only = PageRef { hash: Hash([0; 32]), bytes, extents: extents.len() as u16 };
                (if extents.is_empty() { Vec::new() } else { vec![only] }, Some(extents.clone()))
            }
            Manifest::Paged { root } => {
                let bytes = fetch(root).map_err(|source| ManifestError::Fetch { hash: *root, source })?;
                (decode_root(root, &bytes)?, None)
            }
        };
        let mut starts = Vec::with_capacity(pages.len() + 1);
        let mut end = 0u64;
        starts.push(end);
        for page in &pages {
            end += page.bytes; // decode_root and try_fold above have checked the sum
            starts.push(end);
        }
        Ok(Index { pages, starts, inline })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The file is empty.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Extents of the file.
    pub fn extents(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.extents)).sum()
    }

    /// Pages; an inline manifest that is not empty has one.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The pages by name; an inline manifest has none.
    pub fn page_refs(&self) -> &[PageRef] {
        if self.inline.is_some() { &[] } else { &self.pages }
    }

    /// First byte that page `page` covers (the length of the file for the page after the last).
    pub fn page_start(&self, page: usize) -> u64 {
        self.starts.get(page).copied().unwrap_or(self.len())
    }

    /// The page that covers byte `offset`; the last one for an offset past the end.
    pub fn page_at(&self, offset: u64) -> usize {
        let after = self.starts.partition_point(|&start| start <= offset);
        after.saturating_sub(1).min(self.pages.len().saturating_sub(1))
    }

    /// The extents of page `page`, checked against the root. No page of that number: none.
    pub fn page(&self, page: usize, fetch: &mut Fetch<'_>) -> Result<Cow<'_, [Extent]>, ManifestError> {
        if let Some(extents) = &self.inline {
            return Ok(Cow::Borrowed(extents));
        }
        let Some(listed) = self.pages.get(page) else { return Ok(Cow::Borrowed(&[])) };
        let hash = listed.hash;
        let bytes = fetch(&hash).map_err(|source| ManifestError::Fetch { hash, source })?;
        let extents = decode_page(&hash, &bytes)?;
        let same_length = extents.iter().map(Extent::len).sum::<u64>() == listed.bytes;
        if extents.len() != usize::from(listed.extents) || !same_length {
            return Err(ManifestError::Malformed { hash, reason: "not what its root says of it" });
        }
        Ok(Cow::Owned(extents))
    }

    /// The extents that overlap `range`, each with its first byte.
    pub fn overlapping(
        &self,
        range: Range<u64>,
        fetch: &mut Fetch<'_>,
    ) -> Result<Vec<(u64, Extent)>, ManifestError> {
        let mut found = Vec::new();
        if range.start >= self.len() || range.is_empty() {
            return Ok(found);
        }
        for page in self.page_at(range.start)..self.pages.len() {
            let mut start = self.page_start(page);
            if start >= range.end {
                break;
            }
            for extent in self.page(page, fetch)?.iter() {
                if start < range.end && start + extent.len() > range.start {
                    found.push((start, *extent));
                }
                start += extent.len();
            }
        }
        Ok(found)
    }

    fn page_ref_at(&self, start: u64) -> Option<&PageRef> {
        let page = self.starts.binary_search(&start).ok()?;
        if self.inline.is_some() { None } else { self.pages.get(page) }
    }
}

/// Calls `visit` with the first byte and extent for everything in `new` that is not equally in `old` at the same place,
/// in order. Equal pages are skipped without being read.
pub fn for_each_difference<E: From<ManifestError>>(
    old: &Manifest,
    new: &Manifest,
    fetch: &mut Fetch<'_>,
    visit: &mut dyn FnMut(u64, Extent) -> Result<(), E>,
) -> Result<(), E> {
    let (old, new) = (Index::open(old, fetch)?, Index::open(new, fetch)?);
    // The page of `old` that was read last: number, and its extents with their first bytes.
    let mut held: Option<(usize, Vec<(u64, Extent)>)> = None;
    for page in 0..new.page_count() {
        let mut start = new.page_start(page);
        let named = new.page_refs().get(page);
        if named.is_some() && named == old.page_ref_at(start) {
            continue;
        }
        for extent in new.page(page, fetch)?.iter() {
            if start < old.len() {
                let at = old.page_at(start);
                if held.as_ref().is_none_or(|(number, _)| *number != at) {
                    held = Some((at, old.overlapping(old.page_start(at)..old.page_start(at + 1), fetch)?));
                }
            }
            let same = held.as_ref().is_some_and(|(_, extents)| {
                extents
                    .binary_search_by_key(&start, |(first, _)| *first)
                    .is_ok_and(|found| extents[found].1 == *extent)
            });
            if !same {
                visit(start, *extent)?;
            }
            start += extent.len();
        }
    }
    Ok(())
}
