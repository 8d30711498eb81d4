//! Connections, durability, limits, shutdown.

use super::hooked::Hooked;
use super::{Fixture, WAIT, options, status, wait_until};
use crate::vfs::Vfs;
use ehpc_proto::mount;
use ehpc_proto::nfs3::{Procedure, StableHow, arguments, results};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::Opaque;
use ehpc_tools::nfs_client::{Client, Error};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

#[test]
fn mount_finds_the_export_and_directories_in_it() {
    let fixture = Fixture::start();
    fs::create_dir_all(fixture.path("a/b")).unwrap();
    fs::write(fixture.path("a/f"), b"").unwrap();
    let (mut client, root) = fixture.mounted();
    assert_eq!(client.mount("/share/").unwrap().data, root.data);
    let (a, _) = client.lookup(&root, b"a").unwrap();
    let (b, _) = client.lookup(&a, b"b").unwrap();
    assert_eq!(client.mount("/share/a/b").unwrap().data, b.data);
    let mut refused = |path: &str| match client.mount(path) {
        Err(Error::Mount { error, .. }) => error,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refused("/share/none"), mount::MountError::NoEnt);
    assert_eq!(refused("/share/a/f"), mount::MountError::NotDir);
    assert_eq!(refused("/"), mount::MountError::NoEnt);
    assert_eq!(refused("share"), mount::MountError::NoEnt);
    assert_eq!(refused("/shared"), mount::MountError::NoEnt);
    assert_eq!(refused("/share/.."), mount::MountError::Access);
    assert_eq!(refused("/share/../../etc"), mount::MountError::Access);
    assert_eq!(refused("/share/a\0b"), mount::MountError::Inval);
    assert_eq!(refused(&format!("/share/{}", "x".repeat(256))), mount::MountError::NameTooLong);
}

#[test]
fn the_table_of_mounts() {
    let fixture = Fixture::start();
    fs::create_dir(fixture.path("a")).unwrap();
    let (mut client, _) = fixture.mounted();
    client.mount("/share/a").unwrap();
    let dump = |client: &mut Client| {
        let answer = client.mount_call(mount::Procedure::Dump, &()).unwrap();
        let list = answer.result::<mount::List<mount::MountEntry<'_>>>().unwrap();
        list.0.iter().map(|line| (line.host.0.to_vec(), line.directory.0.to_vec())).collect::<Vec<_>>()
    };
    let line = |path: &[u8]| (b"127.0.0.1".to_vec(), path.to_vec());
    assert_eq!(dump(&mut client), [line(b"/share"), line(b"/share/a")]);
    assert_eq!(fixture.server.stats().mounts.len(), 2);
    let path = Opaque::<{ mount::PATH_MAX }>(b"/share/a");
    client.mount_call(mount::Procedure::Umnt, &path).unwrap().result::<()>().unwrap();
    assert_eq!(dump(&mut client), [line(b"/share")]);
    client.mount_call(mount::Procedure::UmntAll, &()).unwrap().result::<()>().unwrap();
    assert_eq!(dump(&mut client), []);
    let answer = client.mount_call(mount::Procedure::Export, &()).unwrap();
    let exports = answer.result::<mount::List<mount::ExportEntry<'_>>>().unwrap();
    assert_eq!(exports.0.len(), 1);
    assert_eq!(exports.0[0].directory.0, b"/share");
    client.mount_call(mount::Procedure::Null, &()).unwrap().result::<()>().unwrap();
}

#[test]
fn many_calls_in_flight_are_all_answered() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let data: Vec<u8> = (0..3 << 20).map(|i| (i / 4096) as u8).collect();
    client.write(&file, 0, &data).unwrap();
    let mut expected = BTreeSet::new();
    // More than the server takes at once: it reads on as it answers. The replies are read by another thread.
    let mut reader = Client::over(client.stream().try_clone().unwrap()).unwrap();
    let total = 2000;
    for number in 0..total {
        let xid = if number % 10 == 0 {
            let args = arguments::Read { file: file.clone(), offset: (number % 3) << 20, count: 1 << 20 };
            client.queue_nfs(Procedure::Read, &args)
        } else {
            client.queue_nfs(Procedure::Getattr, &file)
        };
        expected.insert(xid);
    }
    let answers = std::thread::spawn(move || {
        (0..total)
            .map(|_| reader.receive().unwrap())
            .map(|answer| (answer.xid, answer.body().len()))
            .collect::<Vec<_>>()
    });
    client.flush().unwrap();
    let answers = answers.join().unwrap();
    assert_eq!(answers.iter().map(|(xid, _)| *xid).collect::<BTreeSet<_>>(), expected);
    assert_eq!(answers.iter().filter(|(_, len)| *len > 1 << 20).count(), 200);
}

