//! Moments, positions, GTIDs, prepared branches, pruning.

use super::super::{ArchiveError, Entry, IndexedKind, Target};
use super::*;
use ehpc_proto::binlog::{GroupGtid, Gtid, Xid};
use ehpc_proto::replication::database::{Joined, Place};
use rand::SeedableRng;

fn at(seconds: i64) -> Target {
    Target::Time(Timestamp { seconds, nanos: 0 })
}

fn filled() -> (SimulatedDisk, Life, Vec<MadeFile>) {
    let mut rng = StdRng::seed_from_u64(3);
    let files = vec![
        made("bin.000001", 0, &[10, 20, 30], &mut rng),
        made("bin.000002", 3, &[], &mut rng),
        made("bin.000003", 3, &[40, 50], &mut rng),
    ];
    let disk = SimulatedDisk::new(3);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, &files);
    (disk, life, files)
}

fn gtid(seq: u64) -> GroupGtid {
    GroupGtid::Maria(Gtid { domain: 0, server: 7, seq })
}

#[test]
fn a_moment_is_the_last_group_at_or_before_it() {
    let (_, life, files) = filled();
    // Not live: a group counts from the end of its second on.
    for (seconds, file, seq) in [(1002, 0, 1), (1003, 0, 2), (1004, 0, 3), (1005, 2, 4), (1_000_000, 2, 5)] {
        let stop = life.archive.find(&at(seconds)).unwrap();
        let group = files[file].groups.iter().find(|group| group.seq == seq).unwrap();
        assert_eq!(stop.place, Place { lineage: 1, file: file as u32 + 1, offset: group.end }, "{seconds}");
        assert_eq!(stop.gtid.to_string(), format!("0-7-{seq}"));
        assert_eq!(stop.file, files[file].name);
    }
    assert_eq!(life.archive.find(&Target::Latest).unwrap().gtid.to_string(), "0-7-5");
    let early = life.archive.find(&at(1001)).unwrap_err();
    assert!(early.to_string().contains("1970-01-01T00:16:41.999"), "{early}");
    let empty = live(&SimulatedDisk::new(1)).unwrap();
    assert!(matches!(empty.archive.find(&Target::Latest), Err(ArchiveError::Empty)));
}

#[test]
fn the_end_is_behind_files_that_hold_no_transaction_yet() {
    let mut rng = StdRng::seed_from_u64(5);
    let files = [made("bin.000001", 0, &[10, 20], &mut rng), made("bin.000002", 2, &[300], &mut rng)];
    let disk = SimulatedDisk::new(5);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, &files[..1]);
    let group = files[1].groups[0];
    let len = files[0].bytes.len() as u64;
    life.appender.append(Append::Closed { name: files[0].name.clone(), len }).unwrap();
    life.appender.append(open(&files[1], 2)).unwrap();
    // Up to its first transaction, and then into that one.
    for to in [group.start, group.start + 60] {
        let from = if to == group.start { 0 } else { group.start };
        life.appender.append(piece(&files[1], from, (to - from) as usize)).unwrap();
        life.appender.sync().unwrap();
        for target in [Target::Latest, at(1_000_000)] {
            let stop = life.archive.find(&target).unwrap();
            assert_eq!(stop.place, Place { lineage: 1, file: 2, offset: group.start });
            assert_eq!((stop.file.as_str(), stop.gtid.to_string().as_str()), ("bin.000002", "0-7-2"));
        }
    }
    let earlier = life.archive.find(&at(1002)).unwrap();
    assert_eq!(earlier.place, Place { lineage: 1, file: 1, offset: files[0].groups[0].end });
    // After a start it is the same.
    drop(life);
    let life = live(&disk).unwrap();
    assert_eq!(life.archive.find(&Target::Latest).unwrap().place.offset, group.start);
}

#[test]
fn times_of_arrival_count_and_never_go_back() {
    let mut rng = StdRng::seed_from_u64(4);
    let file = made("bin.000001", 0, &[10, 10, 10], &mut rng);
    let disk = SimulatedDisk::new(4);
    let mut life = live(&disk).unwrap();
    life.appender.begin().unwrap();
    life.appender.append(open(&file, 1)).unwrap();
    let mut from = 0;
    // The clock is set back between the second and the third.
    for (group, seconds) in file.groups.iter().zip([5000, 6000, 5500]) {
        let Append::Bytes { offset, bytes, .. } = piece(&file, from, (group.end - from) as usize) else {
            panic!()
        };
        let arrived = Timestamp { seconds, nanos: 7 };
        life.appender.append(Append::Bytes { offset, arrived, bytes }).unwrap();
        from = group.end;
    }
    life.appender.sync().unwrap();
    let mut times = Vec::new();
    life.archive.groups(1, 1, &mut |entry: &Entry| times.push((entry.time.seconds, entry.live))).unwrap();
    assert_eq!(times, [(5000, true), (6000, true), (6000, true)]);
    let stop = |seconds| life.archive.find(&at(seconds)).map(|stop| stop.gtid.to_string());
    assert_eq!(stop(5800).unwrap(), "0-7-1");
    assert_eq!(stop(6001).unwrap(), "0-7-3");
}

