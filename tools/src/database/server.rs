//! A server process: it dies with the test that started it, and is waited for by its greeting.

use crate::process::wait_until;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// How long a server may take to start or to stop.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory, removed with its owner.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Result<Scratch> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where peers and templates are kept between runs.
pub(super) fn peers() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    std::fs::create_dir_all(&path)?;
    Ok(path.canonicalize()?)
}

/// Makes `target/peers/NAME` once, whatever number of tests ask at the same time; `make` fills the empty directory
/// that it is given.
pub(super) fn once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let peers = peers()?;
    let (done, partial) = (peers.join(name), peers.join(format!("{name}.partial")));
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(peers.join("lock"))?;
    lock.lock()?;
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir(&partial)?;
        make(&partial)?;
        std::fs::rename(&partial, &done)?;
    }
    Ok(done)
}

/// Copies a directory with everything in it; blocks are shared where the file system can.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto", "--sparse=always"]).args([from, to]))
}

/// Runs a command to its end; its output is in the error.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} does not start"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?}: {}\n{out}{err}", output.status);
    }
    Ok(())
}

/// A running server.
pub(super) struct Process {
    pid: u32,
    /// Behind a lock, so that a server can be shared between threads.
    ended: Mutex<mpsc::Receiver<ExitStatus>>,
}

impl Process {
    /// Starts `command` under `setpriv --pdeathsig KILL` and waits for the greeting at `socket`; its output is
    /// appended to `log`. The thread that starts it lives as long as the server does: the kernel sends that signal at
    /// the *thread's* end.
    pub(super) fn start(command: &Command, socket: &Path, log: &Path) -> Result<Process> {
        let _ = std::fs::remove_file(socket);
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let mut whole = Command::new("setpriv");
        whole.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            whole.env(name, value.unwrap_or_default());
        }
        whole.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let (started, start) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || match whole.spawn() {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                if let Ok(status) = child.wait() {
                    let _ = end.send(status);
                }
            }
            Err(error) => {
                let _ = started.send(Err(anyhow!("{whole:?} does not start: {error}")));
            }
        });
        let process = Process { pid: start.recv()??, ended: Mutex::new(ended) };
        let mut over = None;
        let ready = wait_until("the server's greeting", PATIENCE, || {
            over = over.or_else(|| process.ended.lock().ok()?.try_recv().ok());
            over.is_some() || greets(socket)
        });
        let fault = match (over, ready) {
            (Some(status), _) => anyhow!("the server ended: {status}"),
            (None, Ok(_)) => return Ok(process),
            (None, Err(late)) => {
                let _ = crate::process::signal(process.pid, "KILL");
                late
            }
        };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(25).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{fault}; its log ends:\n{}", tail.join("\n"));
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `signal` and waits for the end.
    pub(super) fn end(self, signal: &str) -> Result<()> {
        let ended = self.ended.into_inner().map_err(|_| anyhow!("a thread panicked"))?;
        if ended.try_recv().is_ok() {
            return Ok(());
        }
        crate::process::signal(self.pid, signal)?;
        ended.recv_timeout(PATIENCE).with_context(|| format!("no end after SIG{signal}"))?;
        Ok(())
    }
}

/// A server that greets (protocol version 10) has recovered and takes connections.
fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut head = [0; 5];
    stream.read_exact(&mut head).is_ok() && head[4] == 10
}

/// A TCP port of the loopback address that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
