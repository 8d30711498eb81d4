//! Restores of real servers' histories: base and binary logs, to transactions chosen by lot.

mod branches;
mod ways;

use super::*;
use crate::database::archive::{self, Archive, Target};
use crate::database::base::{BaseRecord, BaseStore, StoreSink, Sums, TableSum, TakeOptions, take};
use crate::database::dsn::Dsn;
use crate::database::server::{Mysqld, MysqldOptions, Role, Tool, Tools};
use ehpc_proto::binlog::Flavor;
use ehpc_proto::replication::database::{Joined, Lineage, Place};
use ehpc_tools::database::{Access, Maria, Options, Work, Workload};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Runtime;

/// A server, its bases, and its binary logs as an archive.
struct World {
    runtime: Runtime,
    directory: tempfile::TempDir,
    server: Maria,
    bases: BaseStore,
    tools: Tools,
}

impl World {
    fn with_tools(mut self, tools: Tools) -> World {
        self.tools = tools;
        self
    }

    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let bases = BaseStore::open(&directory.path().join("base"), 7).unwrap();
        let server = Maria::start(Options::default()).unwrap();
        World { runtime: Runtime::new().unwrap(), directory, server, bases, tools: Tools::default() }
    }

    fn base(&self) -> BaseRecord {
        let options = TakeOptions::new(Dsn::socket(self.server.socket(), "root"), self.tools.clone(), 1);
        let never = AtomicBool::new(false);
        take(&options, self.runtime.handle(), &mut StoreSink::new(self.bases.store()), &|_| (), &never)
            .unwrap()
    }

    /// The server's binary logs as they are now.
    fn archive(&self) -> Arc<Archive> {
        let directory = self.directory.path().join("database");
        let _ = std::fs::remove_dir_all(&directory);
        lay(&directory, 1, &self.server, None);
        Archive::open(&directory, archive::Options::default()).unwrap().0
    }

    fn run(&self, archive: &Arc<Archive>, options: &RestoreOptions) -> Result<Restored, RestoreError> {
        let runtime = self.runtime.handle();
        let vault = Vault { archive, bases: &self.bases, tools: &self.tools, runtime };
        run(&vault, options, &|_| (), &AtomicBool::new(false))
    }

    fn options(&self, moment: RestoreMoment, target: RestoreTarget) -> RestoreOptions {
        RestoreOptions {
            moment,
            target,
            only: None,
            as_table: None,
            overwrite: false,
            keep_running: false,
            scratch: self.directory.path().to_owned(),
        }
    }

    fn datadir(&self) -> PathBuf {
        self.directory.path().join(format!("restored-{}", rand::random::<u16>()))
    }
}

