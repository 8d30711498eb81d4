//! Restore drills of a real server's history, and what becomes of those that are not waited for.

use super::super::drill::{Drill, DrillReport};
use super::super::drills::{DrillParts, Drills};
use super::super::remote::Ask;
use crate::database::server::Tools;
use crate::database::sql::Dsn;
use crate::database::standby::tests::World;
use ehpc_proto::replication::database::{DbAnswer, DbQuery, DrillState, DrillStep};
use ehpc_tools::database::{Work, Workload};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

fn ask(drills: &Arc<Drills>) -> Ask {
    let drills = Arc::clone(drills);
    Arc::new(move |query| {
        let drills = Arc::clone(&drills);
        Box::pin(async move { Ok(drills.answer(&query).await.unwrap()) })
    })
}

/// Scratch servers that are there.
fn left(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("scratch-"))
        .collect()
}

#[test]
fn a_drill_is_equal_or_names_what_differs_and_leaves_nothing() {
    let world = World::new();
    let access = world.primary.access();
    access
        .sql(
            "CREATE DATABASE d; USE d; CREATE TABLE d.t (id INT PRIMARY KEY, a INT); INSERT INTO d.t SELECT seq, seq * 3 FROM \
             seq_1_to_5000; CREATE USER app@'web1.example' IDENTIFIED BY 'x'; GRANT SELECT ON d.* TO app@'web1.example'",
        )
        .unwrap();
    world.ship();
    world.base();
    let load = Workload::start(&access, Work::maria(5).rows_only()).unwrap();
    load.wait_for(20).unwrap();
    let directory = world.directory.path();
    let parts = DrillParts {
        archive: Arc::clone(&world.archive),
        bases: Arc::clone(&world.bases),
        tools: Tools::default(),
        upstream: world.upstream(),
        directory: directory.to_owned(),
    };
    let stop = CancellationToken::new();
    let drills = Arc::new(Drills::new(parts, stop.clone()));
    let ask = ask(&drills);
    let primary = Dsn::socket(world.primary.socket(), "root");
    let run = |stop: &AtomicBool, tell: &(dyn Fn(String) + Send + Sync)| {
        let drill = Drill { primary: &primary, ask: &ask, deep: false, progress: &|_| {}, tell, stop };
        world.runtime.block_on(drill.run())
    };
    let never = AtomicBool::new(false);
    // Under load.
    let found: DrillReport = run(&never, &|text| println!("{text}")).unwrap();
    println!("{found}");
    load.stop().unwrap();
    assert!(found.is_equal() && found.comparison.unchecked.is_empty(), "{found}");
    assert!(found.recorded > 0 && found.comparison.tables > 1 && found.base == 1, "{found}");
    assert_eq!(left(directory), [""; 0]);
    // What no archive holds.
    access.sql("SET sql_log_bin = 0; UPDATE d.t SET a = 1 WHERE id = 4242").unwrap();
    let found = run(&never, &|_| {}).unwrap();
    let said = found.to_string();
    assert!(
        !found.is_equal() && said.contains("table `d`.`t`") && said.contains("`id` = 4242: different"),
        "{said}"
    );
    assert_eq!(found.comparison.differences.len(), 1, "{said}");
    assert_eq!(left(directory), [""; 0]);
    // Withdrawn while it restores.
    let now = AtomicBool::new(false);
    let error = run(&now, &|_| now.store(true, Ordering::Relaxed)).unwrap_err();
    assert!(error.contains("stopped"), "{error}");
    assert_eq!(left(directory), [""; 0]);
    // One at a time; and the end of the backup is that of its drill.
    let step = |drill, step| {
        let answer = world.runtime.block_on(ask(DbQuery::Drill { drill, step })).unwrap();
        let [DbAnswer::Drill(state)] = &answer[..] else { panic!("{answer:?}") };
        state.clone()
    };
    assert!(matches!(step(1, DrillStep::Begin), DrillState::Working(_)));
    assert!(matches!(step(2, DrillStep::Begin), DrillState::Failed(why) if why.contains("another")));
    assert_eq!(step(2, DrillStep::Look), DrillState::Ended);
    stop.cancel();
    world.runtime.block_on(drills.stopped());
    assert_eq!((step(1, DrillStep::Look), left(directory)), (DrillState::Ended, Vec::new()));
}
