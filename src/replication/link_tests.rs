//! Both ends of the link over real TLS on the loopback interface, with a store in memory.

mod faults;
mod hostile;
mod hosts;
mod pairing;

use super::channel::{Protocol, Service};
use super::connector::{ConnectorOptions, LinkState, TlsConnector};
use super::identity::{Identity, Peers, Role};
use super::link::{Connector, Hello, Link, LinkDown};
use super::pairing::{PairingError, pair, pair_locally};
use super::receiver::{BackupStore, DeskOptions, QueryHandler, Receiver, ReceiverOptions, StoreFault};
use super::transport::{self, ALPN_PAIR, ALPN_STORE, FrameReader, FrameWriter, Sealed, Trust};
use bytes::Bytes;
use ehpc_proto::replication::message::{Answer, Blob, BlobKind, Codec, Query, ToBackup, ToPrimary};
use ehpc_proto::replication::wire::{self, FrameKind};
use ehpc_proto::replication::{Batch, Hash, Position, StreamId, Timestamp};
use hostile::secured;
use hosts::fails;
pub(super) use hosts::{Hosts, MemoryStore, STREAM, acked, blob, desk, hello, next_batch, until};
use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[test]
fn batches_and_blobs_arrive_are_acknowledged_and_resumed() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let mut connector = hosts.connector(receiver.address());
    let (welcome, mut link) = connector.connect(hello(None)).unwrap();
    assert_eq!((welcome.position, welcome.shadow_known), (None, false));

    let woken = Arc::new(AtomicU64::new(0));
    let count = woken.clone();
    link.on_event(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let (one, two) = (blob(b"one"), blob(&[7; 200_000]));
    let hashes = [one.hash, two.hash];
    assert_eq!(link.lacking(&hashes).unwrap(), [true, true]);
    link.send_blobs(vec![one, two]).unwrap();
    until("blobs", || link.lacking(&hashes).unwrap() == [false, false]);

    let mut position = Position::start(STREAM);
    for cut in 0..100 {
        let (encoded, next) = next_batch(position, cut);
        link.send_batch(next.number, encoded).unwrap();
        position = next;
    }
    acked(&mut *link, 100);
    assert!(woken.load(Ordering::SeqCst) > 0);
    assert_eq!(hosts.store.durable(), 100);
    until("the applier is told", || hosts.store.told.load(Ordering::SeqCst) == 100);

    let answer = link.ask(Query::Blobs(vec![hashes[0], Hash([0; 32])])).unwrap();
    assert_eq!(answer, Answer::Blobs(vec![Some(b"one".to_vec()), None]));
    let Answer::ReadData { damage, .. } = link.ask(Query::ReadData { applied: 0 }).unwrap() else { panic!() };
    assert_eq!(damage.len(), 3, "the parts are put together");
    let asker = connector.asker();
    let whole = hosts.runtime.block_on(asker.ask_whole(Query::ReadData { applied: 0 })).unwrap();
    assert!(matches!(whole, Answer::ReadData { damage, .. } if damage.len() == 3));

    let status = connector.monitor().status();
    assert_eq!((status.state, status.peer.as_deref()), (LinkState::Up, Some("backup1")));
    assert!(status.bytes_sent > 200_000 && status.bytes_received > 0, "{status:?}");
    let status = receiver.monitor().status();
    assert_eq!((status.durable, status.connections), (100, 1));
    assert!(status.primary.unwrap().starts_with("nfs1 (127.0.0.1:"));

    drop(link);
    let (welcome, _link) = connector.connect(hello(Some(position))).unwrap();
    assert_eq!((welcome.position, welcome.shadow_known), (Some(position), true));
    let other = Position { chain: Hash([1; 32]), ..position };
    let (welcome, _link) = connector.connect(hello(Some(other))).unwrap();
    assert_eq!((welcome.position, welcome.shadow_known), (Some(position), false));
}

#[test]
fn more_than_the_credit_flows_and_stays_bounded() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let (_, mut link) = hosts.connector(receiver.address()).connect(hello(None)).unwrap();
    for n in 0..80u32 {
        let content: Vec<u8> = n.to_be_bytes().repeat(65_536);
        link.send_blobs(content.chunks(131_072).map(blob).collect()).unwrap();
    }
    let (encoded, _) = next_batch(Position::start(STREAM), 0);
    link.send_batch(1, encoded).unwrap();
    acked(&mut *link, 1);
    assert_eq!(hosts.store.held.lock().blobs.len(), 80);
}

#[test]
fn a_shutdown_acknowledges_what_has_arrived() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let (_, mut link) = hosts.connector(receiver.address()).connect(hello(None)).unwrap();
    let mut position = Position::start(STREAM);
    for cut in 0..5 {
        let (encoded, next) = next_batch(position, cut);
        link.send_batch(next.number, encoded).unwrap();
        position = next;
    }
    until("they are there", || hosts.store.held.lock().batches.len() == 5);
    let monitor = receiver.monitor();
    hosts.runtime.block_on(receiver.shutdown());
    assert_eq!(hosts.store.durable(), 5);
    acked(&mut *link, 5);
    until("the link is down", || link.check().is_err());
    assert_eq!(monitor.status().primary, None);
}

#[test]
fn the_newest_connection_is_in_charge() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let (_, old) = hosts.connector(receiver.address()).connect(hello(None)).unwrap();
    let (_, mut new) = hosts.connector(receiver.address()).connect(hello(None)).unwrap();
    until("the old one is closed", || old.check().is_err());
    let (encoded, _) = next_batch(Position::start(STREAM), 0);
    new.send_batch(1, encoded).unwrap();
    acked(&mut *new, 1);
    assert!(receiver.monitor().status().primary.is_some());
}

#[test]
fn a_connector_stops_waiting_at_shutdown() {
    let hosts = Hosts::paired();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut connector = hosts.connector(nobody);
    let monitor = connector.monitor();
    let stop = connector.shutdown_token();
    let waiting = std::thread::spawn(move || {
        loop {
            let down = fails(&mut connector);
            if down == LinkDown::Closed {
                return;
            }
        }
    });
    until("it failed", || monitor.status().last_error.is_some());
    let error = monitor.status().last_error.unwrap();
    assert!(error.contains(&nobody.to_string()), "{error}");
    stop.cancel();
    waiting.join().unwrap();
    assert_eq!(monitor.status().state, LinkState::Closed);
}
