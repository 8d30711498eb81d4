//! Load generator, web servers and log reader in one thread and one epoll loop, so that they cost little next to the
//! proxy between them: a switch between threads on the same processor would be dearer than what either does.

use crate::bench::histogram::Histogram;
use anyhow::{Context, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::net::SocketFlags;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

/// A proxy that answers nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections from one address: ports are limited.
const FROM_ONE_ADDRESS: usize = 5_000;
/// Marks of what an event belongs to, above the index.
const CLIENT: u64 = 1 << 32;
const SERVER: u64 = 2 << 32;
const LISTENER: u64 = 3 << 32;
const LOG: u64 = 4 << 32;

/// How requests arrive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrival {
    /// Each connection asks again when it was answered.
    Closed,
    /// So many a second, whatever the answers do; latency counts from the time that was meant.
    Open(f64),
}

/// What is asked of a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The proxy.
    pub(super) address: SocketAddr,
    /// Client connections.
    pub(super) connections: usize,
    /// Bytes of the response's body.
    pub(super) body: usize,
    /// How requests arrive.
    pub(super) arrival: Arrival,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Requests answered.
    pub(super) requests: u64,
    /// Time of the measurement.
    pub(super) elapsed: Duration,
    /// From request to the end of its response.
    pub(super) latency: Histogram,
}

/// The loop with its servers and its log; clients come and go with a plan.
pub(super) struct World {
    poll: rustix::fd::OwnedFd,
    listeners: Vec<TcpListener>,
    log: UnixDatagram,
    servers: Vec<Option<Server>>,
    free: Vec<usize>,
    clients: Vec<Client>,
    idle: VecDeque<usize>,
    waiting: VecDeque<Instant>,
    buffer: Vec<u8>,
    response: Vec<u8>,
    request: Vec<u8>,
    outcome: Outcome,
    asking: bool,
    arrival: Arrival,
    /// Log lines received.
    pub(super) lines: u64,
}

struct Server {
    stream: TcpStream,
    /// Bytes of the response not yet sent.
    left: usize,
    /// The end of what was read, to find the end of a head that is cut.
    tail: [u8; 4],
    waits_for_room: bool,
}

struct Client {
    stream: TcpStream,
    head: Vec<u8>,
    /// Of the body; `None`: the head is not complete.
    missing: Option<usize>,
    began: Instant,
    busy: bool,
}

