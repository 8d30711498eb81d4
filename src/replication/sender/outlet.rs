//! Blobs on their way out: what the backup is not known to have is asked about in bulk, compressed where that pays,
//! and sent in messages of about a megabyte.

use crate::replication::link::{Link, LinkDown};
use bytes::Bytes;
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::{Blob, BlobKind, Codec};
use std::collections::HashSet;

/// Chunks that wait to be asked about, bytes.
const ASK_BYTES: usize = 4 * 1024 * 1024;
/// Hashes in one question.
const ASK_HASHES: usize = 4_096;
/// Blob bytes in one message.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// A message holds at most so many blobs.
const MESSAGE_BLOBS: usize = 2_048;
/// Names remembered in each of two generations.
const REMEMBERED: usize = 65_536;
/// A chunk longer than this is compressed whole only if a sample of it shrinks.
const SAMPLE_FROM: usize = 16 * 1024;
const SAMPLE: usize = 4 * 1024;

/// Names sent on this connection, the newest 65,536 to 131,072 of them.
#[derive(Default)]
struct Recent {
    newer: HashSet<Hash>,
    older: HashSet<Hash>,
}

impl Recent {
    /// True if it was there.
    fn insert(&mut self, hash: Hash) -> bool {
        if self.newer.contains(&hash) || self.older.contains(&hash) {
            return true;
        }
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash);
        false
    }
}

/// Blobs of one connection that are not sent yet.
pub(crate) struct Outlet {
    recent: Recent,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    asking: Vec<(Hash, Bytes)>,
    asking_bytes: usize,
    /// Asked about and lacking; sent once the next question is on its way.
    lacking: Vec<(Hash, Bytes)>,
    ready: Vec<Blob>,
    ready_bytes: usize,
    /// Chunks that were not sent, since the last message.
    skipped_bytes: usize,
}

impl Default for Outlet {
    fn default() -> Outlet {
        Outlet {
            recent: Recent::default(),
            // Without one everything travels as it is.
            compressor: zstd::bulk::Compressor::new(1).ok(),
            asking: Vec::new(),
            asking_bytes: 0,
            lacking: Vec::new(),
            ready: Vec::new(),
            ready_bytes: 0,
            skipped_bytes: 0,
        }
    }
}

impl Outlet {
    /// A new connection knows nothing of what went over the last.
    pub(crate) fn reset(&mut self) {
        *self = Outlet::default();
    }

    /// What went over this connection may not be on the backup any more.
    pub(crate) fn forget_sent(&mut self) {
        self.recent = Recent::default();
    }

    /// A chunk; `ask`: find out first whether the backup lacks it.
    pub(crate) fn chunk(
        &mut self,
        link: &mut dyn Link,
        hash: Hash,
        bytes: Bytes,
        ask: bool,
    ) -> Result<(), LinkDown> {
        if self.recent.insert(hash) {
            self.skipped_bytes += bytes.len();
            return Ok(());
        }
        if !ask {
            return self.add(link, BlobKind::Chunk, hash, bytes);
        }
        self.asking_bytes += bytes.len();
        self.asking.push((hash, bytes));
        if self.asking_bytes >= ASK_BYTES || self.asking.len() >= ASK_HASHES {
            self.ask(link)?;
        }
        Ok(())
    }

    /// A manifest page or root.
    pub(crate) fn page(&mut self, link: &mut dyn Link, hash: Hash, bytes: Bytes) -> Result<(), LinkDown> {
        if self.recent.insert(hash) {
            return Ok(());
        }
        self.add(link, BlobKind::Page, hash, bytes)
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, link: &mut dyn Link) -> Result<(), LinkDown> {
        self.ask(link)?;
        self.release(link)?;
        self.send(link)
    }

    /// What is lacking waits for the next question to overtake it: an answer never waits for chunks on their way.
    fn ask(&mut self, link: &mut dyn Link) -> Result<(), LinkDown> {
        if self.asking.is_empty() {
            return Ok(());
        }
        let asked = std::mem::take(&mut self.asking);
        self.asking_bytes = 0;
        let hashes: Vec<Hash> = asked.iter().map(|(hash, _)| *hash).collect();
        let lacking = link.lacking(&hashes)?;
        self.release(link)?;
        for (chunk, lacks) in asked.into_iter().zip(lacking) {
            match lacks {
                true => self.lacking.push(chunk),
                false => self.skipped_bytes += chunk.1.len(),
            }
        }
        Ok(())
    }

    fn release(&mut self, link: &mut dyn Link) -> Result<(), LinkDown> {
        for (hash, bytes) in std::mem::take(&mut self.lacking) {
            self.add(link, BlobKind::Chunk, hash, bytes)?;
        }
        Ok(())
    }

    fn add(&mut self, link: &mut dyn Link, kind: BlobKind, hash: Hash, raw: Bytes) -> Result<(), LinkDown> {
        let raw_len = raw.len() as u32;
        let (codec, bytes) = match self.compress(kind, &raw) {
            Some(smaller) => (Codec::Zstd, smaller.into()),
            // A chunk keeps the whole buffer that it was read into: where most of that is not sent, it would fill memory.
            None if self.skipped_bytes > self.ready_bytes => (Codec::Raw, Bytes::copy_from_slice(&raw)),
            None => (Codec::Raw, raw),
        };
        if self.ready_bytes + bytes.len() > MESSAGE_BYTES || self.ready.len() >= MESSAGE_BLOBS {
            self.send(link)?;
        }
        self.ready_bytes += bytes.len();
        self.ready.push(Blob { kind, hash, raw_len, codec, bytes });
        Ok(())
    }

