//! NFS against nfs-ganesha: both run at the same time on one disk, measured in turn, round after round.

mod crowd;
mod fairness;
mod load;
mod peers;
mod replication;
mod work;

use super::{histogram, median, print_table};
use crate::nfs_client::{Client, Handle};
use anyhow::{Context, Result, bail};
use ehpc_proto::nfs3::Procedure;
use load::{Limit, Outcome, Plan, Work};
use peers::Server;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections of each measurement.
const CONNECTIONS: [usize; 3] = [1, 8, 64];
/// Files of the directory that metadata is asked of.
const FILES: usize = 10_000;
/// Large files and their length.
const BIG_FILES: usize = 8;
const BIG_LENGTH: u64 = 64 << 20;
/// Names made and removed in one measurement, all connections together.
const NAMES: u64 = 12_000;
const NAMES_DURABLE: u64 = 4_000;

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Workload {
    /// GETATTR of 10,000 files.
    Getattr,
    /// LOOKUP of 10,000 names.
    Lookup,
    /// ACCESS of 10,000 files.
    Access,
    /// CREATE, then REMOVE, on an `async` export.
    Names,
    /// CREATE, then REMOVE, on a `sync` export, against a loop of open + fsync(directory).
    NamesSync,
    /// READDIRPLUS of 10,000 entries.
    Listing,
    /// Sequential READ of 1 MiB.
    Read1m,
    /// Sequential WRITE of 1 MiB.
    Write1m,
    /// Sequential READ of 64 KiB.
    Read64k,
    /// Sequential WRITE of 64 KiB.
    Write64k,
    /// READ of 4 KiB at random places.
    Read4k,
    /// WRITE of 4 KiB at random places.
    Write4k,
    /// A client next to one with 10,000 calls in flight.
    Fairness,
    /// Memory with 64 busy and 10,000 idle connections.
    Crowd,
    /// What replication to a backup costs a request.
    Replication,
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
}

/// Measured of one server in one round.
#[derive(Clone, Debug)]
struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

/// All samples of one line of the table: by server.
type Line = BTreeMap<&'static str, Vec<Sample>>;
type Lines = BTreeMap<(String, usize), Line>;

/// Runs the benchmark on the disk mounted at `scratch`.
pub fn run(scratch: &Path, options: &Options) -> Result<()> {
    let wanted = |workload: Workload| options.workloads.is_empty() || options.workloads.contains(&workload);
    let plain = [
        Workload::Getattr,
        Workload::Lookup,
        Workload::Access,
        Workload::Names,
        Workload::NamesSync,
        Workload::Listing,
        Workload::Read1m,
        Workload::Write1m,
        Workload::Read64k,
        Workload::Write64k,
        Workload::Read4k,
        Workload::Write4k,
    ];
    if plain.iter().any(|workload| wanted(*workload)) {
        let bench = Bench::start(scratch, options.time)?;
        let mut lines = Lines::new();
        for round in 1..=options.rounds {
            for workload in plain.iter().filter(|workload| wanted(**workload)) {
                bench.measure(*workload, round, &mut lines)?;
            }
            eprintln!("round {round} of {} done", options.rounds);
        }
        show(&lines);
        println!(
            "\nResident at the end: ours {:.0} MiB, nfs-ganesha {:.0} MiB",
            bench.ours.resident_mib()?,
            bench.ganesha.resident_mib()?
        );
    }
    if wanted(Workload::Fairness) {
        fairness::run(scratch, options)?;
    }
    if wanted(Workload::Crowd) {
        crowd::run(scratch)?;
    }
    if wanted(Workload::Replication) {
        replication::run(scratch, options)?;
    }
    Ok(())
}

struct Bench {
    ours: Server,
    durable: Server,
    ganesha: Server,
    time: Duration,
    scratch: std::path::PathBuf,
}

