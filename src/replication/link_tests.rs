//! Both ends of the link over real TLS on the loopback interface, with a store in memory.

mod hostile;

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
use parking_lot::Mutex;
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

pub(super) const STREAM: StreamId = StreamId([5; 16]);

/// What the disk of the test forgets when `crash`ed is not modelled here (tests/simulation does).
#[derive(Default)]
pub(super) struct MemoryStore {
    held: Mutex<Held>,
    full: AtomicBool,
    told: AtomicU64,
}

#[derive(Default)]
struct Held {
    batches: Vec<Vec<u8>>,
    durable: usize,
    blobs: HashMap<Hash, Vec<u8>>,
}

impl MemoryStore {
    pub(super) fn durable(&self) -> u64 {
        self.held.lock().durable as u64
    }

    fn space(&self) -> Result<(), StoreFault> {
        let full = self.full.load(Ordering::SeqCst);
        if full { Err(StoreFault::Full { reason: "0 bytes left".to_owned() }) } else { Ok(()) }
    }
}

fn position_of(batches: &[Vec<u8>]) -> Option<Position> {
    let chain = wire::chain(batches.last()?);
    Some(Position { stream: STREAM, number: batches.len() as u64, chain })
}

impl BackupStore for MemoryStore {
    fn position(&self) -> Option<Position> {
        let held = self.held.lock();
        position_of(&held.batches[..held.durable])
    }

    fn knows(&self, position: &Position) -> Result<bool, StoreFault> {
        let held = self.held.lock();
        Ok(held.batches.get(..position.number as usize).and_then(position_of) == Some(*position))
    }

    fn lacking(&self, hashes: &[Hash]) -> Result<Vec<bool>, StoreFault> {
        let held = self.held.lock();
        Ok(hashes.iter().map(|hash| !held.blobs.contains_key(hash)).collect())
    }

    fn put_blob(&self, blob: &Blob) -> Result<(), StoreFault> {
        self.space()?;
        if Hash::of(&blob.bytes) != blob.hash {
            return Err(StoreFault::Rejected { reason: format!("{} is not its name", blob.hash) });
        }
        self.held.lock().blobs.insert(blob.hash, blob.bytes.to_vec());
        Ok(())
    }

    fn append_batch(&self, encoded: &[u8], batch: &Batch) -> Result<(), StoreFault> {
        self.space()?;
        let mut held = self.held.lock();
        let last = position_of(&held.batches).unwrap_or(Position::start(STREAM));
        assert_eq!((batch.number, batch.previous), (last.number + 1, last.chain), "order of batches");
        held.batches.push(encoded.to_vec());
        Ok(())
    }

    fn sync(&self) -> Result<u64, StoreFault> {
        let mut held = self.held.lock();
        held.durable = held.batches.len();
        Ok(held.durable as u64)
    }
}

/// Answers `Blobs` with what the store has, and `ReadData` in three parts.
struct Questions(Arc<MemoryStore>);

impl QueryHandler for Questions {
    fn answer(&self, query: Query, part: &mut dyn FnMut(Answer, bool) -> bool) {
        match query {
            Query::Blobs(hashes) => {
                let blobs = hashes.iter().map(|hash| self.0.held.lock().blobs.get(hash).cloned()).collect();
                part(Answer::Blobs(blobs), false);
            }
            Query::ReadData { .. } => {
                for more in [true, true, false] {
                    let damage = vec![damage()];
                    part(Answer::ReadData { progress: Default::default(), damage, unchecked: vec![] }, more);
                }
            }
            _ => drop(part(Answer::Failed { reason: "not here".to_owned() }, false)),
        }
    }
}

fn damage() -> ehpc_proto::replication::message::Damage {
    let object = ehpc_proto::replication::ObjectId(9);
    ehpc_proto::replication::message::Damage { path: b"a".to_vec(), object, reason: "differs".to_owned() }
}

/// A primary's and a backup's state directory, and a runtime.
pub(super) struct Hosts {
    pub(super) runtime: Runtime,
    pub(super) primary: TempDir,
    backup: TempDir,
    pub(super) store: Arc<MemoryStore>,
}

