//! The archive on the backup is what the server wrote, byte for byte, whatever ended in between.

use super::{Scene, seed};
use ehpc_tools::database::{Options, Work, Workload};

fn follows(options: Options) {
    let mut scene = Scene::started(options, "");
    let work = Workload::start(&scene.server.access(), Work::maria(seed())).unwrap();
    work.wait_for(60).unwrap();
    scene.server.sql("FLUSH BINARY LOGS").unwrap();
    work.wait_for(120).unwrap();
    // A file that ends without a word, and one that ends with STOP.
    scene.server.kill9().unwrap();
    scene.server.restart().unwrap();
    work.wait_for(180).unwrap();
    work.stop().unwrap();
    scene.server.restart().unwrap();
    scene.server.sql("CREATE TABLE work.last (a INT)").unwrap();
    scene.assert_archive_equal();
    let status = scene.stack.status("backup").unwrap();
    assert_eq!(status["archive"]["lineages"], 1, "{status:#}");
    let gtid = scene.server.value("SELECT @@gtid_binlog_pos").unwrap();
    assert_eq!(status["archive"]["gtid"], gtid.as_str(), "{status:#}");
    scene.stack.stop().unwrap();
}

#[test]
fn a_whole_workload_is_archived_byte_for_byte() {
    follows(Options::default());
}

#[test]
fn compressed_events_are_archived_byte_for_byte() {
    follows(Options::default().with("--log-bin-compress=1").with("--log-bin-compress-min-len=10"));
}

#[test]
fn events_without_checksums_are_archived_byte_for_byte() {
    follows(Options::default().with("--binlog-checksum=NONE"));
}

/// Has the server remove all files but the newest, whose name it gives. (A file that a replica reads is not removed, and
/// the server learns of a killed one when it writes to it.)
fn purge(scene: &Scene) -> String {
    let newest = scene.server.binlog_files().unwrap().pop().unwrap();
    let newest = newest.file_name().unwrap().to_str().unwrap().to_owned();
    let purged = || {
        scene.server.sql(&format!("PURGE BINARY LOGS TO '{newest}'")).unwrap();
        scene.server.binlog_files().unwrap().len() == 1
    };
    scene.stack.wait("the older files are gone", purged).unwrap();
    newest
}

#[test]
fn what_the_server_purged_is_a_gap_that_is_named() {
    let mut scene = Scene::started(Options::default(), "");
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT)").unwrap();
    scene.stack.fence().unwrap();
    scene.stack.kill_nfs1().unwrap();
    scene
        .server
        .sql("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (1); FLUSH BINARY LOGS; FLUSH BINARY LOGS")
        .unwrap();
    let newest = purge(&scene);
    scene.stack.start_nfs1().unwrap();
    scene
        .stack
        .wait("the gap is seen", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["state"] == "gap"))
        .unwrap();
    let (status, out, _) = scene.stack.command("nfs1", &["db", "status"]).unwrap();
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("bin.000001") && out.contains(&newest), "it names what is missing: {out}");
    assert!(out.contains("new-base"), "it says what helps: {out}");
}

#[test]
fn a_gap_is_crossed_with_a_new_base_when_the_settings_say_so() {
    let mut scene = Scene::started(Options::default(), "on_gap = \"new-base\"");
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)").unwrap();
    scene.snapshot();
    scene.stack.kill_nfs1().unwrap();
    scene.server.sql("INSERT INTO d.t VALUES (1); FLUSH BINARY LOGS; FLUSH BINARY LOGS").unwrap();
    purge(&scene);
    scene.stack.start_nfs1().unwrap();
    scene
        .stack
        .wait("a second lineage and a base in it", || {
            let Ok(status) = scene.stack.status("backup") else { return false };
            status["archive"]["lineages"] == 2 && status["bases"]["count"] == 2
        })
        .unwrap();
    scene.server.sql("INSERT INTO d.t VALUES (2)").unwrap();
    scene.stack.fence().unwrap();
    let target = scene.path("restored");
    scene
        .stack
        .ok("backup", &["db", "restore", "--at", "latest", "--datadir", target.to_str().unwrap()])
        .unwrap();
    let restored = super::started_on(&target);
    assert_eq!(restored.value("SELECT GROUP_CONCAT(a ORDER BY a) FROM d.t").unwrap(), "1,2");
}
