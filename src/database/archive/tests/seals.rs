//! What a seal says stays true: files that are cut, lost, unreadable, or half written anew when the power goes.

use super::super::refetch::{Patched, Refetches, Wanted};
use super::super::{Target, seal};
use super::*;
use crate::database::binlog_server::feed::Feed;
use ehpc_proto::replication::database::Place;
use rand::SeedableRng;

const NEVER: &dyn Fn() -> bool = &|| false;

/// The same file of a server with `binlog_checksum = NONE`.
fn without_checksums(file: &MadeFile) -> MadeFile {
    let (mut bytes, mut groups, mut at) = (MAGIC.to_vec(), file.groups.clone(), MAGIC.len());
    while at < file.bytes.len() {
        let header = EventHeader::decode(&file.bytes[at..]).unwrap();
        let end = at + header.size as usize;
        let start = bytes.len();
        if header.kind == Kind::FORMAT_DESCRIPTION {
            bytes.extend_from_slice(&file.bytes[at..end - 5]);
            bytes.push(0);
            let sum = crc32fast::hash(&bytes[start..]);
            bytes.extend_from_slice(&sum.to_le_bytes());
        } else {
            let size = header.size - 4;
            let log_pos = start as u32 + size;
            bytes.extend_from_slice(&EventHeader { size, log_pos, ..header }.encode());
            bytes.extend_from_slice(&file.bytes[at + EventHeader::LEN..end - 4]);
        }
        for (group, was) in groups.iter_mut().zip(&file.groups) {
            if was.start == at as u64 {
                group.start = start as u64;
            }
            if was.end == end as u64 {
                group.end = bytes.len() as u64;
            }
        }
        at = end;
    }
    MadeFile { bytes: bytes.into(), groups, ..file.clone() }
}

/// Two files with three groups each and one that is being written, of a server without checksums.
fn filled(seed: u64) -> (SimulatedDisk, Life, Vec<MadeFile>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = |n: u64| (format!("bin.{n:06}"), 3 * n - 3);
    let files = (1..=3).map(file).map(|(name, before)| made(&name, before, &[100, 2000, 50], &mut rng));
    let files: Vec<MadeFile> = files.map(|file| without_checksums(&file)).collect();
    let disk = SimulatedDisk::new(seed);
    let mut life = live(&disk).unwrap();
    fill(&mut life.appender, &files);
    (disk, life, files)
}

fn told(life: &Life) -> String {
    life.archive.status().error.unwrap_or_default()
}

/// Bytes `from` to `to` of a file come from the server again.
fn refetch(disk: &SimulatedDisk, life: &Life, file: &MadeFile, (from, to): (u64, u64)) -> Result<(), String> {
    let mut refetches = Refetches::new(Arc::new(disk.clone()), life.archive.shared.clone());
    let ordinal = file.name[4..].parse().unwrap();
    refetches.begin(1, Wanted { lineage: 1, ordinal, from, to })?;
    match refetches.patch(1, from, &file.bytes[from as usize..to as usize]) {
        Patched::Complete(replacement) => replacement.run(),
        Patched::Failed(reason) => Err(reason),
        Patched::More => Err("not complete".to_owned()),
    }
}

fn again(disk: &SimulatedDisk, life: Life) -> Life {
    drop(life);
    live(disk).unwrap()
}

/// The file is what the server wrote, and nobody says otherwise.
fn is_whole(disk: &SimulatedDisk, life: &Life, files: &[MadeFile]) {
    assert_eq!(told(life), "");
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    for (file, ordinal) in files.iter().zip(1..) {
        assert!(on_disk(disk, file) == file.bytes, "{}", file.name);
        assert_eq!(life.archive.file(1, ordinal).unwrap().len, file.bytes.len() as u64);
        assert_eq!(life.archive.check(1, ordinal, NEVER).unwrap(), []);
    }
    check_index(&life.archive, files);
}