/// A reply that promises durability waits for it; others and other clients do not.
#[test]
fn a_change_is_answered_when_it_is_settled() {
    let gate = Arc::new(Semaphore::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let (settle_gate, settle_asked) = (Arc::clone(&gate), Arc::clone(&asked));
    let fixture = Fixture::with(
        options(),
        |_| {},
        |inner| {
            Arc::new(Hooked::new(
                inner,
                |_, _| {},
                move || {
                    settle_asked.fetch_add(1, Ordering::SeqCst);
                    let gate = Arc::clone(&settle_gate);
                    Some(Box::pin(async move {
                        let _ = gate.acquire().await.map(|permit| permit.forget());
                        Ok(())
                    }))
                },
            )) as Arc<dyn Vfs>
        },
    );
    fs::write(fixture.path("f"), b"abc").unwrap();
    let (mut client, root) = fixture.mounted();
    let (file, _) = client.lookup(&root, b"f").unwrap();
    client.write(&file, 0, b"unstable").unwrap();
    assert_eq!(status(client.remove(&root, b"none")), 2, "a failure changed nothing");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // More waiting changes than the server has threads: waiting holds none.
    let changes = 40;
    let mut waiting = BTreeSet::new();
    for _ in 0..changes {
        let args = arguments::Write {
            file: file.clone(),
            offset: 0,
            count: 3,
            stable: StableHow::FileSync,
            data: Opaque(b"xyz"),
        };
        waiting.insert(client.queue_nfs(Procedure::Write, &args));
    }
    let commit = arguments::Commit { file: file.clone(), offset: 0, count: 0 };
    waiting.insert(client.queue_nfs(Procedure::Commit, &commit));
    client.flush().unwrap();
    wait_until("all changes are done", || asked.load(Ordering::SeqCst) == changes + 1);
    let answer = client.nfs(Procedure::Getattr, &file).unwrap();
    assert!(!waiting.contains(&answer.xid), "answered before it was settled");
    gate.add_permits(changes + 1);
    let answered: BTreeSet<u32> = waiting.iter().map(|_| client.receive().unwrap().xid).collect();
    assert_eq!(answered, waiting);
}

#[test]
fn a_fault_in_the_file_system_is_an_error_and_not_the_end() {
    let fixture = Fixture::with(
        options(),
        |_| {},
        |vfs| {
            Hooked::before(vfs, |operation, name| {
                assert!(operation != "lookup" || name != b"fault", "planted fault");
            })
        },
    );
    let (mut client, root) = fixture.mounted();
    for _ in 0..40 {
        match client.lookup(&root, b"fault") {
            Err(Error::Rpc(Reply::SystemError)) => {}
            other => panic!("{other:?}"),
        }
    }
    client.getattr(&root).unwrap();
}

#[test]
fn one_connection_too_many_is_closed_and_a_place_comes_free() {
    let fixture = Fixture::with(super::Options { connections: 3, ..options() }, |_| {}, |vfs| vfs);
    let mut clients: Vec<Client> = (0..3).map(|_| fixture.client()).collect();
    clients.iter_mut().for_each(|client| client.null().unwrap());
    let mut extra = fixture.client();
    assert!(extra.null().is_err());
    clients.pop();
    wait_until("a place is free", || fixture.server.stats().connections < 3);
    fixture.client().null().unwrap();
}

#[test]
fn a_record_that_never_ends_is_not_waited_for() {
    let stall = Duration::from_millis(200);
    let fixture = Fixture::with(super::Options { stall, ..options() }, |_| {}, |vfs| vfs);
    let mut slow = fixture.client();
    let mut idle = fixture.client();
    idle.null().unwrap();
    slow.send_raw(&[0x80, 0, 1, 0, 1, 2, 3]).unwrap();
    assert_eq!(slow.stream().read(&mut [0; 1]).unwrap(), 0, "closed");
    idle.null().unwrap();
}

#[test]
fn a_client_that_takes_no_replies_is_given_up() {
    let stall = Duration::from_millis(300);
    let fixture = Fixture::with(super::Options { stall, ..options() }, |_| {}, |vfs| vfs);
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, &vec![1; 1 << 20]).unwrap();
    for _ in 0..100 {
        client.queue_nfs(Procedure::Read, &arguments::Read { file: file.clone(), offset: 0, count: 1 << 20 });
    }
    client.flush().unwrap();
    wait_until("the connection is given up", || fixture.server.stats().connections == 0);
    fixture.client().null().unwrap();
}

