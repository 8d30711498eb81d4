//! Scripted servers of one side: each connection is a thread that reads requests, records their bytes and does what the
//! case says.

use super::case::{Act, Answer, When};
use super::message::{self, Kind};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Ports of the servers `s1`, `s2`, `s3`. On port 9009 nobody listens.
pub(crate) const PORTS: [u16; 3] = [9001, 9002, 9003];

/// What one connection brought while a case ran.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `s1`, ...
    pub(crate) server: usize,
    /// All bytes.
    pub(crate) bytes: Vec<u8>,
    /// It existed before the case.
    pub(crate) reused: bool,
    /// It has ended.
    pub(crate) ended: bool,
}

#[derive(Default)]
struct State {
    epoch: u64,
    answers: Vec<Answer>,
    requests: usize,
    seen: Vec<Seen>,
    open: BTreeMap<u64, TcpStream>,
    connections: u64,
}

/// What the servers of a side share.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no server thread panics")
    }

    /// A case begins: nothing was seen yet.
    pub(crate) fn begin(&self, answers: &[Answer]) {
        let mut state = self.lock();
        (state.requests, state.seen, state.answers) = (0, Vec::new(), answers.to_vec());
        state.epoch += 1;
    }

    /// Ends all connections, so that the next case finds none in a pool.
    pub(crate) fn hang_up(&self) {
        for stream in self.lock().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until what was seen satisfies `condition`.
    pub(crate) fn wait(&self, time: Duration, condition: impl Fn(&[Seen]) -> bool) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !condition(&state.seen) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).expect("no server thread panics").0;
        }
        true
    }

    /// What was seen since the case began.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }
}

/// Starts the servers on `address`.
pub(crate) fn start(address: &str) -> Arc<Board> {
    let board = Arc::new(Board::default());
    for (server, port) in PORTS.into_iter().enumerate() {
        let listener = TcpListener::bind((address, port)).expect("the port is free");
        let board = board.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection =
                    Connection { server, board: board.clone(), place: None, waiting: Vec::new() };
                std::thread::spawn(move || connection.serve(stream));
            }
        });
    }
    board
}

struct Connection {
    server: usize,
    board: Arc<Board>,
    /// Epoch and index of the record.
    place: Option<(u64, usize)>,
    /// Read, and not yet part of a request that was answered.
    waiting: Vec<u8>,
}

enum Next {
    Go,
    Over,
}

impl Connection {
    fn serve(mut self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let number = {
            let mut state = self.board.lock();
            state.connections += 1;
            let number = state.connections;
            if let Ok(copy) = stream.try_clone() {
                state.open.insert(number, copy);
            }
            number
        };
        self.talk(&mut stream);
        self.board.lock().open.remove(&number);
        self.record(&[], true);
    }

    fn talk(&mut self, stream: &mut TcpStream) {
        self.record(&[], false);
        let connected = {
            let mut state = self.board.lock();
            let first = state.answers.get(state.requests.min(state.answers.len().saturating_sub(1))).cloned();
            let first = first.filter(|answer| answer.when == When::Connected);
            state.requests += usize::from(first.is_some());
            first
        };
        if let Some(answer) = connected
            && matches!(self.perform(stream, &answer), Next::Over)
        {
            return;
        }
        while let Next::Go = self.request(stream) {}
    }

    /// Notes bytes or the end, in the record of the running case.
    fn record(&mut self, bytes: &[u8], ended: bool) {
        let mut state = self.board.lock();
        let epoch = state.epoch;
        let index = match self.place {
            Some((mine, index)) if mine == epoch => index,
            // The end of a connection of an earlier case.
            Some(_) if bytes.is_empty() => return,
            earlier => {
                let seen =
                    Seen { server: self.server, bytes: vec![], reused: earlier.is_some(), ended: false };
                state.seen.push(seen);
                self.place = Some((epoch, state.seen.len() - 1));
                state.seen.len() - 1
            }
        };
        state.seen[index].bytes.extend_from_slice(bytes);
        state.seen[index].ended |= ended;
        drop(state);
        self.board.changed.notify_all();
    }

    fn read(&mut self, stream: &mut TcpStream) -> Next {
        let mut buffer = [0; 65536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Next::Over,
                Ok(read) => {
                    self.record(&buffer[..read], false);
                    self.waiting.extend_from_slice(&buffer[..read]);
                    return Next::Go;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Over,
            }
        }
    }

    /// Waits for a request and answers it.
    fn request(&mut self, stream: &mut TcpStream) -> Next {
        while message::head_length(&self.waiting).is_none() {
            if let Next::Over = self.read(stream) {
                return Next::Over;
            }
        }
        let answer = {
            let mut state = self.board.lock();
            let last = state.answers.len().saturating_sub(1);
            let answer = state.answers.get(state.requests.min(last)).cloned();
            state.requests += 1;
            answer
        };
        let Some(answer) = answer else { return Next::Over };
        if answer.when == When::Request {
            while message::length(&self.waiting, Kind::Request).is_none() {
                if let Next::Over = self.read(stream) {
                    return Next::Over;
                }
            }
        }
        if let Next::Over = self.perform(stream, &answer) {
            return Next::Over;
        }
        // What is left of the body.
        loop {
            match message::length(&self.waiting, Kind::Request) {
                Some(length) => {
                    self.waiting.drain(..length);
                    return Next::Go;
                }
                None => {
                    if let Next::Over = self.read(stream) {
                        return Next::Over;
                    }
                }
            }
        }
    }

    fn perform(&mut self, stream: &mut TcpStream, answer: &Answer) -> Next {
        for act in &answer.acts {
            match act {
                Act::Send(bytes) => {
                    if stream.write_all(bytes).is_err() {
                        return Next::Over;
                    }
                }
                Act::Await(text) => {
                    while !message::contains(&self.waiting, text.as_bytes()) {
                        if let Next::Over = self.read(stream) {
                            return Next::Over;
                        }
                    }
                }
                Act::Pause(milliseconds) => super::pause(*milliseconds),
                Act::Close => return Next::Over,
                Act::HalfClose => {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                Act::Reset => {
                    let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                    return Next::Over;
                }
                Act::Hold => loop {
                    if let Next::Over = self.read(stream) {
                        return Next::Over;
                    }
                },
            }
        }
        Next::Go
    }
}
