//! Memory: 64 connections that read and write, then 10,000 that do nothing.

use super::load::{self, Limit};
use super::peers::Server;
use super::{Workload, depth, plan, populate, prepare};
use crate::bench::print_table;
use anyhow::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

const IDLE: usize = 10_000;
/// Connections from one address: ports are limited.
const FROM_ONE_ADDRESS: usize = 5_000;

pub(super) fn run(scratch: &Path) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let home = scratch.join("crowd");
    let servers = [Server::ours(&home, false)?, Server::ganesha(&home)?];
    let mut rows = vec![
        ["server", "at start MiB", "64 busy connections MiB", "10,000 idle connections MiB"]
            .map(String::from)
            .to_vec(),
    ];
    for server in &servers {
        populate(&server.directory)?;
        let start = server.resident_mib()?;
        for workload in [Workload::Write64k, Workload::Read64k, Workload::Getattr] {
            let mut work = prepare(workload, server)?;
            let plan = plan(server, 64, depth(workload), Limit::Time(Duration::from_secs(2)));
            load::run(&plan, &mut *work)?;
        }
        let busy = server.resident_mib()?;
        let mut open = Vec::with_capacity(IDLE);
        for number in 0..IDLE {
            let last = 10 + (number / FROM_ONE_ADDRESS) as u8;
            // A server may have a limit of its own: the table says how many it took.
            open.extend(load::connect(server.address, IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))));
        }
        let accepted =
            || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).is_ok_and(|open| open.count() > IDLE);
        let _ = crate::process::wait_until("all are accepted", Duration::from_secs(15), accepted);
        let crowd = server.resident_mib()?;
        let alive = open.iter().filter(|stream| is_open(stream)).count();
        rows.push(vec![
            server.name.to_owned(),
            format!("{start:.0}"),
            format!("{busy:.0}"),
            format!("{crowd:.0} ({alive} open)"),
        ]);
    }
    print_table("Memory (bars: 64 MiB plus buffers; 200 MiB)", &rows);
    Ok(())
}

/// The server has not closed it.
fn is_open(stream: &std::net::TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
