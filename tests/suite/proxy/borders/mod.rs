//! Message borders: every form of request that is known to smuggle another one behind a proxy's back goes through the
//! real proxy to three servers (a recording one that checks every byte, nginx, HAProxy). What each server takes for a
//! request must be what the proxy says that it sent there, and the next client must get the answer to its own request.

mod forms;
mod recorder;

use super::inside::inside;
use super::side::listens;
use super::syslog::Syslog;
use forms::Form;
use recorder::Recorder;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROXY: &str = "10.1.200.1";
const SERVERS: &str = "10.1.200.2";
const NGINX_LOG: &str = "10.1.200.3";
const HAPROXY_LOG: &str = "10.1.200.4";
const PATIENCE: Duration = Duration::from_secs(30);

/// The frontend that takes invalid requests: what its server sees is not foretold, only that both agree.
const LENIENT: usize = 3;

/// The proxy under test: a frontend and a backend for each server; server connections are shared between clients, so
/// that what is left over in one meets the next client.
const PROXIES: &str = "
    http-reuse always
    timeout http-request 60s
frontend f0
    bind {proxy}:8000
    default_backend b0
frontend f1
    bind {proxy}:8001
    default_backend b1
frontend f2
    bind {proxy}:8002
    default_backend b2
frontend f3
    bind {proxy}:8003
    option accept-invalid-http-request
    default_backend b3
backend b0
    server s {servers}:9000
backend b1
    server s {servers}:9001
backend b2
    server s {servers}:9002
backend b3
    server s {servers}:9004
";

/// HAProxy as a server, in front of a second recorder.
const SERVER_HAPROXY: &str = "
    timeout http-request 60s
frontend f
    bind {servers}:9002
    default_backend b
backend b
    server s {servers}:9003
";

const NGINX: &str = "daemon off; master_process off; pid {dir}/nginx.pid; error_log /dev/null; events {}
http {
  log_format request '$request';
  access_log syslog:server={nginx_log}:514,nohostname request;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server { listen {servers}:9001; location / { return 200 $request_uri; } }
}";

#[test]
fn proxy_and_server_agree_on_every_border() {
    inside("proxy::borders::proxy_and_server_agree_on_every_border", || {
        check(Path::new(super::super::executable::EXECUTABLE));
    });
}

fn haproxy_configuration(log: &str, rest: &str) -> String {
    format!(
        "global\n    nbthread 1\n    log {log} local0\ndefaults\n    mode http\n    log global\n    option httplog\n    \
         timeout connect 60s\n    timeout client 60s\n    timeout server 60s\n{rest}"
    )
    .replace("{proxy}", PROXY)
    .replace("{servers}", SERVERS)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, arguments: &[&str], address: &str, port: u16) -> Running {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("{} starts: {error}", program.display()));
    let mut running = Running(child);
    let until = Instant::now() + PATIENCE;
    while !listens(address, port) {
        let ended = running.0.try_wait().expect("waits");
        assert!(ended.is_none() && Instant::now() < until, "{} is not ready ({ended:?})", program.display());
        super::pause(5);
    }
    running
}

/// What one server has seen.
enum View {
    Recorder(Recorder),
    Log(Syslog, Vec<String>),
}

impl View {
    fn requests(&mut self) -> Vec<String> {
        match self {
            View::Recorder(recorder) => recorder.requests(),
            View::Log(syslog, seen) => {
                while let Some(line) = syslog.next(Instant::now()) {
                    seen.push(logged_request(&line));
                }
                seen.clone()
            }
        }
    }
}

/// The request line in a log line: in the last quotes, or behind nginx's tag.
fn logged_request(line: &str) -> String {
    match line.split_once("nginx: ") {
        Some((_, request)) => request.trim_end().to_owned(),
        None => line.trim_end().trim_end_matches('"').rsplit('"').next().unwrap_or_default().to_owned(),
    }
}

/// What the proxy says that it sent to each of its servers.
struct Proxy {
    log: Syslog,
    sent: [Vec<String>; 4],
}

impl Proxy {
    fn sent(&mut self, server: usize) -> Vec<String> {
        while let Some(line) = self.log.next(Instant::now()) {
            for (number, sent) in self.sent.iter_mut().enumerate() {
                if line.contains(&format!(" b{number}/s ")) {
                    sent.push(logged_request(&line));
                }
            }
        }
        self.sent[server].clone()
    }
}

