//! Bases of real servers: what is in them, what the second one costs, and the traps on the way.

use super::*;
use crate::database::dsn::{Dsn, Password};
use crate::database::server::{Client, Flavor, LoadOptions, Tool, Tools};
use bytes::Bytes;
use ehpc_proto::replication::message::Blob;
use ehpc_proto::replication::{Hash, Position};
use ehpc_tools::database::{Access, Maria, MySql56, Options, Work, Workload};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A sink that does something the first time that it is asked.
struct Hooked<'a> {
    inner: StoreSink,
    hook: Option<Box<dyn FnOnce() + Send + 'a>>,
}

impl BaseSink for Hooked<'_> {
    fn position(&self) -> Position {
        self.inner.position()
    }

    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, String> {
        if let Some(hook) = self.hook.take() {
            hook();
        }
        self.inner.lacking(hashes)
    }

    fn blobs(&mut self, blobs: Vec<Blob>) -> Result<(), String> {
        self.inner.blobs(blobs)
    }

    fn commit(&mut self, number: u64, encoded: Bytes) -> Result<(), String> {
        self.inner.commit(number, encoded)
    }
}

struct World {
    runtime: Runtime,
    directory: tempfile::TempDir,
    bases: BaseStore,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let bases = BaseStore::open(&directory.path().join("base"), 7).unwrap();
        World { runtime: Runtime::new().unwrap(), directory, bases }
    }

    fn options(&self, socket: &Path) -> TakeOptions {
        let mut options = TakeOptions::new(Dsn::socket(socket, "root"), Tools::default(), 1);
        options.pause = Duration::from_millis(10);
        options
    }

    fn take(&self, options: &TakeOptions) -> Result<BaseRecord, BaseError> {
        self.take_with(options, Box::new(|| ()))
    }

    fn take_with<'a>(
        &self,
        options: &TakeOptions,
        hook: Box<dyn FnOnce() + Send + 'a>,
    ) -> Result<BaseRecord, BaseError> {
        let mut sink = Hooked { inner: StoreSink::new(self.bases.store()), hook: Some(hook) };
        let (runtime, never) = (self.runtime.handle(), AtomicBool::new(false));
        take(options, runtime, &mut sink, &|_| (), &never)
    }

    fn text(&self, number: u64) -> String {
        let mut text = Vec::new();
        self.bases.read(number).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn load(&self, number: u64, into: &Path) {
        let program = Tools::default().find(Tool::Client, Flavor::MariaDb).unwrap();
        let mut client = Client::start(&program, &Dsn::socket(into, "root"), LoadOptions::default()).unwrap();
        let never = AtomicBool::new(false);
        client.load(&mut self.bases.read(number).unwrap(), &mut |_| (), &never).unwrap();
        client.finish(&never).unwrap();
    }
}

/// About `megabytes` of rows that do not compress to nothing.
fn fill(server: &Access, table: &str, megabytes: u64) {
    let rows = megabytes * 4000;
    server
        .sql(&format!(
            "CREATE DATABASE IF NOT EXISTS shop; USE shop; CREATE TABLE {table} (id INT PRIMARY KEY, a CHAR(40), b VARCHAR(300)); \
             INSERT INTO {table} SELECT seq, MD5(seq), CONCAT(SHA2(seq, 512), MD5(seq + 7), seq % 10) FROM seq_1_to_{rows};"
        ))
        .unwrap();
}

fn sums_of(server: &Access, record: &BaseRecord) -> Vec<TableSum> {
    let sum = |table: &TableSum| {
        let name = crate::database::sql::quote_table(&table.schema, &table.name);
        let rows = server.sql(&format!("SELECT COUNT(*) FROM {name}; CHECKSUM TABLE {name}")).unwrap();
        TableSum { rows: rows[0][0].parse().unwrap(), checksum: rows[1][1].parse().unwrap(), ..table.clone() }
    };
    record.sums.as_ref().unwrap().tables.iter().map(sum).collect()
}

