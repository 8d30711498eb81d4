//! `db prune`: what bases, open XA branches and replicas need stays, and a dry run removes nothing.

use super::{Scene, started_on, sums};
use ehpc_tools::database::Options;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A replica that takes no more: its output is a pipe that nobody reads.
struct Slow(Child);

impl Slow {
    fn start(scene: &Scene) -> Slow {
        let text = std::fs::read_to_string(scene.stack.cluster_file()).unwrap();
        let port = text.split_once("[database]\nlisten = \"127.0.0.1:").unwrap().1;
        let port = port.split_once('"').unwrap().0;
        let password = std::fs::read_to_string(scene.stack.database().join("replica.password")).unwrap();
        let child = Command::new("mariadb-binlog")
            .args([
                "--no-defaults",
                "--read-from-remote-server",
                "--stop-never",
                "--raw=0",
                "--host=127.0.0.1",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--password={}", password.trim()))
            .args(["--user=ehpc_replica", "bin.000001"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Slow(child)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// Names of the binary logs on the backup's disk.
fn there(scene: &Scene) -> Vec<String> {
    let numbered =
        |path: &PathBuf| path.extension().is_some_and(|e| e.as_encoded_bytes()[0].is_ascii_digit());
    let listed = std::fs::read_dir(scene.stack.database().join("0001")).unwrap();
    let paths = listed.map(|entry| entry.unwrap().path()).filter(numbered);
    let mut names: Vec<String> =
        paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn files(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("bin.{number:06}")).collect()
}

#[test]
fn what_somebody_needs_stays_and_the_rest_goes() {
    let more = "base_every = \"1h\"\narchive_keep = \"1h\"\nbase_keep = 1";
    let mut scene = Scene::new(Options::default(), more);
    // All of it is of yesterday, but for the last file.
    let old = "SET timestamp = UNIX_TIMESTAMP() - 86400;";
    let mut client = scene.server.connect().unwrap();
    client.run(&format!("{old} CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT);")).unwrap();
    // More than sockets take in.
    let rows = "(REPEAT('x', 12000000)), (REPEAT('y', 12000000)), (REPEAT('z', 12000000))";
    let large =
        format!("CREATE TABLE d.large (b LONGBLOB); INSERT INTO d.large VALUES {rows}; DROP TABLE d.large");
    client.run(&format!("{old} {large}; FLUSH BINARY LOGS;")).unwrap();
    // The branch stays when its connection ends.
    let prepare = "XA START 'open'; INSERT INTO d.t VALUES (3, 'z'); XA END 'open'; XA PREPARE 'open'";
    scene.server.sql(&format!("{old} {prepare}")).unwrap();
    client.run("FLUSH BINARY LOGS;").unwrap();
    client.run(&format!("{old} INSERT INTO d.t VALUES (4, 'a'); FLUSH BINARY LOGS;")).unwrap();
    // What is older than two seconds counts by its own time, not by that of its arrival.
    let written: u64 = scene.server.value("SELECT UNIX_TIMESTAMP()").unwrap().parse().unwrap();
    let age = || scene.server.value("SELECT UNIX_TIMESTAMP()").unwrap().parse::<u64>().unwrap() - written;
    scene.stack.wait("it is old", || age() > 3).unwrap();
    scene.stack.start().unwrap();
    let prune = |options: &[&str]| {
        let out = scene.stack.ok("backup", &[&["db", "prune"], options].concat()).unwrap();
        print!("{options:?}: {out}");
        out
    };
    scene.snapshot();
    assert_eq!(there(&scene), files(1..=4));

    let slow = Slow::start(&scene);
    let reads = || scene.stack.status("backup").unwrap()["replicas"][0]["file"] == "bin.000001";
    scene.stack.wait("the replica reads", reads).unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let out = prune(options);
        assert!(out.contains("0 binary logs") && out.contains("has not read further"), "{out}");
    }
    // It is expected back, until the daemon ends.
    drop(slow);
    let gone = || scene.stack.status("backup").unwrap()["replicas"] == serde_json::json!([]);
    scene.stack.wait("the replica is gone", gone).unwrap();
    assert!(prune(&[]).contains("0 binary logs"));
    assert_eq!(there(&scene), files(1..=4));
    scene.stack.kill_backup().unwrap();
    scene.stack.start_backup().unwrap();

    // The base needs what prepared the branch that was open.
    let prune = |options: &[&str]| scene.stack.ok("backup", &[&["db", "prune"], options].concat()).unwrap();
    assert!(prune(&["--dry-run"]).contains("would go: 1 binary logs"));
    assert_eq!(there(&scene), files(1..=4), "nothing is removed by a dry run");
    assert!(prune(&[]).contains("removed: 1 binary logs"));
    assert_eq!(there(&scene), files(2..=4));
    scene.stack.fence().unwrap();
    let target = scene.path("restored");
    let to = target.to_str().unwrap();
    scene.stack.ok("backup", &["db", "restore", "--at", "latest", "--datadir", to]).unwrap();
    let server = started_on(&target);
    assert_eq!(server.sql("XA RECOVER").unwrap().len(), 1);
    server.sql("XA COMMIT 'open'").unwrap();
    scene.server.sql("XA COMMIT 'open'").unwrap();
    assert_eq!(sums(&server.access(), &["d"]), sums(&scene.server.access(), &["d"]));

    // A newer base needs none of it; the newest file stays in any case.
    scene.snapshot();
    assert!(prune(&[]).contains("removed: 2 binary logs"));
    assert_eq!(there(&scene), files(4..=4));
}
