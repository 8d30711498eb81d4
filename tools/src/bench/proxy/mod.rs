//! The proxy against HAProxy 2.6: both run at the same time with the guide's configuration, pinned to the first
//! processor; clients, web servers and log reader share the second. A second HAProxy tells what is noise.

mod idle;
mod load;
mod peers;
mod report;

use super::median;
use anyhow::{Context, Result};
use load::{Arrival, Plan, World};
use peers::{Place, Program, Proxy};
use report::{Line, Sample};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::path::Path;
use std::time::Duration;

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Workload {
    /// `option http-keep-alive`, small responses, 1, 64 and 512 connections.
    Keep,
    /// The guide's `option http-server-close`, likewise.
    Close,
    /// Bodies of 64 KiB, both modes.
    Body64k,
    /// Bodies of 1 MiB, both modes.
    Body1m,
    /// Latency at half of HAProxy's greatest rate, open loop, both modes.
    Latency,
    /// Memory with 10,000 idle connections after one request each.
    Idle,
    /// Two threads.
    Threads,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// What; everything when empty.
    pub workloads: Vec<Workload>,
    /// Rounds; medians are shown.
    pub rounds: usize,
    /// Length of each timed measurement.
    pub time: Duration,
    /// HAProxy alone, twice.
    pub noise_only: bool,
    /// One JSON document instead of tables.
    pub json: bool,
}

/// Settling before a measurement.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Keep,
    Close,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    connections: usize,
    body: usize,
    /// Greatest ratio of CPU per request.
    bar: Option<f64>,
}

impl Case {
    fn name(&self) -> String {
        let mode = if self.mode == Mode::Keep { "keep-alive" } else { "server-close" };
        let body = match self.body {
            0..1024 => "small".to_owned(),
            body if body >= 1 << 20 => format!("{} MiB", body >> 20),
            body => format!("{} KiB", body >> 10),
        };
        format!("{mode}, {body}, {}", self.connections)
    }
}

fn cases(wanted: impl Fn(Workload) -> bool) -> Vec<Case> {
    let mut all = Vec::new();
    for (workload, mode, bar) in [(Workload::Keep, Mode::Keep, 0.9), (Workload::Close, Mode::Close, 1.0)] {
        for connections in [1, 64, 512] {
            all.push((workload, Case { mode, connections, body: 120, bar: Some(bar) }));
        }
    }
    for (workload, body, bar) in [(Workload::Body64k, 64 << 10, 1.05), (Workload::Body1m, 1 << 20, 1.0)] {
        for mode in [Mode::Close, Mode::Keep] {
            all.push((workload, Case { mode, connections: 64, body, bar: Some(bar) }));
        }
    }
    all.into_iter().filter(|(workload, _)| wanted(*workload)).map(|(_, case)| case).collect()
}

/// Runs the benchmark; configuration files lie below `scratch`.
pub fn run(scratch: &Path, options: &Options) -> Result<()> {
    let wanted = |workload| options.workloads.is_empty() || options.workloads.contains(&workload);
    let mut second = CpuSet::new();
    second.set(1);
    sched_setaffinity(None, &second).context("two processors are needed")?;
    let log = scratch.join("log");
    let _ = std::fs::remove_file(&log);
    let mut world = World::new(&log)?;
    let mut report = report::Report::default();
    if wanted(Workload::Idle) {
        report.idle = idle::run(scratch, &log, &mut world, options)?;
    }
    {
        let servers = world.servers()?;
        let place = Place { directory: scratch, processors: "0", threads: 1, log: &log, servers: &servers };
        let proxies = start(&place, options)?;
        let mut bench = Bench { world: &mut world, options, proxies };
        for case in cases(wanted) {
            report.lines.push(bench.measure(&case.name(), case, Arrival::Closed)?);
        }
        if wanted(Workload::Latency) {
            for mode in [Mode::Keep, Mode::Close] {
                report.latency.push(bench.latency(mode)?);
            }
        }
    }
    if wanted(Workload::Threads) {
        let servers = world.servers()?;
        let place = Place { directory: scratch, processors: "0,1", threads: 2, log: &log, servers: &servers };
        let proxies = start(&place, options)?;
        let mut bench = Bench { world: &mut world, options, proxies };
        for mode in [Mode::Keep, Mode::Close] {
            let case = Case { mode, connections: 64, body: 120, bar: None };
            report.threads.push(bench.measure(&case.name(), case, Arrival::Closed)?);
        }
    }
    report.print(options.json)
}

