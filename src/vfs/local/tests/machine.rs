//! What the machine does around an export: other mounts, a full disk, a process that is not root.

use super::*;

/// Unmounted when it goes, under the process's own ids.
pub(in crate::vfs::local) struct Mount(Option<ehpc_tools::mount::Mount>);

impl Mount {
    pub(in crate::vfs::local) fn new(kind: &str, path: &Path, options: &str) -> Mount {
        Mount(Some(ehpc_tools::mount::Mount::new(kind, "none", path, options)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = credentials::resume();
        self.0.take();
    }
}

#[test]
fn other_file_systems_are_hidden_and_refused() {
    let dir = directory_for_all();
    let point = dir.path().join("mounted");
    fs::create_dir(&point).unwrap();
    fs::create_dir(dir.path().join("plain")).unwrap();
    let _mount = Mount::new("tmpfs", &point, "size=64k");
    let vfs = serve(dir.path());
    assert_eq!(vfs.mount_points(), [Path::new("mounted")]);
    assert_eq!(find(&vfs, "mounted").unwrap_err(), VfsError::Access);
    for plus in [false, true] {
        assert_eq!(names(&vfs, &vfs.root(), plus), [".", "..", "plain"]);
    }
    assert_eq!(vfs.rmdir(&ROOT, &vfs.root(), b"mounted").result.unwrap_err(), VfsError::Access);
    let renamed = vfs.rename(&ROOT, (&vfs.root(), b"mounted"), (&vfs.root(), b"other"));
    assert_eq!(renamed.result.unwrap_err(), VfsError::Access);
    let made = vfs.mkdir(&ROOT, &vfs.root(), b"mounted", &with_mode(0o755));
    assert_eq!(made.result.unwrap_err(), VfsError::Exist);
}

#[test]
fn a_full_disk_says_so_and_recovers() {
    let dir = directory_for_all();
    let _mount = Mount::new("tmpfs", dir.path(), "size=256k");
    let vfs = serve_with(dir.path(), LocalOptions::default());
    let key = make(&vfs, &ROOT, "file", 0o644, b"start");
    let big = vec![1; 1 << 20];
    let first = vfs.write(&ROOT, &key, 0, &big, Stability::FileSync).result.unwrap();
    assert!((first.count as usize) < big.len(), "a short write tells how far it came");
    let second = vfs.write(&ROOT, &key, u64::from(first.count), &big, Stability::FileSync);
    assert_eq!(second.result.unwrap_err(), VfsError::NoSpc);
    assert_eq!(second.wcc.after.unwrap().size, u64::from(first.count));
    let stat = vfs.fsstat(&ROOT, &key).unwrap();
    assert_eq!((stat.total_bytes, stat.available_bytes), (256 << 10, 0));
    let empty = SetAttributes { size: Some(0), ..SetAttributes::default() };
    vfs.setattr(&ROOT, &key, &empty, None).result.unwrap();
    assert_eq!(vfs.write(&ROOT, &key, 0, &[1; 4096], Stability::FileSync).result.unwrap().count, 4096);
    let beyond = vfs.write(&ROOT, &key, u64::MAX - 1, &[1; 4096], Stability::Unstable);
    assert_eq!(beyond.result.unwrap_err(), VfsError::FBig);
}

#[test]
fn a_read_only_export_changes_nothing() {
    let dir = directory_for_all();
    fs::write(dir.path().join("file"), b"content").unwrap();
    let vfs = serve_with(
        dir.path(),
        LocalOptions { sync: true, read_only: true, fsid: None, show_mount_points: false },
    );
    let key = find(&vfs, "file").unwrap().key;
    let (root, set) = (vfs.root(), with_mode(0o777));
    let rofs = VfsError::Rofs;
    assert_eq!(vfs.write(&ROOT, &key, 0, b"x", Stability::Unstable).result.unwrap_err(), rofs);
    assert_eq!(vfs.setattr(&ROOT, &key, &set, None).result.unwrap_err(), rofs);
    assert_eq!(vfs.create(&ROOT, &root, b"x", CreateHow::Unchecked(set)).result.unwrap_err(), rofs);
    assert_eq!(vfs.mkdir(&ROOT, &root, b"x", &set).result.unwrap_err(), rofs);
    assert_eq!(vfs.symlink(&ROOT, &root, b"x", b"t", &set).result.unwrap_err(), rofs);
    assert_eq!(vfs.remove(&ROOT, &root, b"file").result.unwrap_err(), rofs);
    assert_eq!(vfs.rename(&ROOT, (&root, b"file"), (&root, b"x")).result.unwrap_err(), rofs);
    assert_eq!(vfs.link(&ROOT, &key, &root, b"x").0.result.unwrap_err(), rofs);
    assert_eq!(vfs.access(&ROOT, &key, 0x3f).unwrap().0, access::READ);
    assert_eq!(vfs.access(&ROOT, &root, 0x3f).unwrap().0, access::READ | access::LOOKUP);
    assert_eq!(content(&vfs, &ROOT, &key).unwrap(), b"content");
    assert_eq!(names(&vfs, &root, false), [".", "..", "file"]);
}

const CHILD: &str = "EHPC_VFS_TEST_NOT_ROOT";

/// Runs itself again as an ordinary user: everybody acts as that user, and the notes say so.
#[test]
fn without_root_everybody_acts_as_the_process() {
    if let Some(path) = std::env::var_os(CHILD) {
        return as_an_ordinary_user(Path::new(&path));
    }
    use std::os::unix::process::CommandExt;
    let dir = directory_for_all();
    // The build directory may be closed to others.
    let program = dir.path().join("test-program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let share = dir.path().join("share");
    fs::create_dir(&share).unwrap();
    chown(&share, Some(78_001), Some(78_001)).unwrap();
    let done = Command::new(&program)
        .args([
            "--exact",
            "vfs::local::tests::machine::without_root_everybody_acts_as_the_process",
            "--nocapture",
        ])
        .env(CHILD, &share)
        .uid(78_001)
        .gid(78_001)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{output}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(output.contains("1 passed"), "the test did not run in the child: {output}");
    assert_eq!(fs::read(share.join("sub/file")).unwrap(), b"hello world");
    assert_eq!(fs::metadata(share.join("sub/file")).unwrap().uid(), 78_001);
}

fn as_an_ordinary_user(share: &Path) {
    let vfs = serve_with(share, LocalOptions::default());
    assert!(vfs.notes().iter().any(|note| note.contains("not root") && note.contains("78001")));
    let (root, client) = (vfs.root(), user(12_345));
    let sub = vfs.mkdir(&client, &root, b"sub", &with_mode(0o755)).result.unwrap();
    assert_eq!(sub.attributes.unwrap().uid, 78_001);
    let how = CreateHow::Exclusive(*b"\xff2345678");
    let file = vfs.create(&client, &sub.key, b"first", how).result.unwrap().key;
    vfs.write(&ROOT, &file, 0, b"hello", Stability::FileSync).result.unwrap();
    vfs.rename(&client, (&root, b"sub"), (&root, b"moved")).result.unwrap();
    vfs.rename(&client, (&root, b"moved"), (&root, b"sub")).result.unwrap();
    vfs.rename(&client, (&sub.key, b"first"), (&sub.key, b"file")).result.unwrap();
    drop(vfs);
    // A restart: old handles, no names known.
    let vfs = serve_with(share, LocalOptions::default());
    vfs.write(&client, &file, 5, b" world", Stability::FileSync).result.unwrap();
    assert_eq!(content(&vfs, &client, &file).unwrap(), b"hello world");
    let gift = SetAttributes { uid: Some(1), ..SetAttributes::default() };
    assert_eq!(vfs.setattr(&ROOT, &file, &gift, None).result.unwrap_err(), VfsError::Perm);
    let device = vfs.mknod(&ROOT, &root, b"null", Kind::CharDevice, (1, 3), &with_mode(0o666));
    assert_eq!(device.result.unwrap_err(), VfsError::Perm);
    let gone = vfs.create(&client, &root, b"gone", CreateHow::Guarded(with_mode(0o644))).result.unwrap().key;
    vfs.remove(&client, &root, b"gone").result.unwrap();
    assert_eq!(content(&vfs, &client, &gone), Err(VfsError::Stale));
}
