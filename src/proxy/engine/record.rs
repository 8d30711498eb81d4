//! What remains of an exchange: its log line, and the numbers of those who were there.

use super::thread::Thread;
use crate::proxy::config::model::{Proxy, ProxyIndex};
use crate::proxy::exchange::{Endpoint, Exchange, LogLevel, Session};
use crate::proxy::expression::Context;
use crate::proxy::log::Severity;
use crate::proxy::state::{
    Backend, BackendCounters, FrontendCounters, Listener, Refused, ServerCounters, Spent,
};
use ehpc_proto::http1::BadMessage;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

/// A session's presence in a backend (`scur`); ends when dropped.
pub(crate) struct Presence {
    backend: Arc<Backend>,
}

impl Presence {
    /// One more is in the backend. `None`: the section has no servers.
    pub(crate) fn new(thread: &Thread, backend: ProxyIndex) -> Option<Presence> {
        let backend = thread.running.proxies.get(backend)?.backend.clone()?;
        let now = backend.counters.now.fetch_add(1, Ordering::Relaxed) + 1;
        if now > backend.counters.most.load(Ordering::Relaxed) {
            backend.counters.most.fetch_max(now, Ordering::Relaxed);
        }
        backend.counters.traffic.sessions.add(1);
        Some(Presence { backend })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.backend.counters.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters of the sections and of the server that an exchange concerns.
pub(crate) struct Concerned<'r> {
    pub(crate) frontend: Option<&'r FrontendCounters>,
    /// The `bind`'s, with `option socket-stats`.
    pub(crate) listener: Option<&'r FrontendCounters>,
    pub(crate) backend: Option<&'r BackendCounters>,
    pub(crate) server: Option<&'r ServerCounters>,
}

impl<'r> Concerned<'r> {
    /// The frontend, and its listener if that is counted.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = &'r FrontendCounters> {
        self.frontend.into_iter().chain(self.listener)
    }
}

/// The `bind` that a session came by, with `option socket-stats`.
fn listener<'r>(thread: &'r Thread, session: &Session) -> Option<&'r FrontendCounters> {
    let counted = thread.running.config.proxies.get(session.frontend)?.options.socket_stats;
    let frontend = thread.running.proxies.get(session.frontend)?.frontend.as_ref()?;
    counted.then(|| frontend.listeners.get(session.bind)).flatten().map(|listener| &listener.counters)
}

/// A session's presence at its `bind`, with `option socket-stats` (`scur`, `smax`, `stot`); ends when dropped.
pub(crate) struct Arrival<'r>(Option<&'r Listener>);

