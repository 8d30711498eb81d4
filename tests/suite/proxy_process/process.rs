//! A proxy that a test has started: HAProxy's, or ours under its name.

use super::load::pause;
use crate::executable::EXECUTABLE;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A directory with a configuration, and what is started with it.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    /// Our executable, called `haproxy`.
    pub(crate) ours: PathBuf,
    starts: std::cell::Cell<usize>,
}

pub(crate) const HAPROXY: &str = "/usr/sbin/haproxy";

impl Place {
    pub(crate) fn new(configuration: &str) -> Place {
        let directory = tempfile::Builder::new().prefix("ehpc-process-").tempdir().expect("a directory");
        let ours = directory.path().join("haproxy");
        std::os::unix::fs::symlink(EXECUTABLE, &ours).expect("linked");
        let place = Place { directory, ours, starts: 0.into() };
        place.configure(configuration);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("haproxy.cfg")
    }

    /// Writes the file; `{dir}` is the directory.
    pub(crate) fn configure(&self, text: &str) {
        let text = text.replace("{dir}", &self.directory.path().display().to_string());
        fs::write(self.file(), text).expect("written");
    }

    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-f").arg(self.file()).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, program: &Path, arguments: &[&str]) -> Proxy {
        Proxy::new(self.command(program, arguments), &self.next_output())
    }

    fn next_output(&self) -> PathBuf {
        self.starts.set(self.starts.get() + 1);
        self.path(&format!("output-{}", self.starts.get()))
    }
}

/// Killed when it is dropped.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    output: PathBuf,
}

impl Proxy {
    pub(crate) fn new(mut command: Command, output: &Path) -> Proxy {
        let file = fs::File::create(output).expect("created");
        let child = command
            .stdout(file.try_clone().expect("a second descriptor"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Proxy { child, output: output.to_owned() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: &str) {
        send(signal, self.pid());
    }

    pub(crate) fn wait_until_said(&mut self, text: &str) {
        self.wait_until_said_times(text, 1);
    }

    pub(crate) fn wait_until_said_times(&mut self, text: &str, times: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.said().matches(text).count() < times {
            let ended = self.child.try_wait().expect("waits");
            assert!(
                ended.is_none() && Instant::now() < until,
                "no {text:?} ({ended:?}) in:\n{}",
                self.said()
            );
            pause();
        }
    }

    /// Waits for its own end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end; it said:\n{}", self.said());
            pause();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = self.pid();
        for child in children(pid) {
            send("KILL", child);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send(signal: &str, pid: i32) {
    let _ =
        Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Somebody listens on this port of 127.0.0.1, seen without connecting; the inode numbers of the sockets.
pub(crate) fn listening(at: SocketAddr) -> Vec<String> {
    let local = format!("0100007F:{:04X}", at.port());
    let table = fs::read_to_string("/proc/self/net/tcp").expect("read");
    let words = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words[1] == local && words[3] == "0A").map(|words| words[9].to_owned()).collect()
}

pub(crate) fn wait_listening(at: SocketAddr, proxy: &mut Proxy) {
    let until = Instant::now() + Duration::from_secs(30);
    while listening(at).is_empty() {
        let ended = proxy.child.try_wait().expect("waits");
        assert!(ended.is_none() && Instant::now() < until, "does not listen ({ended:?}):\n{}", proxy.said());
        pause();
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        pause();
    }
}
