//! A primary and a stock replica of it: equal under load, and every planted difference found where it is.

use super::*;
use crate::database::sql::Dsn;
use ehpc_tools::database::{Maria, MySql56, Options, Work, Workload};
use std::sync::atomic::Ordering;

mod drills;
mod kinds;
mod meddled;
mod through;

struct Two {
    primary: Maria,
    standby: Maria,
}

impl Two {
    fn start() -> Two {
        Two::with(Options::default(), Options::default())
    }

    fn with(primary: Options, standby: Options) -> Two {
        let primary = Maria::start(primary.tcp()).unwrap();
        let standby = Maria::start(
            standby
                .server_id(2)
                .with("--log-slave-updates=1")
                .with("--slave-parallel-threads=4")
                .with("--slave-parallel-mode=optimistic"),
        )
        .unwrap();
        primary.sql("CREATE USER repl@'%'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'").unwrap();
        standby
            .sql(&format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl',
                 MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE",
                primary.port().unwrap()
            ))
            .unwrap();
        let two = Two { primary, standby };
        two.catch_up();
        two
    }

    fn catch_up(&self) {
        let at = self.primary.value("SELECT @@gtid_binlog_pos").unwrap();
        assert_eq!(self.standby.value(&format!("SELECT MASTER_GTID_WAIT('{at}', 60)")).unwrap(), "0");
    }

    fn deep(&self, deep: bool) -> Result<Comparison, CheckError> {
        let primary = Dsn::socket(self.primary.socket(), "root");
        let standby = Dsn::socket(self.standby.socket(), "root");
        run(&primary, &standby, deep, &AtomicBool::new(false))
    }

    fn compare(&self) -> Comparison {
        self.deep(false).unwrap()
    }

    /// Changes the standby behind replication's back.
    fn plant(&self, sql: &str) {
        self.standby.sql(&format!("SET SESSION sql_log_bin = 0; {sql}")).unwrap();
    }

    /// What replication must still do after any comparison.
    fn assert_follows(&self) {
        self.primary
            .sql("CREATE DATABASE IF NOT EXISTS follow; CREATE OR REPLACE TABLE follow.f (a INT)")
            .unwrap();
        self.catch_up();
        let status = self.standby.sql("SHOW ALL SLAVES STATUS").unwrap();
        assert_eq!(status.len(), 1);
        self.primary.sql("DROP DATABASE follow").unwrap();
        self.catch_up();
    }
}

fn run(primary: &Dsn, standby: &Dsn, deep: bool, stop: &AtomicBool) -> Result<Comparison, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let compare = Compare { primary, standby, deep, progress: &|_| {}, stop };
    runtime.block_on(compare.run())
}

fn assert_equal(found: &Comparison) {
    assert_eq!((&found.differences, &found.unchecked), (&Vec::new(), &Vec::new()), "{found}");
}

#[test]
fn equal_under_load_and_after_it() {
    let two = Two::start();
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    for round in 0..4 {
        // So much that it goes on for as long as the comparison takes; an endless one would leave a standby behind.
        let load = Workload::start(&two.primary.access(), Work::maria(seed ^ round).pieces(150)).unwrap();
        load.wait_for(50).unwrap();
        let found = two.deep(round == 3).unwrap();
        assert_eq!(found.differences, Vec::new(), "{found}");
        load.finish().unwrap();
        two.catch_up();
    }
    for deep in [false, true] {
        let found = two.deep(deep).unwrap();
        assert_equal(&found);
        assert!(found.tables > 3 && found.objects > found.tables, "{found}");
        // Each with its proof.
        assert_eq!(found.sums.len() as u64, found.tables);
        assert!(
            found.sums.iter().all(|table| table.rows.is_some() || (!deep && table.checksum.is_some())),
            "{found}"
        );
    }
    two.assert_follows();
}