#[test]
fn a_base_holds_everything_and_the_next_one_costs_little() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    Workload::start(&server.access(), Work::maria(3).pieces(60)).unwrap().finish().unwrap();
    fill(&server.access(), "shop.items", 10);
    server
        .sql(
            "CREATE DATABASE `-odd ``name` CHARACTER SET koi8r; CREATE TABLE `-odd ``name`.`t a` (`k y` INT PRIMARY KEY, \
             g INT AS (`k y` + 1) STORED, e ENUM('ä','б') CHARACTER SET utf8mb4, d DECIMAL(65,30), b BIT(9), p POINT); \
             INSERT INTO `-odd ``name`.`t a` (`k y`, e, d, b, p) VALUES (1, 'б', 1/3, b'101', POINT(1.5, -2)); \
             CREATE VIEW shop.v AS SELECT id FROM shop.items; CREATE VIEW shop.a_view_over AS SELECT COUNT(*) c FROM shop.v; \
             CREATE USER 'reader'@'%' IDENTIFIED BY 'pw'; GRANT SELECT ON shop.* TO 'reader'@'%';",
        )
        .unwrap();
    let options = world.options(&server.socket());
    let first = world.take(&options).unwrap();
    assert_eq!((first.number, first.lineage, first.server_id), (1, 1, 1));
    assert_eq!(first.gtid, server.value("SELECT @@gtid_binlog_pos").unwrap());
    let status = server.sql("SHOW MASTER STATUS").unwrap();
    assert_eq!(first.place, LogPlace { file: status[0][0].clone(), offset: status[0][1].parse().unwrap() });
    assert_eq!(first.bytes, world.bases.verify(1).unwrap());
    assert_eq!(world.bases.list(), std::slice::from_ref(&first));
    let sums = first.sums.as_ref().unwrap();
    assert_eq!((&sums.place, &sums.gtid), (&first.place, &first.gtid));
    assert!(sums.tables.len() > 15 && sums.tables.iter().any(|table| table.rows == 40_000));

    // Loaded elsewhere, it is what was there.
    let other = Maria::start(Options::default().server_id(2)).unwrap();
    world.load(1, &other.socket());
    assert_eq!(sums_of(&other.access(), &first), sums.tables);
    let definitions = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, TABLE_COLLATION FROM information_schema.TABLES WHERE TABLE_SCHEMA \
                       NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2; SELECT ROUTINE_SCHEMA, \
                       ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA <> 'sys' ORDER BY 1, 2; \
                       SELECT EVENT_SCHEMA, EVENT_NAME, STATUS FROM information_schema.EVENTS ORDER BY 1, 2; SELECT TRIGGER_NAME, \
                       ACTION_STATEMENT FROM information_schema.TRIGGERS ORDER BY 1; SELECT VIEW_DEFINITION FROM \
                       information_schema.VIEWS WHERE TABLE_SCHEMA <> 'sys'; SELECT User, Host, authentication_string FROM mysql.user \
                       ORDER BY 1, 2; SHOW GRANTS FOR 'reader'@'%'; SELECT * FROM `-odd ``name`.`t a`; SELECT * FROM shop.a_view_over;";
    assert_eq!(other.sql(definitions).unwrap(), server.sql(definitions).unwrap());
    assert!(first.tables.iter().any(|table| table.kind == "SEQUENCE"));

    // A row more and a row less.
    server.sql("DELETE FROM shop.items WHERE id = 500; UPDATE shop.items SET b = REPEAT('x', 250) WHERE id = 30000").unwrap();
    let second = world.take(&options).unwrap();
    assert_eq!(second.number, 2);
    let share = second.new_bytes as f64 / second.bytes as f64;
    println!("the second base: {} of {} bytes are new, {share:.3}", second.new_bytes, second.bytes);
    assert!(share < 0.10, "{share}");

    // After a restart everything is found again.
    let World { runtime, directory, bases } = world;
    drop(bases);
    let bases = BaseStore::open(&directory.path().join("base"), 7).unwrap();
    assert_eq!(bases.list(), [first, second]);
    let world = World { runtime, directory, bases };
    assert!(world.text(2).contains("CREATE USER IF NOT EXISTS `reader`"));
}

