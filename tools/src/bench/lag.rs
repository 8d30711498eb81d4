//! Lag: from a client's close to "on the backup", on an idle system, one small file after another.
//! The figure is an upper bound: it ends when the file stands in the live replica, which is after it is durable.

use super::{percentile, print_table};
use crate::cluster::Cluster;
use crate::nfs_client::Client;
use anyhow::Result;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// `files` files through NFS (CREATE, WRITE, COMMIT) and as many by a local process.
pub fn run(scratch: &Path, files: usize) -> Result<()> {
    let directory = scratch.join("lag");
    let _ = std::fs::remove_dir_all(&directory);
    let mut cluster = Cluster::new(&directory)?;
    cluster.start()?;
    cluster.fence()?;
    let mut rows = vec![["writer", "files", "p50 ms", "p99 ms", "max ms"].map(String::from).to_vec()];
    let mut client = Client::connect(("127.0.0.1", cluster.nfs_port()?))?;
    let root = client.mount("/share")?;
    let mut nfs = lags(&cluster, files, |name| {
        let file = client.create(&root, name.as_bytes())?;
        client.write(&file, 0, &[b'x'; 4096])?;
        client.commit(&file)?;
        Ok(())
    })?;
    rows.push(row("NFS client", &mut nfs));
    let share = cluster.share();
    let mut local = lags(&cluster, files, |name| Ok(std::fs::write(share.join(name), [b'y'; 4096])?))?;
    rows.push(row("local process", &mut local));
    print_table("Lag, close to live replica (bars: p50 <= 15 ms, p99 <= 60 ms)", &rows);
    Ok(())
}

fn row(name: &str, lags: &mut [f64]) -> Vec<String> {
    let mut cells = vec![name.to_owned(), lags.len().to_string()];
    cells.extend([50.0, 99.0, 100.0].map(|percent| format!("{:.2}", percentile(lags, percent))));
    cells
}

fn lags(cluster: &Cluster, files: usize, mut write: impl FnMut(&str) -> Result<()>) -> Result<Vec<f64>> {
    let (_keep, never) = mpsc::channel::<()>();
    let mut lags = Vec::with_capacity(files);
    let kind = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
    for number in 0..files {
        let name = format!("lag-{kind}-{number}");
        let replica = cluster.mirror().join(&name);
        write(&name)?;
        let start = Instant::now();
        while std::fs::symlink_metadata(&replica).map(|m| m.len()).unwrap_or(0) < 4096 {
            if start.elapsed() > Duration::from_secs(30) {
                anyhow::bail!("{name} did not reach the replica in 30 s\n{}", cluster.logs());
            }
            let _ = never.recv_timeout(Duration::from_micros(100));
        }
        lags.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(lags)
}
