//! The raw client: does a case's steps over real sockets and writes down what it got.

use super::backend::Board;
use super::case::{Case, Step};
use super::message::{self, Kind};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a step waits for what it wants.
const PATIENCE: Duration = Duration::from_secs(12);
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n";

/// What one connection got, and notes between.
#[derive(Default)]
struct Got {
    /// Bytes not yet taken by a step.
    waiting: Vec<u8>,
    /// Everything, in order.
    text: Vec<u8>,
    /// How it ended.
    end: Option<&'static str>,
}

struct Connection {
    stream: Option<TcpStream>,
    got: Got,
}

enum Read1 {
    More,
    End,
    Late,
}

impl Connection {
    fn open(source: &str, to: SocketAddr) -> Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from = SocketAddr::new(source.parse().expect("an address"), 0);
        socket.bind(&from.into()).expect("a local address");
        socket.connect(&to.into()).expect("the proxy listens");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        Connection { stream: Some(stream), got: Got::default() }
    }

    fn note(&mut self, text: &str) {
        self.got.text.extend_from_slice(format!("\n[{text}]\n").as_bytes());
    }

    fn read(&mut self) -> Read1 {
        let Some(stream) = &mut self.stream else { return Read1::End };
        let mut buffer = [0; 65536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    self.got.end.get_or_insert("closed");
                    return Read1::End;
                }
                Ok(read) => {
                    self.got.text.extend_from_slice(&buffer[..read]);
                    self.got.waiting.extend_from_slice(&buffer[..read]);
                    return Read1::More;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Read1::Late;
                }
                Err(_) => {
                    self.got.end.get_or_insert("reset");
                    return Read1::End;
                }
            }
        }
    }

    /// Reads until `done` says how many bytes are taken; false when the connection ended or nothing came in time.
    fn read_until(&mut self, what: &str, done: impl Fn(&[u8]) -> Option<usize>) -> bool {
        loop {
            if let Some(length) = done(&self.got.waiting) {
                self.got.waiting.drain(..length);
                return true;
            }
            match self.read() {
                Read1::More => {}
                Read1::End => return false,
                Read1::Late => {
                    self.note(&format!("TIMEOUT: no {what}"));
                    return false;
                }
            }
        }
    }

    /// Reads one final response, and what is before it.
    fn reply(&mut self, bodiless: bool) {
        let interim = std::cell::Cell::new(true);
        while interim.get() {
            let complete = self.read_until("response", |bytes| {
                let length = message::length(bytes, Kind::Response { bodiless })?;
                interim.set(bytes.get(9) == Some(&b'1') && bytes.get(9..12) != Some(b"101"));
                Some(length)
            });
            if !complete {
                return;
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream
            && stream.write_all(bytes).is_err()
        {
            self.note("cannot send");
        }
    }

    fn probe(&mut self) {
        if self.got.end.is_none() {
            self.got.text.extend_from_slice(b"\n[probe]\n");
            if let Some(stream) = &mut self.stream {
                let _ = stream.write_all(PROBE);
            }
            self.reply(false);
        }
        let state = if self.got.end.is_some() { "not kept" } else { "kept" };
        self.note(state);
        // After an end that follows a complete response, FIN or RST is a matter of when the probe came.
        self.got.end = self.got.end.map(|_| "over");
    }
}

/// Runs the steps; the transcript of each connection.
pub(crate) fn run(case: &Case, source: &str, to: &str, board: &Board) -> Vec<Vec<u8>> {
    let address = SocketAddr::new(to.parse().expect("an address"), case.port);
    let mut connections = vec![Connection::open(source, address)];
    let mut at = 0;
    for step in &case.steps {
        let connection = &mut connections[at];
        match step {
            Step::Send(bytes) => connection.send(bytes),
            Step::Pause(milliseconds) => super::pause(*milliseconds),
            Step::Reply(bodiless) => connection.reply(*bodiless),
            Step::Until(text) => {
                let wanted = |bytes: &[u8]| {
                    bytes
                        .windows(text.len())
                        .position(|part| part == text.as_bytes())
                        .map(|at| at + text.len())
                };
                connection.read_until(text, wanted);
            }
            Step::End => {
                connection.read_until("end", |_| None);
            }
            Step::HalfClose => {
                if let Some(stream) = &connection.stream {
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            Step::Reset => {
                if let Some(stream) = connection.stream.take() {
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
            Step::Close => drop(connection.stream.take()),
            Step::Arrived(text) => {
                let arrived = board.wait(PATIENCE, |seen| {
                    seen.iter().any(|seen| message::contains(&seen.bytes, text.as_bytes()))
                });
                if !arrived {
                    connection.note(&format!("TIMEOUT: {text} did not arrive"));
                }
            }
            Step::Probe => connection.probe(),
            Step::Another => {
                connections.push(Connection::open(source, address));
                at = connections.len() - 1;
            }
            Step::On(connection) => at = *connection,
        }
    }
    connections
        .into_iter()
        .map(|connection| {
            let mut text = message::with_plain_chunks(&connection.got.text);
            if let Some(end) = connection.got.end {
                text.extend_from_slice(format!("\n[{end}]\n").as_bytes());
            }
            text
        })
        .collect()
}
