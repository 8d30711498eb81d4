//! Batches that the backup does not have after a reconnection: sent again, with the blobs that went down with the
//! old connection read from the disk once more.

use super::Sender;
use crate::change::shadow::Row;
use crate::host::ObjectKey;
use crate::replication::link::Link;
use crate::replication::resolve::Fault;
use crate::store::manifest::Index;
use bytes::Bytes;
use ehpc_proto::replication::{Batch, Extent, Hash, Kind, Manifest, ObjectState, Position, wire};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Hashes in one question.
const ASK: usize = 4_096;

impl Sender {
    /// The backup has everything up to `there`, which is in our history.
    pub(super) fn resume(&mut self, there: Position, link: &mut dyn Link) -> Result<(), Fault> {
        let acks = &self.resolver.acks;
        let newest = acks.in_flight.back().map(|batch| batch.position);
        let ours = self.resolver.view.shadow().meta().position;
        let here = newest.or(ours).unwrap_or(Position::start(there.stream));
        let same = acks.in_flight.iter().map(|batch| batch.position).chain(ours).any(|known| known == there);
        if same || there.number == 0 {
            self.resolver.acks.acknowledged(there.number, &mut self.resolver.view)?;
            self.last = Some(here);
            return self.send_again(link);
        }
        // Batches that we do not know of any more, or another history since our position.
        let acknowledged = self.resolver.acks.cut;
        if let Some(first) = self.resolver.acks.in_flight.front().map(|batch| batch.position.number) {
            self.resolver.abandon(first, acknowledged)?;
            self.resolver.acks.in_flight.clear();
        }
        self.catch_up(there, link)
    }

    /// Sends everything in flight; from the first batch whose content is gone on, all is made anew.
    fn send_again(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        let batches: Vec<(Position, Bytes)> = self
            .resolver
            .acks
            .in_flight
            .iter()
            .map(|batch| (batch.position, batch.encoded.clone()))
            .collect();
        for (position, encoded) in batches {
            let complete = match wire::decode_batch(&encoded) {
                Ok(batch) => self.blobs_again(&batch, link)?,
                Err(_) => false,
            };
            if !complete {
                let first = position.number;
                tracing::info!(
                    batch = first,
                    "content of a batch that was under way has changed; it is made anew"
                );
                let reached = self.resolver.acks.cut_below(first);
                self.resolver.abandon(first, reached)?;
                self.resolver.acks.in_flight.retain(|batch| batch.position.number < first);
                let newest = self.resolver.acks.in_flight.back().map(|batch| batch.position);
                self.last = newest
                    .or(self.resolver.view.shadow().meta().position)
                    .or(Some(Position::start(position.stream)));
                return Ok(());
            }
            self.resolver.outlet.flush(link)?;
            link.send_batch(position.number, encoded)?;
        }
        Ok(())
    }

    /// Sends what the backup lacks of a batch's content; false if some of it is not to be had any more.
    fn blobs_again(&mut self, batch: &Batch, link: &mut dyn Link) -> Result<bool, Fault> {
        let mut wanted = Wanted::default();
        for state in &batch.objects {
            if state.kind == Kind::File && !self.content_again(state, &mut wanted, link)? {
                return Ok(false);
            }
        }
        self.lacking_again(&mut wanted, link)
    }

    fn content_again(
        &mut self,
        state: &ObjectState,
        wanted: &mut Wanted,
        link: &mut dyn Link,
    ) -> Result<bool, Fault> {
        let Some(key) = ObjectKey::from_bytes(&state.key) else { return Ok(false) };
        let object = wanted.object(key);
        if let Manifest::Paged { root } = &state.content
            && !self.page_again(root, link)?
        {
            return Ok(false);
        }
        let index = {
            let view = &self.resolver.view;
            match Index::open(&state.content, &mut |hash| view.page(hash)) {
                Ok(index) => index,
                Err(_) => return Ok(false),
            }
        };
        for page in 0..index.page_count() {
            if let Some(named) = index.page_refs().get(page)
                && !self.page_again(&named.hash, link)?
            {
                return Ok(false);
            }
            let extents = {
                let view = &self.resolver.view;
                match index.page(page, &mut |hash| view.page(hash)) {
                    Ok(extents) => extents.into_owned(),
                    Err(_) => return Ok(false),
                }
            };
            let mut at = index.page_start(page);
            for extent in extents {
                if let Extent::Data { hash, len } = extent {
                    wanted.chunks.push(Chunk { hash, object, at, len });
                }
                at += extent.len();
            }
            if wanted.chunks.len() >= ASK && !self.lacking_again(wanted, link)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn page_again(&mut self, hash: &Hash, link: &mut dyn Link) -> Result<bool, Fault> {
        if self.resolver.view.shadow().holds_page(hash)? {
            return Ok(true); // of acknowledged content
        }
        match self.resolver.view.shadow().page(hash)? {
            Some(bytes) => {
                self.resolver.outlet.page(link, *hash, bytes.into())?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn lacking_again(&mut self, wanted: &mut Wanted, link: &mut dyn Link) -> Result<bool, Fault> {
        let chunks = std::mem::take(&mut wanted.chunks);
        for asked in chunks.chunks(ASK) {
            let hashes: Vec<Hash> = asked.iter().map(|chunk| chunk.hash).collect();
            let lacking = link.lacking(&hashes)?;
            for (chunk, lacks) in asked.iter().zip(lacking) {
                if !lacks {
                    continue;
                }
                let Some(file) = wanted.open(chunk.object, &self.resolver.tree) else { return Ok(false) };
                let mut bytes = vec![0; chunk.len as usize];
                if file.read_exact_at(&mut bytes, chunk.at).is_err() || Hash::of(&bytes) != chunk.hash {
                    return Ok(false);
                }
                self.resolver.outlet.chunk(link, chunk.hash, bytes.into(), false)?;
            }
        }
        Ok(true)
    }
}

/// A chunk of a batch, and where on the disk it was.
struct Chunk {
    hash: Hash,
    object: usize,
    at: u64,
    len: u32,
}

/// Chunks to be asked about, and the files they are of.
#[derive(Default)]
struct Wanted {
    objects: Vec<ObjectKey>,
    chunks: Vec<Chunk>,
    open: Option<(usize, File)>,
}

impl Wanted {
    fn object(&mut self, key: ObjectKey) -> usize {
        self.objects.push(key);
        self.objects.len() - 1
    }

    fn open(&mut self, object: usize, tree: &crate::host::Tree) -> Option<&File> {
        if self.open.as_ref().is_none_or(|(held, _)| *held != object) {
            self.open = Some((object, tree.open_read(self.objects.get(object)?).ok()?));
        }
        self.open.as_ref().map(|(_, file)| file)
    }
}

/// A row rebuilt from a state of the backup: no disk was compared with it yet.
pub(super) fn row_of_backup(state: &ObjectState) -> Option<Row> {
    let key = ObjectKey::from_bytes(&state.key)?;
    Some(Row::of_state(state, key, Row::UNREAD, true))
}
