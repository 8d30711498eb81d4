//! Load on a server: rows to begin with, and small transactions from several connections.

use crate::database::{Access, Maria, Options, Stack};
use crate::process::{pause, wait_until};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A primary as people run one: everything synced at commit, memory enough.
pub(super) fn primary() -> Result<Maria> {
    Maria::start(primary_options())
}

/// Its options.
pub(super) fn primary_options() -> Options {
    Options::default()
        .tcp()
        .with("--innodb-buffer-pool-size=512M")
        .with("--innodb-log-file-size=512M")
        .with("--max-binlog-size=1G")
}

/// nfs1 and backup for `server`, with more lines of `[database]`.
pub(super) fn stack(directory: &Path, server: &Maria, more: &str) -> Result<Stack> {
    let at = directory.join("stack");
    let _ = std::fs::remove_dir_all(&at);
    std::fs::create_dir_all(&at)?;
    Stack::new(&at, &format!("address = \"{}\"\nuser = \"root\"\n{more}", server.socket().display()))
}

/// A table `bench.t` for [`transactions`].
pub(super) fn table(server: &Maria) -> Result<()> {
    server.sql(
        "CREATE DATABASE IF NOT EXISTS bench; \
         CREATE TABLE IF NOT EXISTS bench.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT NOT NULL, b VARCHAR(200) NOT NULL, \
         KEY(a)) ENGINE=InnoDB",
    )?;
    Ok(())
}

/// `count` transactions of one row each from `connections` connections; transactions a second.
pub(super) fn transactions(access: &Access, connections: u32, count: u64) -> Result<f64> {
    let mut command = std::process::Command::new("mariadb-slap");
    command
        .args(["--no-defaults", "--user=root", "--no-drop", "--create-schema=bench", "--iterations=1"])
        .arg(format!("--socket={}", access.socket.display()))
        .arg(format!("--concurrency={connections}"))
        .arg(format!("--number-of-queries={count}"))
        .arg("--query=INSERT INTO t (a, b) VALUES (FLOOR(RAND()*1000000), REPEAT('x', 150))")
        .stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output()?;
    if !output.status.success() {
        bail!("mariadb-slap: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Fills `bench.NAME` with about `mib` MiB of rows.
pub(super) fn rows(server: &Maria, name: &str, mib: u64) -> Result<()> {
    // A row is about 200 bytes.
    let count = mib * 1024 * 1024 / 200;
    server.sql(&format!(
        "CREATE DATABASE IF NOT EXISTS bench; \
         CREATE TABLE bench.{name} (id BIGINT PRIMARY KEY, a INT, b DOUBLE, c VARCHAR(200)) ENGINE=InnoDB"
    ))?;
    let step = 100_000;
    for from in (0..count).step_by(step) {
        let to = (from + step as u64).min(count) - 1;
        server.sql(&format!(
            "USE bench; INSERT INTO {name} SELECT seq, seq * 7 % 1000003, seq / 3, \
             CONCAT(MD5(seq), MD5(seq + 1), MD5(seq + 2), MD5(seq + 3), MD5(seq + 4)) FROM seq_{from}_to_{to}"
        ))?;
    }
    Ok(())
}

/// (file, position) at the end of the binary log.
pub(super) fn end(server: &Maria) -> Result<(String, u64)> {
    let rows = server.sql("SHOW MASTER STATUS")?;
    let row = rows.first().ok_or_else(|| anyhow::anyhow!("no binary log"))?;
    Ok((row[0].clone(), row[1].parse()?))
}

/// Waits until the archive holds everything up to there; at most `patience`.
pub(super) fn archived(stack: &Stack, end: &(String, u64), patience: Duration) -> Result<()> {
    let mut at = Value::Null;
    wait_until("everything is in the archive", patience, || {
        if let Ok(mut status) = stack.status("backup") {
            at = status["archive"].take();
        }
        let (file, offset) = (at["file"].as_str().unwrap_or(""), at["offset"].as_u64().unwrap_or(0));
        if (file, offset) >= (end.0.as_str(), end.1) {
            return true;
        }
        // Looking is a process of its own: not so often that it takes a processor from those who work.
        pause(Duration::from_millis(50));
        false
    })
    .with_context(|| format!("the archive is at {at} and not at {end:?}\n{}", stack.logs()))?;
    Ok(())
}
