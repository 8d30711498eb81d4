//! What the model cannot show: handles over restarts, identities on many threads, caches.

mod durability;
mod listings;
mod machine;

pub(super) use machine::Mount;

use super::*;
use crate::vfs::SetTime;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const ROOT: Caller = Caller { uid: 0, gid: 0, groups: SmallVec::new_const() };

fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: SmallVec::new() }
}

fn assert_root() {
    assert!(host::privileges().assumes_identities(), "these tests act under several ids: they run as root");
}

/// A directory that all may use, removed under the process's own ids.
pub(super) struct Share(tempfile::TempDir);

impl Share {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = credentials::resume();
    }
}

pub(super) fn directory_for_all() -> Share {
    assert_root();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Share(dir)
}

fn serve(path: &Path) -> LocalVfs {
    serve_with(path, LocalOptions { sync: false, read_only: false, fsid: None, show_mount_points: false })
}

fn serve_with(path: &Path, options: LocalOptions) -> LocalVfs {
    LocalVfs::new(Arc::new(Tree::open(path).unwrap()), options)
}

fn with_mode(mode: u16) -> SetAttributes {
    SetAttributes { mode: Some(mode), ..SetAttributes::default() }
}

fn make(vfs: &LocalVfs, caller: &Caller, name: &str, mode: u16, content: &[u8]) -> ObjectKey {
    let how = CreateHow::Guarded(with_mode(mode));
    let node = vfs.create(caller, &vfs.root(), name.as_bytes(), how).result.unwrap();
    let done = vfs.write(caller, &node.key, 0, content, Stability::Unstable).result.unwrap();
    assert_eq!(done.count as usize, content.len());
    node.key
}

fn find(vfs: &LocalVfs, name: &str) -> Result<Node, VfsError> {
    vfs.lookup(&ROOT, &vfs.root(), name.as_bytes()).0
}

fn content(vfs: &LocalVfs, caller: &Caller, key: &ObjectKey) -> Result<Vec<u8>, VfsError> {
    let mut bytes = Vec::new();
    let done = vfs.read(caller, key, 0, 1 << 20, &mut bytes)?;
    assert!(done.eof);
    Ok(bytes)
}

fn names(vfs: &LocalVfs, dir: &ObjectKey, plus: bool) -> Vec<String> {
    let mut names = Vec::new();
    let end = vfs.readdir(&ROOT, dir, 0, plus, &mut |entry| {
        names.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    });
    assert!(end.unwrap());
    names.sort();
    names
}

#[test]
fn handles_survive_renames_and_restarts_and_die_with_their_object() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let sub = vfs.mkdir(&ROOT, &vfs.root(), b"sub", &with_mode(0o755)).result.unwrap().key;
    let key = make(&vfs, &ROOT, "file", 0o644, b"hello");
    vfs.rename(&ROOT, (&vfs.root(), b"file"), (&sub, b"renamed")).result.unwrap();
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"hello");
    drop(vfs);
    fs::rename(dir.path().join("sub/renamed"), dir.path().join("by hand")).unwrap();
    let vfs = serve(dir.path());
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"hello");
    assert_eq!(find(&vfs, "by hand").unwrap().key, key);
    vfs.remove(&ROOT, &vfs.root(), b"by hand").result.unwrap();
    vfs.rmdir(&ROOT, &vfs.root(), b"sub").result.unwrap();
    assert_eq!(content(&vfs, &ROOT, &key), Err(VfsError::Stale));
    assert_eq!(vfs.getattr(&ROOT, &key).unwrap_err(), VfsError::Stale);
    assert_eq!(vfs.write(&ROOT, &key, 0, b"x", Stability::Unstable).result.unwrap_err(), VfsError::Stale);
    let created = vfs.create(&ROOT, &sub, b"x", CreateHow::Guarded(with_mode(0o644)));
    assert_eq!(created.result.unwrap_err(), VfsError::Stale);
    assert_eq!(vfs.lookup(&ROOT, &sub, b"x").0.unwrap_err(), VfsError::Stale);
}

#[test]
fn a_file_deleted_behind_our_back_is_stale_though_a_descriptor_is_kept() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o644, b"hello");
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"hello");
    fs::remove_file(dir.path().join("file")).unwrap();
    assert_eq!(content(&vfs, &ROOT, &key), Err(VfsError::Stale));
    assert_eq!(vfs.descriptors.any(&key).map(|_| ()), None, "its blocks are still held");
}