#[test]
fn a_file_that_was_cut_meanwhile_is_damaged_however_often_it_is_started() {
    for (seed, sealed) in [(1, true), (2, false)] {
        let (disk, life, files) = filled(seed);
        if sealed {
            assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
        }
        drop(life);
        let (whole, cut) = (files[0].bytes.len() as u64, files[0].groups[2].start);
        disk.open("0001/bin.000001").unwrap().truncate(cut).unwrap();
        let index = disk.len("0001/bin.000001.index");
        let mut life = live(&disk).unwrap();
        for _ in 0..2 {
            assert!(told(&life).contains(&format!("bin.000001: it has {cut} bytes, and")), "{}", told(&life));
            assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
            life = again(&disk, life);
        }
        assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), usize::from(sealed));
        assert_eq!(disk.len("0001/bin.000001.index"), index, "times of arrival are there still");
        assert_eq!(seal::load(&disk, "0001/bin.000001").map(|seal| seal.len), sealed.then_some(whole));
        // A server that has less of it is not believed.
        let least = refetch(&disk, &life, &files[0], (0, files[0].groups[2].start + 1));
        assert!(least.is_err());
        refetch(&disk, &life, &files[0], (0, whole)).unwrap();
        is_whole(&disk, &life, &files);
        life.archive.find(&Target::Latest).unwrap();
        is_whole(&disk, &again(&disk, life), &files);
    }
}

#[test]
fn a_file_that_is_written_anew_is_damaged_until_that_is_done() {
    let wanted = |file: &MadeFile, whole: bool| match whole {
        true => (0, file.bytes.len() as u64),
        false => (file.groups[1].start, file.groups[1].end),
    };
    for (calls, whole, power) in
        (0..80).flat_map(|n| [(n, true, true), (n, true, false), (n, false, true), (n, false, false)])
    {
        let (disk, life, files) = filled(calls);
        assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
        let at = files[0].groups[1].start + 100;
        disk.flip("0001/bin.000001", at, 1);
        disk.flip("0001/bin.000001", at + 1500, 1);
        let rotten = on_disk(&disk, &files[0]);
        disk.die_after(calls);
        let done = refetch(&disk, &life, &files[0], wanted(&files[0], whole));
        if power {
            disk.crash();
        } else {
            disk.restart();
        }
        let life = again(&disk, life);
        let is_sound = on_disk(&disk, &files[0]) == files[0].bytes;
        assert!(is_sound || done.is_err());
        // What is not told is as it was.
        assert!(
            is_sound || !told(&life).is_empty() || on_disk(&disk, &files[0]) == rotten,
            "after {calls} calls"
        );
        // Nothing is sealed over.
        life.archive.maintain(NEVER).unwrap();
        let known = life.archive.check(1, 1, NEVER).unwrap();
        assert_eq!(known.is_empty(), is_sound, "after {calls} calls: {known:?}");
        assert_eq!(told(&life).is_empty(), is_sound, "after {calls} calls");
        refetch(&disk, &life, &files[0], wanted(&files[0], whole)).unwrap();
        is_whole(&disk, &life, &files);
    }
}

#[test]
fn known_damage_is_known_after_a_restart() {
    let (disk, life, files) = filled(3);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    let rotten = files[0].groups[1].start + 100;
    disk.flip("0001/bin.000001", rotten, 1);
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), 1);
    disk.crash();
    let life = again(&disk, life);
    assert!(told(&life).contains("bin.000001: its bytes are not those that were sealed"), "{}", told(&life));
    assert_eq!(life.recovered.damage.len(), 1);
    let served = Feed::open(&*life.archive, 1, 1).unwrap_err().to_string();
    assert!(served.contains("damaged in the archive"), "{served}");
    // Only that the mark is there counts.
    disk.open("0001/bin.000001.damaged").unwrap().truncate(0).unwrap();
    let life = again(&disk, life);
    assert!(told(&life).contains("bin.000001: it was found damaged"), "{}", told(&life));
    // It reads well again (a cable): whoever looks sees it.
    disk.flip("0001/bin.000001", rotten, 1);
    is_whole_after_a_check(&disk, &life, &files);
    disk.crash();
    is_whole(&disk, &again(&disk, life), &files);
}

