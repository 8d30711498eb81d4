//! What the file says, resolved: every name is an index, every condition and format compiled, every default inherited.
//! Plain data: nothing is opened, nothing runs. Section numbers are those of HAProxy's configuration manual.

use crate::proxy::expression::{Condition, Expression, LogFormat};
use crate::proxy::rules::{RequestRule, ResponseRule, TcpRule};
use crate::settings::Site;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Index into [`Config::proxies`].
pub type ProxyIndex = usize;
/// Index into [`Proxy::servers`] of its backend.
pub type ServerIndex = usize;

/// All files of one start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Section `global`.
    pub global: Global,
    /// Sections frontend, backend and listen, in order of the files.
    pub proxies: Vec<Proxy>,
    /// Sections userlist; rules hold them by `Arc`.
    pub userlists: Vec<Arc<Userlist>>,
    /// Words that were accepted though they mean nothing in this engine, for the start notice: (word, how often).
    pub without_meaning: BTreeMap<String, usize>,
    /// What HAProxy would warn of (`[WARNING]`), as lines for a person.
    pub warnings: Vec<String>,
}

/// Section `global` (3).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Global {
    pub logs: Vec<LogTarget>,
    pub log_tag: String,
    /// `log-send-hostname`: the name to send.
    pub log_hostname: Option<String>,
    pub chroot: Option<PathBuf>,
    pub user: Option<Identity>,
    pub group: Option<Identity>,
    pub daemon: bool,
    pub master_worker: bool,
    pub pidfile: Option<PathBuf>,
    /// Absent: derived from the descriptor limit.
    pub maxconn: Option<u32>,
    pub ulimit_n: Option<u64>,
    /// Absent: one a processor that this process may use.
    pub nbthread: Option<u16>,
    /// `stats socket`.
    pub stats_sockets: Vec<Bind>,
    pub stats_timeout: Duration,
    pub stats_maxconn: u32,
    pub hard_stop_after: Option<Duration>,
    pub node: Option<String>,
    /// `spread-checks`: percent by which the time between two checks of a server varies, 0 to 50.
    pub spread_checks: u32,
    /// `server-state-file`: states for `load-server-state-from-file global`.
    pub server_state_file: Option<PathBuf>,
    /// `server-state-base`: directory of relative names of state files.
    pub server_state_base: Option<PathBuf>,
    pub description: Option<String>,
    pub tune: Tune,
    /// Warnings are problems.
    pub zero_warning: bool,
}

/// A user or group as written: by name or by number.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Identity {
    Name(String),
    Id(u32),
}

/// `tune.*` that this engine honours (3.2).
#[derive(Clone, Debug)]
pub struct Tune {
    /// `tune.bufsize`: bytes of one buffer; a head must fit into it less `maxrewrite`.
    pub bufsize: usize,
    /// `tune.maxrewrite`: reserve for what rules add to a head.
    pub maxrewrite: usize,
    /// `tune.http.maxhdr`: header fields of one message.
    pub maxhdr: usize,
    /// `tune.http.cookielen`: longest captured cookie.
    pub cookielen: usize,
    /// `tune.http.logurilen`: longest URI in a log line.
    pub logurilen: usize,
}

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

/// `bind` (5.1), and global `stats socket`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Bind {
    pub site: Site,
    pub address: BindAddress,
    pub name: Option<String>,
    /// Number of the listener in stats (`id`).
    pub id: u32,
    pub maxconn: Option<u32>,
    pub backlog: Option<u32>,
    pub interface: Option<String>,
    pub tcp_user_timeout: Option<Duration>,
    pub defer_accept: bool,
    pub v6only: Option<bool>,
    /// Unix sockets: `mode`, `user`/`uid`, `group`/`gid`.
    pub unix_mode: Option<u32>,
    pub unix_user: Option<Identity>,
    pub unix_group: Option<Identity>,
    /// Run-time commands that a `stats socket` allows.
    pub level: Level,
    /// `expose-fd listeners`.
    pub expose_listeners: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum BindAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// Linux abstract name, without the leading NUL.
    Abstract(Vec<u8>),
    /// `fd@N`: an inherited listening descriptor.
    Descriptor(i32),
}

