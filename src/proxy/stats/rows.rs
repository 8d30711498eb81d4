//! What is shown: a row for each frontend, listener, server and backend, filled from the running state.

use super::columns::{At, COLUMNS, MODULES};
use super::value::Value;
use super::{Moment, status};
use crate::observe::Count;
use crate::proxy::config::model::{
    BackendName, Balance, BindAddress, Mode, Proxy, ProxyIndex, ServerAddress,
};
use crate::proxy::health::{CheckReport, CheckStatus};
use crate::proxy::state::{
    Backend, BackendCounters, Checked, Codes, Frontend, FrontendCounters, Growth, Operation, Rate, Running,
    Server, Timings,
};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

/// What a row is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Frontend = 0,
    Backend = 1,
    Server = 2,
    Listener = 3,
}

impl Kind {
    /// As `show stat typed` names it.
    pub fn letter(self) -> char {
        match self {
            Kind::Frontend => 'F',
            Kind::Backend => 'B',
            Kind::Server => 'S',
            Kind::Listener => 'L',
        }
    }
}

/// One line of `show stat`.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is of.
    pub kind: Kind,
    /// The proxy's number (`iid`).
    pub proxy: u32,
    /// The server's or listener's number (`sid`), else 0.
    pub id: u32,
    /// One a column.
    pub values: Vec<Value>,
}

impl Row {
    fn new(kind: Kind, proxy: &Proxy, id: u32, name: String) -> Row {
        let mut row = Row { kind, proxy: proxy.id, id, values: vec![Value::Empty; COLUMNS.len()] };
        row.set(At::Pxname, proxy.name.clone());
        row.set(At::Svname, name);
        row.set(At::Pid, 1_u32);
        row.set(At::Iid, proxy.id);
        row.set(At::Sid, id);
        row.set(At::Type, kind as u32);
        row.set(At::Mode, if proxy.mode == Mode::Http { "http" } else { "tcp" });
        // No TLS here yet: the columns of HAProxy's module are there, and nothing was counted.
        row.zeros(&[At::Wrew, At::SslSess, At::SslReusedSess, At::SslFailedHandshake]);
        row
    }

    /// A column's value.
    pub fn get(&self, at: At) -> &Value {
        self.values.get(at as usize).unwrap_or(&Value::Empty)
    }

    fn set(&mut self, at: At, value: impl Into<Value>) {
        if let Some(place) = self.values.get_mut(at as usize) {
            *place = value.into();
        }
    }

    fn zeros(&mut self, places: &[At]) {
        places.iter().for_each(|at| self.set(*at, 0_u64));
    }

    fn codes(&mut self, codes: &Codes) {
        self.set(At::Hrsp1xx, codes.c1xx.get());
        self.set(At::Hrsp2xx, codes.c2xx.get());
        self.set(At::Hrsp3xx, codes.c3xx.get());
        self.set(At::Hrsp4xx, codes.c4xx.get());
        self.set(At::Hrsp5xx, codes.c5xx.get());
        self.set(At::HrspOther, codes.other.get());
    }

    /// Rate and age of sessions.
    fn growth(&mut self, rate: Rate) {
        self.set(At::Rate, rate.now);
        self.set(At::RateMax, rate.most);
        self.set(At::Lastsess, rate.idle.map_or(-1, |idle| i32::try_from(idle).unwrap_or(i32::MAX)));
    }

    fn timings(&mut self, timings: &Timings) {
        for (at, value) in [At::Qtime, At::Ctime, At::Rtime, At::Ttime].into_iter().zip(timings.averages()) {
            self.set(at, value);
        }
        let longest = [At::QtimeMax, At::CtimeMax, At::RtimeMax, At::TtimeMax];
        for (at, value) in longest.into_iter().zip(timings.longest()) {
            self.set(at, value);
        }
    }

