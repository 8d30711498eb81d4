//! The guide's haproxy.cfg, byte for byte, as it stands there: /dev/log, chroot, daemon, error files, checks, cookies,
//! on port 80 in front of two web servers on another machine (a second network namespace).

use super::message::{self, Kind};
use super::web::{self, Web};
use super::{inside, pause, running};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUIDE: &str = include_str!("../../../config/haproxy.cfg");
const OURS: &str = "10.182.15.1";

/// The other machine.
struct Machine(Child);

impl Machine {
    fn new() -> Machine {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let machine = Machine(child);
        let pid = machine.0.id().to_string();
        for arguments in [
            vec!["ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", &pid],
            vec!["ip", "addr", "add", "10.182.15.1/24", "dev", "here"],
            vec!["ip", "link", "set", "here", "up"],
            vec!["nsenter", "-t", &pid, "-n", "ip", "addr", "add", "10.182.15.51/24", "dev", "there"],
            vec!["nsenter", "-t", &pid, "-n", "ip", "addr", "add", "10.182.15.52/24", "dev", "there"],
            vec!["nsenter", "-t", &pid, "-n", "ip", "link", "set", "there", "up"],
        ] {
            let status = Command::new(arguments[0]).args(&arguments[1..]).status().expect("ip runs");
            assert!(status.success(), "{arguments:?}");
        }
        machine
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One GET: (status, server's name, the cookie that was set, body).
fn get(address: &str, cookie: &str) -> (String, String, Option<String>, String) {
    let mut stream = TcpStream::connect((address, 80)).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    write!(stream, "GET /x HTTP/1.1\r\nHost: guide\r\n{cookie}\r\n").expect("sent");
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while message::length(&bytes, Kind::Response { bodiless: false }).is_none() {
        match stream.read(&mut buffer).expect("answered in time") {
            0 => break,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    let head = message::head_length(&bytes).expect("a response");
    let header = |name| message::header(&bytes[..head], name);
    let status = String::from_utf8_lossy(&bytes[9..12]).into_owned();
    let body = String::from_utf8_lossy(&bytes[head..]).into_owned();
    (status, header("x-web").unwrap_or_default(), header("set-cookie"), body)
}

/// Lines of the log until one contains all of these.
fn await_line(log: &UnixDatagram, texts: &[&str]) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while Instant::now() < until {
        if let Ok(read) = log.recv(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..read]).into_owned();
            if texts.iter().all(|text| line.contains(text)) {
                return line;
            }
            seen.push(line);
        }
    }
    panic!("no line with {texts:?} within 30 s, but {seen:#?}");
}

struct Guide {
    log: UnixDatagram,
    webs: [Web; 2],
    pid: u32,
    _machine: Machine,
    _directory: tempfile::TempDir,
}

impl Guide {
    fn start(program: &Path, configuration: &str, log: &str) -> Guide {
        let directory = tempfile::Builder::new().prefix("ehpc-guide-").tempdir().expect("a directory");
        let log = UnixDatagram::bind(log).expect("this directory is ours");
        log.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        let machine = Machine::new();
        let namespace = machine.0.id();
        let webs = ["web1", "web2"].map(|name| {
            let address = if name == "web1" { "10.182.15.51" } else { "10.182.15.52" };
            Web::start_in(namespace, web::Kind::Nginx, name, address, 80, directory.path())
        });
        let link = directory.path().join("haproxy");
        std::os::unix::fs::symlink(program, &link).expect("linked");
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).expect("written");
        let output = Command::new(&link)
            .arg("-f")
            .arg(&file)
            .arg("-p")
            .arg(directory.path().join("pid"))
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pid = std::fs::read_to_string(directory.path().join("pid")).expect("a pid file");
        let pid = pid.trim().parse().expect("one process");
        Guide { log, webs, pid, _machine: machine, _directory: directory }
    }

    fn run(mut self) {
        let root = std::fs::read_link(format!("/proc/{}/root", self.pid)).expect("it runs");
        assert_eq!(root, Path::new("/var/lib/haproxy"));
        // Both in turn, each with its cookie; the cookie is obeyed and not given again.
        let answers = [get(OURS, ""), get(OURS, "")];
        assert_ne!(answers[0].1, answers[1].1, "{answers:?}");
        for (status, server, cookie, body) in answers {
            let letter = if server == "web1" { "A" } else { "B" };
            assert_eq!((status.as_str(), body.as_str()), ("200", "/x"));
            assert_eq!(cookie.as_deref(), Some(format!("SESSION_ID={letter}; path=/").as_str()));
            let again = get(OURS, &format!("SESSION_ID={letter}"));
            assert_eq!((again.1.as_str(), again.2), (server.as_str(), None));
        }
        let line = await_line(&self.log, &["dynamic/web1", "\"GET /x HTTP/1.1\"", "--VN"]);
        assert!(
            line.starts_with("<134>") && line.contains(&format!("haproxy[{}]: {OURS}:", self.pid)),
            "{line}"
        );
        // A sticky client of a dead server is moved, and told; the state is logged to both.
        self.webs[0].kill();
        let moved = get(OURS, "SESSION_ID=A");
        assert_eq!((moved.0.as_str(), moved.1.as_str()), ("200", "web2"));
        assert_eq!(moved.2.as_deref(), Some("SESSION_ID=B; path=/"));
        await_line(&self.log, &["--DI", "dynamic/web2"]);
        let down = await_line(&self.log, &["Server dynamic/web1 is DOWN", "Layer4 connection problem"]);
        assert!(down.starts_with("<129>") || down.starts_with("<137>"), "{down}");
        // Nobody left: the file's page.
        self.webs[1].kill();
        await_line(&self.log, &["Server dynamic/web2 is DOWN"]);
        await_line(&self.log, &["backend dynamic has no server available!"]);
        let page = std::fs::read_to_string("/etc/haproxy/errors/503.http").expect("Debian's page");
        let nobody = get(OURS, "");
        assert_eq!(nobody.0, "503");
        assert_eq!(
            nobody.3.trim(),
            page.split_once("\r\n\r\n").or(page.split_once("\n\n")).expect("a body").1.trim()
        );
        await_line(&self.log, &["dynamic/<NOSRV>", " 503 "]);
        // They come back.
        self.webs[0].restart();
        await_line(&self.log, &["Server dynamic/web1 is UP", "Layer4 check passed"]);
        assert_eq!(get(OURS, "").1, "web1");
        // Told to finish, it does.
        let told = Command::new("kill").args(["-USR1", &self.pid.to_string()]).status().expect("kill runs");
        assert!(told.success());
        let until = Instant::now() + Duration::from_secs(20);
        while running::alive(self.pid) {
            assert!(Instant::now() < until, "it does not end");
            pause(20);
        }
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        if running::alive(self.pid) {
            let _ = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
        }
    }
}

/// The scene itself, with the five words that HAProxy 2.6 no longer reads in today's spelling.
#[test]
fn haproxy_runs_the_guide_respelled() {
    inside::inside_with_devices("proxy::whole_guide::haproxy_runs_the_guide_respelled", || {
        let mut text = GUIDE
            .replace("frontend  proxy *:80", "frontend proxy\n bind *:80\n")
            .replace("maxconn 20000", "maxconn 2000");
        for (old, new) in [
            ("contimeout", "timeout connect"),
            ("clitimeout", "timeout client"),
            ("srvtimeout", "timeout server"),
        ] {
            text = text.replace(old, new);
        }
        // It connects when it is in its chroot already.
        Guide::start(&super::haproxy(), &text, "/var/lib/haproxy/dev/log").run();
    });
}

#[test]
fn runs_the_guide_byte_for_byte() {
    inside::inside_with_devices("proxy::whole_guide::runs_the_guide_byte_for_byte", || {
        Guide::start(&ehpc_tools::process::executable(), GUIDE, "/dev/log").run();
    });
}
