//! The primary's end of the link: a TLS connection served by tokio tasks, behind blocking calls for the sender's
//! thread and asynchronous questions for verify.

mod link;

pub use link::{Answers, Asker};

use super::dial;
use super::identity::{Identity, Peers};
use super::link::{Connector, Hello, Link, LinkDown, Welcome};
use super::session::{Backoff, Event, PrimarySession, Tick};
use super::transport::{FrameReader, FrameWriter, Sealed, Socket, TransportError};
use crate::observe::metrics::{LINK_CONNECTS, LINK_SENT_BYTES};
use ehpc_proto::replication::message::{Answer, ToPrimary};
use ehpc_proto::replication::wire::{self, FrameKind, MAX_FRAME};
use parking_lot::{Condvar, Mutex};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Where the link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Not tried yet.
    #[default]
    Idle,
    /// Being made.
    Connecting,
    /// Welcomed by the backup.
    Up,
    /// Waiting to try again.
    Waiting,
    /// Shut down.
    Closed,
}

/// The link for `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LinkStatus {
    pub state: LinkState,
    /// host:port of the backup.
    pub address: String,
    /// Name of the paired backup.
    pub peer: Option<String>,
    /// When it came to this state, seconds since 1970.
    pub since: u64,
    /// Why the last connection or attempt failed.
    pub last_error: Option<String>,
    /// Connections made so far.
    pub connects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Batches sent and not acknowledged.
    pub batches_in_flight: usize,
}

/// Where to connect, and as whom.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct ConnectorOptions {
    /// host:port of the backup.
    pub address: String,
    /// Which of the backup's stores: the name of its desk's protocol ([`super::transport::ALPN_STORE`]: the files).
    pub alpn: &'static [u8],
    pub identity: Arc<Identity>,
    pub peers: Peers,
    /// Cancelled at shutdown: ends waits and connections.
    pub shutdown: CancellationToken,
    /// Seed of the jitter; tests fix it.
    pub seed: u64,
}

/// What outlives a connection.
struct Desk {
    options: ConnectorOptions,
    status: Mutex<LinkStatus>,
    /// The connection that stands.
    current: Mutex<Option<Arc<Shared>>>,
}

impl Desk {
    fn enter(&self, state: LinkState, error: Option<String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut status = self.status.lock();
        status.state = state;
        status.since = now.as_secs();
        if error.is_some() {
            status.last_error = error;
        }
    }
}

/// Connects to the paired backup. Made once; its handles stay valid across connections.
pub struct TlsConnector {
    runtime: Handle,
    desk: Arc<Desk>,
    backoff: Backoff,
    random: StdRng,
    /// The connection made last, to learn how it ended.
    last: Option<Arc<Shared>>,
}

/// Status of the link, from any thread.
#[derive(Clone)]
pub struct LinkMonitor {
    desk: Arc<Desk>,
}

impl LinkMonitor {
    /// As it is now.
    pub fn status(&self) -> LinkStatus {
        let mut status = self.desk.status.lock().clone();
        if let Some(shared) = &*self.desk.current.lock() {
            status.batches_in_flight = shared.state.lock().session.batches_in_flight();
        }
        status
    }
}

impl TlsConnector {
    /// Nothing is connected yet. `connect` must be called from threads outside the runtime.
    pub fn new(runtime: Handle, options: ConnectorOptions) -> TlsConnector {
        let status = LinkStatus { address: options.address.clone(), ..LinkStatus::default() };
        let random = StdRng::seed_from_u64(options.seed);
        let desk = Desk { options, status: Mutex::new(status), current: Mutex::new(None) };
        TlsConnector { runtime, desk: Arc::new(desk), backoff: Backoff::default(), random, last: None }
    }

    /// Cancel it to end waits and the connection.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.desk.options.shutdown.clone()
    }

    /// For `status`.
    pub fn monitor(&self) -> LinkMonitor {
        LinkMonitor { desk: self.desk.clone() }
    }

    /// For verify's questions, on whatever connection stands.
    pub fn asker(&self) -> Asker {
        Asker::new(self.desk.clone())
    }

    /// How the last connection ended decides how long the next attempt waits.
    fn account_for_last(&mut self) {
        let Some(last) = self.last.take() else { return };
        match last.state.lock().session.end(LinkDown::Closed) {
            LinkDown::Refused { .. } | LinkDown::Protocol { .. } => self.backoff.failed(),
            _ => self.backoff.worked(),
        }
    }

    async fn attempt(&self, hello: Hello) -> Result<(Welcome, Arc<Shared>), LinkDown> {
        let options = &self.desk.options;
        let peer = dial::paired(&options.address, &options.peers)?;
        self.desk.status.lock().peer = Some(peer.name.clone());
        let stream = dial::secured(&options.address, &options.identity, &peer, options.alpn).await?;
        let shared = Shared::start(self.desk.clone(), stream, hello);
        let welcomed = shared.welcomed().await;
        match welcomed {
            Ok(welcome) => Ok((welcome, shared)),
            Err(down) => {
                shared.end(down.clone());
                Err(down)
            }
        }
    }
}