fn check(program: &Path) {
    let directory = tempfile::Builder::new().prefix("ehpc-borders-").tempdir().expect("a directory");
    let in_directory = |name: &str, text: String| {
        let path = directory.path().join(name);
        let place = directory.path().to_str().expect("text");
        fs::write(
            &path,
            text.replace("{dir}", place).replace("{nginx_log}", NGINX_LOG).replace("{servers}", SERVERS),
        )
        .expect("written");
        path.to_str().expect("text").to_owned()
    };
    let mut views = [
        View::Recorder(Recorder::start(SERVERS, 9000, false)),
        View::Log(Syslog::start(NGINX_LOG), Vec::new()),
        View::Log(Syslog::start(HAPROXY_LOG), Vec::new()),
        View::Recorder(Recorder::start(SERVERS, 9004, true)),
    ];
    let behind_haproxy = Recorder::start(SERVERS, 9003, false);
    let nginx = in_directory("nginx.conf", NGINX.into());
    let _nginx = start(Path::new("/usr/sbin/nginx"), &["-c", &nginx], SERVERS, 9001);
    let haproxy = in_directory("server.cfg", haproxy_configuration(HAPROXY_LOG, SERVER_HAPROXY));
    let _haproxy = start(Path::new("/usr/sbin/haproxy"), &["-db", "-f", &haproxy], SERVERS, 9002);
    let link = directory.path().join("haproxy");
    std::os::unix::fs::symlink(program, &link).expect("linked");
    let mut proxy = Proxy { log: Syslog::start(PROXY), sent: Default::default() };
    let configuration = in_directory("proxy.cfg", haproxy_configuration(PROXY, PROXIES));
    let _proxy = start(&link, &["-db", "-f", &configuration], PROXY, 8003);

    let forms = forms::all();
    let (mut faults, mut exchanges) = (Vec::new(), 0);
    for form in &forms {
        for (server, view) in views.iter_mut().enumerate() {
            for cut in [form.bytes.len(), form.bytes.len() * 2 / 3] {
                exchanges += 1;
                faults.extend(attack(form, server, cut, exchanges, &mut proxy, view));
            }
        }
    }
    for recorder in [&behind_haproxy].into_iter().chain(views.iter().filter_map(|view| match view {
        View::Recorder(recorder) => Some(recorder),
        View::Log(..) => None,
    })) {
        faults.extend(recorder.faults());
    }
    println!("{} forms, {exchanges} exchanges, {} faults", forms.len(), faults.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Sends one form in two pieces, then a request of somebody else; what is wrong.
fn attack(
    form: &Form,
    server: usize,
    cut: usize,
    number: usize,
    proxy: &mut Proxy,
    view: &mut View,
) -> Option<String> {
    let port = 8000 + u16::try_from(server).expect("four servers");
    let (sent_before, seen_before) = (proxy.sent(server).len(), view.requests().len());
    let fault = |text: String| Some(format!("{} (server {server}, cut at {cut}): {text}", form.name));
    let strict = server != LENIENT;
    let wanted = if strict { form.seen.len().max(1) } else { 0 };
    let answers = exchange(port, &[&form.bytes[..cut], &form.bytes[cut..]], wanted);
    if strict && !answers.starts_with(b"HTTP/1.1 ") {
        return fault(format!("answered with {}", answers.escape_ascii()));
    }
    let refused = answers.starts_with(b"HTTP/1.1 4");
    if strict && refused != form.seen.is_empty() && !form.breaks_off {
        return fault(format!("answered with {}", answers.escape_ascii()));
    }
    let target = format!("/fence-{number}");
    let fence = format!("GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n");
    let answer = exchange(port, &[fence.as_bytes()], 1);
    if !answer.ends_with(format!("\r\n\r\n{target}").as_bytes()) {
        return fault(format!("the next client got {}", answer.escape_ascii()));
    }
    let mut expected: Vec<String> = form.seen.iter().map(|seen| (*seen).to_owned()).collect();
    let fence_line = format!("GET {target} HTTP/1.1");
    expected.push(fence_line.clone());
    // A server notes a request that breaks off when it has seen that; nothing else can be in another order.
    let mut broken_off = expected.clone();
    if form.breaks_off {
        broken_off.push("POST /a HTTP/1.1".into());
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let mut sent = proxy.sent(server).split_off(sent_before);
        let mut seen = view.requests().split_off(seen_before);
        if !strict {
            sent = sent.iter().map(|line| plainly(line)).collect();
            seen = seen.iter().map(|line| plainly(line)).collect();
        }
        if form.breaks_off || !strict {
            sent.sort();
            seen.sort();
        }
        let as_foretold = sent == expected || sent == broken_off;
        if sent == seen && (as_foretold || !strict && sent.contains(&plainly(&fence_line))) {
            return None;
        }
        let too_many = strict && seen.len().max(sent.len()) > broken_off.len();
        if Instant::now() > until || too_many {
            return fault(format!(
                "expected {expected:?}\n    the proxy says {sent:?}\n    the server says {seen:?}"
            ));
        }
        super::pause(1);
    }
}

/// Method and target of a request line, without what a log writes in another way and without the version, which a proxy
/// makes a valid one.
fn plainly(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let plain: String = target
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || "/:.-*".contains(*letter))
        .collect();
    format!("{method} {plain}")
}

/// Sends pieces, reads `answers` good answers (or to the end), ends sending, and reads to the end.
fn exchange(port: u16, pieces: &[&[u8]], answers: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect((PROXY, port)).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_nodelay(true).expect("set");
    for piece in pieces {
        // It may have been refused already.
        let _ = stream.write_all(piece);
    }
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    while got.windows(10).filter(|window| *window == b"HTTP/1.1 2").count() < answers {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return got,
            Ok(read) => got.extend_from_slice(&buffer[..read]),
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut got);
    got
}