/// A desk for `store`.
pub(super) fn desk(alpn: &'static [u8], store: Arc<MemoryStore>) -> DeskOptions {
    let told = store.clone();
    DeskOptions {
        alpn,
        queries: Arc::new(Questions(store.clone())),
        store,
        on_durable: Arc::new(move |number| {
            told.told.fetch_max(number, Ordering::SeqCst);
        }),
    }
}

impl Hosts {
    pub(super) fn paired() -> Hosts {
        let hosts = Hosts::unpaired();
        pair_locally(hosts.primary.path(), "nfs1", hosts.backup.path(), "backup1").unwrap();
        hosts
    }

    fn unpaired() -> Hosts {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = || tempfile::tempdir().unwrap();
        Hosts { runtime, primary: folder(), backup: folder(), store: Arc::default() }
    }

    fn receiver(&self) -> Receiver {
        self.receiver_with(vec![desk(ALPN_STORE, self.store.clone())], Vec::new())
    }

    pub(super) fn receiver_with(
        &self,
        desks: Vec<DeskOptions>,
        services: Vec<(Protocol, Arc<dyn Service>)>,
    ) -> Receiver {
        let options = ReceiverOptions {
            identity: Arc::new(Identity::load_or_create(self.backup.path(), "backup1").unwrap()),
            peers: Peers::of(self.backup.path()),
            desks,
            services,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Receiver::start(self.runtime.handle(), listener, options).unwrap()
    }

    fn connector(&self, address: SocketAddr) -> TlsConnector {
        self.connector_of(self.primary.path(), address)
    }

    fn connector_of(&self, state: &Path, address: SocketAddr) -> TlsConnector {
        self.connector_with(self.connecting(state, address))
    }

    pub(super) fn connector_with(&self, options: ConnectorOptions) -> TlsConnector {
        TlsConnector::new(self.runtime.handle().clone(), options)
    }

    pub(super) fn connecting(&self, state: &Path, address: SocketAddr) -> ConnectorOptions {
        ConnectorOptions {
            address: address.to_string(),
            alpn: ALPN_STORE,
            identity: Arc::new(Identity::load_or_create(state, "nfs1").unwrap()),
            peers: Peers::of(state),
            shutdown: CancellationToken::new(),
            seed: 1,
        }
    }
}

pub(super) fn hello(position: Option<Position>) -> Hello {
    Hello { export: "share".to_owned(), stream: STREAM, position }
}

pub(super) fn blob(content: &[u8]) -> Blob {
    Blob {
        kind: BlobKind::Chunk,
        hash: Hash::of(content),
        raw_len: content.len() as u32,
        codec: Codec::Raw,
        bytes: content.to_vec().into(),
    }
}

/// The batch after `last`, encoded, and where it leads.
pub(super) fn next_batch(last: Position, cut: u64) -> (Bytes, Position) {
    let batch = Batch {
        number: last.number + 1,
        previous: last.chain,
        cut,
        time: Timestamp::default(),
        objects: vec![],
        entries: vec![],
        destroyed: vec![],
    };
    let encoded = wire::encode_batch(&batch);
    let position = Position { number: batch.number, chain: wire::chain(&encoded), ..last };
    (encoded.into(), position)
}

/// Waits until `reached`, at most ten seconds.
pub(super) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let (waker, woken) = std::sync::mpsc::channel::<()>();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        let _ = woken.recv_timeout(Duration::from_millis(5));
    }
    drop(waker);
}

pub(super) fn acked(link: &mut dyn Link, number: u64) {
    let mut newest = 0;
    until("acknowledgement", || {
        newest = link.poll_acks().unwrap_or(newest);
        newest >= number
    });
}

