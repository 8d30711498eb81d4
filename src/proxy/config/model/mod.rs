//! What the file says, resolved: every name is an index, every condition and format compiled, every default inherited.
//! Plain data: nothing is opened, nothing runs. Section numbers are those of HAProxy's configuration manual.

mod bind;
mod log;
mod proxy;
mod server;
mod stick;
mod users;

pub use bind::{Bind, BindAddress, Level};
pub use log::{LogAddress, LogTarget, SyslogFormat};
pub use proxy::{
    BackendName, Balance, Captures, ConnectionMode, CookieKind, CookiePolicy, ErrorFile, ForwardFor,
    LoadState, Mode, Options, Proxy, Reuse, StatsPage, Timeouts, UseBackend,
};
pub use server::{Check, Expected, HttpCheck, HttpExpect, Server, ServerAddress, ServerCheck, ServerPort};
pub use stick::{StickKey, StickRule, StickTable};
pub use users::{Password, User, Userlist};

use std::collections::BTreeMap;
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
    /// `tune.http.logurilen`: longest request line in a log line, in bytes (as HAProxy counts: one less by default).
    pub logurilen: usize,
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
        Tune { bufsize: 16_384, maxrewrite: 1_024, maxhdr: 101, cookielen: 63, logurilen: 1_023 }
    }
}
