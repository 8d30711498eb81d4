//! A rename of a directory with many files: how long until the backup is consistent.

use super::print_table;
use crate::cluster::Cluster;
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

/// `files` files below one directory, renamed by a local process, five times.
pub fn run(scratch: &Path, files: u64) -> Result<()> {
    let directory = scratch.join("rename");
    let _ = std::fs::remove_dir_all(&directory);
    let mut cluster = Cluster::new(&directory)?;
    super::tree::small_files(&cluster.share().join("d0"), files, 3)?;
    cluster.start()?;
    cluster.fence()?;
    cluster.settle_backup(Duration::from_secs(600))?;
    let mut times = Vec::new();
    for round in 0..5 {
        let target = cluster.mirror().join(format!("d{}", round + 1));
        let start = Instant::now();
        std::fs::rename(
            cluster.share().join(format!("d{round}")),
            cluster.share().join(format!("d{}", round + 1)),
        )?;
        cluster.fence()?;
        cluster.wait("the renamed directory in the mirror", || target.exists())?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    print_table(
        &format!("Rename of a directory with {files} files (bar: under 1 s)"),
        &[
            ["", "p50 ms", "max ms"].map(String::from).to_vec(),
            vec![
                "durable and in the mirror".into(),
                format!("{:.1}", super::median(&mut times)),
                format!("{:.1}", super::percentile(&mut times, 100.0)),
            ],
        ],
    );
    Ok(())
}
