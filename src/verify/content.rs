//! Does a file's content match a manifest? Layout does not matter: data extents are hashed, holes must read as zeros.

use crate::host;
use crate::store::manifest::{Fetch, Index, ManifestError};
use ehpc_proto::replication::{Extent, Hash, Manifest};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(super) enum ContentError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The first byte from which on the content differs; `None` = equal. `bytes` counts what was read.
pub(super) fn first_difference(
    file: &File,
    size: u64,
    manifest: &Manifest,
    fetch: &mut Fetch<'_>,
    bytes: &mut u64,
) -> Result<Option<u64>, ContentError> {
    let index = Index::open(manifest, fetch)?;
    if index.len() != size {
        return Ok(Some(index.len().min(size)));
    }
    let mut buffer = Vec::new();
    let mut offset = 0;
    for page in 0..index.page_count() {
        for extent in index.page(page, fetch)?.iter() {
            let equal = match extent {
                Extent::Data { hash, len } => {
                    buffer.resize(*len as usize, 0);
                    *bytes += u64::from(*len);
                    match file.read_exact_at(&mut buffer, offset) {
                        Ok(()) => Hash::of(&buffer) == *hash,
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                        Err(error) => return Err(error.into()),
                    }
                }
                Extent::Hole { len } => reads_as_zeros(file, offset, *len, &mut buffer, bytes)?,
            };
            if !equal {
                return Ok(Some(offset));
            }
            offset += extent.len();
        }
    }
    Ok(None)
}

fn reads_as_zeros(
    file: &File,
    offset: u64,
    len: u64,
    buffer: &mut Vec<u8>,
    bytes: &mut u64,
) -> io::Result<bool> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        at = match host::seek_data(file.as_fd(), at)? {
            Some(data) if data < end => data,
            _ => return Ok(true),
        };
        let stop = host::seek_hole(file.as_fd(), at)?.unwrap_or(end).min(end);
        while at < stop {
            let piece = (stop - at).min(256 * 1024);
            buffer.resize(piece as usize, 0);
            match file.read_exact_at(buffer, at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
            *bytes += piece;
            if buffer.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += piece;
        }
    }
    Ok(true)
}
