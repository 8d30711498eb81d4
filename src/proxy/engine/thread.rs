//! Threads: what each owns, and how the rest of the process talks to them.

use super::accept;
use super::buffer::Buffers;
use super::idle::{self, IdleConnections};
use super::live::{SessionRow, Sessions, Which};
use crate::proxy::config::model::ProxyIndex;
use crate::proxy::exchange::{Exchange, Session};
use crate::proxy::listen::ListeningSocket;
use crate::proxy::log::{Logger, Severity};
use crate::proxy::state::Running;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

/// One listening socket of a `bind`: open and listening.
#[derive(Debug)]
pub struct OpenListener {
    /// Section, in `Config::proxies`.
    pub proxy: ProxyIndex,
    /// Which of its `binds`.
    pub bind: usize,
    /// The socket.
    pub socket: ListeningSocket,
    /// Which thread accepts on it (beyond the last: round again). Absent: all do, each on a copy of its own.
    ///
    /// A thread may get several of one `bind`, and every one of them must be accepted on: the kernel spreads the
    /// connections of an address over all sockets that listen there.
    pub thread: Option<usize>,
}

/// Something else that runs on the first thread's runtime: health checks, the admin socket, signals. It is dropped
/// when the engine stops.
pub type Service = Box<dyn FnOnce(Engine) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What [`run`] needs.
pub struct Start {
    /// Configuration and shared state.
    pub running: Arc<Running>,
    /// Listening sockets.
    pub listeners: Vec<OpenListener>,
    /// One a thread; the calling thread is the first of them.
    pub loggers: Vec<Logger>,
    /// Run on the first thread.
    pub services: Vec<Service>,
}

/// A running engine, for the rest of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    running: Arc<Running>,
    threads: Arc<[mpsc::UnboundedSender<Command>]>,
}

#[derive(Debug)]
enum Command {
    Sessions(oneshot::Sender<Vec<SessionRow>>),
    Kill(Which, oneshot::Sender<usize>),
    /// No new connections; the thread ends with its last session.
    Stop,
    /// The thread ends.
    Leave,
    /// To the first thread: another one has ended.
    Ended,
}

/// Exchanges kept for the next requests.
const SPARE_EXCHANGES: usize = 64;

/// So many exchanges at once leave memory behind that is worth giving back when they are over.
const CROWD: usize = 256;

/// What one thread owns.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) running: Arc<Running>,
    pub(crate) buffers: Buffers,
    pub(crate) sessions: Sessions,
    pub(crate) idle: IdleConnections,
    log: RefCell<Logger>,
    #[allow(clippy::vec_box)] // handed out as boxes: an exchange is large, and never moves
    exchanges: RefCell<Vec<Box<Exchange>>>,
    /// Exchanges under way, and the most of them since memory was given back.
    under_way: Cell<(usize, usize)>,
    pub(crate) stopping: Cell<bool>,
    stopped: Notify,
}

impl Thread {
    /// Sends a log line of a section: `render` appends it to an empty text.
    pub(crate) fn log(&self, proxy: ProxyIndex, severity: Severity, render: impl FnOnce(&mut Vec<u8>)) {
        // Borrowed only by a line that is being made when its making panics.
        let Ok(mut log) = self.log.try_borrow_mut() else { return };
        if log.wants(proxy, severity) {
            let mut text = self.buffers.take_text();
            render(&mut text);
            log.send(proxy, severity, &text);
            self.buffers.give_text(text);
        }
    }

    /// An exchange for a request of this session that begins now.
    pub(crate) fn take_exchange(&self, session: &Session, now: SystemTime, now_at: Instant) -> Box<Exchange> {
        let (count, most) = self.under_way.get();
        self.under_way.set((count + 1, most.max(count + 1)));
        match self.exchanges.borrow_mut().pop() {
            Some(mut exchange) => {
                exchange.restart(now, now_at);
                exchange
            }
            None => Box::new(Exchange::new(session.clone(), now, now_at)),
        }
    }

