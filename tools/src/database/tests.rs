//! The harness itself: servers start, die, come back; work survives it.

use super::{Maria, MySql56, Options, Work, Workload};

#[test]
fn what_a_workload_saw_committed_survives_a_killed_server() {
    let mut server = Maria::start(Options::default().tcp()).unwrap();
    let port = server.port().unwrap();
    let work = Workload::start(&server.access(), Work::maria(1)).unwrap();
    work.wait_for(100).unwrap();
    server.kill9().unwrap();
    server.restart().unwrap();
    assert_eq!(server.port().unwrap(), port);
    let before = work.done();
    work.wait_for(before + 300).unwrap();
    let seen = work.stop().unwrap();
    assert!(seen.count() >= 400);
    assert_eq!(seen.missing_in(&server.access()).unwrap(), []);
    let kinds = server.sql("SELECT kind, COUNT(*) FROM work.log GROUP BY kind").unwrap();
    assert_eq!(kinds.len(), 10, "{kinds:?}");
    // A file that was live when the server was killed, and the one after it.
    assert_eq!(server.binlog_files().unwrap().len(), 2);
    assert_eq!(server.value("SELECT @@server_id").unwrap(), "1");
    server.sql("DELETE FROM work.log WHERE worker = 2 ORDER BY seq LIMIT 1").unwrap();
    assert_eq!(seen.missing_in(&server.access()).unwrap().len(), 1);
}

#[test]
fn a_genuine_mysql_works_too() {
    let server = MySql56::start(Options::default().server_id(56)).unwrap();
    assert_eq!(server.sql("SELECT VERSION(), @@server_id").unwrap(), [["5.6.24-log", "56"]]);
    let seen = Workload::start(&server.access(), Work::mysql(2).pieces(40)).unwrap().finish().unwrap();
    assert!(seen.count() > 100);
    assert_eq!(seen.missing_in(&server.access()).unwrap(), []);
    assert_eq!(server.binlog_files().unwrap().len(), 1);
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let error = Maria::start(Options::default().with("--no-such-option")).err().unwrap().to_string();
    assert!(error.contains("no-such-option"), "{error}");
}
