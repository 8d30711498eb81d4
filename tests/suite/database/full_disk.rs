//! The disk of the archive is full: nothing is acknowledged, the status says so, and space is all that it takes.

use super::{Scene, holds, unprotected, waiting};
use crate::tmpfs::Tmpfs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_full_archive_acknowledges_nothing_says_so_and_goes_on_when_there_is_space() {
    let mut scene =
        Scene::new(waiting().with("--rpl-semi-sync-master-timeout=120000"), "durability = \"remote\"");
    let disk = Tmpfs::mount(&scene.stack.database(), "24m");
    scene.stack.start().unwrap();
    scene.stack.wait("semi-sync holds", || holds(&scene)).unwrap();
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b LONGBLOB)").unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let (counted, access) = (Arc::clone(&done), scene.server.access());
    let work = std::thread::spawn(move || {
        for n in 0..40 {
            access.sql(&format!("INSERT INTO d.t VALUES ({n}, RANDOM_BYTES(1024))")).unwrap();
            let fill = format!("UPDATE d.t SET b = REPEAT(b, 1024) WHERE a = {n}");
            access.sql(&fill).unwrap();
            counted.store(n + 1, Ordering::SeqCst);
        }
    });
    let error = || scene.stack.status("backup").unwrap()["archive"]["error"].to_string();
    let full = || error().contains("the disk of the archive is full");
    scene.stack.wait("it says that the disk is full", full).unwrap();
    let (status, out, _) = scene.stack.command("backup", &["db", "status"]).unwrap();
    assert!(status == 1 && out.contains("until there is space"), "{out}");
    // The commit that found no space waits, and is not taken for safe.
    assert!(full(), "it went on saying so: {}", error());
    let status = scene.stack.status("backup").unwrap();
    let written = scene.server.value("SELECT @@gtid_binlog_pos").unwrap();
    assert_ne!(status["archive"]["gtid"], written.as_str(), "{status:#}");
    assert!(done.load(Ordering::SeqCst) < 40, "all of it had room");
    assert_eq!(unprotected(&scene), "0");

    disk.resize("400m");
    work.join().unwrap();
    assert_eq!(unprotected(&scene), "0", "a commit went on without the backup");
    scene.assert_archive_equal();
    scene.stack.wait("it is well again", || error() == "null").unwrap();
    assert!(holds(&scene));
    scene.stack.stop().unwrap();
}