    /// `None` when it would not save a sixteenth. Pages are full of hashes, which do not shrink.
    fn compress(&mut self, kind: BlobKind, raw: &[u8]) -> Option<Vec<u8>> {
        if kind == BlobKind::Page || raw.len() < 64 {
            return None;
        }
        let compressor = self.compressor.as_mut()?;
        let pays = |raw: usize, compressed: usize| compressed < raw - raw / 16;
        if raw.len() > SAMPLE_FROM {
            let middle = raw.len() / 2;
            let sample = raw.get(middle..middle + SAMPLE)?;
            if !pays(SAMPLE, compressor.compress(sample).ok()?.len()) {
                return None;
            }
        }
        let compressed = compressor.compress(raw).ok()?;
        pays(raw.len(), compressed.len()).then_some(compressed)
    }

    fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkDown> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let blobs = std::mem::take(&mut self.ready);
        self.ready_bytes = 0;
        self.skipped_bytes = 0;
        link.send_blobs(blobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehpc_proto::replication::message::{Answer, Query};
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};
    use std::sync::Arc;

    #[derive(Default)]
    struct Recorder {
        messages: Vec<Vec<Blob>>,
        questions: Vec<usize>,
        held: HashSet<Hash>,
    }

    impl Link for Recorder {
        fn send_blobs(&mut self, blobs: Vec<Blob>) -> Result<(), LinkDown> {
            self.messages.push(blobs);
            Ok(())
        }
        fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, LinkDown> {
            self.questions.push(hashes.len());
            Ok(hashes.iter().map(|hash| !self.held.contains(hash)).collect())
        }
        fn send_batch(&mut self, _: u64, _: Bytes) -> Result<(), LinkDown> {
            Ok(())
        }
        fn poll_acks(&mut self) -> Option<u64> {
            None
        }
        fn ask(&mut self, _: Query) -> Result<Answer, LinkDown> {
            Err(LinkDown::Closed)
        }
        fn check(&self) -> Result<(), LinkDown> {
            Ok(())
        }
        fn on_event(&mut self, _: Arc<dyn Fn() + Send + Sync>) {}
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn chunks_of_large_files_are_asked_about_in_bulk_and_sent_once() {
        let (mut outlet, mut link) = (Outlet::default(), Recorder::default());
        let chunks: Vec<Vec<u8>> = (0..100).map(|n| noise(n, 60_000)).collect();
        link.held.insert(Hash::of(&chunks[3]));
        for chunk in chunks.iter().chain(&chunks) {
            outlet.chunk(&mut link, Hash::of(chunk), chunk.clone().into(), true).unwrap();
        }
        outlet.chunk(&mut link, Hash::of(b"small"), Bytes::from_static(b"small"), false).unwrap();
        outlet.flush(&mut link).unwrap();
        assert_eq!(link.questions.iter().sum::<usize>(), 100);
        assert_eq!(link.questions.len(), 2);
        let sent: Vec<&Blob> = link.messages.iter().flatten().collect();
        assert_eq!(sent.len(), 100, "99 lacking ones and the small one");
        assert!(sent.iter().all(|blob| blob.codec == Codec::Raw), "noise does not shrink");
        for message in &link.messages {
            assert!(message.iter().map(|blob| blob.bytes.len()).sum::<usize>() <= MESSAGE_BYTES);
        }
    }

    #[test]
    fn what_shrinks_is_compressed() {
        let (mut outlet, mut link) = (Outlet::default(), Recorder::default());
        let text = b"all work and no play ".repeat(5_000);
        for bytes in [text.as_slice(), &text[..500], b"tiny"] {
            outlet.chunk(&mut link, Hash::of(bytes), Bytes::copy_from_slice(bytes), false).unwrap();
        }
        outlet.page(&mut link, Hash::of(&text[1..]), Bytes::copy_from_slice(&text[1..])).unwrap();
        outlet.flush(&mut link).unwrap();
        let codecs: Vec<Codec> = link.messages.iter().flatten().map(|blob| blob.codec).collect();
        assert_eq!(codecs, [Codec::Zstd, Codec::Zstd, Codec::Raw, Codec::Raw]);
        let first = &link.messages[0][0];
        assert_eq!(zstd::bulk::decompress(&first.bytes, first.raw_len as usize).unwrap(), text);
    }

    #[test]
    fn a_new_connection_gets_everything_again() {
        let (mut outlet, mut link) = (Outlet::default(), Recorder::default());
        for _ in 0..2 {
            outlet.chunk(&mut link, Hash::of(b"x"), Bytes::from_static(b"x"), false).unwrap();
            outlet.flush(&mut link).unwrap();
            outlet.reset();
        }
        assert_eq!(link.messages.len(), 2);
    }

    #[test]
    fn a_few_chunks_of_a_large_buffer_do_not_keep_it() {
        let (mut outlet, mut link) = (Outlet::default(), Recorder::default());
        let buffer = Bytes::from(noise(1, 600_000));
        let chunks: Vec<Bytes> = (0..10).map(|n| buffer.slice(n * 60_000..(n + 1) * 60_000)).collect();
        link.held = chunks[..9].iter().map(|chunk| Hash::of(chunk)).collect();
        for chunk in &chunks {
            outlet.chunk(&mut link, Hash::of(chunk), chunk.clone(), true).unwrap();
        }
        outlet.flush(&mut link).unwrap();
        let sent = |link: &Recorder| link.messages.concat().pop().unwrap().bytes;
        assert_eq!(sent(&link), chunks[9]);
        assert_ne!(sent(&link).as_ptr(), chunks[9].as_ptr(), "a copy");
        let all = Bytes::from(noise(2, 60_000));
        outlet.chunk(&mut link, Hash::of(&all), all.clone(), true).unwrap();
        outlet.flush(&mut link).unwrap();
        assert_eq!(sent(&link).as_ptr(), all.as_ptr(), "no copy");
    }
}