impl Bench {
    fn start(scratch: &Path, time: Duration) -> Result<Bench> {
        let bench = Bench {
            ours: Server::ours(scratch, false)?,
            durable: Server::ours(scratch, true)?,
            ganesha: Server::ganesha(scratch)?,
            time,
            scratch: scratch.to_owned(),
        };
        for server in [&bench.ours, &bench.ganesha] {
            populate(&server.directory)?;
        }
        Ok(bench)
    }

    fn measure(&self, workload: Workload, round: usize, lines: &mut Lines) -> Result<()> {
        match workload {
            Workload::Names => self.names(&[&self.ours, &self.ganesha], NAMES, round, lines),
            Workload::NamesSync => {
                self.raw_names(round, lines)?;
                self.names(&[&self.durable], NAMES_DURABLE, round, lines)
            }
            _ => self.timed(workload, round, lines),
        }
    }

    /// Both servers in turn; who is first changes with the round.
    fn timed(&self, workload: Workload, round: usize, lines: &mut Lines) -> Result<()> {
        for connections in CONNECTIONS {
            let mut order = [&self.ours, &self.ganesha];
            if round.is_multiple_of(2) {
                order.reverse();
            }
            for server in order {
                let mut prepared = prepare(workload, server)?;
                let limit = Limit::Time(self.time);
                let plan = plan(server, connections, depth(workload), limit);
                let sample = sample(server, &plan, &mut *prepared)?;
                add(lines, format!("{workload:?}"), connections, server.name, sample);
            }
        }
        Ok(())
    }

    /// CREATE in fresh directories, then REMOVE of what was made.
    fn names(&self, servers: &[&Server], total: u64, round: usize, lines: &mut Lines) -> Result<()> {
        for connections in CONNECTIONS {
            for server in servers {
                let (mut client, root) = open(server)?;
                let parent = client.mkdir(&root, format!("names-{round}-{connections}").as_bytes())?;
                let dirs = (0..connections)
                    .map(|number| Ok(client.mkdir(&parent, format!("d{number}").as_bytes())?))
                    .collect::<Result<Vec<Handle>>>()?;
                for procedure in [Procedure::Create, Procedure::Remove] {
                    let mut work = work::Names { procedure, dirs: dirs.clone() };
                    let plan = plan(server, connections, 16, Limit::Calls(total / connections as u64));
                    let one = sample(server, &plan, &mut work)?;
                    let durable = server.name == "ours-sync";
                    let what = format!("{procedure:?}{}", if durable { " sync" } else { "" });
                    add(lines, what, connections, server.name, one);
                    if durable && connections == 1 {
                        self.one_at_a_time(server, procedure, lines)?;
                    }
                }
                fs::remove_dir_all(server.directory.join(format!("names-{round}-{connections}")))?;
            }
        }
        Ok(())
    }

    /// The raw loop's own way: the next call is made when the last was answered. A line of its own.
    fn one_at_a_time(&self, server: &Server, procedure: Procedure, lines: &mut Lines) -> Result<()> {
        const COUNT: u64 = 500;
        let (mut client, root) = open(server)?;
        let name = format!("single-{procedure:?}");
        let dir = client.mkdir(&root, name.as_bytes())?;
        if procedure == Procedure::Remove {
            for number in 0..COUNT {
                client.create(&dir, format!("file-{number:08}").as_bytes())?;
            }
        }
        let mut work = work::Names { procedure, dirs: vec![dir] };
        let one = sample(server, &plan(server, 1, 1, Limit::Calls(COUNT)), &mut work)?;
        fs::remove_dir_all(server.directory.join(name))?;
        let what = format!("{procedure:?} sync, one at a time");
        let raw = lines.get(&(format!("{procedure:?} sync"), 1)).and_then(|line| line.get("raw loop"));
        if let Some(raw) = raw.and_then(|all| all.last()).cloned() {
            add(lines, what.clone(), 1, "raw loop", raw);
        }
        add(lines, what, 1, server.name, one);
        Ok(())
    }

