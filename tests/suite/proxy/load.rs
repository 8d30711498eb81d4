//! GET load over kept and fresh connections, with and without the cookie; every request is accounted for.

use super::message::{self, Kind};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request that was not answered with 200 and its own target.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) what: String,
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Milliseconds before each request.
    rest: u64,
    stop: AtomicBool,
    answered: AtomicU64,
    connections: AtomicU64,
    repeated: AtomicU64,
    by: Mutex<BTreeMap<String, u64>>,
    failures: Mutex<Vec<Failure>>,
    /// When each client's request began that has no answer yet.
    under_way: Mutex<BTreeMap<usize, Instant>>,
}

impl Load {
    /// `clients` of them, each one request at a time and `rest` milliseconds between.
    pub(crate) fn start(address: &str, port: u16, clients: usize, rest: u64) -> Load {
        let to = SocketAddr::new(address.parse::<Ipv4Addr>().expect("an address").into(), port);
        let shared = Arc::new(Shared { rest, ..Shared::default() });
        let threads = (0..clients)
            .map(|number| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    Client { number, to, shared, stream: None, cookie: None, asked: 0 }.run()
                })
            })
            .collect();
        Load { shared, threads }
    }

    /// Requests answered well.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// How often each server answered.
    pub(crate) fn by(&self, server: &str) -> u64 {
        self.shared.by.lock().expect("no panic").get(server).copied().unwrap_or(0)
    }

    /// Waits until `condition` holds.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Load) -> bool) {
        let until = Instant::now() + Duration::from_secs(40);
        while !condition(self) {
            assert!(Instant::now() < until, "not within 40 s: {what}; failures: {:#?}", self.failures());
            super::pause(5);
        }
    }

    /// Waits until so many more were answered.
    pub(crate) fn more(&self, count: u64) {
        let from = self.answered();
        self.wait(&format!("{count} more answers"), |load| load.answered() >= from + count);
    }

    /// Waits until this server has answered more.
    pub(crate) fn more_by(&self, server: &str) {
        let from = self.by(server);
        self.wait(&format!("answers of {server}"), |load| load.by(server) > from + 5);
    }

    /// Waits until every request that has begun by now is over.
    pub(crate) fn settle(&self) {
        let now = Instant::now();
        let older =
            |load: &Load| load.shared.under_way.lock().expect("no panic").values().any(|began| *began < now);
        self.wait("the end of older requests", |load| !older(load));
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.shared.failures.lock().expect("no panic").clone()
    }

    /// Kept connections that were closed when the next request was on its way, which was repeated: a client may
    /// always meet this (RFC 9112 9.3.1), and HAProxy makes it happen when it stops.
    pub(crate) fn repeated(&self) -> u64 {
        self.shared.repeated.load(Ordering::Relaxed)
    }

    /// Ends it: (answered, connections made, failures).
    pub(crate) fn stop(self) -> (u64, u64, Vec<Failure>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
        let failures = self.shared.failures.lock().expect("no panic").clone();
        (
            self.shared.answered.load(Ordering::Relaxed),
            self.shared.connections.load(Ordering::Relaxed),
            failures,
        )
    }
}

/// No byte of the response came.
const NOTHING: &str = "before any byte";

fn cut(bytes: &[u8], how: &str) -> String {
    match bytes {
        [] => format!("{how} {NOTHING}"),
        some => format!("{how} after: {}", String::from_utf8_lossy(some)),
    }
}

struct Client {
    number: usize,
    to: SocketAddr,
    shared: Arc<Shared>,
    stream: Option<TcpStream>,
    cookie: Option<String>,
    asked: u64,
}

impl Client {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.asked += 1;
            super::pause(self.shared.rest);
            self.shared.under_way.lock().expect("no panic").insert(self.number, began);
            let kept = self.stream.is_some();
            let mut outcome = self.ask();
            if kept && matches!(&outcome, Err(what) if what.contains(NOTHING)) {
                self.shared.repeated.fetch_add(1, Ordering::Relaxed);
                outcome = self.ask();
            }
            self.shared.under_way.lock().expect("no panic").remove(&self.number);
            match outcome {
                Ok(server) => {
                    self.shared.answered.fetch_add(1, Ordering::Relaxed);
                    *self.shared.by.lock().expect("no panic").entry(server).or_default() += 1;
                }
                Err(what) => {
                    self.stream = None;
                    let failure = Failure { began, ended: Instant::now(), what };
                    self.shared.failures.lock().expect("no panic").push(failure);
                    // Not a storm when nobody listens.
                    super::pause(20);
                }
            }
        }
    }

    /// One request; the server's name.
    fn ask(&mut self) -> Result<String, String> {
        let fresh = self.number % 2 == 1;
        let sticky = self.number % 4 >= 2;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.shared.connections.fetch_add(1, Ordering::Relaxed);
                let stream = TcpStream::connect(self.to).map_err(|error| format!("connect: {error}"))?;
                stream.set_read_timeout(Some(Duration::from_secs(15))).map_err(|error| error.to_string())?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                stream
            }
        };
        let target = format!("/{}/{}", self.number, self.asked);
        let cookie = self.cookie.as_ref().filter(|_| sticky).map(|cookie| format!("Cookie: {cookie}\r\n"));
        let close = if fresh { "Connection: close\r\n" } else { "" };
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: load\r\n{close}{}\r\n", cookie.unwrap_or_default());
        stream.write_all(request.as_bytes()).map_err(|error| format!("send, {NOTHING}: {error}"))?;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let length = loop {
            if let Some(length) = message::length(&bytes, Kind::Response { bodiless: false }) {
                break length;
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err(cut(&bytes, "closed")),
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) => return Err(cut(&bytes, &error.to_string())),
            }
        };
        let head = message::head_length(&bytes).unwrap_or_default();
        if bytes.get(9..12) != Some(b"200") {
            return Err(String::from_utf8_lossy(&bytes[..head]).lines().next().unwrap_or("").to_owned());
        }
        if bytes[head..length] != *target.as_bytes() || bytes.len() != length {
            return Err(format!("MIXED: asked {target}, got {}", String::from_utf8_lossy(&bytes[head..])));
        }
        let header = |name| message::header(&bytes[..head], name);
        if let Some(set) = header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        if !fresh && header("connection").is_none_or(|value| value != "close") {
            self.stream = Some(stream);
        }
        Ok(header("x-web").unwrap_or_default())
    }
}
