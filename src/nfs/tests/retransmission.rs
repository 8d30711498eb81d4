//! Calls that are sent again.

use super::hooked::Hooked;
use super::{Fixture, WAIT, options, wait_until};
use crate::nfs::Options;
use ehpc_proto::nfs3::{Procedure, arguments, results};
use ehpc_tools::nfs_client::{Client, Handle, mode, place};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn mkdir(client: &mut Client, root: &Handle, name: &[u8], xid: u32) {
    client.set_next_xid(xid);
    let args = arguments::Mkdir { place: place(root, name), attributes: mode(0o755) };
    client.queue_nfs(Procedure::Mkdir, &args);
    client.flush().unwrap();
}

fn made(client: &mut Client, xid: u32) -> Result<(), u32> {
    let answer = client.receive().unwrap();
    assert_eq!(answer.xid, xid);
    answer.result::<results::Created>().unwrap().map(|_| ()).map_err(|(status, _)| status as u32)
}

#[test]
fn the_first_reply_is_sent_again() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    for _ in 0..3 {
        mkdir(&mut client, &root, b"d", 77);
        assert_eq!(made(&mut client, 77), Ok(()));
    }
    mkdir(&mut client, &root, b"d", 78);
    assert_eq!(made(&mut client, 78), Err(17), "a new call is a new call");
    mkdir(&mut client, &root, b"e", 77);
    assert_eq!(made(&mut client, 77), Ok(()), "other arguments are another call");
    assert_eq!(fixture.server.stats().replayed, 2);
    client.set_next_xid(99);
    client.remove(&root, b"none").unwrap_err();
    client.create(&root, b"none").unwrap();
    client.set_next_xid(99);
    client.remove(&root, b"none").unwrap_err();
}

#[test]
fn another_client_with_the_same_numbers_is_not_answered_from_it() {
    let fixture = Fixture::start();
    let (mut first, root) = fixture.mounted();
    let mut second = fixture.client();
    mkdir(&mut first, &root, b"d", 5);
    assert_eq!(made(&mut first, 5), Ok(()));
    mkdir(&mut second, &root, b"d", 5);
    assert_eq!(made(&mut second, 5), Err(17));
}

#[test]
fn a_copy_of_a_call_in_progress_is_dropped_and_the_work_done_once() {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let fixture = Fixture::with(
        options(),
        |_| {},
        |vfs| {
            Hooked::before(vfs, move |operation, name| {
                if operation == "mkdir" && name == b"slow" {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.recv_timeout(WAIT);
                }
            })
        },
    );
    let (mut client, root) = fixture.mounted();
    for _ in 0..3 {
        mkdir(&mut client, &root, b"slow", 7);
    }
    // A later call is answered meanwhile: replies need no order.
    mkdir(&mut client, &root, b"fast", 8);
    assert_eq!(made(&mut client, 8), Ok(()));
    drop(open);
    assert_eq!(made(&mut client, 7), Ok(()));
    mkdir(&mut client, &root, b"slow", 7);
    assert_eq!(made(&mut client, 7), Ok(()));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_lost_its_connection_finds_its_reply_from_another_port() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    mkdir(&mut client, &root, b"d", 7);
    assert_eq!(made(&mut client, 7), Ok(()));
    // Ends with a reset, as when a host vanishes: half a record is on its way.
    client.send_raw(&[0x80, 0, 0, 100, 1]).unwrap();
    drop(client);
    wait_until("the connection is gone", || fixture.server.stats().connections == 0);
    let mut again = Client::over(TcpStream::connect(fixture.server.address()).unwrap()).unwrap();
    mkdir(&mut again, &root, b"d", 7);
    assert_eq!(made(&mut again, 7), Ok(()));
    // One that said goodbye has its replies: the same numbers from elsewhere are another call.
    mkdir(&mut again, &root, b"e", 8);
    assert_eq!(made(&mut again, 8), Ok(()));
    drop(again);
    wait_until("the connection is gone", || fixture.server.stats().connections == 0);
    let mut other = fixture.client();
    mkdir(&mut other, &root, b"e", 8);
    assert_eq!(made(&mut other, 8), Err(17));
}

#[test]
fn a_client_that_closed_before_its_reply_came_finds_it_from_another_port() {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let fixture = Fixture::with(
        Options { threads: 1, ..options() },
        |_| {},
        |vfs| {
            Hooked::before(vfs, move |operation, name| {
                if operation == "mkdir" && name == b"slow" {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.recv_timeout(WAIT);
                }
            })
        },
    );
    let (mut client, root) = fixture.mounted();
    mkdir(&mut client, &root, b"slow", 7);
    wait_until("it is being done", || calls.load(Ordering::SeqCst) == 1);
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    let mut again = fixture.client();
    // The one thread that serves both connections has seen the end of the first when it answers these.
    again.null().unwrap();
    again.null().unwrap();
    mkdir(&mut again, &root, b"slow", 7);
    again.set_next_xid(8);
    again.null().unwrap();
    drop(open);
    wait_until("the first connection is over", || fixture.server.stats().connections == 1);
    mkdir(&mut again, &root, b"slow", 7);
    assert_eq!(made(&mut again, 7), Ok(()));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
