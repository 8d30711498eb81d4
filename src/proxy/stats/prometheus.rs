//! Prometheus' text format: HAProxy's exporter's metric names and labels (`http-request use-service
//! prometheus-exporter`), made from the same rows and fields as everything else. What has no value is left out.

use super::columns::{At, COLUMNS};
use super::rows::{Kind, Row, Selection, View, rows};
use super::value::Value;
use super::{Moment, Process, info};
use crate::proxy::state::Running;
use std::fmt::Write as _;

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// How a column becomes a metric.
struct Metric {
    at: At,
    /// Behind `haproxy_frontend_`, `haproxy_server_` ...
    name: &'static str,
    kind: &'static str,
    /// The column holds milliseconds, the metric seconds.
    milliseconds: bool,
}

macro_rules! metrics {
    ($($at:ident $name:literal $kind:ident $($ms:ident)?;)*) => {
        const METRICS: &[Metric] = &[$(Metric {
            at: At::$at, name: $name, kind: $kind, milliseconds: metrics!(@ $($ms)?),
        }),*];
    };
    (@ ms) => { true };
    (@) => { false };
}

metrics! {
    Qcur "current_queue" GAUGE;
    Qmax "max_queue" GAUGE;
    Scur "current_sessions" GAUGE;
    Smax "max_sessions" GAUGE;
    Slim "limit_sessions" GAUGE;
    Stot "sessions_total" COUNTER;
    Bin "bytes_in_total" COUNTER;
    Bout "bytes_out_total" COUNTER;
    Dreq "requests_denied_total" COUNTER;
    Dresp "responses_denied_total" COUNTER;
    Ereq "request_errors_total" COUNTER;
    Econ "connection_errors_total" COUNTER;
    Eresp "response_errors_total" COUNTER;
    Wretr "retry_warnings_total" COUNTER;
    Wredis "redispatch_warnings_total" COUNTER;
    Status "status" GAUGE;
    Weight "weight" GAUGE;
    Act "active_servers" GAUGE;
    Bck "backup_servers" GAUGE;
    Chkfail "check_failures_total" COUNTER;
    Chkdown "check_up_down_total" COUNTER;
    Lastchg "check_last_change_seconds" GAUGE;
    Downtime "downtime_seconds_total" COUNTER;
    Qlimit "queue_limit" GAUGE;
    Throttle "current_throttle" GAUGE;
    Lbtot "loadbalanced_total" COUNTER;
    RateLim "limit_session_rate" GAUGE;
    RateMax "max_session_rate" GAUGE;
    CheckStatus "check_status" GAUGE;
    CheckCode "check_code" GAUGE;
    CheckDuration "check_duration_seconds" GAUGE ms;
    Hrsp1xx "http_responses_total" COUNTER;
    ReqRateMax "http_requests_rate_max" GAUGE;
    ReqTot "http_requests_total" COUNTER;
    CliAbrt "client_aborts_total" COUNTER;
    SrvAbrt "server_aborts_total" COUNTER;
    CompIn "http_comp_bytes_in_total" COUNTER;
    CompOut "http_comp_bytes_out_total" COUNTER;
    CompByp "http_comp_bytes_bypassed_total" COUNTER;
    CompRsp "http_comp_responses_total" COUNTER;
    Lastsess "last_session_seconds" GAUGE;
    Qtime "queue_time_average_seconds" GAUGE ms;
    Ctime "connect_time_average_seconds" GAUGE ms;
    Rtime "response_time_average_seconds" GAUGE ms;
    Ttime "total_time_average_seconds" GAUGE ms;
    ConnRateMax "connections_rate_max" GAUGE;
    ConnTot "connections_total" COUNTER;
    Intercepted "intercepted_requests_total" COUNTER;
    Dcon "denied_connections_total" COUNTER;
    Dses "denied_sessions_total" COUNTER;
    Wrew "failed_header_rewriting_total" COUNTER;
    Connect "connection_attempts_total" COUNTER;
    Reuse "connection_reuses_total" COUNTER;
    CacheLookups "http_cache_lookups_total" COUNTER;
    CacheHits "http_cache_hits_total" COUNTER;
    SrvIcur "idle_connections_current" GAUGE;
    SrcIlim "idle_connections_limit" GAUGE;
    QtimeMax "max_queue_time_seconds" GAUGE ms;
    CtimeMax "max_connect_time_seconds" GAUGE ms;
    RtimeMax "max_response_time_seconds" GAUGE ms;
    TtimeMax "max_total_time_seconds" GAUGE ms;
    Eint "internal_errors_total" COUNTER;
    IdleConnCur "unsafe_idle_connections_current" GAUGE;
    SafeConnCur "safe_idle_connections_current" GAUGE;
    UsedConnCur "used_connections_current" GAUGE;
    NeedConnEst "need_connections_current" GAUGE;
    Uweight "uweight" GAUGE;
    AggServerStatus "agg_server_status" GAUGE;
    AggServerCheckStatus "agg_server_check_status" GAUGE;
    AggCheckStatus "agg_check_status" GAUGE;
}

