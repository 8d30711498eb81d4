//! `ehpc-tools`: the laboratory's command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use ehpc_tools::microvm;
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
    }
}