#[test]
fn differences_are_found_in_their_range() {
    let two = Two::start();
    // 130,000 rows of a composite key with gaps.
    two.primary
        .sql(
            "CREATE DATABASE d; USE d; CREATE TABLE d.big (a INT, b INT, c CHAR(32), PRIMARY KEY (a, b));
             INSERT INTO d.big SELECT seq DIV 1000, seq % 1000 * 3, MD5(seq) FROM seq_0_to_129999",
        )
        .unwrap();
    two.catch_up();
    assert_equal(&two.compare());
    two.plant(
        "UPDATE d.big SET c='x' WHERE a=0 AND b<=42; DELETE FROM d.big WHERE a=60 AND b=300;
         INSERT INTO d.big VALUES (60,301,'new'),(999,1,'behind the end')",
    );
    let found = two.compare();
    let [Difference { way: Way::Rows(differ), .. }] = found.differences.as_slice() else { panic!("{found}") };
    assert_eq!((differ.rows, differ.ranges.len(), differ.more_ranges), ((130_000, 130_001), 3, 0), "{found}");
    let ranges: Vec<_> = differ
        .ranges
        .iter()
        .map(|range| (range.after.as_deref(), range.to.as_deref(), range.rows, range.differing))
        .collect();
    let (first, second) = ("`a` = 49, `b` = 2997", "`a` = 99, `b` = 2997");
    assert_eq!(
        ranges,
        [
            (None, Some(first), (50_000, 50_000), Some(15)),
            (Some(first), Some(second), (50_000, 50_000), Some(2)),
            (Some(second), None, (30_000, 30_001), Some(1)),
        ]
    );
    let keys = |at: usize| differ.ranges[at].keys.iter().map(|key| (key.key.as_str(), key.what.as_str()));
    assert_eq!(keys(0).count(), 10);
    assert_eq!(
        keys(1).collect::<Vec<_>>(),
        [("`a` = 60, `b` = 300", "only on the primary"), ("`a` = 60, `b` = 301", "only on the standby")]
    );
    assert_eq!(keys(2).collect::<Vec<_>>(), [("`a` = 999, `b` = 1", "only on the standby")]);
    two.assert_follows();
}