#[test]
fn removal_and_idleness_close_descriptors() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o644, b"hello");
    assert!(vfs.descriptors.any(&key).is_some());
    vfs.remove(&ROOT, &vfs.root(), b"file").result.unwrap();
    assert!(vfs.descriptors.any(&key).is_none());
    for n in 0..2000 {
        make(&vfs, &ROOT, &format!("file-{n}"), 0o644, b"");
    }
    let kept = vfs.descriptors.objects();
    assert!(kept >= 100, "{kept} objects kept");
    let few = Descriptors::new(4096);
    let fd = Arc::new(OwnedFd::from(fs::File::open("/dev/null").unwrap()));
    for n in 0..2000u32 {
        let bytes = SmallVec::from_slice(&n.to_be_bytes());
        few.keep(&ObjectKey { kind: host::KeyKind::Handle, handle_type: 1, bytes }, Use::Path, &fd);
    }
    assert!((100..=512).contains(&few.objects()), "{} objects kept", few.objects());
    vfs.descriptors.sweep(Duration::from_secs(3600));
    assert_eq!(vfs.descriptors.objects(), kept);
    vfs.descriptors.sweep(Duration::ZERO);
    assert_eq!(vfs.descriptors.objects(), 0);
}

/// Each identity on each of several threads gets exactly its own files, whoever was there before.
#[test]
fn the_kernel_decides_for_each_caller_on_every_thread() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let users: Vec<Caller> = (0..6).map(|n| user(72_000 + n)).collect();
    let private: Vec<ObjectKey> = users
        .iter()
        .map(|caller| make(&vfs, caller, &format!("private-{}", caller.uid), 0o600, b"mine"))
        .collect();
    let shared_group = 82_000;
    let grouped = make(&vfs, &ROOT, "grouped", 0o640, b"ours");
    chown(dir.path().join("grouped"), None, Some(shared_group)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..users.len() {
            let (vfs, users, private, grouped) = (&vfs, &users, &private, &grouped);
            scope.spawn(move || {
                for round in 0..300 {
                    let me = (thread + round) % users.len();
                    let mut caller = users[me].clone();
                    if round % 2 == 0 {
                        caller.groups.push(shared_group);
                    }
                    for (owner, key) in private.iter().enumerate() {
                        let expected = if owner == me { Ok(b"mine".to_vec()) } else { Err(VfsError::Access) };
                        assert_eq!(content(vfs, &caller, key), expected, "user {me}, file of {owner}");
                        let written = vfs.write(&caller, key, 0, b"mine", Stability::Unstable).result;
                        assert_eq!(written.is_ok(), owner == me);
                    }
                    let expected = if round % 2 == 0 { Ok(b"ours".to_vec()) } else { Err(VfsError::Access) };
                    assert_eq!(content(vfs, &caller, grouped), expected);
                }
            });
        }
    });
    for (caller, key) in users.iter().zip(&private) {
        let found = vfs.getattr(&ROOT, key).unwrap();
        assert_eq!((found.uid, found.gid, found.mode), (caller.uid, caller.gid, 0o600));
    }
}

#[test]
fn ids_that_mean_nobody_get_nothing() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "secret", 0o600, b"root's");
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"root's");
    let nobody = user(u32::MAX);
    assert_eq!(content(&vfs, &nobody, &key), Err(VfsError::Access));
    let odd_group = Caller { uid: 1, gid: u32::MAX, groups: SmallVec::new() };
    assert_eq!(content(&vfs, &odd_group, &key), Err(VfsError::Access));
    let odd_groups = Caller { uid: 0, gid: 0, groups: SmallVec::from_slice(&[u32::MAX]) };
    assert_eq!(content(&vfs, &odd_groups, &key), Err(VfsError::Access));
    let made = vfs.create(&nobody, &vfs.root(), b"x", CreateHow::Guarded(with_mode(0o644)));
    assert_eq!(made.result.unwrap_err(), VfsError::Access);
}

#[test]
fn an_owner_goes_on_with_his_open_file_and_programs_can_be_read_to_be_run() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let (owner, other) = (user(73_001), user(73_002));
    let key = make(&vfs, &owner, "file", 0o444, b"written although read-only");
    vfs.setattr(&owner, &key, &with_mode(0), None).result.unwrap();
    for fresh in [false, true] {
        if fresh {
            vfs.descriptors.sweep(Duration::ZERO);
        }
        assert_eq!(content(&vfs, &owner, &key).unwrap(), b"written although read-only");
        vfs.write(&owner, &key, 0, b"W", Stability::Unstable).result.unwrap();
        vfs.write(&owner, &key, 0, b"w", Stability::Unstable).result.unwrap();
        assert_eq!(content(&vfs, &other, &key), Err(VfsError::Access));
        assert_eq!(vfs.access(&owner, &key, 0x3f).unwrap().0, 0, "ACCESS says what the mode says");
    }
    vfs.setattr(&owner, &key, &with_mode(0o711), None).result.unwrap();
    vfs.descriptors.sweep(Duration::ZERO);
    assert!(content(&vfs, &other, &key).is_ok());
    let written = vfs.write(&other, &key, 0, b"no", Stability::Unstable).result;
    assert_eq!(written.unwrap_err(), VfsError::Access);
}