#[test]
fn what_moves_under_a_dump_makes_another_try() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    let access = server.access();
    fill(&access, "shop.a", 12);
    access.sql("CREATE TABLE shop.z (id INT PRIMARY KEY); INSERT INTO shop.z VALUES (1)").unwrap();
    let options = world.options(&server.socket());
    // An account, while the data is dumped.
    let hook = || drop(access.sql("CREATE USER 'made'@'%' IDENTIFIED BY 'meanwhile'").unwrap());
    let record = world.take_with(&options, Box::new(hook)).unwrap();
    assert_eq!(record.gtid, server.value("SELECT @@gtid_binlog_pos").unwrap());
    assert!(world.text(record.number).contains("CREATE USER IF NOT EXISTS `made`"));
    // Definitions, all behind the snapshot and before the dump comes to them: the binary log does it again. Some of it the
    // dump program notices, not all.
    access.sql("CREATE TABLE shop.y (id INT PRIMARY KEY); CREATE TABLE shop.x (id INT PRIMARY KEY); INSERT INTO shop.x VALUES (1)").unwrap();
    let moves = [
        ("ALTER TABLE shop.z ADD COLUMN more INT, ALGORITHM=COPY", "`more` int"),
        ("ALTER TABLE shop.z ADD COLUMN instant INT DEFAULT 7, ALGORITHM=INSTANT", "`instant` int"),
        ("TRUNCATE TABLE shop.x", "CREATE TABLE `x`"),
        ("DROP TABLE shop.y", ""),
        (
            "CREATE DATABASE late; CREATE TABLE late.t (id INT PRIMARY KEY); INSERT INTO late.t VALUES (4711)",
            "4711",
        ),
        ("CREATE PROCEDURE shop.p() SELECT 1", "PROCEDURE `p`"),
    ];
    for (change, text) in moves {
        let hook = || drop(access.sql(change).unwrap());
        let record = world.take_with(&options, Box::new(hook)).unwrap();
        assert_eq!(record.gtid, server.value("SELECT @@gtid_binlog_pos").unwrap(), "{change}");
        assert!(world.text(record.number).contains(text), "{change}");
    }
    // The file of its place is purged while it goes on: what its place is as a GTID was asked before.
    let gtid = server.value("SELECT @@gtid_binlog_pos").unwrap();
    let hook = || {
        access.sql("FLUSH BINARY LOGS").unwrap();
        let live = access.sql("SHOW MASTER STATUS").unwrap()[0][0].clone();
        // Until the file before it is no longer needed for a recovery.
        let purged = ehpc_tools::process::wait_until("the purge", Duration::from_secs(30), || {
            access.sql(&format!("PURGE BINARY LOGS TO '{live}'")).unwrap();
            access.sql("SHOW BINARY LOGS").unwrap().len() == 1
        });
        purged.unwrap();
    };
    assert_eq!(world.take_with(&options, Box::new(hook)).unwrap().gtid, gtid);
    // Nothing of the tries that failed is a base.
    assert_eq!(world.bases.list().len(), 2 + moves.len());
}

#[test]
fn what_never_holds_still_is_told_with_what_to_do() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    fill(&server.access(), "shop.a", 1);
    let options = world.options(&server.socket());
    let (access, tries) = (server.access(), std::cell::RefCell::new(Vec::new()));
    let progress = |now: BaseProgress| {
        if now.again.is_some() && now.bytes == 0 {
            tries.borrow_mut().push((now.attempt, now.again.map(|why| why.to_string())));
        }
        // A job that never ends.
        if now.bytes > 0 {
            access.sql("DROP TABLE IF EXISTS shop.made; CREATE TABLE shop.made (i INT)").unwrap();
        }
    };
    let mut sink = StoreSink::new(world.bases.store());
    let never = AtomicBool::new(false);
    let error = take(&options, world.runtime.handle(), &mut sink, &progress, &never).unwrap_err().to_string();
    assert!(error.contains("`made`") && error.contains("base_at"), "{error}");
    let tries = tries.into_inner();
    assert_eq!(tries.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(tries.iter().all(|(_, why)| why.as_ref().unwrap().contains("`made`")), "{tries:?}");
}

