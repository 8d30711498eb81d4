//! Commits that wait for somebody else's disk: ours against a MariaDB replica with semi-synchronous replication.

use super::compare;
use super::load::{archived, end, primary_options, stack, table, transactions};
use crate::database::Maria;
use anyhow::{Result, bail};
use std::path::Path;
use std::time::Duration;

const CONNECTIONS: u32 = 4;
const COUNT: u64 = 20_000;

/// A primary that waits for one replica.
fn waiting() -> Result<Maria> {
    let options = primary_options()
        .with("--rpl-semi-sync-master-enabled=1")
        .with("--rpl-semi-sync-master-timeout=10000")
        .with("--rpl-semi-sync-master-wait-point=AFTER_SYNC");
    let server = Maria::start(options)?;
    table(&server)?;
    Ok(server)
}

fn holds(server: &Maria, clients: u64) -> Result<bool> {
    let rows = server.sql("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_%'")?;
    let value = |name: &str| rows.iter().find(|row| row[0] == name).map_or("", |row| row[1].as_str());
    Ok(value("Rpl_semi_sync_master_status") == "ON"
        && value("Rpl_semi_sync_master_clients") == clients.to_string())
}

fn measured(server: &Maria) -> Result<f64> {
    crate::process::wait_until("semi-sync is on", Duration::from_secs(60), || {
        holds(server, 1).unwrap_or(false)
    })?;
    transactions(&server.access(), CONNECTIONS, COUNT / 10)?;
    let before = server.value("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_no_tx'")?;
    let rate = transactions(&server.access(), CONNECTIONS, COUNT)?;
    if !holds(server, 1)? || before != server.value("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_no_tx'")? {
        bail!("semi-sync fell back during the measurement");
    }
    Ok(rate)
}

/// A replica that acknowledges when the event is in its relay log, synced as ours is.
fn native() -> Result<f64> {
    let server = waiting()?;
    let replica = Maria::start(
        primary_options().server_id(2).with("--rpl-semi-sync-slave-enabled=1").with("--sync-relay-log=1"),
    )?;
    replica.sql(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root', MASTER_USE_GTID=slave_pos; \
         START SLAVE",
        server.port()?
    ))?;
    measured(&server)
}

fn ours(directory: &Path) -> Result<f64> {
    let server = waiting()?;
    let mut stack = stack(directory, &server, "durability = \"remote\"\nbase_sums = false")?;
    stack.start()?;
    archived(&stack, &end(&server)?, Duration::from_secs(60))?;
    measured(&server)
}

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let (mut peer, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        peer.push(native()?);
        own.push(ours(directory)?);
    }
    compare(
        "semi-synchronous commits, 4 connections",
        "transactions/s",
        "bar 0.9",
        ("MariaDB replica, relay log synced", &mut peer),
        ("ehpc-store", &mut own),
    );
    Ok(())
}
