//! Bytes that both sides can make from a number: whoever receives them knows whether they are right.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::io::Write;
use std::net::TcpStream;

/// The body that belongs to a number.
pub(super) fn body(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(number).fill_bytes(&mut bytes);
    bytes
}

/// How a body is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    Length,
    Chunked,
    Close,
}

/// The fields and bytes of a body.
pub(super) fn framed(body: &[u8], frame: Frame, random: &mut StdRng) -> (String, Vec<u8>) {
    match frame {
        Frame::Length => (format!("Content-Length: {}\r\n", body.len()), body.to_vec()),
        Frame::Close => (String::new(), body.to_vec()),
        Frame::Chunked => {
            let (mut out, mut rest) = (Vec::new(), body);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(random.random_range(1..=rest.len().min(9000)));
                let extension = if random.random_bool(0.2) { ";a=b" } else { "" };
                write!(out, "{:x}{extension}\r\n", piece.len()).unwrap();
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
                rest = behind;
            }
            out.extend_from_slice(b"0\r\n\r\n");
            ("Transfer-Encoding: chunked\r\n".to_owned(), out)
        }
    }
}

/// Writes in random pieces; whether all of it went.
pub(super) fn write_in_pieces(stream: &mut TcpStream, mut bytes: &[u8], random: &mut StdRng) -> bool {
    while !bytes.is_empty() {
        let most = if random.random_bool(0.3) { 20 } else { 40_000 };
        let (piece, rest) = bytes.split_at(random.random_range(1..=bytes.len().min(most)));
        if stream.write_all(piece).is_err() {
            return false;
        }
        if random.random_bool(0.1) {
            std::thread::yield_now();
        }
        bytes = rest;
    }
    true
}

/// Reads messages of a connection, one after the other.
pub(super) struct Reader {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// A message: its head's lines in lower case, its body, whether it was complete.
pub(super) struct Message {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) complete: bool,
}

impl Reader {
    pub(super) fn new(stream: TcpStream) -> Reader {
        Reader { stream, bytes: Vec::new() }
    }

    /// Nothing more is wanted from the other side.
    pub(super) fn shut(&self) {
        // The connection may be gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn more(&mut self) -> bool {
        use std::io::Read;
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece) {
            Ok(count) if count > 0 => {
                self.bytes.extend_from_slice(&piece[..count]);
                true
            }
            _ => false,
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
                self.bytes.drain(..end + 2);
                return Some(line);
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> bool {
        while self.bytes.len() < count {
            if !self.more() {
                into.append(&mut self.bytes);
                return false;
            }
        }
        into.extend(self.bytes.drain(..count));
        true
    }

    /// The next message; `None`: the connection ended before it. `response`: without framing it ends with the
    /// connection.
    pub(super) fn message(&mut self, response: bool) -> Option<Message> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            head.push_str(&line.to_ascii_lowercase());
            head.push('\n');
        }
        let mut body = Vec::new();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let complete = if head.contains("\ntransfer-encoding: chunked\n") {
            self.chunks(&mut body)
        } else if let Some(length) = length {
            self.exactly(length, &mut body)
        } else if response && !head.starts_with("http/1.1 1") {
            while self.more() {}
            body.append(&mut self.bytes);
            true
        } else {
            true
        };
        Some(Message { head, body, complete })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.line() else { return false };
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if !self.exactly(size, body) || self.line().as_deref() != Some("") {
                return false;
            }
            if size == 0 {
                return true;
            }
        }
    }
}
