//! A transaction of 1 GiB in flight.

use super::load::{archived, end, primary, rows, stack};
use crate::bench::print_table;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

pub(super) fn run(directory: &Path) -> Result<()> {
    let server = primary()?;
    rows(&server, "a", 512)?;
    server.sql("CREATE TABLE bench.big LIKE bench.a")?;
    let mut stack = stack(directory, &server, "base_sums = false")?;
    stack.start()?;
    archived(&stack, &end(&server)?, Duration::from_secs(120))?;
    let before = end(&server)?;
    server.sql(
        "START TRANSACTION; INSERT INTO bench.big SELECT * FROM bench.a; \
         INSERT INTO bench.big SELECT id + 1000000000, a, b, c FROM bench.a; \
         INSERT INTO bench.big SELECT id + 2000000000, a, b, c FROM bench.a; COMMIT",
    )?;
    let after = end(&server)?;
    archived(&stack, &after, Duration::from_secs(120))?;
    let peak = |daemon: &Option<crate::process::Daemon>| -> Result<f64> {
        Ok(daemon.as_ref().context("gone")?.usage()?.0 as f64 / 1024.0)
    };
    print_table(
        "memory with a large transaction in flight",
        &[
            ["", "peak MiB (bar 128)"].map(String::from).to_vec(),
            vec![format!("binary log from {before:?} to {after:?}"), String::new()],
            vec!["nfs1".to_owned(), format!("{:.0}", peak(&stack.nfs1)?)],
            vec!["backup".to_owned(), format!("{:.0}", peak(&stack.backup)?)],
        ],
    );
    Ok(())
}