/// Writes the binary logs of a server as a lineage of an archive.
fn lay(directory: &Path, number: u32, server: &Maria, joined: Option<Joined>) {
    let folder = directory.join(format!("{number:04}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut names = String::new();
    let mut first_event = [0; 19];
    for (name, bytes) in server.archived_binlogs().unwrap() {
        if names.is_empty() {
            first_event.copy_from_slice(&bytes[4..23]);
        }
        std::fs::write(folder.join(&name), bytes).unwrap();
        names += &format!("{name}\n");
    }
    std::fs::write(folder.join("files"), names).unwrap();
    let lineage = Lineage {
        number,
        flavor: Flavor::MariaDb,
        server_id: server.value("SELECT @@server_id").unwrap().parse().unwrap(),
        server_uuid: None,
        version: "10.11".to_owned(),
        first_file: "bin.000001".to_owned(),
        first_event,
    };
    let record = archive::LineageRecord { lineage, joined };
    std::fs::write(folder.join("lineage.json"), serde_json::to_string(&record).unwrap() + "\n").unwrap();
}

/// Checksums of all tables but the sequences, and every sequence's next value.
fn contents(server: &Access) -> Vec<Vec<String>> {
    let tables = server
        .sql(
            "SELECT CONCAT('CHECKSUM TABLE `', TABLE_SCHEMA, '`.`', TABLE_NAME, '`;') FROM information_schema.TABLES WHERE \
             TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') AND TABLE_TYPE NOT IN ('VIEW', \
             'SEQUENCE') ORDER BY 1; SELECT CONCAT('SELECT \\'', TABLE_NAME, '\\', next_not_cached_value FROM `', TABLE_SCHEMA, '`.`', \
             TABLE_NAME, '`;') FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE' ORDER BY 1; SELECT CONCAT('SHOW CREATE \
             VIEW `', TABLE_SCHEMA, '`.`', TABLE_NAME, '`;') FROM information_schema.VIEWS WHERE TABLE_SCHEMA <> 'sys' ORDER BY 1",
        )
        .unwrap();
    let ask: String = tables.into_iter().map(|row| row[0].clone() + "\n").collect();
    let users = "SELECT User, Host, authentication_string FROM mysql.user WHERE User NOT IN ('ehpc_standby', 'root', 'mysql', 'mariadb.sys') ORDER BY 1, 2;";
    server.sql(&(ask + users)).unwrap()
}

/// A restored data directory, in a server.
fn serve(world: &World, datadir: &Path) -> Mysqld {
    let options = MysqldOptions {
        datadir: datadir.to_owned(),
        role: Role::Scratch,
        server_id: 9,
        flavor: Flavor::MariaDb,
        socket: None,
        arguments: vec!["--skip-grant-tables".to_owned()],
    };
    world.runtime.block_on(Mysqld::start(options, &world.tools)).unwrap()
}

#[test]
fn any_transaction_under_load_comes_back_exactly() {
    let mut world = World::new();
    let seed = rand::random::<u16>();
    println!("seed {seed}");
    let access = world.server.access();
    access.sql("CREATE DATABASE state; CREATE TABLE state.t (n INT PRIMARY KEY, x VARCHAR(20)); CREATE TABLE state.xa (n INT PRIMARY KEY)").unwrap();
    // Prepared before the base, ended after it; the rows of one are never seen.
    for n in 1..=3 {
        access.sql(&format!("XA START 'held-{n}'; INSERT INTO state.xa VALUES ({n}); XA END 'held-{n}'; XA PREPARE 'held-{n}'")).unwrap();
    }
    access.sql("XA COMMIT 'held-1'").unwrap();
    Workload::start(&access, Work::maria(u64::from(seed) + 1).pieces(30)).unwrap().finish().unwrap();
    let load = Workload::start(&access, Work::maria(u64::from(seed)).rows_only()).unwrap();
    load.wait_for(20).unwrap();
    let base = world.base();
    let mut seen = vec![load.stop().unwrap()];
    let load = Workload::start(&access, Work::maria(u64::from(seed) + 2)).unwrap();
    assert!(base.prepared.len() >= 2 && base.sums.is_some());
    access.sql("XA COMMIT 'held-2'").unwrap();
    // What each transaction left.
    let mut states = Vec::new();
    let mut client = access.connect().unwrap();
    for n in 1..=40 {
        let row = client.run(&format!("INSERT INTO state.t VALUES ({n}, 'x'); SELECT @@last_gtid;")).unwrap();
        states.push((n, row[0][0].clone()));
        if n == 20 {
            access.sql("FLUSH BINARY LOGS").unwrap();
        }
    }
    drop(client);
    load.wait_for(load.done() + 40).unwrap();
    seen.push(load.stop().unwrap());
    world.server.kill9().unwrap();
    world.server.restart().unwrap();
    access.sql("CREATE USER late@localhost IDENTIFIED BY 'pw'; INSERT INTO state.t VALUES (41, 'after the crash')").unwrap();
    let archive = world.archive();

    for (n, gtid) in [&states[0], &states[usize::from(seed) % 40], &states[39]] {
        let target = RestoreTarget::Datadir(world.datadir());
        let mut options = world.options(RestoreMoment::Gtid(gtid.clone()), target);
        options.keep_running = true;
        let restored = world.run(&archive, &options).unwrap();
        assert_eq!((restored.base, restored.equal), (base.number, Some(true)), "{:?}", restored.differences);
        assert!(restored.compared > 10);
        let server = restored.server.unwrap();
        let sql = |text: &str| {
            let ask = async { crate::database::sql::Sql::connect(&server.dsn()).await?.text(text).await };
            world.runtime.block_on(ask).unwrap().unwrap()
        };
        assert_eq!(sql("SELECT CONCAT(COUNT(*), ' ', MAX(n)) FROM state.t"), format!("{n} {n}"));
        assert_eq!(sql("SELECT GROUP_CONCAT(n ORDER BY n) FROM state.xa"), "1,2");
        assert!(
            restored.prepared.iter().any(|branch| branch.starts_with("x'68656c642d33'")),
            "{:?}",
            restored.prepared
        );
        world.runtime.block_on(server.discard());
    }

    // The newest moment is what the server holds; nothing that was seen committed is missing.
    let datadir = world.datadir();
    let options = world.options(RestoreMoment::At(Target::Latest), RestoreTarget::Datadir(datadir.clone()));
    let restored = world.run(&archive, &options).unwrap();
    assert_eq!(restored.gtid, world.server.value("SELECT @@gtid_binlog_pos").unwrap());
    let server = serve(&world, &datadir);
    let there = Access::at(server.socket());
    for seen in seen {
        assert_eq!(seen.missing_in(&there).unwrap(), []);
    }
    assert_eq!(contents(&there), contents(&access));
    world.runtime.block_on(server.stop()).unwrap();
}

#[test]
fn a_server_is_restored_into_and_only_when_it_may_be() {
    let world = World::new();
    let access = world.server.access();
    access.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, t TEXT); INSERT INTO shop.orders VALUES (1, 'first'); CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'another'; CREATE USER admin@'10.1.1.1' IDENTIFIED BY 'x'; GRANT ALL ON shop.* TO admin@'127.0.0.1'; CREATE USER web@'%'; GRANT PROXY ON admin@'10.1.1.1' TO web@'%'; CREATE ROLE keeper").unwrap();
    let base = world.base();
    access.sql("INSERT INTO shop.orders VALUES (2, 'second')").unwrap();
    // Of the account that will work.
    access.sql("ALTER USER admin@'127.0.0.1' IDENTIFIED BY 'locked out' REQUIRE SSL ACCOUNT LOCK; REVOKE ALL PRIVILEGES, GRANT OPTION FROM admin@'127.0.0.1'; DROP ROLE keeper").unwrap();
    let gtid = world.server.value("SELECT @@gtid_binlog_pos").unwrap();
    access.sql("DROP USER admin@'127.0.0.1'").unwrap();
    access.sql("BEGIN; INSERT INTO shop.orders VALUES (3, 'third'); INSERT INTO shop.orders VALUES (4, 'fourth'); COMMIT").unwrap();
    let status = world.server.sql("SHOW MASTER STATUS").unwrap();
    let (file, end): (String, u64) = (status[0][0].clone(), status[0][1].parse().unwrap());
    access.sql("DROP TABLE shop.orders").unwrap();
    let archive = world.archive();
    let other = Maria::start(Options::default().server_id(2).tcp().with("--event-scheduler=ON")).unwrap();
    // The account that works there has another password than that of the source.
    other.sql("CREATE DATABASE mine; CREATE TABLE mine.t (i INT); CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'mine'; GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION").unwrap();
    let account = other.sql("SHOW CREATE USER admin@'127.0.0.1'; SHOW GRANTS FOR admin@'127.0.0.1'").unwrap();
    // What it also has, and cannot have at that moment.
    other.sql("CREATE ROLE keeper; GRANT keeper TO admin@'127.0.0.1' WITH ADMIN OPTION").unwrap();
    let admin = format!("mysql://admin:mine@127.0.0.1:{}/", other.port().unwrap());
    let target = RestoreTarget::Server(Dsn::parse(&admin).unwrap());
    let mut options = world.options(RestoreMoment::Gtid(gtid), target.clone());
    let error = world.run(&archive, &options).unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }) && error.to_string().contains("mine"), "{error}");
    options.overwrite = true;
    // What is missing is noticed before anything is dropped.
    let tools = world.directory.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let client = world.tools.find(Tool::Client, Flavor::MariaDb).unwrap().path;
    std::os::unix::fs::symlink(client, tools.join("mariadb")).unwrap();
    let world = world.with_tools(Tools::new(Some(tools)));
    let error = world.run(&archive, &options).unwrap_err().to_string();
    assert!(error.contains("mariadb-binlog"), "{error}");
    let world = world.with_tools(Tools::default());
    assert_eq!(other.value("SELECT COUNT(*) FROM mine.t").unwrap(), "0");
    // What fails half-way leaves no switch off.
    std::fs::write(other.datadir().join("mine/foreign"), "not the server's").unwrap();
    let error = world.run(&archive, &options).unwrap_err().to_string();
    assert!(error.contains("mine"), "{error}");
    assert_eq!(other.value("SELECT @@event_scheduler").unwrap(), "ON");
    std::fs::remove_file(other.datadir().join("mine/foreign")).unwrap();
    options.overwrite = true;
    let restored = world.run(&archive, &options).unwrap();
    assert_eq!((restored.equal, restored.prepared.len()), (Some(true), 0));
    let left_out = restored.left_out.iter().any(|line| line.contains("`admin`@`10.1.1.1` TO `web`@`%`"));
    assert!(left_out, "{:?}", restored.left_out);
    let role = restored.left_out.iter().any(|line| line.starts_with("GRANT `keeper` TO `admin`@`127.0.0.1`"));
    assert!(role, "{:?}", restored.left_out);
    let now = other.sql("SHOW CREATE USER admin@'127.0.0.1'; SHOW GRANTS FOR admin@'127.0.0.1'").unwrap();
    assert_eq!(now, account);
    assert_eq!(other.sql("SELECT * FROM shop.orders").unwrap(), [["1", "first"], ["2", "second"]]);
    assert_eq!(other.value("SELECT @@event_scheduler").unwrap(), "ON");
    let left = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'mine'; SELECT COUNT(*) FROM mysql.user WHERE User = 'admin'";
    assert_eq!(other.sql(left).unwrap(), [["0"], ["2"]]);
    // Another series stores rows in its own way, so their sums say nothing.
    let there = other.sql("SELECT COUNT(*) FROM shop.orders").unwrap()[0][0].parse().unwrap();
    let sum = |rows| TableSum { schema: "shop".to_owned(), name: "orders".to_owned(), rows, checksum: 1 };
    let compare = |version: &str, rows| {
        let record = BaseRecord { version: version.to_owned(), ..base.clone() };
        let sums = Sums { tables: vec![sum(rows)], ..Sums::default() };
        let dsn = Dsn::socket(other.socket(), "root");
        let never = AtomicBool::new(false);
        let compared = compare::compare(&dsn, &record, &sums, &never);
        let compared = world.runtime.block_on(compared).unwrap();
        (compared.differences.len(), compared.rows_only.is_some())
    };
    assert_eq!(
        [compare("10.5.1-MariaDB", there), compare("10.5.1-MariaDB", there + 1)],
        [(0, true), (1, true)]
    );
    assert_eq!(compare(&base.version, there), (1, false));
    // A stop does not wait for a checksum, and leaves none behind.
    let mut locked = other.access().connect().unwrap();
    locked.run("LOCK TABLES shop.orders WRITE; SELECT 1;").unwrap();
    let running = || {
        let ask = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CHECKSUM TABLE %'";
        other.value(ask).unwrap()
    };
    let until = |what, is: &dyn Fn() -> bool| {
        ehpc_tools::process::wait_until(what, std::time::Duration::from_secs(20), is).unwrap();
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("a checksum", &|| running() == "1");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let sums = Sums { tables: vec![sum(1)], ..Sums::default() };
        let dsn = Dsn::socket(other.socket(), "root");
        let compared = world.runtime.block_on(compare::compare(&dsn, &base, &sums, &stop));
        assert!(matches!(compared, Err(RestoreError::Stopped)), "{compared:?}");
    });
    until("the end of the checksum", &|| running() == "0");
    drop(locked);
    // The end of a transaction, and the middle of it.
    options.moment = RestoreMoment::Position { file: file.clone(), offset: end };
    world.run(&archive, &options).unwrap();
    assert_eq!(other.value("SELECT COUNT(*) FROM shop.orders").unwrap(), "4");
    options.moment = RestoreMoment::Position { file, offset: end - 31 };
    let error = world.run(&archive, &options).unwrap_err();
    assert!(matches!(error, RestoreError::Archive(_)), "{error}");
    options.moment = RestoreMoment::Gtid("0-1-99999".to_owned());
    world.run(&archive, &options).unwrap_err();
    options.moment = RestoreMoment::Gtid("yesterday".to_owned());
    assert!(matches!(world.run(&archive, &options).unwrap_err(), RestoreError::Gtid(_)));
    options.moment = RestoreMoment::Position { file: "bin.000001".to_owned(), offset: 4 };
    let error = world.run(&archive, &options).unwrap_err();
    assert!(matches!(error, RestoreError::NoBase { .. }), "{error}");
}