#[test]
fn positions_are_ends_of_groups_and_gtids_are_found() {
    let (_, life, files) = filled();
    let find = |file: &str, offset| life.archive.find(&Target::Position { file: file.to_owned(), offset });
    let group = files[0].groups[1];
    let stop = find("bin.000001", group.end).unwrap();
    assert_eq!((stop.place.offset, stop.gtid.to_string()), (group.end, "0-7-2".to_owned()));
    assert_eq!(find("bin.000003", 4).unwrap().gtid.to_string(), "0-7-3");
    assert_eq!(find("bin.000001", 4).unwrap().gtid.to_string(), "");
    let inside = find("bin.000001", group.end - 1).unwrap_err();
    assert!(
        matches!(inside, ArchiveError::InsideGroup { start, end, .. } if (start, end) == (group.start, group.end))
    );
    assert!(matches!(find("bin.000001", 1 << 40), Err(ArchiveError::PastEnd { .. })));
    assert!(matches!(find("bin.000009", 4), Err(ArchiveError::NoName(_))));
    for (file, made) in files.iter().enumerate() {
        for group in &made.groups {
            let stop = life.archive.find(&Target::Gtid(gtid(group.seq))).unwrap();
            assert_eq!((stop.place.file as usize, stop.place.offset), (file + 1, group.end));
            assert_eq!(life.archive.gtid_at(stop.place).unwrap(), stop.gtid);
        }
    }
    assert!(matches!(life.archive.find(&Target::Gtid(gtid(6))), Err(ArchiveError::NoGtid(_))));
}

#[test]
fn real_files_of_both_families_are_kept_and_indexed() {
    for (base, flavor, count) in [("mariadb", Flavor::MariaDb, 5), ("mysql56", Flavor::MySql, 4)] {
        let disk = SimulatedDisk::new(5);
        let mut life = live(&disk).unwrap();
        life.appender.begin().unwrap();
        let of = Lineage { flavor, first_file: format!("{base}.000001"), ..lineage(1) };
        let mut prepared = Vec::new();
        for ordinal in 1..=count {
            let (name, mut bytes) = (format!("{base}.{ordinal:06}"), real(&format!("{base}.{ordinal:06}")));
            bytes[21] &= !1; // IN_USE, which the server does not send
            let open = Append::Open { lineage: of.clone(), name: name.clone(), ordinal, joined: None };
            life.appender.append(open).unwrap();
            for (at, piece) in bytes.chunks(97).enumerate() {
                let (offset, bytes) = (at as u64 * 97, Bytes::copy_from_slice(piece));
                life.appender.append(Append::Bytes { offset, arrived: Timestamp::default(), bytes }).unwrap();
            }
            life.appender.append(Append::Closed { name: name.clone(), len: bytes.len() as u64 }).unwrap();
            assert_eq!(disk.bytes(&format!("0001/{name}")).unwrap(), bytes, "byte for byte");
            life.archive
                .groups(1, ordinal, &mut |entry| {
                    if entry.kind == IndexedKind::XaPrepare {
                        prepared.push((ordinal, entry.start..entry.end));
                    }
                })
                .unwrap();
        }
        let latest = life.archive.find(&Target::Latest).unwrap();
        assert_eq!(life.archive.durable().borrow().gtid.as_ref(), Some(&latest.gtid));
        assert_eq!(prepared.is_empty(), flavor == Flavor::MySql, "{prepared:?}");
    }
}

