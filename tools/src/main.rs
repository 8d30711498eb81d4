//! `ehpc-tools`: the laboratory's command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use ehpc_tools::{bench, microvm};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "ehpc-tools", about = "Laboratory of ehpc-store: micro virtual machines and benchmarks")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot a guest with Debian's kernel and run a script in it; prints what the script prints.
    Microvm {
        /// Shell script (busybox sh).
        script: PathBuf,
        /// Port of an NFS export on the host's loopback, mounted at /mnt before the script runs.
        #[arg(long)]
        nfs_port: Option<u16>,
        /// Name of the export.
        #[arg(long, default_value = "/share")]
        export: String,
    },
    /// Measure against the peers (run through tools/bench, which builds what is measured).
    Bench(BenchArguments),
}

#[derive(clap::Args)]
struct BenchArguments {
    /// What to measure; everything when left out.
    #[arg(value_enum)]
    what: Vec<Bench>,
    /// Rounds of the comparisons; 3, of `proxy` 6 when left out.
    #[arg(long)]
    rounds: Option<usize>,
    /// What `nfs` measures; everything when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<bench::nfs::Workload>,
    /// What `proxy` measures; everything when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    proxy_workloads: Vec<bench::proxy::Workload>,
    /// What `database` measures; everything when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    database_workloads: Vec<bench::database::Workload>,
    /// Seconds of each timed measurement: 1 of `nfs`, 5 of `proxy` when left out.
    #[arg(long)]
    seconds: Option<f64>,
    /// `proxy`: HAProxy against itself only.
    #[arg(long)]
    noise_only: bool,
    /// `proxy`: one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Small files of the first sync.
    #[arg(long, default_value_t = 200_000)]
    files: u64,
    /// GiB of the big file.
    #[arg(long, default_value_t = 8)]
    gib: u64,
    /// Size of the two file systems that everything runs on, GiB (sparse images).
    #[arg(long, default_value_t = 60)]
    disk_gib: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Many small files against rsync.
    FirstSync,
    /// One big file against rsync.
    Big,
    /// From close to the live replica.
    Lag,
    /// A directory with 100,000 files renamed.
    Rename,
    /// CPU of a minute's rest.
    Idle,
    /// NFS against nfs-ganesha; only when named.
    Nfs,
    /// The proxy against HAProxy; only when named, and alone.
    Proxy,
    /// The database's backup against MariaDB's own tools; only when named, and alone.
    Database,
}

fn run_benches(arguments: &BenchArguments) -> Result<()> {
    let scratch = match std::env::var_os("EHPC_BENCH_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from("target/bench"),
    };
    std::fs::create_dir_all(&scratch)?;
    let scratch = scratch.canonicalize()?;
    if arguments.what == [Bench::Proxy] {
        return bench::proxy::run(
            &scratch,
            &bench::proxy::Options {
                workloads: arguments.proxy_workloads.clone(),
                rounds: arguments.rounds.unwrap_or(6),
                time: std::time::Duration::from_secs_f64(arguments.seconds.unwrap_or(5.0)),
                noise_only: arguments.noise_only,
                json: arguments.json,
            },
        );
    }
    let rounds = arguments.rounds.unwrap_or(3);
    if arguments.what == [Bench::Database] {
        let workloads = arguments.database_workloads.clone();
        return bench::database::run(&scratch, &bench::database::Options { workloads, rounds });
    }
    let source = bench::disk::Disk::mount(&scratch, "source", arguments.disk_gib)?;
    let target = bench::disk::Disk::mount(&scratch, "target", arguments.disk_gib)?;
    let disks = bench::first_sync::Disks { source: source.path(), target: target.path() };
    let all = [Bench::FirstSync, Bench::Big, Bench::Lag, Bench::Rename, Bench::Idle];
    let chosen = if arguments.what.is_empty() { &all[..] } else { &arguments.what };
    for what in chosen {
        let scratch = source.path();
        match what {
            Bench::FirstSync => bench::first_sync::small(&disks, arguments.files, rounds)?,
            Bench::Big => bench::first_sync::big(&disks, arguments.gib, rounds)?,
            Bench::Lag => bench::lag::run(scratch, 5000)?,
            Bench::Rename => bench::rename::run(scratch, 100_000)?,
            Bench::Idle => bench::idle::run(scratch)?,
            Bench::Nfs => bench::nfs::run(
                scratch,
                &bench::nfs::Options {
                    workloads: arguments.workloads.clone(),
                    rounds,
                    time: std::time::Duration::from_secs_f64(arguments.seconds.unwrap_or(1.0)),
                },
            )?,
            Bench::Proxy | Bench::Database => {
                anyhow::bail!("`proxy` and `database` are measured alone: they need both processors")
            }
        }
    }
    Ok(())
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Microvm { script, nfs_port, export } => {
            let mut text = std::fs::read_to_string(script)?;
            if let Some(port) = nfs_port {
                text = format!("{}\n{text}", microvm::mount_command(port, &export, "/mnt"));
            }
            let outcome = microvm::run(&microvm::Spec::new(text))?;
            print!("{}", outcome.output);
            Ok(ExitCode::from(outcome.status.clamp(0, 255) as u8))
        }
        Command::Bench(arguments) => {
            run_benches(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
