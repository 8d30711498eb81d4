//! What recording and sending changes costs nfs1: the same calls to an export with a paired backup and to one whose
//! changes nobody takes.

use super::load::{self, Limit};
use super::peers::Server;
use super::{Options, Workload, depth, plan, populate, prepare};
use crate::bench::{median, print_table};
use crate::cluster::Cluster;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

/// Threads that answer requests.
const REQUEST_THREADS: &str = "nfs-";

pub(super) fn run(scratch: &Path, options: &Options) -> Result<()> {
    let home = scratch.join("replication");
    let off = Server::ours(&home, false)?;
    populate(&off.directory)?;
    let mut cluster = Cluster::new(&home.join("on"))?;
    cluster.nfs1_arguments.push("--async".to_owned());
    populate(&cluster.share())?;
    cluster.start()?;
    cluster.fence()?;
    cluster.settle_backup(Duration::from_secs(120))?;
    let daemon = cluster.nfs1.take().context("nfs1 is gone")?;
    let on = Server::running("replicated", daemon, &cluster.share())?;
    let mut rows = vec![
        ["what", "off/s", "on/s", "off CPU us/op", "on CPU us/op", "request path", "whole nfs1 us/op"]
            .map(String::from)
            .to_vec(),
    ];
    for workload in [Workload::Write4k, Workload::Write64k, Workload::Read4k, Workload::Read64k] {
        let mut all: [Vec<f64>; 5] = Default::default();
        for _ in 0..options.rounds {
            let one = measure(&off, workload, options)?;
            let two = measure(&on, workload, options)?;
            for (values, value) in all.iter_mut().zip([one.0, two.0, one.1, two.1, two.2]) {
                values.push(value);
            }
        }
        let [off_rate, on_rate, off_cpu, on_cpu, whole] = all.each_mut().map(|values| median(values));
        rows.push(vec![
            format!("{workload:?}"),
            format!("{off_rate:.0}"),
            format!("{on_rate:.0}"),
            format!("{off_cpu:.2}"),
            format!("{on_cpu:.2}"),
            format!("{:+.0} %", (on_cpu / off_cpu - 1.0) * 100.0),
            format!("{whole:.2}"),
        ]);
    }
    print_table(
        "Replication on and off, 8 connections (bars: write +25 %, read +5 % on the request path)",
        &rows,
    );
    Ok(())
}

/// Calls a second, CPU a call of the request threads and of the whole process.
fn measure(server: &Server, workload: Workload, options: &Options) -> Result<(f64, f64, f64)> {
    let mut work = prepare(workload, server)?;
    let plan = plan(server, 8, depth(workload), Limit::Time(options.time));
    let before = (server.cpu(REQUEST_THREADS)?, server.cpu("")?);
    let outcome = load::run(&plan, &mut *work)?;
    let (path, whole) = (server.cpu(REQUEST_THREADS)? - before.0, server.cpu("")? - before.1);
    let each = |cpu: f64| cpu * 1e6 / outcome.calls as f64;
    Ok((outcome.per_second(), each(path), each(whole)))
}
