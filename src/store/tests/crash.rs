//! The store on a disk that crashes, fills up and fails.

use super::world::{Shipment, World, blob};
use super::{Place, apply_all, deliver};
use crate::store::catalog::CatalogFile;
use crate::store::pack::disk::Disk;
use crate::store::pack::simulated::SimulatedDisk;
use crate::store::{Options, Recovery, Store, StoreError, manifest, recover};
use ehpc_proto::replication::message::BlobKind;
use ehpc_proto::replication::{Hash, ObjectId, Position};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// Several lives of a store: the receiver appends and syncs, the applier commits, the power goes at any call; at times
/// the catalog is lost, or an older one comes back, as SQLite allows without syncing each commit.
#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(seed);
        let disk = SimulatedDisk::new(seed);
        let place = Place::new();
        let mut shipments: Vec<Shipment> = Vec::new();
        let mut acknowledged: Option<Position> = None;
        for life in 0..4 {
            let old_catalog = std::fs::read(place.catalog()).ok();
            let (store, recovery) =
                open_simulated(&disk, &place).unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
            check_recovered(&store, &shipments, acknowledged, seed, life);
            assert!(recovery.applied <= recovery.position.map_or(0, |position| position.number));
            disk.die_after(rng.random_range(0..400));
            let _ = live(&mut rng, &mut world, &disk, &store, &mut shipments, &mut acknowledged);
            drop(store);
            if rng.random_bool(0.8) {
                disk.crash()
            } else {
                disk.restart()
            }
            match rng.random_range(0..6) {
                0 => place.delete_catalog(),
                1 if old_catalog.is_some() => {
                    place.delete_catalog();
                    std::fs::write(place.catalog(), old_catalog.unwrap()).unwrap();
                }
                _ => {}
            }
        }
        let (store, _) = open_simulated(&disk, &place).unwrap();
        check_recovered(&store, &shipments, acknowledged, seed, 4);
        apply_all(&store);
        let durable = store.position().map_or(0, |position| position.number);
        let reader = store.reader().unwrap();
        let objects = reader.rows().live(ObjectId(0), 10_000).unwrap().0;
        let expected = &world.moments[durable as usize];
        assert!(objects.iter().eq(expected.objects.values()), "seed {seed}");
        for object in &objects {
            let mut fetch = |hash: &Hash| store.read_blob(hash).map_err(Into::into);
            for chunk in manifest::chunks_of(&object.content, &mut fetch).unwrap() {
                store.verify_blob(&chunk).unwrap();
            }
        }
    }
}

fn open_simulated(disk: &SimulatedDisk, place: &Place) -> Result<(Arc<Store>, Recovery), StoreError> {
    let options = Options { pack_bytes: 6000, flush_bytes: None, drop_cached: false };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    recover::open(disk, CatalogFile::new(place.catalog()), options)
}

fn check_recovered(
    store: &Store,
    shipments: &[Shipment],
    acknowledged: Option<Position>,
    seed: u64,
    life: u32,
) {
    let position = store.position();
    let number = position.map_or(0, |position| position.number);
    let promised = acknowledged.map_or(0, |position| position.number);
    assert!(number >= promised, "seed {seed} life {life}: {promised} was acknowledged, {number} is there");
    for shipment in &shipments[..number as usize] {
        let batch = store.read_batch(shipment.batch.number);
        assert_eq!(batch.unwrap(), shipment.batch, "seed {seed} life {life}");
        assert!(store.knows(&shipment.position).unwrap());
        for sent in &shipment.blobs {
            store.read_blob(&sent.hash).unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
        }
    }
    if let Some(last) = shipments.get(number as usize) {
        assert!(!store.knows(&last.position).unwrap());
    }
}