#[test]
fn a_file_is_not_sealed_anew_because_its_index_was() {
    let (disk, life, files) = filled(9);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    let sealed = disk.bytes("0001/bin.000001.sealed");
    disk.flip("0001/bin.000001", files[0].groups[1].start + 100, 1);
    disk.open("0001/bin.000001.index").unwrap().truncate(144).unwrap();
    assert_eq!(life.archive.maintain(NEVER).unwrap().len(), 1);
    assert!(told(&life).contains("not those that were sealed"), "{}", told(&life));
    assert_eq!(disk.bytes("0001/bin.000001.sealed"), sealed);
    disk.flip("0001/bin.000001", files[0].groups[1].start + 100, 1);
    is_whole_after_a_check(&disk, &life, &files);
    // A newer line counts, and a torn one does not.
    let seal = disk.open("0001/bin.000001.sealed").unwrap();
    let end = seal.len().unwrap();
    seal.write_at([b"{\"len\":1,\"blake3\":\"\",\"index\":0}", &[]], end).unwrap();
    is_whole(&disk, &life, &files);
    seal.write_at([b"{\"len\":1,\"blake3\":\"\",\"index\":0}\n", &[]], end).unwrap();
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), 1);
}

fn is_whole_after_a_check(disk: &SimulatedDisk, life: &Life, files: &[MadeFile]) {
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap(), []);
    is_whole(disk, life, files);
}

#[test]
fn a_file_that_nobody_pruned_is_lost_and_comes_back() {
    for (name, what) in
        [("bin.000001", "gone"), ("bin.000002", "gone"), ("bin.000001", "empty"), ("bin.000002", "empty")]
    {
        let (disk, life, files) = filled(4);
        life.archive.maintain(NEVER).unwrap();
        let path = format!("0001/{name}");
        match what {
            "gone" => disk.lose(&path),
            _ => disk.open(&path).unwrap().truncate(0).unwrap(),
        }
        // Seen at once by whoever looks, and by a start.
        let ordinal = name[4..].parse().unwrap();
        assert_eq!(life.archive.check(1, ordinal, NEVER).unwrap().len(), 1);
        let life = again(&disk, life);
        assert!(told(&life).contains(&format!("{name}: it is {what}")), "{}", told(&life));
        let listed: Vec<_> = life.archive.listed().into_iter().filter(|file| file.len == 0).collect();
        assert_eq!((listed.len(), listed[0].ordinal, listed[0].closed), (1, ordinal, true));
        assert!(life.archive.files().iter().all(|file| file.ordinal != ordinal));
        // A replica is told that it cannot be read, and does not take it for pruned.
        assert_eq!(Feed::files(&*life.archive).unwrap().len(), files.len());
        assert!(Feed::open(&*life.archive, 1, ordinal).is_err());
        assert!(life.archive.check(1, ordinal, NEVER).unwrap()[0].reason.contains(what));
        // A moment in it is not the end of the file before it.
        let file = &files[ordinal as usize - 1];
        let at = |seconds| life.archive.find(&Target::Time(Timestamp { seconds, nanos: 0 }));
        let inside = at(file.groups[1].time.into()).unwrap_err().to_string();
        assert!(inside.contains(name) && inside.contains("--repair"), "{inside}");
        assert_eq!(at(files[2].groups[1].time.into()).unwrap().place.file, 3);
        refetch(&disk, &life, file, (0, file.bytes.len() as u64)).unwrap();
        is_whole(&disk, &life, &files);
        is_whole(&disk, &again(&disk, life), &files);
    }
    // What is pruned is not lost; what is lost behind it is, until it would have been pruned, too.
    let (disk, life, _) = filled(5);
    let prune = |life: &Life, file| {
        let place = Place { lineage: 1, file, offset: 0 };
        life.archive.prune(place, Timestamp { seconds: 9999, nanos: 0 }, false).unwrap()
    };
    prune(&life, 2);
    disk.crash();
    let mut life = again(&disk, life);
    assert_eq!(told(&life), "");
    let last = made("bin.000004", 9, &[10], &mut StdRng::seed_from_u64(6));
    life.appender.begin().unwrap();
    let len = disk.len("0001/bin.000003");
    life.appender.append(Append::Closed { name: "bin.000003".to_owned(), len }).unwrap();
    life.appender.append(open(&last, 4)).unwrap();
    life.appender.append(piece(&last, 0, usize::MAX / 2)).unwrap();
    life.appender.sync().unwrap();
    disk.lose("0001/bin.000002");
    let life = again(&disk, life);
    assert!(told(&life).contains("bin.000002: it is gone"), "{}", told(&life));
    prune(&life, 4);
    assert_eq!((told(&life).as_str(), life.archive.listed().len()), ("", 1));
    assert_eq!(told(&again(&disk, life)), "");
}