    /// Keeps an exchange, and the memory it has, for the next request.
    pub(crate) fn give_exchange(&self, exchange: Box<Exchange>) {
        let (count, most) = self.under_way.get();
        self.under_way.set((count.saturating_sub(1), most));
        let mut exchanges = self.exchanges.borrow_mut();
        if exchanges.len() < SPARE_EXCHANGES {
            exchanges.push(exchange);
        }
    }

    /// The most exchanges at once of late.
    pub(crate) fn most_under_way(&self) -> usize {
        self.under_way.get().1
    }

    /// Whether a crowd of exchanges has gone since the last time. What they used lies between what their sessions
    /// keep: the allocator does not give it back by itself.
    pub(crate) fn calmed_down(&self) -> bool {
        let (count, most) = self.under_way.get();
        let calmed = most >= CROWD && count < most / 2;
        if calmed {
            self.under_way.set((count, count));
        }
        calmed
    }

    /// Ready when the process begins to stop.
    pub(crate) async fn stopped(&self) {
        while !self.stopping.get() {
            self.stopped.notified().await;
        }
    }
}

impl Engine {
    /// No new connections are accepted (listening sockets stay open in whoever else holds them); sessions end when
    /// their clients are idle next, and `run` returns when the last has gone.
    pub fn stop(&self) {
        self.running.stopping.store(true, Ordering::SeqCst);
        self.tell(|| Command::Stop);
    }

    /// [`Engine::stop`] for all threads but the first: their listening sockets are closed, those of the first are not.
    pub fn stop_others(&self) {
        for thread in self.threads.iter().skip(1) {
            // A thread that has ended needs not be told.
            let _ = thread.send(Command::Stop);
        }
    }

    /// Ends everything: `run` returns at once.
    pub fn leave(&self) {
        self.running.stopping.store(true, Ordering::SeqCst);
        self.tell(|| Command::Leave);
    }

    /// A row for each session of all threads.
    pub async fn sessions(&self) -> Vec<SessionRow> {
        let mut rows = Vec::new();
        for answer in self.ask(Command::Sessions) {
            rows.extend(answer.await.unwrap_or_default());
        }
        rows
    }

    /// Ends sessions as `shutdown session(s)` does (logged with `K`); how many.
    pub async fn kill(&self, which: Which) -> usize {
        let mut count = 0;
        for answer in self.ask(|back| Command::Kill(which, back)) {
            count += answer.await.unwrap_or_default();
        }
        count
    }

    fn ask<A>(&self, command: impl Fn(oneshot::Sender<A>) -> Command) -> Vec<oneshot::Receiver<A>> {
        let one = |thread: &mpsc::UnboundedSender<Command>| {
            let (back, answer) = oneshot::channel();
            // A thread that has ended drops the question, and the answer is empty.
            let _ = thread.send(command(back));
            answer
        };
        self.threads.iter().map(one).collect()
    }

