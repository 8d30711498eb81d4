//! Power cuts, deaths of the process, full disks and failing syncs at every step, by seeds.

use super::*;
use ehpc_proto::replication::database::Place;
use rand::SeedableRng;

/// Ships `files` from where the archive ends until something fails or all is there. Gives what was acknowledged last.
fn ship(
    life: &mut Life,
    files: &[MadeFile],
    rng: &mut StdRng,
    acked: &mut Place,
) -> Result<bool, super::super::Fault> {
    let end = life.appender.begin()?;
    let (mut ordinal, mut offset) = place(&end);
    let now = Place { lineage: 1, file: ordinal, offset };
    assert!(
        now >= *acked || acked.lineage == 0,
        "{acked:?} was acknowledged, and the archive ends at {now:?}"
    );
    let mut closed = ordinal == 0 || end.file.as_ref().is_some_and(|file| file.closed);
    loop {
        let file = ordinal.checked_sub(1).map(|at| &files[at as usize]);
        match file.filter(|_| !closed) {
            Some(file) if offset < file.bytes.len() as u64 => {
                let len =
                    if rng.random_bool(0.2) { rng.random_range(1..30) } else { rng.random_range(1..5000) };
                let work = piece(file, offset, len);
                let Append::Bytes { bytes, .. } = &work else { unreachable!() };
                offset += bytes.len() as u64;
                life.appender.append(work)?;
            }
            Some(file) => {
                if rng.random_bool(0.3) {
                    life.appender.sync()?;
                }
                let len = file.bytes.len() as u64;
                if ordinal as usize == files.len() {
                    life.appender.sync()?;
                    note(life, acked);
                    return Ok(true);
                }
                life.appender.append(Append::Closed { name: file.name.clone(), len })?;
                closed = true;
            }
            None => {
                ordinal += 1;
                life.appender.append(open(&files[ordinal as usize - 1], ordinal))?;
                (offset, closed) = (0, false);
            }
        }
        if rng.random_bool(0.3) {
            life.appender.sync()?;
        }
        note(life, acked);
        if rng.random_bool(0.02) {
            return Ok(false); // the connection is cut
        }
    }
}

/// What was published may have been acknowledged.
fn note(life: &Life, acked: &mut Place) {
    let durable = life.archive.durable().borrow().place;
    assert!(durable >= *acked, "the end went back from {acked:?} to {durable:?}");
    *acked = durable;
}