impl Connector for TlsConnector {
    fn connect(&mut self, hello: Hello) -> Result<(Welcome, Box<dyn Link>), LinkDown> {
        self.account_for_last();
        let shutdown = self.desk.options.shutdown.clone();
        let delay = self.backoff.delay(&mut self.random);
        if !delay.is_zero() {
            self.desk.enter(LinkState::Waiting, None);
        }
        let attempt = self.runtime.block_on(async {
            tokio::select! {
                () = shutdown.cancelled() => return Err(LinkDown::Closed),
                () = tokio::time::sleep(delay) => {}
            }
            self.desk.enter(LinkState::Connecting, None);
            tokio::select! {
                () = shutdown.cancelled() => Err(LinkDown::Closed),
                made = self.attempt(hello) => made,
            }
        });
        match attempt {
            Ok((welcome, shared)) => {
                LINK_CONNECTS.inc();
                self.desk.status.lock().connects += 1;
                self.desk.enter(LinkState::Up, None);
                tracing::info!(address = %self.desk.options.address, "replication link is up");
                *self.desk.current.lock() = Some(shared.clone());
                self.last = Some(shared.clone());
                // It may be over already, before it was the one that stands.
                let standing = shared.state.lock().session.check();
                if let Err(why) = standing {
                    shared.forget(&why);
                }
                Ok((welcome, Box::new(link::TlsLink::new(shared))))
            }
            Err(down) => {
                self.backoff.failed();
                let state = if down == LinkDown::Closed { LinkState::Closed } else { LinkState::Waiting };
                // The same fault is told once, not at every attempt.
                let told = self.desk.status.lock().last_error.as_deref() == Some(&down.to_string());
                if !told && down != LinkDown::Closed {
                    tracing::warn!("{down}");
                }
                self.desk.enter(state, Some(down.to_string()));
                Err(down)
            }
        }
    }
}

/// One connection, shared by its tasks and those who use it.
struct Shared {
    desk: Arc<Desk>,
    state: Mutex<State>,
    /// Something in `state` changed: for threads.
    changed: Condvar,
    /// The same, for the task that waits for the welcome.
    greeted: Notify,
    ended: AtomicBool,
    /// To the writing task. Bounded by credit and by the number of batches and questions in flight.
    outgoing: mpsc::UnboundedSender<Sealed>,
    started: Instant,
    /// Cancelled when the session is over.
    stop: CancellationToken,
}

