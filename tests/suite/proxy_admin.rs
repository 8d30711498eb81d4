//! Run-time commands, statistics page and exporter of the real executable, beside HAProxy's: the same traffic, then the
//! same numbers. Unix sockets only.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TEXT: &str = "\
global
    stats socket {dir}/admin.sock level admin
    maxconn 2000
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    retries 1
    option socket-stats
frontend fe
    bind unix@{dir}/fe.sock name lis
    http-request deny if { path /denied }
    http-request return status 200 if { path /here }
    http-request use-service prometheus-exporter if { path /metrics }
    use_backend dead if { path /dead }
    default_backend be
backend be
    balance roundrobin
    cookie SRV insert indirect nocache
    stats uri /stats
    stats admin if TRUE
    server a unix@{dir}/web.sock cookie A
    server b unix@{dir}/web.sock cookie B maxconn 5 weight 2
backend dead
    server d unix@{dir}/nobody.sock
";

/// Columns whose numbers are measurements, or tell of connections kept to servers, which each engine does its own way.
const FREE: &[&str] = &[
    "lastchg",
    "lastsess",
    "rate",
    "rate_max",
    "req_rate",
    "req_rate_max",
    "conn_rate",
    "conn_rate_max",
    "qtime",
    "ctime",
    "rtime",
    "ttime",
    "qtime_max",
    "ctime_max",
    "rtime_max",
    "ttime_max",
    "connect",
    "reuse",
    "srv_icur",
    "idle_conn_cur",
    "safe_conn_cur",
    "used_conn_cur",
    "need_conn_est",
    "downtime",
];

/// Differences that are meant, or not understood as a fault: row, column, why.
const ALLOWED: &[(&str, &str, &str)] = &[(
    "dead/d",
    "smax",
    "the right to connect is taken before it is tried; HAProxy counts who has begun to connect",
)];

/// One of the two.
struct Side {
    child: Child,
    directory: tempfile::TempDir,
}

