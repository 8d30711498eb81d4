//! Memory: 10,000 connections that asked once, all at once or 64 after 64.

use super::load::{Arrival, Plan, World};
use super::peers::{Place, Program, Proxy};
use super::{Options, report};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const CONNECTIONS: usize = 10_000;

/// Resident MiB at start and with the crowd, of each proxy; a fresh process for each.
pub(super) fn run(
    scratch: &Path,
    log: &Path,
    world: &mut World,
    options: &Options,
) -> Result<Vec<report::Idle>> {
    let servers = world.servers()?;
    let place = Place { directory: scratch, processors: "0", threads: 1, log, servers: &servers };
    let mut programs = vec![("haproxy", Program::Haproxy)];
    if !options.noise_only {
        programs.push(("ours", Program::Ours));
    }
    let mut found = Vec::new();
    for at_once in [CONNECTIONS, 64] {
        for (name, program) in &programs {
            let proxy = Proxy::start(name, *program, &place)?;
            let start = proxy.resident_mib()?;
            let plan = Plan {
                address: proxy.closing,
                connections: CONNECTIONS,
                body: 120,
                arrival: Arrival::Closed,
            };
            world.open(&plan)?;
            world.ask_once(at_once)?;
            world.turn(Some(Duration::from_millis(200)))?;
            found.push(report::Idle { name, at_once, start_mib: start, crowd_mib: proxy.resident_mib()? });
            world.close();
        }
    }
    Ok(found)
}
