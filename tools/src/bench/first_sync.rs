//! First sync of an export against `rsync -aH` through an rsync daemon: same tree, empty target, same disk,
//! both begun with cold caches and ended by a sync.
//!
//! The targets lie on a file system of their own, as a backup does: fanotify reports a whole file system, and nfs1
//! would otherwise be told of every file that the backup writes. Both are made for
//! the measurement, with a journal: an ext4 without one searches past recently deleted inodes, for minutes.

use super::{median, print_table, tree};
use crate::cluster::Cluster;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where source and targets lie.
pub struct Disks<'a> {
    /// The export and nfs1's state.
    pub source: &'a Path,
    /// The backup, and rsync's target.
    pub target: &'a Path,
}

/// What one run of ours took.
struct Run {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: [f64; 2],
}

/// 200,000 small files (or `files`), `rounds` rounds, alternating.
pub fn small(disks: &Disks<'_>, files: u64, rounds: usize) -> Result<()> {
    let share = prepare(disks.source)?;
    tree::small_files(&share, files, 1)?;
    compare(disks, &format!("First sync, {files} small files"), rounds, &[("with mirror", &[])])
}

/// One incompressible file of `gib` GiB, with and without the mirror.
pub fn big(disks: &Disks<'_>, gib: u64, rounds: usize) -> Result<()> {
    let share = prepare(disks.source)?;
    tree::big_file(&share.join("big"), gib << 30, 2)?;
    let title = format!("First sync, one file of {gib} GiB");
    compare(disks, &title, rounds, &[("with mirror", &[]), ("mirror = false", &["--no-mirror"])])
}

fn prepare(scratch: &Path) -> Result<std::path::PathBuf> {
    let share = scratch.join("ours/share");
    let _ = std::fs::remove_dir_all(scratch.join("ours"));
    std::fs::create_dir_all(&share)?;
    Ok(share)
}

fn compare(disks: &Disks<'_>, title: &str, rounds: usize, variants: &[(&str, &[&str])]) -> Result<()> {
    let mut peer = Vec::new();
    let mut ours: Vec<Vec<Run>> = variants.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        peer.push(rsync(disks)?);
        for (runs, (_, arguments)) in ours.iter_mut().zip(variants) {
            runs.push(product(disks, arguments)?);
        }
    }
    let base = median(&mut peer);
    let mut rows = vec![
        ["", "seconds (median)", "ratio", "CPU s, both daemons", "peak MiB nfs1", "peak MiB backup"]
            .map(String::from)
            .to_vec(),
        vec!["rsync -aH, daemon".into(), format!("{base:.2}"), "1.00".into()],
    ];
    for (runs, (name, _)) in ours.iter().zip(variants) {
        let time = median(&mut runs.iter().map(|run| run.seconds).collect::<Vec<_>>());
        let cpu = median(&mut runs.iter().map(|run| run.cpu_seconds).collect::<Vec<_>>());
        let peak = |side: usize| runs.iter().map(|run| run.peak_mib[side]).fold(0.0, f64::max);
        rows.push(vec![
            format!("ehpc-store, {name}"),
            format!("{time:.2}"),
            format!("{:.2}", time / base),
            format!("{cpu:.2}"),
            format!("{:.0}", peak(0)),
            format!("{:.0}", peak(1)),
        ]);
    }
    print_table(title, &rows);
    Ok(())
}

fn product(disks: &Disks<'_>, backup_arguments: &[&str]) -> Result<Run> {
    let directory = disks.source.join("ours");
    let backup = disks.target.join("backup");
    super::disk::cold([disks.source, disks.target])?;
    let mut cluster = Cluster::new(&directory)?;
    cluster.backup_at = Some(backup.clone());
    cluster.backup_arguments = backup_arguments.iter().map(|a| a.to_string()).collect();
    cluster.start_backup()?;
    let start = Instant::now();
    cluster.start_nfs1()?;
    cluster.fence()?;
    cluster.settle_backup(Duration::from_secs(600))?;
    sync()?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = [&cluster.nfs1, &cluster.backup].map(|d| d.as_ref().context("gone").and_then(|d| d.usage()));
    let [(nfs1_kib, nfs1_cpu), (backup_kib, backup_cpu)] =
        [usage[0].as_ref(), usage[1].as_ref()].map(|u| match u {
            Ok(usage) => *usage,
            Err(_) => (0, 0.0),
        });
    drop(cluster);
    std::fs::remove_dir_all(backup)?;
    std::fs::remove_dir_all(directory.join("nfs1"))?;
    Ok(Run {
        seconds,
        cpu_seconds: nfs1_cpu + backup_cpu,
        peak_mib: [nfs1_kib as f64 / 1024.0, backup_kib as f64 / 1024.0],
    })
}

fn sync() -> Result<()> {
    Command::new("sync").status()?;
    Ok(())
}

/// Seconds of `rsync -aH SHARE/ rsync://127.0.0.1:PORT/target/` and a sync.
fn rsync(disks: &Disks<'_>) -> Result<f64> {
    let target = disks.target.join("rsync-target");
    std::fs::create_dir_all(&target)?;
    super::disk::cold([disks.source, disks.target])?;
    let daemon = RsyncDaemon::start(disks.target, &target)?;
    let start = Instant::now();
    let status = Command::new("rsync")
        .arg("-aH")
        .arg(format!("{}/", disks.source.join("ours/share").display()))
        .arg(format!("rsync://127.0.0.1:{}/target/", daemon.port))
        .status()?;
    sync()?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("rsync failed: {status}");
    }
    drop(daemon);
    std::fs::remove_dir_all(&target)?;
    Ok(seconds)
}

struct RsyncDaemon {
    child: Child,
    port: u16,
}

impl RsyncDaemon {
    fn start(scratch: &Path, target: &Path) -> Result<RsyncDaemon> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = scratch.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\n[target]\npath = {}\nread only = no\nuid = root\ngid = root\n",
            target.display()
        );
        std::fs::write(&config, text)?;
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}"), "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .context("rsync --daemon")?;
        crate::process::wait_until("rsync daemon listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(RsyncDaemon { child, port })
    }
}

impl Drop for RsyncDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
