//! Branches that the binary log ends and never prepares.

use super::*;

#[test]
fn the_end_of_a_branch_that_no_log_prepared_is_left_out_and_told() {
    let world = World::new();
    let sql = |text: &str| world.server.sql(text).unwrap();
    sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)");
    world.base();
    unlogged(&world.server, "lost", "INSERT INTO d.t VALUES (1)");
    unlogged(&world.server, "given up", "INSERT INTO d.t VALUES (2)");
    sql("XA COMMIT 'lost'");
    sql("XA START 'kept'; INSERT INTO d.t VALUES (3); XA END 'kept'; XA PREPARE 'kept'");
    sql("XA COMMIT 'kept'; FLUSH BINARY LOGS; XA ROLLBACK 'given up'; INSERT INTO d.t VALUES (4)");
    // A name that is used again, for a branch that is logged and for one that is not.
    sql("XA START 'lost'; INSERT INTO d.t VALUES (5); XA END 'lost'; XA PREPARE 'lost'");
    sql("XA COMMIT 'lost'");
    unlogged(&world.server, "lost", "INSERT INTO d.t VALUES (6)");
    sql("XA COMMIT 'lost'");
    let datadir = world.datadir();
    let latest = |target| world.options(RestoreMoment::At(Target::Latest), target);
    let options = latest(RestoreTarget::Datadir(datadir.clone()));
    let restored = world.run(&world.archive(), &options).unwrap();
    assert_eq!(restored.unlogged_branches, ["X'6c6f7374',X'',1", "X'676976656e207570',X'',1"]);
    assert!(restored.prepared.is_empty(), "{:?}", restored.prepared);
    assert_eq!(restored.gtid, world.server.value("SELECT @@gtid_binlog_pos").unwrap());
    let server = serve(&world, &datadir);
    let rows = Access::at(server.socket())
        .sql("SELECT a FROM d.t ORDER BY a; SELECT COUNT(*) FROM mysql.gtid_slave_pos WHERE domain_id > 9")
        .unwrap();
    assert_eq!(rows, [["3"], ["4"], ["5"], ["0"]]);
    world.runtime.block_on(server.stop()).unwrap();
    // A server with a binary log gives its own replicas no end without a beginning; and a restore that breaks off leaves no
    // branch there. What was there before stays.
    sql("XA START 'held'; INSERT INTO d.t VALUES (7); XA END 'held'; XA PREPARE 'held'");
    let other = Maria::start(Options::default().server_id(2)).unwrap();
    other.sql("CREATE TABLE mysql.own (i INT) ENGINE=InnoDB; XA START 'own'; INSERT INTO mysql.own VALUES (1); XA END 'own'; XA PREPARE 'own'").unwrap();
    let mut options = latest(RestoreTarget::Server(Dsn::socket(other.socket(), "root")));
    options.overwrite = true;
    let restored = world.run(&world.archive(), &options).unwrap();
    assert_eq!(restored.prepared, ["x'68656c64',x'',1"]);
    let ends = "X'6c6f7374',X'',1";
    let logged = other.sql("SHOW BINLOG EVENTS").unwrap();
    let of = |word: &str| logged.iter().filter(|row| row[5].contains(&format!("{word} {ends}"))).count();
    assert_eq!((of("XA START"), of("XA COMMIT")), (1, 1), "{logged:?}");
    other.sql("XA ROLLBACK 'held'").unwrap();
    sql(
        "SET sql_log_bin = 0; CREATE TABLE d.unlogged (a INT); SET sql_log_bin = 1; INSERT INTO d.unlogged VALUES (1)",
    );
    let error = world.run(&world.archive(), &options).unwrap_err();
    assert!(error.is_of_backup() && error.to_string().contains("1146"), "{error}");
    assert_eq!(other.sql("XA RECOVER").unwrap().iter().map(|row| &row[3]).collect::<Vec<_>>(), ["own"]);
}

/// As after kill -9 of a server between its engine's prepare and its binary log.
pub(super) fn unlogged(server: &Maria, xid: &str, statement: &str) {
    server
        .sql(&format!(
            "SET sql_log_bin = 0; XA START '{xid}'; {statement}; XA END '{xid}'; XA PREPARE '{xid}'"
        ))
        .unwrap();
}
