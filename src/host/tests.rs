//! The tree on a real directory, in each of its three ways of finding objects.

use super::*;
use ehpc_proto::replication::Kind;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

fn each_way(test: impl Fn(&Path, &dyn Fn(&Path) -> Tree)) {
    let ways: [&dyn Fn(&Path) -> Tree; 3] =
        [&|path| Tree::open(path).unwrap(), &|path| Tree::open_without_handles(path).unwrap(), &|path| {
            Tree::open_with_inode_keys(path).unwrap()
        }];
    for open in ways {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path(), open);
    }
}

fn key_at(tree: &Tree, path: &str) -> ObjectKey {
    let mut at = tree.open_path(tree.root_key()).unwrap();
    let mut key = tree.root_key().clone();
    for name in path.split('/') {
        let (fd, found) = tree.lookup_open(at.as_fd(), name.as_bytes()).unwrap().unwrap();
        (at, key) = (fd, found.key);
    }
    key
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_key_survives_renames_and_a_new_process() {
    each_way(|dir, open| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), b"content").unwrap();
        let key = key_at(&open(dir), "a/b/file");
        fs::rename(dir.join("a"), dir.join("moved")).unwrap();
        fs::rename(dir.join("moved/b/file"), dir.join("moved/other")).unwrap();
        let tree = open(dir); // knows no names yet
        let fd = tree.open_path(&key).unwrap();
        assert_eq!(Tree::stat(fd.as_fd()).unwrap().size, 7);
        assert_eq!(tree.key_of(fd.as_fd()).unwrap(), key);
        assert_eq!(tree.path_of(&key).unwrap(), b"moved/other");
        assert_eq!(std::io::read_to_string(tree.open_read(&key).unwrap()).unwrap(), "content");
    });
}

#[test]
fn a_deleted_object_is_stale_even_when_its_name_is_taken_again() {
    each_way(|dir, open| {
        fs::write(dir.join("file"), b"old").unwrap();
        let tree = open(dir);
        let key = key_at(&tree, "file");
        fs::remove_file(dir.join("file")).unwrap();
        fs::write(dir.join("file"), b"new").unwrap();
        assert_eq!(errno(tree.open_path(&key)), Some(libc::ESTALE));
        assert_ne!(key_at(&tree, "file"), key);
        assert_eq!(errno(tree.open_path(&key)), Some(libc::ESTALE));
    });
}

#[test]
fn symlinks_are_found_and_never_followed() {
    each_way(|dir, open| {
        fs::create_dir(dir.join("real")).unwrap();
        fs::write(dir.join("real/x"), b"").unwrap();
        symlink("real", dir.join("link")).unwrap();
        let tree = open(dir);
        let root = tree.open_path(tree.root_key()).unwrap();
        let (fd, found) = tree.lookup_open(root.as_fd(), b"link").unwrap().unwrap();
        assert_eq!(found.stat.kind, Kind::Symlink);
        assert_eq!(tree.read_link(fd.as_fd()).unwrap(), b"real");
        assert_eq!(errno(tree.lookup(fd.as_fd(), b"x")), Some(libc::ENOTDIR));
        assert_eq!(errno(tree.open_read(&found.key)), Some(libc::EINVAL));
        let again = tree.open_path(&found.key).unwrap();
        assert_eq!(tree.read_link(again.as_fd()).unwrap(), b"real");
    });
}

#[test]
fn listings_are_complete_and_resumable() {
    each_way(|dir, open| {
        for n in 0..3000 {
            fs::write(dir.join(format!("file-{n}")), b"").unwrap();
        }
        let tree = open(dir);
        let root = tree.open_path(tree.root_key()).unwrap();
        let mut all = HashMap::new();
        tree.list(root.as_fd(), &mut |name, ino, kind| {
            assert_eq!(kind, Some(Kind::File));
            assert!(all.insert(name.to_vec(), ino).is_none(), "listed twice: {name:?}");
            true
        })
        .unwrap();
        assert_eq!(all.len(), 3000);
        assert_eq!(all[&b"file-7"[..]], fs::metadata(dir.join("file-7")).unwrap().ino());
        // By pieces, each with a descriptor of its own, as READDIR does.
        let (mut at, mut pieces, mut seen) = (0, 0, 0);
        loop {
            let fd = file::reopen(root.as_fd(), OFlags::RDONLY).unwrap();
            let mut here = 0;
            let end = directory::read(fd.as_fd(), at, &mut |entry| {
                at = entry.next;
                seen += 1;
                here += 1;
                here < 100
            });
            pieces += 1;
            if end.unwrap() {
                break;
            }
        }
        assert_eq!((pieces, seen), (31, 3002));
    });
}