#[test]
fn a_base_whose_beginning_is_not_archived_is_not_restored() {
    let world = World::new();
    let access = world.server.access();
    access.sql("CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY)").unwrap();
    // The log goes on to other files between the look at what is prepared and the snapshot.
    let done = AtomicBool::new(false);
    let base = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                access.sql("FLUSH BINARY LOGS").unwrap();
            }
        });
        let base = world.base();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        base
    });
    assert_ne!(base.before.file, base.place.file);
    access.sql("INSERT INTO a.t VALUES (1)").unwrap();
    let directory = world.directory.path().join("database");
    lay(&directory, 1, &world.server, None);
    let folder = directory.join("0001");
    let names = std::fs::read_to_string(folder.join("files")).unwrap();
    let (gone, kept): (Vec<&str>, Vec<&str>) =
        names.lines().partition(|name| *name <= base.before.file.as_str());
    gone.iter().for_each(|name| std::fs::remove_file(folder.join(name)).unwrap());
    std::fs::write(folder.join("files"), kept.join("\n") + "\n").unwrap();
    let (archive, _) = Archive::open(&directory, archive::Options::default()).unwrap();
    let datadir = world.datadir();
    let options = world.options(RestoreMoment::At(Target::Latest), RestoreTarget::Datadir(datadir.clone()));
    let error = world.run(&archive, &options).unwrap_err();
    assert!(matches!(error, RestoreError::LostBefore { .. }), "{error}");
    assert!(!datadir.exists());
}

