//! What is counted of calls, and which are called slow.

use super::hooked::Hooked;
use super::{Fixture, WAIT, options, status, wait_until};
use crate::nfs::Options;
use crate::observe::metrics;
use ehpc_proto::nfs3::{MAX_IO, Procedure, StableHow, arguments, results};
use ehpc_proto::record::MAX_RECORD;
use ehpc_tools::nfs_client::{Client, mode, place};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn procedures_clients_and_exports() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    client.null().unwrap();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, &[1; 5000]).unwrap();
    client.read(&file, 0, 3000).unwrap();
    client.read(&file, 4000, 3000).unwrap();
    client.lookup(&root, b"none").unwrap_err();
    client.lookup(&root, b"f").unwrap();
    client.rmdir(&root, b"f").unwrap_err();
    client.mount("/elsewhere").unwrap_err();
    let stats = fixture.server.stats();
    let find = |name: &str| stats.procedures.iter().find(|procedure| procedure.name == name).unwrap();
    assert_eq!(find("read").latency.count, 2);
    assert_eq!(find("lookup").latency.count, 2);
    assert_eq!(find("lookup").errors, [("NOENT".to_owned(), 1)].into());
    assert_eq!(find("rmdir").errors, [("NOTDIR".to_owned(), 1)].into());
    assert_eq!(find("mount_mnt").errors.values().sum::<u64>(), 1);
    assert_eq!((find("null").latency.count, find("null").errors.len()), (1, 0));
    assert!(find("write").latency.sum_us > 0 && find("write").latency.p99_us > 0);
    assert!(stats.procedures.iter().all(|procedure| procedure.name != "mkdir"), "never called");
    let [one] = &stats.clients[..] else { panic!("{:?}", stats.clients) };
    assert_eq!((one.requests, one.read_bytes, one.written_bytes), (10, 4000, 5000));
    let [share] = &stats.exports[..] else { panic!("{:?}", stats.exports) };
    assert_eq!((share.name.as_str(), share.read_bytes, share.written_bytes), ("/share", 4000, 5000));
    // Who left is still counted.
    drop(client);
    wait_until("the connection is gone", || fixture.server.stats().connections == 0);
    let stats = fixture.server.stats();
    assert_eq!((stats.clients[0].connections, stats.clients[0].written_bytes), (0, 5000));
}

#[test]
fn garbage_is_an_error_of_its_procedure() {
    let fixture = Fixture::start();
    let mut client = fixture.client();
    client.call(100_003, 3, 1, &7u32).unwrap();
    client.call(100_003, 3, 6, &7u32).unwrap();
    for name in ["getattr", "read"] {
        let stats = fixture.server.stats();
        let found = stats.procedures.iter().find(|procedure| procedure.name == name).unwrap();
        assert_eq!(found.errors, [("GARBAGE_ARGS".to_owned(), 1)].into(), "{name}");
    }
}

/// Does a GETATTR that takes at least `takes`; the server's number of slow requests.
fn slow_requests(slow_request: Duration, takes: Duration) -> u64 {
    let armed = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&armed);
    let fixture = Fixture::with(
        Options { slow_request, ..options() },
        |_| {},
        |vfs| {
            Hooked::before(vfs, move |operation, _| {
                let start = Instant::now();
                while operation == "getattr" && hook.load(Ordering::SeqCst) && start.elapsed() < takes {
                    std::thread::park_timeout(takes);
                }
            })
        },
    );
    let (mut client, root) = fixture.mounted();
    armed.store(true, Ordering::SeqCst);
    client.getattr(&root).unwrap();
    fixture.server.stats().slow
}

#[test]
fn what_takes_longer_than_the_limit_is_slow() {
    let ms = Duration::from_millis;
    assert_eq!(slow_requests(ms(20), ms(20)), 1);
    assert_eq!(slow_requests(Duration::from_secs(3600), ms(5)), 0);
    assert_eq!(slow_requests(Duration::ZERO, ms(5)), 0, "switched off");
}

#[test]
fn one_connection_too_many_is_refused_and_counted() {
    let fixture = Fixture::with(Options { connections: 1, ..options() }, |_| {}, |vfs| vfs);
    let (mut client, root) = fixture.mounted();
    let mut second = Client::connect(fixture.server.address()).unwrap();
    assert!(second.null().is_err());
    wait_until("it is counted", || fixture.server.stats().refused == 1);
    assert_eq!(status(client.getattr(&root)), 0, "the first one goes on");
}

/// A server whose `operation` waits until the sender is dropped.
fn gated(options: Options, operation: &'static str) -> (Fixture, crossbeam_channel::Sender<()>) {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let fixture = Fixture::with(
        options,
        |_| {},
        |vfs| {
            Hooked::before(vfs, move |called, _| {
                if called == operation {
                    let _ = gate.recv_timeout(WAIT);
                }
            })
        },
    );
    (fixture, open)
}

#[test]
fn a_connection_at_its_limit_of_requests_is_counted_and_goes_on() {
    let (fixture, open) = gated(Options { in_flight: 2, ..options() }, "mkdir");
    let (mut client, root) = fixture.mounted();
    let before = metrics::NFS_IN_FLIGHT_WAITS.get();
    let names: Vec<String> = (0..6).map(|n| format!("d{n}")).collect();
    for name in &names {
        let args = arguments::Mkdir { place: place(&root, name.as_bytes()), attributes: mode(0o755) };
        client.queue_nfs(Procedure::Mkdir, &args);
    }
    client.flush().unwrap();
    wait_until("the limit is reached", || metrics::NFS_IN_FLIGHT_WAITS.get() > before);
    drop(open);
    for _ in &names {
        assert!(client.receive().unwrap().result::<results::Created>().unwrap().is_ok());
    }
}

#[test]
fn a_request_without_memory_is_counted_and_waits() {
    let one_record = Options { memory: MAX_RECORD, ..options() };
    let (fixture, open) = gated(one_record, "write");
    let (mut client, root) = fixture.mounted();
    let files = [client.create(&root, b"a").unwrap(), client.create(&root, b"b").unwrap()];
    let before = metrics::NFS_MEMORY_WAITS.get();
    let address = fixture.server.address();
    std::thread::scope(|scope| {
        let writers = files.map(|file| {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                client.write_stable(&file, 0, &vec![7; MAX_IO], StableHow::FileSync).map(|_| ())
            })
        });
        wait_until("one of them waits", || metrics::NFS_MEMORY_WAITS.get() > before);
        drop(open);
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
    });
}
