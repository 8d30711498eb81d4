//! A proxy that runs as a daemon and is reloaded, the old way (`-sf`) or by its master (`-W`).

use super::side;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// `-D`, reloaded by a new process with `-sf`.
    Finish,
    /// `-W`, reloaded by SIGUSR2.
    Master,
}

pub(crate) struct Running {
    program: PathBuf,
    directory: PathBuf,
    style: Style,
    /// Further arguments of a reload with `-sf`.
    take_over: Vec<String>,
    master: Option<Child>,
    ours: Vec<u32>,
}

impl Running {
    /// Starts `program`, called haproxy, with this configuration, and waits until it listens on `address:port`.
    pub(crate) fn start(
        program: &Path,
        configuration: &str,
        directory: &Path,
        style: Style,
        at: (&str, u16),
    ) -> Running {
        let link = link(program, directory);
        fs::write(directory.join("haproxy.cfg"), configuration).expect("written");
        let directory = directory.to_owned();
        let mut running =
            Running { program: link, directory, style, take_over: vec![], master: None, ours: vec![] };
        match style {
            Style::Finish => running.daemon(&[]),
            Style::Master => {
                let mut command = running.command();
                running.master = Some(command.arg("-W").spawn().expect("the proxy starts"));
            }
        }
        let until = Instant::now() + Duration::from_secs(10);
        while !side::listens(at.0, at.1) || running.workers().is_empty() {
            assert!(Instant::now() < until, "the proxy does not listen: {}", running.said());
            super::pause(5);
        }
        running.ours.extend(running.workers());
        running
    }

    /// What HAProxy needs besides `-sf` so that no connection is lost.
    pub(crate) fn with_take_over(mut self, arguments: &[&str]) -> Running {
        self.take_over = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// The next reload starts this program instead, with these arguments besides `-sf`.
    pub(crate) fn become_next(&mut self, program: &Path, arguments: &[&str]) {
        self.program = link(program, &self.directory);
        self.take_over = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    fn command(&self) -> Command {
        let said = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("said"))
            .expect("opened");
        let mut command = Command::new(&self.program);
        command.arg("-f").arg(self.directory.join("haproxy.cfg")).arg("-p").arg(self.directory.join("pid"));
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("cloned")).stderr(said);
        command
    }

    fn daemon(&self, more: &[String]) {
        let status = self.command().arg("-D").args(more).status().expect("the proxy starts");
        assert!(status.success(), "the proxy ended with {status}: {}", self.said());
    }

    /// What it printed.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.directory.join("said")).unwrap_or_default()
    }

    /// Processes that serve now (old ones that finish are among the master's).
    pub(crate) fn workers(&self) -> Vec<u32> {
        match &self.master {
            Some(master) => children(master.id()),
            None => fs::read_to_string(self.directory.join("pid"))
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect(),
        }
    }

    /// The master's process.
    pub(crate) fn master(&self) -> Option<u32> {
        self.master.as_ref().map(Child::id)
    }

    /// Reloads, and waits until a new process serves; the old ones.
    pub(crate) fn reload(&mut self) -> Vec<u32> {
        let old = self.workers();
        match self.style {
            Style::Finish => {
                let mut more = self.take_over.clone();
                more.push("-sf".into());
                more.extend(old.iter().map(u32::to_string));
                self.daemon(&more);
            }
            Style::Master => {
                let master = self.master().expect("has one").to_string();
                assert!(Command::new("kill").args(["-USR2", &master]).status().expect("kill runs").success());
            }
        }
        let until = Instant::now() + Duration::from_secs(15);
        while !self.workers().iter().any(|worker| !old.contains(worker)) {
            assert!(Instant::now() < until, "no new process after a reload: {}", self.said());
            super::pause(5);
        }
        let workers = self.workers();
        // HAProxy cannot be taken over from before its admin socket answers.
        if let Some(socket) = self.take_over.get(1) {
            while !workers.iter().any(|pid| answers(socket, *pid)) {
                assert!(Instant::now() < until, "the new process does not answer: {}", self.said());
                super::pause(5);
            }
        }
        self.ours.extend(workers);
        old
    }

    /// Waits until these processes have ended.
    pub(crate) fn wait_ended(&self, old: &[u32]) {
        let until = Instant::now() + Duration::from_secs(30);
        while old.iter().any(|pid| alive(*pid)) {
            assert!(Instant::now() < until, "old processes do not end: {old:?}: {}", self.said());
            super::pause(20);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let workers = self.workers();
        if let Some(master) = &mut self.master {
            let _ = master.kill();
            let _ = master.wait();
        }
        for pid in self.ours.iter().chain(&workers).filter(|pid| alive(**pid)) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// The program under HAProxy's name: ours takes this role then.
fn link(program: &Path, directory: &Path) -> PathBuf {
    let of = program.file_name().expect("a name").to_str().expect("text");
    let place = directory.join(format!("{of}-link"));
    fs::create_dir_all(&place).expect("made");
    let link = place.join("haproxy");
    if !link.exists() {
        std::os::unix::fs::symlink(program, &link).expect("linked");
    }
    link
}

/// The process behind the admin socket is this one.
fn answers(socket: &str, pid: u32) -> bool {
    let mut answer = String::new();
    UnixStream::connect(socket).is_ok_and(|mut stream| {
        stream.write_all(b"show info\n").is_ok() && stream.read_to_string(&mut answer).is_ok()
    }) && answer.contains(&format!("Pid: {pid}\n"))
}

/// It runs (a zombie does not).
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
        text.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    found.retain(|pid| alive(*pid));
    found
}

/// (resident KiB, open descriptors) of a process.
pub(crate) fn footprint(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    (kib, fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
}