#[test]
fn versioned_tables_and_sequences() {
    let two = Two::start();
    two.primary
        .sql(
            "CREATE DATABASE d; USE d;
             CREATE TABLE v (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING;
             CREATE TABLE x (a INT PRIMARY KEY, b INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
               e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING;
             CREATE SEQUENCE q; SELECT NEXTVAL(q);
             INSERT INTO v VALUES (1,1),(2,2); UPDATE v SET b=3 WHERE a=1; DELETE FROM v WHERE a=2;
             INSERT INTO x (a,b) VALUES (1,1),(2,2);
             DO 1; INSERT INTO x (a,b) VALUES (3,3); UPDATE x SET b=4 WHERE a=3;",
        )
        .unwrap();
    two.catch_up();
    // Numbers of transactions are each server's own.
    two.plant(
        "CREATE DATABASE own; CREATE TABLE own.t (a INT); INSERT INTO own.t VALUES (1); DROP DATABASE own",
    );
    two.primary
        .sql("INSERT INTO d.x (a,b) VALUES (5,5); UPDATE d.x SET b=6 WHERE a=5; DELETE FROM d.x WHERE a=1")
        .unwrap();
    two.catch_up();
    for deep in [false, true] {
        assert_equal(&two.deep(deep).unwrap());
    }
    // An old row is lost; the rows that are visible are the same.
    two.plant("DELETE HISTORY FROM d.v; DELETE HISTORY FROM d.x; SELECT NEXTVAL(d.q), NEXTVAL(d.q); SELECT SETVAL(d.q, 5000)");
    let found = two.compare();
    let names: Vec<(&str, Kind)> = found
        .differences
        .iter()
        .map(|difference| (difference.item.name.as_str(), difference.item.kind))
        .collect();
    assert_eq!(names, [("v", Kind::Table), ("x", Kind::Table), ("q", Kind::Sequence)], "{found}");
}

#[test]
fn objects_and_accounts() {
    let two = Two::start();
    two.primary
        .sql(
            "CREATE DATABASE d; USE d; CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY);
             CREATE VIEW v AS SELECT a FROM t; CREATE VIEW vv AS SELECT a FROM v;
             CREATE FUNCTION f () RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p () SELECT 1;
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @x = 1;
             CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;
             CREATE EVENT off ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1;
             CREATE USER app@'%' IDENTIFIED BY 'x'; GRANT SELECT ON d.* TO app@'%';
             CREATE ROLE r; GRANT INSERT ON d.t TO r; GRANT r TO app@'%';
             BEGIN; INSERT INTO t VALUES (NULL),(NULL); ROLLBACK;",
        )
        .unwrap();
    two.catch_up();
    assert_equal(&two.compare());
    two.plant(
        "USE d; DROP VIEW v; CREATE VIEW extra AS SELECT 2;
         CREATE OR REPLACE FUNCTION f () RETURNS INT DETERMINISTIC RETURN 2; DROP PROCEDURE p;
         CREATE OR REPLACE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @x = 2;
         ALTER EVENT e ON SCHEDULE EVERY 2 DAY; REVOKE SELECT ON d.* FROM app@'%'; GRANT DELETE ON d.t TO r;
         ALTER TABLE t ADD INDEX i (a); CREATE TABLE more (a INT); CREATE DATABASE other",
    );
    let found = two.compare();
    let mut lines: Vec<String> = found.differences.iter().map(ToString::to_string).collect();
    lines.sort();
    let definition = "its definition differs (compare SHOW CREATE on both)";
    let (primary, standby) = ("only on the primary", "only on the standby");
    assert_eq!(
        lines,
        [
            format!("  account 'app'@'%': {definition}"),
            format!("  account 'r'@'': {definition}"),
            format!("  database `other`: {standby}"),
            format!("  event `d`.`e`: {definition}"),
            format!("  function `d`.`f`: {definition}"),
            format!("  procedure `d`.`p`: {primary}"),
            format!("  table `d`.`more`: {standby}"),
            format!("  table `d`.`t`: {definition}"),
            format!("  trigger `d`.`g`: {definition}"),
            format!("  view `d`.`extra`: {standby}"),
            format!("  view `d`.`v`: {primary}"),
        ]
    );
    assert_eq!(found.rounds, ROUNDS);
    two.plant("DROP TABLE d.more; CREATE USER extra@localhost");
    // The standby lists such an account and leaves it out (skip_name_resolve), once it has read its accounts again.
    two.primary.sql("CREATE USER web@'web1.example'").unwrap();
    two.catch_up();
    two.plant("FLUSH PRIVILEGES");
    let found = two.compare();
    let unchecked: Vec<String> = found.unchecked.iter().map(|found| found.item.to_string()).collect();
    assert_eq!(unchecked, ["account 'web'@'web1.example'"], "{found}");
    assert!(!found.differences.iter().any(|found| found.item.schema == "web"), "{found}");
    assert!(found.to_string().contains("left out  the accounts root, mysql"), "{found}");
    // Who may not list the accounts of a server says nothing about any.
    two.primary
        .sql(
            "CREATE USER few@localhost; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON d.* TO few@localhost;
             GRANT BINLOG MONITOR, RELOAD, PROCESS ON *.* TO few@localhost",
        )
        .unwrap();
    two.catch_up();
    let few = Dsn::socket(two.primary.socket(), "few");
    let found =
        run(&few, &Dsn::socket(two.standby.socket(), "root"), false, &AtomicBool::new(false)).unwrap();
    assert!(found.unchecked.iter().any(|found| found.item.to_string() == "account '*'@'*'"), "{found}");
    assert!(!found.differences.iter().any(|found| found.item.kind == Kind::Account), "{found}");
    two.assert_follows();
}

#[test]
fn tables_without_snapshots() {
    let two = Two::start();
    two.primary
        .sql("CREATE DATABASE d; CREATE TABLE d.m (a INT) ENGINE=MyISAM; INSERT INTO d.m VALUES (1),(2)")
        .unwrap();
    two.catch_up();
    assert_equal(&two.compare());
    two.plant("DELETE FROM d.m WHERE a=2");
    let found = two.compare();
    assert!(matches!(found.differences.as_slice(), [Difference { way: Way::Sums(..), .. }]), "{found}");
}

#[test]
fn ddl_does_not_wait_for_the_comparison() {
    // Each table is let go of: at the moment in which another one is compared, this one can be altered.
    let two = Two::start();
    two.primary
        .sql(
            "CREATE DATABASE d; USE d; CREATE TABLE d.big (a INT PRIMARY KEY, b CHAR(200));
             INSERT INTO d.big SELECT seq, seq FROM seq_1_to_100000;
             CREATE TABLE d.small (a INT PRIMARY KEY) SELECT seq AS a FROM seq_1_to_10;
             CREATE TABLE d.emptied (a INT PRIMARY KEY) SELECT seq AS a FROM seq_1_to_10;
             CREATE TABLE d.again (a INT PRIMARY KEY); INSERT INTO d.again VALUES (1), (2)",
        )
        .unwrap();
    two.catch_up();
    let primary = Dsn::socket(two.primary.socket(), "root");
    let standby = Dsn::socket(two.standby.socket(), "root");
    let access = two.primary.access();
    let altered = AtomicBool::new(false);
    // While the standby still has the rows that the primary's snapshot does not show any more.
    let mut holder = two.standby.connect().unwrap();
    holder.run("LOCK TABLES d.emptied READ, d.again READ;").unwrap();
    let holder = std::sync::Mutex::new(Some(holder));
    // The big one comes first; then the comparison still stands in its snapshot.
    let progress = |step: Progress| {
        if step.tables == 1 && !altered.swap(true, Ordering::Relaxed) {
            access
                .sql(
                    "SET SESSION lock_wait_timeout=5; ALTER TABLE d.big ADD COLUMN c INT DEFAULT 3, ALGORITHM=COPY;
                     ALTER TABLE d.small ADD COLUMN c INT DEFAULT 3, ALGORITHM=COPY; TRUNCATE TABLE d.emptied;
                     DROP TABLE d.again; CREATE TABLE d.again (a INT PRIMARY KEY); INSERT INTO d.again VALUES (1), (2)",
                )
                .unwrap();
        }
        if step.tables == step.tables_total {
            drop(holder.lock().unwrap().take());
        }
    };
    let stop = AtomicBool::new(false);
    let compare =
        Compare { primary: &primary, standby: &standby, deep: false, progress: &progress, stop: &stop };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(compare.run()).unwrap();
    assert!(altered.load(Ordering::Relaxed));
    // The others changed their form behind the snapshot: they were looked at again.
    assert_equal(&found);
    assert_eq!((found.tables, found.rounds), (4, 2), "{found}");
}

#[test]
fn faults_say_what_to_do_and_leave_the_standby_following() {
    let two = Two::start();
    two.primary
        .sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
        .unwrap();
    two.catch_up();
    let primary = Dsn::socket(two.primary.socket(), "root");
    let standby = Dsn::socket(two.standby.socket(), "root");
    // Stopped from outside.
    let error = run(&primary, &standby, false, &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(error, CheckError::Stopped), "{error}");
    two.assert_follows();
    // Two servers that have nothing to do with each other.
    let error = run(&standby, &primary, false, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, CheckError::Sources(0)), "{error}");
    // One that has what the primary lacks.
    two.standby.sql("STOP SLAVE; SET GLOBAL gtid_slave_pos='0-1-99999'; START SLAVE SQL_THREAD").unwrap();
    let error = two.deep(false).unwrap_err();
    assert!(
        error.to_string().contains("does not hold") || error.to_string().contains("not replicate"),
        "{error}"
    );
}

#[test]
fn a_broken_standby_is_named() {
    let two = Two::start();
    two.primary.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)").unwrap();
    two.catch_up();
    two.plant("DROP TABLE d.t");
    two.primary.sql("INSERT INTO d.t VALUES (1)").unwrap();
    let ended = || two.standby.sql("SHOW ALL SLAVES STATUS").unwrap()[0].join(" ").contains("doesn't exist");
    ehpc_tools::process::wait_until("the error", std::time::Duration::from_secs(30), ended).unwrap();
    let error = two.deep(false).unwrap_err().to_string();
    assert!(error.contains("does not replicate (error 1146") && error.contains("db standby"), "{error}");
}