/// Rights of a run-time connection (9.3 of the management manual).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)]
pub enum Level {
    User,
    #[default]
    Operator,
    Admin,
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

/// `server` (5.2).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Server {
    pub site: Site,
    pub name: String,
    /// Number in stats, unique in its backend.
    pub id: u32,
    pub address: ServerAddress,
    /// 0 to 256.
    pub weight: u32,
    pub backup: bool,
    pub disabled: bool,
    pub maxconn: Option<u32>,
    pub minconn: Option<u32>,
    pub maxqueue: Option<u32>,
    pub cookie: Option<Vec<u8>>,
    /// Absent: not checked, always up.
    pub check: Option<ServerCheck>,
    pub slowstart: Option<Duration>,
    /// `on-marked-down shutdown-sessions`.
    pub shutdown_sessions_when_down: bool,
    /// `on-marked-up shutdown-backup-sessions`.
    pub shutdown_backup_sessions_when_up: bool,
    pub tcp_user_timeout: Option<Duration>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ServerAddress {
    /// `host` is kept as written when it was a name, resolved when the file was read.
    Tcp {
        host: Option<String>,
        at: SocketAddr,
        port: ServerPort,
    },
    Unix(PathBuf),
    Abstract(Vec<u8>),
}

/// Which port is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerPort {
    /// The port in the address.
    Fixed,
    /// No port, or `+N`/`-N`: the port the client connected to, plus this.
    Mapped(i32),
}

/// Check parameters of one server (5.2). The kind of check is the backend's.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct ServerCheck {
    pub inter: Duration,
    pub fastinter: Option<Duration>,
    pub downinter: Option<Duration>,
    pub rise: u32,
    pub fall: u32,
    pub port: Option<u16>,
    pub address: Option<std::net::IpAddr>,
}

/// What a check does (4.2 `option httpchk`, `http-check`, `option mysql-check`; 2 of them exclude each other).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub enum Check {
    #[default]
    Connect,
    Http(HttpCheck),
    Mysql {
        user: Option<Vec<u8>>,
        /// `post-41`; the default since 2.4.
        post_41: bool,
    },
}

#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct HttpCheck {
    pub method: Vec<u8>,
    pub uri: Vec<u8>,
    pub version: ehpc_proto::http::Version,
    /// (name, value)
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// `http-check expect`; absent: status 2xx or 3xx.
    pub expect: Option<HttpExpect>,
    pub disable_on_404: bool,
    pub send_state: bool,
}

#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct HttpExpect {
    pub negated: bool,
    pub what: Expected,
}

#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Expected {
    /// Inclusive ranges.
    Status(Vec<(u16, u16)>),
    StatusRegex(regex::bytes::Regex),
    Body(Vec<u8>),
    BodyRegex(regex::bytes::Regex),
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

/// `log` (4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct LogTarget {
    pub site: Site,
    pub address: LogAddress,
    /// `len`: longest line.
    pub length: usize,
    pub format: SyslogFormat,
    /// 0 to 23.
    pub facility: u8,
    /// Lines less urgent than this are not sent (0 = emerg ... 7 = debug).
    pub level: u8,
    /// Lines more urgent than this are sent as this.
    pub min_level: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum LogAddress {
    Unix(PathBuf),
    Udp(SocketAddr),
    Stdout,
    Stderr,
    /// `fd@N`
    Descriptor(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum SyslogFormat {
    #[default]
    Rfc3164,
    Rfc5424,
    Local,
    Short,
    Raw,
    Priority,
    Timed,
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

/// `stick-table` (4.2).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StickTable {
    pub site: Site,
    pub key: StickKey,
    pub size: usize,
    pub expire: Option<Duration>,
    pub nopurge: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum StickKey {
    Ip,
    Ipv6,
    Integer,
    String(usize),
    Binary(usize),
}

/// `stick on|match|store-request|store-response`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StickRule {
    pub matches: bool,
    pub stores: bool,
    /// `store-response`.
    pub of_response: bool,
    pub expression: Expression,
    /// Backend whose table it is.
    pub table: ProxyIndex,
    pub condition: Option<Condition>,
}

/// Section `userlist` (3.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Userlist {
    pub name: String,
    pub users: Vec<User>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    /// crypt(3) hash, or the password itself.
    pub password: Password,
    pub groups: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Password {
    Crypt(String),
    Plain(String),
}

impl Default for Global {
    fn default() -> Global {
        Global {
            logs: Vec::new(),
            log_tag: "haproxy".to_owned(),
            log_hostname: None,
            chroot: None,
            user: None,
            group: None,
            daemon: false,
            master_worker: false,
            pidfile: None,
            maxconn: None,
            ulimit_n: None,
            nbthread: None,
            stats_sockets: Vec::new(),
            stats_timeout: Duration::from_secs(10),
            stats_maxconn: 10,
            hard_stop_after: None,
            node: None,
            spread_checks: 0,
            server_state_file: None,
            server_state_base: None,
            description: None,
            tune: Tune::default(),
            zero_warning: false,
        }
    }
}

impl Default for Tune {
    fn default() -> Tune {
        Tune { bufsize: 16_384, maxrewrite: 1_024, maxhdr: 101, cookielen: 63, logurilen: 1_024 }
    }
}
