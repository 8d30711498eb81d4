//! A base snapshot as the stream of SQL that it is.

use crate::store::manifest::{BoxError, Index, ManifestError};
use crate::store::{Store, StoreError};
use ehpc_proto::replication::{Extent, Hash, Manifest};
use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;

/// Reads one file of a base store from its start. Every chunk is checked against its name.
pub struct BaseReader {
    store: Arc<Store>,
    index: Index,
    page: usize,
    extents: std::vec::IntoIter<Extent>,
    chunk: Vec<u8>,
    at: usize,
}

impl BaseReader {
    pub(super) fn open(store: Arc<Store>, manifest: &Manifest) -> Result<BaseReader, ManifestError> {
        let index = Index::open(manifest, &mut fetch(&store))?;
        Ok(BaseReader { store, index, page: 0, extents: Vec::new().into_iter(), chunk: Vec::new(), at: 0 })
    }

    /// Bytes from start to end.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Nothing at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next chunk into `self.chunk`; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            match self.extents.next() {
                Some(Extent::Data { hash, .. }) => {
                    self.chunk = self.store.read_blob(&hash).map_err(unreadable)?;
                    self.at = 0;
                    return Ok(true);
                }
                // A base has none; one of zeros would be read like this.
                Some(Extent::Hole { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the list of chunks has a hole"));
                }
                None if self.page < self.index.page_count() => {
                    let page = self.index.page(self.page, &mut fetch(&self.store)).map_err(unreadable)?;
                    self.extents = page.to_vec().into_iter();
                    self.page += 1;
                }
                None => return Ok(false),
            }
        }
    }
}

impl Read for BaseReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !buffer.is_empty() && !self.advance()? {
            return Ok(0);
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// With the kind of what is behind it: that of damage, where no file could not be read.
fn unreadable(error: impl Error + Send + Sync + 'static) -> io::Error {
    let kind = io_behind(&error).map_or(io::ErrorKind::InvalidData, io::Error::kind);
    io::Error::new(kind, error)
}

/// The fault of the file system that is behind an error; `None`: something else is wrong with what was read.
pub(crate) fn io_behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// Looks pages up in `store`.
pub(super) fn fetch(store: &Arc<Store>) -> impl FnMut(&Hash) -> Result<Vec<u8>, BoxError> + use<> {
    let store = store.clone();
    move |hash| store.read_blob(hash).map_err(|error: StoreError| Box::new(error) as BoxError)
}