    /// What a program on the server's own disk gets: open(O_CREAT) or unlink, then fsync of the directory.
    fn raw_names(&self, round: usize, lines: &mut Lines) -> Result<()> {
        let directory = self.scratch.join(format!("raw-{round}"));
        fs::create_dir_all(&directory)?;
        let handle = fs::File::open(&directory)?;
        let count = 500;
        for procedure in ["Create", "Remove"] {
            let started = Instant::now();
            let mut times = histogram::Histogram::default();
            for number in 0..count {
                let begun = Instant::now();
                let path = directory.join(format!("file-{number:08}"));
                match procedure {
                    "Create" => drop(
                        fs::OpenOptions::new()
                            .create(true)
                            .write(true)
                            .truncate(false)
                            .mode(0o644)
                            .open(path)?,
                    ),
                    _ => fs::remove_file(path)?,
                }
                handle.sync_all()?;
                times.add(begun.elapsed());
            }
            let per_second = f64::from(count) / started.elapsed().as_secs_f64();
            let sample = Sample {
                per_second,
                p50_us: times.percentile_us(50.0),
                p99_us: times.percentile_us(99.0),
                cpu_us: f64::NAN,
            };
            for connections in CONNECTIONS {
                add(lines, format!("{procedure} sync"), connections, "raw loop", sample.clone());
            }
        }
        fs::remove_dir_all(&directory)?;
        Ok(())
    }
}

fn add(lines: &mut Lines, what: String, connections: usize, server: &'static str, sample: Sample) {
    lines.entry((what, connections)).or_default().entry(server).or_default().push(sample);
}

fn plan(server: &Server, connections: usize, depth: usize, limit: Limit) -> Plan {
    Plan { address: server.address, source: IpAddr::V4(Ipv4Addr::LOCALHOST), connections, depth, limit }
}

fn sample(server: &Server, plan: &Plan, work: &mut dyn Work) -> Result<Sample> {
    let before = server.cpu("")?;
    let outcome: Outcome = load::run(plan, work).with_context(|| format!("asking {}", server.name))?;
    let cpu = server.cpu("")? - before;
    if outcome.calls == 0 {
        bail!("{} answered nothing in time", server.name);
    }
    Ok(Sample {
        per_second: outcome.per_second() * work.weight(),
        p50_us: outcome.latency.percentile_us(50.0),
        p99_us: outcome.latency.percentile_us(99.0),
        cpu_us: cpu * 1e6 / outcome.calls as f64 / work.weight(),
    })
}

/// A client and the export's root.
fn open(server: &Server) -> Result<(Client, Handle)> {
    let root = Client::connect(server.mount_address)?.mount(&server.export)?;
    Ok((Client::connect(server.address)?, root))
}

/// Calls in flight on each connection.
fn depth(workload: Workload) -> usize {
    match workload {
        Workload::Read1m | Workload::Write1m => 4,
        Workload::Read64k | Workload::Write64k | Workload::Listing => 8,
        _ => 16,
    }
}

fn populate(directory: &Path) -> Result<()> {
    let files = directory.join("files");
    fs::create_dir_all(&files)?;
    for number in 0..FILES {
        fs::write(files.join(format!("file-{number:05}")), b"")?;
    }
    let piece = vec![0xa5u8; 1 << 20];
    for number in 0..BIG_FILES {
        let mut file = fs::File::create(directory.join(format!("big-{number}")))?;
        for _ in 0..BIG_LENGTH >> 20 {
            std::io::Write::write_all(&mut file, &piece)?;
        }
        file.sync_all()?;
    }
    Ok(())
}