impl<'r> Arrival<'r> {
    /// One more has come.
    pub(crate) fn new(thread: &'r Thread, session: &Session) -> Arrival<'r> {
        let Some(counters) = listener(thread, session) else { return Arrival(None) };
        counters.traffic.sessions.add(1);
        let frontend = thread.running.proxies.get(session.frontend).and_then(|one| one.frontend.as_ref());
        let listener = frontend.and_then(|frontend| frontend.listeners.get(session.bind));
        if let Some(listener) = listener {
            let now = listener.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            listener.most.fetch_max(now, Ordering::Relaxed);
        }
        Arrival(listener)
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some(listener) = self.0 {
            listener.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Who is concerned by an exchange.
pub(crate) fn concerned<'r>(thread: &'r Thread, exchange: &Exchange) -> Concerned<'r> {
    let section = |index: ProxyIndex| thread.running.proxies.get(index);
    let frontend = section(exchange.session.frontend).and_then(|one| one.frontend.as_ref());
    let backend = exchange.route.backend.and_then(section).and_then(|one| one.backend.as_ref());
    let server = backend.zip(exchange.route.server).and_then(|(one, server)| one.servers.get(server));
    Concerned {
        frontend: frontend.map(|one| &one.counters),
        listener: listener(thread, &exchange.session),
        backend: backend.map(|one| &one.counters),
        server: server.map(|one| &one.counters),
    }
}

/// Notes how many sessions there are: process, frontend, backend, server (`%ac/%fc/%bc/%sc`).
pub(crate) fn note_active(thread: &Thread, exchange: &mut Exchange) {
    let running = &thread.running;
    let section = |index: ProxyIndex| running.proxies.get(index);
    let frontend = section(exchange.session.frontend).and_then(|one| one.frontend.as_ref());
    let backend = exchange.route.backend.and_then(section).and_then(|one| one.backend.as_ref());
    let server = backend.zip(exchange.route.server).and_then(|(one, server)| one.servers.get(server));
    exchange.counts.active = running.gate.now();
    exchange.counts.frontend_active = frontend.map_or(0, |one| one.gate.now());
    exchange.counts.backend_active = backend.map_or(0, |one| one.counters.now.load(Ordering::Relaxed));
    exchange.counts.server_active = server.map_or(0, |one| one.sessions.load(Ordering::Relaxed));
}

/// Counts bytes: of the client (in) and to it (out).
pub(crate) fn count_bytes(thread: &Thread, exchange: &Exchange, bytes_in: u64, bytes_out: u64) {
    let concerned = concerned(thread, exchange);
    let servers = concerned.backend.map(|one| &one.traffic).into_iter();
    let servers = servers.chain(concerned.server.map(|one| &one.traffic));
    for traffic in concerned.fronts().map(|one| &one.traffic).chain(servers) {
        traffic.bytes_in.add(bytes_in);
        traffic.bytes_out.add(bytes_out);
    }
}

/// Counts the times of an exchange that had a server.
pub(crate) fn count_times(thread: &Thread, exchange: &Exchange) {
    let Concerned { backend, server: Some(server), .. } = concerned(thread, exchange) else { return };
    let times = &exchange.times;
    let between = |from: Option<Instant>, to: Option<Instant>| {
        let spent = to?.saturating_duration_since(from?).as_millis();
        Some(u32::try_from(spent).unwrap_or(u32::MAX))
    };
    let begun = times.request_head.or(Some(times.request_started_at));
    let spent = Spent {
        queue: between(begun, times.dequeued),
        connect: between(times.dequeued, times.connected),
        response: between(times.connected, times.response_head),
        total: between(Some(times.request_started_at), times.ended),
    };
    server.timings.add(spent);
    backend.inspect(|backend| backend.timings.add(spent));
}

/// A message that was not understood, for `show errors`.
pub(crate) fn refused(exchange: &Exchange, bytes: &[u8], bad: BadMessage) -> Refused {
    /// HAProxy's buffer.
    const MOST: usize = 16_384;
    Refused {
        number: 0,
        when: SystemTime::now(),
        frontend: exchange.session.frontend,
        backend: exchange.route.backend,
        server: exchange.route.server,
        source: match exchange.session.client {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix => "unix:0".to_owned(),
        },
        bytes: bytes.get(..bytes.len().min(MOST)).unwrap_or_default().to_vec(),
        position: bad.at,
        fault: bad.fault.to_string(),
    }
}

/// Whether HAProxy would call it an error (`strm_log`).
fn is_error(proxy: &Proxy, exchange: &Exchange) -> bool {
    use crate::proxy::config::model::Mode;
    let cause = exchange.ending.cause;
    exchange.counts.redispatched
        || !matches!(cause, b'-' | b'L')
        || (cause == b'-' && exchange.counts.retries > 0)
        || (proxy.mode == Mode::Http && exchange.response.status >= 500)
}

/// Sends the log line, if there is one to send.
pub(crate) fn log(thread: &Thread, proxy: &Proxy, exchange: &Exchange) {
    let error = is_error(proxy, exchange);
    if !error && proxy.options.dontlog_normal {
        return;
    }
    let usual = if error && proxy.options.log_separate_errors { Severity::Error } else { Severity::Info };
    let severity = match exchange.log_level {
        Some(LogLevel::Silent) => return,
        Some(LogLevel::Level(level)) => Severity::from_number(level),
        None => usual,
    };
    let context = Context { exchange, running: &thread.running };
    thread.log(exchange.session.frontend, severity, |text| proxy.log_format.render(&context, text));
}