#[test]
fn history_that_the_dump_program_leaves_out_is_told() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    server.sql("CREATE DATABASE a; CREATE TABLE a.old (i INT PRIMARY KEY) WITH SYSTEM VERSIONING; CREATE TABLE a.t (i INT PRIMARY KEY); INSERT INTO a.old VALUES (1); DELETE FROM a.old").unwrap();
    let mut options = world.options(&server.socket());
    assert_eq!(world.take(&options).unwrap().lacks_history, [""; 0]);
    // As one of before 10.11.
    let tools = world.directory.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let program = Tools::default().find(Tool::Dump, Flavor::MariaDb).unwrap().path;
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--help*) exec {0} \"$@\" | sed s/--dump-history//; exit;; esac\nexec {0} \"$@\"\n",
        program.display()
    );
    std::fs::write(tools.join("mariadb-dump"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tools.join("mariadb-dump"), mode).unwrap();
    options.tools = Tools::new(Some(tools));
    let record = world.take(&options).unwrap();
    assert_eq!(record.lacks_history, ["`a`.`old`"]);
    let summed: Vec<&str> =
        record.sums.iter().flat_map(|sums| &sums.tables).map(|t| t.name.as_str()).collect();
    assert_eq!(summed, ["t"]);
}

#[test]
fn a_prepared_branch_is_recorded_and_its_rows_are_not_in_the_base() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    server.sql("CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY)").unwrap();
    let before = server.sql("SHOW MASTER STATUS").unwrap();
    server.sql("XA START 'left', 'open', 7; INSERT INTO a.t VALUES (4711); XA END 'left', 'open', 7; XA PREPARE 'left', 'open', 7").unwrap();
    let record = world.take(&world.options(&server.socket())).unwrap();
    assert_eq!(record.prepared, [Branch::of(7, b"left", b"open")]);
    assert_eq!(record.prepared[0].sql(), "x'6c656674',x'6f70656e',7");
    assert!(record.before.offset > before[0][1].parse().unwrap());
    assert!(!world.text(1).contains("4711"));
    server.sql(&format!("XA COMMIT {}", record.prepared[0].sql())).unwrap();
    assert_eq!(server.value("SELECT COUNT(*) FROM a.t").unwrap(), "1");
}

#[test]
fn bases_under_load_are_consistent_and_passwords_are_seen_by_nobody() {
    let (world, server) = (World::new(), Maria::start(Options::default().tcp()).unwrap());
    server
        .sql(
            "CREATE USER 'ehpc'@'127.0.0.1' IDENTIFIED BY 'not-to-be-seen'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, \
             REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'ehpc'@'127.0.0.1'; CREATE DATABASE bank; USE bank; CREATE TABLE bank.accounts (id INT \
             PRIMARY KEY, amount INT); INSERT INTO bank.accounts SELECT seq, 100 FROM seq_1_to_100;",
        )
        .unwrap();
    fill(&server.access(), "shop.items", 6);
    let dsn =
        Dsn::parse(&format!("mysql://ehpc:not-to-be-seen@127.0.0.1:{}/", server.port().unwrap())).unwrap();
    assert!(matches!(dsn.password, Password::Text(_)));
    let options = TakeOptions { dsn, sums: false, ..world.options(&server.socket()) };
    let (stop, access) = (AtomicBool::new(false), server.access());
    /// Told also when the test fails.
    struct Tell<'a>(&'a AtomicBool);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let tell = Tell(&stop);
        // Money moves between accounts; the sum never changes.
        scope.spawn(|| {
            let (mut client, mut n) = (access.connect().unwrap(), 1);
            while !stop.load(Ordering::Relaxed) {
                n = (n * 37) % 101;
                let (from, to) = (1 + n % 100, 1 + (n * 7) % 100);
                let text = format!("BEGIN; UPDATE bank.accounts SET amount = amount - 5 WHERE id = {from}; UPDATE bank.accounts SET amount = amount + 5 WHERE id = {to}; COMMIT;");
                client.run(&text).unwrap();
            }
        });
        let seen = || {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                for file in ["cmdline", "environ"] {
                    let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text);
                    assert!(!text.contains("not-to-be-seen") || text.contains("database::base"), "{text}");
                }
            }
        };
        for _ in 0..3 {
            world.take_with(&options, Box::new(seen)).unwrap();
        }
        drop(tell);
    });
    for number in 1..=3 {
        let other = Maria::start(Options::default().server_id(2)).unwrap();
        world.load(number, &other.socket());
        assert_eq!(other.value("SELECT SUM(amount) FROM bank.accounts").unwrap(), "10000");
    }
}

