//! A real haproxy, and ours made of the same file.

use crate::proxy::config;
use crate::proxy::exchange::{Counts, Endpoint, Exchange, Session, Side};
use crate::proxy::expression::{Context, Variables};
use crate::proxy::rules::{self, Reply, Verdict};
use crate::proxy::state::Running;
use ehpc_proto::http::ResponseHead;
use ehpc_proto::http1;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One request of one case.
pub(super) struct Request {
    raw: String,
    /// Filled in by `ask`: who it came from.
    client: std::cell::Cell<Option<SocketAddr>>,
}

impl Request {
    pub(super) fn new(head: &str, key: &str) -> Request {
        let bytes = format!("{head}x-case: {key}\r\nconnection: close\r\n\r\n");
        Request { raw: bytes, client: std::cell::Cell::new(None) }
    }

    /// Bytes that are no request.
    pub(super) fn unreadable() -> Request {
        Request { raw: "GET /x\r\n\r\n".to_owned(), client: std::cell::Cell::new(None) }
    }

    /// `\u{e9}` stands for the byte.
    fn bytes(&self) -> Vec<u8> {
        self.raw.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    }
}

pub(super) struct Peer {
    haproxy: Child,
    address: SocketAddr,
    running: Arc<Running>,
    _directory: tempfile::TempDir,
}

/// What every case may use. `DIR` is a directory of the test's own.
const FRAME: &str = "defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
userlist people
  group staff users joe
  group admins users ann
  user joe insecure-password secret
  user ann password $5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA groups staff
frontend front
  id 7
  capture request header x-num len 5
  capture request header host len 20
  http-request set-var(txn.text) str(abc)
  http-request set-var(txn.number) int(7)
  http-request set-var(sess.addr) src
  http-request set-var(req.list) req.fhdr(x-list)
";

/// Headers of what the server answers.
pub(super) const ORIGIN: &[(&str, &str)] = &[
    ("x-a", "1"),
    ("set-cookie", "S=1; path=/; HttpOnly"),
    ("x-list", "a, b,c"),
    ("location", "http://inside/x"),
    ("content-length", "5"),
    ("content-type", "text/plain"),
];

const BACKENDS: &str = "backend some
  server one 127.0.0.1:9 maxconn 10 maxqueue 5 weight 3
  server two 127.0.0.1:9 maxconn 20 maxqueue 7 backup
  server off 127.0.0.1:9 disabled
backend unlimited
  server one 127.0.0.1:9
backend empty
";

const FILES: &[(&str, &str)] = &[
    (
        "text.map",
        "# comment\n  abc  first value  \nAbc second\nwww.Example.com:8080 site\n\n/a/b.html page\nh short\n",
    ),
    ("begin.map", "/a short\n/a/b longer\n/api api\n"),
    ("sub.map", "img image\nb.html html\n"),
    ("number.map", "7 seven\n10:20 teens\n42 answer\n"),
    ("integer.map", "abc 17\n"),
    ("address.map", "10.0.0.0/8 ten\n10.1.0.0/16 ten-one\n192.168.1.7 host\n2001:db8::/32 doc\n"),
    ("regex.map", "^/api/v([0-9]+)/(.*)$ version \\1 of \\2\n^/a.* starts\n"),
    ("toaddress.map", "h 10.9.8.7\n"),
    ("words.lst", "  /static\n#/a\n/api\n"),
];

impl Peer {
    /// Starts haproxy with these lines in its frontend.
    pub(super) fn start(lines: &str) -> Peer {
        Peer::start_with(lines, "", "")
    }