#[test]
fn a_deep_object_is_found_by_hints_alone() {
    struct Hints(HashMap<ObjectKey, (ObjectKey, Vec<u8>)>);
    impl EntryHints for Hints {
        fn entries_of(&self, key: &ObjectKey) -> Vec<(ObjectKey, Vec<u8>)> {
            self.0.get(key).cloned().into_iter().collect()
        }
    }
    each_way(|dir, open| {
        fs::create_dir_all(dir.join("a/b/c")).unwrap();
        let tree = open(dir);
        let (a, b, c) = (key_at(&tree, "a"), key_at(&tree, "a/b"), key_at(&tree, "a/b/c"));
        let hints = HashMap::from([
            (c.clone(), (b.clone(), b"c".to_vec())),
            (b, (a.clone(), b"b".to_vec())),
            (a, (tree.root_key().clone(), b"a".to_vec())),
        ]);
        let fresh = open(dir);
        fresh.set_hints(Arc::new(Hints(hints)));
        let fd = fresh.open_path(&c).unwrap();
        assert_eq!(fresh.key_of(fd.as_fd()).unwrap(), c);
        assert_eq!(fresh.path_of(&c).unwrap(), b"a/b/c");
    });
}

#[test]
fn extended_attributes_of_files_directories_and_symlinks() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    // user.access::rwx, user 1::r--, group::r-x, mask::rwx, other::r-- as struct posix_acl_xattr.
    let acl: Vec<u8> = [
        vec![2, 0, 0, 0],
        vec![1, 0, 7, 0, 255, 255, 255, 255],
        vec![2, 0, 4, 0, 1, 0, 0, 0],
        vec![4, 0, 5, 0, 255, 255, 255, 255],
        vec![0x10, 0, 7, 0, 255, 255, 255, 255],
        vec![0x20, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    for name in ["f", "d"] {
        let fd = tree.open_path(&key_at(&tree, name)).unwrap();
        xattr::set(fd.as_fd(), c"user.big", &[7; 3000]).unwrap();
        xattr::set(fd.as_fd(), c"user.a", b"1").unwrap();
        xattr::set(fd.as_fd(), c"system.posix_acl_access", &acl).unwrap();
        let found = tree.xattrs(fd.as_fd(), Kind::File).unwrap();
        let names: Vec<_> = found.iter().map(|x| String::from_utf8_lossy(&x.name).into_owned()).collect();
        assert_eq!(names, ["system.posix_acl_access", "user.a", "user.big"], "{name}");
        assert_eq!(found[0].value, acl);
        assert_eq!(found[2].value, [7; 3000]);
        xattr::remove(fd.as_fd(), c"user.a").unwrap();
        assert_eq!(xattr::get(fd.as_fd(), c"user.a").unwrap(), None);
    }
    assert!(privileges().administers(), "trusted attributes need root");
    let fd = tree.open_path(&key_at(&tree, "l")).unwrap();
    xattr::set(fd.as_fd(), c"trusted.mark", b"on the link").unwrap();
    let found = tree.xattrs(fd.as_fd(), Kind::Symlink).unwrap();
    assert_eq!(found.len(), 1);
    let file = tree.open_path(&key_at(&tree, "f")).unwrap();
    assert_eq!(xattr::get(file.as_fd(), c"trusted.mark").unwrap(), None, "the symlink was followed");
}

#[test]
fn another_mount_is_seen_as_such_and_named() {
    assert!(privileges().administers(), "this test mounts: it runs as root");
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("sub dir");
    fs::create_dir(&point).unwrap();
    let status =
        std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&point).status().unwrap();
    assert!(status.success());
    let tree = Tree::open(dir.path()).unwrap();
    let root = tree.open_path(tree.root_key()).unwrap();
    let found = tree.lookup(root.as_fd(), b"sub dir").unwrap().unwrap();
    let points = tree.mount_points();
    let inside = Tree::open(&point).unwrap();
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&point).status().unwrap();
    assert!(found.stat.mount_root);
    assert_eq!(points, [Path::new("sub dir")]);
    assert_ne!(inside.device(), tree.device());
    assert_ne!(inside.filesystem_id(), tree.filesystem_id());
    assert!(unmounted.success());
}

