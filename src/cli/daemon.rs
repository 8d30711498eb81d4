//! What every daemon does around its roles: settings checked, log, sockets, `ready`, signals, a graceful end.

use super::assemble::{Launch, Node};
use super::control;
use super::locate::{Where, roles_of, this_host};
use super::state_directory::StateDirectory;
use super::{Verdict, say};
use crate::dashboard;
use crate::observe::{Control, log};
use crate::settings::environment::{Roles, check, port_fault};
use crate::settings::{Cluster, LogFormat, LogLevel, Problem, Problems};
use anyhow::{Context, Result};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Options of every daemon.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DaemonOptions {
    /// Least severe log lines: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The cluster that `--cluster` names, and the roles of this host in it.
pub(crate) fn from_file(at: &Where) -> Result<Option<(Cluster, Roles)>> {
    let Some(file) = &at.cluster else { return Ok(None) };
    let mut cluster = Cluster::load(file)?;
    let host = this_host(&cluster, file, at.host.as_deref())?;
    let roles = roles_of(&cluster, &host);
    cluster.keep_front_of(&host);
    Ok(Some((cluster, roles)))
}

/// Runs the roles until a signal.
pub(crate) fn run(mut launch: Launch, options: &DaemonOptions) -> Result<Verdict> {
    let settings = &mut launch.cluster.log;
    settings.level = options.log_level.unwrap_or(settings.level);
    settings.format = options.log_format.unwrap_or(settings.format);
    check(&launch.cluster, launch.roles, &[])?;
    log::start(launch.cluster.log.level.word(), launch.cluster.log.format == LogFormat::Json)?;
    crate::host::keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ehpc")
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(live(launch));
    // Threads that still block on a disk must not hold up the end; everything promised is durable already.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// A listener on `address`; a failure is told as the settings' problem that it is.
pub(crate) async fn listen(cluster: &Cluster, key: &'static str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let (what, next) =
            port_fault(address, &error, &[]).unwrap_or_else(|| (error.to_string(), String::new()));
        let what = format!("cannot listen on {address}: {what}");
        let expected = "a free port of this machine".to_owned();
        Problems(vec![Problem { site: cluster.site(key), what, expected, next }]).into()
    })
}

async fn live(launch: Launch) -> Result<Verdict> {
    let mut signals = Signals::new()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut locks = Vec::new();
    for path in launch.state_directories() {
        locks.push(StateDirectory::open(&path)?);
    }
    let cluster = launch.cluster.clone();
    let mut dashboards = Vec::new();
    for (key, address) in launch.dashboards() {
        dashboards.push(listen(&cluster, key, address).await?);
    }
    let stop = CancellationToken::new();
    let mut node = tokio::select! {
        node = Node::start(launch, stop.clone()) => node?,
        name = signals.next() => {
            tracing::info!(signal = name, "ended before it was ready");
            return Ok(Verdict::Good);
        }
    };
    for dashboard in &dashboards {
        node.listening("dashboard", dashboard.local_addr()?);
    }
    let node = Arc::new(node);
    let mut tasks = Vec::new();
    for lock in &locks {
        let listener = control::bind(lock.path())?;
        tasks.push(tokio::spawn(control::serve(
            listener,
            Arc::clone(&node) as Arc<dyn Control>,
            stop.clone(),
        )));
    }
    for dashboard in dashboards {
        let (node, stop) = (Arc::clone(&node), stop.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = dashboard::serve(dashboard, node, stop).await {
                tracing::error!(%error, "the dashboard ended");
            }
        }));
    }
    if let Err(error) = say(&node.ready()) {
        // Nobody reads; the log says it too.
        tracing::warn!(%error, "the ready line could not be written");
    }
    let ended = tokio::select! {
        () = reload_on_hangup(&*node, &mut hangups) => Ok(Verdict::Good),
        name = signals.next() => {
            tracing::info!(signal = name, "ending: a second signal ends at once");
            Ok(Verdict::Good)
        }
        fault = node.failed() => Err(fault),
    };
    tokio::select! {
        () = node.stop() => tracing::info!("ended cleanly"),
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: ending at once");
            std::process::exit(2);
        }
    }
    stop.cancel();
    for task in tasks {
        // Answers under way get a moment; a client that hangs gets no more.
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
    }
    ended
}

/// SIGHUP: what can be read again is read again. Does not return.
async fn reload_on_hangup(node: &dyn Control, hangups: &mut Signal) {
    loop {
        if hangups.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        if !node.actions().iter().any(|action| action.name == "reload") {
            tracing::info!("SIGHUP: this node has nothing to reload");
            continue;
        }
        let (progress, _) = tokio::sync::mpsc::channel(1);
        match node.act("reload", serde_json::Value::Null, progress).await {
            Ok(_) => tracing::info!("SIGHUP: reloaded"),
            Err(error) => tracing::error!("SIGHUP: {error}"),
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