fn prepare(workload: Workload, server: &Server) -> Result<Box<dyn Work + Send>> {
    let (mut client, root) = open(server)?;
    let metadata = |procedure, client: &mut Client| -> Result<Box<dyn Work + Send>> {
        let dir = client.lookup(&root, b"files")?.0;
        let mut files = Vec::with_capacity(FILES);
        for number in 0..FILES {
            let name = format!("file-{number:05}").into_bytes();
            let handle = client.lookup(&dir, &name)?.0;
            files.push((name, handle));
        }
        Ok(Box::new(work::Metadata { procedure, dir, files }))
    };
    let data = |procedure, size: u32, random, client: &mut Client| -> Result<Box<dyn Work + Send>> {
        let files = (0..BIG_FILES)
            .map(|number| Ok(client.lookup(&root, format!("big-{number}").as_bytes())?.0))
            .collect::<Result<Vec<_>>>()?;
        Ok(Box::new(work::Data { procedure, files, length: BIG_LENGTH, size, random }))
    };
    match workload {
        Workload::Getattr => metadata(Procedure::Getattr, &mut client),
        Workload::Lookup => metadata(Procedure::Lookup, &mut client),
        Workload::Access => metadata(Procedure::Access, &mut client),
        Workload::Listing => {
            let dir = client.lookup(&root, b"files")?.0;
            let page = 64 * 1024;
            let (pages, entries) = listing_pages(&mut client, &dir, page)?;
            Ok(Box::new(work::Listing { dir, pages, page, entries }))
        }
        Workload::Read1m => data(Procedure::Read, 1 << 20, false, &mut client),
        Workload::Write1m => data(Procedure::Write, 1 << 20, false, &mut client),
        Workload::Read64k => data(Procedure::Read, 64 << 10, false, &mut client),
        Workload::Write64k => data(Procedure::Write, 64 << 10, false, &mut client),
        Workload::Read4k => data(Procedure::Read, 4 << 10, true, &mut client),
        Workload::Write4k => data(Procedure::Write, 4 << 10, true, &mut client),
        other => bail!("{other:?} is measured elsewhere"),
    }
}

fn listing_pages(client: &mut Client, dir: &Handle, page: u32) -> Result<(Vec<work::Place>, usize)> {
    let (mut pages, mut cookie, mut verifier, mut entries) = (Vec::new(), 0, [0; 8], 0);
    loop {
        pages.push((cookie, verifier));
        let (listed, next, eof) = client.readdirplus_page(dir, cookie, verifier, page)?;
        entries += listed.len();
        verifier = next;
        match listed.last() {
            Some(last) if !eof => cookie = last.cookie,
            _ => break,
        }
    }
    if entries < FILES {
        bail!("a listing of {FILES} files shows {entries} entries");
    }
    Ok((pages, entries))
}

fn show(lines: &Lines) {
    let head = [
        "what",
        "conns",
        "ours/s",
        "peer/s",
        "ratio",
        "ours p50/p99 us",
        "peer p50/p99 us",
        "ours CPU us/op",
        "peer CPU us/op",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    let middle =
        |samples: &[Sample], of: fn(&Sample) -> f64| median(&mut samples.iter().map(of).collect::<Vec<_>>());
    for ((what, connections), line) in lines {
        let find = |names: [&str; 2]| {
            line.iter().find(|(name, _)| names.contains(name)).map(|(_, samples)| samples.as_slice())
        };
        let (Some(ours), Some(peer)) = (find(["ours", "ours-sync"]), find(["nfs-ganesha", "raw loop"]))
        else {
            continue;
        };
        let both = |of: fn(&Sample) -> f64| (middle(ours, of), middle(peer, of));
        let (rate, p50, p99, cpu) =
            (both(|s| s.per_second), both(|s| s.p50_us), both(|s| s.p99_us), both(|s| s.cpu_us));
        rows.push(vec![
            what.clone(),
            connections.to_string(),
            format!("{:.0}", rate.0),
            format!("{:.0}", rate.1),
            format!("{:.2}", rate.0 / rate.1),
            format!("{:.0}/{:.0}", p50.0, p99.0),
            format!("{:.0}/{:.0}", p50.1, p99.1),
            format!("{:.1}", cpu.0),
            format!("{:.1}", cpu.1),
        ]);
    }
    print_table(
        "NFS: ours against nfs-ganesha 4.3 VFS (sync: against a loop of open + fsync), medians",
        &rows,
    );
}