#[test]
fn holes_and_content() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        fs::File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
    rustix::io::pwrite(&file, &[1; 65536], 0).unwrap();
    punch_hole(file.as_fd(), 16384, 32768).unwrap();
    assert_eq!(seek_data(file.as_fd(), 0).unwrap(), Some(0));
    assert_eq!(seek_hole(file.as_fd(), 0).unwrap(), Some(16384));
    assert_eq!(seek_data(file.as_fd(), 16384).unwrap(), Some(49152));
    assert_eq!(seek_hole(file.as_fd(), 49152).unwrap(), Some(65536));
    assert_eq!(seek_data(file.as_fd(), 65536).unwrap(), None);
    assert_eq!(seek_hole(file.as_fd(), 65536).unwrap(), None);
    let mut read = b"kept".to_vec();
    assert_eq!(pread_append(file.as_fd(), 65436, 1000, &mut read).unwrap(), 100);
    assert_eq!(read, [b"kept".to_vec(), vec![1; 100]].concat());
    sync_file_range(file.as_fd()).unwrap();
    syncfs(file.as_fd()).unwrap();
    fsync_dir(dir.path()).unwrap();
}

#[test]
fn the_machine_answers() {
    assert_eq!(boot_id().unwrap().len(), 36);
    assert!(process_memory().unwrap() > 1 << 20);
    let (now, coarse) = (now(), coarse_now());
    assert!(now.seconds >= coarse.seconds && now.seconds - coarse.seconds <= 1, "{now:?} {coarse:?}");
    assert_eq!(privileges().euid, rustix::process::geteuid().as_raw());
}

/// The kernel decides under the assumed ids, per thread, and back again.
#[test]
fn threads_have_identities_of_their_own() {
    assert!(privileges().assumes_identities(), "this test runs as root");
    credentials::own();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let count = 8;
    for uid in 0..count {
        let path = dir.path().join(format!("{uid}"));
        fs::write(&path, b"").unwrap();
        std::os::unix::fs::chown(&path, Some(70_000 + uid), Some(80_000 + uid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let root = fs::File::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..count {
            let root = &root;
            scope.spawn(move || {
                for round in 0..500 {
                    let uid = (thread + round) % count;
                    credentials::assume(70_000 + uid, 80_000 + uid, &[90_000 + uid]).unwrap();
                    for file in 0..count {
                        let name = format!("{file}");
                        let opened = rustix::fs::openat(root, name, OFlags::RDONLY, Mode::empty());
                        assert_eq!(opened.is_ok(), file == uid, "uid {uid} file {file}");
                    }
                    credentials::resume().unwrap();
                    assert!(rustix::fs::openat(root, "0", OFlags::RDONLY, Mode::empty()).is_ok());
                }
                // An id that means "none" must not leave the last identity in force unnoticed.
                credentials::assume(70_001, 80_001, &[]).unwrap();
                assert!(credentials::assume(u32::MAX, 1, &[]).is_err());
                assert!(credentials::assume(1, 1, &[u32::MAX]).is_err());
                credentials::resume().unwrap();
                assert!(!privileges_hold_resource_override());
            });
        }
    });
    assert_eq!(rustix::process::geteuid().as_raw(), 0);
}

fn privileges_hold_resource_override() -> bool {
    privileges().capabilities & rustix::thread::CapabilitySet::SYS_RESOURCE.bits() != 0
}
