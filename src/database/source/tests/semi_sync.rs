//! Commits that wait for the backup's disk.

use super::super::connect::{Stream, connect};
use super::super::fault::{Blame, SourceFault};
use super::super::lane::Lane;
use super::super::locate::{Permission, locate};
use super::super::semisync;
use super::super::shared::Shared;
use super::super::stream::ship;
use super::far_end::Dialled;
use super::*;
use crate::database::preflight;
use crate::database::sql::Sql;
use crate::settings::{Database, DatabaseAddress};
use ehpc_proto::mysql::replica::{Plan, Start};

fn semi_sync(runtime: &Runtime, server: &Maria, end: &FarEnd) -> Source {
    Source::start(runtime.handle(), options_of(server, end))
}

fn options_of(server: &Maria, end: &FarEnd) -> SourceOptions {
    SourceOptions { semi_sync: true, ..options(vec![root(&server.socket())], end) }
}

fn status(server: &Maria, name: &str) -> String {
    let row = server.sql(&format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_{name}'")).unwrap();
    row[0][1].clone()
}

#[test]
fn commits_wait_fall_back_loudly_and_recover() {
    let runtime = runtime();
    let server = server(
        Options::default()
            .with("--rpl-semi-sync-master-enabled=1")
            .with("--rpl-semi-sync-master-timeout=1500")
            .with("--rpl-semi-sync-master-wait-point=AFTER_SYNC"),
    );
    let end = FarEnd::new();
    let source = semi_sync(&runtime, &server, &end);
    wait("a semi-sync replica", || status(&server, "clients") == "1");
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT)").unwrap();
    let before: u64 = status(&server, "yes_tx").parse().unwrap();
    let mut client = server.connect().unwrap();
    for _ in 0..200 {
        client.run("INSERT INTO d.t VALUES ();").unwrap();
    }
    let acknowledged: u64 = status(&server, "yes_tx").parse().unwrap();
    assert_eq!(acknowledged - before, 200);
    assert_eq!(status(&server, "no_tx"), "0");
    let semi = || source.status().semi_sync.unwrap();
    wait("the state is on", || semi().holds);

    end.hold.send_replace(true);
    client.run("INSERT INTO d.t VALUES ();").unwrap();
    assert_eq!(status(&server, "status"), "OFF", "nothing was durable, so nothing may be acknowledged");
    wait("the fall-back is seen", || semi().state == "fallen back");
    assert_eq!((semi().holds, semi().fallbacks), (false, 1));
    assert!(semi().unprotected_commits >= 1);
    assert!(source.status().lag_ms > 0);

    end.hold.send_replace(false);
    wait("it recovers", || semi().holds);
    client.run("INSERT INTO d.t VALUES ();").unwrap();
    assert!(status(&server, "yes_tx").parse::<u64>().unwrap() > acknowledged);

    // The backup is away: what happens meanwhile is seen all the same.
    let before = semi();
    *end.dialled.lock() = Dialled::Away;
    end.cut_connections();
    wait("it does not hold", || !semi().holds);
    assert_eq!(semi().state, "interrupted");
    client.run("INSERT INTO d.t VALUES ();").unwrap();
    wait("the fall-back is seen", || semi().state == "fallen back");
    assert_eq!(semi().fallbacks, before.fallbacks + 1);
    assert!(semi().unprotected_commits > before.unprotected_commits);
    *end.dialled.lock() = Dialled::Answer;
    wait("it recovers", || semi().holds);

    server.sql("FLUSH BINARY LOGS").unwrap();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
    runtime.block_on(source.stop());

    // Acknowledgements that do not go out end the connection, though events come in.
    let end = FarEnd::new();
    let shared = Arc::new(Shared::new(options_of(&server, &end)));
    let deaf = runtime.spawn(async move {
        let (nobody, _) = tokio::io::duplex(1);
        ship_by_hand(&shared, true, |stream| Stream { writer: Box::new(nobody), ..stream }).await
    });
    wait("a semi-sync replica", || deaf.is_finished() || status(&server, "clients") == "1");
    client.run("INSERT INTO d.t VALUES ();").unwrap();
    let fault = runtime.block_on(async { tokio::time::timeout(DEADLINE, deaf).await }).unwrap().unwrap();
    assert!(
        matches!(fault, SourceFault::Lost { .. }) && fault.to_string().contains("broken pipe"),
        "{fault}"
    );

    // The server waits for another replica, and not for our connection (it is older than the server's semi-sync, or, as
    // here, has not offered to acknowledge).
    let shared = Arc::new(Shared::new(options_of(&server, &FarEnd::new())));
    let (watched, shipped) = (shared.clone(), shared.clone());
    let other = SourceOptions { server_id: 99, ..options_of(&server, &FarEnd::new()) };
    let other = Source::start(runtime.handle(), other);
    client.run("INSERT INTO d.t VALUES ();").unwrap();
    wait("it holds for the other", || other.status().semi_sync.is_some_and(|semi| semi.holds));
    let silent = runtime.spawn(async move { ship_by_hand(&shipped, false, |stream| stream).await });
    let watch = runtime.spawn(semisync::watch(watched));
    wait("it is said", || shared.status().semi_sync.is_some_and(|semi| semi.state == "without the backup"));
    assert!(!shared.status().semi_sync.unwrap().holds && status(&server, "clients") != "0");
    let renewed = async { tokio::time::timeout(DEADLINE, shared.renew.notified()).await };
    runtime.block_on(renewed).expect("the connection is made anew");
    silent.abort();
    watch.abort();
    runtime.block_on(other.stop());
}

