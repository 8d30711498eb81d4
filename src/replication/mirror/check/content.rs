//! Bytes of a file against its manifest, extent by extent, whatever the layout on disk.

use super::{Check, Finding};
use crate::replication::mirror::view::SourceError;
use crate::store::Store;
use crate::store::manifest::{Index, ManifestError};
use ehpc_proto::replication::{Extent, Hash, ObjectState};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why a comparison ends early.
enum Stop {
    Differs(u64, Extent),
    Unreadable(String),
}

impl From<ManifestError> for Stop {
    fn from(error: ManifestError) -> Stop {
        Stop::Unreadable(format!("its manifest cannot be read: {error}"))
    }
}

/// A file of the mirror that is open for comparison.
pub struct LongRead {
    pub(super) state: ObjectState,
    pub(super) path: Vec<u8>,
    pub(super) file: File,
    pub(super) round: u32,
}

impl LongRead {
    /// Files up to this size are compared under the gate.
    pub const SHORT: u64 = 1 << 20;

    pub(super) fn new(state: ObjectState, path: Vec<u8>, file: File) -> LongRead {
        LongRead { state, path, file, round: 1 }
    }

    /// Reads it all.
    pub fn run(&self, check: &mut Check, store: &Store) -> Finding {
        let mut bytes = 0;
        let found = self.compare(&|hash| store.read_blob(hash).map_err(SourceError::from), &mut bytes);
        check.count_bytes(bytes);
        found
    }

    pub(super) fn compare(
        &self,
        blob: &dyn Fn(&Hash) -> Result<Vec<u8>, SourceError>,
        read: &mut u64,
    ) -> Finding {
        match self.walk(blob, read) {
            Ok(()) => Finding::Equal,
            Err(Stop::Differs(at, extent)) => Finding::Differs { at, extent },
            Err(Stop::Unreadable(reason)) => Finding::Unreadable { reason },
        }
    }

    fn walk(&self, blob: &dyn Fn(&Hash) -> Result<Vec<u8>, SourceError>, read: &mut u64) -> Result<(), Stop> {
        let mut fetch = |hash: &Hash| blob(hash);
        let index = Index::open(&self.state.content, &mut fetch)?;
        for page in 0..index.page_count() {
            let mut at = index.page_start(page);
            for extent in index.page(page, &mut fetch)?.iter() {
                match same(&self.file, at, *extent) {
                    Ok(true) => {}
                    Ok(false) => return Err(Stop::Differs(at, *extent)),
                    Err(error) => return Err(Stop::Unreadable(format!("byte {at} cannot be read: {error}"))),
                }
                if matches!(extent, Extent::Data { .. }) {
                    *read += extent.len();
                }
                at += extent.len();
            }
        }
        Ok(())
    }
}

/// One extent again.
pub(super) fn compare_extent(file: &File, at: u64, extent: Extent) -> Finding {
    match same(file, at, extent) {
        Ok(true) => Finding::Equal,
        Ok(false) => Finding::Differs { at, extent },
        Err(error) => Finding::Unreadable { reason: format!("byte {at} cannot be read: {error}") },
    }
}

fn same(file: &File, at: u64, extent: Extent) -> io::Result<bool> {
    match extent {
        Extent::Data { hash, len } => {
            let mut bytes = vec![0; len as usize];
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => Ok(Hash::of(&bytes) == hash),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                Err(error) => Err(error),
            }
        }
        Extent::Hole { len } => zeros(file, at, at + len),
    }
}

/// Are there only zeros? What is a hole on disk too is not read.
fn zeros(file: &File, mut at: u64, end: u64) -> io::Result<bool> {
    let mut bytes = vec![0u8; 64 * 1024];
    while at < end {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(Errno::NXIO) => return Ok(file.metadata()?.len() >= end),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        if at >= end {
            break;
        }
        let n = (end - at).min(bytes.len() as u64) as usize;
        let piece = bytes.get_mut(..n).unwrap_or_default();
        match file.read_exact_at(piece, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}
