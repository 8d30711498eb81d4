//! The store as a whole, on a real directory; `crash` has it on a disk that fails.

mod crash;
pub(crate) mod world;

use super::catalog::CatalogFile;
use super::{Options, Recovery, Series, Store, StoreError};
use ehpc_proto::replication::message::{BlobKind, Codec};
use ehpc_proto::replication::{Extent, Hash, Manifest, ObjectId, Position, StreamId};
use rand::Rng;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use world::{Shipment, World, blob};

/// A private directory for a store.
pub(crate) struct Place(TempDir);

const SMALL: Options = Options { pack_bytes: 20_000, flush_bytes: Some(4000), drop_cached: true };

impl Place {
    pub(crate) fn new() -> Place {
        // In memory where there is such a place: SQLite syncs a lot, and no crash of the real machine is tried.
        Place(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(crate) fn open(&self) -> (Arc<Store>, Recovery) {
        Store::open(self.0.path(), SMALL).unwrap()
    }

    fn catalog(&self) -> PathBuf {
        self.0.path().join("catalog.sqlite")
    }

    fn delete_catalog(&self) {
        CatalogFile::new(self.catalog()).remove().unwrap();
    }

    /// Every row of every table but `meta`.
    fn rows(&self) -> Vec<String> {
        let connection = rusqlite::Connection::open(self.catalog()).unwrap();
        ["batches", "blobs", "versions", "live", "entries", "past_entries"]
            .iter()
            .flat_map(|table| {
                let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
                let columns = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    let value = |column| row.get::<_, rusqlite::types::Value>(column);
                    Ok(format!("{table} {:?}", (0..columns).map(value).collect::<Result<Vec<_>, _>>()?))
                };
                let mut rows: Vec<_> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
                assert!(!rows.is_empty(), "{table} is not exercised");
                rows.sort();
                rows
            })
            .collect()
    }
}

pub(crate) fn deliver(store: &Store, shipment: &Shipment) -> Result<(), StoreError> {
    for blob in &shipment.blobs {
        store.put_blob(blob)?;
    }
    let position = store.append_batch(&shipment.encoded, &shipment.batch)?;
    assert_eq!(position.number, shipment.batch.number);
    Ok(())
}

fn apply_all(store: &Arc<Store>) {
    let mut writer = store.writer().unwrap();
    for batch in store.read_batches(writer.applied() + 1, usize::MAX).unwrap() {
        writer.apply(&batch).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let mut world = World::new(1);
    let place = Place::new();
    let shipments: Vec<Shipment> = (0..60).map(|_| world.step()).collect();
    for (life, part) in shipments.chunks(20).enumerate() {
        let (store, recovery) = place.open();
        assert_eq!(recovery.position.map_or(0, |position| position.number), life as u64 * 20);
        assert!(!recovery.catalog_rebuilt && recovery.cut.is_empty());
        for shipment in part {
            deliver(&store, shipment).unwrap();
            if shipment.batch.number % 3 != 0 {
                let position = store.sync().unwrap();
                assert_eq!(position, Some(shipment.position));
            }
        }
        store.sync().unwrap();
        if life == 1 {
            apply_all(&store);
        }
        for shipment in &shipments[..(life + 1) * 20] {
            assert_eq!(store.read_batch(shipment.batch.number).unwrap(), shipment.batch);
            assert!(store.knows(&shipment.position).unwrap());
            for sent in &shipment.blobs {
                assert_eq!(Hash::of(&store.read_blob(&sent.hash).unwrap()), sent.hash);
                assert!(!store.put_blob(sent).unwrap(), "held already");
            }
        }
        let stats = store.stats().unwrap();
        assert_eq!(stats.position, store.position());
        assert!(stats.meta_bytes > 0 && stats.chunk_bytes > 0);
    }
}

#[test]
fn a_deleted_catalog_is_made_again_the_same() {
    let mut world = World::new(2);
    let place = Place::new();
    let (store, _) = place.open();
    for _ in 0..80 {
        deliver(&store, &world.step()).unwrap();
        if world.rng.random_bool(0.3) {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    apply_all(&store);
    drop(store);
    let before = place.rows();
    place.delete_catalog();
    let (store, recovery) = place.open();
    assert!(recovery.catalog_rebuilt);
    assert_eq!((recovery.applied, recovery.position), (80, Some(world.position)));
    let mut writer = store.writer().unwrap();
    assert!(writer.is_mirror_unknown().unwrap());
    writer.set_mirror_unknown(false).unwrap();
    writer.commit().unwrap();
    drop(writer);
    drop(store);
    assert_same(&place.rows(), &before);

    // A file that is no catalog, or of another version, is replaced too.
    place.delete_catalog();
    std::fs::write(place.catalog(), vec![b'x'; 10_000]).unwrap();
    let (store, recovery) = place.open();
    assert!(recovery.catalog_rebuilt && store.writer().unwrap().is_mirror_unknown().unwrap());
    drop(store);
    assert_same(&place.rows(), &before);
    let connection = rusqlite::Connection::open(place.catalog()).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let (store, recovery) = place.open();
    assert!(recovery.catalog_rebuilt);
    assert_same(&place.rows(), &before);
    deliver(&store, &world.step()).unwrap();
    assert_eq!(store.sync().unwrap(), Some(world.position));
    apply_all(&store);
}

fn assert_same(now: &[String], before: &[String]) {
    let fresh: Vec<_> = now.iter().filter(|row| !before.contains(row)).take(3).collect();
    let gone: Vec<_> = before.iter().filter(|row| !now.contains(row)).take(3).collect();
    assert!(fresh.is_empty() && gone.is_empty(), "new: {fresh:#?}, gone: {gone:#?}");
}

#[test]
fn bad_blobs_and_batches_are_refused() {
    let mut world = World::new(5);
    let place = Place::new();
    let (store, _) = place.open();
    let good = blob(BlobKind::Chunk, b"some content, some content, some content");
    let mut bad = good.clone();
    bad.hash = Hash([9; 32]);
    assert!(matches!(store.put_blob(&bad), Err(StoreError::BadBlob { .. })));
    let mut bad = good.clone();
    bad.raw_len += 1;
    assert!(matches!(store.put_blob(&bad), Err(StoreError::BadBlob { .. })));
    // A bomb: more than it says.
    let mut bad = blob(BlobKind::Chunk, &vec![0; 200_000]);
    assert_eq!(bad.codec, Codec::Zstd);
    bad.raw_len = 1000;
    assert!(matches!(store.put_blob(&bad), Err(StoreError::BadBlob { .. })));
    bad.raw_len = 300_000;
    assert!(matches!(store.put_blob(&bad), Err(StoreError::BadBlob { .. })));
    assert!(store.lacking(&[good.hash]).unwrap()[0]);

    let refused = |shipment: &Shipment| store.append_batch(&shipment.encoded, &shipment.batch).unwrap_err();
    let first = world.step();
    let mut second = world.step();
    while second.blobs.is_empty() {
        deliver(&store, &first).or_else(|_| Ok::<_, StoreError>(())).unwrap();
        deliver(&store, &second).unwrap();
        second = world.step();
    }
    let last = second.batch.number - 1;
    let with = |change: &dyn Fn(&mut Shipment)| {
        let mut shipment = second.clone();
        change(&mut shipment);
        shipment.encoded = ehpc_proto::replication::wire::encode_batch(&shipment.batch);
        refused(&shipment)
    };
    assert!(matches!(refused(&second), StoreError::MissingBlob { .. }));
    assert!(matches!(with(&|s| s.batch.number += 1), StoreError::OutOfOrder { last: l, .. } if l == last));
    assert!(matches!(with(&|s| s.batch.previous = Hash([1; 32])), StoreError::OutOfOrder { .. }));
    assert!(matches!(
        with(&|s| s.batch.destroyed.push(ObjectId(u64::MAX))),
        StoreError::ObjectNumber { object: ObjectId(u64::MAX), .. }
    ));
    deliver(&store, &second).unwrap();
    assert_eq!(store.sync().unwrap(), Some(second.position));
    let other = Position { stream: StreamId([7; 16]), ..second.position };
    assert!(!store.knows(&other).unwrap());
    assert!(store.knows(&Position::start(second.position.stream)).unwrap());
    assert!(!store.knows(&Position::start(StreamId([7; 16]))).unwrap());
}

#[test]
fn pages_must_lead_to_chunks_that_are_here() {
    let mut world = World::new(6);
    let place = Place::new();
    let (store, _) = place.open();
    let mut shipment = world.step();
    deliver(&store, &shipment).unwrap();
    let pieces: Vec<[u8; 8]> = (0..600u64).map(u64::to_be_bytes).collect();
    let extents = pieces.iter().map(|piece| Extent::Data { hash: Hash::of(piece), len: 8 });
    let (content, pages) = super::manifest::build(extents).unwrap();
    assert!(pages.len() >= 2 && matches!(content, Manifest::Paged { .. }));
    shipment = world.step();
    let mut file = world.now().objects.values().next().unwrap().clone();
    file.id = ObjectId(999_999);
    file.kind = ehpc_proto::replication::Kind::File;
    (file.size, file.content) = (4800, content);
    shipment.batch.objects.push(file);
    shipment.encoded = ehpc_proto::replication::wire::encode_batch(&shipment.batch);
    let missing = |store: &Store, shipment: &Shipment| match deliver(store, shipment) {
        Err(StoreError::MissingBlob { hash, .. }) => hash,
        other => panic!("{other:?}"),
    };
    let root = pages.last().unwrap().0;
    assert_eq!(missing(&store, &shipment), root);
    store.put_blob(&blob(BlobKind::Page, &pages.last().unwrap().1)).unwrap();
    assert_eq!(missing(&store, &shipment), pages[0].0);
    for (_, page) in &pages {
        store.put_blob(&blob(BlobKind::Page, page)).unwrap();
    }
    for piece in &pieces {
        assert_eq!(missing(&store, &shipment), Hash::of(piece));
        store.put_blob(&blob(BlobKind::Chunk, piece)).unwrap();
    }
    deliver(&store, &shipment).unwrap();
}

#[test]
fn a_flipped_byte_in_a_pack_is_found_and_named() {
    let mut world = World::new(7);
    let place = Place::new();
    let (store, _) = place.open();
    for _ in 0..60 {
        deliver(&store, &world.step()).unwrap();
    }
    store.sync().unwrap();
    apply_all(&store);
    let object = world.now().objects.values().find_map(|object| match &object.content {
        Manifest::Inline(extents) => extents.iter().find_map(|extent| match extent {
            Extent::Data { hash, .. } => Some(*hash),
            Extent::Hole { .. } => None,
        }),
        Manifest::Paged { .. } => None,
    });
    let hash = object.unwrap();
    let at = store.locate(&hash).unwrap().unwrap();
    assert_eq!(at.pack.series, Series::Chunk);
    let mut bytes = std::fs::read(&at.path).unwrap();
    bytes[at.offset as usize + at.stored_len as usize / 2] ^= 0x10;
    std::fs::write(&at.path, bytes).unwrap();
    let error = store.verify_blob(&hash).unwrap_err().to_string();
    assert!(error.contains(&at.pack.to_string()), "{error}");
    assert!(error.contains("damaged at byte"), "{error}");
}

#[test]
fn a_store_has_one_process_and_one_writer() {
    let place = Place::new();
    let (store, _) = place.open();
    let error = Store::open(place.0.path(), SMALL).err().unwrap().to_string();
    assert!(error.contains("another process"), "{error}");
    let writer = store.writer().unwrap();
    assert!(matches!(store.writer(), Err(StoreError::WriterTaken)));
    drop(writer);
    store.writer().unwrap();
}

#[test]
fn waiting_for_a_durable_batch() {
    let mut world = World::new(8);
    let place = Place::new();
    let (store, _) = place.open();
    let waiter = {
        let store = store.clone();
        std::thread::spawn(move || {
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                match store.wait_durable(0, Duration::from_secs(5)) {
                    0 if std::time::Instant::now() < deadline => {}
                    number => return number,
                }
            }
        })
    };
    deliver(&store, &world.step()).unwrap();
    store.sync().unwrap();
    assert_eq!(waiter.join().unwrap(), 1);
    assert_eq!(store.wait_durable(1, Duration::ZERO), 1);
}

#[test]
fn chunks_without_a_batch_leave_memory() {
    let place = Place::new();
    let (store, _) = place.open();
    let chunks: Vec<_> = (0..500u64).map(|n| blob(BlobKind::Chunk, &n.to_be_bytes())).collect();
    for chunk in &chunks {
        assert!(store.put_blob(chunk).unwrap());
    }
    store.sync().unwrap();
    assert_eq!(store.stats().unwrap().blobs_unapplied, 500);
    let mut writer = store.writer().unwrap();
    writer.index_blobs().unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(store.stats().unwrap().blobs_unapplied, 0);
    drop(store);
    let (store, _) = place.open();
    for chunk in &chunks {
        assert_eq!(store.locate(&chunk.hash).unwrap().unwrap().raw_len, 8);
        store.verify_blob(&chunk.hash).unwrap();
    }
}

#[test]
fn a_damaged_chunk_can_be_forgotten_and_stored_again() {
    let mut world = World::new(9);
    let place = Place::new();
    let (store, _) = place.open();
    let good = blob(BlobKind::Chunk, b"this chunk will be damaged");
    store.put_blob(&good).unwrap();
    deliver(&store, &world.step()).unwrap();
    store.sync().unwrap();
    apply_all(&store);
    let at = store.locate(&good.hash).unwrap().unwrap();
    let mut bytes = std::fs::read(&at.path).unwrap();
    bytes[at.offset as usize] ^= 1;
    std::fs::write(&at.path, bytes).unwrap();
    assert!(store.verify_blob(&good.hash).is_err());
    let mut writer = store.writer().unwrap();
    writer.forget_blob(&good.hash).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(store.lacking(&[good.hash]).unwrap(), [true]);
    assert!(store.put_blob(&good).unwrap());
    store.verify_blob(&good.hash).unwrap();
    deliver(&store, &world.step()).unwrap();
    store.sync().unwrap();
    apply_all(&store);
    store.verify_blob(&good.hash).unwrap();
    // Fill the pack, so that its payloads are not read at a start, and make the catalog again.
    for n in 0..2000u64 {
        store.put_blob(&blob(BlobKind::Chunk, &n.to_be_bytes())).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    place.delete_catalog();
    let (store, recovery) = place.open();
    assert!(recovery.catalog_rebuilt);
    store.verify_blob(&good.hash).unwrap();
}
