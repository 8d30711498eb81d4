//! A network of its own, with a /run of its own: port 111 and rpcbind's socket are free there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Lives as long as this value; what still runs in it is killed with it.
pub(crate) struct Namespace {
    holder: Child,
    running: Vec<Child>,
}

impl Namespace {
    /// With a loopback interface that is up.
    pub(crate) fn new() -> Namespace {
        let prepare = "mount -t tmpfs none /run && mkdir -p /run/rpcbind && ip link set lo up && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", prepare])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs (as root)");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        assert_eq!(line, "ready\n", "a network namespace can be made");
        Namespace { holder, running: Vec::new() }
    }

    /// A command inside it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        // Its working directory must not be looked up in the other mount namespace.
        command.args(["--target", &target, "--net", "--mount", "--wd=/", "--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: its output, which must be a success.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {out}{err}");
        out.into_owned()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        command.args(words).output().expect("it runs")
    }

    /// Starts a daemon that runs until the end.
    pub(crate) fn start(&mut self, line: &str) -> u32 {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        let child =
            command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let id = child.id();
        self.running.push(child);
        id
    }

    /// Kills the daemon of this id.
    pub(crate) fn kill(&mut self, id: u32) {
        if let Some(at) = self.running.iter().position(|child| child.id() == id) {
            let mut child = self.running.remove(at);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Debian's rpcbind, answering.
    pub(crate) fn rpcbind(&mut self) -> u32 {
        let id = self.start("rpcbind -f");
        let until = Instant::now() + Duration::from_secs(30);
        while !self.run("rpcinfo -p 127.0.0.1").status.success()
            || !self.run("test -S /run/rpcbind.sock").status.success()
        {
            assert!(Instant::now() < until, "rpcbind does not answer");
        }
        id
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in self.running.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