    /// Starts it with lines in its frontend and in `defaults`, and with more sections.
    pub(super) fn start_with(lines: &str, defaults: &str, sections: &str) -> Peer {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for (name, content) in FILES {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        let bind = format!("  bind fd@{}\n", listener.as_raw_fd());
        let frame = FRAME.replacen("userlist", &format!("{defaults}userlist"), 1);
        let text = format!("{frame}{bind}{lines}{BACKENDS}{sections}").replace("DIR", path);
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, &text).unwrap();
        let haproxy = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("errors")).unwrap())
            .spawn()
            .expect("haproxy is installed (tools/test does it)");
        drop(listener);
        let config = config::load(&[file], config::Environment::default());
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let running = Running::new(Arc::new(config), 100);
        Peer { haproxy, address, running, _directory: directory }
    }

    /// haproxy's answer.
    pub(super) fn ask(&self, request: &Request) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        request.client.set(Some(stream.local_addr().unwrap()));
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&request.bytes()).unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let errors = std::fs::read_to_string(self._directory.path().join("errors")).unwrap();
        assert!(read.is_ok() && !answer.is_empty(), "haproxy does not answer: {read:?}\n{errors}");
        readable(&answer).replace("\\r\\nconnection: close", "")
    }

    /// Ours.
    pub(super) fn ours(&self, request: &Request) -> String {
        match self.exchange(request) {
            Ok((_, answer)) => readable(&answer),
            Err(refused) => refused,
        }
    }

    fn begin(&self, request: &Request) -> Exchange {
        let client = request.client.get().unwrap();
        let session = Session {
            client: Endpoint::Tcp(client),
            local: Endpoint::Tcp(self.address),
            frontend: 0,
            bind: 0,
            accepted: SystemTime::now(),
            accepted_at: Instant::now(),
            number: 1,
            variables: Variables::default(),
        };
        Exchange::new(session, SystemTime::now(), Instant::now())
    }

    /// Our log line of what could not be read.
    pub(super) fn unread_line(&self, request: &Request) -> String {
        let mut exchange = self.begin(request);
        exchange.response.status = 400;
        (exchange.ending.cause, exchange.ending.state) = (b'P', b'R');
        (exchange.counts.active, exchange.counts.frontend_active) = (1, 1);
        exchange.times.ended = Some(Instant::now());
        self.rendered(&exchange)
    }

    fn rendered(&self, exchange: &Exchange) -> String {
        let context = Context { exchange, running: &self.running };
        let mut line = Vec::new();
        self.running.config.proxies[0].log_format.render(&context, &mut line);
        String::from_utf8_lossy(&line).into_owned()
    }

    /// The exchange as it is in the end, and the answer.
    pub(super) fn exchange(&self, request: &Request) -> Result<(Exchange, Vec<u8>), String> {
        let mut exchange = self.begin(request);
        let bytes = request.bytes();
        let parsed = http1::parse_request(&bytes, &http1::Limits::default(), false, &mut exchange.request);
        if let Err(bad) = parsed {
            return Err(format!("refused: {bad:?}"));
        }
        exchange.request_line = bytes.split(|b| *b == b'\r').next().unwrap().to_vec();
        let frontend = &self.running.config.proxies[0];
        for (name, longest) in &frontend.captures.request {
            let value = exchange.request.fields.all(name).next_back().map(|(_, value)| value.to_vec());
            exchange.request_captures.push(value.map(|mut value| {
                value.truncate(*longest);
                value
            }));
        }
        let reply = match rules::request(&frontend.request_rules, &mut exchange, &self.running) {
            Verdict::Reply(reply) | Verdict::Tarpit(reply) => *reply,
            Verdict::Continue => self.served(&mut exchange),
            other => return Err(format!("{other:?}")),
        };
        exchange.side = Side::Response;
        let mut body = match reply {
            Reply::File { content, .. } => return Ok((exchange, content.to_vec())),
            Reply::Message { head, body } => {
                exchange.response = *head;
                body.into_owned()
            }
        };
        rules::after_response(&frontend.after_response_rules, &mut exchange, &self.running);
        if exchange.received_method() == b"HEAD" {
            body.clear();
        }
        let mut answer = Vec::new();
        head(&exchange.response, &mut answer);
        answer.extend(body);
        Ok((exchange, answer))
    }

    /// Our log line of a request that is answered by a rule.
    pub(super) fn log_line(&self, request: &Request) -> String {
        let (mut exchange, answer) = self.exchange(request).unwrap();
        // HAProxy counts a head in its own form: 21 bytes and the texts without what separates them.
        let fields: usize =
            exchange.response.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let head = 21 + "HTTP/1.1".len() + 3 + exchange.response.reason.len() + fields;
        let body = answer.len() - (answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4);
        exchange.counts = Counts {
            bytes_out: (head + body) as u64,
            bytes_in: request.bytes().len() as u64,
            active: 1,
            frontend_active: 1,
            ..Counts::default()
        };
        let now = Instant::now();
        exchange.times.request_head = Some(now);
        exchange.times.ended = Some(now);
        self.rendered(&exchange)
    }

    /// What the section `origin` answers, after `http-response`; without it there is no server.
    fn served(&self, exchange: &mut Exchange) -> Reply {
        exchange.response.clear();
        let chosen = exchange.request.fields.get(b"x-case").is_some_and(|case| case.starts_with(b"r"));
        let proxies = &self.running.config.proxies;
        let Some(origin) = proxies.iter().position(|proxy| proxy.name == "origin").filter(|_| chosen) else {
            return Reply::built_in(503);
        };
        exchange.side = Side::Response;
        (exchange.route.backend, exchange.route.server) = (Some(origin), Some(0));
        exchange.response.status = 200;
        exchange.response.reason = b"OK".to_vec();
        for (name, value) in ORIGIN {
            exchange.response.fields.push(name.as_bytes(), value.as_bytes());
        }
        match rules::response(&proxies[0].response_rules, exchange, &self.running) {
            Verdict::Reply(reply) => *reply,
            Verdict::Continue => {
                Reply::Message { head: Box::new(exchange.response.clone()), body: b"hello".as_slice().into() }
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.haproxy.kill().unwrap();
        self.haproxy.wait().unwrap();
    }
}

fn head(head: &ResponseHead, out: &mut Vec<u8>) {
    write!(out, "HTTP/1.1 {} {}\r\n", head.status, String::from_utf8_lossy(&head.reason)).unwrap();
    for (name, value) in head.fields.iter() {
        out.extend([name, b": ", value, b"\r\n"].concat());
    }
    out.extend(b"\r\n");
}

fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => write!(text, "\\x{other:02x}").unwrap(),
        }
    }
    text
}