/// The error of an attempt to connect.
fn fails(connector: &mut TlsConnector) -> LinkDown {
    connector.connect(hello(None)).map(|_| ()).expect_err("connected")
}

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
fn only_the_paired_keys_are_let_in() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();

    // A third host that knows the backup's key, but is not the backup's primary.
    let stranger = tempfile::tempdir().unwrap();
    let known = Peers::of(hosts.primary.path()).in_role(Role::Backup).unwrap().unwrap();
    Peers::of(stranger.path()).set(&known).unwrap();
    let down = fails(&mut hosts.connector_of(stranger.path(), receiver.address()));
    assert!(down.to_string().contains("does not know this host's key"), "{down}");
    until("the stranger is counted", || receiver.monitor().status().turned_away == 1);
    assert_eq!(receiver.monitor().status().connections, 0);

    // Somebody else answers in place of the backup.
    let impostor = Hosts::paired();
    let other = impostor.receiver();
    let down = fails(&mut hosts.connector(other.address()));
    assert!(down.to_string().contains("key is not the paired one"), "{down}");
}

#[test]
fn an_unpaired_host_is_told_so_and_let_in_once_it_is_paired() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let mut connector = hosts.connector(receiver.address());
    assert_eq!(fails(&mut connector), LinkDown::NotPaired);
    let backup = Identity::load_or_create(hosts.backup.path(), "backup1").unwrap();
    let record = super::identity::PeerRecord {
        name: "backup1".to_owned(),
        fingerprint: backup.fingerprint(),
        role: Role::Backup,
    };
    Peers::of(hosts.primary.path()).set(&record).unwrap();
    let down = fails(&mut connector);
    assert!(down.to_string().contains("does not know this host's key"), "{down}");

    let code = receiver.monitor().open_pairing();
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let address = receiver.address().to_string();
    let paired = hosts.runtime.block_on(pair(&address, &code, &identity, &peers)).unwrap();
    assert_eq!(paired, record);
    assert_eq!(receiver.monitor().paired().unwrap().fingerprint, identity.fingerprint());
    assert!(!receiver.monitor().status().pairing_open, "a code is good for one pairing");
    connector.connect(hello(None)).unwrap();
}

#[test]
fn wrong_codes_change_nothing_and_end_the_offer() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let address = receiver.address().to_string();
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let attempt = |code: &str| {
        let refused = hosts.runtime.block_on(pair(&address, code, &identity, &peers)).unwrap_err();
        assert_eq!(peers.list().unwrap(), []);
        assert_eq!(Peers::of(hosts.backup.path()).list().unwrap(), []);
        refused.to_string()
    };
    assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains("no pairing is open"));
    let code = receiver.monitor().open_pairing();
    for left in [4, 3, 2, 1] {
        assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains(&format!("{left} tries left")));
    }
    assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains("too often"));
    assert!(attempt(&code).contains("no pairing is open"));
    assert!(attempt("short").contains("not a pairing code"));
    drop(receiver);
}

#[test]
fn a_backup_that_does_not_know_the_code_is_found_out() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let code = receiver.monitor().open_pairing();
    // Somebody in between ends the TLS connection and opens another to the backup, relaying what is said.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let middle = tempfile::tempdir().unwrap();
    let middle = Arc::new(Identity::load_or_create(middle.path(), "middle").unwrap());
    let (between, backup) = (listener.local_addr().unwrap(), receiver.address());
    hosts.runtime.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let config = transport::server_config(&middle, Trust::Unpinned, ALPN_PAIR).unwrap();
        let mut near = tokio_rustls::TlsAcceptor::from(config).accept(near).await.unwrap();
        let mut far = secured(&middle, backup, ALPN_PAIR).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let refused = hosts.runtime.block_on(pair(&between.to_string(), &code, &identity, &peers)).unwrap_err();
    assert!(matches!(&refused, PairingError::Refused { reason } if reason.contains("wrong")), "{refused}");
    assert_eq!(peers.list().unwrap(), []);
    assert_eq!(receiver.monitor().paired(), None);
}

