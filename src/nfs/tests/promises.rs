//! What a client may rely on: exclusive creates and handles over a restart, dead handles, truthful limits, offsets
//! of 64 bits, attributes that belong to the operation.

use super::wire::{Call, Rest, ask};
use super::{Fixture, local, options, status};
use ehpc_proto::nfs3::arguments::CreateHow;
use ehpc_proto::nfs3::{Procedure, StableHow, nfstime3, sattr3, set_mtime, set_size3};
use ehpc_tools::mount::Mount;
use ehpc_tools::nfs_client::{Client, Handle, mode};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

const EXIST: u32 = 17;
const FBIG: u32 = 27;
const NAMETOOLONG: u32 = 63;
const STALE: u32 = 70;
const NOT_SYNC: u32 = 10_002;

/// Another server, as after a restart, for a directory that another fixture owns.
fn serving(path: &Path) -> Fixture {
    Fixture::with(options(), |_| {}, |_| local(path))
}

fn sized(size: u64) -> sattr3 {
    sattr3 { size: set_size3::size(size), ..sattr3::default() }
}

#[test]
fn an_exclusive_create_is_recognised_after_a_restart_by_all_its_bytes() {
    let first = Fixture::start();
    let (mut client, root) = first.mounted();
    let verifier = *b"\x80\xff\x00\x01\x7f\xfe\x00\x80";
    let made = client.create_as(&root, b"lock", CreateHow::Exclusive(verifier)).unwrap();
    drop(client);
    first.stop();
    let second = serving(first.dir.path());
    let (mut client, root) = second.mounted();
    let again = client.create_as(&root, b"lock", CreateHow::Exclusive(verifier)).unwrap();
    assert_eq!(again.data, made.data, "the retry of the call whose reply was lost");
    for bit in 0..64 {
        let mut other = verifier;
        other[bit / 8] ^= 1 << (bit % 8);
        let refused = client.create_as(&root, b"lock", CreateHow::Exclusive(other));
        assert_eq!(status(refused), EXIST, "bit {bit}");
    }
    // The SETATTR that follows ends it: from now on it is a file like others.
    let now = sattr3 { mtime: set_mtime::SET_TO_SERVER_TIME, ..mode(0o644) };
    client.setattr(&made, sattr3 { atime: ehpc_proto::nfs3::set_atime::SET_TO_SERVER_TIME, ..now }).unwrap();
    assert_eq!(status(client.create_as(&root, b"lock", CreateHow::Exclusive(verifier))), EXIST);
}

#[test]
fn handles_of_every_kind_survive_a_restart_and_what_happened_meanwhile() {
    let first = Fixture::start();
    let (mut client, root) = first.mounted();
    let dir = client.mkdir(&root, b"dir").unwrap();
    let file = client.create(&dir, b"file").unwrap();
    client.write_stable(&file, 0, b"content", StableHow::FileSync).unwrap();
    let link = client.symlink(&root, b"link", b"target").unwrap();
    let gone = client.create(&root, b"gone").unwrap();
    let fileids = [&root, &dir, &file, &link].map(|handle| client.getattr(handle).unwrap().fileid);
    drop(client);
    first.stop();
    // Renamed, replaced and removed by somebody else while nobody served.
    fs::rename(first.path("dir/file"), first.path("moved")).unwrap();
    fs::rename(first.path("dir"), first.path("other")).unwrap();
    fs::remove_file(first.path("gone")).unwrap();
    fs::write(first.path("gone"), b"another").unwrap();
    let second = serving(first.dir.path());
    let mut client = second.client();
    let now = [&root, &dir, &file, &link].map(|handle| client.getattr(handle).unwrap().fileid);
    assert_eq!(now, fileids);
    assert_eq!(client.read_all(&file).unwrap(), b"content");
    assert_eq!(client.readlink(&link).unwrap(), b"target");
    client.create(&dir, b"new").unwrap();
    assert!(first.path("other/new").exists());
    assert_eq!(status(client.getattr(&gone)), STALE);
}

/// Inode numbers come again at once; handles do not.
#[test]
fn the_handle_of_a_removed_object_stays_dead_when_its_number_lives_again() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let mut dead: Vec<(Handle, u64)> = Vec::new();
    let mut reused = 0;
    for _ in 0..60 {
        let file = client.create(&root, b"file").unwrap();
        let fileid = client.getattr(&file).unwrap().fileid;
        reused += usize::from(dead.iter().any(|(_, earlier)| *earlier == fileid));
        for (handle, _) in &dead {
            assert_ne!(handle.data, file.data);
            assert_eq!(status(client.getattr(handle)), STALE);
            assert_eq!(status(client.write(handle, 0, b"x")), STALE);
        }
        client.remove(&root, b"file").unwrap();
        dead.push((file, fileid));
        if dead.len() > 8 {
            dead.remove(0);
        }
    }
    println!("{reused} of 60 inode numbers were used before");
}

