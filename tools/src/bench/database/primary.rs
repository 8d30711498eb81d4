//! What the backup costs the primary, asynchronously.

use super::compare;
use super::load::{archived, end, primary, stack, table, transactions};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const COUNT: u64 = 30_000;

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let server = primary()?;
    table(&server)?;
    let mut stack = stack(directory, &server, "base_sums = false")?;
    transactions(&server.access(), 4, COUNT / 3)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(3) {
        without.push(transactions(&server.access(), 4, COUNT)?);
        stack.start()?;
        archived(&stack, &end(&server)?, Duration::from_secs(120))?;
        with.push(transactions(&server.access(), 4, COUNT)?);
        stack.stop()?;
    }
    compare(
        "transactions of the primary, 4 connections",
        "transactions/s",
        "bar 0.95",
        ("alone", &mut without),
        ("with nfs1 and backup on the same machine", &mut with),
    );
    Ok(())
}
