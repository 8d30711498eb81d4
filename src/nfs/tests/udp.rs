//! What is served over UDP.

use super::{Fixture, WAIT};
use crate::nfs::rpc::client::{CallFailed, Function, Peer, call};
use ehpc_proto::codec::Decoder;
use ehpc_proto::mount::{self, ExportEntry, List, MountReply};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::{Decode, Opaque};
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

fn at(fixture: &Fixture, stop: &CancellationToken) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    fixture.runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (address, fixture.server.serve_datagrams(socket, stop.clone()).unwrap())
    })
}

#[test]
fn mount_is_served_over_udp_and_nfs_is_not() {
    let fixture = Fixture::start();
    let stop = CancellationToken::new();
    let (address, task) = at(&fixture, &stop);
    let peer = Peer::Udp(address, None);
    let function = |program, procedure| Function { program, version: 3, procedure };
    fixture.runtime.block_on(async {
        call(&peer, function(mount::PROGRAM, 0), &(), WAIT).await.unwrap();
        let path = Opaque::<1024>(b"/share");
        let result = call(&peer, function(mount::PROGRAM, 1), &path, WAIT).await.unwrap();
        let mounted = MountReply::decode(&mut Decoder::new(&result)).unwrap().unwrap();
        let handle = fixture.client().mount("/share").unwrap();
        assert_eq!(mounted.handle.data, handle.data, "the same over UDP as over TCP");
        let result = call(&peer, function(mount::PROGRAM, 5), &(), WAIT).await.unwrap();
        let exports = List::<ExportEntry<'_>>::decode(&mut Decoder::new(&result)).unwrap();
        assert_eq!(exports.0.len(), 1);
        match call(&peer, function(100_003, 0), &(), WAIT).await {
            Err(CallFailed::Refused(Reply::ProgramUnavailable)) => {}
            other => panic!("{other:?}"),
        }
        match call(&peer, function(mount::PROGRAM, 1), &7u32, WAIT).await {
            Err(CallFailed::Refused(Reply::GarbageArguments)) => {}
            other => panic!("{other:?}"),
        }
        // Garbage and half a call are not answered, and do no harm.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for garbage in [&b""[..], b"x", &[0xff; 9000]] {
            socket.send_to(garbage, address).await.unwrap();
        }
        call(&peer, function(mount::PROGRAM, 0), &(), WAIT).await.unwrap();
        stop.cancel();
        tokio::time::timeout(WAIT, task).await.expect("ends").unwrap();
    });
}