    fn tell_of_end(&self) {
        if let Some(first) = self.threads.first() {
            // It may have been told to leave.
            let _ = first.send(Command::Ended);
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for thread in self.threads.iter() {
            // A thread that has ended needs not be told.
            let _ = thread.send(command());
        }
    }
}

/// Runs the engine until it is told to stop ([`Engine::stop`], [`Engine::leave`]). Starts a thread for each logger but
/// the first.
///
/// # Errors
/// When a runtime or a thread cannot be made, a listening socket is not usable, or something that everything depends on
/// has panicked. Nothing keeps running then.
pub fn run(start: Start) -> io::Result<()> {
    let threads = start.loggers.len();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let engine = Engine { running: start.running, threads: senders.into() };
    let shares = deal(start.listeners, threads)?;
    let parts = shares.into_iter().zip(receivers).zip(start.loggers).enumerate();
    let mut parts = parts.map(|(index, ((listeners, commands), log))| Part {
        index,
        engine: engine.clone(),
        listeners,
        commands,
        log,
    });
    let Some(first) = parts.next() else { return Err(io::Error::other("the engine needs a thread")) };
    let mut others = Vec::new();
    let mut result = Ok(());
    for part in parts {
        let name = format!("proxy-{}", part.index);
        let others_leave = engine.clone();
        let life = move || {
            let result = catch_unwind(AssertUnwindSafe(|| part.run(Vec::new(), 0)));
            let result = result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            if result.is_err() {
                others_leave.leave();
            }
            others_leave.tell_of_end();
            result
        };
        match std::thread::Builder::new().name(name).spawn(life) {
            Ok(thread) => others.push(thread),
            Err(error) => result = Err(error),
        }
    }
    if result.is_ok() {
        result = first.run(start.services, others.len());
    }
    if result.is_err() {
        engine.leave();
    }
    for thread in others {
        result = result.and(thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
    }
    result
}

/// Which thread polls which socket.
fn deal(listeners: Vec<OpenListener>, threads: usize) -> io::Result<Vec<Vec<OpenListener>>> {
    let mut shares: Vec<Vec<OpenListener>> = (0..threads).map(|_| Vec::new()).collect();
    for listener in listeners {
        let OpenListener { proxy, bind, ref socket, thread } = listener;
        match thread {
            Some(thread) => shares[thread % threads.max(1)].push(listener),
            None => {
                for share in &mut shares {
                    share.push(OpenListener { proxy, bind, socket: socket.copy()?, thread });
                }
            }
        }
    }
    Ok(shares)
}

/// What a thread begins with.
struct Part {
    index: usize,
    engine: Engine,
    listeners: Vec<OpenListener>,
    commands: mpsc::UnboundedReceiver<Command>,
    log: Logger,
}

impl Part {
    /// The life of a thread. `others`: threads that end before it when the engine stops.
    fn run(mut self, services: Vec<Service>, others: usize) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        let running = self.engine.running.clone();
        let thread = Rc::new(Thread {
            index: self.index,
            buffers: Buffers::default(),
            sessions: Sessions::default(),
            idle: IdleConnections::new(&running.config),
            log: RefCell::new(self.log),
            exchanges: RefCell::new(Vec::new()),
            under_way: Cell::new((0, 0)),
            stopping: Cell::new(false),
            stopped: Notify::new(),
            running,
        });
        runtime.block_on(async {
            // Without any of these the process would look alive and do nothing.
            let mut needed = JoinSet::new();
            for service in services {
                needed.spawn_local(service(self.engine.clone()));
            }
            for listener in self.listeners {
                needed.spawn_local(accept::serve(thread.clone(), accept::prepare(listener)?));
            }
            needed.spawn_local(idle::keep_house(thread.clone()));
            tokio::select! {
                () = thread.obey(&mut self.commands, others) => Ok(()),
                fault = panicked(&mut needed) => Err(io::Error::other(fault)),
            }
        })
        // Dropping the runtime drops every task, and with it sessions that were told to go.
    }
}

/// Ready when one of them has panicked.
async fn panicked(tasks: &mut JoinSet<()>) -> String {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            return format!("a task that everything depends on has ended: {error}");
        }
    }
    std::future::pending().await
}

impl Thread {
    /// Until the thread has nothing to do any more. The first one stays for `others`: who ends their sessions when
    /// that takes too long are its services.
    async fn obey(&self, commands: &mut mpsc::UnboundedReceiver<Command>, mut others: usize) {
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                () = self.sessions.emptied(), if self.stopping.get() && others == 0 => return,
            };
            match command {
                Some(Command::Sessions(back)) => drop(back.send(self.sessions.list())),
                Some(Command::Kill(which, back)) => drop(back.send(self.sessions.kill(which))),
                Some(Command::Stop) => {
                    self.stopping.set(true);
                    self.stopped.notify_waiters();
                    self.sessions.wake_idle();
                    self.idle.clear();
                }
                Some(Command::Ended) => others = others.saturating_sub(1),
                Some(Command::Leave) | None => return,
            }
        }
    }
}
