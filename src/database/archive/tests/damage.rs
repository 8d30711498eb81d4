//! Rotten bytes, lost and torn indexes, bytes that no server sent.

use super::super::refetch::{Patched, Refetches, Wanted};
use super::super::{ArchiveError, Fault, Target};
use super::*;
use ehpc_proto::replication::database::Place;
use rand::SeedableRng;

fn filled(seed: u64) -> (SimulatedDisk, Life, Vec<MadeFile>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let files = vec![
        made("bin.000001", 0, &[10, 2000, 30], &mut rng),
        made("bin.000002", 3, &[40, 50, 60], &mut rng),
    ];
    let disk = SimulatedDisk::new(seed);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, &files);
    (disk, life, files)
}

const NEVER: &dyn Fn() -> bool = &|| false;

#[test]
fn an_index_that_is_lost_torn_or_behind_is_made_anew() {
    for file in ["0001/bin.000001.index", "0001/bin.000002.index"] {
        for cut in [None, Some(0), Some(71), Some(72), Some(100), Some(215)] {
            let (disk, life, files) = filled(1);
            drop(life);
            match cut {
                None => disk.lose(file),
                Some(len) => disk.open(file).unwrap().truncate(len).unwrap(),
            }
            let life = live(&disk).unwrap();
            assert_eq!(life.recovered, Recovered::default());
            check_index(&life.archive, &files);
        }
        // Rotten in the middle.
        let (disk, life, files) = filled(1);
        drop(life);
        disk.open(file).unwrap().sync().unwrap();
        disk.flip(file, 72 + 20, 3);
        let life = live(&disk).unwrap();
        check_index(&life.archive, &files);
    }
}

#[test]
fn a_tail_of_garbage_is_cut_and_said() {
    let (disk, life, files) = filled(2);
    drop(life);
    let length = files[1].bytes.len() as u64;
    disk.open("0001/bin.000002").unwrap().write_at([&[0; 100], &[]], length).unwrap();
    let mut life = live(&disk).unwrap();
    assert_eq!(life.recovered.cut, Some(("0001/bin.000002".to_owned(), 100)));
    assert_eq!(place(&life.appender.begin().unwrap()), (2, length));
}

#[test]
fn every_rotten_byte_of_a_complete_file_is_found() {
    let (disk, life, files) = filled(3);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    assert!(opened(&disk, "0001/bin.000001.sealed") && !opened(&disk, "0001/bin.000002.sealed"));
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap(), []);
    for at in (0..files[0].bytes.len() as u64).step_by(13) {
        disk.flip("0001/bin.000001", at, (at % 8) as u8);
        let damage = life.archive.check(1, 1, NEVER).unwrap();
        assert_eq!(damage.len(), 1, "byte {at}");
        disk.flip("0001/bin.000001", at, (at % 8) as u8);
    }
    // In the open file the events' own checksums tell.
    let group = files[1].groups[1];
    disk.flip("0001/bin.000002", group.end - 1, 0);
    let damage = life.archive.check(1, 2, NEVER).unwrap();
    assert!(damage[0].at.is_some_and(|at| at >= group.start && at < group.end), "{damage:?}");
}

#[test]
fn an_interrupted_check_says_so() {
    let (_, life, _) = filled(3);
    let interrupted = |error| match error {
        ArchiveError::Io { source, .. } => source.kind() == io::ErrorKind::Interrupted,
        _ => false,
    };
    assert!(interrupted(life.archive.check(1, 1, &|| true).unwrap_err()));
    // So does the sealing of what has collected; it goes on with the next call.
    assert!(interrupted(life.archive.maintain(&|| true).unwrap_err()));
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
}

