//! The process that serves: takes on its identity, starts the engine, obeys signals, hands over, ends.

use super::administration::{Administration, stats_sockets};
use super::handover;
use super::identity::Who;
use super::notices::Notices;
use super::open::OpenBind;
use super::sockets;
use crate::host::{listening, signals};
use crate::proxy::config::Config;
use crate::proxy::engine::{self, Engine, OpenListener, Service, Start};
use crate::proxy::listen::ListeningSocket;
use crate::proxy::log::{Logger, Logs, Severity};
use crate::proxy::state::Running;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals that the processes of the proxy wait for; blocked from the start until somebody does.
pub(super) const CONTROL: &[i32] = &[
    signals::SIGUSR1,
    signals::SIGUSR2,
    signals::SIGHUP,
    signals::SIGTERM,
    signals::SIGINT,
    signals::SIGCHLD,
];

/// Everything a worker needs; all that needs root is done, but for what this file does first.
pub(super) struct Worker {
    pub(super) config: Arc<Config>,
    pub(super) maxconn: u32,
    pub(super) threads: usize,
    pub(super) open: Vec<OpenBind>,
    pub(super) who: Who,
    /// States of servers, of the process before.
    pub(super) states: String,
    pub(super) notices: Notices,
    /// Standard streams are given up when all is well.
    pub(super) detach: bool,
    /// Ends when the parent does.
    pub(super) has_master: bool,
    /// Done when the sockets are open and this process is still who it was: telling others to go.
    pub(super) before_identity: Option<Box<dyn FnOnce()>>,
    /// Where to tell that the engine runs.
    pub(super) ready: Option<PipeWriter>,
    /// Done when the engine runs.
    pub(super) when_ready: Option<Box<dyn FnOnce() + Send>>,
}

/// What the next process may take, until this one is told to go.
#[derive(Debug, Default)]
pub(super) struct Exported {
    groups: Mutex<Vec<Group>>,
    /// Since when new connections go to one socket of each address.
    steered: Mutex<Option<Instant>>,
}

/// How long a HAProxy that has taken sockets may need until it tells this process to go. Then it has failed.
const STEERED_AT_MOST: Duration = Duration::from_secs(60);
/// How long connections are still accepted at sockets to which no new ones are steered: handshakes end meanwhile.
const LAST_HANDSHAKES: Duration = Duration::from_millis(200);

/// Sockets of one `bind`.
#[derive(Debug)]
struct Group {
    sockets: Vec<ListeningSocket>,
}

impl Worker {
    /// Runs until the end. How the process is to end.
    pub(super) fn run(self) -> ExitCode {
        let notices = self.notices;
        let ended_by = Arc::new(AtomicI32::new(0));
        match self.serve(&ended_by) {
            Ok(()) => {}
            Err(what) => {
                notices.alert(&what);
                return ExitCode::from(1);
            }
        }
        match ended_by.load(Ordering::SeqCst) {
            0 => ExitCode::SUCCESS,
            signal => {
                // As HAProxy: whoever waits sees by which signal.
                signals::end_by(signal);
                ExitCode::from(1)
            }
        }
    }

    fn serve(self, ended_by: &Arc<AtomicI32>) -> Result<(), String> {
        self.tell_what_is_missing();
        let config = &self.config;
        let pid = std::process::id();
        let (logs, warnings) = Logs::open(config, pid, self.threads + 1)
            .map_err(|error| format!("cannot open logs: {error}"))?;
        let logs = Arc::new(logs);
        warnings.iter().for_each(|warning| self.notices.warning(warning));
        let heirs = match handover::listen() {
            Ok(listener) => Some(listener),
            Err(error) => {
                self.notices.warning(&format!("no socket for a reload to take over from: {error}"));
                None
            }
        };
        let stopping = CancellationToken::new();
        let exported = Arc::new(Exported::default());
        let (listeners, stats) = exported
            .share_out(self.open, self.threads)
            .map_err(|error| format!("cannot copy a socket: {error}"))?;
        let nothing = self.detach.then(nothing).transpose();
        let nothing = nothing.map_err(|error| format!("cannot open /dev/null: {error}"))?;
        if let Some(act) = self.before_identity {
            act();
        }
        self.who.assume()?;
        if self.has_master {
            end_with_parent().map_err(|error| format!("cannot watch the master: {error}"))?;
        }
        if let Some(nothing) = nothing {
            stand_in(&nothing).map_err(|error| format!("cannot give up the standard streams: {error}"))?;
        }
        logs.keep_connected().map_err(|error| format!("cannot start a thread: {error}"))?;
        let loggers: io::Result<Vec<Logger>> = (0..self.threads).map(|_| logs.logger()).collect();
        let loggers = loggers.map_err(|error| format!("cannot open logs: {error}"))?;
        let logger = logs.logger().map_err(|error| format!("cannot open logs: {error}"))?;
        let running = Running::new(Arc::clone(config), self.maxconn);
        running.threads.store(u16::try_from(self.threads).unwrap_or(u16::MAX), Ordering::Relaxed);
        let administration = Administration {
            sockets: stats_sockets(config, stats, &exported),
            running: Arc::clone(&running),
            logs: Arc::clone(&logs),
            stopping: stopping.clone(),
            notices: self.notices,
        };
        let obeying = Obeying {
            running: Arc::clone(&running),
            exported: Arc::clone(&exported),
            stopping: stopping.clone(),
            ended_by: Arc::clone(ended_by),
            ready: self.ready,
            when_ready: self.when_ready,
            logger,
            notices: self.notices,
        };
        let mut services: Vec<Service> = vec![
            Box::new(move |engine| Box::pin(obeying.run(engine))),
            Box::new(move |_| Box::pin(administration.serve())),
        ];
        let notices = self.notices;
        if let Some(heirs) = heirs {
            services.push(Box::new(move |_| Box::pin(serve_heirs(heirs, exported, stopping, notices))));
        }
        engine::run(Start { running, listeners, loggers, services })
            .map_err(|error| format!("the engine does not start: {error}"))
    }
}

