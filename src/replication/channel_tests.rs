//! Desks, services and channels over real TLS: each connection comes to where its protocol's name says.

use super::channel::{self, Channel, DATABASE, DialOptions, Protocol, Service};
use super::link::Connector;
use super::link::LinkDown;
use super::link_tests::{Hosts, MemoryStore, acked, blob, desk, hello, next_batch, until};
use super::transport::{ALPN_BASE, ALPN_STORE};
use bytes::Bytes;
use ehpc_proto::replication::Position;
use ehpc_proto::replication::message::PROTOCOL_VERSION;
use ehpc_proto::replication::wire::FrameKind;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Sends back what comes, until the end or the stop; says "stopped" then.
#[derive(Default)]
struct Echo {
    running: AtomicUsize,
    peers: Mutex<Vec<String>>,
}

impl Service for Echo {
    fn serve(
        &self,
        mut channel: Channel,
        peer: String,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.running.fetch_add(1, Ordering::SeqCst);
            self.peers.lock().push(peer);
            loop {
                let next = tokio::select! {
                    () = stop.cancelled() => Some(Bytes::from_static(b"stopped")),
                    next = channel.input.next() => next.unwrap_or(None),
                };
                let Some(message) = next else { break };
                let sent = channel.output.send(message.to_vec().into()).await;
                if sent.is_err() || channel.output.flush().await.is_err() || stop.is_cancelled() {
                    break;
                }
            }
            let _ = channel.output.finish().await;
            self.running.fetch_sub(1, Ordering::SeqCst);
        })
    }
}

fn dialling(hosts: &Hosts, address: std::net::SocketAddr) -> DialOptions {
    let options = hosts.connecting(hosts.primary.path(), address);
    DialOptions { address: options.address, identity: options.identity, peers: options.peers }
}

async fn says(channel: &mut Channel, message: &[u8]) -> Option<Bytes> {
    channel.output.send(message.to_vec().into()).await.unwrap();
    channel.output.flush().await.unwrap();
    channel.input.next().await.unwrap()
}

const OTHER: Protocol = Protocol { alpn: b"ehpc-other/1", ..DATABASE };

#[test]
fn desks_and_services_are_told_apart_and_each_has_its_own_connection_in_charge() {
    let hosts = Hosts::paired();
    let (base, echo) = (Arc::new(MemoryStore::default()), Arc::new(Echo::default()));
    let receiver = hosts.receiver_with(
        vec![desk(ALPN_STORE, hosts.store.clone()), desk(ALPN_BASE, base.clone())],
        vec![(DATABASE, echo.clone())],
    );
    let connect = |alpn| {
        let mut options = hosts.connecting(hosts.primary.path(), receiver.address());
        options.alpn = alpn;
        let mut connector = hosts.connector_with(options);
        connector.connect(hello(None)).unwrap().1
    };
    let mut files = connect(ALPN_STORE);
    let mut bases = connect(ALPN_BASE);
    let (two, options) = (blob(b"two"), dialling(&hosts, receiver.address()));
    let mut channel = hosts.runtime.block_on(channel::dial(&options, DATABASE)).unwrap();

    bases.send_blobs(vec![two.clone()]).unwrap();
    let (encoded, _) = next_batch(Position::start(super::link_tests::STREAM), 0);
    bases.send_batch(1, encoded).unwrap();
    acked(&mut *bases, 1);
    assert_eq!(files.lacking(&[two.hash]).unwrap(), [true], "the stores are two");
    assert_eq!((hosts.store.durable(), base.durable()), (0, 1));
    hosts.runtime.block_on(async {
        assert_eq!(says(&mut channel, b"hello").await.as_deref(), Some(&b"hello"[..]));
        assert_eq!(says(&mut channel, &[7; 300_000]).await.map(|m| m.len()), Some(300_000));
    });
    assert!(echo.peers.lock()[0].starts_with("nfs1 (127.0.0.1:"));
    let primary = |alpn| receiver.monitor_of(alpn).unwrap().status().connections;
    assert_eq!((primary(ALPN_STORE), primary(ALPN_BASE)), (1, 1));
    assert!(receiver.monitor_of(b"other").is_none());

    // A newer connection takes its own kind's place, and no other's.
    let mut newer = hosts.runtime.block_on(channel::dial(&options, DATABASE)).unwrap();
    hosts.runtime.block_on(async {
        let told = tokio::time::timeout(Duration::from_secs(10), channel.input.next()).await;
        assert_eq!(told.expect("the older one is stopped").unwrap().as_deref(), Some(&b"stopped"[..]));
        assert!(channel.input.next().await.unwrap().is_none(), "an orderly end");
        assert_eq!(says(&mut newer, b"x").await.as_deref(), Some(&b"x"[..]));
    });
    until("the older one is over", || echo.running.load(Ordering::SeqCst) == 1);
    assert_eq!((files.check(), bases.check()), (Ok(()), Ok(())));

    // Shutdown stops services, too.
    hosts.runtime.block_on(receiver.shutdown());
    assert_eq!(echo.running.load(Ordering::SeqCst), 0);
}

