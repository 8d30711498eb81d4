//! Throughput: 2 GiB of binary log that exist already.

use super::compare;
use super::load::{archived, end, primary, rows, stack};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1024;

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let server = primary()?;
    rows(&server, "a", MIB)?;
    rows(&server, "b", MIB)?;
    let end = end(&server)?;
    let files = server.binlog_files()?;
    let mut bytes = 0;
    for file in &files {
        // Both sides read it from memory.
        bytes += std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
    }
    let rate = |time: Duration| bytes as f64 / (1 << 20) as f64 / time.as_secs_f64();
    let (mut peer, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let raw = directory.join("raw");
        std::fs::create_dir_all(&raw)?;
        let start = Instant::now();
        let output = Command::new("mariadb-binlog")
            .args(["--no-defaults", "--read-from-remote-server", "--raw", "--to-last-log", "--user=root"])
            .arg(format!("--socket={}", server.socket().display()))
            .arg(format!("--result-file={}/", raw.display()))
            .arg(files[0].file_name().unwrap_or_default())
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("mariadb-binlog: {}", String::from_utf8_lossy(&output.stderr));
        }
        peer.push(rate(start.elapsed()));
        std::fs::remove_dir_all(&raw)?;
        let mut stack = stack(directory, &server, "base_sums = false")?;
        stack.start_backup()?;
        let start = Instant::now();
        stack.start_nfs1()?;
        archived(&stack, &end, Duration::from_secs(300))?;
        ours.push(rate(start.elapsed()));
        drop(stack);
    }
    compare(
        "archive throughput",
        "MiB/s",
        "bar 1.0, ours with the daemon's start and every byte synced",
        ("mariadb-binlog --raw (not synced)", &mut peer),
        ("ehpc-store", &mut ours),
    );
    Ok(())
}
