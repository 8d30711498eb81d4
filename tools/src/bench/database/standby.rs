//! A replica with a backlog: attached to the primary, and to the backup's binlog server.

use super::compare;
use super::load::{archived, end, primary, primary_options, stack, table, transactions};
use crate::database::{Maria, Stack};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

const TRANSACTIONS: u64 = 100_000;

/// Transactions a second until the replica has all of them.
fn apply(from: &str, gtid: &str) -> Result<f64> {
    let replica = Maria::start(
        primary_options()
            .server_id(2)
            .with("--slave-parallel-threads=4")
            .with("--slave-parallel-mode=optimistic")
            .with("--innodb-flush-log-at-trx-commit=2")
            .with("--sync-binlog=0"),
    )?;
    replica.sql(&format!("CHANGE MASTER TO {from}, MASTER_USE_GTID=slave_pos"))?;
    let start = Instant::now();
    replica.sql("START SLAVE")?;
    let done = replica.value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 600)"))?;
    anyhow::ensure!(
        done == "0",
        "the replica did not come there: {:?}",
        replica.sql("SHOW SLAVE STATUS\\G")?
    );
    Ok(TRANSACTIONS as f64 / start.elapsed().as_secs_f64())
}

fn through(stack: &Stack) -> Result<String> {
    let sql = stack.ok("backup", &["db", "standby", "--print-sql"])?;
    let start = sql.find("MASTER_HOST").ok_or_else(|| anyhow::anyhow!("no MASTER_HOST in {sql}"))?;
    let end = sql[start..].find(", MASTER_USE_GTID").map_or(sql.len(), |at| start + at);
    Ok(sql[start..end].trim().trim_end_matches(';').to_owned())
}

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let server = primary()?;
    table(&server)?;
    transactions(&server.access(), 4, TRANSACTIONS)?;
    let gtid = server.value("SELECT @@gtid_binlog_pos")?;
    let mut stack = stack(
        directory,
        &server,
        "base_sums = false\n[database.standby]\nmode = \"external\"\naddress = \"/nowhere\"",
    )?;
    stack.start()?;
    archived(&stack, &end(&server)?, Duration::from_secs(120))?;
    let direct = format!("MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root'", server.port()?);
    let through = through(&stack)?;
    let (mut peer, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        peer.push(apply(&direct, &gtid)?);
        ours.push(apply(&through, &gtid)?);
    }
    compare(
        "a replica's backlog of 100,000 transactions",
        "transactions/s",
        "bar 0.95",
        ("from the primary", &mut peer),
        ("from the archive", &mut ours),
    );
    Ok(())
}
