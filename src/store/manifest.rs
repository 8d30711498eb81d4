//! Manifests: the extents of a file, inline while few, else in content-named pages under a content-named root.
//!
//! Page ends are content-defined ([`builder`]), so that a change re-encodes the pages it touches and the root,
//! and [`splice`] gives exactly what building from scratch would.

mod builder;
mod encoding;
mod index;
mod splice;

pub use builder::Builder;
pub use encoding::{MAX_PAGES, PageRef, decode_page, decode_root};
pub use index::{Index, for_each_difference};
pub use splice::splice;

use ehpc_proto::replication::{Extent, Hash, Manifest};
use std::error::Error;

/// Whatever went wrong in the caller's own look-up.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// Gives the decoded bytes of a page or root by name.
pub type Fetch<'a> = dyn FnMut(&Hash) -> Result<Vec<u8>, BoxError> + 'a;
/// Name and bytes of a page or root.
pub type NamedBlob = (Hash, Vec<u8>);

/// What can be wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The caller's look-up failed.
    #[error("manifest page {hash} cannot be read: {source}")]
    Fetch {
        /// Which.
        hash: Hash,
        /// The caller's error.
        source: BoxError,
    },
    /// A page or root is not what this version writes.
    #[error("manifest page {hash} is malformed: {reason}")]
    Malformed {
        /// Which.
        hash: Hash,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file has more extents than a root can list.
    #[error("the file needs more than {MAX_PAGES} manifest pages: it is too large, or has too many holes")]
    TooManyPages,
    /// Lengths add up to more than 2^64.
    #[error("the lengths of the extents add up to more than 2^64 bytes")]
    TooLong,
    /// The extents given are empty or longer than a chunk may be.
    #[error("an extent of {len} bytes is not allowed")]
    ExtentLength {
        /// Its length.
        len: u64,
    },
    /// A splice would cut a chunk in two, or lies outside the file.
    #[error("bytes {start}..{end} do not begin and end at extents of the manifest of {len} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// After the last byte.
        end: u64,
        /// Bytes of the file.
        len: u64,
    },
}

/// The manifest of `extents`, and the blobs it refers to (pages in order, then the root). Adjacent holes become one.
pub fn build(extents: impl IntoIterator<Item = Extent>) -> Result<(Manifest, Vec<NamedBlob>), ManifestError> {
    let mut builder = Builder::default();
    for extent in extents {
        builder.push(extent)?;
    }
    builder.finish()
}

/// All extents. For huge files use [`Index`], which holds one page at a time.
pub fn load(manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<Vec<Extent>, ManifestError> {
    let index = Index::open(manifest, fetch)?;
    let mut extents = Vec::new();
    for page in 0..index.page_count() {
        extents.extend_from_slice(&index.page(page, fetch)?);
    }
    Ok(extents)
}

/// Bytes of the file.
pub fn total_len(manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<u64, ManifestError> {
    Ok(Index::open(manifest, fetch)?.len())
}

/// Every chunk that the manifest names, in order, repeated ones too.
pub fn chunks_of(manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<Vec<Hash>, ManifestError> {
    Ok(load(manifest, fetch)?
        .into_iter()
        .filter_map(|extent| match extent {
            Extent::Data { hash, .. } => Some(hash),
            Extent::Hole { .. } => None,
        })
        .collect())
}

#[cfg(test)]
mod tests;
