//! The standby through the backup's answers.

use super::super::remote::{Ask, RemoteStandby, StandbySessions};
use super::*;
use ehpc_proto::replication::database::DbQuery;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A backup that keeps connections to `dsn`, and how often it was asked.
fn backup(dsn: Dsn) -> (Ask, Arc<AtomicUsize>) {
    let sessions = Arc::new(StandbySessions::new(Arc::new(move || Ok(dsn.clone()))));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ask: Ask = Arc::new(move |query| {
        count.fetch_add(1, Ordering::Relaxed);
        let sessions = Arc::clone(&sessions);
        Box::pin(async move {
            Ok(match query {
                DbQuery::StandbySql { session, statement } => sessions.statement(session, &statement).await,
                DbQuery::StandbyClose { session } => sessions.close(session).await,
                other => panic!("{other:?}"),
            })
        })
    });
    (ask, asked)
}

#[test]
fn a_standby_is_compared_through_the_backup() {
    let two = Two::start();
    two.primary
        .sql(
            "CREATE DATABASE d; USE d; CREATE TABLE t (a INT PRIMARY KEY, b LONGBLOB);
             INSERT INTO t SELECT seq, MD5(seq) FROM seq_1_to_60000; CREATE VIEW v AS SELECT * FROM t",
        )
        .unwrap();
    two.catch_up();
    let (ask, asked) = backup(Dsn::socket(two.standby.socket(), "root"));
    let primary = Dsn::socket(two.primary.socket(), "root");
    let standby = RemoteStandby::new(ask);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |deep| {
        let stop = AtomicBool::new(false);
        let compare = Compare { primary: &primary, standby: &standby, deep, progress: &|_| {}, stop: &stop };
        runtime.block_on(compare.run()).unwrap()
    };
    assert_equal(&run(true));
    assert!(asked.load(Ordering::Relaxed) > 20);
    two.plant("UPDATE d.t SET b = NULL WHERE a % 2 = 0 AND a < 40000");
    let found = run(false);
    let [Difference { way: Way::Rows(differ), .. }] = found.differences.as_slice() else { panic!("{found}") };
    assert_eq!((differ.ranges.len(), differ.ranges[0].differing), (1, Some(19_999)), "{found}");
    two.assert_follows();
    // Connections are given back.
    let left =
        || two.standby.sql("SHOW PROCESSLIST").unwrap().iter().filter(|row| row[1] == "root").count() <= 1;
    runtime.block_on(async {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !left() {
            assert!(std::time::Instant::now() < end, "connections to the standby are left open");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_standby_that_is_not_there_is_named() {
    let (ask, _) = backup(Dsn::socket("/nonexistent/sock", "root"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { RemoteStandby::new(ask).connect().await.err().unwrap() });
    assert!(
        error.to_string().contains("the standby on the backup")
            && error.to_string().contains("/nonexistent/sock"),
        "{error}"
    );
}
