//! A managed standby behind a real binlog server over a real archive of a real server.

use super::*;
use crate::database::archive::{self, ArchiveDesk};
use crate::database::base::{StoreSink, TakeOptions, take};
use crate::database::binlog_server::{BinlogServer, Feed};
use crate::database::link::{BoxFuture, Dial, Wire, WireIn, WireOut};
use crate::database::restore::RestoreError;
use crate::database::source::{Source, SourceOptions};
use bytes::Bytes;
use ehpc_proto::replication::database::DbAnswer;
use ehpc_proto::replication::wire::Payload;
use ehpc_tools::database::{Access, Maria, Options, Work, Workload};
use ehpc_tools::process::wait_until;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "replica's";

/// A wire in memory.
struct Memory(mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>);
struct In(mpsc::Receiver<Bytes>);
struct Out(mpsc::Sender<Bytes>);

impl Wire for Memory {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(In(self.0)), Box::new(Out(self.1)))
    }
}

impl WireIn for In {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async { Ok(self.0.recv().await) })
    }
}

impl WireOut for Out {
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.send(message.joined().into()).await.map_err(|_| "gone".to_owned()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// Connects a source to a desk.
struct Desk(ArchiveDesk);

impl Dial for Desk {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        let (to, inbox) = mpsc::channel(64);
        let (outbox, from) = mpsc::channel(64);
        let stop = CancellationToken::new();
        tokio::spawn(self.0.serve(Box::new(Memory(inbox, outbox)), "nfs1".to_owned(), stop));
        Box::pin(async { Ok(Box::new(Memory(from, to)) as Box<dyn Wire>) })
    }
}

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) primary: Maria,
    pub(crate) archive: Arc<Archive>,
    pub(crate) bases: Arc<BaseStore>,
    pub(crate) in_use: Arc<RwLock<()>>,
    binlog: BinlogServer,
    source: Source,
}