#[test]
fn a_lost_file_is_not_whole_while_it_comes_back() {
    let (disk, life, _) = filled(10);
    disk.lose("0001/bin.000001");
    let life = again(&disk, life);
    // Half of it is written, and it was never sealed.
    disk.create("0001/bin.000001").unwrap().write_at([MAGIC.as_slice(), &[]], 0).unwrap();
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap().len(), 1);
    assert!(told(&life).contains("bin.000001: it is gone"), "{}", told(&life));
}

#[test]
fn what_was_read_while_it_was_written_anew_says_nothing() {
    let disk = SimulatedDisk::new(11);
    let mut life = live(&disk).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let files = [made("bin.000001", 0, &[1_500_000], &mut rng), made("bin.000002", 1, &[10], &mut rng)];
    fill(&mut life.appender, &files);
    disk.flip("0001/bin.000001", 1000, 1);
    let calls = std::cell::Cell::new(0);
    let stop = || {
        calls.set(calls.get() + 1);
        // Its first part was read.
        if calls.get() == 2 {
            refetch(&disk, &life, &files[0], (0, files[0].bytes.len() as u64)).unwrap();
        }
        false
    };
    assert_eq!(life.archive.check(1, 1, &stop).unwrap(), []);
    is_whole(&disk, &life, &files);
}

#[test]
fn what_a_start_has_found_is_known_to_the_next() {
    let (disk, life, files) = filled(12);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    disk.flip("0001/bin.000002", files[1].groups[1].start + 100, 1);
    // The index is put right on the way: only the mark tells.
    disk.flip("0001/bin.000002.index", 72 + 20, 1);
    let mut life = again(&disk, life);
    for _ in 0..2 {
        assert!(told(&life).contains("bin.000002: its bytes are not those"), "{}", told(&life));
        life = again(&disk, life);
    }
    disk.flip("0001/bin.000002", files[1].groups[1].start + 100, 1);
    assert_eq!(life.archive.check(1, 2, NEVER).unwrap(), []);
    is_whole(&disk, &again(&disk, life), &files);
}

#[test]
fn a_sound_file_is_not_replaced_by_what_has_rotted_on_the_server() {
    let (disk, life, files) = filled(13);
    assert_eq!(life.archive.maintain(NEVER).unwrap(), []);
    let mut rotten = files[0].clone();
    let (len, at) = (rotten.bytes.len() as u64, rotten.groups[1].start as usize + 100);
    let mut bytes = rotten.bytes.to_vec();
    bytes[at] ^= 1;
    rotten.bytes = bytes.into();
    let refused = refetch(&disk, &life, &rotten, (0, len)).unwrap_err();
    assert!(refused.contains("the server's own file has changed"), "{refused}");
    is_whole(&disk, &life, &files);
    // Where both have rotted, the server's is believed.
    disk.flip("0001/bin.000001", at as u64 + 5, 1);
    refetch(&disk, &life, &rotten, (0, len)).unwrap();
    is_whole(&disk, &again(&disk, life), &[vec![rotten], files[1..].to_vec()].concat());
}