/// CPU seconds of this thread, which is all the load.
fn own_cpu() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split_whitespace().next().context("no schedstat")?.parse()?;
    Ok(nanos / 1e9)
}

/// HAProxy twice, and ours.
fn start(place: &Place, options: &Options) -> Result<Vec<Proxy>> {
    let mut proxies = vec![
        Proxy::start("haproxy", Program::Haproxy, place)?,
        Proxy::start("haproxy again", Program::Haproxy, place)?,
    ];
    if !options.noise_only {
        proxies.push(Proxy::start("ours", Program::Ours, place)?);
    }
    Ok(proxies)
}

struct Bench<'a> {
    world: &'a mut World,
    options: &'a Options,
    proxies: Vec<Proxy>,
}

impl Bench<'_> {
    /// All proxies in turn, round after round; who is first changes with the round.
    fn measure(&mut self, name: &str, case: Case, arrival: Arrival) -> Result<Line> {
        let mut line = Line::new(name.to_owned(), case.bar);
        for round in 0..self.options.rounds {
            for turn in 0..self.proxies.len() {
                let number = (turn + round) % self.proxies.len();
                let sample = self.sample(number, case, arrival)?;
                line.add(self.proxies[number].name, sample);
            }
        }
        eprintln!("{}", line.summary());
        Ok(line)
    }

    fn sample(&mut self, number: usize, case: Case, arrival: Arrival) -> Result<Sample> {
        let proxy = &self.proxies[number];
        let address = if case.mode == Mode::Keep { proxy.keeping } else { proxy.closing };
        let plan = Plan { address, connections: case.connections, body: case.body, arrival };
        let context = || format!("asking {}", proxy.name);
        self.world.open(&plan).with_context(context)?;
        self.world.run(WARM_UP).with_context(context)?;
        let lines = self.world.lines;
        let (before, own_before) = (proxy.cpu()?, own_cpu()?);
        let outcome = self.world.run(self.options.time).with_context(context)?;
        let (cpu, own) = (proxy.cpu()? - before, own_cpu()? - own_before);
        self.world.settle().with_context(context)?;
        self.world.close();
        let elapsed = outcome.elapsed.as_secs_f64();
        Ok(Sample {
            per_second: outcome.requests as f64 / elapsed,
            cpu_us: cpu * 1e6 / outcome.requests as f64,
            busy: cpu / elapsed,
            p50_us: outcome.latency.percentile_us(50.0),
            p99_us: outcome.latency.percentile_us(99.0),
            lines: (self.world.lines - lines) as f64 / outcome.requests as f64,
            load_us: own * 1e6 / outcome.requests as f64,
        })
    }

    /// Half of HAProxy's greatest rate with 64 connections, then open loop at that.
    fn latency(&mut self, mode: Mode) -> Result<Line> {
        let case = Case { mode, connections: 64, body: 120, bar: None };
        let mut rates = (0..3)
            .map(|_| Ok(self.sample(0, case, Arrival::Closed)?.per_second))
            .collect::<Result<Vec<f64>>>()?;
        let rate = median(&mut rates) / 2.0;
        let crowd = Case { connections: 256, ..case };
        self.measure(&format!("{}, {rate:.0}/s", crowd.name()), crowd, Arrival::Open(rate))
    }
}