    /// Columns of the modules h2 and h1: the first are zero, of the second what is counted is known.
    fn modules(&mut self, http: bool, connections: u64, requests: u64, bytes: (u64, u64)) {
        for place in self.values.iter_mut().skip(MODULES + 3) {
            *place = Value::U64(0);
        }
        if http {
            self.set(At::H1TotalConnections, connections);
            self.set(At::H1TotalStreams, requests);
            self.set(At::H1BytesIn, bytes.0);
            self.set(At::H1BytesOut, bytes.1);
        }
    }
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Only the proxy with this number.
    pub proxy: Option<u32>,
    /// Bit 0 frontends, 1 backends, 2 servers, 3 listeners; absent: all.
    pub kinds: Option<u32>,
    /// Only the server or listener with this number.
    pub id: Option<u32>,
    /// `up`: no servers that are down, and backends say how many of theirs are up.
    pub up: bool,
    /// `no-maint`: no servers in maintenance, and the same.
    pub without_maintenance: bool,
}

impl Selection {
    fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_none_or(|kinds| kinds & (1 << kind as u32) != 0)
    }

    fn wants_id(&self, id: u32) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
    }
}

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub struct View<'r> {
    /// What runs.
    pub running: &'r Running,
    /// When.
    pub moment: Moment,
    /// Addresses, cookies and algorithms may be shown (level operator, `stats show-legends`).
    pub legends: bool,
}

/// All rows that are selected, in HAProxy's order: section by section its frontend, listeners, servers, backend.
pub fn rows(view: &View<'_>, selection: &Selection) -> Vec<Row> {
    let mut found = Vec::new();
    for (index, proxy) in view.running.config.proxies.iter().enumerate() {
        if !proxy.disabled && selection.proxy.is_none_or(|wanted| wanted == proxy.id) {
            view.section(index, selection, &mut found);
        }
    }
    found
}

