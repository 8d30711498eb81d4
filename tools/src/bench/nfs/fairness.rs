//! One client with 10,000 calls in flight, another with one: what the second waits, next to what it waits alone.
//!
//! Clients are other machines; here they share two processors with the server. So the server gets the first one for
//! itself, the clients the second, and the light client goes before the heavy one there: what is measured is how long
//! the server lets it wait, not how long it waits for a processor of its own.

use super::load::{self, Limit, Plan, Work};
use super::peers::Server;
use super::{Options, Workload, populate, prepare};
use crate::bench::{median, print_table};
use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const HEAVY_CONNECTIONS: usize = 16;
const HEAVY_DEPTH: usize = 625;
/// The two clients are two addresses.
const HEAVY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const LIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

pub(super) fn run(scratch: &Path, options: &Options) -> Result<()> {
    let home = scratch.join("fairness");
    let everywhere = sched_getaffinity(None)?;
    stay_on(0)?; // the servers inherit it
    let servers = [Server::ours(&home, false)?, Server::ganesha(&home)?];
    let mut rows = vec![
        ["server", "alone p50/p99 us", "next to 10,000 in flight p50/p99 us", "p99 ratio"]
            .map(String::from)
            .to_vec(),
    ];
    stay_on(1)?;
    for server in &servers {
        populate(&server.directory)?;
    }
    for server in &servers {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..options.rounds {
            go_first(true)?;
            let alone = light(server, options.time, &mut *prepare(Workload::Getattr, server)?)?;
            go_first(false)?;
            let crowded = beside_heavy(server, options.time)?;
            for (all, one) in times.iter_mut().zip([alone.0, alone.1, crowded.0, crowded.1]) {
                all.push(one);
            }
        }
        let [p50, p99, crowded_p50, crowded_p99] = times.each_mut().map(|all| median(all));
        rows.push(vec![
            server.name.to_owned(),
            format!("{p50:.0}/{p99:.0}"),
            format!("{crowded_p50:.0}/{crowded_p99:.0}"),
            format!("{:.2}", crowded_p99 / p99),
        ]);
    }
    sched_setaffinity(None, &everywhere)?;
    print_table("Fairness: GETATTR of a client alone and next to another (bar: p99 below 3x)", &rows);
    Ok(())
}

/// This thread, and what it starts from now on, runs on one processor.
fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).context("this measurement needs two processors")
}

/// This thread runs as soon as it can (a real-time policy), or as all others do.
fn go_first(first: bool) -> Result<()> {
    let policy = if first { ["-f", "10"] } else { ["-o", "0"] };
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let done =
        Command::new("chrt").args([policy[0], "-p", policy[1]]).arg(thread).status().context("chrt")?;
    if !done.success() {
        bail!("chrt cannot set the policy of a thread: {done}");
    }
    Ok(())
}

/// p50 and p99 of one call at a time.
fn light(server: &Server, time: Duration, work: &mut dyn Work) -> Result<(f64, f64)> {
    let plan =
        Plan { address: server.address, source: LIGHT, connections: 1, depth: 1, limit: Limit::Time(time) };
    let outcome = load::run(&plan, work)?;
    Ok((outcome.latency.percentile_us(50.0), outcome.latency.percentile_us(99.0)))
}

fn beside_heavy(server: &Server, time: Duration) -> Result<(f64, f64)> {
    let plan = Plan {
        address: server.address,
        source: HEAVY,
        connections: HEAVY_CONNECTIONS,
        depth: HEAVY_DEPTH,
        // Before and after the other.
        limit: Limit::Time(time * 2 + Duration::from_secs(2)),
    };
    let mut work = prepare(Workload::Getattr, server)?;
    let mut own = prepare(Workload::Getattr, server)?;
    std::thread::scope(|scope| {
        let heavy = scope.spawn(move || -> Result<load::Outcome> { load::run(&plan, &mut *work) });
        let before = server.cpu("")?;
        crate::process::wait_until("the heavy load runs", Duration::from_secs(30), || {
            heavy.is_finished() || server.cpu("").is_ok_and(|cpu| cpu - before > 0.3)
        })?;
        go_first(true)?;
        let found = light(server, time, &mut *own);
        go_first(false)?;
        let concurrent = !heavy.is_finished();
        let heavy = heavy.join().ok().context("the heavy load broke")??;
        eprintln!("heavy client of {}: {:.0} calls/s", server.name, heavy.per_second());
        if !concurrent {
            bail!("the heavy load of {} ended before the light one", server.name);
        }
        found
    })
}