/// All that is acknowledged is there, and what is there is the server's.
fn check(life: &Life, disk: &SimulatedDisk, files: &[MadeFile], acked: Place) {
    let durable = life.archive.durable().borrow().place;
    if durable < acked {
        let list = disk.bytes("0001/files").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        println!("{list:?} {:?}", disk.names_in(Some("0001")));
    }
    assert!(durable >= acked, "{acked:?} was acknowledged, and {durable:?} is left; {:?}", life.recovered);
    for file in life.archive.files() {
        let made = &files[file.ordinal as usize - 1];
        assert_eq!(file.name, made.name);
        let there = on_disk(disk, made);
        assert!(there.len() as u64 >= file.len);
        assert!(there[..file.len as usize] == made.bytes[..file.len as usize], "{} differs", file.name);
        if file.ordinal < durable.file {
            assert_eq!(file.len, made.bytes.len() as u64, "{} ends early", file.name);
        }
    }
    assert_eq!(life.recovered.damage, []);
    check_index(&life.archive, files);
    if let Some(made) = (durable.file as usize).checked_sub(1).map(|at| &files[at]) {
        let last = made.groups.iter().rev().find(|group| group.end <= durable.offset);
        let seq = last.map_or(made.before, |group| group.seq);
        let listed = durable.offset > made.groups.first().map_or(0, |group| group.start.min(300));
        let expected = if seq == 0 { String::new() } else { format!("0-7-{seq}") };
        let gtid = life.archive.durable().borrow().gtid.clone().unwrap().to_string();
        assert!(gtid == expected || !listed, "{gtid} instead of {expected}");
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let files = {
        let count = rng.random_range(1..5);
        history(count, &mut rng)
    };
    let disk = SimulatedDisk::new(seed);
    let mut acked = Place::default();
    for life_number in 0.. {
        assert!(life_number < 300, "seed {seed}: no end");
        let gentle = life_number > 60;
        if !gentle && rng.random_bool(0.8) {
            disk.die_after(rng.random_range(0..120));
        }
        let mut done = false;
        if let Ok(mut life) = live(&disk) {
            check(&life, &disk, &files, acked);
            for _ in 0..rng.random_range(1..4) {
                if !gentle && rng.random_bool(0.2) {
                    disk.fail_syncs(rng.random_range(1..3));
                }
                if !gentle && rng.random_bool(0.2) {
                    disk.set_capacity(disk.used() + rng.random_range(0..6000));
                }
                done = ship(&mut life, &files, &mut rng, &mut acked) == Ok(true);
                disk.set_capacity(u64::MAX);
                if done {
                    break;
                }
            }
        }
        if rng.random_bool(0.5) {
            disk.crash()
        } else {
            disk.restart()
        }
        if done {
            break;
        }
    }
    let life = live(&disk).unwrap();
    check(&life, &disk, &files, acked);
    for file in &files {
        assert!(on_disk(&disk, file) == file.bytes, "seed {seed}: {} differs", file.name);
    }
    assert_eq!(acked.file as usize, files.len());
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_the_disk() {
    let seeds = match std::env::var("EHPC_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..300,
    };
    for seed in seeds {
        println!("seed {seed}");
        run(seed);
    }
}

#[test]
fn every_step_of_the_first_file_may_be_the_last() {
    let mut rng = StdRng::seed_from_u64(1);
    let files = vec![made("bin.000001", 0, &[10, 20], &mut rng), made("bin.000002", 2, &[30], &mut rng)];
    for calls in 0..150 {
        for power in [true, false] {
            let disk = SimulatedDisk::new(calls);
            disk.die_after(calls);
            let mut acked = Place::default();
            if let Ok(mut life) = live(&disk) {
                let _ = ship(&mut life, &files, &mut rng, &mut acked);
            }
            if power {
                disk.crash()
            } else {
                disk.restart()
            }
            let mut life = live(&disk).unwrap_or_else(|e| panic!("after {calls} calls: {e}"));
            check(&life, &disk, &files, acked);
            while ship(&mut life, &files, &mut rng, &mut acked) != Ok(true) {}
            check(&life, &disk, &files, acked);
        }
    }
}

#[test]
fn every_step_of_a_new_lineage_may_be_the_last() {
    let mut rng = StdRng::seed_from_u64(5);
    let files = [made("bin.000001", 0, &[10, 20], &mut rng)];
    let length = files[0].bytes.len() as u64;
    let begin = |life: &mut Life| -> Result<(), super::super::Fault> {
        let end = life.appender.begin()?;
        let last = end.file.expect("the first lineage");
        // Either all of the new lineage that was synced, or the end of the old one.
        if end.lineage.as_ref().is_some_and(|lineage| lineage.number == 1) {
            assert_eq!((last.lineage, last.len, last.closed), (1, length, false));
            let name = "bin.000001".to_owned();
            life.appender.append(Append::Open { lineage: lineage(2), name, ordinal: 1, joined: None })?;
            life.appender.append(piece(&files[0], 0, 1 << 20))?;
        } else {
            life.appender.append(piece(&files[0], last.len, 1 << 20))?;
        }
        life.appender.sync().map(|_| ())
    };
    for calls in 0..60 {
        for power in [true, false] {
            let disk = SimulatedDisk::new(calls);
            let mut life = live(&disk).unwrap();
            fill(&mut life.appender, &files);
            disk.die_after(calls);
            let _ = begin(&mut life);
            let acked = life.archive.durable().borrow().place;
            if power {
                disk.crash()
            } else {
                disk.restart()
            }
            let mut life = live(&disk).unwrap_or_else(|e| panic!("after {calls} calls: {e}"));
            assert!(life.archive.durable().borrow().place >= acked);
            if life.archive.durable().borrow().place.offset < length || acked.lineage == 1 {
                begin(&mut life).unwrap();
            }
            assert_eq!(life.archive.durable().borrow().place, Place { lineage: 2, file: 1, offset: length });
            let shown: Vec<_> =
                life.archive.files().iter().map(|file| (file.lineage, file.len, file.closed)).collect();
            assert_eq!(shown, [(1, length, true), (2, length, false)]);
            assert!(disk.bytes("0002/bin.000001").unwrap() == files[0].bytes);
            let life = live(&disk).unwrap();
            let again: Vec<_> =
                life.archive.files().iter().map(|file| (file.lineage, file.len, file.closed)).collect();
            assert_eq!(again, shown);
        }
    }
}

#[test]
fn a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_space() {
    let mut rng = StdRng::seed_from_u64(2);
    let files = [made("bin.000001", 0, &[100, 20_000], &mut rng)];
    let disk = SimulatedDisk::new(2);
    let mut life = live(&disk).unwrap();
    life.appender.begin().unwrap();
    life.appender.append(open(&files[0], 1)).unwrap();
    let first = files[0].groups[0].end;
    life.appender.append(piece(&files[0], 0, first as usize)).unwrap();
    life.appender.sync().unwrap();
    disk.set_capacity(disk.used() + 5_000);
    let fault = life.appender.append(piece(&files[0], first, 30_000)).unwrap_err();
    assert!(matches!(fault, super::super::Fault::Full { .. }), "{fault}");
    assert!(life.archive.status().error.unwrap().contains("full"));
    assert_eq!(life.archive.durable().borrow().place.offset, first);
    // Still no space: it begins where it is, and fails again.
    let end = life.appender.begin().unwrap();
    assert_eq!(place(&end), (1, first));
    assert!(life.archive.status().error.unwrap().contains("full"), "nothing was written since");
    life.appender.append(piece(&files[0], first, 30_000)).unwrap_err();
    disk.set_capacity(u64::MAX);
    assert_eq!(place(&life.appender.begin().unwrap()), (1, first));
    life.appender.append(piece(&files[0], first, 30_000)).unwrap();
    life.appender.sync().unwrap();
    assert_eq!(life.archive.status().error, None);
    assert!(on_disk(&disk, &files[0]) == files[0].bytes);
}