#[test]
fn the_group_that_prepares_a_branch_is_found() {
    // A real prepared branch is in the files of the real server; here one is made, so that its name is known.
    let xid = Xid { format: 1, gtrid: b"pay".to_vec(), bqual: b"b".to_vec() };
    let mut rng = StdRng::seed_from_u64(6);
    let mut file = made("bin.000001", 0, &[10], &mut rng);
    let mut bytes = file.bytes.to_vec();
    let start = bytes.len() as u64;
    let body =
        [&2u64.to_le_bytes()[..], &0u32.to_le_bytes(), &[64], &1u32.to_le_bytes(), &[3, 1], b"payb"].concat();
    event(&mut bytes, Kind::MARIA_GTID, 1002, &body);
    let prepare = [&[0][..], &1u32.to_le_bytes(), &3u32.to_le_bytes(), &1u32.to_le_bytes(), b"payb"].concat();
    event(&mut bytes, Kind::XA_PREPARE, 1002, &prepare);
    let end = bytes.len() as u64;
    file.bytes = bytes.into();
    let disk = SimulatedDisk::new(6);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, std::slice::from_ref(&file));
    let find =
        |xid: &Xid, offset| life.archive.prepare_group(xid, Place { lineage: 1, file: 1, offset }).unwrap();
    let (found, range) = find(&xid, end).unwrap();
    assert_eq!((found.ordinal, range), (1, start..end));
    assert_eq!(find(&xid, end - 1), None, "it is not prepared there yet");
    assert_eq!(find(&Xid { bqual: b"c".to_vec(), ..xid.clone() }, end), None);
    assert_eq!(find(&Xid { gtrid: b"pa".to_vec(), bqual: b"yb".to_vec(), ..xid }, end), None);
}

#[test]
fn another_server_begins_another_lineage() {
    let (disk, mut life, files) = filled();
    let end = life.archive.durable().borrow().place;
    let joined = Joined { end, gtid: "0-7-5".to_owned() };
    let refused = |life: &mut Life, lineage: Lineage, name: &str, ordinal| {
        let open = Append::Open { lineage, name: name.to_owned(), ordinal, joined: None };
        let fault = life.appender.append(open).unwrap_err().to_string();
        life.appender.begin().unwrap();
        fault
    };
    assert!(refused(&mut life, lineage(3), "bin.000001", 1).contains("lineage 3"));
    assert!(refused(&mut life, lineage(2), "bin.000001", 2).contains("file 2"));
    assert!(refused(&mut life, Lineage { server_id: 8, ..lineage(1) }, "bin.000004", 4).contains("neither"));
    assert!(refused(&mut life, lineage(1), "bin.000001", 4).contains("RESET MASTER"));
    assert!(refused(&mut life, lineage(1), "bin.000004", 4).contains("complete"));
    let new =
        Append::Open { lineage: lineage(2), name: "bin.000001".to_owned(), ordinal: 1, joined: Some(joined) };
    life.appender.append(new).unwrap();
    life.appender.append(piece(&files[0], 0, 1 << 20)).unwrap();
    life.appender.sync().unwrap();
    let lineages = life.archive.lineages();
    assert_eq!(lineages.len(), 2);
    assert_eq!(lineages[1].joined.as_ref().map(|joined| joined.end), Some(end));
    // The groups of the new lineage are not before those of the old one.
    assert_eq!(life.archive.find(&at(1003)).unwrap().place.lineage, 1);
    assert_eq!(life.archive.find(&Target::Latest).unwrap().place.lineage, 2);
    disk.crash();
    let life = live(&disk).unwrap();
    assert_eq!(life.archive.lineages(), lineages);
    assert_eq!(life.archive.find(&Target::Gtid(gtid(2))).unwrap().place.lineage, 2, "the newest counts");
}

#[test]
fn what_no_base_needs_is_pruned_from_the_oldest_on() {
    let (disk, life, files) = filled();
    let before = |file, older_than, dry_run| {
        let place = Place { lineage: 1, file, offset: 4 };
        let older_than = Timestamp { seconds: older_than, nanos: 0 };
        let pruned = life.archive.prune(place, older_than, dry_run).unwrap();
        pruned.files.iter().map(|file| file.ordinal).collect::<Vec<_>>()
    };
    assert_eq!(before(3, 9999, true), [1, 2]);
    assert_eq!(before(1, 9999, false), [0u32; 0], "a base needs it");
    assert_eq!(before(3, 1003, false), [0u32; 0], "it is too young");
    assert_eq!(before(9, 9999, true), [1, 2], "the newest stays");
    assert!(opened(&disk, "0001/bin.000001"));
    assert_eq!(before(2, 9999, false), [1]);
    assert!(!opened(&disk, "0001/bin.000001") && !opened(&disk, "0001/bin.000001.index"));
    assert!(matches!(life.archive.file(1, 1), Err(ArchiveError::NoFile { .. })));
    disk.crash();
    let mut life = live(&disk).unwrap();
    assert_eq!(life.recovered, Recovered::default());
    let left: Vec<u32> = life.archive.files().iter().map(|file| file.ordinal).collect();
    assert_eq!(left, [2, 3]);
    assert!(life.archive.find(&at(1003)).unwrap_err().to_string().contains("begins later"));
    assert_eq!(place(&life.appender.begin().unwrap()), (3, files[2].bytes.len() as u64));
}
