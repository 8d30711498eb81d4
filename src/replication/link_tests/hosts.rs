//! Two hosts of one machine, and a store in memory.

use super::*;

pub(in crate::replication) const STREAM: StreamId = StreamId([5; 16]);

/// What the disk of the test forgets when `crash`ed is not modelled here (tests/simulation does).
#[derive(Default)]
pub(in crate::replication) struct MemoryStore {
    pub(super) held: Mutex<Held>,
    pub(super) full: AtomicBool,
    pub(super) told: AtomicU64,
    /// No blob is stored now.
    stuck: Mutex<bool>,
    freed: Condvar,
    /// One waits for that.
    waits: AtomicBool,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) batches: Vec<Vec<u8>>,
    durable: usize,
    pub(super) blobs: HashMap<Hash, Vec<u8>>,
}

impl MemoryStore {
    pub(in crate::replication) fn durable(&self) -> u64 {
        self.held.lock().durable as u64
    }

    /// From now on no blob is stored, or they are again.
    pub(in crate::replication) fn set_stuck(&self, stuck: bool) {
        *self.stuck.lock() = stuck;
        self.freed.notify_all();
    }

    /// A blob waits.
    pub(in crate::replication) fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
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
        let mut stuck = self.stuck.lock();
        while *stuck {
            self.waits.store(true, Ordering::SeqCst);
            self.freed.wait(&mut stuck);
        }
        drop(stuck);
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
pub(in crate::replication) struct Hosts {
    pub(in crate::replication) runtime: Runtime,
    pub(in crate::replication) primary: TempDir,
    pub(super) backup: TempDir,
    pub(in crate::replication) store: Arc<MemoryStore>,
}

/// A desk for `store`.
pub(in crate::replication) fn desk(alpn: &'static [u8], store: Arc<MemoryStore>) -> DeskOptions {
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
    pub(in crate::replication) fn paired() -> Hosts {
        let hosts = Hosts::unpaired();
        pair_locally(hosts.primary.path(), "nfs1", hosts.backup.path(), "backup1").unwrap();
        hosts
    }

    pub(super) fn unpaired() -> Hosts {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = || tempfile::tempdir().unwrap();
        Hosts { runtime, primary: folder(), backup: folder(), store: Arc::default() }
    }

    pub(super) fn receiver(&self) -> Receiver {
        self.receiver_with(vec![desk(ALPN_STORE, self.store.clone())], Vec::new())
    }

    pub(in crate::replication) fn receiver_with(
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

    pub(super) fn connector(&self, address: SocketAddr) -> TlsConnector {
        self.connector_of(self.primary.path(), address)
    }

    pub(super) fn connector_of(&self, state: &Path, address: SocketAddr) -> TlsConnector {
        self.connector_with(self.connecting(state, address))
    }

    pub(in crate::replication) fn connector_with(&self, options: ConnectorOptions) -> TlsConnector {
        TlsConnector::new(self.runtime.handle().clone(), options)
    }

    pub(in crate::replication) fn connecting(&self, state: &Path, address: SocketAddr) -> ConnectorOptions {
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

pub(in crate::replication) fn hello(position: Option<Position>) -> Hello {
    Hello { export: "share".to_owned(), stream: STREAM, position }
}

pub(in crate::replication) fn blob(content: &[u8]) -> Blob {
    Blob {
        kind: BlobKind::Chunk,
        hash: Hash::of(content),
        raw_len: content.len() as u32,
        codec: Codec::Raw,
        bytes: content.to_vec().into(),
    }
}

/// The batch after `last`, encoded, and where it leads.
pub(in crate::replication) fn next_batch(last: Position, cut: u64) -> (Bytes, Position) {
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
pub(in crate::replication) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let (waker, woken) = std::sync::mpsc::channel::<()>();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        let _ = woken.recv_timeout(Duration::from_millis(5));
    }
    drop(waker);
}

pub(in crate::replication) fn acked(link: &mut dyn Link, number: u64) {
    let mut newest = 0;
    until("acknowledgement", || {
        newest = link.poll_acks().unwrap_or(newest);
        newest >= number
    });
}

/// The error of an attempt to connect.
pub(super) fn fails(connector: &mut TlsConnector) -> LinkDown {
    connector.connect(hello(None)).map(|_| ()).expect_err("connected")
}
