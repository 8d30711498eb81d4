//! A node as its operator meets it: `up` from nothing to proof, pairing of two hosts, a stop that loses nothing.

use crate::executable::{Daemon, get, run, status, text, up, wait_healthy};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error}: {}{}", text(&output.stdout), text(&output.stderr))
    })
}

fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(status(&output), 0, "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "not within a minute: {what}");
    }
}

fn str(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn up_from_nothing_to_proof_and_repair() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("d");
    let node = up(&data);
    let at = str(&data);
    wait_healthy(at);
    let (share, mirror) = (data.join("share"), data.join("backup/mirror"));
    fs::create_dir(share.join("dir")).expect("made");
    fs::write(share.join("dir/file"), b"first").expect("written");
    std::os::unix::fs::symlink("dir/file", share.join("link")).expect("made");
    ok(&["ctl", "fence", "--data", at]);
    wait("the replica has the file", || {
        fs::read(mirror.join("dir/file")).is_ok_and(|bytes| bytes == b"first")
    });
    fs::rename(share.join("dir"), share.join("renamed")).expect("renamed");

    let report = json(&["verify", "--json", "--read-data", "--data", at]);
    assert_eq!(report["verdict"], "equal", "{report:#}");
    assert_eq!((report["files"].as_u64(), report["others"].as_u64()), (Some(1), Some(1)), "{report:#}");
    assert!(ok(&["verify", "--data", at]).starts_with("EQUAL"));

    fs::write(mirror.join("renamed/file"), b"other").expect("planted");
    let found = run(&["verify", "--read-data", "--data", at]);
    assert_eq!(status(&found), 1, "{}", text(&found.stderr));
    assert!(text(&found.stdout).contains("  renamed/file "), "{}", text(&found.stdout));
    let sick = json(&["status", "--json", "--data", at]);
    assert_eq!(sick["verify"]["equal"], false, "{sick:#}");
    let dashboard = node.address("dashboard");
    assert!(get(&dashboard, "/healthz").starts_with("HTTP/1.1 503 "));
    assert!(get(&dashboard, "/metrics").contains("\nehpc_verify_equal 0\n"));

    assert!(ok(&["verify", "--read-data", "--repair", "--data", at]).starts_with("EQUAL"));
    assert_eq!(fs::read(mirror.join("renamed/file")).expect("there"), b"first");
    assert!(get(&dashboard, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(ok(&["ctl", "rescan", "--data", at]).contains("a scan begins"));
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_stop_sends_the_last_change_and_a_start_finds_what_was_missed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("d");
    let node = up(&data);
    wait_healthy(str(&data));
    fs::write(data.join("share/last"), b"words").expect("written");
    assert_eq!(node.terminate(), 0);
    assert_eq!(fs::read(data.join("backup/mirror/last")).expect("on the replica"), b"words");

    fs::write(data.join("share/missed"), b"while stopped").expect("written");
    fs::remove_file(data.join("share/last")).expect("removed");
    let node = up(&data);
    ok(&["verify", "--read-data", "--data", str(&data)]);
    assert_eq!(fs::read(data.join("backup/mirror/missed")).expect("on the replica"), b"while stopped");
    assert!(!data.join("backup/mirror/last").exists());
    drop(node); // SIGKILL
    fs::write(data.join("share/after"), b"a kill").expect("written");
    let _node = up(&data);
    ok(&["verify", "--read-data", "--data", str(&data)]);
}

#[test]
fn two_hosts_are_paired_by_a_code_and_by_nothing_else() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (share, state, directory) =
        (scratch.path().join("share"), scratch.path().join("nfs1"), scratch.path().join("backup"));
    fs::create_dir(&share).expect("made");
    let (state, directory) = (str(&state), str(&directory));
    let any = "127.0.0.1:0";
    let backup = Daemon::start(&["backup", "--dir", directory, "--listen", any, "--dashboard", any]);
    let address = backup.address("replication");
    let nfs1 = [
        "nfs1",
        "--export",
        str(&share),
        "--state",
        state,
        "--listen",
        any,
        "--dashboard",
        any,
        "--backup",
        &address,
    ];
    let running = Daemon::start(&nfs1);
    wait("nfs1 says that it is not paired", || {
        let screen = run(&["status", "--state", state]);
        status(&screen) == 1 && text(&screen.stdout).contains("not paired with a backup")
    });
    fs::write(share.join("early"), b"waits").expect("written");

    // Nobody gets in with a wrong code, or without an offer.
    let wrong = ["pair", "--state", state, "--backup", &address, "--code", "0000-0000-0000-0000"];
    assert_eq!(status(&run(&wrong)), 2);
    let offer = json(&["pair", "--state", directory, "--json"]);
    let code = offer["code"].as_str().expect("a code").to_owned();
    assert_eq!(offer["address"], Value::from(address.as_str()));
    assert_eq!(status(&run(&wrong)), 2);
    assert_eq!(status(&run(&["pair", "--state", state, "--code", &code])), 2, "where is the backup?");

    // The right code binds the running nfs1; it cannot be used again.
    let right = ["pair", "--state", state, "--backup", &address, "--code", &code];
    assert!(ok(&right).starts_with("paired with "));
    assert_eq!(status(&run(&right)), 2);
    wait("the link comes up without a restart", || status(&run(&["status", "--state", state])) == 0);
    ok(&["verify", "--read-data", "--state", state]);
    assert_eq!(status(&run(&["status", "--state", directory])), 0);
    assert_eq!(fs::read(scratch.path().join("backup/mirror/early")).expect("arrived"), b"waits");

    // verify is asked of nfs1.
    let asked = run(&["verify", "--state", directory]);
    assert_eq!(status(&asked), 2);
    assert!(text(&asked.stderr).contains("cannot do `verify`"), "{}", text(&asked.stderr));
    assert_eq!(running.terminate(), 0);
    assert_eq!(backup.terminate(), 0);
}

#[test]
fn durability_remote_and_no_mirror() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (share, state, directory) =
        (scratch.path().join("share"), scratch.path().join("nfs1"), scratch.path().join("backup"));
    fs::create_dir(&share).expect("made");
    let (state, directory) = (str(&state), str(&directory));
    let any = "127.0.0.1:0";
    let backup =
        Daemon::start(&["backup", "--dir", directory, "--listen", any, "--dashboard", any, "--no-mirror"]);
    let address = backup.address("replication");
    let code = json(&["pair", "--state", directory, "--json"])["code"].as_str().expect("a code").to_owned();
    ok(&["pair", "--state", state, "--backup", &address, "--code", &code]);
    let _nfs1 = Daemon::start(&[
        "nfs1",
        "--export",
        str(&share),
        "--state",
        state,
        "--listen",
        any,
        "--dashboard",
        any,
        "--backup",
        &address,
        "--durability",
        "remote",
        "--watcher",
        "notify",
        "--async",
    ]);
    fs::write(share.join("file"), vec![7; 300_000]).expect("written");
    ok(&["verify", "--read-data", "--state", state]);
    assert!(!scratch.path().join("backup/mirror").exists());
    let told = json(&["status", "--json", "--state", state]);
    assert_eq!(told["nfs"]["durability"], "remote");
    assert_eq!(told["capture"]["watcher"], "notify");
    assert_eq!(json(&["status", "--json", "--state", directory])["backup"]["mirror"], Value::Null);
}