#[test]
fn bytes_that_no_server_sent_are_refused_and_what_came_before_is_kept() {
    let (_, _, files) = filled(4);
    let file = &files[0];
    let group = file.groups[0];
    let bad = |change: &dyn Fn(&mut Vec<u8>)| {
        let disk = SimulatedDisk::new(4);
        let mut life = live(&disk).unwrap();
        life.appender.begin().unwrap();
        life.appender.append(open(file, 1)).unwrap();
        life.appender.append(piece(file, 0, group.end as usize)).unwrap();
        let mut bytes = file.bytes[group.end as usize..].to_vec();
        change(&mut bytes);
        let (offset, arrived) = (group.end, Timestamp::default());
        let fault = life.appender.append(Append::Bytes { offset, arrived, bytes: bytes.into() }).unwrap_err();
        assert_eq!(life.archive.durable().borrow().place.offset, group.end, "{fault}");
        // The rest can be sent anew.
        assert_eq!(place(&life.appender.begin().unwrap()), (1, group.end));
        life.appender.append(piece(file, group.end, 1 << 20)).unwrap();
        life.appender.sync().unwrap();
        assert!(on_disk(&disk, file) == file.bytes);
        assert!(matches!(fault, Fault::Rejected { .. }));
        fault.to_string()
    };
    assert!(bad(&|bytes| bytes[100] ^= 1).contains("checksum"));
    assert!(bad(&|bytes| drop(bytes.drain(..31))).contains("event"));
    assert!(bad(&|bytes| bytes[13] ^= 1).contains("ends at"));
    let artificial = |bytes: &mut Vec<u8>| {
        let size = u32::from_le_bytes([bytes[9], bytes[10], bytes[11], bytes[12]]) as usize;
        bytes[17] |= 0x20;
        let sum = crc32fast::hash(&bytes[..size - 4]);
        bytes[size - 4..size].copy_from_slice(&sum.to_le_bytes());
    };
    assert!(bad(&artificial).contains("stands in no file"));
}

#[test]
fn an_open_file_must_not_say_so_and_places_must_fit() {
    let (_, _, files) = filled(5);
    let disk = SimulatedDisk::new(5);
    let mut life = live(&disk).unwrap();
    let refused = |life: &mut Life, work| {
        life.appender.begin().unwrap();
        let at = life.appender.end().file.map_or(0, |file| file.ordinal);
        if at == 0 {
            life.appender.append(open(&files[0], 1)).unwrap();
        }
        let fault = life.appender.append(work).unwrap_err().to_string();
        assert_eq!(life.archive.files(), [], "a file without an event is none");
        fault
    };
    let mut in_use = files[0].bytes.to_vec();
    in_use[21] |= 1;
    let bytes = Append::Bytes { offset: 0, arrived: Timestamp::default(), bytes: in_use.into() };
    assert!(refused(&mut life, bytes).contains("its file is open"));
    assert!(refused(&mut life, piece(&files[0], 5, 10)).contains("offset 5"));
    let closed = |name: &str, len| Append::Closed { name: name.to_owned(), len };
    assert!(refused(&mut life, closed("bin.000001", 7)).contains("7 bytes"));
    assert!(refused(&mut life, closed("bin.000002", 0)).contains("not the open file"));
    assert!(refused(&mut life, open(&files[1], 2)).contains("complete"));
    life.appender.begin().unwrap();
    assert_eq!(disk.names_in(Some("0001")).unwrap(), [""; 0], "nothing of it is left");
}

