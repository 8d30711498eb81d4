//! From a commit's return to the moment at which a replica of the backup could have it: on the backup's disk.

use super::load::{archived, end, primary, stack, table};
use super::tail::Tail;
use crate::bench::{percentile, print_table};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const COMMITS: usize = 2000;
/// Between two commits.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn run(directory: &Path) -> Result<()> {
    let server = primary()?;
    table(&server)?;
    let mut stack = stack(directory, &server, "base_sums = false")?;
    stack.start()?;
    let at = end(&server)?;
    archived(&stack, &at, Duration::from_secs(60))?;
    let mut tail = Tail::connect(&stack, &at)?;
    let (told, arrivals) = mpsc::channel();
    let reader = std::thread::spawn(move || -> Result<()> {
        for _ in 0..COMMITS {
            tail.next_commit()?;
            told.send(Instant::now())?;
        }
        Ok(())
    });
    let mut client = server.connect()?;
    let (_keep, never) = mpsc::channel::<()>();
    let mut lags = Vec::new();
    for _ in 0..COMMITS {
        client.run("INSERT INTO bench.t (a, b) VALUES (1, REPEAT('x', 150));")?;
        let returned = Instant::now();
        let arrived = arrivals.recv_timeout(Duration::from_secs(20)).context("a commit did not arrive")?;
        lags.push(arrived.saturating_duration_since(returned).as_secs_f64() * 1000.0);
        let _ = never.recv_timeout(PAUSE);
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reader ended with a panic"))??;
    print_table(
        "lag: commit's return to durable on the backup and sent on to a replica, one commit each 5 ms",
        &[
            ["", "p50 ms (bar 2)", "p99 ms (bar 10)", "largest ms"].map(String::from).to_vec(),
            vec![
                "ehpc-store".to_owned(),
                format!("{:.2}", percentile(&mut lags, 50.0)),
                format!("{:.2}", percentile(&mut lags, 99.0)),
                format!("{:.2}", percentile(&mut lags, 100.0)),
            ],
        ],
    );
    Ok(())
}
