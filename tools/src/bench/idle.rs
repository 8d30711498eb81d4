//! CPU of both daemons while nothing happens.

use super::print_table;
use crate::cluster::Cluster;
use crate::process::Daemon;
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// A minute of rest over a synced tree of 10,000 files.
pub fn run(scratch: &Path) -> Result<()> {
    let directory = scratch.join("idle");
    let _ = std::fs::remove_dir_all(&directory);
    let mut cluster = Cluster::new(&directory)?;
    super::tree::small_files(&cluster.share(), 10_000, 5)?;
    cluster.start()?;
    cluster.fence()?;
    cluster.settle_backup(Duration::from_secs(60))?;
    let cpu = |daemon: &Option<Daemon>| -> Result<f64> { Ok(daemon.as_ref().context("gone")?.usage()?.1) };
    rest(Duration::from_secs(10));
    let before = (cpu(&cluster.nfs1)?, cpu(&cluster.backup)?);
    rest(Duration::from_secs(60));
    let after = (cpu(&cluster.nfs1)?, cpu(&cluster.backup)?);
    let percent = |seconds: f64| format!("{:.3} %", seconds / 60.0 * 100.0);
    print_table(
        "Idle, one minute (bar: under 0.2 % CPU each)",
        &[
            ["daemon", "CPU"].map(String::from).to_vec(),
            vec!["nfs1".into(), percent(after.0 - before.0)],
            vec!["backup".into(), percent(after.1 - before.1)],
        ],
    );
    Ok(())
}

fn rest(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}