#[test]
fn a_genuine_mysql_needs_its_own_dump_program() {
    // Only MariaDB's can be had here.
    let (world, server) = (World::new(), MySql56::start(Options::default()).unwrap());
    server.sql("CREATE DATABASE a; CREATE TABLE a.t (i INT PRIMARY KEY); CREATE USER 'app'@'%' IDENTIFIED BY 'pw'; GRANT SELECT ON a.* TO 'app'@'%'").unwrap();
    let error = world.take(&world.options(&server.socket())).unwrap_err();
    assert!(matches!(error, BaseError::ForeignDump { .. }), "{error}");
    assert!(error.to_string().contains("mysqldump"), "{error}");
    assert!(world.bases.list().is_empty());
    // Its accounts are read by statements.
    let text = world.runtime.block_on(async {
        let mut sql =
            crate::database::sql::Sql::connect(&Dsn::socket(server.socket(), "root")).await.unwrap();
        look::mysql_accounts(&mut sql).await.unwrap()
    });
    let text = String::from_utf8(text).unwrap();
    let other = MySql56::start(Options::default().server_id(2)).unwrap();
    other.sql(&text).unwrap();
    let ask = "SHOW GRANTS FOR 'app'@'%'";
    assert_eq!(other.sql(ask).unwrap(), server.sql(ask).unwrap());
}

#[test]
fn what_cannot_be_dumped_says_why() {
    let world = World::new();
    let server = Maria::start(Options { log_bin: false, ..Options::default() }).unwrap();
    let error = world.take(&world.options(&server.socket())).unwrap_err();
    assert!(matches!(error, BaseError::NoBinaryLog), "{error}");
    assert!(error.to_string().contains("log_bin"), "{error}");
    let server = Maria::start(Options::default().tcp()).unwrap();
    server.sql("CREATE USER 'poor'@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE, BINLOG MONITOR, SELECT ON *.* TO 'poor'@'127.0.0.1'; CREATE DATABASE a; CREATE TABLE a.t (i INT); CREATE VIEW a.v AS SELECT * FROM a.t").unwrap();
    let mut options = world.options(&server.socket());
    options.dsn = Dsn::parse(&format!("mysql://poor:pw@127.0.0.1:{}/", server.port().unwrap())).unwrap();
    let error = world.take(&options).unwrap_err();
    assert!(matches!(error, BaseError::Dump { .. }), "{error}");
    assert!(error.to_string().contains("denied"), "{error}");
    options.dsn = Dsn::socket(server.socket(), "root");
    options.tools = Tools::new(Some(world.directory.path().to_owned()));
    let error = world.take(&options).unwrap_err().to_string();
    assert!(error.contains("mariadb-client"), "{error}");
    assert!(world.bases.list().is_empty());
    assert!(matches!(world.bases.read(1).err(), Some(BaseError::Unknown { number: 1 })));
}

#[test]
fn a_stop_ends_a_dump_that_waits() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    server.sql("CREATE DATABASE a; CREATE TABLE a.t (i INT)").unwrap();
    // The dump waits for the table's lock.
    let mut holder = server.connect().unwrap();
    holder.run("LOCK TABLES a.t WRITE;").unwrap();
    let (options, stop) =
        (TakeOptions { sums: false, ..world.options(&server.socket()) }, AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock'";
            let waited = ehpc_tools::process::wait_until("a waiting dump", Duration::from_secs(60), || {
                server.value(waits).unwrap() != "0"
            });
            stop.store(true, Ordering::Relaxed);
            waited.unwrap();
        });
        let mut sink = StoreSink::new(world.bases.store());
        let error = take(&options, world.runtime.handle(), &mut sink, &|_| (), &stop).unwrap_err();
        assert!(matches!(error, BaseError::Stopped), "{error}");
    });
}