#[test]
fn a_rotten_range_is_written_anew_and_nothing_else_is_taken() {
    let (disk, life, files) = filled(6);
    life.archive.maintain(NEVER).unwrap();
    let (file, group) = (&files[0], files[0].groups[1]);
    disk.flip("0001/bin.000001", group.start + 100, 1);
    let mut refetches = Refetches::new(Arc::new(disk.clone()), life.archive.shared.clone());
    let wanted = Wanted { lineage: 1, ordinal: 1, from: group.start, to: group.end };
    let bytes = &file.bytes[group.start as usize..group.end as usize];
    let mut attempt = |id, wanted: Wanted, bytes: &[u8]| {
        refetches.begin(id, wanted)?;
        let mut done = None;
        for (at, piece) in bytes.chunks(700).enumerate() {
            match refetches.patch(id, wanted.from + at as u64 * 700, piece) {
                Patched::More => {}
                Patched::Failed(reason) => done = done.or(Some(Err(reason))),
                Patched::Complete(replacement) => {
                    let again = refetches.begin(id + 100, wanted).unwrap_err();
                    assert!(again.contains("right now"), "{again}");
                    done = Some(replacement.run());
                }
            }
        }
        assert!(!opened(&disk, "0001/bin.000001.patch") || done.is_none());
        done.unwrap_or(Err("not complete".to_owned()))
    };
    assert!(attempt(1, Wanted { ordinal: 2, to: 100, from: 4, ..wanted }, b"").unwrap_err().contains("open"));
    assert!(attempt(2, Wanted { ordinal: 3, ..wanted }, b"").unwrap_err().contains("not here"));
    assert_eq!(attempt(3, wanted, &bytes[..bytes.len() - 1]).unwrap_err(), "not complete");
    let mut wrong = bytes.to_vec();
    wrong[200] ^= 1;
    assert!(attempt(4, wanted, &wrong).unwrap_err().contains("checksum"));
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), 1, "nothing was written");
    assert_eq!(attempt(5, wanted, bytes), Ok(()));
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap(), []);
    assert!(on_disk(&disk, file) == file.bytes);
    // The beginning of a file, too.
    disk.flip("0001/bin.000001", 30, 1);
    let first = Wanted { from: 0, to: group.start, ..wanted };
    assert_eq!(attempt(6, first, &file.bytes[..group.start as usize]), Ok(()));
    assert!(on_disk(&disk, file) == file.bytes);
}

#[test]
fn ranges_that_get_no_bytes_make_room_for_others() {
    let mut rng = StdRng::seed_from_u64(8);
    let files: Vec<MadeFile> =
        (1..=7).map(|n| made(&format!("bin.{n:06}"), 2 * n - 2, &[100, 100], &mut rng)).collect();
    let disk = SimulatedDisk::new(8);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, &files);
    let mut refetches = Refetches::new(Arc::new(disk.clone()), life.archive.shared.clone());
    let wanted = |ordinal: u32| {
        let group = files[ordinal as usize - 1].groups[0];
        Wanted { lineage: 1, ordinal, from: group.start, to: group.end }
    };
    for id in 1..=4 {
        assert_eq!(refetches.begin(u64::from(id), wanted(id)), Ok(vec![]));
    }
    let bytes = |ordinal: u32| {
        let Wanted { from, to, .. } = wanted(ordinal);
        files[ordinal as usize - 1].bytes.slice(from as usize..to as usize)
    };
    // Those that get bytes stay.
    for id in [1, 2, 4] {
        assert!(matches!(refetches.patch(u64::from(id), wanted(id).from, &bytes(id)[..50]), Patched::More));
    }
    assert_eq!(refetches.begin(5, wanted(5)), Ok(vec![3]));
    assert!(!opened(&disk, "0001/bin.000003.patch"));
    // One of the same file, too, and its late bytes do no harm.
    assert_eq!(refetches.begin(6, wanted(1)), Ok(vec![1]));
    assert!(matches!(refetches.patch(1, wanted(1).from + 50, &bytes(1)[50..]), Patched::More));
    let Patched::Complete(replacement) = refetches.patch(6, wanted(1).from, &bytes(1)) else { panic!() };
    replacement.run().unwrap();
    assert!(on_disk(&disk, &files[0]) == files[0].bytes);
    // What a kill leaves goes at the next start.
    assert!(opened(&disk, "0001/bin.000002.patch"));
    drop(life);
    live(&disk).unwrap();
    assert!(!opened(&disk, "0001/bin.000002.patch"));
}

/// Records of a file: time, whether it was measured.
fn times(archive: &Archive, ordinal: u32) -> Vec<(i64, bool)> {
    let mut times = Vec::new();
    archive.groups(1, ordinal, &mut |entry| times.push((entry.time.seconds, entry.live))).unwrap();
    times
}

