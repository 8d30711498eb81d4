//! The batch under construction, and its closing: what to ship of what the view has noted.

use super::overlay::View;
use crate::change::shadow::ShadowError;
use bytes::Bytes;
use ehpc_proto::replication::{Batch, Hash, ObjectId, ObjectState, Position, Timestamp, wire};
use std::collections::HashMap;

/// A batch is closed at so many object states...
const MOST_OBJECTS: usize = 2_000;
/// ... or so many names and objects touched ...
const MOST_TOUCHED: usize = 8_000;
/// ... or about so many bytes of them; the link's own limit is a frame of 8 MiB.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Attributes of one object may be this long (1,000 extended attributes); the batch is closed in time for it.
const STATE_BYTES: usize = 96;

/// States gathered for the next batch.
#[derive(Default)]
pub(crate) struct Draft {
    states: HashMap<ObjectId, ObjectState>,
    order: Vec<ObjectId>,
    bytes: usize,
}

/// A batch that is ready to be sent.
pub(crate) struct Closed {
    /// Where the stream stands with it.
    pub position: Position,
    /// As it travels.
    pub encoded: Bytes,
    /// Its cut.
    pub cut: u64,
    /// Object states in it.
    pub objects: usize,
}

impl Draft {
    /// Ships this state, in place of an earlier one in the same batch.
    pub(crate) fn put(&mut self, state: ObjectState) {
        self.bytes += state_bytes(&state);
        let id = state.id;
        match self.states.insert(id, state) {
            Some(earlier) => self.bytes -= state_bytes(&earlier),
            None => self.order.push(id),
        }
    }

    /// The object is gone: no state of it is shipped.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        if let Some(state) = self.states.remove(&id) {
            self.bytes -= state_bytes(&state);
        }
    }

    /// Should it be closed?
    pub(crate) fn is_full(&self, view: &View) -> bool {
        self.states.len() >= MOST_OBJECTS
            || view.open_size() >= MOST_TOUCHED
            || self.bytes + view.open_size() * 64 >= MOST_BYTES
    }

    /// Nothing was put.
    pub(crate) fn clear(&mut self) {
        *self = Draft::default();
    }

    /// Closes the batch after `last`, if there is anything to ship, and seals it in the view.
    pub(crate) fn close(
        &mut self,
        view: &mut View,
        last: Position,
        cut: u64,
        time: Timestamp,
    ) -> Result<Option<Closed>, ShadowError> {
        let entries = view.changed_entries()?;
        let destroyed = view.destroyed()?;
        let mut states = std::mem::take(&mut self.states);
        let objects: Vec<ObjectState> = self.order.iter().filter_map(|id| states.remove(id)).collect();
        self.clear();
        if objects.is_empty() && entries.is_empty() && destroyed.is_empty() {
            view.drop_open();
            return Ok(None);
        }
        let count = objects.len();
        let number = last.number + 1;
        let batch = Batch { number, previous: last.chain, cut, time, objects, entries, destroyed };
        let encoded: Bytes = wire::encode_batch(&batch).into();
        let position = Position { stream: last.stream, number, chain: chain_of(&encoded) };
        view.seal(position);
        Ok(Some(Closed { position, encoded, cut, objects: count }))
    }
}

fn chain_of(encoded: &[u8]) -> Hash {
    wire::chain(encoded)
}

fn state_bytes(state: &ObjectState) -> usize {
    let xattrs: usize = state.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 8).sum();
    let content = match &state.content {
        ehpc_proto::replication::Manifest::Inline(extents) => extents.len() * 40,
        ehpc_proto::replication::Manifest::Paged { .. } => 36,
    };
    STATE_BYTES + state.target.len() + xattrs + content
}