impl Worker {
    /// Until it is there.
    fn tell_what_is_missing(&self) {
        let servers = self.config.proxies.iter().flat_map(|proxy| &proxy.servers);
        let missing = [
            (
                servers.filter(|server| server.check.is_some()).count(),
                "health checks of servers (they count as up)",
            ),
            (self.states.len(), "server states of the process before"),
        ];
        for (_, what) in missing.iter().filter(|(count, _)| *count > 0) {
            self.notices.warning(&format!("not done yet by this build: {what}"));
        }
    }
}

/// The engine's part of the sockets, and those of the `stats socket`s with their numbers.
type Shares = (Vec<OpenListener>, Vec<(usize, ListeningSocket)>);

impl Exported {
    /// Gives the engine its sockets and keeps a copy of each that a successor may have.
    fn share_out(&self, open: Vec<OpenBind>, threads: usize) -> io::Result<Shares> {
        let (mut listeners, mut stats) = (Vec::new(), Vec::new());
        for OpenBind { proxy, bind, sockets, ours } in open {
            if ours {
                let copies = sockets.iter().map(ListeningSocket::copy).collect::<io::Result<_>>()?;
                self.groups.lock().push(Group { sockets: copies });
            }
            // Every socket needs a thread; and while there are fewer sockets than threads, each thread all sockets.
            let shared = sockets.len() < threads;
            for (number, socket) in sockets.into_iter().enumerate() {
                match proxy {
                    Some(proxy) => {
                        let thread = (!shared).then_some(number % threads);
                        listeners.push(OpenListener { proxy, bind, socket, thread });
                    }
                    None => stats.push((bind, socket)),
                }
            }
        }
        Ok((listeners, stats))
    }

    /// For a successor of our own: it takes all sockets of an address.
    fn hand_over(&self, stream: &UnixStream, states: &str) -> io::Result<()> {
        handover::answer(stream, &self.copies(false)?, states)
    }

    /// For HAProxy: of several sockets of an address it takes the one that is sent last, and closes the others. So the
    /// first is sent last, and from here on gets all new connections of its address.
    pub(super) fn hand_over_one_each(&self, stream: &UnixStream) -> io::Result<()> {
        for group in self.groups.lock().iter().filter(|group| group.sockets.len() > 1) {
            listening::steer_to(&group.sockets[0], 0)?;
            *self.steered.lock() = Some(Instant::now());
        }
        sockets::send(stream, &self.copies(true)?)
    }

    fn copies(&self, first_last: bool) -> io::Result<Vec<ListeningSocket>> {
        let mut copies = Vec::new();
        for group in self.groups.lock().iter() {
            let from = copies.len();
            for socket in &group.sockets {
                copies.push(socket.copy()?);
            }
            if first_last {
                copies[from..].reverse();
            }
        }
        Ok(copies)
    }

    fn is_steered(&self) -> bool {
        self.steered.lock().is_some()
    }

    /// All sockets get connections again when nobody has come of it.
    fn steer_back(&self) {
        let mut steered = self.steered.lock();
        if steered.is_some_and(|since| since.elapsed() > STEERED_AT_MOST) {
            *steered = None;
            for group in self.groups.lock().iter().filter(|group| group.sockets.len() > 1) {
                let _ = listening::steer_freely(&group.sockets[0]);
            }
        }
    }

    fn close(&self) {
        self.groups.lock().clear();
    }
}

/// The service that obeys signals.
struct Obeying {
    running: Arc<Running>,
    exported: Arc<Exported>,
    stopping: CancellationToken,
    ended_by: Arc<AtomicI32>,
    ready: Option<PipeWriter>,
    when_ready: Option<Box<dyn FnOnce() + Send>>,
    logger: Logger,
    notices: Notices,
}

