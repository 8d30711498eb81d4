//! What a client sends ahead of its turn, or while the proxy is busy with something else, arrives where it belongs.

use super::{PATIENCE, Proxy, ask, ends_with, http, read_until, server};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// `option abortonclose` looks for the client's end while the server is waited for: not into the upload.
#[test]
fn an_upload_is_whole_although_its_client_is_watched() {
    const LENGTH: usize = 8 << 20;
    let byte = |at: usize| (at * 31 % 251) as u8;
    let (told, seen) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let at = server(move |mut stream| {
        // Slower than what it is sent.
        let head = read_until(&mut stream, |bytes| bytes.windows(4).any(|end| end == b"\r\n\r\n"));
        let mut body = head[head.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4..].to_vec();
        let mut piece = [0; 2048];
        while body.len() < LENGTH {
            match stream.read(&mut piece) {
                Ok(count @ 1..) => body.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
        let wrong = (0..LENGTH).find(|at| body.get(*at) != Some(&byte(*at)));
        told.lock().unwrap().send((body.len(), wrong)).unwrap();
        ask(&mut stream, OK);
    });
    let proxy = Proxy::start(1, &http(" option abortonclose\n option http-keep-alive", at, ""));
    let mut client = proxy.connect();
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        ask(&mut writing, &format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n"));
        let body: Vec<u8> = (0..LENGTH).map(byte).collect();
        writing.write_all(&body).unwrap();
    });
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (LENGTH, None), "length, first wrong byte");
    writer.join().unwrap();
    assert!(read_until(&mut client, ends_with("ok")).starts_with(b"HTTP/1.1 200 "));
}

/// A server to which a connection takes a while: its backlog is full until it is told to accept.
struct Busy {
    listener: TcpListener,
    full: Vec<TcpStream>,
}

impl Busy {
    fn new() -> Busy {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let at = listener.local_addr().unwrap();
        let short = std::time::Duration::from_millis(100);
        let full = std::iter::from_fn(|| TcpStream::connect_timeout(&at, short).ok()).collect();
        Busy { listener, full }
    }

    fn at(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection that is the proxy's.
    fn accept(&mut self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let next = || {
            let until = Instant::now() + PATIENCE;
            loop {
                match self.listener.accept() {
                    Ok((stream, _)) => return stream,
                    Err(error) => assert!(Instant::now() < until, "nobody connects: {error}"),
                }
                std::thread::yield_now();
            }
        };
        for _ in self.full.drain(..) {
            next();
        }
        let stream = next();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// The server's first answer is none: what the client has sent behind its first request is the next one all the same.
#[test]
fn a_request_behind_one_that_fails_is_not_lost() {
    let mut busy = Busy::new();
    let proxy = Proxy::start(1, &http(" option http-keep-alive\n timeout connect 20s", busy.at(), ""));
    let mut client = proxy.connect();
    let second = "POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n";
    ask(&mut client, &format!("GET /first HTTP/1.1\r\nHost: h\r\n\r\n{second}"));
    let mut server = busy.accept();
    assert!(read_until(&mut server, ends_with("\r\n\r\n")).starts_with(b"GET /first "));
    ask(&mut server, "no HTTP\r\n\r\n");
    drop(server);
    assert!(read_until(&mut client, ends_with("</html>\n")).starts_with(b"HTTP/1.1 502 "));
    ask(&mut client, "GET /smuggled HTTP/1.1\r\nHost: h\r\n");
    let mut server = busy.accept();
    let seen = read_until(&mut server, ends_with("Host: h\r\n"));
    let seen = String::from_utf8_lossy(&seen);
    assert!(
        seen.starts_with("POST /second ") && seen.ends_with("GET /smuggled HTTP/1.1\r\nHost: h\r\n"),
        "{seen}"
    );
}

/// Frames that a client sends before its upgrade is answered, in order.
#[test]
fn what_is_sent_before_an_upgrade_is_answered_reaches_the_server_in_order() {
    let mut busy = Busy::new();
    let words = " option abortonclose\n timeout connect 20s";
    let proxy = Proxy::start(1, &http(words, busy.at(), ""));
    let mut client = proxy.connect();
    let upgrade = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    ask(&mut client, &format!("{upgrade}E0-E1-"));
    let mut server = busy.accept();
    read_until(&mut server, ends_with("\r\n\r\n"));
    ask(&mut client, "E2-E3-");
    ask(&mut server, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    read_until(&mut client, ends_with("\r\n\r\n"));
    ask(&mut client, "E4");
    let seen = read_until(&mut server, ends_with("E4"));
    assert_eq!(String::from_utf8_lossy(&seen), "E0-E1-E2-E3-E4");
}
