//! The product's executable as a process: started, waited for, asked, killed.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The executable under test: `$EHPC_STORE`, else the release build of this tree.
pub fn executable() -> PathBuf {
    match std::env::var_os("EHPC_STORE") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/ehpc-store"),
    }
}

/// Waits until `condition` holds; says `what` was waited for when the deadline passes.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        pause(Duration::from_millis(5));
    }
}

/// A short wait between two looks at a condition.
pub fn pause(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Runs the executable to its end.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Output> {
    Command::new(executable()).args(arguments).stdin(Stdio::null()).output().context("running ehpc-store")
}

/// A daemon that printed its `ready` line.
pub struct Daemon {
    child: Child,
    /// The `ready` line.
    pub ready: String,
    addresses: HashMap<String, String>,
}

impl Daemon {
    /// Starts the executable; its log goes to `log` (appended). Fails when it ends or is not ready in time.
    pub fn start<S: AsRef<OsStr>>(arguments: &[S], log: &Path) -> Result<Daemon> {
        Daemon::spawn(Command::new(executable()).args(arguments), log)
    }

    /// Like [`Daemon::start`] for a prepared command (other user, namespace).
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Daemon> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("ready") => {
                    let addresses = line
                        .split_whitespace()
                        .filter_map(|word| word.split_once('='))
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .collect();
                    // Keep draining, so that the daemon never blocks on a full pipe.
                    std::thread::spawn(move || while lines.recv().is_ok() {});
                    return Ok(Daemon { child, ready: line, addresses });
                }
                Ok(_) => {}
                Err(_) => {
                    let _ = child.kill();
                    let status = child.wait()?;
                    let text = std::fs::read_to_string(log).unwrap_or_default();
                    let tail: Vec<&str> = text.lines().rev().take(30).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    bail!("no ready line ({status}); the log ends:\n{}", tail.join("\n"));
                }
            }
        }
    }

    /// The value of `key=value` in the ready line, such as the address of `nfs`.
    pub fn address(&self, key: &str) -> Result<&str> {
        match self.addresses.get(key) {
            Some(value) => Ok(value),
            None => bail!("the ready line has no {key}=: {}", self.ready),
        }
    }

    /// Port of an address in the ready line.
    pub fn port(&self, key: &str) -> Result<u16> {
        let address = self.address(key)?;
        let port = address.rsplit(':').next().context("no port")?;
        Ok(port.parse()?)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the exit status.
    pub fn terminate(mut self) -> Result<i32> {
        signal(self.pid(), "TERM")?;
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            if Instant::now() > until {
                bail!("no end within 30 s of SIGTERM");
            }
            pause(Duration::from_millis(5));
        }
    }

    /// (peak resident KiB, CPU seconds so far).
    pub fn usage(&self) -> Result<(u64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmHWM")?
            .parse()?;
        Ok((peak, cpu_seconds(self.pid())?))
    }
}

/// Processor time that a process has used so far.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |at: usize| fields.get(at).context("a short /proc/PID/stat").map(|text| text.parse::<f64>());
    Ok((field(11)?? + field(12)??) / 100.0)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name to a process that we started.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    if !status.success() {
        bail!("kill -{name} {pid} failed");
    }
    Ok(())
}