#[test]
fn what_is_lost_at_the_end_is_told_and_comes_again() {
    for (kept, pruned) in [(0, false), (0, true), (1, false), (2, false)] {
        let (disk, life, files) = filled(14);
        if pruned {
            let (place, far) =
                (Place { lineage: 1, file: 3, offset: 0 }, Timestamp { seconds: 9999, nanos: 0 });
            assert_eq!(life.archive.prune(place, far, false).unwrap().files.len(), 2);
        }
        drop(life);
        files[kept..].iter().for_each(|file| disk.lose(&format!("0001/{}", file.name)));
        let mut life = live(&disk).unwrap();
        for file in &files[if pruned { 2 } else { kept }..] {
            assert!(told(&life).contains(&format!("0001/{}: it is gone", file.name)), "{}", told(&life));
        }
        if kept > 0 {
            let error = life.archive.find(&Target::Latest).unwrap_err().to_string();
            assert!(error.contains("it is gone") && error.contains("--position"), "{error}");
        }
        let end = life.appender.begin().unwrap();
        assert_eq!(
            end.file.map(|file| (file.ordinal as usize, file.closed)),
            (kept > 0).then_some((kept, false))
        );
        assert_eq!(end.lineage, Some(lineage(1)));
        for (at, file) in files.iter().enumerate().skip(kept) {
            if at > 0 {
                let (name, len) = (files[at - 1].name.clone(), files[at - 1].bytes.len() as u64);
                life.appender.append(Append::Closed { name, len }).unwrap();
            }
            life.appender.append(open(file, at as u32 + 1)).unwrap();
            life.appender.append(piece(file, 0, usize::MAX / 2)).unwrap();
        }
        life.appender.sync().unwrap();
        is_whole(&disk, &life, &files);
        is_whole(&disk, &again(&disk, life), &files);
    }
}

#[test]
fn the_last_file_of_an_old_lineage_is_not_forgotten() {
    let (disk, mut life, files) = filled(7);
    life.appender.begin().unwrap();
    let name = files[0].name.clone();
    life.appender.append(Append::Open { lineage: lineage(2), name, ordinal: 1, joined: None }).unwrap();
    life.appender.append(piece(&files[0], 0, usize::MAX / 2)).unwrap();
    life.appender.sync().unwrap();
    disk.lose("0001/bin.000003");
    // A connection that looks at the disk after a fault sees it, too.
    life.appender.append(piece(&files[1], 5, 1)).unwrap_err();
    // But not while a file is written anew.
    let mending = life.archive.shared.mending.lock();
    std::thread::scope(|scope| {
        let begins = scope.spawn(|| life.appender.begin().map(drop));
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        assert!(!begins.is_finished());
        drop(mending);
        begins.join().unwrap().unwrap();
    });
    assert!(told(&life).contains("0001/bin.000003: it is gone"), "{}", told(&life));
    let life = again(&disk, life);
    assert!(told(&life).contains("0001/bin.000003: it is gone"), "{}", told(&life));
    let life = again(&disk, life);
    assert!(told(&life).contains("0001/bin.000003: it is gone"), "{}", told(&life));
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_the_others_are_sealed() {
    let (disk, life, files) = filled(8);
    disk.fail_reads("0001/bin.000001", true);
    let found = life.archive.maintain(NEVER).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(told(&life).contains("0001/bin.000001: it cannot be read"), "{}", told(&life));
    assert!(opened(&disk, "0001/bin.000002.sealed") && !opened(&disk, "0001/bin.000001.sealed"));
    let damage = life.archive.check(1, 1, NEVER).unwrap();
    assert!(damage.len() == 1 && damage[0].reason.contains("os error 5"), "{damage:?}");
    assert_eq!(life.archive.check(1, 2, NEVER).unwrap(), []);
    // Nor does a start fail because of it.
    let life = again(&disk, life);
    assert!(told(&life).contains("0001/bin.000001: it cannot be read"), "{}", told(&life));
    // An index is no reason to leave the others alone, either.
    disk.fail_reads("0001/bin.000001", false);
    assert_eq!(life.archive.check(1, 1, NEVER).unwrap(), []);
    disk.lose("0001/bin.000002.sealed");
    disk.fail_reads("0001/bin.000001.index", true);
    assert!(life.archive.maintain(NEVER).unwrap_err().to_string().contains("bin.000001"));
    assert!(opened(&disk, "0001/bin.000002.sealed") && told(&life).is_empty());
    disk.fail_reads("0001/bin.000001.index", false);
    is_whole(&disk, &life, &files);
}
