//! The process that serves: takes on its identity, starts the engine, obeys signals, hands over, ends.

use super::exported::{self, Exported, LAST_HANDSHAKES, STEERED_AT_MOST};
use super::handover;
use super::identity::Who;
use super::notices::Notices;
use super::open::OpenBind;
use super::sampling;
use crate::host::signals;
use crate::proxy::admin::socket::{self, AskProcess, HandOver, OpenSocket};
use crate::proxy::checks;
use crate::proxy::config::Config;
use crate::proxy::engine::{self, Engine, Service, Start, Which};
use crate::proxy::listen::ListeningSocket;
use crate::proxy::log::{Logger, Logs, Severity};
use crate::proxy::state::{self, Running};
use crate::proxy::stats::Process;
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
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
    /// Ends when this process does, its parent.
    pub(super) master: Option<u32>,
    /// Where to tell that the engine runs.
    pub(super) ready: Option<PipeWriter>,
    /// Done when the engine runs.
    pub(super) when_ready: Option<Box<dyn FnOnce() + Send>>,
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
        let config = &self.config;
        let pid = std::process::id();
        let (logs, warnings) = Logs::open(config, pid, self.threads + 2)
            .map_err(|error| format!("cannot open logs: {error}"))?;
        warnings.iter().for_each(|warning| self.notices.warning(warning));
        let heirs = match handover::listen() {
            Ok(listener) => Some(listener),
            Err(error) => {
                self.notices.warning(&format!("no socket for a reload to take over from: {error}"));
                None
            }
        };
        let exported = Arc::new(Exported::default());
        let (listeners, stats) = exported
            .share_out(self.open, self.threads)
            .map_err(|error| format!("cannot copy a socket: {error}"))?;
        let nothing = self.detach.then(nothing).transpose();
        let nothing = nothing.map_err(|error| format!("cannot open /dev/null: {error}"))?;
        self.who.assume()?;
        if let Some(master) = self.master {
            end_with_parent(master).map_err(|error| format!("cannot watch the master: {error}"))?;
        }
        if let Some(nothing) = nothing {
            stand_in(&nothing).map_err(|error| format!("cannot give up the standard streams: {error}"))?;
        }
        logs.keep_connected().map_err(|error| format!("cannot start a thread: {error}"))?;
        let loggers: io::Result<Vec<Logger>> = (0..self.threads + 2).map(|_| logs.logger()).collect();
        let mut loggers = loggers.map_err(|error| format!("cannot open logs: {error}"))?;
        let others = loggers.split_off(self.threads);
        let [logger, checks_logger] = others.try_into().map_err(|_| "a log is missing".to_owned())?;
        let running = Running::new(Arc::clone(config), self.maxconn);
        state::restore(&running, &self.states, state::seconds());
        let stopping = CancellationToken::new();
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
        let ask = process_of(Arc::clone(&running), logs.dropped_counter());
        let states = states_of(Arc::clone(&running));
        let notices = self.notices;
        let open = open_sockets(config, stats, &exported);
        let (asked, until, sampled) = (Arc::clone(&running), stopping.clone(), Arc::clone(&running));
        running.threads.store(u16::try_from(self.threads).unwrap_or(u16::MAX), Ordering::Relaxed);
        let mut services: Vec<Service> = vec![
            Box::new(move |engine| Box::pin(obeying.run(engine))),
            Box::new(move |engine| {
                Box::pin(async move {
                    if let Err(error) = socket::serve(open, asked, ask, Some(engine), until).await {
                        notices.alert(&format!("the stats sockets cannot be served: {error}"));
                    }
                })
            }),
            Box::new(move |_| Box::pin(sampling::run(sampled))),
        ];
        engine::note_panics(move |what| notices.alert(&format!("panic: {what}")));
        let checked = Arc::clone(&running);
        services.push(Box::new(move |engine| Box::pin(checks::run(checked, checks_logger, engine))));
        if let Some(heirs) = heirs {
            let serve = move |_| exported::serve_heirs(heirs, exported, stopping, states, notices);
            services.push(Box::new(move |engine| Box::pin(serve(engine))));
        }
        engine::run(Start { running, listeners, loggers, services })
            .map_err(|error| format!("the engine has ended: {error}"))
    }
}

