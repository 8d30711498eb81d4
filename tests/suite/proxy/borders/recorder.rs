//! A server that writes down every request that it sees, and every byte that another reader could take for another
//! border. It reads requests with the harness's own parser, not the product's.

use super::super::message::{self, Kind};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    requests: Vec<String>,
    faults: Vec<String>,
}

#[derive(Clone, Default)]
pub(super) struct Recorder {
    state: Arc<Mutex<State>>,
    /// Odd bytes were let through on purpose.
    lenient: bool,
}

impl Recorder {
    pub(super) fn start(address: &str, port: u16, lenient: bool) -> Recorder {
        let recorder = Recorder { lenient, ..Recorder::default() };
        let listener = TcpListener::bind((address, port)).expect("the port is free");
        let mine = recorder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mine = mine.clone();
                std::thread::spawn(move || mine.serve(stream));
            }
        });
        recorder
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.state.lock().expect("no thread panics").requests.clone()
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.state.lock().expect("no thread panics").faults.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut waiting = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            let head = loop {
                if let Some(length) = message::head_length(&waiting) {
                    break waiting[..length].to_vec();
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => waiting.extend_from_slice(&buffer[..read]),
                }
            };
            let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default())
                .into_owned();
            {
                let mut state = self.state.lock().expect("no thread panics");
                state.requests.push(line.clone());
                state.faults.extend(
                    ambiguities(&head, self.lenient).map(|text| format!("{text}: {}", head.escape_ascii())),
                );
            }
            let length = loop {
                if let Some(length) = message::length(&waiting, Kind::Request) {
                    break length;
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => waiting.extend_from_slice(&buffer[..read]),
                }
            };
            let body = &waiting[head.len()..length];
            if message::header(&head, "transfer-encoding").is_some() && !plain_chunks(body) {
                let text = format!("chunks with more than one meaning: {}", body.escape_ascii());
                self.state.lock().expect("no thread panics").faults.push(text);
            }
            waiting.drain(..length);
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = if line.starts_with("HEAD ") { "" } else { &target };
            // No tunnels here: what follows a CONNECT is the next request.
            let status = if line.starts_with("CONNECT ") { "405 No" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", target.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// What a sloppy reader could read differently in a head.
fn ambiguities(head: &[u8], lenient: bool) -> impl Iterator<Item = &'static str> {
    let mut found = Vec::new();
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    if lines[..lines.len() - 1].iter().any(|line| line.last() != Some(&b'\r')) {
        found.push("a bare LF");
    }
    if lines.iter().any(|line| line.strip_suffix(b"\r").unwrap_or(line).contains(&b'\r')) {
        found.push("a bare CR");
    }
    if !lenient && head.contains(&0) {
        found.push("NUL");
    }
    let fields: Vec<&[u8]> = lines[1..]
        .iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    let mut framing = Vec::new();
    for field in fields {
        let name: Vec<u8> = field.iter().copied().take_while(|byte| *byte != b':').collect();
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if !lenient && (name.is_empty() || !name.iter().all(token) || name.len() == field.len()) {
            found.push("a name that is no token");
        }
        let name = String::from_utf8_lossy(&name).to_lowercase();
        if name == "content-length" || name == "transfer-encoding" {
            framing
                .push((name, field[field.iter().position(|byte| *byte == b':').unwrap_or(0) + 1..].to_vec()));
        }
    }
    match framing.as_slice() {
        [] => {}
        [(name, value)] if name == "content-length" => {
            let digits = value.strip_prefix(b" ").unwrap_or(value);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                found.push("a length that is no number");
            }
        }
        [(_, value)] if value.eq_ignore_ascii_case(b" chunked") => {}
        [_] => found.push("a coding with more than one meaning"),
        _ => found.push("more than one field that frames the message"),
    }
    if !framing.is_empty()
        && head.windows(9).any(|window| window == b" HTTP/1.0")
        && framing[0].0 == "transfer-encoding"
    {
        found.push("chunks in HTTP/1.0");
    }
    found.into_iter()
}

/// Sizes are hexadecimal digits and nothing else, lines end in CR LF, and the trailers frame nothing.
fn plain_chunks(mut body: &[u8]) -> bool {
    loop {
        let Some(end) = body.windows(2).position(|window| window == b"\r\n") else { return false };
        let Some(size) = std::str::from_utf8(&body[..end])
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        else {
            return false;
        };
        let Ok(size) = usize::from_str_radix(size, 16) else { return false };
        body = &body[end + 2..];
        if size == 0 {
            let trailers = String::from_utf8_lossy(body).to_lowercase();
            return body.ends_with(b"\r\n")
                && !trailers.contains("content-length")
                && !trailers.contains("transfer-encoding")
                && !trailers.contains("host");
        }
        if body.get(size..size + 2) != Some(b"\r\n") {
            return false;
        }
        body = &body[size + 2..];
    }
}