impl View<'_> {
    /// Rows of one section.
    pub fn section(&self, index: ProxyIndex, selection: &Selection, found: &mut Vec<Row>) {
        let (Some(proxy), Some(state)) =
            (self.running.config.proxies.get(index), self.running.proxies.get(index))
        else {
            return;
        };
        if let Some(frontend) = &state.frontend {
            if selection.wants(Kind::Frontend) {
                found.push(self.frontend(proxy, frontend));
            }
            if proxy.options.socket_stats && selection.wants(Kind::Listener) {
                self.listeners(proxy, frontend, selection, found);
            }
        }
        if let Some(backend) = &state.backend {
            if selection.wants(Kind::Server) {
                self.servers(proxy, backend, selection, found);
            }
            if selection.wants(Kind::Backend) {
                found.push(self.backend(
                    index,
                    proxy,
                    backend,
                    selection.up || selection.without_maintenance,
                ));
            }
        }
    }

    fn frontend(&self, proxy: &Proxy, state: &Frontend) -> Row {
        let counters = &state.counters;
        let mut row = Row::new(Kind::Frontend, proxy, 0, "FRONTEND".to_owned());
        row.set(At::Scur, state.gate.now());
        row.set(At::Smax, state.gate.most());
        row.set(At::Slim, state.gate.limit());
        front_counts(&mut row, counters);
        row.set(At::Status, status::of_frontend(state));
        row.zeros(&[At::CompIn, At::CompOut, At::CompByp, At::CompRsp]);
        let samples = &state.samples;
        let sessions = self.rate(&samples.sessions, &counters.traffic.sessions);
        let connections = self.rate(&samples.connections, &counters.connections);
        row.set(At::Rate, sessions.now);
        row.set(At::RateLim, 0_u32);
        row.set(At::RateMax, sessions.most);
        row.set(At::ConnRate, connections.now);
        row.set(At::ConnRateMax, connections.most);
        row.set(At::ConnTot, counters.connections.get());
        row.set(At::Intercepted, counters.intercepted.get());
        let http = proxy.mode == Mode::Http;
        if http {
            row.codes(&counters.codes);
            let requests = self.rate(&samples.requests, &counters.requests);
            row.set(At::ReqRate, requests.now);
            row.set(At::ReqRateMax, requests.most);
            row.set(At::ReqTot, counters.requests.get());
            row.zeros(&[At::CacheLookups, At::CacheHits]);
        }
        let bytes = (counters.traffic.bytes_in.get(), counters.traffic.bytes_out.get());
        row.modules(http, counters.connections.get(), counters.requests.get(), bytes);
        if http {
            row.set(At::H1OpenConnections, u64::from(state.gate.now()));
        }
        row
    }

    fn listeners(&self, proxy: &Proxy, state: &Frontend, selection: &Selection, found: &mut Vec<Row>) {
        for (bind, listener) in proxy.binds.iter().zip(&state.listeners) {
            if !selection.wants_id(bind.id) {
                continue;
            }
            let name = bind.name.clone().unwrap_or_else(|| format!("sock-{}", bind.id));
            let mut row = Row::new(Kind::Listener, proxy, bind.id, name);
            row.set(At::Scur, listener.sessions.load(Relaxed));
            row.set(At::Smax, listener.most.load(Relaxed));
            row.set(At::Slim, listener.gate.as_ref().map_or(0, |gate| gate.limit()));
            front_counts(&mut row, &listener.counters);
            row.set(At::Status, status::of_listener(state, listener));
            if self.legends {
                row.set(At::Addr, bind_address(&bind.address));
            }
            found.push(row);
        }
    }

    fn servers(&self, proxy: &Proxy, backend: &Backend, selection: &Selection, found: &mut Vec<Row>) {
        for (index, (server, state)) in proxy.servers.iter().zip(&backend.servers).enumerate() {
            let hidden =
                selection.up && !state.is_up() || selection.without_maintenance && state.is_in_maintenance();
            if !hidden && selection.wants_id(server.id) {
                let mut row = self.server(proxy, server, state);
                row.set(At::Qmax, backend.most_queued(Some(index)));
                found.push(row);
            }
        }
    }

    fn server(&self, proxy: &Proxy, server: &crate::proxy::config::model::Server, state: &Server) -> Row {
        let counters = &state.counters;
        let mut row = Row::new(Kind::Server, proxy, server.id, server.name.clone());
        row.set(At::Qcur, state.queued.load(Relaxed));
        row.set(At::Scur, state.sessions.load(Relaxed));
        row.set(At::Smax, counters.most.load(Relaxed));
        let maxconn = state.maxconn.load(Relaxed);
        if maxconn > 0 {
            row.set(At::Slim, maxconn);
        }
        if let Some(maxqueue) = server.maxqueue.filter(|maxqueue| *maxqueue > 0) {
            row.set(At::Qlimit, maxqueue);
        }
        row.set(At::Stot, counters.traffic.sessions.get());
        row.set(At::Bin, counters.traffic.bytes_in.get());
        row.set(At::Bout, counters.traffic.bytes_out.get());
        row.set(At::Dresp, counters.denied_responses.get());
        row.set(At::Econ, counters.connect_errors.get());
        row.set(At::Eresp, counters.response_errors.get());
        row.set(At::Wretr, counters.retries.get());
        row.set(At::Wredis, counters.redispatches.get());
        row.set(At::CliAbrt, counters.client_aborts.get());
        row.set(At::SrvAbrt, counters.server_aborts.get());
        row.set(At::Lbtot, counters.balanced.get());
        row.set(At::Connect, counters.connects.get());
        row.set(At::Reuse, counters.reused.get());
        row.set(At::Eint, counters.internal_errors.get());
        row.set(At::Act, u32::from(!server.backup));
        row.set(At::Bck, u32::from(server.backup));
        row.set(At::Weight, state.weight.load(Relaxed));
        row.set(At::Uweight, state.weight.load(Relaxed));
        row.set(At::Status, status::of_server(state));
        row.growth(self.rate(&counters.growth, &counters.traffic.sessions));
        row.set(At::Lastchg, self.since(&state.last_change));
        row.timings(&counters.timings);
        for at in [At::SrvIcur, At::IdleConnCur, At::SafeConnCur, At::UsedConnCur, At::NeedConnEst] {
            row.set(at, 0_u32);
        }
        row.set(At::UsedConnCur, state.sessions.load(Relaxed));
        if proxy.mode == Mode::Http {
            row.codes(&counters.codes);
            row.set(At::ReqTot, counters.requests.get());
        }
        if let Some(checked) = state.checked() {
            self.check(&checked, state, &mut row);
        }
        if state.operation() == Operation::Starting {
            row.set(At::Throttle, state.warmth.load(Relaxed));
        }
        if self.legends {
            row.set(At::Addr, server_address(&state.address.read()));
            if let Some(cookie) = &server.cookie {
                row.set(At::Cookie, String::from_utf8_lossy(cookie).into_owned());
            }
        }
        row
    }

    /// Columns of a server that is checked.
    fn check(&self, checked: &Checked, state: &Server, row: &mut Row) {
        if !checked.enabled {
            return;
        }
        row.set(At::Chkfail, state.counters.failed_checks.get());
        row.set(At::Chkdown, state.counters.downs.get());
        row.set(At::Downtime, small(state.down_time(self.wall())));
        // Paused.
        if state.is_in_maintenance() {
            return;
        }
        let CheckReport { status, code, info, duration } = &checked.last;
        let running = if checked.running { "* " } else { "" };
        row.set(At::CheckStatus, format!("{running}{}", status.word()));
        row.set(At::CheckDesc, status.description());
        row.set(At::LastChk, info.clone());
        if *status as u8 >= CheckStatus::SocketError as u8 {
            row.set(At::CheckDuration, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(code) = code {
            row.set(At::CheckCode, u32::from(*code));
        }
        let (rise, fall) = checked.health.limits();
        row.set(At::CheckRise, rise);
        row.set(At::CheckFall, fall);
        row.set(At::CheckHealth, checked.health.points());
    }

    fn backend(&self, index: ProxyIndex, proxy: &Proxy, state: &Backend, count_up: bool) -> Row {
        let counters = &state.counters;
        let mut row = Row::new(Kind::Backend, proxy, 0, "BACKEND".to_owned());
        row.set(At::Qcur, state.queued.load(Relaxed));
        row.set(At::Qmax, state.most_queued(None));
        row.set(At::Scur, counters.now.load(Relaxed));
        row.set(At::Smax, counters.most.load(Relaxed));
        row.set(At::Slim, fullconn(self.running, index));
        back_counts(&mut row, counters);
        let totals = status::Totals::of(proxy, state);
        row.set(At::Status, totals.status(proxy, count_up));
        row.set(At::Weight, totals.weight);
        row.set(At::Uweight, totals.weight);
        row.set(At::Act, totals.active);
        row.set(At::Bck, totals.backup);
        row.set(At::Chkdown, counters.downs.get());
        row.set(At::Lastchg, self.since(&state.last_change));
        if !proxy.servers.is_empty() {
            row.set(At::Downtime, small(state.down_time(self.wall())));
        }
        row.growth(self.rate(&counters.growth, &counters.traffic.sessions));
        row.timings(&counters.timings);
        for at in [At::AggServerStatus, At::AggServerCheckStatus, At::AggCheckStatus] {
            row.set(at, 0_u32);
        }
        row.zeros(&[At::CompIn, At::CompOut, At::CompByp, At::CompRsp]);
        let http = proxy.mode == Mode::Http;
        if http {
            row.codes(&counters.codes);
            row.set(At::ReqTot, counters.requests.get());
            row.zeros(&[At::CacheLookups, At::CacheHits]);
        }
        if self.legends {
            if let Some(cookie) = &proxy.cookie {
                row.set(At::Cookie, String::from_utf8_lossy(&cookie.name).into_owned());
            }
            row.set(At::Algo, algorithm(&proxy.balance));
        }
        let bytes = (counters.traffic.bytes_out.get(), counters.traffic.bytes_in.get());
        row.modules(http, counters.connects.get(), counters.requests.get(), bytes);
        row
    }

    fn rate(&self, growth: &Growth, count: &Count) -> Rate {
        self.running.rate(growth, count, self.moment.monotonic)
    }

    /// Seconds since 1970.
    fn wall(&self) -> u64 {
        self.moment.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Seconds since a change.
    fn since(&self, change: &AtomicU64) -> u32 {
        small(self.wall().saturating_sub(change.load(Relaxed)))
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Columns that frontends and listeners share.
fn front_counts(row: &mut Row, counters: &FrontendCounters) {
    row.set(At::Stot, counters.traffic.sessions.get());
    row.set(At::Bin, counters.traffic.bytes_in.get());
    row.set(At::Bout, counters.traffic.bytes_out.get());
    row.set(At::Dreq, counters.denied_requests.get());
    row.set(At::Dresp, counters.denied_responses.get());
    row.set(At::Ereq, counters.request_errors.get());
    row.set(At::Dcon, counters.denied_connections.get());
    row.set(At::Eint, counters.internal_errors.get());
    // `tcp-request session` rules are what this column counts.
    row.zeros(&[At::Dses]);
}

fn back_counts(row: &mut Row, counters: &BackendCounters) {
    row.set(At::Stot, counters.traffic.sessions.get());
    row.set(At::Bin, counters.traffic.bytes_in.get());
    row.set(At::Bout, counters.traffic.bytes_out.get());
    row.set(At::Dreq, counters.denied_requests.get());
    row.set(At::Dresp, counters.denied_responses.get());
    row.set(At::Econ, counters.connect_errors.get());
    row.set(At::Eresp, counters.response_errors.get());
    row.set(At::Wretr, counters.retries.get());
    row.set(At::Wredis, counters.redispatches.get());
    row.set(At::CliAbrt, counters.client_aborts.get());
    row.set(At::SrvAbrt, counters.server_aborts.get());
    row.set(At::Lbtot, counters.balanced.get());
    row.set(At::Connect, counters.connects.get());
    row.set(At::Reuse, counters.reused.get());
    row.set(At::Eint, counters.internal_errors.get());
}

/// `fullconn`; absent: a tenth of the `maxconn` of all frontends that lead here, rounded up, at least 1 (4.2).
pub(super) fn fullconn(running: &Running, index: ProxyIndex) -> u32 {
    let proxies = &running.config.proxies;
    if let Some(fullconn) = proxies.get(index).and_then(|proxy| proxy.fullconn) {
        return fullconn;
    }
    let leads_here = |(at, proxy): &(usize, &Proxy)| {
        let chosen = proxy.use_backend.iter().any(|rule| match &rule.target {
            BackendName::Fixed(target) => *target == index,
            BackendName::Dynamic(_) => true,
        });
        proxy.front && (chosen || proxy.default_backend == Some(index) || *at == index)
    };
    let total: u64 = proxies
        .iter()
        .enumerate()
        .filter(leads_here)
        .map(|(_, proxy)| u64::from(proxy.maxconn.unwrap_or(running.maxconn)))
        .sum();
    u32::try_from(total.div_ceil(10).max(1)).unwrap_or(u32::MAX)
}

/// Name of a balance algorithm as in the configuration.
pub(super) fn algorithm(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "roundrobin",
        Balance::StaticRoundRobin => "static-rr",
        Balance::LeastConn => "leastconn",
        Balance::First => "first",
        Balance::Source => "source",
        Balance::Hash(_) => "hash",
        Balance::Random => "random",
    }
}

/// `addr` of a listener.
pub(super) fn bind_address(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(_) | BindAddress::Abstract(_) => "unix".to_owned(),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    }
}

/// `addr` of a server.
pub(super) fn server_address(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { at, .. } => at.to_string(),
        ServerAddress::Unix(_) | ServerAddress::Abstract(_) => "unix".to_owned(),
    }
}