#[test]
fn a_full_disk_refuses_and_recovers_without_loss() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let mut connector = hosts.connector(receiver.address());
    let (_, mut link) = connector.connect(hello(None)).unwrap();
    let (encoded, first) = next_batch(Position::start(STREAM), 0);
    link.send_batch(1, encoded).unwrap();
    acked(&mut *link, 1);
    hosts.store.full.store(true, Ordering::SeqCst);
    let _ = link.send_blobs(vec![blob(b"no space for this")]);
    until("the link goes down", || link.check().is_err());
    let down = link.check().unwrap_err();
    assert!(matches!(&down, LinkDown::Refused { reason } if reason.contains("disk is full")), "{down}");
    assert!(receiver.monitor().status().disk_full);
    hosts.store.full.store(false, Ordering::SeqCst);
    let (welcome, mut link) = connector.connect(hello(Some(first))).unwrap();
    assert_eq!((welcome.position, welcome.shadow_known), (Some(first), true));
    let (encoded, _) = next_batch(first, 0);
    link.send_batch(2, encoded).unwrap();
    acked(&mut *link, 2);
    assert!(!receiver.monitor().status().disk_full);
}

#[test]
fn the_reason_of_a_refusal_arrives_in_the_midst_of_a_stream() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    hosts.store.full.store(true, Ordering::SeqCst);
    let mut connector = hosts.connector(receiver.address());
    for _ in 0..3 {
        let (_, mut link) = connector.connect(hello(None)).unwrap();
        let down = loop {
            let content = vec![1; 262_144];
            if let Err(down) = link.send_blobs(vec![blob(&content), blob(&content), blob(&content)]) {
                break down;
            }
        };
        assert!(matches!(&down, LinkDown::Refused { reason } if reason.contains("disk is full")), "{down}");
    }
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

/// Passes connections on to `backup` and cuts each after a random number of bytes, until `calm`.
fn cutting_proxy(backup: SocketAddr, seed: u64, calm: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut random = StdRng::seed_from_u64(seed);
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(backup)) else { return };
            let mut budget = || {
                if calm.load(Ordering::SeqCst) { u64::MAX } else { random.random_range(1..40_000) }
            };
            for (from, to, budget) in
                [(&near, &far, budget()), (&far, &near, budget())].map(|(a, b, n)| (clone(a), clone(b), n))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut (&from).take(budget), &mut &to);
                    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
                });
            }
        }
    });
    address
}

fn clone(socket: &TcpStream) -> TcpStream {
    socket.try_clone().unwrap()
}

#[test]
fn a_link_cut_at_random_bytes_loses_and_repeats_nothing() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let calm = Arc::new(AtomicBool::new(false));
    let seed = rand::rng().random();
    println!("seed {seed}");
    let proxy = cutting_proxy(receiver.address(), seed, calm.clone());
    let mut random = StdRng::seed_from_u64(seed);
    let mut connector = hosts.connector(proxy);
    let mut acknowledged = Position::start(STREAM);
    let mut connections = 0;
    let began = Instant::now();
    while acknowledged.number < 200 {
        calm.store(began.elapsed() > Duration::from_secs(4), Ordering::SeqCst);
        let named = Some(acknowledged).filter(|position| position.number > 0);
        let Ok((welcome, mut link)) = connector.connect(hello(named)) else { continue };
        connections += 1;
        let there = welcome.position.unwrap_or(Position::start(STREAM));
        assert!(there.number >= acknowledged.number, "an acknowledged batch is gone");
        assert_eq!(welcome.shadow_known, named.is_some());
        acknowledged = there;
        let mut sent = vec![there];
        loop {
            let content: Vec<u8> = (0..random.random_range(1..3000)).map(|_| random.random()).collect();
            let (encoded, next) = next_batch(sent[sent.len() - 1], random.random());
            let shipped = link.send_blobs(vec![blob(&content)]);
            if shipped.and_then(|()| link.send_batch(next.number, encoded)).is_err() {
                break;
            }
            sent.push(next);
            if next.number >= 200 {
                until("the rest", || link.poll_acks().is_some_and(|n| n >= 200) || link.check().is_err());
                break;
            }
        }
        if let Some(number) = link.poll_acks() {
            acknowledged = sent[(number - there.number) as usize];
        }
        if hosts.store.durable() >= 200 {
            acknowledged = sent[sent.len() - 1];
        }
    }
    assert!(connections > 3, "the proxy cut nothing");
    // MemoryStore asserts the order of every batch.
    assert_eq!(hosts.store.durable(), 200);
}