/// Ships what the server sends; `changed` is what becomes of the connection.
async fn ship_by_hand(
    shared: &Arc<Shared>,
    semi_sync: bool,
    changed: impl FnOnce(Stream) -> Stream,
) -> SourceFault {
    let dsn = &shared.options.servers[0];
    let blame = Blame::new(dsn, shared.options.server_id);
    let mut lane = Lane::open(&*shared.options.dial, String::new(), &shared.exchange).await.unwrap();
    let mut sql = Sql::connect(dsn).await.unwrap();
    let located = locate(&mut sql, dsn, &lane.end, Permission::default(), &blame).await.unwrap();
    let plan = Plan {
        dialect: located.lineage.flavor,
        server_id: shared.options.server_id,
        start: Start::File { name: located.file.clone(), position: 4 },
        heartbeat: Duration::from_secs(1),
        semi_sync,
        annotate: true,
        non_blocking: false,
    };
    let stream = changed(connect(dsn, plan).await.unwrap());
    shared.streaming(dsn, located.lineage.number, &located.facts.version, String::new());
    ship(shared, &mut lane, located, stream, &blame).await.0
}

#[test]
fn a_server_without_semi_sync_is_said() {
    let runtime = runtime();
    let server = server(Options::default());
    let end = FarEnd::new();
    let source = semi_sync(&runtime, &server, &end);
    caught_up(&runtime, &source);
    wait("the state", || source.status().semi_sync.is_some_and(|semi| semi.state == "impossible"));
    server.sql("SET GLOBAL rpl_semi_sync_master_enabled = 1; CREATE DATABASE d").unwrap();
    wait("it is on", || source.status().semi_sync.is_some_and(|semi| semi.holds));
    caught_up(&runtime, &source);
}

/// Commits that wait, one for the acknowledgement and others behind it with the log's lock.
fn waiting(server: &Maria, first: u32) -> Vec<std::thread::JoinHandle<()>> {
    let clients = (first..first + 3).map(|number| {
        let access = server.access();
        std::thread::spawn(move || drop(access.sql(&format!("INSERT INTO d.t VALUES ({number})")).unwrap()))
    });
    let clients = clients.collect();
    let count = |state: &str| {
        let list =
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT%' AND STATE LIKE";
        server.value(&format!("{list} '{state}'")).unwrap()
    };
    wait("commits wait", || count("Waiting for semi-sync ACK%") == "1" && count("Commit%") != "0");
    clients
}

async fn preflighted(server: &Maria) -> Vec<preflight::Finding> {
    let mut sql = Sql::connect(&root(&server.socket())).await.unwrap();
    let address = DatabaseAddress::Socket(server.socket());
    preflight::check(&mut sql, &Database::at(vec![address], Path::new("/backup"))).await.unwrap()
}

#[test]
fn the_place_is_found_while_commits_wait_for_us() {
    let runtime = runtime();
    let server = server(
        Options::default()
            .with("--rpl-semi-sync-master-timeout=600000")
            .with("--rpl-semi-sync-master-wait-no-slave=1")
            .with("--rpl-semi-sync-master-wait-point=AFTER_SYNC"),
    );
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); FLUSH BINARY LOGS").unwrap();
    server.sql("SET GLOBAL rpl_semi_sync_master_enabled = 1").unwrap();
    let end = FarEnd::new();
    // The first time, and when it is not the server that was followed before.
    for failover in [false, true] {
        let clients = waiting(&server, 1 + 3 * u32::from(failover));
        if !failover {
            let found = runtime.block_on(preflighted(&server));
            assert!(found.iter().any(|finding| finding.name == "commits_wait"), "{found:?}");
        }
        if failover {
            end.contents.lock().lineages.last_mut().unwrap().0.server_id = 99;
        }
        let source = semi_sync(&runtime, &server, &end);
        wait("the commits go through", || clients.iter().all(|client| client.is_finished()));
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(source.status().reconnects, 0, "{:?}", source.status());
        caught_up(&runtime, &source);
        // Where a fence waits for what is committed, what is not yet is not waited for.
        if failover {
            end.hold.send_replace(true);
            let clients = waiting(&server, 7);
            runtime.block_on(source.fresh(DEADLINE)).unwrap();
            assert!(clients.iter().any(|client| !client.is_finished()));
            end.hold.send_replace(false);
            clients.into_iter().for_each(|client| client.join().unwrap());
        }
        runtime.block_on(source.stop());
    }
    let contents = end.contents.lock();
    assert_eq!(contents.lineages.len(), 2);
    assert_eq!(contents.lineages[0].0.first_file, "bin.000001", "the oldest");
    assert!(contents.lineages[1].1.is_some(), "joined");
}