#[test]
fn a_descriptor_that_cannot_write_is_replaced() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o644, b"hello");
    let read_only = Arc::new(OwnedFd::from(fs::File::open(dir.path().join("file")).unwrap()));
    vfs.descriptors.keep(&key, Use::Write, &read_only);
    let done = vfs.write(&ROOT, &key, 0, b"HELLO", Stability::FileSync).result.unwrap();
    assert_eq!((done.count, done.committed), (5, Stability::FileSync));
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"HELLO");
}

#[test]
fn a_failed_flush_is_reported_and_changes_the_verifier() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o644, b"hello");
    let verifier = vfs.write_verifier();
    vfs.commit(&ROOT, &key, 0, 0).result.unwrap();
    assert_eq!(vfs.write_verifier(), verifier);
    // A pipe cannot be flushed: the kernel refuses it as a broken disk would.
    let (_reader, writer) = std::io::pipe().unwrap();
    vfs.descriptors.drop_object(&key);
    vfs.descriptors.keep(&key, Use::Flush, &Arc::new(OwnedFd::from(writer)));
    let object = Object {
        fd: Arc::new(vfs.tree.open_path(&key).unwrap()),
        stat: statx::of(vfs.tree.open_path(&key).unwrap().as_fd()).unwrap(),
    };
    group_commit::begin();
    vfs.owe_object(&key, object.fd.as_fd(), object.stat.kind).unwrap();
    assert!(wait(vfs.settled().unwrap()).is_err());
    assert_ne!(vfs.write_verifier(), verifier);
    assert_ne!(serve(dir.path()).write_verifier(), vfs.write_verifier(), "one per start");
}

fn wait(settled: Settled) -> Result<(), VfsError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(settled)
}

#[test]
fn wcc_data_chains_without_gaps_under_concurrent_writers() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o666, b"");
    let next = AtomicU64::new(0);
    let mut sizes: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    for _ in 0..400 {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let done = vfs.write(&ROOT, &key, at * 7, b"1234567", Stability::Unstable);
                        assert!(done.result.is_ok());
                        seen.push((done.wcc.before.unwrap().0, done.wcc.after.unwrap().size));
                    }
                    seen
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    sizes.sort_unstable();
    let mut size = 0;
    for (before, after) in sizes.into_iter().filter(|(before, after)| before != after) {
        assert_eq!(before, size, "an operation claimed another's change");
        size = after;
    }
    assert_eq!(size, 6 * 400 * 7);
}

#[test]
fn exclusive_creates_are_recognised_after_a_restart() {
    let dir = directory_for_all();
    let verifiers =
        [[0u8; 8], [255; 8], [0x80, 0, 0, 1, 0x7f, 255, 255, 255], *b"\0\0\0\x01\xff\xff\xff\xff"];
    for (n, verifier) in verifiers.into_iter().enumerate() {
        let name = format!("file-{n}");
        let vfs = serve(dir.path());
        let made = vfs.create(&user(74_001), &vfs.root(), name.as_bytes(), CreateHow::Exclusive(verifier));
        let made = made.result.unwrap();
        drop(vfs);
        let vfs = serve(dir.path());
        let again = vfs.create(&user(74_001), &vfs.root(), name.as_bytes(), CreateHow::Exclusive(verifier));
        assert_eq!(again.result.unwrap().key, made.key, "{verifier:x?}");
        for other in 0..8 {
            let mut wrong = verifier;
            wrong[other] ^= 0x80;
            let refused =
                vfs.create(&user(74_001), &vfs.root(), name.as_bytes(), CreateHow::Exclusive(wrong));
            assert_eq!(refused.result.unwrap_err(), VfsError::Exist, "{verifier:x?} against {wrong:x?}");
        }
    }
}

