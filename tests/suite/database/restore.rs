//! Any moment back, exactly.

use super::{Scene, seed, started_on, sums};
use ehpc_tools::bench::tree::Random;
use ehpc_tools::database::{Maria, Options, Work, Workload};

/// A counter whose every step is a transaction of its own: what it was after each GTID.
fn counted(server: &Maria, steps: u32) -> Vec<(String, u32)> {
    server.sql("CREATE DATABASE d; CREATE TABLE d.counter (n INT NOT NULL) ENGINE=InnoDB; INSERT INTO d.counter VALUES (0)").unwrap();
    let mut client = server.connect().unwrap();
    (1..=steps)
        .map(|step| {
            let rows = client.run("UPDATE d.counter SET n = n + 1; SELECT @@last_gtid;").unwrap();
            (rows[0][0].clone(), step)
        })
        .collect()
}

#[test]
fn any_transaction_is_the_last_one_that_is_restored() {
    let mut random = Random(seed());
    let mut scene = Scene::started(Options::default(), "");
    scene.snapshot();
    let moments = counted(&scene.server, 60);
    scene.stack.fence().unwrap();
    for round in 0..4 {
        if round == 2 {
            // The primary is lost, the backup's daemon was killed: its disk alone must do, again and again.
            scene.stack.kill_nfs1().unwrap();
            scene.stack.kill_backup().unwrap();
        }
        let (gtid, step) = &moments[random.number() as usize % moments.len()];
        let target = scene.path(&format!("restored{round}"));
        let datadir = target.to_str().unwrap();
        scene.stack.ok("backup", &["db", "restore", "--gtid", gtid, "--datadir", datadir]).unwrap();
        let restored = started_on(&target);
        assert_eq!(restored.value("SELECT n FROM d.counter").unwrap(), step.to_string(), "at {gtid}");
    }
    // Nothing of it is in the daemon's way.
    scene.stack.start().unwrap();
    scene.stack.fence().unwrap();
}

#[test]
fn a_place_within_a_transaction_is_refused_and_its_end_is_named() {
    let scene = Scene::started(Options::default(), "");
    scene.snapshot();
    counted(&scene.server, 3);
    scene.stack.fence().unwrap();
    let rows = scene.server.sql("SHOW BINLOG EVENTS IN 'bin.000001'").unwrap();
    let within = &rows.iter().rev().find(|row| row[2].starts_with("Table_map")).unwrap()[1];
    let target = scene.path("restored");
    let place = format!("bin.000001:{within}");
    let arguments = ["db", "restore", "--position", &place, "--datadir", target.to_str().unwrap()];
    let (status, out, error) = scene.stack.command("backup", &arguments).unwrap();
    assert_eq!(status, 2, "{out}{error}");
    assert!(error.contains("inside a transaction, which goes from"), "it names its ends: {error}");
}

#[test]
fn a_whole_workload_comes_back_equal_and_a_dropped_table_beside_it() {
    let seed = seed();
    let scene = Scene::started(Options::default(), "");
    let work = Workload::start(&scene.server.access(), Work::maria(seed).pieces(15)).unwrap();
    work.finish().unwrap();
    // Not while tables come and go all the time: a dump is then taken again and again.
    scene.stack.ok("nfs1", &["db", "snapshot", "--label", "first"]).unwrap();
    let work = Workload::start(&scene.server.access(), Work::maria(seed ^ 1)).unwrap();
    work.wait_for(80).unwrap();
    work.stop().unwrap();
    scene.stack.fence().unwrap();
    let before = sums(&scene.server.access(), &["work"]);
    let target = scene.path("restored");
    let out = scene
        .stack
        .ok("backup", &["db", "restore", "--at", "latest", "--json", "--datadir", target.to_str().unwrap()])
        .unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_ne!(report["equal"], false, "{report:#}");
    let restored = started_on(&target);
    assert_eq!(sums(&restored.access(), &["work"]), before);
    // A table is dropped by mistake; the rest goes on.
    let gtid = scene.server.value("SELECT @@gtid_binlog_pos").unwrap();
    scene
        .server
        .sql("DROP TABLE work.log; CREATE TABLE work.new_one (a INT); INSERT INTO work.new_one VALUES (5)")
        .unwrap();
    scene.stack.fence().unwrap();
    let to = scene.server.socket();
    let arguments = ["db", "restore", "--gtid", &gtid, "--to", to.to_str().unwrap(), "--only", "work.log"];
    scene.stack.ok("backup", &arguments).unwrap();
    let after = sums(&scene.server.access(), &["work"]);
    for pair in &before {
        assert!(after.contains(pair), "{pair:?} is not in {after:?}");
    }
    assert_eq!(scene.server.value("SELECT a FROM work.new_one").unwrap(), "5");
    // It does not replace what is there.
    let (status, _, error) = scene.stack.command("backup", &arguments).unwrap();
    assert!(status == 2 && error.contains("--overwrite"), "{error}");
}