impl Side {
    fn start(program: &Path) -> Side {
        let directory = tempfile::Builder::new().prefix("ehpc-admin-").tempdir().expect("a directory");
        let path = directory.path();
        web(&path.join("web.sock"));
        let file = path.join("haproxy.cfg");
        std::fs::write(&file, TEXT.replace("{dir}", path.to_str().expect("text"))).expect("written");
        let link = path.join("haproxy");
        std::os::unix::fs::symlink(program, &link).expect("linked");
        let child = Command::new(&link)
            .args(["-q", "-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        let side = Side { child, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !side.path("fe.sock").exists() || UnixStream::connect(side.path("admin.sock")).is_err() {
            assert!(Instant::now() < deadline, "{} is not ready", program.display());
            std::thread::yield_now();
        }
        side
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn connect(&self, name: &str) -> UnixStream {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(self.path(name)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "{name}: {error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Sends bytes and reads to the end.
    fn talk(&self, name: &str, bytes: &str) -> String {
        let mut stream = self.connect(name);
        stream.write_all(bytes.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A run-time command as `socat` sends it: a line, then the end of that direction.
    fn command(&self, line: &str) -> String {
        let mut stream = self.connect("admin.sock");
        stream.write_all(format!("{line}\n").as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    /// Status of a request on a connection of its own, and the answer.
    fn request(&self, head: &str, body: &str) -> (u16, String) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{head} HTTP/1.1\r\nHost: x\r\n{length}Connection: close\r\n\r\n{body}");
        let answer = self.talk("fe.sock", &request);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no answer to {head}: {answer:?}")), answer)
    }

    /// Rows of `show stat` by their names, each field with its column.
    fn statistics(&self) -> Vec<(String, Vec<(String, String)>)> {
        let csv = self.command("show stat");
        let mut lines = csv.lines();
        let names: Vec<&str> = lines.next().expect("a header").trim_start_matches("# ").split(',').collect();
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let pairs =
                names.iter().zip(&fields).map(|(name, field)| ((*name).to_owned(), (*field).to_owned()));
            (format!("{}/{}", fields[0], fields[1]), pairs.collect())
        };
        lines.filter(|line| !line.is_empty()).map(row).collect()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers each request with its path in the body; `/404` with that status. Ends with the process.
fn web(path: &Path) {
    let listener = UnixListener::bind(path).expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut received = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    while !received.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
                            _ => return,
                        }
                    }
                    let text = String::from_utf8_lossy(&received).into_owned();
                    received.clear();
                    let path = text.split(' ').nth(1).unwrap_or("").to_owned();
                    let status = if path == "/404" { "404 Not Found" } else { "200 OK" };
                    let body = if text.starts_with("HEAD") { "" } else { &path };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", path.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// HAProxy, and ours.
fn both() -> [Side; 2] {
    [Side::start(Path::new("/usr/sbin/haproxy")), Side::start(&ehpc_tools::process::executable())]
}

#[test]
fn the_same_traffic_makes_the_same_numbers() {
    let [theirs, ours] = both();
    for side in [&theirs, &ours] {
        let statuses: Vec<u16> =
            ["GET /1", "GET /2", "GET /3", "HEAD /4", "GET /404", "GET /denied", "GET /here", "GET /dead"]
                .iter()
                .map(|head| side.request(head, "").0)
                .collect();
        assert_eq!(statuses, [200, 200, 200, 200, 404, 403, 200, 503]);
        assert_eq!(side.talk("fe.sock", "what\r\n\r\n").split(' ').nth(1), Some("400"));
        let kept = "GET /k HTTP/1.1\r\nHost: x\r\nCookie: SRV=A\r\n\r\n";
        let last = "GET /k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answers = side.talk("fe.sock", &format!("{kept}{kept}{last}"));
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    }
    let (theirs, ours) = (theirs.statistics(), ours.statistics());
    let mut faults = Vec::new();
    for ((name, their), (our_name, our)) in theirs.iter().zip(&ours) {
        assert_eq!(name, our_name);
        for ((column, their), (_, our)) in their.iter().zip(our) {
            let allowed = ALLOWED.iter().any(|(row, known, _)| row == name && known == column);
            let module = column.starts_with("h1_") || column.starts_with("h2_");
            if their != our && !allowed && !module && !FREE.contains(&column.as_str()) {
                faults.push(format!("{name} {column}: {their}, here {our}"));
            }
        }
    }
    assert_eq!(theirs.len(), ours.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn what_the_operator_says_decides_where_requests_go() {
    for side in &both() {
        let servers = |count: usize| {
            let one = |_| {
                let (status, answer) = side.request("GET /", "");
                let cookie =
                    answer.split_once("SRV=").map_or('-', |(_, rest)| rest.chars().next().expect("a value"));
                if status == 200 { cookie } else { '!' }
            };
            (0..count).map(one).collect::<String>()
        };
        let has = |found: &str, names: &str| names.chars().all(|name| found.contains(name));
        assert!(has(&servers(6), "AB"));
        assert_eq!(side.command("set server be/a state maint"), "\n");
        assert_eq!(servers(4), "BBBB");
        // Who is bound to it is sent elsewhere and bound anew; draining it keeps its own.
        let bound = "GET / HTTP/1.1\r\nHost: x\r\nCookie: SRV=A\r\nConnection: close\r\n\r\n";
        assert!(side.talk("fe.sock", bound).contains("SRV=B"));
        assert_eq!(side.command("set server be/a state drain"), "\n");
        assert_eq!(servers(4), "BBBB");
        assert!(!side.talk("fe.sock", bound).contains("SRV="));
        assert_eq!(side.command("set server be/b health down"), "\n");
        assert!(side.command("show stat be 4 2").contains(",DOWN,"));
        assert_eq!(servers(2), "!!", "one drains, the other is down");
        assert_eq!(
            side.command("set server be/a state ready; set server be/b health up; set weight be/a 0"),
            "\n\n\n"
        );
        assert_eq!(servers(4), "BBBB");
        assert_eq!(side.command("get weight be/a"), "0 (initial 1)\n\n");
        assert_eq!(side.command("set weight be/a 100%"), "\n");
        assert!(has(&servers(6), "AB"));
        // The page does the same.
        let (status, answer) = side.request("POST /stats", "s=b&action=maint&b=be");
        assert_eq!(status, 303);
        assert!(answer.to_lowercase().contains("location: /stats;st=done"), "{answer}");
        assert_eq!(servers(3), "AAA");
        let (_, page) = side.request("GET /stats;st=DONE", "");
        assert!(page.contains("maintain") && page.contains("Action processed successfully"));
        assert_eq!(side.command("enable server be/b"), "\n");
        assert_eq!(side.command("disable frontend fe"), "\n");
        assert!(side.command("show stat fe 1 -1").contains(",PAUSED,"));
        // HAProxy goes on accepting at a Unix socket: only TCP can be paused. Here its connections wait.
        let mut waiting = side.connect("fe.sock");
        waiting.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        assert_eq!(side.command("enable frontend fe"), "\n");
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn sessions_are_listed_and_ended() {
    let side = Side::start(&ehpc_tools::process::executable());
    let mut client = side.connect("fe.sock");
    client.write_all(b"GET /k HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).expect("answered");
    let list = side.command("show sess");
    let line = list.lines().find(|line| line.contains(" fe=fe ")).unwrap_or_else(|| panic!("{list}"));
    let id = line.split(':').next().expect("a name");
    assert!(line.starts_with("0x") && line.contains("proto=unix_stream"), "{line}");
    assert!(side.command(&format!("show sess {id}")).starts_with(id));
    assert_eq!(side.command("shutdown session 0xffffffff"), "No such session (use 'show sess').\n\n");
    assert_eq!(side.command(&format!("shutdown session {id}")), "\n");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("closed");
    assert_eq!(side.command(&format!("show sess {id}")), "Session not found.\n\n");
    // What was refused can be looked at.
    assert!(
        side.talk("fe.sock", "GET / HTTP/1.1\r\nHost: x\r\na b: \x01\r\n\r\n").starts_with("HTTP/1.1 400")
    );
    let errors = side.command("show errors");
    assert!(
        errors.contains("] : 1\n") && errors.contains("] frontend fe (#2): invalid request\n"),
        "{errors}"
    );
    assert!(
        errors.contains("error at position") && errors.contains("  00000  GET / HTTP/1.1\\r\\n\n"),
        "{errors}"
    );
    assert!(errors.contains("  00025  a b: \\x01\\r\\n\n"), "{errors}");
    assert_eq!(side.command("show errors nobody"), "No such proxy.\n\n");
    assert_eq!(side.command("show errors fe response").lines().count(), 2);
    let metrics = side.request("GET /metrics", "").1;
    assert!(metrics.contains("haproxy_frontend_http_requests_total{proxy=\"fe\"} "), "{metrics}");
}
