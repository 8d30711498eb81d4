//! What a change owes to the disk before it may be answered.

use super::*;

#[test]
fn what_a_reply_promises_is_owed_to_the_disk_and_nothing_else_is() {
    let dir = directory_for_all();
    for sync in [true, false] {
        let tree = Arc::new(Tree::open(dir.path()).unwrap());
        let vfs = LocalVfs::new(tree, LocalOptions { sync, ..LocalOptions::default() });
        let root = vfs.root();
        let owes = |what: &str, expected: bool| match vfs.settled() {
            Some(settled) => {
                assert!(expected, "{what}, sync {sync}");
                assert_eq!(wait(settled), Ok(()), "{what}, sync {sync}");
            }
            None => assert!(!expected, "{what}, sync {sync}"),
        };
        let name = |name: &str| format!("{name}-{sync}").into_bytes();
        let how = CreateHow::Guarded(with_mode(0o644));
        let file = vfs.create(&ROOT, &root, &name("f"), how).result.unwrap().key;
        owes("create", sync);
        vfs.create(&ROOT, &root, &name("x"), CreateHow::Exclusive([7; 8])).result.unwrap();
        owes("exclusive create", true);
        vfs.write(&ROOT, &file, 0, b"a", Stability::Unstable).result.unwrap();
        owes("unstable write", false);
        vfs.write(&ROOT, &file, 0, b"b", Stability::DataSync).result.unwrap();
        owes("data sync write", true);
        vfs.write(&ROOT, &file, 0, b"c", Stability::FileSync).result.unwrap();
        owes("file sync write", true);
        vfs.commit(&ROOT, &file, 0, 0).result.unwrap();
        owes("commit", true);
        vfs.setattr(&ROOT, &file, &with_mode(0o600), None).result.unwrap();
        owes("setattr", sync);
        vfs.mkdir(&ROOT, &root, &name("d"), &with_mode(0o755)).result.unwrap();
        owes("mkdir", sync);
        vfs.symlink(&ROOT, &root, &name("l"), b"t", &SetAttributes::default()).result.unwrap();
        owes("symlink", sync);
        vfs.link(&ROOT, &file, &root, &name("h")).0.result.unwrap();
        owes("link", sync);
        vfs.rename(&ROOT, (&root, &name("h")), (&root, &name("i"))).result.unwrap();
        owes("rename", sync);
        vfs.remove(&ROOT, &root, &name("i")).result.unwrap();
        owes("remove", sync);
        vfs.getattr(&ROOT, &file).unwrap();
        owes("getattr", false);
        // Nobody asked after this one; the next does not inherit it.
        vfs.remove(&ROOT, &root, &name("l")).result.unwrap();
        vfs.write(&ROOT, &file, 0, b"d", Stability::Unstable).result.unwrap();
        owes("unstable write after a change that nobody asked about", false);
    }
}