#[test]
fn a_stuck_link_of_the_files_does_not_hold_up_the_database() {
    let hosts = Hosts::paired();
    let echo = Arc::new(Echo::default());
    let desks = vec![desk(ALPN_STORE, hosts.store.clone())];
    let receiver = hosts.receiver_with(desks, vec![(DATABASE, echo)]);
    let mut options = hosts.connecting(hosts.primary.path(), receiver.address());
    options.alpn = ALPN_STORE;
    let mut connector = hosts.connector_with(options);
    let (_, mut files) = connector.connect(hello(None)).unwrap();
    let mut channel =
        hosts.runtime.block_on(channel::dial(&dialling(&hosts, receiver.address()), DATABASE)).unwrap();
    // The disk of the files does nothing; what is sent fills credit and buffers, and then waits.
    hosts.store.set_stuck(true);
    let monitor = connector.monitor();
    let sending = std::thread::spawn(move || {
        for n in 0..400u32 {
            files.send_blobs(vec![blob(&n.to_be_bytes().repeat(65_536))]).unwrap();
        }
        files
    });
    let mut sent = 0;
    until("nothing more goes out", || {
        let before = std::mem::replace(&mut sent, monitor.status().bytes_sent);
        std::thread::yield_now();
        sent > 262_144 && sent == before && hosts.store.waits()
    });
    let heard = hosts.runtime.block_on(async { says(&mut channel, b"commit").await });
    assert_eq!(heard.as_deref(), Some(&b"commit"[..]));
    assert!(!sending.is_finished(), "the files went on");
    hosts.store.set_stuck(false);
    let mut files = sending.join().unwrap();
    let (encoded, _) = next_batch(Position::start(super::link_tests::STREAM), 0);
    files.send_batch(1, encoded).unwrap();
    acked(&mut *files, 1);
}

#[test]
fn what_the_backup_does_not_offer_is_named() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver_with(vec![desk(ALPN_STORE, hosts.store.clone())], vec![]);
    let options = dialling(&hosts, receiver.address());
    for protocol in [DATABASE, OTHER] {
        let down = hosts.runtime.block_on(channel::dial(&options, protocol)).map(|_| ()).unwrap_err();
        let name = String::from_utf8_lossy(protocol.alpn).into_owned();
        assert!(matches!(&down, LinkDown::Unreachable { reason, .. } if reason.contains(&name)), "{down}");
    }
    let stranger = tempfile::tempdir().unwrap();
    let options = hosts.connecting(stranger.path(), receiver.address());
    let options = DialOptions { address: options.address, identity: options.identity, peers: options.peers };
    let down = hosts.runtime.block_on(channel::dial(&options, DATABASE)).map(|_| ()).unwrap_err();
    assert_eq!(down, LinkDown::NotPaired);
}

#[test]
fn only_the_paired_primary_reaches_a_service_and_only_with_its_kind_of_frames() {
    let hosts = Hosts::paired();
    let echo = Arc::new(Echo::default());
    let services: Vec<(Protocol, Arc<dyn Service>)> = vec![(DATABASE, echo.clone())];
    let receiver = hosts.receiver_with(vec![desk(ALPN_STORE, hosts.store.clone())], services);
    let known = super::identity::Peers::of(hosts.primary.path());
    let known = known.in_role(super::identity::Role::Backup).unwrap().unwrap();
    let stranger = tempfile::tempdir().unwrap();
    super::identity::Peers::of(stranger.path()).set(&known).unwrap();
    let options = hosts.connecting(stranger.path(), receiver.address());
    let options = DialOptions { address: options.address, identity: options.identity, peers: options.peers };
    hosts.runtime.block_on(async {
        // In TLS 1.3 the client learns of it when it reads.
        let refused = match channel::dial(&options, DATABASE).await {
            Ok(mut channel) => channel.input.next().await.map(|_| ()).unwrap_err().to_string(),
            Err(down) => down.to_string(),
        };
        assert!(refused.contains("does not know this host's key"), "{refused}");
    });
    until("the stranger is counted", || receiver.monitor().status().turned_away == 1);
    assert!(echo.peers.lock().is_empty());

    let wrong = Protocol { to_backup: FrameKind::ToBackup, ..DATABASE };
    let options = dialling(&hosts, receiver.address());
    let mut channel = hosts.runtime.block_on(channel::dial(&options, wrong)).unwrap();
    let heard = hosts.runtime.block_on(says(&mut channel, &PROTOCOL_VERSION.to_be_bytes()));
    assert!(heard.is_none(), "a frame of another kind is no message");
}