fn live(
    rng: &mut StdRng,
    world: &mut World,
    disk: &SimulatedDisk,
    store: &Arc<Store>,
    shipments: &mut Vec<Shipment>,
    acknowledged: &mut Option<Position>,
) -> Result<(), StoreError> {
    // Whoever reconnects sends from the last durable batch on.
    let mut next = store.position().map_or(0, |position| position.number) as usize;
    let mut writer = store.writer()?;
    for _ in 0..40 {
        match rng.random_range(0..10) {
            0 => disk.set_capacity(disk.used() + rng.random_range(0..3000)),
            1..=2 => disk.set_capacity(u64::MAX),
            3 if rng.random_bool(0.2) => disk.fail_syncs(1),
            4..=5 => {
                match store.sync() {
                    Ok(position) => *acknowledged = position,
                    Err(error) if error.is_no_space() => continue,
                    Err(_) => next = store.position().map_or(0, |position| position.number) as usize,
                }
                for batch in store.read_batches(writer.applied() + 1, 3)? {
                    writer.apply(&batch)?;
                }
                if rng.random_bool(0.5) {
                    writer.commit()?;
                }
            }
            _ => {
                if next == shipments.len() {
                    shipments.push(world.step());
                }
                match deliver(store, &shipments[next]) {
                    Ok(()) => next += 1,
                    Err(error) if error.is_no_space() => {}
                    Err(_) => next = store.position().map_or(0, |position| position.number) as usize,
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_stops_the_acknowledgement_and_nothing_is_lost() {
    let mut world = World::new(3);
    let (disk, place) = (SimulatedDisk::new(3), Place::new());
    let (store, _) = open_simulated(&disk, &place).unwrap();
    let first = world.step();
    deliver(&store, &first).unwrap();
    assert_eq!(store.sync().unwrap(), Some(first.position));
    // Batches are accepted, then there is no room for them in the pack.
    let more: Vec<Shipment> = (0..10).map(|_| world.step()).collect();
    for shipment in &more {
        deliver(&store, shipment).unwrap();
    }
    disk.set_capacity(disk.used() + 100);
    for _ in 0..3 {
        assert!(store.sync().unwrap_err().is_no_space());
        assert_eq!(store.position(), Some(first.position));
    }
    let big = blob(BlobKind::Chunk, &StdRng::seed_from_u64(9).random::<[u8; 1000]>());
    assert!(store.put_blob(&big).unwrap_err().is_no_space());
    disk.set_capacity(u64::MAX);
    assert!(store.put_blob(&big).unwrap());
    assert_eq!(store.sync().unwrap(), Some(world.position));
    disk.crash();
    drop(store);
    let (store, _) = open_simulated(&disk, &place).unwrap();
    assert_eq!(store.position(), Some(world.position));
    store.verify_blob(&big.hash).unwrap();
}

#[test]
fn what_a_failed_sync_lost_is_forgotten_and_can_be_sent_again() {
    let mut world = World::new(4);
    let (disk, place) = (SimulatedDisk::new(4), Place::new());
    let (store, _) = open_simulated(&disk, &place).unwrap();
    let shipments: Vec<Shipment> = (0..8).map(|_| world.step()).collect();
    deliver(&store, &shipments[0]).unwrap();
    let first = store.sync().unwrap();
    for shipment in &shipments[1..] {
        deliver(&store, shipment).unwrap();
    }
    disk.fail_syncs(1);
    let error = store.sync().unwrap_err();
    assert!(!error.is_no_space(), "{error}");
    assert_eq!(store.position(), first);
    // The last batch's blobs are gone, so it is refused until they are sent again.
    assert!(matches!(
        store.append_batch(&shipments[7].encoded, &shipments[7].batch),
        Err(StoreError::OutOfOrder { .. })
    ));
    for shipment in &shipments[1..] {
        deliver(&store, shipment).unwrap();
    }
    assert_eq!(store.sync().unwrap(), Some(world.position));
    disk.crash();
    drop(store);
    let (store, _) = open_simulated(&disk, &place).unwrap();
    check_recovered(&store, &shipments, Some(world.position), 4, 0);
}
