//! What a restore goes over on its way through the archive, and what ends it there.

use super::*;

#[test]
fn a_failover_is_crossed_and_nothing_is_applied_twice() {
    let directory = tempfile::tempdir().unwrap();
    let bases = BaseStore::open(&directory.path().join("base"), 7).unwrap();
    let server = Maria::start(Options::default().tcp()).unwrap();
    let mut world =
        World { runtime: Runtime::new().unwrap(), directory, server, bases, tools: Tools::default() };
    let access = world.server.access();
    access.sql("CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'; CREATE DATABASE a; CREATE TABLE a.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)").unwrap();
    let heir = Maria::start(Options::default().server_id(2).with("--log-slave-updates=1")).unwrap();
    let port = world.server.port().unwrap();
    heir.sql(&format!("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', MASTER_PASSWORD='pw', MASTER_USE_GTID=slave_pos; START SLAVE")).unwrap();
    access.sql("INSERT INTO a.t (n) VALUES (1); UPDATE a.t SET n = n + 10").unwrap();
    world.base();
    access.sql("UPDATE a.t SET n = n + 100; INSERT INTO a.t (n) VALUES (2); FLUSH BINARY LOGS; UPDATE a.t SET n = n + 1000").unwrap();
    let gtid = world.server.value("SELECT @@gtid_binlog_pos").unwrap();
    let level = || heir.value("SELECT @@gtid_slave_pos").unwrap() == gtid;
    ehpc_tools::process::wait_until("a level heir", std::time::Duration::from_secs(30), level).unwrap();
    let status = world.server.sql("SHOW MASTER STATUS").unwrap();
    let end = Place { lineage: 1, file: 2, offset: status[0][1].parse().unwrap() };
    // The first that is not left out for having been applied is the end of a branch that nothing prepared.
    heir.sql("STOP SLAVE; RESET SLAVE ALL").unwrap();
    branches::unlogged(&heir, "u", "INSERT INTO a.t (n) VALUES (77)");
    heir.sql(
        "XA ROLLBACK 'u'; UPDATE a.t SET n = n + 10000; FLUSH BINARY LOGS; INSERT INTO a.t (n) VALUES (3)",
    )
    .unwrap();
    let database = world.directory.path().join("database");
    lay(&database, 1, &world.server, None);
    lay(&database, 2, &heir, Some(Joined { end, gtid }));
    world.server.kill9().unwrap();
    let (archive, _) = Archive::open(&database, archive::Options::default()).unwrap();
    let datadir = world.datadir();
    let options = world.options(RestoreMoment::At(Target::Latest), RestoreTarget::Datadir(datadir.clone()));
    let restored = world.run(&archive, &options).unwrap();
    assert_eq!((restored.place.lineage, restored.place.file, restored.equal), (2, 2, Some(true)));
    assert_eq!(restored.unlogged_branches, ["X'75',X'',1"]);
    let server = serve(&world, &datadir);
    let rows = "SELECT * FROM a.t";
    assert_eq!(Access::at(server.socket()).sql(rows).unwrap(), heir.sql(rows).unwrap());
    world.runtime.block_on(server.stop()).unwrap();
}

#[test]
fn what_is_missing_or_rotten_on_the_way_ends_a_restore() {
    let world = World::new();
    world.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b VARCHAR(200))").unwrap();
    let gtid = world.server.value("SELECT @@gtid_binlog_pos").unwrap();
    world.server.sql("FLUSH BINARY LOGS").unwrap();
    let base = world.base();
    for row in 1..4 {
        let text = "x".repeat(150);
        world.server.sql(&format!("INSERT INTO d.t VALUES ({row}, '{text}'); FLUSH BINARY LOGS")).unwrap();
    }
    let restore = |archive: &Arc<Archive>| {
        let target = RestoreTarget::Datadir(world.datadir());
        world.run(archive, &world.options(RestoreMoment::At(Target::Latest), target)).map(drop)
    };
    let lineage = world.directory.path().join("database/0001");
    let archive = world.archive();
    // A moment at the end of a file, of which the first base is, in the next file.
    let target = RestoreTarget::Datadir(world.datadir());
    let restored = world.run(&archive, &world.options(RestoreMoment::Gtid(gtid), target)).unwrap();
    assert_eq!((restored.base, restored.replayed_bytes, restored.equal), (base.number, 0, Some(true)));
    drop(archive);
    std::fs::remove_file(lineage.join("bin.000003")).unwrap();
    let open =
        || Archive::open(&world.directory.path().join("database"), archive::Options::default()).unwrap().0;
    let error = restore(&open()).unwrap_err().to_string();
    assert!(error.contains("binary log 3 of lineage 1") && error.contains("it is gone"), "{error}");
    let archive = world.archive();
    let mut bytes = std::fs::read(lineage.join("bin.000003")).unwrap();
    let at = bytes.windows(9).position(|part| part == b"xxxxxxxxx").unwrap();
    bytes[at] = b'y';
    std::fs::write(lineage.join("bin.000003"), bytes).unwrap();
    let error = restore(&archive).unwrap_err().to_string();
    assert!(error.to_lowercase().contains("crc"), "{error}");
    // What is known is said before anything begins.
    assert_eq!(archive.check(1, 3, &|| false).unwrap().len(), 1);
    let error = restore(&archive).unwrap_err().to_string();
    assert!(error.contains("binary log 3 of lineage 1") && error.contains("--repair"), "{error}");
    // What comes before it in the same file is restored.
    let first = RestoreMoment::Position { file: "bin.000003".to_owned(), offset: 4 };
    world.run(&archive, &world.options(first, RestoreTarget::Datadir(world.datadir()))).unwrap();
    drop(archive);
    // Without the file in which the base was taken nothing is said but that.
    std::fs::remove_file(lineage.join("bin.000002")).unwrap();
    let error = restore(&open()).unwrap_err().to_string();
    assert!(error.contains("bin.000002 in the archive is damaged: it is gone"), "{error}");
    // Where events have no checksums only the seal tells.
    world.server.sql("SET GLOBAL binlog_checksum = NONE").unwrap();
    world.server.sql("INSERT INTO d.t VALUES (9, REPEAT('z', 150)); FLUSH BINARY LOGS").unwrap();
    let archive = world.archive();
    let file = archive.files().into_iter().rev().nth(1).unwrap();
    assert!(!archive.has_checksums(1, file.ordinal).unwrap() && archive.has_checksums(1, 1).unwrap());
    archive.maintain(&|| false).unwrap();
    let path = lineage.join(&file.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|part| part == b"zzzzzzzzz").unwrap();
    bytes[at] = b'y';
    std::fs::write(&path, &bytes).unwrap();
    let error = restore(&archive).unwrap_err().to_string();
    assert!(error.contains(&format!("binary log {} of", file.ordinal)), "{error}");
    assert!(error.contains("not those that were sealed"), "{error}");
    bytes[at] = b'z';
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(archive.check(1, file.ordinal, &|| false).unwrap(), []);
    restore(&archive).unwrap();
}
