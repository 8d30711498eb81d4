//! Replacing a range of a manifest at the cost of the pages it touches.

use super::builder::Builder;
use super::index::Index;
use super::{Fetch, ManifestError, NamedBlob};
use ehpc_proto::replication::{Extent, Hash, INLINE_EXTENTS, Manifest};
use std::collections::HashSet;
use std::ops::Range;

/// `manifest` with the bytes of `range` replaced by `extents` (of any length), and the blobs that are new.
///
/// The ends of `range` must be ends of extents, or lie within holes; `range.end` may be the length of the file, so that
/// an append has an empty range there, and a truncation no extents. The result equals building from scratch.
pub fn splice(
    manifest: &Manifest,
    range: Range<u64>,
    extents: &[Extent],
    fetch: &mut Fetch<'_>,
) -> Result<(Manifest, Vec<NamedBlob>), ManifestError> {
    let index = Index::open(manifest, fetch)?;
    let outside = || ManifestError::Range { start: range.start, end: range.end, len: index.len() };
    if range.start > range.end || range.end > index.len() {
        return Err(outside());
    }
    let mut builder = Builder::default();
    let paged = matches!(manifest, Manifest::Paged { .. });

    // Pages before the one that holds the byte before the range stay: they ended by their own content.
    let first = index.page_at(range.start.saturating_sub(1));
    if paged {
        for page in &index.page_refs()[..first.min(index.page_count())] {
            builder.reuse(*page)?;
        }
    }
    keep(&index, index.page_start(first)..range.start, &mut builder, fetch)?.ok_or_else(outside)?;
    for extent in extents {
        builder.push(*extent)?;
    }

    // After the range, until a page of the old manifest begins where a new one would: the rest stays.
    let mut at = range.end;
    while at < index.len() {
        let page = index.page_at(at);
        let rest: u64 = index.page_refs().iter().skip(page).map(|page| u64::from(page.extents)).sum();
        // So few extents might have to go inline.
        let many = paged && rest > INLINE_EXTENTS as u64;
        if many && builder.at_page_start() && index.page_start(page) == at {
            for page in &index.page_refs()[page..] {
                builder.reuse(*page)?;
            }
            break;
        }
        let end = index.page_start(page + 1);
        keep(&index, at..end, &mut builder, fetch)?.ok_or_else(outside)?;
        at = end;
    }
    let (manifest, mut blobs) = builder.finish()?;
    let held: HashSet<Hash> = index.page_refs().iter().map(|page| page.hash).collect();
    blobs.retain(|(hash, _)| !held.contains(hash));
    Ok((manifest, blobs))
}

/// Copies the extents of `range`; `None` when an end of it lies within a chunk.
fn keep(
    index: &Index,
    range: Range<u64>,
    builder: &mut Builder,
    fetch: &mut Fetch<'_>,
) -> Result<Option<()>, ManifestError> {
    for (start, extent) in index.overlapping(range.clone(), fetch)? {
        let end = start + extent.len();
        let kept = start.max(range.start)..end.min(range.end);
        match extent {
            Extent::Hole { .. } => builder.push(Extent::Hole { len: kept.end - kept.start })?,
            Extent::Data { .. } if kept == (start..end) => builder.push(extent)?,
            Extent::Data { .. } => return Ok(None),
        }
    }
    Ok(Some(()))
}