#[test]
fn a_dropped_table_comes_back_without_the_rest() {
    let world = World::new();
    let access = world.server.access();
    access
        .sql(
            "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, t TEXT); CREATE TABLE shop.other (id INT); INSERT INTO \
             shop.orders VALUES (1, 'first'); CREATE TRIGGER shop.tr BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.t = \
             CONCAT(NEW.t, '!')",
        )
        .unwrap();
    world.base();
    access.sql("INSERT INTO shop.orders VALUES (2, 'second')").unwrap();
    access
        .sql("XA START 'held'; INSERT INTO shop.other VALUES (8); XA END 'held'; XA PREPARE 'held'")
        .unwrap();
    let gtid = world.server.value("SELECT @@gtid_binlog_pos").unwrap();
    access.sql("XA ROLLBACK 'held'").unwrap();
    access.sql("DROP TABLE shop.orders; INSERT INTO shop.other VALUES (7)").unwrap();
    let archive = world.archive();
    let target = RestoreTarget::Server(Dsn::socket(world.server.socket(), "root"));
    let mut options = world.options(RestoreMoment::Gtid(gtid), target);
    options.only = Some("shop.orders".to_owned());
    // Branches of the scratch server are nobody's any more.
    assert_eq!(world.run(&archive, &options).unwrap().prepared, [""; 0]);
    let rows = [["1", "first"], ["2", "second!"]];
    assert_eq!(access.sql("SELECT * FROM shop.orders").unwrap(), rows);
    assert_eq!(access.sql("SELECT * FROM shop.other; SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop'").unwrap(), [["7"], ["tr"]]);
    let error = world.run(&archive, &options).unwrap_err();
    assert!(matches!(error, RestoreError::TableExists { .. }), "{error}");
    options.as_table = Some("attic.old orders".to_owned());
    world.run(&archive, &options).unwrap();
    assert_eq!(access.sql("SELECT * FROM attic.`old orders`").unwrap(), rows);
    (options.only, options.as_table) = (Some("shop.nothing".to_owned()), None);
    let error = world.run(&archive, &options).unwrap_err().to_string();
    assert!(error.contains("shop.nothing") && error.contains("orders, other"), "{error}");
    options.target = RestoreTarget::Datadir(world.datadir());
    assert!(matches!(world.run(&archive, &options).unwrap_err(), RestoreError::OnlyNeedsServer));
    // No scratch server is left behind.
    let left = std::fs::read_dir(world.directory.path()).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("scratch")));
}