impl Obeying {
    async fn run(mut self, engine: Engine) {
        let Ok((mut finish, mut end, mut interrupt, mut dump)) = (|| {
            Ok::<_, io::Error>((
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ))
        })() else {
            self.notices.alert("signals cannot be handled");
            return engine.leave();
        };
        // Those that HAProxy's worker does nothing at; a terminal's and an old HAProxy's wish to pause among them.
        signals::ignore(&[signals::SIGUSR2, signals::SIGTTOU, signals::SIGTTIN, signals::SIGQUIT]);
        signals::unblock(CONTROL);
        if let Some(mut ready) = self.ready.take() {
            let _ = ready.write_all(b"+");
        }
        if let Some(act) = self.when_ready.take() {
            act();
        }
        loop {
            tokio::select! {
                _ = finish.recv() => self.finish(&engine).await,
                () = tokio::time::sleep(STEERED_AT_MOST / 4) => self.exported.steer_back(),
                _ = end.recv() => return self.end(&engine, signals::SIGTERM),
                _ = interrupt.recv() => return self.end(&engine, signals::SIGINT),
                _ = dump.recv() => self.tell_of_servers(),
            }
        }
    }

    fn end(&self, engine: &Engine, signal: i32) {
        self.ended_by.store(signal, Ordering::SeqCst);
        self.exported.close();
        engine.leave();
    }

    /// Soft stop: nobody new, everybody to the end.
    async fn finish(&mut self, engine: &Engine) {
        if self.stopping.is_cancelled() {
            return;
        }
        self.stopping.cancel();
        if self.exported.is_steered() {
            tokio::time::sleep(LAST_HANDSHAKES).await;
        }
        self.exported.close();
        engine.stop();
        let config = Arc::clone(&self.running.config);
        for (index, proxy) in config.proxies.iter().enumerate().filter(|(_, proxy)| !proxy.disabled) {
            let state = &self.running.proxies[index];
            let front = state.frontend.as_ref().map_or(0, |front| front.counters.connections.get());
            let back = state.backend.as_ref().map_or(0, |back| back.counters.traffic.sessions.get());
            let name = &proxy.name;
            let text = format!("Proxy {name} stopped (cumulated conns: FE: {front}, BE: {back}).");
            self.notices.warning(&text);
            self.logger.send(index, Severity::Warning, text.as_bytes());
        }
    }

    /// SIGHUP without a master: HAProxy tells the state of every server.
    fn tell_of_servers(&mut self) {
        let text = "SIGHUP received, dumping servers states.";
        self.notices.warning(text);
        let config = Arc::clone(&self.running.config);
        for (index, proxy) in config.proxies.iter().enumerate() {
            let Some(backend) = &self.running.proxies[index].backend else { continue };
            self.logger.send(index, Severity::Warning, text.as_bytes());
            for (server, state) in proxy.servers.iter().zip(&backend.servers) {
                let now = state.sessions.load(Ordering::Relaxed);
                let queued = state.queued.load(Ordering::Relaxed);
                let total = state.counters.traffic.sessions.get();
                let is = if state.is_up() { "UP" } else { "DOWN" };
                let text = format!(
                    "SIGHUP: Server {}/{} is {is}. Conn: {now} act, {queued} pend, {total} tot.",
                    proxy.name, server.name
                );
                self.notices.warning(&text);
                self.logger.send(index, Severity::Warning, text.as_bytes());
            }
        }
    }
}

/// Hands over to whoever may ask, until this process is told to go.
async fn serve_heirs(
    listener: UnixListener,
    exported: Arc<Exported>,
    stopping: CancellationToken,
    notices: Notices,
) {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    let Ok(listener) = listener else { return };
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let Ok(stream) = stream.and_then(|(stream, _)| stream.into_std()) else {
            // No descriptor is left: others end, and then there is.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let exported = Arc::clone(&exported);
        // It blocks for as long as the other side takes, some seconds at most.
        let answered = tokio::task::spawn_blocking(move || exported.hand_over(&stream, "")).await;
        if let Ok(Err(error)) = answered {
            notices.warning(&format!("cannot hand over the listening sockets: {error}"));
        }
    }
}

/// The kernel sends SIGTERM when the parent dies. After the identity was changed, which forgets it.
fn end_with_parent() -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // It may have died before.
    if rustix::process::getppid() == parent { Ok(()) } else { Err(io::Error::other("it is gone")) }
}

/// Opened before a chroot, where there is none.
fn nothing() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Gives up the standard streams: whoever started this waits for their end.
pub(super) fn detach() -> io::Result<()> {
    stand_in(&nothing()?)
}

/// Instead of the standard streams.
fn stand_in(nothing: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdin(nothing)?;
    rustix::stdio::dup2_stdout(nothing)?;
    rustix::stdio::dup2_stderr(nothing)?;
    Ok(())
}
