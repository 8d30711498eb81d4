//! A stock server on the backup follows the archive, and is proved equal.

use super::{Scene, pause, seed, sums};
use ehpc_tools::bench::tree::Random;
use ehpc_tools::database::{Access, Options, Work, Workload};

const MANAGED: &str = "[database.standby]\nmode = \"managed\"\noptions = [\"--innodb-buffer-pool-size=64M\"]";

fn follows(scene: &Scene) {
    scene
        .stack
        .wait("the standby follows", || {
            scene
                .stack
                .status("backup")
                .is_ok_and(|status| status["standby"]["well"] == true && status["standby"]["lag_ms"] == 0)
        })
        .unwrap();
}

#[test]
fn a_standby_is_built_follows_survives_kills_and_is_equal() {
    let seed = seed();
    let mut random = Random(seed);
    let mut scene = Scene::started(Options::default(), MANAGED);
    let work = Workload::start(&scene.server.access(), Work::maria(seed)).unwrap();
    work.wait_for(40).unwrap();
    scene.snapshot();
    scene.stack.ok("backup", &["db", "standby", "--init"]).unwrap();
    for _ in 0..4 {
        pause(300 + random.number() % 500);
        match random.number() % 3 {
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
        work.wait_for(work.done() + 10).unwrap();
    }
    let verified = scene.stack.ok("nfs1", &["verify", "--database"]);
    println!("{}", verified.unwrap_or_else(|error| panic!("under load: {error:#}")));
    work.stop().unwrap();
    scene.stack.fence().unwrap();
    follows(&scene);
    let socket = scene.stack.database().join("standby/mysqld.sock");
    assert!(socket.exists());
    let report = scene.stack.ok("nfs1", &["verify", "--database", "--json"]).unwrap();
    println!("{report}");
    scene.stack.stop().unwrap();
}

#[test]
fn a_server_of_the_operators_own_follows_and_a_planted_difference_is_found() {
    let scene = Scene::new(Options::default(), "");
    let standby = ehpc_tools::database::Maria::start(Options::default().server_id(9)).unwrap();
    let lines = format!(
        "address = \"{}\"\nuser = \"root\"\n[database.standby]\nmode = \"external\"\naddress = \"{}\"\nuser = \"root\"",
        scene.server.socket().display(),
        standby.socket().display()
    );
    let mut scene = scene;
    scene.stack.configure(&lines).unwrap();
    scene.stack.start().unwrap();
    scene
        .server
        .sql("CREATE DATABASE d; USE d; CREATE TABLE d.t (id INT PRIMARY KEY, a INT); INSERT INTO d.t SELECT seq, seq * 3 FROM seq_1_to_5000")
        .unwrap();
    scene.stack.fence().unwrap();
    let sql = scene.stack.ok("backup", &["db", "standby", "--print-sql"]).unwrap();
    standby.sql(&sql).unwrap();
    follows(&scene);
    let both = |access: &Access| sums(access, &["d"]);
    assert_eq!(both(&standby.access()), both(&scene.server.access()));
    scene.stack.ok("nfs1", &["verify", "--database"]).unwrap();
    standby.sql("SET sql_log_bin = 0; UPDATE d.t SET a = 1 WHERE id = 4242").unwrap();
    let (status, out, error) = scene.stack.command("nfs1", &["verify", "--database"]).unwrap();
    assert_eq!(status, 1, "{out}{error}");
    assert!(out.contains('d') && out.contains("4242"), "table and key: {out}");
}
