//! The engine with real sockets on both sides: raw clients, recording servers.

mod bytes;
mod chaos;
mod exchanges;
mod pipelining;
mod sessions;

use super::{Engine, OpenListener, Start, run};
use crate::proxy::config::{self, Config, Environment};
use crate::proxy::listen::ListeningSocket;
use crate::proxy::log::Logs;
use crate::proxy::state::Running;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy in this process.
struct Proxy {
    /// Where each section listens, in order of the file.
    at: Vec<SocketAddr>,
    running: Arc<Running>,
    engine: Engine,
    log: UnixDatagram,
    /// Makes a service panic.
    fail: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl Proxy {
    /// With these sections; `SERVER` stands for the address of a server of the test. `bind 127.0.0.1:1` becomes a
    /// free port.
    fn start(threads: usize, sections: &str) -> Proxy {
        let directory = tempfile::tempdir().unwrap();
        let log_path = directory.path().join("log");
        let log = UnixDatagram::bind(&log_path).unwrap();
        log.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = format!("global\n    log {} local0\n{sections}", log_path.display());
        let config = load(&text);
        let (logs, warnings) = Logs::open(&config, 1, threads).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let running = Running::new(config.clone(), config.global.maxconn.unwrap_or(1000));
        let (mut at, mut listeners) = (Vec::new(), Vec::new());
        for (proxy, section) in config.proxies.iter().enumerate() {
            for bind in 0..section.binds.len() {
                let socket = TcpListener::bind("127.0.0.1:0").unwrap();
                at.push(socket.local_addr().unwrap());
                let socket = ListeningSocket::Tcp(socket);
                listeners.push(OpenListener { proxy, bind, socket, thread: None });
            }
        }
        let loggers = (0..threads).map(|_| logs.logger().unwrap()).collect();
        let (told, engine) = mpsc::channel();
        let (fail, failing) = tokio::sync::oneshot::channel();
        let service: super::Service = Box::new(move |engine| {
            told.send(engine).unwrap();
            Box::pin(async move {
                // Keeps the logs open as long as the engine runs.
                let _logs = logs;
                assert!(failing.await.is_err(), "a fault, on purpose");
                std::future::pending().await
            })
        });
        let start = Start { running: running.clone(), listeners, loggers, services: vec![service] };
        let thread = std::thread::spawn(move || run(start));
        let engine = engine.recv_timeout(PATIENCE).unwrap();
        Proxy { at, running, engine, log, fail: Some(fail), thread: Some(thread), _directory: directory }
    }

    fn connect(&self) -> TcpStream {
        connect(self.at[0])
    }

    /// The next log line, from its date on.
    fn line(&self) -> String {
        let mut bytes = [0; 8192];
        let length = self.log.recv(&mut bytes).expect("a log line in time");
        let line = String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned();
        line.split_once("]: ").map_or(line.clone(), |(_, rest)| rest.to_owned())
    }

    /// Four characters of how it ended, and the status before it.
    fn ending(&self) -> (String, String) {
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        (words[5].to_owned(), words[9].to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.engine.leave();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

fn load(text: &str) -> Arc<Config> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    match config::load(&[file], Environment::new([])) {
        Ok(config) => Arc::new(config),
        Err(problems) => panic!("{problems:?}\n{text}"),
    }
}

/// `defaults` for HTTP, then a section with one server.
fn http(options: &str, server: SocketAddr, server_words: &str) -> String {
    format!(
        "defaults\n mode http\n log global\n option httplog\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen web\n bind 127.0.0.1:1\n{options}\n server one {server} {server_words}\n"
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A server that handles each connection with `serve` in a thread of its own.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

/// Reads until `wanted` holds of what came so far, or the end: everything that came.
fn read_until(stream: &mut TcpStream, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while !wanted(&all) {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => all.extend_from_slice(&piece[..count]),
        }
    }
    all
}

fn ends_with(end: &str) -> impl Fn(&[u8]) -> bool {
    move |bytes| bytes.ends_with(end.as_bytes())
}

/// Waits until `holds`.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not in time");
        std::thread::yield_now();
    }
}

fn ask(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).unwrap();
}