/// What commands of a `stats socket` hear of the process.
fn process_of(running: Arc<Running>, dropped: Arc<AtomicU64>) -> AskProcess {
    Arc::new(move || Process { dropped_logs: dropped.load(Ordering::Relaxed), ..Process::of(&running) })
}

/// The states of all servers, for whoever takes over.
fn states_of(running: Arc<Running>) -> exported::States {
    Arc::new(move || state::save(&running, None, state::seconds()))
}

/// The open `stats socket`s with their rights.
fn open_sockets(
    config: &Config,
    open: Vec<(usize, ListeningSocket)>,
    exported: &Arc<Exported>,
) -> Vec<OpenSocket> {
    let one = |(at, socket): (usize, ListeningSocket)| {
        let bind = config.global.stats_sockets.get(at)?;
        let exported = Arc::clone(exported);
        let hand_over: HandOver = Arc::new(move |stream| exported.hand_over_one_each(&stream));
        let hand_over = bind.expose_listeners.then_some(hand_over);
        Some(OpenSocket { socket, level: bind.level, hand_over })
    };
    open.into_iter().filter_map(one).collect()
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
        let mut hard_stop = HardStop::default();
        loop {
            tokio::select! {
                _ = finish.recv() => {
                    self.finish(&engine).await;
                    hard_stop.begin(self.running.config.global.hard_stop_after);
                }
                () = hard_stop.due() => {
                    if hard_stop.killed {
                        self.tell("Some sessions resisted to hard-stop, exiting now.");
                        return engine.leave();
                    }
                    hard_stop.next();
                    self.hard_stop(&engine).await;
                }
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
            // Handshakes with sockets that the successor has not kept come to their end.
            tokio::time::sleep(LAST_HANDSHAKES).await;
        } else if !self.exported.is_handed_over(Instant::now()) {
            self.leave_addresses(engine).await;
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

    /// `hard-stop-after` has passed: sessions that are left are ended, with `K` in the log.
    async fn hard_stop(&mut self, engine: &Engine) {
        self.tell("soft-stop running for too long, performing a hard-stop.");
        let config = Arc::clone(&self.running.config);
        for (index, proxy) in config.proxies.iter().enumerate() {
            let frontend = self.running.proxies[index].frontend.as_ref();
            let left = frontend.map_or(0, |frontend| frontend.gate.now());
            if left > 0 {
                let name = &proxy.name;
                let text = format!("Proxy {name} hard-stopped ({left} remaining conns will be closed).");
                self.notices.warning(&text);
                self.logger.send(index, Severity::Warning, text.as_bytes());
            }
        }
        engine.kill(Which::All).await;
    }

    fn tell(&mut self, text: &str) {
        self.notices.warning(text);
        self.logger.send_global(Severity::Warning, text.as_bytes());
    }

    /// No connection is lost if another process listens on the addresses, with sockets of its own.
    async fn leave_addresses(&self, engine: &Engine) {
        self.exported.steer_to_the_first();
        tokio::time::sleep(LAST_HANDSHAKES).await;
        engine.stop_others();
        self.exported.keep_the_first();
        tokio::time::sleep(LAST_HANDSHAKES).await;
        self.exported.steer_away();
        tokio::time::sleep(LAST_HANDSHAKES).await;
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

/// When a soft stop has lasted too long.
#[derive(Default)]
struct HardStop {
    at: Option<Instant>,
    /// Sessions were told to end.
    killed: bool,
}

/// What sessions that were told to end have for it.
const RESISTANCE: Duration = Duration::from_secs(1);

impl HardStop {
    /// A soft stop has begun (only the first counts).
    fn begin(&mut self, limit: Option<Duration>) {
        self.at = self.at.or_else(|| Instant::now().checked_add(limit?));
    }

    fn next(&mut self) {
        self.killed = true;
        self.at = Some(Instant::now() + RESISTANCE);
    }

    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// The kernel sends SIGTERM when the parent dies. After the identity was changed, which forgets it. `parent`: as it knew
/// itself before this process began.
fn end_with_parent(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // It may have died before: then this process has another parent by now.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("it is gone")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_whose_master_has_died_meanwhile_does_not_begin() {
        let parent = std::os::unix::process::parent_id();
        assert!(end_with_parent(parent).is_ok());
        // Somebody else has become the parent.
        let error = end_with_parent(std::process::id()).unwrap_err();
        assert_eq!(error.to_string(), "it is gone");
    }
}
