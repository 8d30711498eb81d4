//! A stream of bytes as content-named chunks in a sink, with its manifest; and what is made of it: a batch.

use super::error::BaseError;
use super::record::BaseRecord;
use super::sink::BaseSink;
use crate::store::chunker;
use crate::store::manifest::{Builder, NamedBlob};
use ehpc_proto::replication::message::{Blob, BlobKind, Codec};
use ehpc_proto::replication::{
    Batch, EntryState, Extent, Hash, Kind, MAX_CHUNK, Manifest, ObjectId, ObjectState, Position, Timestamp,
    wire,
};

/// Chunks that are asked about at once are at least so many bytes.
const ASK_BYTES: usize = 4 << 20;
/// Blobs that are handed over at once, bytes.
const SEND_BYTES: usize = 1 << 20;
/// As the store's packs are compressed otherwise: fast, and most of what there is to gain in SQL.
const ZSTD_LEVEL: i32 = 1;

/// Cuts a stream and hands it to a sink. Memory: a few chunks and one page.
pub(super) struct Content<'a> {
    sink: &'a mut dyn BaseSink,
    builder: Builder,
    /// Not yet cut.
    tail: Vec<u8>,
    waiting: Vec<(Hash, Vec<u8>)>,
    waiting_bytes: usize,
    /// Of chunks that the sink lacked.
    new_bytes: u64,
}

impl<'a> Content<'a> {
    pub(super) fn new(sink: &'a mut dyn BaseSink) -> Content<'a> {
        Content {
            sink,
            builder: Builder::default(),
            tail: Vec::with_capacity(2 * MAX_CHUNK),
            waiting: Vec::new(),
            waiting_bytes: 0,
            new_bytes: 0,
        }
    }

    /// Bytes of it that the sink did not have, so far.
    pub(super) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.builder.len() + self.tail.len() as u64
    }

    /// The next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), BaseError> {
        self.tail.extend_from_slice(bytes);
        self.cut(false)
    }

    /// No more bytes: everything is in the sink. The manifest, its length, new bytes.
    pub(super) fn finish(mut self) -> Result<(Manifest, u64, u64), BaseError> {
        self.cut(true)?;
        self.ship()?;
        let len = self.builder.len();
        let builder = std::mem::take(&mut self.builder);
        let (manifest, pages) = builder.finish()?;
        self.pages(pages)?;
        Ok((manifest, len, self.new_bytes))
    }

    fn cut(&mut self, eof: bool) -> Result<(), BaseError> {
        let mut from = 0;
        while let Some(len) = chunker::cut(&self.tail[from..], eof) {
            let chunk = self.tail[from..from + len].to_vec();
            from += len;
            let hash = Hash::of(&chunk);
            self.builder.push(Extent::Data { hash, len: len as u32 })?;
            self.waiting_bytes += len;
            self.waiting.push((hash, chunk));
            if self.waiting_bytes >= ASK_BYTES {
                self.ship()?;
            }
        }
        self.tail.drain(..from);
        Ok(())
    }

    /// Asks which of the waiting chunks are lacking and hands those over.
    fn ship(&mut self) -> Result<(), BaseError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let hashes: Vec<Hash> = waiting.iter().map(|(hash, _)| *hash).collect();
        if !hashes.is_empty() {
            let lacking = self.sink.lacking(&hashes).map_err(BaseError::Sink)?;
            let (mut blobs, mut bytes) = (Vec::new(), 0);
            for ((hash, chunk), _) in waiting.into_iter().zip(lacking).filter(|(_, lacks)| *lacks) {
                self.new_bytes += chunk.len() as u64;
                let blob = blob(BlobKind::Chunk, hash, chunk);
                if bytes + blob.bytes.len() > SEND_BYTES {
                    self.sink.blobs(std::mem::take(&mut blobs)).map_err(BaseError::Sink)?;
                    bytes = 0;
                }
                bytes += blob.bytes.len();
                blobs.push(blob);
            }
            if !blobs.is_empty() {
                self.sink.blobs(blobs).map_err(BaseError::Sink)?;
            }
        }
        let pages = self.builder.take_blobs();
        self.pages(pages)
    }

    fn pages(&mut self, pages: Vec<NamedBlob>) -> Result<(), BaseError> {
        for (hash, bytes) in pages {
            if self.sink.lacking(&[hash]).map_err(BaseError::Sink)?.first() == Some(&true) {
                self.sink.blobs(vec![blob(BlobKind::Page, hash, bytes)]).map_err(BaseError::Sink)?;
            }
        }
        Ok(())
    }
}

fn blob(kind: BlobKind, hash: Hash, bytes: Vec<u8>) -> Blob {
    let raw_len = bytes.len() as u32;
    let (codec, bytes) = match zstd::bulk::compress(&bytes, ZSTD_LEVEL) {
        Ok(packed) if packed.len() < bytes.len() => (Codec::Zstd, packed),
        _ => (Codec::Raw, bytes),
    };
    Blob { kind, hash, raw_len, codec, bytes: bytes.into() }
}

/// The objects of base `number` in the store: its SQL and its record.
pub(super) fn objects_of(number: u64) -> (ObjectId, ObjectId) {
    (ObjectId(2 * number), ObjectId(2 * number + 1))
}

/// The batch after `last` that holds a base: two files in the root directory, `N.sql` and `N.json`.
pub(super) fn batch(
    last: Position,
    record: &BaseRecord,
    sql: (Manifest, u64),
    json: (Manifest, u64),
) -> Batch {
    let number = record.number;
    let (sql_id, json_id) = objects_of(number);
    let time = record.taken_at;
    let mut objects = Vec::new();
    // The root directory comes with the first.
    if number == 1 {
        objects.push(object(ObjectId::ROOT, Kind::Directory, 0o700, time, (Manifest::EMPTY, 0)));
    }
    objects.push(object(sql_id, Kind::File, 0o600, time, sql));
    objects.push(object(json_id, Kind::File, 0o600, time, json));
    let entry = |name: String, child| EntryState {
        parent: ObjectId::ROOT,
        name: name.into_bytes(),
        child: Some(child),
    };
    let entries = vec![entry(format!("{number}.json"), json_id), entry(format!("{number}.sql"), sql_id)];
    Batch { number, previous: last.chain, cut: number, time, objects, entries, destroyed: Vec::new() }
}

fn object(
    id: ObjectId,
    kind: Kind,
    mode: u16,
    time: Timestamp,
    (content, size): (Manifest, u64),
) -> ObjectState {
    ObjectState {
        id,
        key: id.0.to_be_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        size,
        mtime: time,
        rdev: (0, 0),
        target: Vec::new(),
        xattrs: Vec::new(),
        content,
        fuzzy: false,
    }
}

/// Puts the record in, then the batch; returns when it is durable.
pub(super) fn commit(
    sink: &mut dyn BaseSink,
    mut record: BaseRecord,
    sql: (Manifest, u64),
) -> Result<BaseRecord, BaseError> {
    let last = sink.position();
    record.number = last.number + 1;
    let text = serde_json::to_vec_pretty(&record)
        .map_err(|error| BaseError::Damaged { number: record.number, reason: error.to_string() })?;
    let mut content = Content::new(sink);
    content.push(&text)?;
    let (manifest, len, _) = content.finish()?;
    let batch = batch(last, &record, sql, (manifest, len));
    sink.commit(record.number, wire::encode_batch(&batch).into()).map_err(BaseError::Sink)?;
    Ok(record)
}
