//! With `durability = "remote"` a commit that a client saw is on the backup, whatever is killed, in whatever order.

use super::{Scene, full, holds, pause, seed, started_on, waiting};
use ehpc_tools::bench::tree::Random;
use ehpc_tools::database::{Options, Work, Workload};

#[test]
fn every_commit_that_was_seen_is_on_the_backup() {
    let seed = seed();
    let mut random = Random(seed);
    let mut scene = Scene::started(waiting(), "durability = \"remote\"");
    scene.stack.wait("semi-sync holds", || holds(&scene)).unwrap();
    scene.server.sql("CREATE DATABASE work").unwrap();
    scene.snapshot();
    // Without definitions: a server that was killed within one repairs it before it opens its socket, writes that into its
    // log, and waits there for the acknowledgement of a replica that cannot connect yet, for the whole time-out.
    let work = Workload::start(&scene.server.access(), Work::maria(seed).rows_only()).unwrap();
    for kill in 0..if full() { 40 } else { 9 } {
        pause(200 + random.number() % 700);
        let which = random.number() % 3;
        let began = std::time::Instant::now();
        match which {
            0 => {
                scene.stack.kill_nfs1().unwrap();
                scene.stack.start_nfs1().unwrap();
            }
            1 => {
                scene.stack.kill_backup().unwrap();
                scene.stack.start_backup().unwrap();
            }
            _ => {
                scene.server.kill9().unwrap();
                scene.server.restart().unwrap();
            }
        }
        work.wait_for(work.done() + 4).unwrap();
        let what = ["nfs1", "backup", "server"][which as usize];
        let waited = scene.server.sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_no_t%'");
        println!("kill {kill} of {what}: {} pieces, {:?} later; {waited:?}", work.done(), began.elapsed());
    }
    // The end of it: everything dies at once, and only the backup's disk is left.
    let before = work.done();
    work.wait_for(before + 20).unwrap();
    let unprotected =
        scene.stack.status("nfs1").unwrap()["source"]["semi_sync"]["unprotected_commits"].clone();
    assert_eq!(unprotected, 0, "semi-sync must not have fallen back within 30 s\n{}", scene.stack.logs());
    scene.server.kill9().unwrap();
    scene.stack.kill_nfs1().unwrap();
    scene.stack.kill_backup().unwrap();
    scene.stack.start_backup().unwrap();
    let target = scene.path("restored");
    scene
        .stack
        .ok("backup", &["db", "restore", "--at", "latest", "--datadir", target.to_str().unwrap()])
        .unwrap();
    // The workers wait for a server that answers: they end when it is there again.
    let ended_at = work.done();
    scene.server.restart().unwrap();
    let seen = work.stop().unwrap();
    println!("{} pieces seen committed, {ended_at} when everything died", seen.count());
    let restored = started_on(&target);
    let missing = seen.missing_in(&restored.access()).unwrap();
    // What was committed after the server's restart is not in a restore from before it.
    let later = seen.count() as u64 - ended_at;
    assert!(missing.len() as u64 <= later, "lost: {missing:?}\n{}", scene.stack.logs());
}

#[test]
fn a_backup_that_is_away_lets_commits_through_loudly_and_recovers_by_itself() {
    let options = Options::default()
        .with("--rpl-semi-sync-master-enabled=1")
        .with("--rpl-semi-sync-master-timeout=1000")
        .with("--rpl-semi-sync-master-wait-point=AFTER_SYNC");
    let mut scene = Scene::started(options, "durability = \"remote\"");
    scene.stack.wait("semi-sync holds", || holds(&scene)).unwrap();
    scene.stack.kill_backup().unwrap();
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT)").unwrap();
    scene.stack.wait("it says that it fell back", || !holds(&scene)).unwrap();
    let (status, out, _) = scene.stack.command("nfs1", &["db", "status"]).unwrap();
    assert!(status == 1 && out.contains("commits do not wait for the backup's disk"), "{out}");
    scene.stack.start_backup().unwrap();
    scene.stack.wait("semi-sync holds again", || holds(&scene)).unwrap();
    scene.assert_archive_equal();
}
