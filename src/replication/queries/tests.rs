//! Every question against a real store.

use super::*;
use crate::store::Options;
use ehpc_proto::replication::digest::{bucket_digest, listing_digest, object_digest};
use ehpc_proto::replication::message::{BlobKind, Codec, LiveEntry};
use ehpc_proto::replication::{
    EntryState, Extent, Kind, Manifest, ObjectState, StreamId, Timestamp, Xattr, wire,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// Applies the catalog when somebody waits for it, as the applier does at its own pace.
struct Applying {
    store: Arc<Store>,
    stopped: AtomicBool,
}

impl Backstage for Applying {
    fn wait_applied(&self, batch: u64, _timeout: Duration) -> u64 {
        let mut writer = self.store.writer().unwrap();
        while !self.stopped.load(Ordering::SeqCst) && writer.applied() < batch {
            let next = self.store.read_batch(writer.applied() + 1).unwrap();
            writer.apply(&next).unwrap();
        }
        writer.commit().unwrap();
        writer.applied()
    }

    fn read_data(&self, part: &mut ReadPart<'_>) -> Result<(), String> {
        for objects in 1..=3 {
            let progress = ReadProgress { objects, objects_total: 3, bytes: 10 * objects };
            let damage = Damage { path: b"a".to_vec(), object: ObjectId(2), reason: "differs".to_owned() };
            if !part(progress, vec![damage], vec![]) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn repair(&self, objects: &[ObjectId]) -> Result<Vec<ObjectId>, String> {
        if objects.len() > 1 { Err("the mirror is off".to_owned()) } else { Ok(objects.to_vec()) }
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Arc<Store>,
    applying: Arc<Applying>,
    queries: StoreQueries,
    last: Position,
}

fn chunk(content: &[u8]) -> Blob {
    Blob {
        kind: BlobKind::Chunk,
        hash: Hash::of(content),
        raw_len: content.len() as u32,
        codec: Codec::Raw,
        bytes: content.to_vec().into(),
    }
}

fn object(id: u64, kind: Kind, content: &[u8]) -> ObjectState {
    let extents = if content.is_empty() {
        vec![]
    } else {
        vec![Extent::Data { hash: Hash::of(content), len: content.len() as u32 }]
    };
    ObjectState {
        id: ObjectId(id),
        key: vec![1, id as u8],
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: content.len() as u64,
        mtime: Timestamp::default(),
        rdev: (0, 0),
        target: vec![],
        xattrs: vec![],
        content: Manifest::Inline(extents),
        fuzzy: false,
    }
}

fn entry(name: &str, child: Option<u64>) -> EntryState {
    EntryState { parent: ObjectId::ROOT, name: name.as_bytes().to_vec(), child: child.map(ObjectId) }
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Options::default()).unwrap();
        let applying = Arc::new(Applying { store: store.clone(), stopped: AtomicBool::new(false) });
        let queries = StoreQueries::new(store.clone(), applying.clone());
        Bench { _folder: folder, store, applying, queries, last: Position::start(StreamId([3; 16])) }
    }

    fn put(&mut self, blobs: &[Blob], objects: Vec<ObjectState>, entries: Vec<EntryState>) {
        let batch = Batch {
            number: self.last.number + 1,
            previous: self.last.chain,
            cut: 0,
            time: Timestamp::default(),
            objects,
            entries,
            destroyed: vec![],
        };
        blobs.iter().for_each(|blob| BackupStore::put_blob(&*self.store, blob).unwrap());
        let encoded = wire::encode_batch(&batch);
        BackupStore::append_batch(&*self.store, &encoded, &batch).unwrap();
        assert_eq!(BackupStore::sync(&*self.store).unwrap(), batch.number);
        self.last = Position { number: batch.number, chain: wire::chain(&encoded), ..self.last };
        assert_eq!(BackupStore::position(&*self.store), Some(self.last));
    }

    /// The root and a file `a`, which then changes; `b` comes and goes.
    fn filled() -> Bench {
        let mut bench = Bench::new();
        let root = object(1, Kind::Directory, b"");
        let file = object(2, Kind::File, b"one");
        bench.put(
            &[chunk(b"one")],
            vec![root, file, object(3, Kind::File, b"")],
            vec![entry("a", Some(2)), entry("b", Some(3))],
        );
        bench.put(&[chunk(b"two")], vec![object(2, Kind::File, b"two")], vec![entry("b", None)]);
        bench
    }

    /// All parts, each with "more follow".
    fn parts(&self, query: Query) -> Vec<(Answer, bool)> {
        let mut parts = Vec::new();
        self.queries.answer(query, &mut |answer, more| {
            parts.push((answer, more));
            true
        });
        assert!(
            parts.iter().rev().skip(1).all(|(_, more)| *more) && parts.last().is_some_and(|(_, more)| !more)
        );
        parts
    }

    fn answer(&self, query: Query) -> Answer {
        let mut parts = self.parts(query);
        assert_eq!(parts.len(), 1);
        parts.remove(0).0
    }
}

#[test]
fn live_and_touched_are_those_of_the_last_durable_batch() {
    let bench = Bench::filled();
    let live = bench.answer(Query::Live { after: ObjectId(1), limit: 100 });
    let Answer::Live { objects, entries } = live else { panic!("{live:?}") };
    assert_eq!(objects[0], object(2, Kind::File, b"two"));
    assert_eq!(entries, [LiveEntry { parent: ObjectId::ROOT, name: b"a".to_vec(), child: ObjectId(2) }]);
    let touched = bench.answer(Query::Touched { since: 1, after: ObjectId(0) });
    let Answer::Touched { objects, entries } = touched else { panic!("{touched:?}") };
    assert!(objects.contains(&(ObjectId(2), vec![1, 2])), "{objects:?}");
    assert!(entries.contains(&(ObjectId::ROOT, b"b".to_vec())), "{entries:?}");
}

#[test]
fn versions_and_buckets_are_what_verify_compares() {
    let bench = Bench::filled();
    let versions = bench.answer(Query::Versions { objects: vec![ObjectId(2)], from: 1, to: 2 });
    let Answer::Versions(lists) = versions else { panic!("{versions:?}") };
    let states: Vec<_> = lists[0].iter().map(|version| version.state.clone().unwrap().content).collect();
    assert_eq!(states, [object(2, Kind::File, b"one").content, object(2, Kind::File, b"two").content]);
    let buckets = bench.answer(Query::Buckets { applied: 2, first: 0, count: 1 });
    let Answer::Buckets { digests, .. } = buckets else { panic!("{buckets:?}") };
    let listing = listing_digest([(&b"a"[..], ObjectId(2))].into_iter());
    let root = object_digest(object(1, Kind::Directory, b"").digest(), Some(listing));
    let file = object_digest(object(2, Kind::File, b"two").digest(), None);
    let limbo = object_digest(object(3, Kind::File, b"").digest(), None);
    let expected = bucket_digest(
        [(1, root), (2, file), (3, limbo)].map(|(id, digest)| (ObjectId(id), digest)).into_iter(),
    );
    assert_eq!(digests, [expected]);
}

#[test]
fn long_answers_come_in_parts_that_fit_a_frame() {
    let mut bench = Bench::new();
    let contents: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 250_000]).collect();
    let blobs: Vec<Blob> = contents.iter().map(|content| chunk(content)).collect();
    let mut objects: Vec<ObjectState> =
        (0..40u64).map(|n| object(n + 2, Kind::File, &contents[n as usize])).collect();
    for state in &mut objects[..30] {
        state.xattrs =
            (0..5u8).map(|n| Xattr { name: vec![b'u', b'0' + n], value: vec![0; 40_000] }).collect();
    }
    let ids: Vec<ObjectId> = objects.iter().map(|state| state.id).collect();
    let entries = (0..40u64).map(|n| entry(&n.to_string(), Some(n + 2))).collect();
    objects.push(object(1, Kind::Directory, b""));
    bench.put(&blobs, objects, entries);
    let mut hashes: Vec<Hash> = blobs.iter().map(|blob| blob.hash).collect();
    hashes.push(Hash([0; 32]));
    let fits = |answer: &Answer| {
        let message =
            ehpc_proto::replication::message::ToPrimary::Answer { id: 1, more: true, answer: answer.clone() };
        wire::encode_to_primary(&message).len() < wire::MAX_FRAME
    };
    let parts = bench.parts(Query::Blobs(hashes));
    assert!(parts.len() > 2 && parts.iter().all(|(answer, _)| fits(answer)));
    let found: Vec<Option<Vec<u8>>> = parts
        .into_iter()
        .flat_map(|(answer, _)| match answer {
            Answer::Blobs(blobs) => blobs,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<Option<Vec<u8>>> = contents.into_iter().map(Some).chain([None]).collect();
    assert!(found == expected);
    let parts = bench.parts(Query::Versions { objects: ids.clone(), from: 1, to: 1 });
    assert!(parts.len() > 1 && parts.iter().all(|(answer, _)| fits(answer)), "{} parts", parts.len());
    let lists = parts.iter().map(|(answer, _)| match answer {
        Answer::Versions(lists) => lists.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(lists.sum::<usize>(), ids.len());
}

#[test]
fn read_data_reports_its_parts_and_an_end_and_repair_what_it_did() {
    let bench = Bench::filled();
    let parts = bench.parts(Query::ReadData { applied: 2 });
    let damages = parts.iter().map(|(answer, _)| match answer {
        Answer::ReadData { damage, .. } => damage.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(damages.collect::<Vec<_>>(), [1, 1, 1, 0]);
    assert!(matches!(&parts[3].0, Answer::ReadData { progress, .. } if progress.objects == 3));
    let repaired = bench.answer(Query::Repair { objects: vec![ObjectId(2)] });
    assert_eq!(repaired, Answer::Repaired { resend: vec![ObjectId(2)] });
    let failed = bench.answer(Query::Repair { objects: vec![ObjectId(2); 2] });
    assert!(matches!(failed, Answer::Failed { reason } if reason == "the mirror is off"));
    let mut seen = 0;
    bench.queries.answer(Query::ReadData { applied: 2 }, &mut |_, _| {
        seen += 1;
        false
    });
    assert_eq!(seen, 1, "an asker that is gone is not told more");
}

#[test]
fn a_catalog_that_does_not_move_is_an_answer_too() {
    let mut bench = Bench::filled();
    bench.applying.stopped.store(true, Ordering::SeqCst);
    bench.queries.stuck_after = Duration::from_millis(30);
    let failed = bench.answer(Query::Live { after: ObjectId(0), limit: 1 });
    assert!(
        matches!(&failed, Answer::Failed { reason } if reason.contains("applied batch 0 of 2")),
        "{failed:?}"
    );
}

#[test]
fn faults_of_the_store_are_told_apart() {
    let bench = Bench::filled();
    let wrong = Blob { hash: Hash([1; 32]), ..chunk(b"x") };
    assert!(matches!(BackupStore::put_blob(&*bench.store, &wrong), Err(StoreFault::Rejected { .. })));
    let batch = bench.store.read_batch(2).unwrap();
    let encoded = wire::encode_batch(&batch);
    let repeated = BackupStore::append_batch(&*bench.store, &encoded, &batch);
    assert!(matches!(repeated, Err(StoreFault::Rejected { .. })));
    assert!(BackupStore::knows(&*bench.store, &bench.last).unwrap());
    let other = Position { chain: Hash([0; 32]), ..bench.last };
    assert!(!BackupStore::knows(&*bench.store, &other).unwrap());
    assert_eq!(
        BackupStore::lacking(&*bench.store, &[Hash::of(b"one"), Hash::of(b"no")]).unwrap(),
        [false, true]
    );
}
