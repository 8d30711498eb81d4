//! Catalog and packs as the mirror wants to see them.

use crate::replication::mirror::{ContentSource, Identity, Known, LiveView, RawPlace, SourceError, Spot};
use crate::store::{PackId, Rows, Store};
use ehpc_proto::replication::message::Codec;
use ehpc_proto::replication::{Hash, ObjectId};
use parking_lot::Mutex;
use std::fs::File;
use std::sync::Arc;

/// Live rows as the writer's transaction sees them.
pub(super) struct CatalogView<'a>(pub(super) Rows<'a>);

impl LiveView for CatalogView<'_> {
    fn object(&self, id: ObjectId) -> Result<Option<Known>, SourceError> {
        let live = self.0.live_object(id)?;
        Ok(live.map(|live| Known { state: live.state, identity: live.mirror_inode.map(Identity) }))
    }

    fn child(&self, spot: &Spot) -> Result<Option<ObjectId>, SourceError> {
        Ok(self.0.entry(spot.parent, &spot.name)?)
    }

    fn entries_of(&self, child: ObjectId) -> Result<Vec<Spot>, SourceError> {
        let entries = self.0.entries_of(child)?;
        Ok(entries.into_iter().map(|entry| Spot { parent: entry.parent, name: entry.name }).collect())
    }

    fn children(
        &self,
        parent: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, ObjectId)>, SourceError> {
        Ok(self.0.children(parent, after, limit)?)
    }
}

/// Pack files held open.
const OPEN_PACKS: usize = 8;

/// Content from the packs.
pub(super) struct PackContent {
    store: Arc<Store>,
    /// Used last at the end.
    open: Mutex<Vec<(PackId, Arc<File>)>>,
}

impl PackContent {
    pub(super) fn new(store: Arc<Store>) -> PackContent {
        PackContent { store, open: Mutex::new(Vec::new()) }
    }
}

impl ContentSource for PackContent {
    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, SourceError> {
        Ok(self.store.read_blob(hash)?)
    }

    fn raw(&self, hash: &Hash) -> Result<Option<RawPlace>, SourceError> {
        let Some(at) = self.store.locate(hash)? else { return Ok(None) };
        if at.codec != Codec::Raw {
            return Ok(None);
        }
        let mut open = self.open.lock();
        let file = match open.iter().position(|(pack, _)| *pack == at.pack) {
            Some(found) => {
                let entry = open.remove(found);
                let file = entry.1.clone();
                open.push(entry);
                file
            }
            None => {
                let file = Arc::new(File::open(&at.path)?);
                if open.len() >= OPEN_PACKS {
                    open.remove(0);
                }
                open.push((at.pack, file.clone()));
                file
            }
        };
        Ok(Some(RawPlace { file, offset: at.offset }))
    }
}
