//! Which thread does a call, and what becomes of replies that have to wait for durability.

use super::hooked::Hooked;
use super::{Fixture, options, status, wait_until};
use crate::vfs::{Settled, Vfs, VfsError, Work};
use ehpc_proto::nfs3::{Procedure, StableHow, arguments, results};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::Opaque;
use ehpc_tools::nfs_client::{Client, Error, mode, place};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

fn thread() -> String {
    std::thread::current().name().unwrap_or_default().trim_end_matches(char::is_numeric).to_owned()
}

#[test]
fn quick_calls_are_done_on_the_connections_thread_and_others_by_workers() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let note = Arc::clone(&seen);
    let fixture = Fixture::with(
        options(),
        |_| {},
        |inner| {
            let before = move |operation: &str, _: &[u8]| {
                note.lock().insert((operation.to_owned(), thread()));
            };
            let quick = |work| matches!(work, Work::Look | Work::Read | Work::Write(_));
            Arc::new(Hooked { quick, ..Hooked::new(inner, before, || None) })
        },
    );
    let (mut client, root) = fixture.mounted();
    seen.lock().clear();
    client.getattr(&root).unwrap();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, b"abc").unwrap();
    // Nothing is read quickly here: the call goes on to a worker and is answered all the same.
    assert_eq!(client.read_all(&file).unwrap(), b"abc");
    let seen = seen.lock();
    let on = |operation: &str| {
        seen.iter().filter(|(done, _)| done == operation).map(|(_, on)| on.clone()).collect::<Vec<_>>()
    };
    assert_eq!(on("write"), ["nfs-core-"]);
    assert_eq!(on("getattr"), ["nfs-core-"]);
    assert_eq!(on("create"), ["nfs-"]);
    assert_eq!(on("read"), ["nfs-"]);
}

#[test]
fn a_fault_in_a_quick_call_is_an_error_and_not_the_end() {
    let fixture = Fixture::with(
        options(),
        |_| {},
        |inner| {
            let before = |operation: &str, name: &[u8]| {
                assert!(operation != "lookup" || name != b"fault", "planted fault");
            };
            Arc::new(Hooked { quick: |_| true, ..Hooked::new(inner, before, || None) })
        },
    );
    let (mut client, root) = fixture.mounted();
    for _ in 0..3 {
        match client.lookup(&root, b"fault") {
            Err(Error::Rpc(Reply::SystemError)) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(status(client.lookup(&root, b"none")), 2, "the same connection goes on");
    }
}

/// Changes are done by quick calls; their replies are held until the gate opens, and fail if `fails` is set.
fn held(gate: &Arc<Semaphore>, fails: &Arc<AtomicBool>) -> Fixture {
    let (gate, fails) = (Arc::clone(gate), Arc::clone(fails));
    let settle = move || -> Option<Settled> {
        let (gate, fails) = (Arc::clone(&gate), Arc::clone(&fails));
        Some(Box::pin(async move {
            let _ = gate.acquire().await.map(|permit| permit.forget());
            if fails.load(Ordering::SeqCst) { Err(VfsError::Io) } else { Ok(()) }
        }))
    };
    Fixture::with(
        options(),
        |_| {},
        |inner| Arc::new(Hooked { quick: |_| true, ..Hooked::new(inner, |_, _| {}, settle) }) as Arc<dyn Vfs>,
    )
}

#[test]
fn a_quick_change_is_answered_when_it_is_settled_and_others_meanwhile() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = held(&gate, &Arc::default());
    let (mut client, root) = fixture.mounted();
    let args = |name| arguments::Mkdir { place: place(&root, name), attributes: mode(0o755) };
    let first = client.queue_nfs(Procedure::Mkdir, &args(b"a"));
    client.flush().unwrap();
    wait_until("the call is done", || fixture.path("a").exists());
    client.lookup(&root, b"a").unwrap();
    // A copy of the call is the call: it is not done again, and not answered before.
    client.set_next_xid(first);
    client.queue_nfs(Procedure::Mkdir, &args(b"a"));
    client.flush().unwrap();
    client.lookup(&root, b"a").unwrap();
    gate.add_permits(1);
    let answer = client.receive().unwrap();
    assert_eq!(answer.xid, first);
    answer.result::<results::Created>().unwrap().unwrap();
    client.set_next_xid(first);
    let again = client.nfs(Procedure::Mkdir, &args(b"a")).unwrap();
    again.result::<results::Created>().unwrap().unwrap();
    assert_eq!(fixture.server.stats().replayed, 1);
}

