//! For tests: a configuration as text for the real haproxy and as a model for this one, and the real one running on it.

use super::{Moment, Process};
use crate::proxy::config::Config;
use crate::proxy::config::model::*;
use crate::proxy::expression::LogFormat;
use crate::proxy::state::Running;
use crate::settings::Site;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What both run on; no port is opened.
pub(in crate::proxy) const TEXT: &str = "\
global
  stats socket DIR/admin.sock level admin
  stats socket DIR/user.sock level user
  maxconn 2000
  nbthread 1
  node testnode
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
  option socket-stats
frontend fe
  bind unix@DIR/fe.sock name lis
  bind unix@DIR/fe2.sock
  default_backend be
backend be
  cookie SESSION_ID insert indirect nocache
  server a 127.0.0.1:1 cookie A maxconn 100 maxqueue 7
  server b 127.0.0.1:2 cookie B weight 20 backup
  server c 127.0.0.1:3 disabled weight 0
  server d DIR/x.sock
listen st
  bind unix@DIR/st.sock
  server x 127.0.0.1:4
backend empty
backend tcpb
  mode tcp
  balance leastconn
  server t1 127.0.0.1:5
";

fn proxy(id: u32, name: &str, front: bool, back: bool) -> Proxy {
    Proxy {
        name: name.to_owned(),
        site: Site::Default("test"),
        front,
        back,
        mode: Mode::Http,
        disabled: false,
        id,
        description: None,
        binds: Vec::new(),
        maxconn: None,
        backlog: None,
        default_backend: None,
        use_backend: Vec::new(),
        monitor_uri: None,
        monitor_fail: Vec::new(),
        captures: Captures::default(),
        tcp_request: Vec::new(),
        servers: Vec::new(),
        balance: Balance::RoundRobin,
        cookie: None,
        retries: 3,
        redispatch: 0,
        fullconn: None,
        check: Check::Connect,
        stick_table: None,
        stick_rules: Vec::new(),
        reuse: Reuse::Safe,
        timeouts: Timeouts::default(),
        connection: ConnectionMode::KeepAlive,
        options: Options { socket_stats: true, ..Options::default() },
        forward_for: None,
        request_rules: Vec::new(),
        response_rules: Vec::new(),
        stats: None,
        error_files: BTreeMap::new(),
        logs: Vec::new(),
        log_tag: None,
        log_format: Arc::new(LogFormat::default()),
        error_log_format: None,
    }
}

fn bind(id: u32, name: Option<&str>, path: &str, level: Level) -> Bind {
    Bind {
        site: Site::Default("test"),
        address: BindAddress::Unix(path.into()),
        name: name.map(str::to_owned),
        id,
        maxconn: None,
        backlog: None,
        interface: None,
        tcp_user_timeout: None,
        defer_accept: false,
        v6only: None,
        unix_mode: None,
        unix_user: None,
        unix_group: None,
        level,
        expose_listeners: false,
    }
}

fn server(id: u32, name: &str, change: impl FnOnce(&mut Server)) -> Server {
    let mut server = crate::proxy::state::tests::server(name, change);
    server.id = id;
    if let ServerAddress::Tcp { at, .. } = &mut server.address {
        at.set_port(at.port().max(u16::try_from(id).unwrap()));
    }
    server
}

/// [`TEXT`] as a model, in a directory `dir`; ids as the real haproxy numbers them.
pub(in crate::proxy) fn config(dir: &str) -> Config {
    let mut config = Config::default();
    config.global.node = Some("testnode".to_owned());
    config.global.stats_sockets = vec![
        bind(1, None, &format!("{dir}/admin.sock"), Level::Admin),
        bind(2, None, &format!("{dir}/user.sock"), Level::User),
    ];
    let mut fe = proxy(2, "fe", true, false);
    fe.binds = vec![
        bind(1, Some("lis"), &format!("{dir}/fe.sock"), Level::Operator),
        bind(2, None, &format!("{dir}/fe2.sock"), Level::Operator),
    ];
    fe.default_backend = Some(1);
    let mut be = proxy(3, "be", false, true);
    be.cookie = Some(CookiePolicy {
        name: b"SESSION_ID".to_vec(),
        kind: CookieKind::Insert,
        indirect: true,
        nocache: true,
        postonly: false,
        preserve: false,
        httponly: false,
        secure: false,
        domains: Vec::new(),
        maxidle: None,
        maxlife: None,
        attributes: Vec::new(),
    });
    let cookie = |text: &str| Some(text.as_bytes().to_vec());
    be.servers = vec![
        server(1, "a", |s| (s.cookie, s.maxconn, s.maxqueue) = (cookie("A"), Some(100), Some(7))),
        server(2, "b", |s| (s.cookie, s.weight, s.backup) = (cookie("B"), 20, true)),
        server(3, "c", |s| (s.disabled, s.weight) = (true, 0)),
        server(4, "d", |s| s.address = ServerAddress::Unix(format!("{dir}/x.sock").into())),
    ];
    let mut st = proxy(4, "st", true, true);
    st.binds = vec![bind(1, None, &format!("{dir}/st.sock"), Level::Operator)];
    st.servers = vec![server(1, "x", |s| {
        let at = "127.0.0.1:4".parse().unwrap();
        s.address = ServerAddress::Tcp { host: None, at, port: ServerPort::Fixed };
    })];
    let empty = proxy(5, "empty", false, true);
    let mut tcp = proxy(6, "tcpb", false, true);
    (tcp.mode, tcp.balance) = (Mode::Tcp, Balance::LeastConn);
    tcp.servers = vec![server(1, "t1", |s| {
        let at = "127.0.0.1:5".parse().unwrap();
        s.address = ServerAddress::Tcp { host: None, at, port: ServerPort::Fixed };
    })];
    config.proxies = vec![fe, be, st, empty, tcp];
    config
}

/// This one, running on [`config`].
pub(in crate::proxy) fn running(dir: &str) -> Arc<Running> {
    Running::new(Arc::new(config(dir)), 2000)
}

pub(in crate::proxy) fn process() -> Process {
    Process { id: 1, threads: 1, descriptors: 4096, node: "testnode".to_owned(), dropped_logs: 0 }
}

pub(in crate::proxy) fn moment() -> Moment {
    Moment { monotonic: Instant::now(), wall: SystemTime::now() }
}

/// The real haproxy on [`TEXT`] in a directory of its own.
pub(in crate::proxy) struct Real {
    child: Child,
    pub(in crate::proxy) dir: tempfile::TempDir,
}

impl Real {
    pub(in crate::proxy) fn start() -> Real {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, TEXT.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let child = Command::new("haproxy")
            .args(["-q", "-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("haproxy is installed (tools/test installs it)");
        let real = Real { child, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(real.dir.path().join("user.sock")).is_err() {
            assert!(Instant::now() < deadline, "haproxy does not answer on its socket");
            std::thread::yield_now();
        }
        real
    }

    pub(in crate::proxy) fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Sends a line to a socket of it and returns the whole answer.
    pub(in crate::proxy) fn ask(&self, socket: &str, line: &str) -> String {
        ask(&self.dir.path().join(socket), &format!("{line}\n"))
    }
}

/// Sends bytes to a Unix socket, closes that direction, and reads to the end.
pub(in crate::proxy) fn ask(path: &std::path::Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