#[test]
fn a_guard_compares_the_whole_ctime() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let ctime = client.getattr(&file).unwrap().ctime;
    let near = |seconds: i64, nanos: i64| nfstime3 {
        seconds: (i64::from(ctime.seconds) + seconds) as u32,
        nseconds: (i64::from(ctime.nseconds) + nanos).rem_euclid(1_000_000_000) as u32,
    };
    for wrong in [near(0, 1), near(0, -1), near(1, 0), near(-1, 0), nfstime3 { seconds: 0, nseconds: 0 }] {
        let outcome = ask(&mut client, &Call::setattr(&file, sized(9), Some(wrong)));
        assert_eq!(outcome.status, NOT_SYNC);
        assert_eq!(client.getattr(&file).unwrap().size, 0, "nothing was changed");
    }
    let outcome = ask(&mut client, &Call::setattr(&file, sized(9), Some(ctime)));
    let after = outcome.seen[0].after.unwrap();
    assert_eq!((outcome.status, after.size), (0, 9));
}

#[test]
fn offsets_have_64_bits_and_holes_cost_nothing() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let places = [0u64, (1 << 31) - 2, (1 << 32) - 2, (5 << 30) + 1, (1 << 40) - 3];
    for place in places {
        let done = client.write_stable(&file, place, b"abcd", StableHow::Unstable).unwrap();
        assert_eq!(done.count, 4);
    }
    let outcome = ask(&mut client, &Call::commit(&file, 5 << 30, 4096));
    assert_eq!(outcome.status, 0);
    let now = client.getattr(&file).unwrap();
    assert_eq!(now.size, (1 << 40) + 1);
    assert!(now.used < 1 << 20, "{} bytes used", now.used);
    for place in places {
        let around = client.read(&file, place.saturating_sub(2), 8).unwrap();
        let start = (place - place.saturating_sub(2)) as usize;
        assert_eq!(around.data[start..start + 4], *b"abcd", "at {place}");
        assert!(around.data[..start].iter().all(|byte| *byte == 0), "a hole before {place}");
        assert_eq!(around.eof, place == places[4]);
    }
    let real = fs::metadata(fixture.path("f")).unwrap();
    assert_eq!((real.size(), real.blocks() * 512), (now.size, now.used));
    // Cut in the middle of a hole and grown again: what was cut off does not come back.
    client.setattr(&file, sized((1 << 32) - 1)).unwrap();
    client.setattr(&file, sized(1 << 33)).unwrap();
    assert_eq!(client.read(&file, (1 << 32) - 3, 6).unwrap().data, b"\0a\0\0\0\0");
    assert!(client.read(&file, (1 << 33) - 1, 9).unwrap().eof);
}

/// As getconf(1), which asks the C library.
fn getconf(variable: &str, path: &Path) -> u64 {
    let done = Command::new("getconf").arg(variable).arg(path).output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
}

/// FSINFO and PATHCONF of a file system against what the C library says, and against what it does.
fn limits_are_true(path: &Path) {
    let fixture = serving(path);
    let (mut client, root) = fixture.mounted();
    let conf = client.pathconf(&root).unwrap();
    assert_eq!(u64::from(conf.name_max), getconf("NAME_MAX", path));
    assert_eq!(u64::from(conf.link_max), getconf("LINK_MAX", path).min(u64::from(u32::MAX)));
    assert!(conf.no_trunc && conf.chown_restricted && conf.case_preserving && !conf.case_insensitive);
    let longest = vec![b'n'; conf.name_max as usize];
    client.create(&root, &longest).unwrap();
    assert_eq!(status(client.create(&root, &[&longest[..], b"n"].concat())), NAMETOOLONG);
    let (upper, lower) = (client.create(&root, b"Case").unwrap(), client.create(&root, b"case").unwrap());
    assert_ne!(upper.data, lower.data);
    let info = client.fsinfo(&root).unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.rtpref, info.wtpref), (1 << 20, 1 << 20, 1 << 20, 1 << 20));
    assert_eq!(info.properties, 0x1b, "links, symlinks, homogeneous, times can be set");
    client.setattr(&upper, sized(info.maxfilesize)).unwrap();
    assert_eq!(client.getattr(&upper).unwrap().size, info.maxfilesize);
    assert_eq!(status(client.setattr(&upper, sized(info.maxfilesize + 1))), FBIG, "the largest, no less");
    let last = client.write_stable(&upper, info.maxfilesize - 1, b"x", StableHow::Unstable);
    assert_eq!(last.unwrap().count, 1);
    assert_eq!(status(client.write(&upper, info.maxfilesize, b"x")), FBIG);
    // Times are kept to time_delta.
    let odd = nfstime3 { seconds: 1_234_567_890, nseconds: 987_654_321 };
    let set = sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(odd), ..sattr3::default() };
    client.setattr(&lower, set).unwrap();
    let kept = client.getattr(&lower).unwrap().mtime;
    let delta = u64::from(info.time_delta.seconds) * 1_000_000_000 + u64::from(info.time_delta.nseconds);
    let nanos = |time: nfstime3| u64::from(time.seconds) * 1_000_000_000 + u64::from(time.nseconds);
    assert!(nanos(odd) - nanos(kept) < delta, "time_delta {delta}");
}

