//! Asks servers whether they are well (5.2 `check`, 4.2 `option httpchk`, `option mysql-check`), and acts on what happens to
//! them: log lines, sessions to be ended.
//!
//! `http` and `mysql` (pure) say what to send and what an answer means, `probe` connects and reads, this file keeps the time.
//! How often a check must fail is in [`super::health`]; what follows from it in [`super::state`].

mod http;
mod mysql;
mod probe;

use super::config::model::{Check, Proxy, ProxyIndex, ServerAddress, ServerCheck, ServerIndex, ServerPort};
use super::engine::{Engine, Which};
use super::health::first_check;
use super::log::Logger;
use super::state::{Backend, Happening, Operation, Running};
use probe::{Limits, Target};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// How often starting servers get more (`slowstart`).
const WARMING: Duration = Duration::from_secs(1);

/// Runs all checks of a process and tells what happens, until it is dropped. For one runtime of the process.
pub async fn run(running: Arc<Running>, mut logger: Logger, engine: Engine) {
    let _checks = start(&running);
    let mut warming = tokio::time::interval(WARMING);
    warming.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = running.news.wait() => {}
            _ = warming.tick() => backends(&running).for_each(|backend| backend.warm(super::state::seconds())),
        }
        for happening in running.news.take() {
            match happening {
                Happening::Line(proxy, severity, line) => logger.send(proxy, severity, line.as_bytes()),
                Happening::ShutSessions(proxy, server) => {
                    engine.kill(Which::Server(proxy, server)).await;
                }
            }
        }
    }
}

fn backends(running: &Running) -> impl Iterator<Item = &Arc<Backend>> {
    running.proxies.iter().filter_map(|proxy| proxy.backend.as_ref())
}

/// One task for each checked server; they end when the set is dropped.
fn start(running: &Arc<Running>) -> JoinSet<()> {
    let mut checked = Vec::new();
    for (index, proxy) in running.config.proxies.iter().enumerate().filter(|(_, proxy)| !proxy.disabled) {
        let servers = proxy.servers.iter().enumerate();
        checked.extend(servers.filter_map(|(server, known)| Some((index, server, known.check.clone()?))));
    }
    let shortest = checked.iter().flat_map(|(_, _, timing)| {
        [Some(timing.inter), timing.fastinter, timing.downinter].into_iter().flatten()
    });
    let shortest = shortest.min().unwrap_or_default();
    let count = checked.len();
    let mut tasks = JoinSet::new();
    for (number, (proxy, server, timing)) in checked.into_iter().enumerate() {
        let begin = Instant::now() + first_check(number, count, shortest);
        tasks.spawn(watch(running.clone(), proxy, server, timing, begin));
    }
    tasks
}

/// Checks one server for ever.
async fn watch(
    running: Arc<Running>,
    index: ProxyIndex,
    server: ServerIndex,
    timing: ServerCheck,
    begin: Instant,
) {
    let Some(proxy) = running.config.proxies.get(index) else { return };
    let Some(backend) = running.proxies.get(index).and_then(|state| state.backend.clone()) else { return };
    let Some(known) = backend.servers.get(server) else { return };
    let Some(checked) = &known.check else { return };
    let mut next = begin;
    loop {
        tokio::time::sleep_until(next).await;
        let paused = known.is_in_maintenance() || !checked.lock().enabled;
        if !paused {
            checked.lock().running = true;
            let limits = Limits::new(&timing, &proxy.timeouts, Instant::now());
            let state = state_line(&running, index, server);
            let report = match target(known, &timing) {
                Some(target) => probe::probe(&proxy.check, &target, &limits, state.as_deref()).await,
                None => probe::no_port(),
            };
            backend.report(server, report);
        }
        let interval = checked.lock().health.interval(&timing).max(Duration::from_millis(1));
        let interval = vary(interval, running.config.global.spread_checks, rand::random());
        next += interval;
        let now = Instant::now();
        if next < now {
            // The check took longer than the interval: the next one at its next regular moment.
            let behind = (now - next).as_nanos() / interval.as_nanos() + 1;
            next += interval * u32::try_from(behind).unwrap_or(u32::MAX);
        }
    }
}

/// `spread-checks`: an interval that is up to `percent` longer or shorter, as `chance` says.
fn vary(interval: Duration, percent: u32, chance: u32) -> Duration {
    let most = interval.as_micros() as u64 * u64::from(percent.min(50)) / 100;
    let chosen = (u128::from(2 * most) * u128::from(chance) / u128::from(u32::MAX)) as u64;
    interval - Duration::from_micros(most) + Duration::from_micros(chosen)
}

/// Where a check goes: the server's present address, with the check's own port and address. `None`: there is no port to check.
fn target(known: &super::state::Server, timing: &ServerCheck) -> Option<Target> {
    Some(match &*known.address.read() {
        ServerAddress::Tcp { at, port, .. } => {
            let ip = timing.address.unwrap_or(at.ip());
            let own = match port {
                ServerPort::Fixed => at.port(),
                ServerPort::Mapped(_) => 0,
            };
            let port = timing.port.unwrap_or(own);
            if port == 0 {
                return None;
            }
            Target::Tcp(SocketAddr::new(ip, port))
        }
        ServerAddress::Unix(path) => Target::Unix(path.clone()),
        ServerAddress::Abstract(name) => Target::Abstract(name.clone()),
    })
}

/// Value of `X-Haproxy-Server-State` (`http-check send-state`), if it is wanted.
fn state_line(running: &Running, index: ProxyIndex, server: ServerIndex) -> Option<String> {
    let proxy: &Proxy = running.config.proxies.get(index)?;
    let Check::Http(check) = &proxy.check else { return None };
    if !check.send_state {
        return None;
    }
    let backend = running.proxies.get(index)?.backend.as_ref()?;
    let known = backend.servers.get(server)?;
    let health = known.checked()?.health;
    let (points, of) = health.shown();
    let parts = if health.is_in_transition() { format!(" {points}/{of}") } else { String::new() };
    let word = match known.operation() {
        Operation::Stopped => "DOWN",
        Operation::Stopping => "NOLB",
        Operation::Starting | Operation::Running => "UP",
    };
    let (address, port) = match &*known.address.read() {
        ServerAddress::Tcp { at, .. } => (at.ip().to_string(), at.port()),
        ServerAddress::Unix(_) | ServerAddress::Abstract(_) => ("unix".to_owned(), 0),
    };
    let node = running.config.global.node.clone().unwrap_or_else(host_name);
    let weight = known.weight.load(Ordering::Relaxed);
    let total: u32 = backend
        .servers
        .iter()
        .filter(|other| other.takes_new())
        .map(|other| other.weight.load(Ordering::Relaxed))
        .sum();
    let sessions = known.sessions.load(Ordering::Relaxed);
    let all = backend.counters.now.load(Ordering::Relaxed);
    let queued = known.queued.load(Ordering::Relaxed);
    let mut line = format!(
        "{word}{parts}; address={address}; port={port}; name={}/{}; node={node}; weight={weight}/{total}; \
         scur={sessions}/{all}; qcur={queued}",
        proxy.name, known.name
    );
    if known.operation() == Operation::Starting {
        line.push_str(&format!("; throttle={}%", known.warmth.load(Ordering::Relaxed)));
    }
    Some(line)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
