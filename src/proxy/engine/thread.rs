//! Threads: what each owns, and how the rest of the process talks to them.

use super::buffer::Buffers;
use super::accept;
use super::idle::IdleConnections;
use super::live::{SessionRow, Sessions, Which};
use crate::proxy::config::model::ProxyIndex;
use crate::proxy::state::Running;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};

/// A socket that listens already.
#[derive(Debug)]
pub struct OpenListener {
    /// The socket, of any mode; the engine makes it non-blocking.
    pub socket: OwnedFd,
    /// Section whose `bind` it is.
    pub proxy: ProxyIndex,
    /// Which of its binds.
    pub bind: usize,
}

/// Something else that runs on the first thread's runtime: health checks, the admin socket, signals. It is dropped
/// when the engine stops.
pub type Service = Box<dyn FnOnce(Engine) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What [`run`] needs.
pub struct Start {
    /// Configuration and shared state.
    pub running: Arc<Running>,
    /// Listening sockets. Several of one `bind` (SO_REUSEPORT) are dealt out to the threads; when there are fewer than
    /// threads, several threads accept from the same one; when there are more, none is left without a thread.
    pub listeners: Vec<OpenListener>,
    /// Threads, at least 1. The calling thread is one of them.
    pub threads: usize,
    /// Run on the first thread.
    pub services: Vec<Service>,
    /// Makes a thread's log.
    pub log: Box<dyn Fn() -> Box<dyn Log + Send>>,
}

/// Where the lines of one thread go.
pub trait Log {
    /// Sends one line to the log targets of a section. `level`: 0 = emerg ... 7 = debug; `line` without a newline.
    /// Never blocks: what cannot be sent is dropped and counted.
    fn line(&mut self, proxy: ProxyIndex, level: u8, line: &[u8]);
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
}

/// What one thread owns.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) running: Arc<Running>,
    pub(crate) buffers: Buffers,
    pub(crate) sessions: Sessions,
    pub(crate) idle: IdleConnections,
    log: RefCell<Box<dyn Log>>,
    pub(crate) stopping: Cell<bool>,
    stopped: Notify,
}

impl Thread {
    /// Sends a log line of a section: `render` appends it to an empty text.
    pub(crate) fn log(&self, proxy: ProxyIndex, level: u8, render: impl FnOnce(&mut Vec<u8>)) {
        let mut text = self.buffers.take_text();
        render(&mut text);
        self.log.borrow_mut().line(proxy, level, &text);
        self.buffers.give_text(text);
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
    /// their clients are idle next, and `run` returns when the last has gone, at the latest after `hard-stop-after`.
    pub fn stop(&self) {
        self.running.stopping.store(true, Ordering::SeqCst);
        self.tell(|| Command::Stop);
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

    fn tell(&self, command: impl Fn() -> Command) {
        for thread in self.threads.iter() {
            // A thread that has ended needs not be told.
            let _ = thread.send(command());
        }
    }
}

/// Runs the engine until it is told to stop ([`Engine::stop`], [`Engine::leave`]). Starts `threads - 1` threads.
///
/// # Errors
/// When a runtime or a thread cannot be made, or a listening socket is not usable. Nothing keeps running then.
pub fn run(start: Start) -> io::Result<()> {
    let threads = start.threads.max(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let engine = Engine { running: start.running, threads: senders.into() };
    let shares = deal(start.listeners, threads)?;
    let mut others = Vec::new();
    let mut work = shares.into_iter().zip(receivers).enumerate();
    let first = work.next();
    for (index, (listeners, commands)) in work {
        let engine = engine.clone();
        let log = (start.log)();
        let made = std::thread::Builder::new()
            .name(format!("proxy-{index}"))
            .spawn(move || one_thread(index, engine, listeners, commands, Vec::new(), log));
        match made {
            Ok(thread) => others.push(thread),
            Err(error) => {
                engine.leave();
                return Err(error);
            }
        }
    }
    let mut result = Ok(());
    if let Some((index, (listeners, commands))) = first {
        result = one_thread(index, engine.clone(), listeners, commands, start.services, (start.log)());
    }
    if result.is_err() {
        engine.leave();
    }
    for thread in others {
        result = result.and(thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
    }
    result
}

/// Which thread polls which socket: see [`Start::listeners`].
fn deal(listeners: Vec<OpenListener>, threads: usize) -> io::Result<Vec<Vec<OpenListener>>> {
    let mut shares: Vec<Vec<OpenListener>> = (0..threads).map(|_| Vec::new()).collect();
    let mut groups = BTreeMap::<(ProxyIndex, usize), Vec<OpenListener>>::new();
    for listener in listeners {
        groups.entry((listener.proxy, listener.bind)).or_default().push(listener);
    }
    for group in groups.into_values() {
        let count = group.len();
        for (at, OpenListener { socket, proxy, bind }) in group.into_iter().enumerate() {
            for thread in (at..threads).step_by(count).skip(1) {
                shares[thread].push(OpenListener { socket: socket.try_clone()?, proxy, bind });
            }
            shares[at % threads].push(OpenListener { socket, proxy, bind });
        }
    }
    Ok(shares)
}

/// The life of a thread.
fn one_thread(
    index: usize,
    engine: Engine,
    listeners: Vec<OpenListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    services: Vec<Service>,
    log: Box<dyn Log>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let thread = Rc::new(Thread {
        index,
        running: engine.running.clone(),
        buffers: Buffers::default(),
        sessions: Sessions::default(),
        idle: IdleConnections::new(&engine.running.config),
        log: RefCell::new(log),
        stopping: Cell::new(false),
        stopped: Notify::new(),
    });
    runtime.block_on(async {
        for service in services {
            tokio::task::spawn_local(service(engine.clone()));
        }
        let mut accepting = Vec::new();
        for listener in listeners {
            accepting.push(tokio::task::spawn_local(accept::serve(thread.clone(), accept::prepare(listener)?)));
        }
        drop(accepting);
        thread.obey(&mut commands).await;
        Ok(())
    })
    // Dropping the runtime drops every task, and with it sessions that were told to go.
}

impl Thread {
    async fn obey(&self, commands: &mut mpsc::UnboundedReceiver<Command>) {
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                () = self.last_session(), if self.stopping.get() => return,
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
                Some(Command::Leave) | None => return,
            }
        }
    }

    /// Ready when no session is left, or `hard-stop-after` has passed.
    async fn last_session(&self) {
        match self.running.config.global.hard_stop_after {
            None => self.sessions.emptied().await,
            Some(limit) => {
                let _ = tokio::time::timeout(limit, self.sessions.emptied()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sockets: usize, threads: usize) -> Vec<usize> {
        let listener = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            OpenListener { socket: socket.into(), proxy: 0, bind: 0 }
        };
        let shares = deal((0..sockets).map(|_| listener()).collect(), threads).unwrap();
        shares.iter().map(Vec::len).collect()
    }

    #[test]
    fn no_thread_without_a_socket_and_no_socket_without_a_thread() {
        assert_eq!(shares(1, 1), [1]);
        assert_eq!(shares(1, 3), [1, 1, 1]);
        assert_eq!(shares(2, 4), [1, 1, 1, 1]);
        assert_eq!(shares(2, 3), [1, 1, 1]);
        assert_eq!(shares(5, 2), [3, 2]);
        assert_eq!(shares(4, 4), [1, 1, 1, 1]);
    }
}
