//! Servers and their checks (5.2).

use crate::settings::Site;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
