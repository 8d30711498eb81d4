//! Restore drills of a real server's history, and what becomes of those that are not waited for.

use super::super::drill::{Drill, DrillFault};
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
        in_use: Arc::clone(&world.in_use),
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
    let held = AtomicBool::new(false);
    let (found, fault) = run(&never, &|text| {
        println!("{text}");
        // What it reads is not pruned meanwhile.
        if text.contains("making") {
            held.store(world.in_use.try_write().is_err(), Ordering::Relaxed);
        }
    });
    assert!(held.load(Ordering::Relaxed) && world.in_use.try_write().is_ok());
    let found = found.unwrap_or_else(|| panic!("{fault:?}"));
    println!("{found}");
    load.stop().unwrap();
    let comparison = found.comparison.as_ref().unwrap();
    assert!(found.is_equal() && comparison.unchecked.is_empty(), "{found}");
    assert!(found.recorded > 0 && comparison.tables > 1 && found.base == 1, "{found}");
    assert_eq!(left(directory), [""; 0]);
    // What no archive holds; and the end of a branch that was never prepared there.
    access
        .sql(
            "SET sql_log_bin = 0; UPDATE d.t SET a = 1 WHERE id = 4242; XA START 'u'; DELETE FROM d.t WHERE id = 7; XA END 'u'; \
             XA PREPARE 'u'",
        )
        .unwrap();
    access.sql("XA ROLLBACK 'u'").unwrap();
    world.ship();
    let found = run(&never, &|_| {}).0.unwrap();
    let said = found.to_string();
    assert!(said.contains("NOT WHOLE the changes of XA branch X'75'"), "{said}");
    assert!(
        !found.is_equal() && said.contains("table `d`.`t`") && said.contains("`id` = 4242: different"),
        "{said}"
    );
    assert_eq!(found.comparison.unwrap().differences.len(), 1, "{said}");
    assert_eq!(left(directory), [""; 0]);
    // Withdrawn while it restores.
    let now = AtomicBool::new(false);
    let (found, fault) = run(&now, &|_| now.store(true, Ordering::Relaxed));
    assert!(matches!(&fault, Some(DrillFault::Failed(why)) if why.contains("stopped")), "{fault:?}");
    assert_eq!((found, left(directory)), (None, Vec::new()));
    // A log that goes on from what no log made.
    access.sql("SET sql_log_bin = 0; CREATE TABLE d.unlogged (a INT)").unwrap();
    access.sql("INSERT INTO d.unlogged VALUES (1)").unwrap();
    world.ship();
    let (_, fault) = run(&never, &|_| {});
    assert!(matches!(&fault, Some(DrillFault::Unsound(why)) if why.contains("1146")), "{fault:?}");
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
