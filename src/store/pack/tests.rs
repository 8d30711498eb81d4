//! Packs on a disk that crashes.

use super::disk::Disk;
use super::log::{Item, Located, PackLog};
use super::record::{Content, FILE_HEAD, HEAD};
use super::scan::{Payloads, recover};
use super::simulated::SimulatedDisk;
use super::{PackError, PackId, Place, Series};
use crate::store::Options;
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::Codec;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use std::sync::Arc;

type Found = Vec<(Located, Hash)>;

fn start(disk: &SimulatedDisk, from: Place, payloads: Payloads) -> Result<(PackLog, Found), PackError> {
    let mut found = Found::new();
    let recovered = recover::<PackError>(Series::Chunk, disk, from, payloads, &mut |at, head, _| {
        found.push((*at, head.hash));
        Ok(())
    })?;
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = Options { pack_bytes: 8192, ..Options::default() };
    Ok((PackLog::new(Series::Chunk, disk, options, recovered.newest, recovered.sealed_bytes), found))
}

fn append(log: &PackLog, payload: &[u8]) -> Result<(Located, Hash), PackError> {
    let hash = Hash::of(payload);
    let item = Item {
        content: Content::Chunk,
        codec: Codec::Raw,
        raw_len: payload.len() as u32,
        number: 0,
        hash,
        payload,
    };
    log.append(&item).map(|at| (at, hash))
}

fn some_bytes(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..3000)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Several lives of one log: appends and syncs, full disks, failed syncs, power cuts at any call.
#[test]
fn what_was_synced_survives_and_nothing_torn_is_taken() {
    for seed in 0..1000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimulatedDisk::new(seed);
        let mut durable = Found::new();
        let mut from = Place::default();
        for life in 0..4 {
            let (log, found) =
                start(&disk, from, Payloads::All).unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
            let known: Vec<_> = durable.iter().filter(|(at, _)| at.place >= from).copied().collect();
            assert!(found.starts_with(&known), "seed {seed} life {life}: a synced record is missing");
            durable.retain(|(at, _)| at.place < from);
            durable.extend(&found);
            for (at, hash) in &durable {
                log.read(at, hash).unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
            }
            // As a catalog would remember it.
            if rng.random_bool(0.3) {
                from = log.durable();
            }
            live(&mut rng, &disk, &log, &mut durable);
            if rng.random_bool(0.7) { disk.crash() } else { disk.restart() }
        }
    }
}

fn live(rng: &mut StdRng, disk: &SimulatedDisk, log: &PackLog, durable: &mut Found) {
    if rng.random_bool(0.8) {
        disk.die_after(rng.random_range(0..60));
    }
    let mut unsynced = Found::new();
    for _ in 0..rng.random_range(0..40) {
        match rng.random_range(0..12) {
            0 => disk.set_capacity(disk.used() + rng.random_range(0..2000)),
            1 => disk.set_capacity(u64::MAX),
            2 if rng.random_bool(0.3) => disk.fail_syncs(1),
            3..=5 if log.sync().is_ok() => durable.append(&mut unsynced),
            _ => {
                if let Ok(appended) = append(log, &some_bytes(rng)) {
                    unsynced.push(appended);
                }
            }
        }
        // Going on to the next pack has synced the one before.
        let end = log.durable();
        let synced = unsynced.iter().take_while(|(at, _)| at.place < end).count();
        durable.extend(unsynced.drain(..synced));
        if log.is_broken() {
            unsynced.clear();
            if log.give_up_unsynced().is_err() {
                return;
            }
        }
    }
    disk.set_capacity(u64::MAX);
}

#[test]
fn a_full_disk_leaves_whole_records_and_appending_goes_on_when_there_is_space() {
    let disk = SimulatedDisk::new(1);
    let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
    let first = append(&log, b"first").unwrap();
    disk.set_capacity(disk.used() + 100);
    let error = append(&log, &[1; 500]).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(disk.len(&first.0.pack().to_string()), log.end().offset);
    disk.set_capacity(u64::MAX);
    let second = append(&log, &[1; 500]).unwrap();
    log.sync().unwrap();
    disk.crash();
    let (_, found) = start(&disk, Place::default(), Payloads::All).unwrap();
    assert_eq!(found, [first, second]);
}