struct State {
    session: PrimarySession,
    welcome: Option<Welcome>,
    /// Newest acknowledged batch that was not polled.
    acked: Option<u64>,
    /// Answers to offers that nobody fetched yet.
    lacking: HashMap<u64, Vec<bool>>,
    /// Where the parts of an answer go: (part, more follow).
    questions: HashMap<u64, mpsc::UnboundedSender<(Answer, bool)>>,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Shared {
    /// Sends the hello and starts the tasks.
    fn start(desk: Arc<Desk>, stream: TlsStream<Socket>, hello: Hello) -> Arc<Shared> {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (session, first) = PrimarySession::start(Duration::ZERO, hello);
        let state = State {
            session,
            welcome: None,
            acked: None,
            lacking: HashMap::new(),
            questions: HashMap::new(),
            wake: None,
        };
        let shared = Arc::new(Shared {
            stop: desk.options.shutdown.child_token(),
            desk,
            state: Mutex::new(state),
            changed: Condvar::new(),
            greeted: Notify::new(),
            ended: AtomicBool::new(false),
            outgoing,
            started: Instant::now(),
        });
        shared.send(Sealed::to_backup(&first));
        let (read, write) = tokio::io::split(stream);
        tokio::spawn(shared.clone().receive(FrameReader::new(read, MAX_FRAME)));
        tokio::spawn(shared.clone().transmit(FrameWriter::new(write), queue));
        tokio::spawn(shared.clone().tick());
        shared
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn send(&self, sealed: Result<Sealed, wire::WireError>) {
        match sealed {
            // The writing task ends only with the session.
            Ok(frame) => drop(self.outgoing.send(frame)),
            Err(error) => self.end(LinkDown::Protocol { reason: format!("a message of this host: {error}") }),
        }
    }

    /// The session gives up by itself when no welcome comes.
    async fn welcomed(&self) -> Result<Welcome, LinkDown> {
        loop {
            {
                let state = self.state.lock();
                if let Some(welcome) = state.welcome {
                    return Ok(welcome);
                }
                state.session.check()?;
            }
            self.greeted.notified().await;
        }
    }

    /// The session is over. Whoever waits learns it.
    fn end(&self, why: LinkDown) {
        let (why, wake) = {
            let mut state = self.state.lock();
            let why = state.session.end(why);
            state.questions.clear();
            (why, state.wake.clone())
        };
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.stop.cancel();
        self.greeted.notify_one();
        self.changed.notify_all();
        self.forget(&why);
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Takes it out of the desk, if it is the one that stands.
    fn forget(&self, why: &LinkDown) {
        let mut current = self.desk.current.lock();
        if !current.as_ref().is_some_and(|current| std::ptr::eq(&**current, self)) {
            return;
        }
        *current = None;
        drop(current);
        let closed = *why == LinkDown::Closed;
        self.desk.enter(if closed { LinkState::Closed } else { LinkState::Waiting }, Some(why.to_string()));
        if !closed {
            tracing::warn!("{why}");
        }
    }

    async fn receive(self: Arc<Shared>, mut reader: FrameReader<tokio::io::ReadHalf<TlsStream<Socket>>>) {
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return self.end(LinkDown::Closed),
                next = reader.next(FrameKind::ToPrimary) => next,
            };
            self.desk.status.lock().bytes_received += reader.take_received();
            let payload = match next {
                Ok(Some(payload)) => payload,
                Ok(None) => return self.end(LinkDown::Lost { reason: "the backup closed it".to_owned() }),
                Err(error @ TransportError::Wire(_)) => {
                    return self.end(LinkDown::Protocol { reason: error.to_string() });
                }
                Err(error) => return self.end(LinkDown::Lost { reason: error.to_string() }),
            };
            match wire::decode_to_primary(&payload) {
                Ok(message) => self.received(message),
                Err(error) => return self.end(LinkDown::Protocol { reason: error.to_string() }),
            }
        }
    }

    fn received(&self, message: ToPrimary) {
        let mut down = None;
        let wake = {
            let mut state = self.state.lock();
            let Some(event) = state.session.received(self.now(), message) else { return };
            match event {
                Event::Welcome(welcome) => state.welcome = Some(welcome),
                Event::Lacking { ticket, flags } => drop(state.lacking.insert(ticket, flags)),
                Event::Acked(number) => state.acked = Some(number),
                Event::Credit => {}
                Event::Answer { id, more, answer } => state.part(id, more, answer),
                Event::Down(why) => down = Some(why),
            }
            if state.acked.is_some() { state.wake.clone() } else { None }
        };
        self.changed.notify_all();
        self.greeted.notify_one();
        if let Some(wake) = wake {
            wake();
        }
        if let Some(why) = down {
            self.end(why);
        }
    }

    async fn transmit(
        self: Arc<Shared>,
        mut writer: FrameWriter<tokio::io::WriteHalf<TlsStream<Socket>>>,
        mut queue: mpsc::UnboundedReceiver<Sealed>,
    ) {
        let work = async {
            while let Some(frame) = queue.recv().await {
                let mut sent = frame.len() as u64;
                writer.write(&frame).await?;
                while let Ok(frame) = queue.try_recv() {
                    sent += frame.len() as u64;
                    writer.write(&frame).await?;
                }
                writer.flush().await?;
                LINK_SENT_BYTES.add(sent);
                self.desk.status.lock().bytes_sent += sent;
            }
            Ok::<(), TransportError>(())
        };
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            ended = work => ended,
        };
        if let Err(error) = ended {
            // If the backup said why before it closed, its reason is read first.
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.end(LinkDown::Lost { reason: error.to_string() });
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), writer.finish()).await;
    }

    async fn tick(self: Arc<Shared>) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let due = self.state.lock().session.tick(self.now());
            match due {
                Tick::Quiet => {}
                Tick::Send(message) => self.send(Sealed::to_backup(&message)),
                Tick::Down(why) => return self.end(why),
            }
        }
    }
}

impl State {
    fn part(&mut self, id: u64, more: bool, answer: Answer) {
        // Nobody listens any more: the rest is dropped as it comes.
        let Some(listener) = self.questions.get(&id) else { return };
        let gone = listener.send((answer, more)).is_err();
        if gone || !more {
            self.questions.remove(&id);
        }
    }
}
