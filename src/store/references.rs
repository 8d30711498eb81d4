//! Is everything there that a batch refers to?

use super::error::StoreError;
use super::manifest::{Index, ManifestError};
use ehpc_proto::replication::{Batch, Extent, Hash, Manifest, ObjectState};
use std::collections::HashSet;

/// Pages remembered as complete; 65,536 pages are some 2.5 TB of file content.
const REMEMBERED: usize = 65_536;

/// Pages and roots whose blobs are known to be there, so that a small change to a huge file is not a walk over all of it.
#[derive(Default)]
pub(super) struct Complete(HashSet<Hash>);

impl Complete {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Checks that every blob that `batch` refers to, directly or through pages, is held.
    pub(super) fn check(
        &mut self,
        batch: &Batch,
        held: &mut dyn FnMut(&Hash) -> Result<bool, StoreError>,
        read: &mut dyn FnMut(&Hash) -> Result<Vec<u8>, StoreError>,
    ) -> Result<(), StoreError> {
        for object in &batch.objects {
            match &object.content {
                Manifest::Inline(extents) => check_extents(batch, object, extents, held)?,
                Manifest::Paged { root } if self.0.contains(root) => {}
                Manifest::Paged { root } => {
                    self.check_paged(batch, object, held, read)?;
                    self.remember(*root);
                }
            }
        }
        Ok(())
    }

    fn check_paged(
        &mut self,
        batch: &Batch,
        object: &ObjectState,
        held: &mut dyn FnMut(&Hash) -> Result<bool, StoreError>,
        read: &mut dyn FnMut(&Hash) -> Result<Vec<u8>, StoreError>,
    ) -> Result<(), StoreError> {
        let (number, id) = (batch.number, object.id.0);
        let bad = |error| match error {
            // What is not there is told as such; what is there and cannot be read is told as it is.
            ManifestError::Fetch { hash, source } => match source.downcast::<StoreError>() {
                Ok(source) => match *source {
                    StoreError::UnknownBlob { hash } => {
                        StoreError::MissingBlob { batch: number, object: id, hash }
                    }
                    other => other,
                },
                Err(source) => StoreError::BadManifest {
                    batch: number,
                    object: id,
                    source: ManifestError::Fetch { hash, source },
                },
            },
            source => StoreError::BadManifest { batch: number, object: id, source },
        };
        let mut fetch = |hash: &Hash| read(hash).map_err(Into::into);
        let index = Index::open(&object.content, &mut fetch).map_err(bad)?;
        for (page, listed) in index.page_refs().iter().enumerate() {
            if !self.0.contains(&listed.hash) {
                let extents = index.page(page, &mut fetch).map_err(bad)?;
                check_extents(batch, object, &extents, held)?;
                self.remember(listed.hash);
            }
        }
        Ok(())
    }

    fn remember(&mut self, hash: Hash) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(hash);
    }
}

fn check_extents(
    batch: &Batch,
    object: &ObjectState,
    extents: &[Extent],
    held: &mut dyn FnMut(&Hash) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    for extent in extents {
        let Extent::Data { hash, .. } = extent else { continue };
        if !held(hash)? {
            let (batch, object, hash) = (batch.number, object.id.0, *hash);
            return Err(StoreError::MissingBlob { batch, object, hash });
        }
    }
    Ok(())
}
