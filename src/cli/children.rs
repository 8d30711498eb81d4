//! Child processes of a node: started, watched, started again, ended with it.

use crate::host;
use crate::observe::status::ChildStatus;
use crate::observe::words;
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child as Process, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A child that is not ready by then has failed to start.
const START: Duration = Duration::from_secs(20);
/// Pause before a child that ended is started again, doubled each time it ends soon after.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A child that lived this long was well: the next pause is the first again.
const WELL: Duration = Duration::from_secs(10);
/// A child that was asked to end and has not by then is killed.
const GRACE: Duration = Duration::from_secs(8);

/// How it is known that a child does its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ready {
    /// It prints `ready NAME=ADDRESS`.
    Line,
    /// Its port can be connected to.
    Port(SocketAddr),
    /// It runs; nothing more is known from the outside.
    Running,
}

/// What is run. `arguments` makes the command line from the address that the child had before, so that a child on
/// a port of the kernel's choice keeps it.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) arguments: Box<dyn Fn(Option<SocketAddr>) -> Vec<OsString> + Send + Sync>,
    pub(super) ready: Ready,
    /// Asks it to end gracefully.
    pub(super) stop_signal: rustix::process::Signal,
}

/// A child that is kept alive.
pub(super) struct Child {
    status: Arc<Mutex<ChildStatus>>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Where it listens, once that is known.
    pub(super) address: Option<SocketAddr>,
}

impl Child {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(plan: Plan) -> Result<Child> {
        let status = Arc::new(Mutex::new(ChildStatus { name: plan.name.clone(), ..ChildStatus::default() }));
        let stop = CancellationToken::new();
        let (ready, mut told) = watch::channel(None);
        let name = plan.name.clone();
        let mut task = tokio::spawn(keep(plan, Arc::clone(&status), stop.clone(), ready));
        let known = tokio::select! {
            known = timeout(START, told.wait_for(Option::is_some)) => match known {
                Ok(Ok(first)) => first.clone(),
                _ => None,
            },
            _ = &mut task => None,
        };
        match known {
            Some(Ok(address)) => Ok(Child { status, stop, task: Mutex::new(Some(task)), address }),
            Some(Err(why)) => {
                stop.cancel();
                bail!("{name} ended before it was ready ({why}); it has said why on standard error")
            }
            None => {
                stop.cancel();
                bail!("{name} was not ready within {} s; see what it said on standard error", START.as_secs())
            }
        }
    }

    /// For `status`.
    pub(super) fn status(&self) -> ChildStatus {
        self.status.lock().clone()
    }

    /// Asks it to end, and ends it if it does not.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // The task bounds its own time.
            let _ = task.await;
        }
    }
}

/// First outcome of a start: its address if it has one, or why it ended.
type First = Option<Result<Option<SocketAddr>, String>>;

async fn keep(
    plan: Plan,
    status: Arc<Mutex<ChildStatus>>,
    stop: CancellationToken,
    first: watch::Sender<First>,
) {
    let (mut pause, mut address) = (PAUSE.0, None);
    loop {
        let began = Instant::now();
        let ended = match spawn(&plan, address) {
            Ok(mut process) => {
                {
                    let mut status = status.lock();
                    status.pid = process.id();
                    status.since_ms = words::now_ms();
                }
                let ready = await_ready(&plan, &mut process, &mut address);
                let exited = tokio::select! {
                    ready = ready => ready.err(),
                    () = stop.cancelled() => return end(&plan, process).await,
                };
                match exited {
                    Some(why) => why,
                    None => {
                        status.lock().address = address.map(|address| address.to_string());
                        first.send_replace(Some(Ok(address)));
                        tokio::select! {
                            exit = process.wait() => told(exit),
                            () = stop.cancelled() => return end(&plan, process).await,
                        }
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        {
            let mut status = status.lock();
            status.pid = None;
            status.restarts += 1;
            status.last_end = Some(ended.clone());
        }
        if first.borrow().is_none() {
            first.send_replace(Some(Err(ended)));
            return;
        }
        pause = if began.elapsed() > WELL { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tracing::warn!(child = plan.name, ended, again_in = ?pause, "a child process ended");
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn spawn(plan: &Plan, address: Option<SocketAddr>) -> Result<Process> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = std::process::Command::new(program);
    command.args((plan.arguments)(address)).stdin(Stdio::null());
    command.stdout(if plan.ready == Ready::Line { Stdio::piped() } else { Stdio::null() });
    host::end_with_parent(&mut command);
    let mut command = Command::from(command);
    command.kill_on_drop(true).spawn().with_context(|| format!("starting {}", plan.name))
}

/// Waits until the child is ready; `Err` says how it ended before.
async fn await_ready(
    plan: &Plan,
    process: &mut Process,
    address: &mut Option<SocketAddr>,
) -> Result<(), String> {
    match &plan.ready {
        Ready::Running => Ok(()),
        Ready::Port(at) => {
            *address = Some(*at);
            loop {
                tokio::select! {
                    exit = process.wait() => return Err(told(exit)),
                    () = sleep(Duration::from_millis(20)) => {}
                }
                if TcpStream::connect(at).await.is_ok() {
                    return Ok(());
                }
            }
        }
        Ready::Line => {
            let Some(output) = process.stdout.take() else { return Ok(()) };
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let said = line.strip_prefix("ready ").and_then(|rest| rest.split_once('='));
                if let Some(at) = said.and_then(|(_, at)| at.trim().parse().ok()) {
                    *address = Some(at);
                    // Whatever else it says must not fill the pipe.
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Ok(());
                }
            }
            Err(told(process.wait().await))
        }
    }
}

async fn end(plan: &Plan, mut process: Process) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, plan.stop_signal);
    }
    if timeout(GRACE, process.wait()).await.is_err() {
        tracing::warn!(child = plan.name, "did not end in time and was killed");
        let _ = process.kill().await;
    }
}

fn told(exit: std::io::Result<std::process::ExitStatus>) -> String {
    exit.map_or_else(|error| error.to_string(), |status| status.to_string())
}