/// Three groups that arrived at 5000, 6000 and 7000, in a file that is sealed.
fn arrived_live(seed: u64) -> (SimulatedDisk, Life, Vec<MadeFile>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let files = vec![made("bin.000001", 0, &[10, 10, 10], &mut rng), made("bin.000002", 3, &[10], &mut rng)];
    let disk = SimulatedDisk::new(seed);
    let mut life = live(&disk).unwrap();
    life.appender.begin().unwrap();
    life.appender.append(open(&files[0], 1)).unwrap();
    let mut from = 0;
    for (group, seconds) in files[0].groups.iter().zip([5000, 6000, 7000]) {
        let bytes = files[0].bytes.slice(from as usize..group.end as usize);
        let arrived = Timestamp { seconds, nanos: 0 };
        life.appender.append(Append::Bytes { offset: from, arrived, bytes }).unwrap();
        from = group.end;
    }
    let len = files[0].bytes.len() as u64;
    life.appender.append(Append::Closed { name: files[0].name.clone(), len }).unwrap();
    life.appender.append(open(&files[1], 2)).unwrap();
    life.appender.append(piece(&files[1], 0, usize::MAX / 2)).unwrap();
    life.appender.sync().unwrap();
    life.archive.maintain(NEVER).unwrap();
    (disk, life, files)
}

const INDEX: &str = "0001/bin.000001.index";

#[test]
fn a_rotten_record_moves_no_restore() {
    let at = |seconds| Target::Time(Timestamp { seconds, nanos: 0 });
    let sequence = |life: &Life, target: &Target| {
        life.archive.find(target).map(|stop| stop.gtid.to_string()).map_err(|error| error.to_string())
    };
    for record in 0..3u64 {
        let (disk, life, files) = arrived_live(9 + record);
        disk.flip(INDEX, record * 72 + 20, 3);
        // Whichever is asked first.
        match record {
            0 => assert_eq!(sequence(&life, &at(5500)).unwrap(), "0-7-1"),
            1 => assert_eq!(sequence(&life, &at(6500)).unwrap(), "0-7-2"),
            _ => {
                let place = Place { lineage: 1, file: 1, offset: files[0].groups[2].end };
                assert_eq!(life.archive.gtid_at(place).unwrap().to_string(), "0-7-3");
            }
        }
        // The others keep the times of their arrival; its own lies between them.
        let mut expected = vec![(5000, true), (6000, true), (7000, true)];
        expected[record as usize] = [(1001, false), (5000, false), (6000, false)][record as usize];
        assert_eq!(times(&life.archive, 1), expected);
        assert_eq!(sequence(&life, &Target::Latest).unwrap(), "0-7-4");
    }
    // Cut, or gone.
    for cut in [Some(144), Some(0), None] {
        let (disk, life, files) = arrived_live(12);
        match cut {
            Some(len) => disk.open(INDEX).unwrap().truncate(len).unwrap(),
            None => disk.lose(INDEX),
        }
        let group = files[0].groups[2];
        let target = Target::Position { file: "bin.000001".to_owned(), offset: group.end - 1 };
        let inside = sequence(&life, &target).unwrap_err();
        assert!(inside.contains("inside a transaction"), "{inside}");
        check_index(&life.archive, &files);
    }
}

#[test]
fn a_rotten_record_is_found_without_being_asked_for_and_kept_apart_where_nothing_helps() {
    // Once while it runs, once at a start.
    let (disk, life, _) = arrived_live(13);
    disk.flip(INDEX, 72 + 20, 3);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    assert_eq!(times(&life.archive, 1), [(5000, true), (5000, false), (7000, true)]);
    disk.flip(INDEX, 20, 3);
    disk.lose("0001/bin.000001.sealed");
    drop(life);
    let life = live(&disk).unwrap();
    assert_eq!(times(&life.archive, 1), [(1001, false), (5000, false), (7000, true)]);
    // The file is rotten as well: an error that names the way out, and nothing is removed on its word.
    life.archive.maintain(NEVER).unwrap();
    disk.flip(INDEX, 144 + 20, 3);
    disk.flip("0001/bin.000001", 200, 3);
    let error = life.archive.prepare_group(&xid(), Place { lineage: 1, file: 2, offset: 4 }).unwrap_err();
    assert!(error.to_string().contains("verify --database --repair"), "{error}");
    // Its age is not after the first group of the next one.
    let prune = |seconds, dry_run| {
        let far = Place { lineage: 9, file: 1, offset: 0 };
        let pruned = life.archive.prune(far, Timestamp { seconds, nanos: 0 }, dry_run);
        pruned.map(|pruned| pruned.files.len()).map_err(|error| error.to_string())
    };
    assert_eq!((prune(7000, true), prune(7001, true)), (Ok(0), Ok(1)));
    disk.open("0001/bin.000002.index").unwrap().sync().unwrap();
    disk.flip("0001/bin.000002.index", 20, 3);
    let error = prune(7001, true).unwrap_err();
    assert!(error.contains("verify --database --repair"), "nothing tells: {error}");
    disk.flip("0001/bin.000002.index", 20, 3);
    assert_eq!(prune(7001, false), Ok(1));
    assert!(!opened(&disk, "0001/bin.000001") && life.archive.status().error.is_none());
    // The index of a file that is being written is the writer's: a start makes it anew.
    disk.flip("0001/bin.000002.index", 20, 3);
    let error = life.archive.find(&Target::Latest).unwrap_err();
    assert!(error.to_string().contains("FLUSH BINARY LOGS"), "{error}");
    drop(life);
    assert_eq!(live(&disk).unwrap().archive.find(&Target::Latest).unwrap().gtid.to_string(), "0-7-4");
}