impl World {
    pub(crate) fn new() -> World {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let primary = Maria::start(Options::default()).unwrap();
        let database = directory.path().join("database");
        let (archive, _) = Archive::open(&database, archive::Options::default()).unwrap();
        let bases = Arc::new(BaseStore::open(&directory.path().join("base"), 7).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let feed = archive.clone() as Arc<dyn Feed>;
        let binlog = BinlogServer::start(runtime.handle(), listener, feed, "replica", PASSWORD).unwrap();
        let nothing = Arc::new(|_| Box::pin(async { Vec::new() }) as BoxFuture<'static, Vec<DbAnswer>>);
        let desk = ArchiveDesk::new(archive.clone(), Arc::new(|_| ()), nothing);
        let options = SourceOptions {
            servers: vec![Dsn::socket(primary.socket(), "root")],
            server_id: 4_200_001,
            semi_sync: false,
            over_gaps: false,
            dial: Arc::new(Desk(desk)),
        };
        let source = Source::start(runtime.handle(), options);
        World { runtime, directory, primary, archive, bases, in_use: Arc::default(), binlog, source }
    }

    /// Waits until what the primary wrote is in the archive.
    pub(crate) fn ship(&self) {
        let status = self.primary.sql("SHOW MASTER STATUS").unwrap();
        let (live, end): (&str, u64) = (&status[0][0], status[0][1].parse().unwrap());
        let arrived = wait_until("the archive", Duration::from_secs(60), || {
            self.archive.files().iter().any(|file| file.name == live && file.len >= end)
        });
        arrived.unwrap_or_else(|error| panic!("{error}: {:?}", self.source.status()));
    }

    pub(crate) fn base(&self) {
        let options = TakeOptions::new(Dsn::socket(self.primary.socket(), "root"), Tools::default(), 1);
        let never = AtomicBool::new(false);
        let mut sink = StoreSink::new(self.bases.store());
        take(&options, self.runtime.handle(), &mut sink, &|_| (), &never).unwrap();
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream { address: self.binlog.address(), user: "replica".to_owned(), password: PASSWORD.to_owned() }
    }

    fn standby(&self) -> Standby {
        let socket = self.directory.path().join("standby/mysqld.sock");
        self.standby_at(settings::DatabaseAddress::Socket(socket))
    }

    fn standby_at(&self, address: settings::DatabaseAddress) -> Standby {
        let datadir = self.directory.path().join("standby");
        let settings = settings::Standby {
            mode: settings::StandbyMode::Managed,
            address,
            datadir,
            server_id: 4_200_002,
            user: "root".to_owned(),
            password_file: None,
            options: vec!["--innodb-buffer-pool-size=64M".to_owned()],
        };
        let parts = Parts {
            settings,
            tools: Tools::default(),
            upstream: self.upstream(),
            archive: self.archive.clone(),
            bases: self.bases.clone(),
            in_use: Arc::clone(&self.in_use),
        };
        let _inside = self.runtime.enter();
        Standby::start(parts).unwrap()
    }

    /// Statements on the standby, in one session.
    fn done_there(&self, standby: &Standby, statements: &str) {
        let run = async {
            let mut sql = crate::database::sql::Sql::connect(&standby.dsn().unwrap()).await?;
            for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
                sql.run(statement).await?;
            }
            Ok::<_, crate::database::sql::SqlError>(())
        };
        self.runtime.block_on(run).unwrap();
    }

    /// The same one in other hands: with this option more, over these bases.
    fn standby_of(&self, option: &str, bases: Arc<BaseStore>) -> Standby {
        let datadir = self.directory.path().join("standby");
        let settings = settings::Standby {
            mode: settings::StandbyMode::Managed,
            address: settings::DatabaseAddress::Socket(datadir.join("mysqld.sock")),
            datadir,
            server_id: 4_200_002,
            user: "root".to_owned(),
            password_file: None,
            options: vec![option.to_owned()],
        };
        let (user, password) = ("replica".to_owned(), PASSWORD.to_owned());
        let upstream = Upstream { address: self.binlog.address(), user, password };
        let _inside = self.runtime.enter();
        Standby::start(Parts {
            settings,
            tools: Tools::default(),
            upstream,
            archive: self.archive.clone(),
            bases,
            in_use: Arc::default(),
        })
        .unwrap()
    }

    /// Waits until the standby has what the primary has.
    fn level(&self, standby: &Standby) {
        let wanted = self.primary.value("SELECT @@gtid_binlog_pos").unwrap();
        let level = wait_until("a standby that is level", Duration::from_secs(60), || {
            let status = standby.status();
            status.state == "running" && status.gtid == wanted && status.lag_ms == 0
        });
        level.unwrap_or_else(|error| panic!("{error}: wanted {wanted}, {:?}", standby.status()));
    }

    /// Rows of a statement on the standby.
    fn ask(&self, standby: &Standby, text: &str) -> Vec<String> {
        let ask = async {
            let dsn = standby.dsn().unwrap();
            let mut sql = crate::database::sql::Sql::connect(&dsn).await?;
            Ok::<_, crate::database::sql::SqlError>(
                sql.rows(text).await?.iter().map(|row| row.string(0)).collect(),
            )
        };
        self.runtime.block_on(ask).unwrap()
    }

    fn equal(&self, standby: &Standby) {
        let tables = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ('mysql', \
                      'sys', 'information_schema', 'performance_schema') AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1";
        let names: Vec<String> =
            self.primary.sql(tables).unwrap().into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(self.ask(standby, tables), names);
        for name in names {
            let primary = self.primary.sql(&format!("CHECKSUM TABLE {name}")).unwrap()[0][1].clone();
            let ask = async {
                let mut sql = crate::database::sql::Sql::connect(&standby.dsn().unwrap()).await?;
                sql.row(&format!("CHECKSUM TABLE {name}")).await
            };
            let row = self.runtime.block_on(ask).unwrap().unwrap();
            assert_eq!(row.string(1), primary, "{name}");
        }
    }
}

fn silent() -> Tell {
    Arc::new(|_| ())
}

fn processes(datadir: &std::path::Path) -> Vec<u32> {
    let wanted = format!("--datadir={}", datadir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid: Option<u32> = entry.file_name().to_string_lossy().parse().ok();
        if String::from_utf8_lossy(&text).split('\0').any(|word| word == wanted) {
            found.extend(pid);
        }
    }
    found
}

#[test]
fn a_standby_is_built_under_load_follows_and_survives_kills() {
    let world = World::new();
    let access: Access = world.primary.access();
    Workload::start(&access, Work::maria(11).pieces(25)).unwrap().finish().unwrap();
    access
        .sql(
            "CREATE USER web@'web1.example'; GRANT SELECT ON work.* TO web@'web1.example';
             XA START 'held'; INSERT INTO work.xa0 VALUES (-7, 'held'); XA END 'held'; XA PREPARE 'held'",
        )
        .unwrap();
    let load = Workload::start(&access, Work::maria(12).rows_only()).unwrap();
    load.wait_for(10).unwrap();
    world.base();
    access.sql("XA COMMIT 'held'").unwrap();
    load.wait_for(load.done() + 20).unwrap();
    load.stop().unwrap();
    world.ship();
    let standby = world.standby();
    let error = world.runtime.block_on(standby.resume()).unwrap_err();
    assert!(matches!(error, StandbyError::NotBuilt), "{error}");
    // What it is built from is not pruned meanwhile.
    let (in_use, held) = (Arc::clone(&world.in_use), Arc::new(AtomicBool::new(false)));
    let holds = Arc::clone(&held);
    let tell: Tell = Arc::new(move |_| holds.store(in_use.try_write().is_err(), Ordering::Relaxed));
    world.runtime.block_on(standby.init(false, tell)).unwrap();
    assert!(held.load(Ordering::Relaxed) && world.in_use.try_write().is_ok());
    world.level(&standby);
    world.equal(&standby);
    assert_eq!(world.ask(&standby, "SELECT COUNT(*) FROM work.xa0 WHERE id = -7"), ["1"]);
    assert_eq!(world.ask(&standby, "SELECT CONCAT(@@read_only + 0, @@event_scheduler)"), ["1OFF"]);
    let error = world.runtime.block_on(standby.init(false, silent())).unwrap_err();
    assert!(matches!(error, StandbyError::Exists { .. }), "{error}");

    // Its server is killed while it applies rows.
    let datadir = world.directory.path().join("standby").canonicalize().unwrap();
    for seed in 0..2 {
        let load = Workload::start(&access, Work::maria(20 + seed).rows_only()).unwrap();
        load.wait_for(15).unwrap();
        world.ship();
        let pids = processes(&datadir);
        assert_eq!(pids.len(), 1);
        ehpc_tools::process::signal(pids[0], "KILL").unwrap();
        load.wait_for(load.done() + 15).unwrap();
        load.stop().unwrap();
        world.ship();
        world.level(&standby);
        world.equal(&standby);
    }
    // Stopped by a person it stays stopped, whoever starts the daemon; then it goes on.
    world.runtime.block_on(standby.stop()).unwrap();
    assert_eq!((standby.status().state.as_str(), standby.status().well), ("stopped", false));
    world.runtime.block_on(standby.shutdown());
    assert_eq!(processes(&datadir), [0; 0]);
    access.sql("FLUSH BINARY LOGS; INSERT INTO work.shared VALUES (1000, 1, 1)").unwrap();
    world.ship();
    let standby = world.standby();
    // An account whose host is a name is there after a start, too.
    access.sql("SET PASSWORD FOR web@'web1.example' = PASSWORD('x')").unwrap();
    world.ship();
    wait_until("stopped", Duration::from_secs(10), || standby.status().state == "stopped").unwrap();
    world.runtime.block_on(standby.resume()).unwrap();
    world.level(&standby);
    world.equal(&standby);
    assert_eq!(world.ask(&standby, "SHOW GRANTS FOR web@'web1.example'").len(), 2);
    world.runtime.block_on(standby.shutdown());
    assert_eq!(processes(&datadir), [0; 0]);
}

#[test]
fn what_cannot_be_applied_is_told_and_a_halted_replica_goes_on_when_asked() {
    let world = World::new();
    let access = world.primary.access();
    access.sql("CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY)").unwrap();
    let standby = world.standby();
    // No base, nothing in the archive.
    let error = world.runtime.block_on(standby.init(false, silent())).unwrap_err();
    assert!(matches!(error, StandbyError::Restore(_)), "{error}");
    assert_eq!(standby.status().state, "not built");
    world.ship();
    let error = world.runtime.block_on(standby.init(true, silent())).unwrap_err().to_string();
    assert!(error.contains("no base snapshot"), "{error}");
    world.base();
    world.runtime.block_on(standby.init(true, silent())).unwrap();
    world.level(&standby);
    world.ask(&standby, "INSERT INTO a.t VALUES (5)");
    access.sql("INSERT INTO a.t VALUES (5)").unwrap();
    world.ship();
    wait_until("the error", Duration::from_secs(20), || standby.status().state == "failed").unwrap();
    let status = standby.status();
    assert!(!status.well && status.lag_ms > 0, "{status:?}");
    assert!(status.error.as_ref().is_some_and(|text| text.contains("Duplicate entry")), "{status:?}");
    world.ask(&standby, "DELETE FROM a.t");
    world.runtime.block_on(standby.resume()).unwrap();
    world.level(&standby);
    world.ask(&standby, "STOP SLAVE");
    wait_until("halted", Duration::from_secs(20), || standby.status().state == "halted").unwrap();
    world.runtime.block_on(standby.resume()).unwrap();
    world.level(&standby);
    assert!(standby.sql().contains("CHANGE MASTER TO MASTER_HOST = '127.0.0.1'"));
    // What was applied and not yet noted when its server was killed is not applied again.
    let datadir = world.directory.path().join("standby").canonicalize().unwrap();
    let prepared = "XA START 'k'; INSERT INTO a.t VALUES (9); XA END 'k'; XA PREPARE 'k'";
    for (statements, more) in [
        (prepared, ""),
        ("XA COMMIT 'k'", "ALTER TABLE a.t ADD COLUMN more INT"),
        ("CREATE PROCEDURE a.p() SELECT 1", ""),
    ] {
        world.ask(&standby, "STOP SLAVE SQL_THREAD");
        access.sql(&format!("{statements}; {more}")).unwrap();
        world.ship();
        world.done_there(&standby, &format!("{statements}; {more}"));
        ehpc_tools::process::signal(processes(&datadir)[0], "KILL").unwrap();
        world.level(&standby);
    }
    assert_eq!(world.ask(&standby, "SHOW PROCEDURE STATUS WHERE Db = 'a'"), ["a"]);
    // As after kill -9 of the primary between its engine's prepare and its binary log: an end without a beginning.
    for (id, end) in [(20, "ROLLBACK"), (21, "COMMIT")] {
        let begin = format!(
            "SET sql_log_bin = 0; XA START 'u{id}'; INSERT INTO a.t (id) VALUES ({id}); XA END 'u{id}'"
        );
        access.sql(&format!("{begin}; XA PREPARE 'u{id}'")).unwrap();
        access.sql(&format!("XA {end} 'u{id}'; INSERT INTO a.t (id) VALUES ({id} + 10)")).unwrap();
        world.ship();
        if end == "ROLLBACK" {
            world.level(&standby);
        }
    }
    wait_until("the explanation", Duration::from_secs(20), || {
        standby
            .status()
            .error
            .is_some_and(|text| text.contains("XA branch X'753231'") && text.contains("--force"))
    })
    .unwrap();
    assert_eq!(world.ask(&standby, "SELECT id FROM a.t ORDER BY id"), ["5", "9", "30"]);
    world.runtime.block_on(standby.shutdown());
}

#[test]
fn a_standby_listens_where_the_settings_say() {
    let world = World::new();
    world.primary.sql("CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY); CREATE USER app@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT SELECT ON a.* TO app@'127.0.0.1'; INSERT INTO a.t VALUES (1)").unwrap();
    world.ship();
    world.base();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = settings::HostPort { host: "127.0.0.1".to_owned(), port };
    let standby = world.standby_at(settings::DatabaseAddress::Tcp(at));
    world.runtime.block_on(standby.init(false, silent())).unwrap();
    world.level(&standby);
    // With the source's own accounts.
    let app = Dsn::parse(&format!("mysql://app:pw@127.0.0.1:{port}/")).unwrap();
    let count = async {
        let mut sql = crate::database::sql::Sql::connect(&app).await?;
        sql.number("SELECT COUNT(*) FROM a.t").await
    };
    assert_eq!(world.runtime.block_on(count).unwrap(), Some(1));
    world.runtime.block_on(standby.stop()).unwrap();
    world.runtime.block_on(standby.shutdown());
    // One that cannot be started says so to whoever starts it.
    let broken = world.standby_of("--no-such-option=1", world.bases.clone());
    let error = world.runtime.block_on(broken.resume()).unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
    world.runtime.block_on(broken.shutdown());
    // Nothing to build a new one from: the old one goes on.
    let nothing = Arc::new(BaseStore::open(&world.directory.path().join("nothing"), 7).unwrap());
    let standby = world.standby_of("--innodb-buffer-pool-size=64M", nothing);
    world.level(&standby);
    let error = world.runtime.block_on(standby.init(true, silent())).unwrap_err();
    assert!(matches!(error, StandbyError::Restore(RestoreError::NoBase { .. })), "{error}");
    world.primary.sql("INSERT INTO a.t VALUES (2)").unwrap();
    world.ship();
    world.level(&standby);
    world.runtime.block_on(standby.shutdown());
}