/// Fields of `show info` as metrics: field, name behind `haproxy_process_`, kind.
const PROCESS: &[(&str, &str, &str)] = &[
    ("Nbthread", "nbthread", GAUGE),
    ("Nbproc", "nbproc", GAUGE),
    ("Process_num", "relative_process_id", GAUGE),
    ("Uptime_sec", "uptime_seconds", GAUGE),
    ("PoolFailed", "pool_failures_total", COUNTER),
    ("Ulimit-n", "max_fds", GAUGE),
    ("Maxsock", "max_sockets", GAUGE),
    ("Maxconn", "max_connections", GAUGE),
    ("Hard_maxconn", "hard_max_connections", GAUGE),
    ("CurrConns", "current_connections", GAUGE),
    ("CumConns", "connections_total", COUNTER),
    ("CumReq", "requests_total", COUNTER),
    ("MaxSslConns", "max_ssl_connections", GAUGE),
    ("CurrSslConns", "current_ssl_connections", GAUGE),
    ("CumSslConns", "ssl_connections_total", COUNTER),
    ("Maxpipes", "max_pipes", GAUGE),
    ("PipesUsed", "pipes_used_total", COUNTER),
    ("PipesFree", "pipes_free_total", COUNTER),
    ("ConnRate", "current_connection_rate", GAUGE),
    ("ConnRateLimit", "limit_connection_rate", GAUGE),
    ("MaxConnRate", "max_connection_rate", GAUGE),
    ("SessRate", "current_session_rate", GAUGE),
    ("SessRateLimit", "limit_session_rate", GAUGE),
    ("MaxSessRate", "max_session_rate", GAUGE),
    ("SslRate", "current_ssl_rate", GAUGE),
    ("SslRateLimit", "limit_ssl_rate", GAUGE),
    ("MaxSslRate", "max_ssl_rate", GAUGE),
    ("SslFrontendKeyRate", "current_frontend_ssl_key_rate", GAUGE),
    ("SslFrontendMaxKeyRate", "max_frontend_ssl_key_rate", GAUGE),
    ("SslFrontendSessionReuse_pct", "frontend_ssl_reuse", GAUGE),
    ("SslBackendKeyRate", "current_backend_ssl_key_rate", GAUGE),
    ("SslBackendMaxKeyRate", "max_backend_ssl_key_rate", GAUGE),
    ("SslCacheLookups", "ssl_cache_lookups_total", COUNTER),
    ("SslCacheMisses", "ssl_cache_misses_total", COUNTER),
    ("CompressBpsIn", "http_comp_bytes_in_total", COUNTER),
    ("CompressBpsOut", "http_comp_bytes_out_total", COUNTER),
    ("CompressBpsRateLim", "limit_http_comp", GAUGE),
    ("Tasks", "current_tasks", GAUGE),
    ("Run_queue", "current_run_queue", GAUGE),
    ("Idle_pct", "idle_time_percent", GAUGE),
    ("Stopping", "stopping", GAUGE),
    ("Jobs", "jobs", GAUGE),
    ("Unstoppable Jobs", "unstoppable_jobs", GAUGE),
    ("Listeners", "listeners", GAUGE),
    ("ActivePeers", "active_peers", GAUGE),
    ("ConnectedPeers", "connected_peers", GAUGE),
    ("DroppedLogs", "dropped_logs_total", COUNTER),
    ("BusyPolling", "busy_polling_enabled", GAUGE),
    ("FailedResolutions", "failed_resolutions", COUNTER),
    ("TotalBytesOut", "bytes_out_total", COUNTER),
    ("TotalSplicdedBytesOut", "spliced_bytes_out_total", COUNTER),
    ("BytesOutRate", "bytes_out_rate", GAUGE),
    ("CumRecvLogs", "recv_logs_total", COUNTER),
    ("Build info", "build_info", GAUGE),
    ("Memmax_bytes", "max_memory_bytes", GAUGE),
    ("PoolAlloc_bytes", "pool_allocated_bytes", GAUGE),
    ("PoolUsed_bytes", "pool_used_bytes", GAUGE),
    ("Start_time_sec", "start_time_seconds", GAUGE),
];

/// States of `check_status`.
const CHECKS: &[&str] = &[
    "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "L7OK",
    "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
];