#[test]
fn an_existing_file_is_opened_by_an_unchecked_create_and_truncated_only_when_asked() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &user(75_001), "file", 0o640, b"content");
    let unchecked =
        |caller: &Caller, set| vfs.create(caller, &vfs.root(), b"file", CreateHow::Unchecked(set)).result;
    let found = unchecked(&user(75_001), with_mode(0o777)).unwrap();
    assert_eq!(found.key, key);
    assert_eq!(found.attributes.unwrap().mode, 0o640, "the mode of an existing file stays");
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"content");
    let truncate = SetAttributes { size: Some(0), ..SetAttributes::default() };
    assert_eq!(unchecked(&user(75_002), truncate).unwrap_err(), VfsError::Access);
    assert_eq!(unchecked(&user(75_001), truncate).unwrap().attributes.unwrap().size, 0);
    fs::create_dir(dir.path().join("dir")).unwrap();
    let on_dir = vfs.create(&ROOT, &vfs.root(), b"dir", CreateHow::Unchecked(truncate));
    assert_eq!(on_dir.result.unwrap_err(), VfsError::Exist);
}

#[test]
fn symlinks_are_never_followed() {
    let dir = directory_for_all();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path(), dir.path().join("way out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    let vfs = serve(dir.path());
    let way = find(&vfs, "way out").unwrap().key;
    let file = find(&vfs, "file").unwrap().key;
    assert_eq!(vfs.lookup(&ROOT, &way, b"secret").0.unwrap_err(), VfsError::NotDir);
    assert_eq!(content(&vfs, &ROOT, &file), Err(VfsError::Inval));
    let size = SetAttributes { size: Some(0), ..SetAttributes::default() };
    assert_eq!(vfs.setattr(&ROOT, &file, &size, None).result.unwrap_err(), VfsError::Inval);
    let owner = SetAttributes {
        uid: Some(77),
        mtime: SetTime::To(Timestamp { seconds: 77, nanos: 7 }),
        ..SetAttributes::default()
    };
    vfs.setattr(&ROOT, &file, &owner, None).result.unwrap();
    let created = vfs.create(&ROOT, &vfs.root(), b"file", CreateHow::Unchecked(size));
    assert_eq!(created.result.unwrap_err(), VfsError::Exist);
    let (linked, _) = vfs.link(&ROOT, &file, &vfs.root(), b"second name");
    linked.result.unwrap();
    assert_eq!(find(&vfs, "second name").unwrap().key, file);
    credentials::resume().unwrap();
    let target = fs::metadata(outside.path().join("secret")).unwrap();
    assert_eq!((target.uid(), target.len(), target.nlink()), (0, 6, 1));
    let link = fs::symlink_metadata(dir.path().join("file")).unwrap();
    assert_eq!((link.uid(), link.mtime(), link.nlink()), (77, 77, 2));
}

#[test]
fn nothing_leads_above_the_root() {
    let dir = directory_for_all();
    let outside = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
    let vfs = serve(dir.path());
    let sub = vfs.mkdir(&ROOT, &vfs.root(), b"sub", &with_mode(0o755)).result.unwrap().key;
    assert_eq!(vfs.parent(&ROOT, &sub).0.unwrap().key, vfs.root());
    assert_eq!(vfs.parent(&ROOT, &vfs.root()).0.unwrap().key, vfs.root());
    credentials::resume().unwrap();
    fs::rename(dir.path().join("sub"), outside.path().join("sub")).unwrap();
    assert_eq!(vfs.parent(&ROOT, &sub).0.unwrap_err(), VfsError::Stale);
    let own = fs::metadata(dir.path()).unwrap().ino();
    vfs.readdir(&ROOT, &vfs.root(), 0, true, &mut |entry| {
        assert_eq!(entry.fileid, own, "{:?}", entry.name);
        true
    })
    .unwrap();
}

#[test]
fn what_is_not_a_name_never_becomes_a_path() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let root = vfs.root();
    fs::create_dir(dir.path().join("a")).unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"../x", b"a\0b"] {
        assert_eq!(vfs.lookup(&ROOT, &root, name).0.unwrap_err(), VfsError::Inval, "{name:?}");
        let how = CreateHow::Unchecked(with_mode(0o644));
        assert_eq!(vfs.create(&ROOT, &root, name, how).result.unwrap_err(), VfsError::Inval);
        assert_eq!(vfs.mkdir(&ROOT, &root, name, &with_mode(0o755)).result.unwrap_err(), VfsError::Inval);
        assert_eq!(vfs.remove(&ROOT, &root, name).result.unwrap_err(), VfsError::Inval);
        let renamed = vfs.rename(&ROOT, (&root, b"a"), (&root, name));
        assert_eq!(renamed.result.unwrap_err(), VfsError::Inval);
    }
    assert_eq!(names(&vfs, &root, false), [".", "..", "a"]);
}

