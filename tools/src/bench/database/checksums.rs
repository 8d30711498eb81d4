//! verify's table sums against the bare statement.

use super::compare;
use super::load::{primary, rows, stack};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Instant;

const TABLES: [&str; 4] = ["a", "b", "c", "d"];
const MIB: u64 = 400;

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let server = primary()?;
    for name in TABLES {
        rows(&server, name, MIB)?;
    }
    let mut stack = stack(directory, &server, "base_sums = false\n[database.standby]\nmode = \"managed\"")?;
    stack.start()?;
    stack.ok("nfs1", &["db", "snapshot"])?;
    stack.ok("backup", &["db", "standby", "--init"])?;
    stack.wait("the standby follows", || {
        stack
            .status("backup")
            .is_ok_and(|status| status["standby"]["well"] == true && status["standby"]["lag_ms"] == 0)
    })?;
    let bytes = (TABLES.len() as u64 * MIB) as f64;
    let (mut peer, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        for name in TABLES {
            server.sql(&format!("CHECKSUM TABLE bench.{name}"))?;
        }
        peer.push(bytes / start.elapsed().as_secs_f64());
        let report = stack.ok("nfs1", &["verify", "--database", "--json"])?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let seconds = report["database"]["tables"]["seconds"].as_f64().context("no time in the report")?;
        ours.push(bytes / seconds);
    }
    compare(
        "table checksums, 4 tables of 400 MiB",
        "MiB/s",
        "bar 0.9",
        ("CHECKSUM TABLE", &mut peer),
        ("ehpc-store verify, both servers at the same time on this machine", &mut ours),
    );
    Ok(())
}
