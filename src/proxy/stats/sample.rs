//! For tests: a configuration as text for the real haproxy and as a model for this one, and the real one running on it.

use super::{Moment, Process};
use crate::proxy::config::Config;
use crate::proxy::state::Running;
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
backend text
  stick-table type string len 20 size 1k
  stick on path
  server s 127.0.0.1:6
backend int
  stick-table type integer size 1k
backend bin
  stick-table type binary len 4 size 1k
backend checked
  server s 127.0.0.1:7 disabled check inter 1h
listen metrics
  bind unix@DIR/metrics.sock
  http-request use-service prometheus-exporter
backend empty
backend tcpb
  mode tcp
  balance leastconn
  server t1 127.0.0.1:5
";

/// [`TEXT`] as this product reads it, in a directory `dir`.
pub(in crate::proxy) fn config(dir: &str) -> Config {
    parse(&TEXT.replace("DIR", dir))
}

/// A configuration's text as this product reads it.
pub(in crate::proxy) fn parse(text: &str) -> Config {
    let environment = crate::proxy::config::Environment::new([]);
    let surroundings = crate::proxy::config::Surroundings::none();
    match crate::proxy::config::load_bytes("test.cfg", text.as_bytes(), environment, &surroundings) {
        Ok(config) => config,
        Err(problems) => panic!("{}", crate::proxy::config::alerts(&problems, 1)),
    }
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
        // The sections' sockets are not connected to: that would count. The last one to be bound is there.
        let there = |real: &Real| {
            real.dir.path().join("metrics.sock").exists()
                && UnixStream::connect(real.dir.path().join("user.sock")).is_ok()
        };
        while !there(&real) {
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

/// Connects as soon as somebody listens.
pub(in crate::proxy) fn connect(path: &std::path::Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        std::thread::yield_now();
    }
}

/// Sends bytes to a Unix socket, closes that direction, and reads to the end.
pub(in crate::proxy) fn ask(path: &std::path::Path, text: &str) -> String {
    let mut stream = connect(path);
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