#[test]
fn modes_are_what_was_asked() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    for mode in [0o777, 0o666, 0o000, 0o4755, 0o2755, 0o1777] {
        let set = SetAttributes { uid: Some(76_001), gid: Some(76_002), ..with_mode(mode) };
        let name = format!("{mode:o}");
        let file = vfs.create(&ROOT, &vfs.root(), name.as_bytes(), CreateHow::Guarded(set)).result.unwrap();
        let found = file.attributes.unwrap();
        assert_eq!((found.mode, found.uid, found.gid), (mode, 76_001, 76_002), "file {mode:o}");
        let made = vfs.mkdir(&ROOT, &vfs.root(), format!("dir {name}").as_bytes(), &set).result.unwrap();
        assert_eq!(made.attributes.unwrap().mode, mode, "directory {mode:o}");
    }
    // Writing by another takes the set-uid bit away: the kernel's rule, under the caller's ids.
    let key = find(&vfs, "4755").unwrap().key;
    vfs.setattr(&ROOT, &key, &with_mode(0o4777), None).result.unwrap();
    vfs.write(&user(76_009), &key, 0, b"x", Stability::Unstable).result.unwrap();
    assert_eq!(vfs.getattr(&ROOT, &key).unwrap().mode, 0o777);
}

#[test]
fn a_guard_and_times_are_exact() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    let key = make(&vfs, &ROOT, "file", 0o644, b"");
    let ctime = vfs.getattr(&ROOT, &key).unwrap().ctime;
    let time = Timestamp { seconds: -5, nanos: 123_456_789 };
    let set = SetAttributes { mtime: SetTime::To(time), ..SetAttributes::default() };
    let wrong = Timestamp { nanos: ctime.nanos ^ 1, ..ctime };
    assert_eq!(vfs.setattr(&ROOT, &key, &set, Some(wrong)).result.unwrap_err(), VfsError::NotSync);
    let done = vfs.setattr(&ROOT, &key, &set, Some(ctime));
    done.result.unwrap();
    assert_eq!(done.wcc.before.unwrap().2, ctime);
    assert_eq!(done.wcc.after.unwrap().mtime, time);
    // A writer who is not the owner may say "now", as truncating needs it, and nothing else.
    vfs.setattr(&ROOT, &key, &with_mode(0o666), None).result.unwrap();
    let now = SetAttributes { mtime: SetTime::ServerTime, ..SetAttributes::default() };
    let atime = vfs.getattr(&ROOT, &key).unwrap().atime;
    vfs.setattr(&user(77_001), &key, &now, None).result.unwrap();
    let found = vfs.getattr(&ROOT, &key).unwrap();
    assert!(found.mtime > ctime);
    assert_eq!(found.atime, atime);
    assert_eq!(vfs.setattr(&user(77_001), &key, &set, None).result.unwrap_err(), VfsError::Perm);
}

#[test]
fn listings_resume_where_they_stopped_while_names_come_and_go() {
    let dir = directory_for_all();
    let vfs = serve(dir.path());
    for n in 0..1000 {
        fs::write(dir.path().join(format!("stays-{n}")), b"").unwrap();
        fs::write(dir.path().join(format!("goes-{n}")), b"").unwrap();
    }
    let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let (mut cookie, mut removed) = (0, 0);
    loop {
        let mut left = 37;
        let end = vfs.readdir(&ROOT, &vfs.root(), cookie, true, &mut |entry| {
            if left == 0 {
                return false;
            }
            left -= 1;
            cookie = entry.cookie;
            *seen.entry(entry.name.to_vec()).or_default() += 1;
            let node = entry.node;
            assert!(entry.name == b".." || node.unwrap().attributes.unwrap().fileid == entry.fileid);
            true
        });
        if end.unwrap() {
            break;
        }
        for _ in 0..10 {
            let _ = vfs.remove(&ROOT, &vfs.root(), format!("goes-{removed}").as_bytes());
            removed += 1;
        }
    }
    for n in 0..1000 {
        assert_eq!(seen.get(format!("stays-{n}").as_bytes()), Some(&1), "stays-{n}");
    }
    assert!(seen.values().all(|&count| count == 1));
}

#[test]
fn objects_are_described_by_path_and_inode() {
    let share = directory_for_all();
    let vfs = serve(share.path());
    fs::create_dir(share.path().join("d")).unwrap();
    fs::write(share.path().join("d/f"), b"").unwrap();
    let dir = find(&vfs, "d").unwrap();
    let file = vfs.lookup(&ROOT, &dir.key, b"f").0.unwrap();
    let inode = fs::metadata(share.path().join("d/f")).unwrap().ino();
    assert_eq!(vfs.describe(&file.key), Some(format!("d/f (inode {inode})")));
    fs::remove_file(share.path().join("d/f")).unwrap();
    assert_eq!(vfs.describe(&file.key), None);
}