#[test]
fn dropped_bases_give_their_space_back() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    let options = world.options(&server.socket());
    fill(&server.access(), "shop.a", 6);
    let mut labelled = options.clone();
    labelled.label = Some("before the sale".to_owned());
    server.sql("CREATE TABLE shop.small (i INT PRIMARY KEY); INSERT INTO shop.small VALUES (1)").unwrap();
    for n in 0..3 {
        server.sql(&format!("USE shop; DROP TABLE shop.a; CREATE TABLE shop.a (id INT PRIMARY KEY, b VARCHAR(300)); INSERT INTO shop.a SELECT seq, SHA2(seq * 4 + {n}, 512) FROM seq_1_to_30000")).unwrap();
        world.take(if n == 1 { &labelled } else { &options }).unwrap();
    }
    server.sql("DELETE FROM shop.a").unwrap();
    world.take(&options).unwrap();
    let (all, texts) = (world.bases.list(), [world.text(2), world.text(4)]);
    let World { runtime, directory, bases } = world;
    let before = bases.store().stats().unwrap().chunk_bytes;
    drop(bases);
    let path = directory.path().join("base");
    // One that is ended between its two renames.
    std::fs::rename(&path, directory.path().join("base.old")).unwrap();
    std::fs::create_dir(directory.path().join("base.new")).unwrap();
    std::fs::remove_dir(directory.path().join("base.new")).unwrap();
    std::fs::rename(directory.path().join("base.old"), directory.path().join("base.new")).unwrap();
    std::fs::create_dir(directory.path().join("base.old")).unwrap();
    let bases = BaseStore::open(&path, 7).unwrap();
    assert_eq!(bases.list(), all);
    drop(bases);
    // Newest one and the labelled one stay.
    let bases = BaseStore::open(&path, 1).unwrap();
    let after = bases.store().stats().unwrap().chunk_bytes;
    assert!(after * 2 < before, "{after} of {before}");
    assert_eq!(bases.list(), [all[1].clone(), all[3].clone()]);
    let world = World { runtime, directory, bases };
    assert_eq!([world.text(2), world.text(4)], texts);
    assert!(matches!(world.bases.read(3).err(), Some(BaseError::Unknown { number: 3 })));
    // And goes on.
    assert_eq!(world.take(&options).unwrap().number, 5);
    world.bases.verify(5).unwrap();
}

#[test]
fn a_rotten_base_does_not_take_the_others_along() {
    let (world, server) = (World::new(), Maria::start(Options::default()).unwrap());
    server.sql("CREATE DATABASE a; CREATE TABLE a.t (i INT PRIMARY KEY)").unwrap();
    let options = world.options(&server.socket());
    let (first, second) = (world.take(&options).unwrap(), world.take(&options).unwrap());
    let store = world.bases.store();
    let manifest = store::manifest(&store, 1, content::objects_of(1).1).unwrap().unwrap();
    let hash = crate::store::manifest::chunks_of(&manifest, &mut read::fetch(&store)).unwrap()[0];
    let at = store.locate(&hash).unwrap().unwrap();
    let World { runtime, directory, bases } = world;
    drop((bases, store));
    let mut bytes = std::fs::read(&at.path).unwrap();
    bytes[at.offset as usize + 9] ^= 1;
    std::fs::write(&at.path, bytes).unwrap();
    let bases = BaseStore::open(&directory.path().join("base"), 1).unwrap();
    assert_eq!(bases.list(), std::slice::from_ref(&second));
    assert_eq!(bases.verify(2).unwrap(), second.bytes);
    assert!(matches!(bases.record(1), Err(BaseError::Unknown { number: 1 })));
    // Its SQL may still be whole.
    let mut text = Vec::new();
    bases.read(1).unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text.len() as u64, first.bytes);
    let world = World { runtime, directory, bases };
    assert_eq!(world.take(&options).unwrap().number, 3);
}
