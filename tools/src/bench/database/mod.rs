//! The database's backup against MariaDB's own tools: `mariadb-binlog --raw`, semi-synchronous and ordinary replicas,
//! `CHECKSUM TABLE`. Everything on one disk, both sides alternating within one run.

mod archive;
mod checksums;
mod lag;
mod load;
mod memory;
mod primary;
mod semi_sync;
mod standby;
mod tail;

use super::{median, print_table};
use anyhow::Result;
use std::path::Path;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Workload {
    /// An existing binary log into an empty archive, against `mariadb-binlog --raw`.
    Archive,
    /// From a commit's return to its being on the backup's disk.
    Lag,
    /// Commits that wait for the backup, against a semi-synchronous MariaDB replica.
    SemiSync,
    /// A replica's backlog through the archive, against the same from the primary.
    Standby,
    /// Transactions of the primary with and without a backup.
    Primary,
    /// verify's table sums, against `CHECKSUM TABLE`.
    Checksums,
    /// Memory of both daemons with a transaction of 1 GiB.
    Memory,
}

const ALL: [Workload; 7] = [
    Workload::Archive,
    Workload::Lag,
    Workload::SemiSync,
    Workload::Standby,
    Workload::Primary,
    Workload::Checksums,
    Workload::Memory,
];

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Empty: everything.
    pub workloads: Vec<Workload>,
    /// Rounds of each comparison.
    pub rounds: usize,
}

/// Measures and prints.
pub fn run(scratch: &Path, options: &Options) -> Result<()> {
    let chosen = if options.workloads.is_empty() { &ALL[..] } else { &options.workloads };
    for workload in chosen {
        let directory = scratch.join("database");
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory)?;
        match workload {
            Workload::Archive => archive::run(&directory, options.rounds)?,
            Workload::Lag => lag::run(&directory)?,
            Workload::SemiSync => semi_sync::run(&directory, options.rounds)?,
            Workload::Standby => standby::run(&directory, options.rounds)?,
            Workload::Primary => primary::run(&directory, options.rounds)?,
            Workload::Checksums => checksums::run(&directory, options.rounds)?,
            Workload::Memory => memory::run(&directory)?,
        }
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

/// Prints the two sides of a comparison: median, smallest and largest, and the ratio of the medians.
fn compare(title: &str, unit: &str, bar: &str, peer: (&str, &mut [f64]), ours: (&str, &mut [f64])) {
    let base = median(peer.1);
    let row = |name: &str, values: &mut [f64]| {
        let middle = median(values);
        let (least, most) = values.iter().fold((f64::MAX, 0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        vec![
            name.to_owned(),
            format!("{middle:.1}"),
            format!("{least:.1} to {most:.1}"),
            format!("{:.2}", middle / base),
        ]
    };
    let head = vec![title.to_owned(), unit.to_owned(), "range".to_owned(), format!("ratio ({bar})")];
    print_table(title, &[head, row(peer.0, peer.1), row(ours.0, ours.1)]);
}
