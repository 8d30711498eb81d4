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
    let work = Workload::start(&scene.server.access(), Work::maria(seed).pieces(12)).unwrap();
    work.finish().unwrap();
    scene.snapshot();
    let work = Workload::start(&scene.server.access(), Work::maria(seed ^ 1)).unwrap();
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
    // Whoever was killed last: its server may still be starting.
    let runs = || scene.stack.status("backup").is_ok_and(|status| status["standby"]["well"] == true);
    scene.stack.wait("the standby runs again", runs).unwrap();
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
    // It is as empty as the server was when its log began.
    let begin = sql.lines().filter(|line| !line.contains("gtid_slave_pos =")).collect::<Vec<_>>().join("\n");
    standby.sql(&begin).unwrap();
    follows(&scene);
    let both = |access: &Access| sums(access, &["d"]);
    assert_eq!(both(&standby.access()), both(&scene.server.access()));
    // With a restore drill: a base, and what came after it.
    scene.snapshot();
    scene.server.sql("UPDATE d.t SET a = a + 1 WHERE id < 100").unwrap();
    let out = scene.stack.ok("nfs1", &["verify", "--database", "--drill", "--json"]).unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let drill = &report["database"]["drill"];
    // (One may have been taken by itself before.)
    assert_eq!(
        (&report["verdict"], drill["base"].as_u64() >= Some(1)),
        (&"equal".into(), true),
        "{report:#}"
    );
    assert_eq!((&drill["recorded"], &drill["comparison"]["tables"]), (&1.into(), &1.into()), "{report:#}");
    assert_eq!(report["database"]["tables"]["tables"], 1, "{report:#}");

    // One row of the standby's, and one that the primary changed past its log.
    standby.sql("SET sql_log_bin = 0; UPDATE d.t SET a = 1 WHERE id = 4242").unwrap();
    scene.server.sql("SET sql_log_bin = 0; UPDATE d.t SET a = 1 WHERE id = 777").unwrap();
    let (status, out, error) = scene.stack.command("nfs1", &["verify", "--database", "--drill"]).unwrap();
    assert_eq!(status, 1, "{out}{error}");
    let (of_standby, of_drill) = out.split_once("  drill     base ").expect(&out);
    let named = |part: &str, key: u32| {
        part.contains("table `d`.`t`") && part.contains(&format!("`id` = {key}: different"))
    };
    assert!(named(of_standby, 4242) && named(of_standby, 777), "table and keys: {out}");
    assert!(
        named(of_drill, 777) && !of_drill.contains("4242"),
        "what was restored is not the standby: {out}"
    );
    assert_eq!(scene.scratch_servers(), [""; 0]);

    // Withdrawn (Ctrl-C), and with the backup killed: nothing is left.
    let mut asked = scene.stack.begin("nfs1", &["verify", "--database", "--drill"]).unwrap();
    scene.stack.wait("the drill", || scene.scratch_servers().len() == 1).unwrap();
    ehpc_tools::process::signal(asked.id(), "INT").unwrap();
    asked.wait().unwrap();
    scene.stack.wait("an end of the drill", || scene.scratch_servers().is_empty()).unwrap();
    scene.stack.kill_backup().unwrap();
    std::fs::create_dir(scene.stack.database().join("scratch-0badcafe")).unwrap();
    scene.stack.start_backup().unwrap();
    assert_eq!(scene.scratch_servers(), [""; 0]);
    let running = |standby: &Access| {
        let rows = standby.sql("SHOW ALL SLAVES STATUS").unwrap();
        rows[0].iter().filter(|text| *text == "Yes").count() == 2
    };
    scene.stack.wait("the standby goes on", || running(&standby.access())).unwrap();
}
