//! The primary dies and its replica takes its place: the archive goes on there, and takes nothing from what comes back.

use super::{Scene, seed, started_on, sums};
use ehpc_tools::database::{Maria, Options, Work, Workload};

/// A server, and a replica of it that holds all of its history in a binary log of its own.
fn pair() -> (Scene, Maria) {
    let scene = Scene::new(Options::default().tcp(), "");
    let replica =
        Maria::start(Options::default().server_id(2).with("--log-slave-updates=1").with("--read-only=1"))
            .unwrap();
    scene
        .server
        .sql("CREATE USER repl@'%' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
        .unwrap();
    let port = scene.server.port().unwrap();
    replica
        .sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', MASTER_PASSWORD='r', \
             MASTER_USE_GTID=slave_pos; START SLAVE"
        ))
        .unwrap();
    let (one, two) = (scene.server.socket(), replica.socket());
    let address = format!("address = [\"{}\", \"{}\"]\nuser = \"root\"", one.display(), two.display());
    scene.stack.configure(&address).unwrap();
    (scene, replica)
}

/// Waits until the source says so: a word of its state, and of its last error.
fn says(scene: &Scene, state: &str, word: &str) {
    let said = || {
        let status = scene.stack.status("nfs1").unwrap_or_default();
        let source = &status["source"];
        source["state"] == state && source["last_error"].as_str().is_some_and(|text| text.contains(word))
    };
    scene.stack.wait(&format!("{state}: {word}"), said).unwrap();
}

/// Lineage 2 is what the replica wrote from its first file on; lineage 1 is what the primary wrote before it died.
fn assert_equal(scene: &Scene, replica: &Maria) {
    for (lineage, server, whole) in [("0001", &scene.server, false), ("0002", replica, true)] {
        let mut compared = 0;
        for file in server.binlog_files().unwrap() {
            let kept = scene.stack.database().join(lineage).join(file.file_name().unwrap());
            let Ok(ours) = std::fs::read(&kept) else {
                assert!(!whole, "{} is not there", kept.display());
                continue;
            };
            let mut theirs = std::fs::read(&file).unwrap();
            theirs[super::IN_USE_AT] &= !1;
            assert!(theirs.starts_with(&ours), "{}", kept.display());
            assert!(
                !whole || theirs.len() == ours.len(),
                "{}: {} of {}",
                kept.display(),
                ours.len(),
                theirs.len()
            );
            compared += 1;
        }
        assert!(compared > 0, "lineage {lineage}\n{}", scene.stack.logs());
    }
}

#[test]
fn the_archive_goes_on_where_the_replica_takes_over() {
    let seed = seed();
    let (mut scene, mut replica) = pair();
    scene.stack.start().unwrap();
    let work = Workload::start(&scene.server.access(), Work::maria(seed).rows_only()).unwrap();
    scene.snapshot();
    work.wait_for(work.done() + 40).unwrap();
    // The last commits before the end reach the replica, and not the archive.
    scene.stack.kill_nfs1().unwrap();
    work.wait_for(work.done() + 40).unwrap();
    let before = work.stop().unwrap();
    let gtid = scene.server.value("SELECT @@gtid_binlog_pos").unwrap();
    let arrived = replica.value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 60)")).unwrap();
    assert_eq!(arrived, "0", "{:?}", replica.sql("SHOW SLAVE STATUS"));
    scene.server.kill9().unwrap();
    scene.stack.start_nfs1().unwrap();
    says(&scene, "connecting", "still a replica");
    replica.sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0; CREATE DATABASE promoted").unwrap();
    let promoted = replica.value("SELECT @@gtid_binlog_pos").unwrap();
    // It is killed: what a server killed within XA PREPARE knows and has not logged is in no archive.
    let work = Work::maria(seed ^ 1).rows_only().without_branches();
    let work = Workload::start(&replica.access(), work).unwrap();
    let lineages = |count: u64| scene.stack.status("backup").is_ok_and(|s| s["archive"]["lineages"] == count);
    scene.stack.wait("the second lineage", || lineages(2)).unwrap();

    // What was the primary is back, as if nothing had been: with commits that nobody else has.
    scene.server.restart().unwrap();
    scene
        .server
        .sql("CREATE DATABASE stale; CREATE TABLE stale.t (a INT); INSERT INTO stale.t VALUES (1)")
        .unwrap();
    work.wait_for(work.done() + 30).unwrap();
    replica.kill9().unwrap();
    says(&scene, "diverged", scene.server.socket().to_str().unwrap());
    replica.restart().unwrap();
    work.wait_for(work.done() + 30).unwrap();
    let after = work.stop().unwrap();
    scene.stack.fence().unwrap();
    assert!(lineages(2), "{:#?}", scene.stack.status("backup"));
    assert_equal(&scene, &replica);

    // At the first commit on the new primary, and at the last.
    for (name, moment) in [("takeover", ["--gtid", &promoted]), ("latest", ["--at", "latest"])] {
        let target = scene.path(name);
        let arguments = ["db", "restore", moment[0], moment[1], "--datadir", target.to_str().unwrap()];
        scene.stack.ok("backup", &arguments).unwrap();
        let restored = started_on(&target);
        let missing = before.missing_in(&restored.access()).unwrap();
        assert!(missing.is_empty(), "{name}: {missing:?}");
        let databases = restored.sql("SHOW DATABASES").unwrap();
        let has = |name: &str| databases.iter().any(|row| row[0] == name);
        assert!(has("promoted") && !has("stale"), "{name}: {databases:?}");
        if name == "latest" {
            let missing = after.missing_in(&restored.access()).unwrap();
            assert!(missing.is_empty(), "{missing:?}");
            assert_eq!(sums(&restored.access(), &["work"]), sums(&replica.access(), &["work"]));
        }
    }
}
