//! 20,000 clients at the same time, all served. One process of the proxy, or several when the limit of descriptors is
//! below what the guide's maxconn needs; the clients are processes too.

use super::side;
use super::{inside, pause};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const ALL: usize = 20_000;
/// Connections from one address: its ports are limited.
const FROM_ONE_ADDRESS: usize = 5_000;
/// Tells this binary that it is a client: "address port count first-source".
const MARK: &str = "EHPC_SUITE_CROWD";

/// Descriptors that a process may have at most.
fn limit() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").expect("readable");
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("listed");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(usize::MAX)
}

/// How many processes share 20,000 connections of which each needs `each` descriptors.
fn processes(each: usize) -> usize {
    (ALL * each).div_ceil(limit() - limit().min(2000) / 4).max(1)
}

/// A web server for short requests.
fn server(address: &str) {
    let listener = TcpListener::bind((address, 9001)).expect("the port is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
}

/// This process as clients: connects, says so, asks with each when told to, says what came of it.
fn clients(what: &str) {
    let words: Vec<usize> = what.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
    let address: Ipv4Addr = what.split(' ').next().expect("an address").parse().expect("an address");
    let (port, count, first) = (words[0] as u16, words[1], words[2]);
    let to = SocketAddr::new(address.into(), port);
    let mut streams: Vec<TcpStream> = (0..count)
        .map(|number| {
            let source = Ipv4Addr::new(10, 1, 200, (first + number / FROM_ONE_ADDRESS) as u8 + 1);
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(source.into(), 0).into()).expect("bound");
            socket.connect(&to.into()).expect("connected");
            TcpStream::from(socket)
        })
        .collect();
    println!("connected");
    std::io::stdin().read_line(&mut String::new()).expect("told");
    let mut served = 0;
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: crowd\r\n\r\n").expect("sent");
        let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
        while !got.ends_with(b"\r\n\r\nok") {
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => got.extend_from_slice(&buffer[..read]),
                other => panic!("{other:?} after {}", String::from_utf8_lossy(&got)),
            }
        }
        served += usize::from(got.starts_with(b"HTTP/1.1 200"));
    }
    println!("served {served}");
    std::io::stdin().read_line(&mut String::new()).expect("told");
}

struct Crowd {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Crowd {
    fn start(test: &str, address: &str, count: usize, first: usize) -> Crowd {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(MARK, format!("{address} 80 {count} {first}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Crowd { input: child.stdin.take().expect("piped"), child, lines }
    }

    /// Waits for a line with this in it.
    fn says(&mut self, text: &str) -> String {
        for line in self.lines.by_ref().map_while(Result::ok) {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the clients ended before {text:?}");
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("told");
    }
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, directory: &Path, address: &str, maxconn: usize) -> Proxy {
    let file = directory.join(format!("{address}.cfg"));
    let text = format!(
        "global\n    maxconn {maxconn}\n\
         defaults\n    mode http\n    option http-server-close\n    timeout http-keep-alive 60s\n    timeout connect 5s\n    \
         timeout client 60s\n    timeout server 60s\n\
         frontend proxy\n    bind {address}:80 backlog 30000\n    maxconn {maxconn}\n    default_backend dynamic\n\
         backend dynamic\n    server web1 {address}:9001 maxconn 100\n"
    );
    std::fs::write(&file, text).expect("written");
    let link = directory.join("haproxy");
    if !link.exists() {
        std::os::unix::fs::symlink(program, &link).expect("linked");
    }
    let child =
        Command::new(link).args(["-db", "-f"]).arg(file).stdin(Stdio::null()).spawn().expect("starts");
    let proxy = Proxy(child);
    let until = Instant::now() + Duration::from_secs(10);
    while !side::listens(address, 80) {
        assert!(Instant::now() < until, "the proxy does not listen");
        pause(5);
    }
    proxy
}

fn twenty_thousand(test: &str, program: &Path) {
    if let Ok(what) = std::env::var(MARK) {
        return clients(&what);
    }
    inside::inside(test, || {
        let directory = tempfile::Builder::new().prefix("ehpc-crowd-").tempdir().expect("a directory");
        let count = processes(2);
        let each = ALL.div_ceil(count);
        let addresses: Vec<String> = (0..count).map(|number| format!("10.1.100.{}", number + 1)).collect();
        let _proxies: Vec<Proxy> = addresses
            .iter()
            .map(|address| {
                server(address);
                start(program, directory.path(), address, each + 50)
            })
            .collect();
        let mut crowds: Vec<Crowd> = addresses
            .iter()
            .enumerate()
            .map(|(number, address)| {
                Crowd::start(test, address, each, number * each.div_ceil(FROM_ONE_ADDRESS))
            })
            .collect();
        for crowd in &mut crowds {
            crowd.says("connected");
        }
        let mut served = 0;
        crowds.iter_mut().for_each(Crowd::go_on);
        for crowd in &mut crowds {
            let line = crowd.says("served ");
            served += line.rsplit(' ').next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        }
        // All are still connected: only now they may go.
        println!("{served} served at the same time by {count} processes");
        assert!(served >= ALL, "{served} of {ALL} were served");
        for crowd in &mut crowds {
            crowd.go_on();
            assert!(crowd.child.wait().expect("waits").success());
        }
    });
}

/// The scene itself.
#[test]
fn haproxy_serves_twenty_thousand() {
    twenty_thousand("proxy::crowd::haproxy_serves_twenty_thousand", &super::haproxy());
}

#[test]
fn serves_twenty_thousand() {
    twenty_thousand("proxy::crowd::serves_twenty_thousand", &ehpc_tools::process::executable());
}