fn xid() -> ehpc_proto::binlog::Xid {
    ehpc_proto::binlog::Xid { format: 1, gtrid: b"x".to_vec(), bqual: Vec::new() }
}

#[test]
fn a_damaged_file_is_told_until_it_is_whole_again_and_is_read_once() {
    let (disk, life, files) = filled(14);
    let group = files[0].groups[1];
    disk.flip("0001/bin.000001", group.start + 100, 1);
    let error = |life: &Life| life.archive.status().error.unwrap_or_default();
    let found = life.archive.maintain(NEVER).unwrap();
    assert_eq!((found.len(), found[0].ordinal), (1, 1), "{found:?}");
    assert!(error(&life).contains("0001/bin.000001: "), "{}", error(&life));
    assert!(error(&life).contains("verify --database --repair"), "{}", error(&life));
    // Nothing is read any more: an interruption would be seen.
    assert_eq!(life.archive.maintain(&|| true).unwrap(), []);
    let mut refetches = Refetches::new(Arc::new(disk.clone()), life.archive.shared.clone());
    let wanted = Wanted { lineage: 1, ordinal: 1, from: group.start, to: group.end };
    refetches.begin(1, wanted).unwrap();
    let bytes = &files[0].bytes[group.start as usize..group.end as usize];
    let Patched::Complete(replacement) = refetches.patch(1, group.start, bytes) else { panic!() };
    replacement.run().unwrap();
    assert_eq!(error(&life), "");
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    assert!(opened(&disk, "0001/bin.000001.sealed"));
    // Rot in a sealed file is seen by verify's reading, and told, too.
    disk.flip("0001/bin.000001", group.start + 100, 1);
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), 1);
    assert!(error(&life).contains("bin.000001"));
    disk.flip("0001/bin.000001", group.start + 100, 1);
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap(), []);
    assert_eq!(error(&life), "");
    // A start finds a file that is gone, between others.
    drop(life);
    let mut life = live(&disk).unwrap();
    let third = made("bin.000003", 6, &[10], &mut StdRng::seed_from_u64(15));
    life.appender.begin().unwrap();
    let len = files[1].bytes.len() as u64;
    life.appender.append(Append::Closed { name: files[1].name.clone(), len }).unwrap();
    life.appender.append(open(&third, 3)).unwrap();
    life.appender.append(piece(&third, 0, usize::MAX / 2)).unwrap();
    life.appender.sync().unwrap();
    drop(life);
    disk.lose("0001/bin.000002");
    let life = live(&disk).unwrap();
    assert!(error(&life).contains("0001/bin.000002: it is gone"), "{}", error(&life));
}

#[test]
fn a_record_that_cannot_be_read_is_no_reason_to_forget_files() {
    let (disk, life, _) = filled(7);
    drop(life);
    disk.flip("0001/lineage.json", 0, 1);
    let error = live(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Lineage { .. }), "{error}");
    disk.flip("0001/lineage.json", 0, 1);
    disk.flip("0001/files", 2, 7);
    let error = live(&disk).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("does not name bin.000001"), "{error}");
    disk.flip("0001/files", 2, 7);
    assert!(live(&disk).is_ok());
}
