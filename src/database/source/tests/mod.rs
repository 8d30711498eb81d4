//! The source against real servers, with an archive in memory behind a lane in memory.

mod archive;
mod bytes;
mod far_end;
mod faults;
mod health;
mod semi_sync;

use super::{Source, SourceOptions};
use crate::database::dsn::Dsn;
use crate::observe::status::DatabaseSourceStatus;
use ehpc_proto::binlog::{FileScan, Group, Grouper};
use ehpc_tools::database::{Maria, Options, Work, Workload};
use far_end::FarEnd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A table to write to.
const TABLE: &str = "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)";
const DEADLINE: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn options(servers: Vec<Dsn>, end: &FarEnd) -> SourceOptions {
    SourceOptions {
        servers,
        server_id: 4_200_001,
        semi_sync: false,
        over_gaps: false,
        dial: Arc::new(end.clone()),
    }
}

fn root(socket: &Path) -> Dsn {
    Dsn::socket(socket, "root")
}

fn start(runtime: &Runtime, server: &Maria, end: &FarEnd) -> Source {
    start_from(runtime, root(&server.socket()), end)
}

fn start_from(runtime: &Runtime, server: Dsn, end: &FarEnd) -> Source {
    Source::start(runtime.handle(), options(vec![server], end))
}

/// A server whose log goes to an archive in memory.
fn streamed(options: Options) -> (Runtime, Maria, FarEnd, Source) {
    let (runtime, server, end) = (runtime(), server(options), FarEnd::new());
    let source = start(&runtime, &server, &end);
    (runtime, server, end, source)
}

/// A MySQL whose transactions have names.
fn gtids() -> Options {
    Options::default().with("--gtid-mode=ON").with("--enforce-gtid-consistency").with("--log-slave-updates")
}

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn wait_state(source: &Source, state: &str) -> DatabaseSourceStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = source.status();
        if status.state == state {
            return status;
        }
        assert!(Instant::now() < deadline, "state {state}: not within {DEADLINE:?}, but {status:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Everything that is committed now is in the archive.
fn caught_up(runtime: &Runtime, source: &Source) {
    let place = runtime.block_on(source.fresh(DEADLINE)).unwrap();
    wait("durable", || source.durable().borrow().is_some_and(|durable| durable >= place));
}

/// Files of the server and of the archive are equal, but for the bit of a file in use. (A server may write something of
/// its own to the live file at any time, so that this is waited for.)
fn assert_equal(server: &[PathBuf], end: &FarEnd) {
    let mut difference = None;
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let here = end.files().into_iter().map(|file| (file.name, file.bytes));
        difference = first_difference(server, &here.collect::<Vec<_>>());
        if difference.is_none() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(difference, None);
    assert_eq!(end.contents.lock().faults, Vec::<String>::new());
}

/// `here`: names and bytes.
fn first_difference(server: &[PathBuf], here: &[(String, Vec<u8>)]) -> Option<String> {
    if server.len() != here.len() {
        return Some(format!("{} files there, {} here", server.len(), here.len()));
    }
    server.iter().zip(here).find_map(|(path, (name, bytes))| {
        let mut theirs = std::fs::read(path).unwrap();
        theirs[21] &= !1;
        let same = theirs.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let equal = path.file_name().unwrap().to_str().unwrap() == name && theirs == *bytes;
        (!equal).then(|| {
            let (there, here) = (theirs.len(), bytes.len());
            format!("{name}: {there} bytes there, {here} here, equal up to {same}")
        })
    })
}

/// A workload with everything that a binary log may hold, while all three parties fall again and again. `begin` starts a
/// source, `fall` cuts or ends the archive; the source at the end, when all is in the archive.
fn all_fall(
    runtime: &Runtime,
    server: &mut Maria,
    begin: &dyn Fn(&Maria) -> Source,
    fall: &dyn Fn(),
) -> Source {
    let seed = rand::random();
    println!("seed {seed}");
    let mut source = begin(server);
    let work = Workload::start(&server.access(), Work::maria(seed)).unwrap();
    for round in 0..6 {
        work.wait_for(work.done() + 30).unwrap();
        match round {
            0 => drop(server.sql("FLUSH BINARY LOGS").unwrap()),
            2 => server.kill9().and_then(|()| server.restart()).unwrap(),
            3 => {
                runtime.block_on(source.stop());
                source = begin(server);
            }
            4 => server.restart().unwrap(),
            _ => fall(),
        }
    }
    assert!(work.stop().unwrap().count() > 100);
    server.sql("FLUSH BINARY LOGS").unwrap();
    caught_up(runtime, &source);
    source
}

/// Two files of one name are told apart by the second in which they were begun: no power cut is over so soon.
fn next_second() {
    let second = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let now = second();
    wait("the next second", || second() > now);
}

/// The last group of a file.
fn last_group(bytes: &[u8]) -> Group {
    let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
    let (mut rest, mut last) = (bytes, None);
    while let Some(event) = scan.next(&mut rest).unwrap() {
        last = grouper.event(&event).unwrap().or(last);
    }
    last.unwrap()
}

fn server(options: Options) -> Maria {
    Maria::start(options).unwrap()
}