#[test]
fn shutdown_answers_what_is_in_flight() {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let started = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&started);
    let fixture = Fixture::with(
        options(),
        |_| {},
        |vfs| {
            Hooked::before(vfs, move |operation, _| {
                if operation == "create" {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.recv_timeout(WAIT);
                }
            })
        },
    );
    let (mut client, root) = fixture.mounted();
    let how = arguments::CreateHow::Unchecked(ehpc_tools::nfs_client::mode(0o644));
    let args = arguments::Create { place: ehpc_tools::nfs_client::place(&root, b"f"), how };
    client.queue_nfs(Procedure::Create, &args);
    client.flush().unwrap();
    wait_until("the call is being done", || started.load(Ordering::SeqCst) == 1);
    fixture.shutdown.cancel();
    drop(open);
    client.receive().unwrap().result::<results::Created>().unwrap().unwrap();
    assert!(matches!(client.receive(), Err(Error::Closed)), "then the connection ends");
    fixture.stop();
    assert!(std::net::TcpStream::connect(fixture.server.address()).is_err(), "nobody listens");
    assert_eq!(fixture.server.stats().connections, 0);
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let fixture = Fixture::with(
        super::Options { drain: Duration::from_millis(100), ..options() },
        |_| {},
        |inner| {
            let settle = || -> Option<crate::vfs::Settled> { Some(Box::pin(std::future::pending())) };
            Arc::new(Hooked::new(inner, |_, _| {}, settle)) as Arc<dyn Vfs>
        },
    );
    let (mut client, root) = fixture.mounted();
    let args = arguments::Mkdir {
        place: ehpc_tools::nfs_client::place(&root, b"d"),
        attributes: ehpc_tools::nfs_client::mode(0o755),
    };
    client.queue_nfs(Procedure::Mkdir, &args);
    client.flush().unwrap();
    wait_until("the call is done", || fixture.path("d").exists());
    fixture.stop();
    assert!(client.receive().is_err(), "no promise was made");
}

#[test]
fn handles_survive_a_restart_with_the_same_key() {
    let first = Fixture::start();
    let (mut client, root) = first.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, b"abc").unwrap();
    client.commit(&file).unwrap();
    drop(client);
    first.stop();
    let path = first.dir.path().to_owned();
    let second = Fixture::with(options(), |export| export.vfs = super::local(&path), |vfs| vfs);
    assert_eq!(second.client().read_all(&file).unwrap(), b"abc");
}

#[test]
fn statistics_show_clients_and_operations() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    client.getattr(&root).unwrap();
    client.getattr(&root).unwrap();
    client.lookup(&root, b"none").unwrap_err();
    let stats = fixture.server.stats();
    assert_eq!(stats.clients.len(), 1);
    assert_eq!(stats.clients[0].address.unwrap().to_string(), "127.0.0.1");
    assert_eq!((stats.clients[0].connections, stats.clients[0].requests), (1, 4));
    assert_eq!(stats.operations()["getattr"], 2);
    assert_eq!(stats.operations()["mount_mnt"], 1);
    assert_eq!((stats.requests, stats.errors), (4, 1));
}