/// States of a server.
const SERVER_STATES: &[&str] = &["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];

/// All metrics.
pub fn render(running: &Running, process: &Process, moment: Moment) -> String {
    let mut out = String::with_capacity(128 * 1024);
    let facts = info::Facts { running, process, moment };
    for (field, name, kind) in PROCESS {
        let Some(known) = info::FIELDS.iter().find(|known| known.name == *field) else { continue };
        heading(&mut out, "process", name, kind, known.help);
        let _ = match info::value(&facts, field) {
            Value::Text(text) => writeln!(out, "haproxy_process_{name}{{version=\"{}\"}} 1", quoted(&text)),
            number => writeln!(out, "haproxy_process_{name} {number}"),
        };
    }
    let view = View { running, moment, legends: false };
    let rows = rows(&view, &Selection::default());
    for (kind, word) in [
        (Kind::Frontend, "frontend"),
        (Kind::Listener, "listener"),
        (Kind::Backend, "backend"),
        (Kind::Server, "server"),
    ] {
        for metric in METRICS {
            family(&mut out, &rows, kind, word, metric);
        }
    }
    out
}

fn heading(out: &mut String, word: &str, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP haproxy_{word}_{name} {help}\n# TYPE haproxy_{word}_{name} {kind}\n");
}

/// One metric of all rows of a kind; nothing at all when none has it.
fn family(out: &mut String, rows: &[Row], kind: Kind, word: &str, metric: &Metric) {
    // HAProxy exports these of backends only, and requests not of servers.
    let elsewhere = match metric.at {
        At::Act | At::Bck => kind != Kind::Backend,
        At::ReqTot => kind == Kind::Server,
        _ => false,
    };
    let concerned = || rows.iter().filter(|row| row.kind == kind && !row.get(metric.at).is_empty());
    if elsewhere || concerned().next().is_none() {
        return;
    }
    let column = &COLUMNS[metric.at as usize];
    heading(out, word, metric.name, metric.kind, column.help);
    for row in concerned() {
        let labels = labels(row);
        let mut line = |more: &str, value: &str| {
            let _ = writeln!(out, "haproxy_{word}_{}{{{labels}{more}}} {value}", metric.name);
        };
        let mut states = |all: &[&str], count: &dyn Fn(&str) -> u32| {
            for state in all {
                line(&format!(",state=\"{state}\""), &count(state).to_string());
            }
        };
        let value = row.get(metric.at);
        let word_of = |row: &Row, at: At| row.get(at).text().split(' ').next().unwrap_or("").to_owned();
        let of_section =
            || rows.iter().filter(|other| other.kind == Kind::Server && other.proxy == row.proxy);
        match metric.at {
            At::Status => states(known_states(kind), &|state| u32::from(state_of(row) == state)),
            At::CheckStatus => {
                let found = word_of(row, At::CheckStatus);
                states(CHECKS, &|state| u32::from(found.trim_start_matches('*') == state));
            }
            At::AggServerStatus | At::AggServerCheckStatus => {
                states(SERVER_STATES, &|state| count(of_section().filter(|server| state_of(server) == state)))
            }
            At::AggCheckStatus => states(CHECKS, &|state| {
                count(of_section().filter(|server| word_of(server, At::CheckStatus) == state))
            }),
            At::Hrsp1xx => {
                let codes = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
                for (place, code) in codes.iter().enumerate() {
                    let value = row.values.get(At::Hrsp1xx as usize + place).unwrap_or(&Value::Empty);
                    line(&format!(",code=\"{code}\""), &value.to_string());
                }
            }
            _ if metric.milliseconds => {
                let ms = value.number().unwrap_or(0);
                line("", &format!("{}.{:03}000", ms / 1000, ms % 1000));
            }
            _ => line("", &value.to_string()),
        }
    }
}

fn count<'r>(rows: impl Iterator<Item = &'r Row>) -> u32 {
    u32::try_from(rows.count()).unwrap_or(u32::MAX)
}

fn known_states(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Frontend | Kind::Backend => &["DOWN", "UP"],
        Kind::Listener => &["WAITING", "OPEN", "FULL"],
        Kind::Server => SERVER_STATES,
    }
}

/// The state that a status means.
fn state_of(row: &Row) -> &str {
    let word = row.get(At::Status).text().split(' ').next().unwrap_or("");
    match (row.kind, word) {
        (Kind::Frontend, "OPEN") | (Kind::Server, "no") => "UP",
        (Kind::Frontend, _) => "DOWN",
        (_, word) => word,
    }
}

fn labels(row: &Row) -> String {
    let mut labels = format!("proxy=\"{}\"", quoted(row.get(At::Pxname).text()));
    let name = quoted(row.get(At::Svname).text());
    match row.kind {
        Kind::Server => labels.push_str(&format!(",server=\"{name}\"")),
        Kind::Listener => labels.push_str(&format!(",listener=\"{name}\"")),
        Kind::Frontend | Kind::Backend => {}
    }
    labels
}

/// A label's value: `\`, `"` and line ends are escaped.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