impl World {
    /// Listens on two ports of loopback, and on a datagram socket at `log`.
    pub(super) fn new(log: &Path) -> Result<World> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for number in 0..2u64 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into())?;
            socket.listen(4096)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            let data = epoll::EventData::new_u64(LISTENER | number);
            epoll::add(&poll, &listener, data, epoll::EventFlags::IN)?;
            listeners.push(listener);
        }
        let log = UnixDatagram::bind(log)?;
        log.set_nonblocking(true)?;
        epoll::add(&poll, &log, epoll::EventData::new_u64(LOG), epoll::EventFlags::IN)?;
        Ok(World {
            poll,
            listeners,
            log,
            servers: Vec::new(),
            free: Vec::new(),
            clients: Vec::new(),
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            buffer: vec![0; 256 * 1024],
            response: Vec::new(),
            request: Vec::new(),
            outcome: Outcome::default(),
            asking: false,
            arrival: Arrival::Closed,
            lines: 0,
        })
    }

    /// Addresses of the two web servers.
    pub(super) fn servers(&self) -> Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listener| Ok(listener.local_addr()?)).collect()
    }

    /// Opens the plan's connections.
    pub(super) fn open(&mut self, plan: &Plan) -> Result<()> {
        self.close();
        self.arrival = plan.arrival;
        self.request = format!(
            "GET /files/{} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: ehpc-tools\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\r\n",
            plan.body
        )
        .into_bytes();
        self.response = format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            plan.body
        )
        .into_bytes();
        self.response.resize(self.response.len() + plan.body, b'x');
        for number in 0..plan.connections {
            let last = 10 + (number / FROM_ONE_ADDRESS) as u8;
            let stream = connect(plan.address, Ipv4Addr::new(127, 0, 0, last).into())?;
            let data = epoll::EventData::new_u64(CLIENT | number as u64);
            epoll::add(&self.poll, &stream, data, epoll::EventFlags::IN)?;
            let began = Instant::now();
            self.clients.push(Client { stream, head: Vec::new(), missing: None, began, busy: false });
            self.idle.push_back(number);
            if number % 64 == 63 {
                self.turn(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Closes all client connections.
    pub(super) fn close(&mut self) {
        self.clients.clear();
        self.idle.clear();
        self.waiting.clear();
    }

    /// Each connection asks once and is answered, `at_once` at a time.
    pub(super) fn ask_once(&mut self, at_once: usize) -> Result<()> {
        self.asking = false;
        for first in (0..self.clients.len()).step_by(at_once) {
            let some = first..self.clients.len().min(first + at_once);
            for number in some.clone() {
                self.ask(number, Instant::now())?;
            }
            self.wait_for(some)?;
        }
        self.idle.clear();
        Ok(())
    }

    /// Serves until these connections are answered.
    fn wait_for(&mut self, some: std::ops::Range<usize>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.clients[some.clone()].iter().any(|client| client.busy) {
            self.turn(Some(Duration::from_millis(10)))?;
            if Instant::now() > until {
                bail!("what was asked is not answered within {PATIENCE:?}");
            }
        }
        Ok(())
    }

    /// Serves and asks for this time; what was answered in it.
    pub(super) fn run(&mut self, time: Duration) -> Result<Outcome> {
        self.outcome = Outcome::default();
        self.asking = true;
        let start = Instant::now();
        let mut next = start;
        let mut progress = (start, 0);
        loop {
            let now = Instant::now();
            if now - start >= time {
                break;
            }
            if let Arrival::Open(rate) = self.arrival {
                while next <= now {
                    self.waiting.push_back(next);
                    next += Duration::from_secs_f64(1.0 / rate);
                }
            }
            self.assign()?;
            let wait = match self.arrival {
                Arrival::Closed => Duration::from_millis(100),
                Arrival::Open(_) => next.saturating_duration_since(Instant::now()),
            };
            self.turn(Some(wait))?;
            if self.outcome.requests != progress.1 {
                progress = (now, self.outcome.requests);
            } else if now - progress.0 > PATIENCE {
                bail!("the proxy has not answered for {PATIENCE:?}");
            }
        }
        self.outcome.elapsed = start.elapsed();
        Ok(self.outcome.clone())
    }

    /// Asks no more and waits until all is answered.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.asking = false;
        self.waiting.clear();
        self.wait_for(0..self.clients.len())
    }

    /// Lets idle connections ask.
    fn assign(&mut self) -> Result<()> {
        loop {
            let due = match self.arrival {
                Arrival::Closed => Some(Instant::now()),
                Arrival::Open(_) => self.waiting.front().copied(),
            };
            let (Some(due), false) = (due, self.idle.is_empty()) else { return Ok(()) };
            self.waiting.pop_front();
            if let Some(number) = self.idle.pop_front() {
                self.ask(number, due)?;
            }
        }
    }

    fn ask(&mut self, number: usize, due: Instant) -> Result<()> {
        let client = &mut self.clients[number];
        client.began = due;
        client.busy = true;
        client.stream.write_all(&self.request).context("sending a request")
    }

    /// One look at what is ready.
    pub(super) fn turn(&mut self, wait: Option<Duration>) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        let wait = wait
            .map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        for event in &events {
            let data = event.data.u64();
            let index = (data & 0xffff_ffff) as usize;
            match data & !0xffff_ffff {
                CLIENT => self.client(index)?,
                SERVER => self.server(index),
                LISTENER => self.accept(index)?,
                _ => self.drain(),
            }
        }
        Ok(())
    }

    fn drain(&mut self) {
        while self.log.recv(&mut self.buffer).is_ok() {
            self.lines += 1;
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let stream = match rustix::net::accept_with(&self.listeners[listener], flags) {
                Ok(stream) => TcpStream::from(stream),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::CONNABORTED) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.servers.push(None);
                self.servers.len() - 1
            });
            let data = epoll::EventData::new_u64(SERVER | index as u64);
            epoll::add(&self.poll, &stream, data, epoll::EventFlags::IN)?;
            self.servers[index] = Some(Server { stream, left: 0, tail: [0; 4], waits_for_room: false });
            self.server(index);
        }
    }

    /// Answers; a connection that ends is forgotten.
    fn server(&mut self, index: usize) {
        let World { servers, buffer, response, poll, free, .. } = self;
        let Some(server) = servers.get_mut(index).and_then(Option::as_mut) else { return };
        if !server.serve(buffer, response) {
            servers[index] = None;
            free.push(index);
            return;
        }
        if (server.left > 0) != server.waits_for_room {
            server.waits_for_room = server.left > 0;
            let flags = if server.left > 0 { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let _ = epoll::modify(
                &*poll,
                &server.stream,
                epoll::EventData::new_u64(SERVER | index as u64),
                flags,
            );
        }
    }

    fn client(&mut self, index: usize) -> Result<()> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        loop {
            match client.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(read) => {
                    if client.take(&self.buffer[..read])? {
                        break;
                    }
                    if read < self.buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading a response"),
            }
        }
        client.busy = false;
        let began = client.began;
        let now = Instant::now();
        self.outcome.latency.add(now.saturating_duration_since(began));
        self.outcome.requests += 1;
        match self.arrival {
            Arrival::Closed if self.asking => self.ask(index, now),
            _ => {
                self.idle.push_back(index);
                Ok(())
            }
        }
    }
}

impl Server {
    /// Reads requests, sends responses; false when the connection is over.
    fn serve(&mut self, buffer: &mut [u8], response: &[u8]) -> bool {
        loop {
            while self.left > 0 {
                match self.stream.write(&response[response.len() - self.left..]) {
                    Ok(written) => self.left -= written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => {
                    let from = read.saturating_sub(4);
                    for byte in &buffer[from..read] {
                        self.tail.rotate_left(1);
                        self.tail[3] = *byte;
                    }
                    if self.tail != *b"\r\n\r\n" {
                        continue;
                    }
                    self.tail = [0; 4];
                    self.left = response.len();
                    match self.stream.write(response) {
                        Ok(written) => self.left -= written,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                        Err(_) => return false,
                    }
                    // The next request comes with an event of its own.
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

impl Client {
    /// Takes bytes of the response; true when it is complete.
    fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        if let Some(missing) = &mut self.missing {
            *missing = missing.checked_sub(bytes.len()).context("more than was announced")?;
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok(false);
            };
            let head = std::str::from_utf8(&self.head[..end]).context("a head of text")?;
            if !head.starts_with("HTTP/1.1 200") {
                bail!("a request failed: {head}");
            }
            let length: usize = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .context("no content-length")?
                .1
                .parse()?;
            let have = self.head.len() - end - 4;
            self.missing = Some(length.checked_sub(have).context("more than was announced")?);
            self.head.clear();
        }
        let done = self.missing == Some(0);
        if done {
            self.missing = None;
        }
        Ok(done)
    }
}

/// A non-blocking connection from `source`.
fn connect(address: SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into()).with_context(|| format!("connecting to {address}"))?;
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}