#[test]
fn a_standby_behind_catches_up_to_exactly_the_position() {
    let two = Two::start();
    two.primary.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b INT)").unwrap();
    two.catch_up();
    // The standby is slow: it waits for a lock while the primary goes on.
    let mut holder = two.standby.connect().unwrap();
    holder.run("LOCK TABLES d.t READ;").unwrap();
    for _ in 0..20 {
        two.primary.sql("INSERT INTO d.t (b) VALUES (1),(2),(3)").unwrap();
    }
    let access = two.standby.access();
    std::thread::scope(|scope| {
        let free = scope.spawn(move || {
            let waits = || {
                let found = access.sql("SHOW PROCESSLIST").unwrap();
                found.iter().any(|row| row.join(" ").contains("STOP SLAVE"))
            };
            ehpc_tools::process::wait_until("STOP SLAVE", std::time::Duration::from_secs(30), waits).unwrap();
            drop(holder);
        });
        let found = two.compare();
        free.join().unwrap();
        assert_equal(&found);
        let gtid = two.primary.value("SELECT @@gtid_binlog_pos").unwrap();
        assert_eq!(found.at.gtid, Some(gtid));
    });
    two.assert_follows();
}

#[test]
fn mysql_56_by_position() {
    let primary = MySql56::start(Options::default().tcp()).unwrap();
    let standby = MySql56::start(Options::default().server_id(2)).unwrap();
    primary.sql("CREATE USER repl@'%'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'").unwrap();
    let at = primary.sql("SHOW MASTER STATUS").unwrap();
    standby
        .sql(&format!(
            "CREATE USER repl@'%'; GRANT REPLICATION SLAVE ON *.* TO repl@'%';
             CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', MASTER_CONNECT_RETRY=1,
             MASTER_LOG_FILE='{}', MASTER_LOG_POS={}; START SLAVE",
            primary.port().unwrap(),
            at[0][0],
            at[0][1]
        ))
        .unwrap();
    primary
        .sql(
            "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(30), p POINT);
             CREATE TABLE d.n (a INT); INSERT INTO d.n VALUES (1);
             INSERT INTO d.t (b, p) VALUES ('x', POINT(1,2)),('ž', NULL)",
        )
        .unwrap();
    let (one, other) = (Dsn::socket(primary.socket(), "root"), Dsn::socket(standby.socket(), "root"));
    let compare = |deep| run(&one, &other, deep, &AtomicBool::new(false)).unwrap();
    for deep in [false, true] {
        assert_equal(&compare(deep));
    }
    standby.sql("SET sql_log_bin=0; UPDATE d.t SET b='y' WHERE a=2; DELETE FROM d.n").unwrap();
    let found = compare(false);
    assert_eq!(found.differences.len(), 2, "{found}");
    assert!(found.to_string().contains("`a` = 2: different"), "{found}");
    // And it follows again.
    primary.sql("INSERT INTO d.t (b) VALUES ('z')").unwrap();
    assert_eq!(compare(false).differences.len(), 2);
}
