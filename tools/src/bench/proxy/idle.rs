//! Memory: 10,000 connections that asked once, all at once or 64 after 64.

use super::load::{Arrival, Plan, World};
use super::peers::{Place, Program, Proxy};
use super::{Options, report};
use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};
use std::path::Path;
use std::time::{Duration, Instant};

/// Until a crowd counts as idle: both proxies have given back by then what they give back.
const SETTLED: Duration = Duration::from_secs(3);

/// As many as a proxy accepts that keeps two descriptors for each, where the limit is below what the guide's maxconn needs.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(200) / 2).unwrap_or(usize::MAX).min(10_000)
}

/// Resident MiB at start and with the crowd, of each proxy; a fresh process for each.
pub(super) fn run(
    scratch: &Path,
    log: &Path,
    world: &mut World,
    options: &Options,
) -> Result<Vec<report::Idle>> {
    let (servers, connections) = (world.servers()?, connections());
    let place = Place { directory: scratch, processors: "0", threads: 1, log, servers: &servers };
    let mut programs = vec![("haproxy", Program::Haproxy)];
    if !options.noise_only {
        programs.push(("ours", Program::Ours));
    }
    let mut found = Vec::new();
    for at_once in [connections, 64] {
        for (name, program) in &programs {
            let proxy = Proxy::start(name, *program, &place)?;
            let start = proxy.resident_mib()?;
            let plan = Plan { address: proxy.closing, connections, body: 120, arrival: Arrival::Closed };
            let context = || format!("asking {name}, {at_once} at once");
            world.open(&plan).with_context(context)?;
            world.ask_once(at_once).with_context(context)?;
            let settled = Instant::now() + SETTLED;
            while let Some(left) = settled.checked_duration_since(Instant::now()) {
                world.turn(Some(left))?;
            }
            found.push(report::Idle {
                name,
                connections,
                at_once,
                start_mib: start,
                crowd_mib: proxy.resident_mib()?,
            });
            world.close();
        }
    }
    Ok(found)
}
