//! The binlog server with real replicas, against a real server, and with strangers.

mod archive;
mod client;
mod hostile;
mod lineages;
mod maria;
mod mysql;
mod real_archive;
mod rot;
mod wire;

use self::archive::TestArchive;
use super::{BinlogServer, Feed};
use ehpc_tools::database::Access;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

const USER: &str = "replica";
const PASSWORD: &str = "it's \\ secret";

/// A server for `archive` on a free port.
fn serve(archive: &Arc<TestArchive>) -> BinlogServer {
    serve_at(archive, 0)
}

/// A server at a port.
fn serve_at(archive: &Arc<TestArchive>, port: u16) -> BinlogServer {
    serve_feed(Arc::clone(archive) as Arc<dyn Feed>, port)
}

/// A server for any feed.
fn serve_feed(feed: Arc<dyn Feed>, port: u16) -> BinlogServer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    BinlogServer::start(&tokio::runtime::Handle::current(), listener, feed, USER, PASSWORD).unwrap()
}

/// Waits for a condition that a server is asked for.
async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(90), "not within 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One value of SHOW SLAVE STATUS.
fn replica_status(access: &Access, column: &str) -> String {
    let mut command = access.command();
    command.args(["--column-names", "--vertical", "-e", "SHOW SLAVE STATUS"]);
    let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{column}:")).map(str::trim));
    line.unwrap_or_default().to_owned()
}

/// CHANGE MASTER to the binlog server, with `rest` (how it starts) at its end.
fn change_master(port: u16, rest: &str) -> String {
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{USER}', \
         MASTER_PASSWORD='{password}', MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1, {rest};"
    )
}

/// The data of two servers is equal.
fn assert_same_data(a: &Access, b: &Access) {
    let (a, b) = (data(a), data(b));
    let differing: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a != b).collect();
    assert!(differing.is_empty() && a.len() == b.len() && !a.is_empty(), "{differing:#?}");
}

/// All data of the databases `work` and `shop` as text: definitions, checksums, counts.
fn data(access: &Access) -> Vec<String> {
    let tables = access
        .sql(
            "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
             WHERE table_schema IN ('work', 'shop') AND table_type <> 'VIEW' ORDER BY 1",
        )
        .unwrap();
    let mut found = Vec::new();
    for table in tables.iter().map(|row| &row[0]) {
        let rows = access
            .sql(&format!("CHECKSUM TABLE {table}; SELECT COUNT(*) FROM {table}; SHOW CREATE TABLE {table}"))
            .unwrap();
        // The next number of AUTO_INCREMENT moves with statements that were rolled back, too: a replica does not see them.
        let text = format!("{rows:?}");
        let (before, after) = text.split_once(" AUTO_INCREMENT=").unwrap_or((&text, ""));
        found.push(format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit())));
    }
    found
}
