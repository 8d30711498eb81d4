//! `up --database`: a private server, and a commit on the backup a moment later.

use crate::executable::{Daemon, get, run, status, text, wait_healthy};
use crate::scratch;
use ehpc_tools::database::Access;

#[test]
fn a_commit_is_on_the_backup_and_the_proof_covers_it() {
    let directory = scratch::directory();
    let data = directory.path().join("d");
    let at = data.to_str().unwrap();
    let node = Daemon::start(&["up", "--database", "--any-ports", "--no-web", "--data", at]);
    wait_healthy(at);
    let access = Access::at(&data.join("database/mysqld.sock"));
    access.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1)").unwrap();
    let fence = run(&["ctl", "fence", "--data", at]);
    assert_eq!(status(&fence), 0, "{}", text(&fence.stderr));
    let shown = run(&["db", "log", "--data", at]);
    assert!(text(&shown.stdout).contains("bin.000001"), "{}{}", text(&shown.stdout), text(&shown.stderr));
    let proof = run(&["verify", "--data", at]);
    assert_eq!(status(&proof), 0, "{}{}", text(&proof.stdout), text(&proof.stderr));
    assert!(text(&proof.stdout).contains("database"), "{}", text(&proof.stdout));
    let metrics = get(&node.address("dashboard"), "/metrics");
    for name in ["ehpc_database_streaming 1", "ehpc_database_archive_bytes ", "ehpc_database_lag_seconds "] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let page = get(&node.address("dashboard"), "/");
    assert!(page.contains("binary log"), "{page}");
    assert_eq!(node.terminate(), 0);
    assert!(
        !data.join("database/mysqld.sock").exists() || access.sql("SELECT 1").is_err(),
        "the server has ended too"
    );
}