/// What has arrived from one client does not go before what has arrived from another: their calls are done in turns.
#[test]
fn a_client_with_much_to_do_leaves_turns_to_another() {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let fixture = Fixture::with(
        super::Options { threads: 1, ..options() },
        |_| {},
        |inner| {
            let before = move |operation: &str, name: &[u8]| {
                if operation == "lookup" {
                    noted.lock().push(name.to_vec());
                }
                if name == b"gate" {
                    let _ = gate.recv_timeout(super::WAIT);
                }
            };
            Arc::new(Hooked { quick: |_| true, ..Hooked::new(inner, before, || None) })
        },
    );
    let (mut light, root) = fixture.mounted();
    let mut crowd: Vec<Client> = (0..4).map(|_| from_address(&fixture, [127, 0, 0, 2])).collect();
    crowd.iter_mut().for_each(|client| client.null().unwrap());
    let ask = |client: &mut Client, name: &'static [u8], times: usize| {
        for _ in 0..times {
            client.queue_nfs(Procedure::Lookup, &place(&root, name));
        }
        client.flush().unwrap();
    };
    // The only thread is kept busy until everything has arrived.
    ask(&mut crowd[0], b"gate", 1);
    wait_until("the thread is busy", || order.lock().len() == 1);
    crowd.iter_mut().for_each(|client| ask(client, b"crowd", 100));
    ask(&mut light, b"light", 10);
    drop(open);
    for _ in 0..10 {
        light.receive().unwrap();
    }
    for _ in 0..100 {
        crowd.iter_mut().for_each(|client| drop(client.receive().unwrap()));
    }
    let order = order.lock();
    let last = order.iter().rposition(|name| name == b"light").unwrap();
    // Ten calls are two turns of eight; before each the crowd may have had one, and the one that was under way.
    assert!(last < 50, "the last of ten calls was number {last} of {}", order.len());
}

fn from_address(fixture: &Fixture, address: [u8; 4]) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&fixture.server.address().into()).unwrap();
    Client::over(socket.into()).unwrap()
}

#[test]
fn what_cannot_be_made_durable_is_an_input_output_error() {
    let (gate, fails) = (Arc::new(Semaphore::new(1000)), Arc::new(AtomicBool::new(false)));
    let fixture = held(&gate, &fails);
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    fs::write(fixture.path("g"), b"").unwrap();
    fails.store(true, Ordering::SeqCst);
    let stable = StableHow::FileSync;
    let write = arguments::Write { file: file.clone(), offset: 0, count: 1, stable, data: Opaque(b"x") };
    let answer = client.nfs(Procedure::Write, &write).unwrap();
    assert_eq!(answer.result::<results::Write>().unwrap().unwrap_err().0 as u32, 5);
    assert_eq!(status(client.commit(&file)), 5);
    assert_eq!(status(client.create(&root, b"h")), 5);
    assert_eq!(status(client.mkdir(&root, b"d")), 5);
    assert_eq!(status(client.rename((&root, b"f"), (&root, b"i"))), 5);
    assert_eq!(status(client.link(&file, &root, b"j")), 5);
    assert_eq!(status(client.remove(&root, b"g")), 5);
    fails.store(false, Ordering::SeqCst);
    client.create(&root, b"k").unwrap();
}