#[test]
fn after_a_failed_sync_nothing_of_it_is_believed() {
    let disk = SimulatedDisk::new(2);
    let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
    let first = append(&log, b"first").unwrap();
    log.sync().unwrap();
    append(&log, &[2; 3000]).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(log.sync(), Err(PackError::SyncFailed { .. })));
    assert!(matches!(log.sync(), Err(PackError::Refused { .. })), "the second sync must not succeed");
    assert!(matches!(append(&log, b"more"), Err(PackError::Refused { .. })));
    log.give_up_unsynced().unwrap();
    let third = append(&log, b"third").unwrap();
    assert_eq!(third.0.place.offset, first.0.place.offset + first.0.stored_len as u64 + HEAD as u64);
    log.sync().unwrap();
    disk.crash();
    let (_, found) = start(&disk, Place::default(), Payloads::All).unwrap();
    assert_eq!(found, [first, third]);
}

/// The process dies of a failed fsync; what the next one reads is in the page cache only, and counts as clean there.
#[test]
fn what_a_start_finds_is_on_the_disk_even_after_a_failed_sync() {
    let mut kept = 0;
    for seed in 0..60 {
        let disk = SimulatedDisk::new(seed);
        let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
        append(&log, &[1; 2000]).unwrap();
        disk.fail_syncs(1);
        log.sync().unwrap_err();
        drop(log);
        disk.restart();
        let (_, found) = start(&disk, Place::default(), Payloads::All).unwrap();
        disk.crash();
        let (_, again) = start(&disk, Place::default(), Payloads::All).unwrap();
        assert_eq!(again, found, "seed {seed}");
        kept += found.len();
    }
    assert_eq!(kept, 60);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let mut rng = StdRng::seed_from_u64(3);
    let disk = SimulatedDisk::new(3);
    let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
    let mut records = Found::new();
    while log.end().pack < 3 {
        records.push(append(&log, &some_bytes(&mut rng)).unwrap());
        log.sync().unwrap();
    }
    // One more, so that what is before it is known to have been durable.
    append(&log, b"last").unwrap();
    drop(log);
    for _ in 0..400 {
        let (at, hash) = records[rng.random_range(0..records.len())];
        let name = at.pack().to_string();
        let within = rng.random_range(0..HEAD as u64 + u64::from(at.stored_len));
        let bit = rng.random_range(0..8);
        disk.flip(&name, at.place.offset + within, bit);
        match start(&disk, Place::default(), Payloads::All) {
            Err(PackError::Damaged { pack, offset, .. }) => {
                assert_eq!((pack, offset), (at.pack(), at.place.offset));
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{name} byte {} bit {bit}: not noticed", at.place.offset + within),
        }
        if within >= HEAD as u64 {
            // A sealed pack's payloads are not read at a start, but whenever they are used.
            let from = Place { pack: 3, offset: FILE_HEAD as u64 };
            if at.place.pack < 3 {
                let (log, _) = start(&disk, from, Payloads::Newest).unwrap();
                let error = log.read(&at, &hash).unwrap_err().to_string();
                assert!(error.contains(&name) && error.contains(&at.place.offset.to_string()), "{error}");
            }
        }
        disk.flip(&name, at.place.offset + within, bit);
    }
    start(&disk, Place::default(), Payloads::All).unwrap();
}

#[test]
fn a_missing_pack_is_named() {
    let mut rng = StdRng::seed_from_u64(4);
    let disk = SimulatedDisk::new(4);
    let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
    while log.end().pack < 4 {
        append(&log, &some_bytes(&mut rng)).unwrap();
    }
    drop(log);
    disk.remove("chunk-00000002.pack").unwrap();
    let error = start(&disk, Place::default(), Payloads::All).err().unwrap().to_string();
    assert!(error.contains("chunk-00000002.pack"), "{error}");
    start(&disk, Place { pack: 3, offset: FILE_HEAD as u64 }, Payloads::All).unwrap();
}

#[test]
fn a_record_copied_elsewhere_is_no_record() {
    let disk = SimulatedDisk::new(5);
    let (log, _) = start(&disk, Place::default(), Payloads::All).unwrap();
    append(&log, b"one").unwrap();
    log.sync().unwrap();
    let (end, id) = (log.end(), PackId { series: Series::Chunk, number: 1 });
    let mut bytes = vec![0; (end.offset - FILE_HEAD as u64) as usize];
    let file = disk.open(&id.to_string()).unwrap();
    file.read_at(&mut bytes, FILE_HEAD as u64).unwrap();
    file.write_at([&bytes, &[]], end.offset).unwrap();
    let (log, found) = start(&disk, Place::default(), Payloads::All).unwrap();
    assert_eq!((found.len(), log.end()), (1, end));
}

#[test]
fn names_of_packs() {
    let id = PackId { series: Series::Meta, number: 12 };
    assert_eq!(PackId::parse(&id.to_string()), Some(id));
    for name in ["meta-1.pack", "meta-00000000.pack", "chunk-00000001", "x-00000001.pack", "lock"] {
        assert_eq!(PackId::parse(name), None, "{name}");
    }
}