#[test]
fn fsinfo_and_pathconf_tell_the_truth_about_each_file_system() {
    let dir = tempfile::tempdir().unwrap();
    limits_are_true(dir.path());
    let tmpfs = tempfile::tempdir().unwrap();
    let _mount = Mount::new("tmpfs", "none", tmpfs.path(), "size=1m");
    limits_are_true(tmpfs.path());
}

#[test]
fn fsstat_is_statvfs() {
    let dir = tempfile::tempdir().unwrap();
    let _mount = Mount::new("tmpfs", "none", dir.path(), "size=3m,nr_inodes=500");
    let fixture = serving(dir.path());
    let (mut client, root) = fixture.mounted();
    for written in [0, 1 << 20, 3 << 20] {
        let name = format!("f{written}");
        let file = client.create(&root, name.as_bytes()).unwrap();
        let _ = client.write(&file, 0, &vec![1; written]);
        let told = client.fsstat(&file).unwrap();
        let real = rustix::fs::statvfs(dir.path()).unwrap();
        assert_eq!(told.total_bytes, real.f_blocks * real.f_frsize);
        assert_eq!(told.free_bytes, real.f_bfree * real.f_frsize);
        assert_eq!(told.available_bytes, real.f_bavail * real.f_frsize);
        assert_eq!((told.total_files, told.free_files), (real.f_files, real.f_ffree));
        assert_eq!(told.available_files, real.f_favail);
    }
    assert_eq!(client.fsstat(&root).unwrap().available_bytes, 0, "it is full");
}

/// Every reply shows the directory as this call left it, though seven others change it at the same time.
#[test]
fn attributes_in_a_reply_are_those_of_the_operation() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let before = client.getattr(&root).unwrap().nlink;
    let (threads, each) = (8, 40);
    let counts: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let work = |thread: u32| {
            let (mut client, root) = (fixture.client(), root.clone());
            move || {
                let make = |number: u32| {
                    let call = Call::mkdir(&root, format!("{thread}-{number}").as_bytes(), mode(0o755));
                    ask(&mut client, &call).seen[1].after.unwrap().nlink
                };
                (0..each).map(make).collect()
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for of_one in &counts {
        assert!(of_one.is_sorted(), "never older than the client's own earlier call");
    }
    // One link more for each subdirectory: taken under the directory's lock, every number comes once.
    let all: BTreeSet<u32> = counts.into_iter().flatten().collect();
    assert_eq!(all, (before + 1..=before + threads * each).collect());
}

/// Of each of six clients that append.
const WRITES: u64 = 150;
/// Bytes of each: large enough that one write is seldom over before another begins.
const SIZE: usize = 64 * 1024;

/// Appending clients: a reply's size covers what it confirms.
#[test]
fn a_write_shows_at_least_itself() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"log").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (mut client, file): (Client, Handle) = (fixture.client(), file.clone());
            scope.spawn(move || {
                for number in 0..WRITES {
                    let offset = (number * 6 + thread) * SIZE as u64;
                    let outcome =
                        ask(&mut client, &Call::write(&file, offset, &[7; SIZE], StableHow::Unstable));
                    let Rest::Written { count, .. } = outcome.rest else { panic!("{}", outcome.status) };
                    let seen = outcome.seen[0];
                    let (was, is) = (seen.before.unwrap().size, seen.after.unwrap().size);
                    assert!(is >= offset + u64::from(count), "{is} after a write to {offset}");
                    // Under the file's lock: nobody else's growth is shown as this call's.
                    assert_eq!(is, was.max(offset + u64::from(count)));
                }
            });
        }
    });
    assert_eq!(client.getattr(&file).unwrap().size, WRITES * 6 * SIZE as u64);
    let outcome = ask(&mut client, &Call::of(Procedure::Getattr, &file));
    assert_eq!(outcome.status, 0);
}
