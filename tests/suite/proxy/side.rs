//! One of the two that are compared: a proxy process with servers, a log and a directory of its own.

use super::backend::{self, Board};
use super::case::{Case, Group};
use super::client;
use super::compare;
use super::syslog::Syslog;
use super::web::{Kind, Web};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A log line that says: what came before is all.
const FENCE: &str = "\nfrontend fence\n    mode http\n    log global\n    option httplog\n    timeout client 5s\n    bind {ip}:8\n";

pub(crate) struct Side {
    child: Child,
    address: String,
    source: String,
    board: Arc<Board>,
    syslog: Syslog,
    pooled: bool,
    standard_error: PathBuf,
    _webs: Vec<Web>,
    _directory: tempfile::TempDir,
}

impl Side {
    /// Starts `program` (called `haproxy`) with the group's configuration on 10.1.`number`.`host`.
    pub(crate) fn start(program: &Path, group: &Group, number: usize, host: u8) -> Result<Side, String> {
        let directory = tempfile::Builder::new().prefix("ehpc-peers-").tempdir().expect("a directory");
        let address = format!("10.1.{number}.{host}");
        for status in [400, 403, 404, 408, 500, 502, 503, 504] {
            let page =
                format!("HTTP/1.0 {status} From-File\r\nX-File: {status}\r\nContent-Length: 4\r\n\r\nfile");
            fs::write(directory.path().join(format!("{status}.http")), page).expect("written");
        }
        // As Debian's.
        let page = "HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<html>page</html>\n\n";
        fs::write(directory.path().join("debian.http"), page).expect("written");
        let text = format!("{}{FENCE}", group.configuration)
            .replace("{ip}", &address)
            .replace("{dir}", &directory.path().display().to_string());
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).expect("written");
        let link = directory.path().join("haproxy");
        std::os::unix::fs::symlink(program, &link).expect("linked");
        let standard_error = directory.path().join("stderr");
        let output = fs::File::create(&standard_error).expect("created");
        let board = backend::start(&address);
        let syslog = Syslog::start(&address);
        let webs = match group.real {
            true => vec![
                Web::start(Kind::Nginx, "web1", &address, 9101, directory.path()),
                Web::start(Kind::Gunicorn, "web2", &address, 9102, directory.path()),
            ],
            false => vec![],
        };
        let child = Command::new(&link)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second descriptor"))
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let source = format!("10.1.{number}.1");
        let pooled = group.pooled;
        let mut side = Side {
            child,
            address,
            source,
            board,
            syslog,
            pooled,
            standard_error,
            _webs: webs,
            _directory: directory,
        };
        side.wait_ready()?;
        Ok(side)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(10);
        while !listens(&self.address, 8) {
            let ended = self.child.try_wait().expect("waits");
            if ended.is_some() || Instant::now() > until {
                let said = fs::read_to_string(&self.standard_error).unwrap_or_default();
                return Err(format!("is not ready ({ended:?}); it says:\n{said}"));
            }
            super::pause(5);
        }
        Ok(())
    }

    /// Runs one case: what the client, the servers and the log saw, as comparable text.
    pub(crate) fn run(&mut self, case: &Case) -> String {
        self.syslog.drain();
        self.board.begin(&case.answers);
        let source = if case.loopback { "127.0.0.1" } else { &self.source };
        let got = client::run(case, source, &self.address, &self.board);
        let mut lines = self.lines(case.logs);
        if !self.pooled {
            self.board.wait(Duration::from_secs(3), |seen| seen.iter().all(|seen| seen.ended));
        }
        lines.extend(self.fence());
        let seen = self.board.seen();
        self.board.hang_up();
        if let Ok(Some(status)) = self.child.try_wait() {
            return format!("THE PROXY ENDED ({status})");
        }
        compare::transcript(&self.address, &got, &seen, &lines, self.pooled)
    }

    fn lines(&self, wanted: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(8);
        let mut lines = Vec::new();
        while lines.len() < wanted {
            match self.syslog.next(until) {
                Some(line) => lines.push(line),
                None => {
                    lines.push(format!("TIMEOUT: {} of {wanted} log lines", lines.len()));
                    break;
                }
            }
        }
        lines
    }

    /// A request of our own; the lines that come before its line.
    fn fence(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let asked = TcpStream::connect((self.address.as_str(), 8)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /fence HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())
        });
        if let Err(error) = asked {
            return vec![format!("TIMEOUT: no answer to the fence: {error}")];
        }
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            match self.syslog.next(until) {
                Some(line) if line.contains(" fence fence/") => return lines,
                Some(line) => lines.push(line),
                None => {
                    lines.push("TIMEOUT: no log line of the fence".into());
                    return lines;
                }
            }
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody listens there, seen without connecting.
pub(crate) fn listens(address: &str, port: u16) -> bool {
    listens_in(std::process::id(), address, port)
}

/// Likewise in the network of a process.
pub(crate) fn listens_in(process: u32, address: &str, port: u16) -> bool {
    // The kernel shows an address as the number that a little-endian machine holds.
    let [a, b, c, d] = address.parse::<Ipv4Addr>().expect("an address").octets();
    let local = format!("{d:02X}{c:02X}{b:02X}{a:02X}:{port:04X}");
    fs::read_to_string(format!("/proc/{process}/net/tcp")).is_ok_and(|text| {
        text.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(&local) && words.nth(1) == Some("0A")
        })
    })
}
