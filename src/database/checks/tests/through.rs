//! The standby through the backup's answers.

use super::super::remote::{Ask, RemoteStandby};
use super::super::sessions::{Absent, StandbySessions};
use super::*;
use ehpc_proto::replication::database::{DbAnswer, DbQuery};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

fn sessions(dsn: Dsn, note: &Path) -> Arc<StandbySessions> {
    Arc::new(StandbySessions::of_external(Arc::new(move || Ok(dsn.clone())), note.to_owned()))
}

/// A backup that keeps connections to `dsn`, and how often it was asked.
fn backup(dsn: Dsn, note: &Path) -> (Ask, Arc<AtomicUsize>) {
    let sessions = sessions(dsn, note);
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
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("halted");
    let (ask, asked) = backup(Dsn::socket(two.standby.socket(), "root"), &note);
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
    assert!(!note.exists(), "it was started again");
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
    runtime.block_on(async { a_standby_of_ones_own_does_not_stay_stopped(&two, &note).await });
}

/// Whoever has stopped it dies, in this way or that.
async fn a_standby_of_ones_own_does_not_stay_stopped(two: &Two, note: &Path) {
    let begin = || sessions(Dsn::socket(two.standby.socket(), "root"), note);
    let runs =
        || two.standby.sql("SHOW ALL SLAVES STATUS").unwrap()[0].iter().filter(|text| *text == "Yes").count();
    let halt = async |sessions: &StandbySessions| {
        for statement in ["SET SESSION default_master_connection = ''", "STOP SLAVE"] {
            let answer = sessions.statement(7, statement).await;
            assert!(matches!(answer[..], [DbAnswer::Rows { .. }]), "{answer:?}");
        }
        assert!(note.exists() && runs() == 0);
    };
    let follows_again = async |sessions: &StandbySessions| {
        let stop = tokio_util::sync::CancellationToken::new();
        let again = async {
            while note.exists() || runs() != 2 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            stop.cancel();
        };
        let both = async { tokio::join!(sessions.keep_following(stop.clone()), again) };
        tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("it stays stopped");
    };
    // The backup: its next process knows it from the note alone.
    let first = begin();
    halt(&first).await;
    drop(first);
    let second = begin();
    follows_again(&second).await;
    // The connection to nfs1.
    halt(&second).await;
    second.asker_gone();
    follows_again(&second).await;
    // Whoever asked has given up.
    halt(&second).await;
    second.close(7).await;
    follows_again(&second).await;
    // A server that is being started is waited for.
    let (dsn, asked) = (Dsn::socket(two.standby.socket(), "root"), AtomicUsize::new(0));
    let starting = StandbySessions::new(Arc::new(move || match asked.fetch_add(1, Ordering::Relaxed) {
        0..3 => Err(Absent::Yet("soon".to_owned())),
        _ => Ok(dsn.clone()),
    }));
    let answer = starting.statement(8, "SELECT 1").await;
    assert!(matches!(answer[..], [DbAnswer::Rows { .. }]), "{answer:?}");
}

#[test]
fn a_standby_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (ask, _) = backup(Dsn::socket("/nonexistent/sock", "root"), &directory.path().join("halted"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { RemoteStandby::new(ask).connect().await.err().unwrap() });
    assert!(
        error.to_string().contains("the standby on the backup")
            && error.to_string().contains("/nonexistent/sock"),
        "{error}"
    );
}
