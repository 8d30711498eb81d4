//! The executable that cargo has just built: run to its end, or started and ended as a daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// It.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_ehpc-store");

pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(EXECUTABLE).args(arguments).stdin(Stdio::null()).output().expect("the executable runs")
}

pub(crate) fn status(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A daemon that is killed when the test ends.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) lines: mpsc::Receiver<String>,
    ready: String,
}

impl Daemon {
    pub(crate) fn start(arguments: &[&str]) -> Daemon {
        let mut command = Command::new(EXECUTABLE);
        command.args(arguments);
        Daemon::started_by(command)
    }

    /// Started by a command that becomes the executable.
    pub(crate) fn started_by(mut command: Command) -> Daemon {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable runs");
        let (send, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let mut daemon = Daemon { child, lines, ready: String::new() };
        match daemon.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if line.starts_with("ready ") => daemon.ready = line,
            other => {
                let _ = daemon.child.kill();
                let mut log = String::new();
                let _ = daemon.child.stderr.take().expect("piped").read_to_string(&mut log);
                panic!("{other:?} instead of ready:\n{log}");
            }
        }
        // Keep draining, so that the daemon never waits for its log's reader.
        let mut stderr = daemon.child.stderr.take().expect("piped");
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        daemon
    }

    pub(crate) fn address(&self, key: &str) -> String {
        let found = self
            .ready
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .find(|(name, _)| *name == key);
        found.unwrap_or_else(|| panic!("no {key}= in {}", self.ready)).1.to_owned()
    }

    pub(crate) fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let until = Instant::now() + Duration::from_secs(30);
        let (_keep, never) = mpsc::channel::<()>();
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code().unwrap_or(-1);
            }
            let _ = never.recv_timeout(Duration::from_millis(5));
        }
        panic!("no end within 30 s of SIGTERM");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

pub(crate) fn up(data: &Path) -> Daemon {
    Daemon::start(&["up", "--any-ports", "--no-web", "--data", data.to_str().expect("text")])
}

pub(crate) fn wait_healthy(data: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let output = run(&["status", "--data", data]);
        if status(&output) == 0 {
            return;
        }
        assert!(Instant::now() < until, "not healthy: {}{}", text(&output.stdout), text(&output.stderr));
    }
}
