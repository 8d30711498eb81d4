//! Sections frontend, backend and listen (4).

use super::{Bind, Check, LogTarget, ProxyIndex, Server, StickRule, StickTable};
use crate::proxy::expression::Condition;
use crate::proxy::expression::Expression;
use crate::proxy::expression::LogFormat;
use crate::proxy::rules::RequestRule;
use crate::proxy::rules::ResponseRule;
use crate::proxy::rules::TcpRule;
use crate::settings::Site;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One frontend, backend or listen section (4), with the defaults it inherits.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Proxy {
    pub name: String,
    pub site: Site,
    /// It accepts connections (frontend, listen).
    pub front: bool,
    /// It has servers (backend, listen).
    pub back: bool,
    pub mode: Mode,
    pub disabled: bool,
    /// `id`: number in stats; unique.
    pub id: u32,
    pub description: Option<String>,

    // frontend
    pub binds: Vec<Bind>,
    /// Frontend's `maxconn`; absent: the process's.
    pub maxconn: Option<u32>,
    pub backlog: Option<u32>,
    pub default_backend: Option<ProxyIndex>,
    pub use_backend: Vec<UseBackend>,
    pub monitor_uri: Option<Vec<u8>>,
    pub monitor_fail: Vec<Condition>,
    pub captures: Captures,
    pub tcp_request: Vec<TcpRule>,

    // backend
    pub servers: Vec<Server>,
    pub balance: Balance,
    pub cookie: Option<CookiePolicy>,
    /// Connection attempts after the first.
    pub retries: u32,
    /// `option redispatch N`: see the manual; 0 = off, -1 (the default of the option) = last retry only.
    pub redispatch: i32,
    /// Requests at once at which dynamic limits are full.
    pub fullconn: Option<u32>,
    pub check: Check,
    pub stick_table: Option<StickTable>,
    /// `load-server-state-from-file`.
    pub load_state: LoadState,
    /// `server-state-file-name`; absent: the backend's name.
    pub state_file_name: Option<PathBuf>,
    pub stick_rules: Vec<StickRule>,
    pub reuse: Reuse,

    // both
    pub timeouts: Timeouts,
    pub connection: ConnectionMode,
    pub options: Options,
    pub forward_for: Option<ForwardFor>,
    /// `option originalto`: the same with the address that the client connected to.
    pub original_to: Option<ForwardFor>,
    pub request_rules: Vec<RequestRule>,
    pub response_rules: Vec<ResponseRule>,
    /// `http-after-response`: also for answers of this proxy itself.
    pub after_response_rules: Vec<ResponseRule>,
    pub stats: Option<StatsPage>,
    /// By status; the bytes are sent as they are.
    pub error_files: BTreeMap<u16, ErrorFile>,
    pub logs: Vec<LogTarget>,
    pub log_tag: Option<String>,
    /// What a log line says; the engine renders it once per request.
    pub log_format: Arc<LogFormat>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Mode {
    #[default]
    Tcp,
    Http,
}

/// Where the states of a backend's servers are read from at the start (4.2 `load-server-state-from-file`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum LoadState {
    #[default]
    None,
    /// `server-state-file`
    Global,
    /// A file of its own.
    Local,
}

/// How long connections live (4.2 `option httpclose`, `http-server-close`, `http-keep-alive`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConnectionMode {
    /// Both sides stay open.
    #[default]
    KeepAlive,
    /// The client's stays open, the server's is closed after each answer.
    ServerClose,
    /// Both are closed after one exchange.
    Close,
}

/// `http-reuse` (4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Reuse {
    Never,
    #[default]
    Safe,
    Aggressive,
    Always,
}

/// `timeout *` (4.2). Absent: none (HAProxy's 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub client: Option<Duration>,
    pub server: Option<Duration>,
    pub http_request: Option<Duration>,
    pub http_keep_alive: Option<Duration>,
    pub queue: Option<Duration>,
    pub tunnel: Option<Duration>,
    pub check: Option<Duration>,
    pub client_fin: Option<Duration>,
    pub server_fin: Option<Duration>,
    pub tarpit: Option<Duration>,
}

/// Switches `option ...` that are either on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub dontlognull: bool,
    pub dontlog_normal: bool,
    pub log_separate_errors: bool,
    pub logasap: bool,
    pub log_health_checks: bool,
    pub accept_invalid_request: bool,
    pub accept_invalid_response: bool,
    pub abortonclose: bool,
    pub allbackups: bool,
    pub persist: bool,
    pub http_ignore_probes: bool,
    pub nolinger: bool,
    pub tcpka_client: bool,
    pub tcpka_server: bool,
    pub socket_stats: bool,
}

/// `use_backend NAME if ...`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct UseBackend {
    pub target: BackendName,
    pub condition: Option<Condition>,
}

/// Whom `use_backend` names.
#[derive(Clone, Debug)]
pub enum BackendName {
    /// Known when the file was read.
    Fixed(ProxyIndex),
    /// Made for each request; an unknown name goes to the default backend.
    Dynamic(LogFormat),
}

/// What `capture` declares (4.2 `capture request header` ...).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Captures {
    /// (header in lower case, longest kept value), in order of declaration.
    pub request: Vec<(Vec<u8>, usize)>,
    pub response: Vec<(Vec<u8>, usize)>,
    /// `capture cookie NAME len N`: (name, whether it is a prefix, longest kept).
    pub cookie: Option<(Vec<u8>, bool, usize)>,
}

/// `balance` (4.2).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub enum Balance {
    #[default]
    RoundRobin,
    StaticRoundRobin,
    LeastConn,
    First,
    Source,
    /// `uri`, `hdr(...)`, `url_param` ...: hash of an expression.
    Hash(Expression),
    Random,
}

/// `cookie` in a backend (4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct CookiePolicy {
    pub name: Vec<u8>,
    pub kind: CookieKind,
    pub indirect: bool,
    pub nocache: bool,
    pub postonly: bool,
    pub preserve: bool,
    pub httponly: bool,
    pub secure: bool,
    pub domains: Vec<Vec<u8>>,
    pub maxidle: Option<Duration>,
    pub maxlife: Option<Duration>,
    pub attributes: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CookieKind {
    Insert,
    Rewrite,
    Prefix,
    /// Only read.
    Passive,
}

/// `option forwardfor` (4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct ForwardFor {
    /// In lower case: `x-forwarded-for`.
    pub header: Vec<u8>,
    /// (network, prefix length) whose clients get none.
    pub except: Option<(std::net::IpAddr, u8)>,
    pub if_none: bool,
}

/// `errorfile` (4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct ErrorFile {
    pub site: Site,
    pub path: PathBuf,
    /// Read before chroot; at most one buffer long.
    pub content: Arc<[u8]>,
}

/// `stats ...` in a section (4.2).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StatsPage {
    pub uri: Vec<u8>,
    pub realm: String,
    /// (user, password)
    pub users: Vec<(String, String)>,
    pub refresh: Option<Duration>,
    pub hide_version: bool,
    pub show_node: Option<String>,
    pub show_desc: Option<String>,
    pub show_legends: bool,
    /// `stats scope`; empty: all.
    pub scope: Vec<String>,
    /// `stats admin if ...`: any of them allows.
    pub admin: Vec<Condition>,
}
