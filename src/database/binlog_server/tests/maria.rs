//! Stock MariaDB replicas: by GTID and by position, under load, killed and ended in every way that there is.

use super::archive::TestArchive;
use super::{assert_same_data, change_master, replica_status, serve, serve_at, wait};
use crate::database::binlog_server::Identity;
use ehpc_proto::binlog::Flavor;
use ehpc_tools::database::{Maria, Options, Work, Workload};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Seed of the workloads; printed by a failure's first line.
pub(super) fn seed() -> u64 {
    let seed = std::env::var("DATABASE_SEED")
        .ok()
        .map_or(u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("repeat with DATABASE_SEED={seed}");
    seed
}

pub(super) fn identity(server: &Maria) -> Identity {
    Identity {
        version: server.value("SELECT @@version").unwrap(),
        flavor: Flavor::MariaDb,
        server_id: server.value("SELECT @@server_id").unwrap().parse().unwrap(),
        server_uuid: None,
    }
}

/// Copies a server's log until told to stop; files are asked for again, so that new ones count.
pub(super) struct Copier {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Copier {
    pub(super) fn start(archive: &Arc<TestArchive>, index: std::path::PathBuf) -> Copier {
        let (stop, archive) = (Arc::new(AtomicBool::new(false)), Arc::clone(archive));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            loop {
                let last = stopped.load(Ordering::Acquire);
                let names = std::fs::read_to_string(&index).unwrap();
                let files: Vec<_> = names.lines().map(|name| index.parent().unwrap().join(name)).collect();
                tokio::task::block_in_place(|| archive.copy(&files));
                if last {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Copier { stop, task }
    }

    /// Copies what is there, then ends.
    pub(super) async fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap();
    }
}

/// The replica has applied all that the server has written.
pub(super) async fn caught_up(server: &Maria, replica: &Maria) {
    let wanted = server.value("SELECT @@gtid_binlog_pos").unwrap();
    let access = replica.access();
    wait("the replica catches up", || {
        let error = replica_status(&access, "Last_SQL_Error");
        assert_eq!(error, "");
        assert_eq!(replica_status(&access, "Last_IO_Error").find("1236"), None);
        replica.value("SELECT @@gtid_slave_pos").unwrap_or_default() == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_gtid_under_load_while_the_binlog_server_comes_and_goes() {
    let seed = seed();
    let options = Options::default().with("--log-bin-compress=1").with("--log-bin-compress-min-len=64");
    let server = Maria::start(options.with("--max-binlog-size=1M")).unwrap();
    let archive = TestArchive::new(identity(&server));
    let copier = Copier::start(&archive, server.datadir().join("bin.index"));
    let mut ours = serve(&archive);
    let port = ours.address().port();
    let options = Options::default().server_id(2).with("--slave-parallel-threads=4");
    let options = options.with("--slave-parallel-mode=optimistic").with("--log-slave-updates=1");
    let replica = Maria::start(options).unwrap();
    let work = Workload::start(&server.access(), Work::maria(seed)).unwrap();
    replica.sql(&change_master(port, "MASTER_USE_GTID=slave_pos")).unwrap();
    replica.sql("START SLAVE").unwrap();
    for round in 0..4 {
        work.wait_for(work.done() + 100).unwrap();
        // In the middle of whatever it sends.
        ours.stop().await;
        work.wait_for(work.done() + 50).unwrap();
        ours = serve_at(&archive, port);
        println!("round {round}: {} pieces", work.done());
    }
    let seen = work.stop().unwrap();
    copier.finish().await;
    caught_up(&server, &replica).await;
    assert_eq!(seen.missing_in(&replica.access()).unwrap(), []);
    assert_same_data(&replica.access(), &server.access());
    // Row events tell their statement, because the replica writes them on.
    let files = replica.binlog_files().unwrap();
    let log: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    assert!(log.windows(9).any(|head| head[4] == 160 && head[5..] == [1, 0, 0, 0]), "no ANNOTATE_ROWS");
    let status = ours.status();
    assert_eq!(status.len(), 1);
    assert_eq!((status[0].server_id, status[0].address.starts_with("127.0.0.1:")), (2, true));
    assert_eq!(archive.newest().file_name().unwrap().to_str().unwrap(), status[0].file);
    assert_eq!(std::fs::metadata(archive.newest()).unwrap().len(), status[0].place.offset);
    ours.stop().await;
}

/// Four connections that insert rows until told to stop; no data definition: a MariaDB replica that is killed within
/// one may stop with an error by itself (its recovery logs the statement under a GTID of its own).
fn rows(server: &Maria) -> (Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>) {
    server
        .sql("CREATE DATABASE shop; CREATE TABLE shop.a (who INT, n INT, t TEXT, PRIMARY KEY (who, n))")
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = (0..4).map(|who| {
        let (stop, access) = (Arc::clone(&stop), server.access());
        std::thread::spawn(move || {
            let mut client = access.connect().unwrap();
            for n in 0.. {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let change =
                    format!("UPDATE shop.a SET t = CONCAT(t, '{n}') WHERE who = {who} AND n = {}", n / 2);
                let insert = format!("INSERT INTO shop.a VALUES ({who}, {n}, REPEAT('{n}', 50))");
                client.run(&format!("BEGIN; {insert}; {change}; COMMIT;")).unwrap();
            }
        })
    });
    let threads = threads.collect();
    (stop, threads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_under_load_goes_on_where_it_was() {
    let server = Maria::start(Options::default().with("--max-binlog-size=256K")).unwrap();
    let archive = TestArchive::new(identity(&server));
    let (stop, threads) = rows(&server);
    let copier = Copier::start(&archive, server.datadir().join("bin.index"));
    let ours = serve(&archive);
    let options = Options::default().server_id(2).with("--slave-parallel-threads=4");
    let mut replica = Maria::start(options.with("--log-slave-updates=1")).unwrap();
    replica.sql(&change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos")).unwrap();
    replica.sql("START SLAVE").unwrap();
    for _ in 0..4 {
        let count =
            || replica.value("SELECT COUNT(*) FROM shop.a").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
        let before = count();
        wait("the replica applies", || count() > before + 100).await;
        replica.kill9().unwrap();
        replica.restart().unwrap();
    }
    stop.store(true, Ordering::Release);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    copier.finish().await;
    caught_up(&server, &replica).await;
    assert_same_data(&replica.access(), &server.access());
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_position_without_checksums_with_a_large_event() {
    let seed = seed();
    let server = Maria::start(Options::default().with("--binlog-checksum=NONE")).unwrap();
    let archive = TestArchive::new(identity(&server));
    Workload::start(&server.access(), Work::maria(seed).pieces(40)).unwrap().finish().unwrap();
    server
        .sql(
            "CREATE DATABASE shop; CREATE TABLE shop.large (id INT PRIMARY KEY, body LONGBLOB); \
             INSERT INTO shop.large VALUES (1, REPEAT('large', 8 << 20)); FLUSH BINARY LOGS; \
             INSERT INTO shop.large VALUES (2, 'small')",
        )
        .unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    // No binary log of its own: it asks without statements as comments.
    let mut options = Options::default().server_id(2);
    options.log_bin = false;
    let replica = Maria::start(options.with("--rpl-semi-sync-slave-enabled=1")).unwrap();
    let start = "MASTER_USE_GTID=no, MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4";
    replica.sql(&change_master(ours.address().port(), start)).unwrap();
    replica.sql("START SLAVE").unwrap();
    caught_up(&server, &replica).await;
    assert_same_data(&replica.access(), &server.access());
    // It wanted acknowledgements to be asked for; it goes on without.
    assert_eq!(
        replica.value("SHOW STATUS LIKE 'Rpl_semi_sync_slave_status'").unwrap(),
        "Rpl_semi_sync_slave_status"
    );
    // Live: what comes later arrives, also in a further file; then a stop and a start in the middle of a file.
    server.sql("INSERT INTO shop.large VALUES (3, 'later'); FLUSH BINARY LOGS; UPDATE shop.large SET body = 'x' WHERE id = 2").unwrap();
    archive.copy(&server.binlog_files().unwrap());
    caught_up(&server, &replica).await;
    replica.sql("STOP SLAVE; START SLAVE").unwrap();
    server.sql("INSERT INTO shop.large VALUES (4, 'last')").unwrap();
    archive.copy(&server.binlog_files().unwrap());
    caught_up(&server, &replica).await;
    assert_same_data(&replica.access(), &server.access());
    // Signs of life while nothing happens.
    let beats =
        || replica.sql("SHOW STATUS LIKE 'Slave_received_heartbeats'").unwrap()[0][1].parse::<u64>().unwrap();
    let before = beats();
    wait("heartbeats", || beats() > before + 1).await;
    assert_eq!(replica_status(&replica.access(), "Slave_IO_Running"), "Yes");
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_a_gtid_is_exact() {
    let seed = seed();
    let server = Maria::start(Options::default().with("--max-binlog-size=64K")).unwrap();
    let archive = TestArchive::new(identity(&server));
    Workload::start(&server.access(), Work::maria(seed).pieces(60)).unwrap().finish().unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let last: u64 =
        server.value("SELECT @@gtid_binlog_pos").unwrap().rsplit('-').next().unwrap().parse().unwrap();
    let replica = Maria::start(Options::default().server_id(2).with("--slave-parallel-threads=4")).unwrap();
    replica.sql(&change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos")).unwrap();
    let mut stops: Vec<u64> =
        (1..8).map(|n| 1 + (seed.wrapping_mul(n * 7919) % last)).chain([1, last]).collect();
    stops.sort_unstable();
    stops.dedup();
    for stop in stops {
        replica.sql(&format!("START SLAVE UNTIL master_gtid_pos='0-1-{stop}'")).unwrap();
        let access = replica.access();
        wait("both threads end", || {
            replica_status(&access, "Slave_IO_Running") == "No"
                && replica_status(&access, "Slave_SQL_Running") == "No"
        })
        .await;
        assert_eq!(replica_status(&access, "Last_Error"), "");
        assert_eq!(replica_status(&access, "Last_IO_Error"), "");
        assert_eq!(replica.value("SELECT @@gtid_slave_pos").unwrap(), format!("0-1-{stop}"));
    }
    assert_same_data(&replica.access(), &server.access());
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replica_with_the_same_number_ends_the_first() {
    let server = Maria::start(Options::default()).unwrap();
    let archive = TestArchive::new(identity(&server));
    server.sql("CREATE DATABASE shop").unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let change = change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos");
    let replicas = [0, 1].map(|_| Maria::start(Options::default().server_id(2)).unwrap());
    for replica in &replicas {
        replica.sql(&change).unwrap();
        replica.sql("START SLAVE").unwrap();
        caught_up(&server, replica).await;
    }
    let first = replicas[0].access();
    wait("the first one ends", || replica_status(&first, "Slave_IO_Running") == "No").await;
    assert_eq!(replica_status(&first, "Last_IO_Errno"), "1236");
    assert!(replica_status(&first, "Last_IO_Error").contains("same server_uuid/server_id"));
    assert_eq!(replica_status(&replicas[1].access(), "Slave_IO_Running"), "Yes");
    assert_eq!(ours.status().len(), 1);
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_the_source_itself_are_refused() {
    let server = Maria::start(Options::default()).unwrap();
    let archive = TestArchive::new(identity(&server));
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let change = change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos");
    let replica = Maria::start(Options::default().server_id(2)).unwrap();
    let access = replica.access();
    replica.sql(&change).unwrap();
    for wrong in ["MASTER_PASSWORD='wrong'", "MASTER_PASSWORD=''", "MASTER_USER='root'"] {
        replica.sql(&change).unwrap();
        replica.sql(&format!("CHANGE MASTER TO {wrong}; START SLAVE")).unwrap();
        wait("the login is refused", || replica_status(&access, "Last_IO_Errno") == "1045").await;
        replica.sql("STOP SLAVE; RESET SLAVE").unwrap();
    }
    replica.sql(&change).unwrap();
    replica.sql("START SLAVE").unwrap();
    wait("it logs in", || replica_status(&access, "Slave_IO_Running") == "Yes").await;
    // A replica with the source's number would follow itself: its own check needs our answer.
    let twin = Maria::start(Options::default()).unwrap();
    twin.sql(&change).unwrap();
    twin.sql("START SLAVE").unwrap();
    wait("it refuses", || replica_status(&twin.access(), "Last_IO_Errno") == "1593").await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_archive_is_waited_for() {
    let archive = TestArchive::empty();
    let ours = serve(&archive);
    let replica = Maria::start(Options::default().server_id(2)).unwrap();
    let access = replica.access();
    replica.sql(&change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos")).unwrap();
    replica.sql("START SLAVE").unwrap();
    wait("it is told why", || replica_status(&access, "Last_IO_Error").contains("archive is empty")).await;
    let server = Maria::start(Options::default()).unwrap();
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY)").unwrap();
    archive.lineage(identity(&server));
    archive.copy(&server.binlog_files().unwrap());
    caught_up(&server, &replica).await;
    assert_same_data(&replica.access(), &server.access());
    ours.stop().await;
}
