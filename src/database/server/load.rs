//! SQL text into a server through its own client program.

use super::error::ServerError;
use super::tools::Program;
use crate::database::dsn::Dsn;
use crate::host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What is kept of a program's messages, bytes.
const SAID: usize = 16 << 10;
const PIECE: usize = 256 << 10;
/// Whether to stop is looked at so often, however long a statement takes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How a text is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Nothing of it is written to the target's binary log.
    pub unlogged: bool,
}

/// A running client program: what is written to it is run by the server. Dropped before [`Client::finish`], it is
/// killed.
pub struct Client {
    program: Program,
    child: Child,
    input: Option<ChildStdin>,
    said: Option<JoinHandle<String>>,
}

impl Client {
    /// Starts the client program against `dsn`. The thread that calls must live until the client has ended: the client
    /// ends with it.
    pub fn start(program: &Program, dsn: &Dsn, options: LoadOptions) -> Result<Client, ServerError> {
        let mut command = program.command();
        with_credentials(&mut command, dsn)?;
        command
            .args(["--batch", "--binary-mode", "--max-allowed-packet=1G", "--default-character-set=utf8mb4"])
            .args(["--connect-timeout=30", "--skip-reconnect"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        host::end_with_parent(&mut command);
        let start = |source| ServerError::Start { program: program.path.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let input = child.stdin.take();
        if let Some(input) = &input {
            rustix::fs::fcntl_setfl(input, OFlags::WRONLY | OFlags::NONBLOCK)
                .map_err(|error| start(error.into()))?;
        }
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || last_words(stderr)));
        let mut client = Client { program: program.clone(), child, input, said };
        if options.unlogged {
            client.write(b"SET SESSION sql_log_bin = 0;\n", &AtomicBool::new(false))?;
        }
        Ok(client)
    }

    /// The next piece of text. An error when the client has ended: then it says why. `stop` ends the wait for a server that is
    /// busy.
    pub fn write(&mut self, mut text: &[u8], stop: &AtomicBool) -> Result<(), ServerError> {
        while !text.is_empty() {
            let Some(input) = self.input.as_mut() else { return Err(ServerError::Stopped) };
            match input.write(text) {
                Ok(count) => text = &text[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stop.load(Ordering::Relaxed) {
                        return Err(ServerError::Stopped);
                    }
                    ready(input, PollFlags::OUT);
                }
                Err(_) => return Err(self.left()),
            }
        }
        Ok(())
    }

    /// Why it has ended, before it had read everything.
    fn left(&mut self) -> ServerError {
        self.input = None;
        self.ended().err().unwrap_or_else(|| ServerError::Failed {
            program: self.program.path.clone(),
            status: "it ended".to_owned(),
            said: "before it had read everything".to_owned(),
        })
    }

    /// Everything that `source` has, in pieces; `progress` is told the bytes so far.
    pub fn load(
        &mut self,
        source: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
        stop: &AtomicBool,
    ) -> Result<u64, ServerError> {
        let (mut buffer, mut total) = (vec![0; PIECE], 0);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(ServerError::Stopped);
            }
            match source.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    self.write(&buffer[..count], stop)?;
                    total += count as u64;
                    progress(total);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ServerError::Source(error)),
            }
        }
    }

    /// No more text: waits until everything has run, or until `stop`.
    pub fn finish(mut self, stop: &AtomicBool) -> Result<(), ServerError> {
        self.input = None;
        let start =
            |error: io::Error| ServerError::Start { program: self.program.path.clone(), source: error };
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let process = process.map_err(|error| start(error.into()))?;
        while self.child.try_wait().map_err(start)?.is_none() {
            if stop.load(Ordering::Relaxed) {
                return Err(ServerError::Stopped);
            }
            ready(&process, PollFlags::IN);
        }
        self.ended()
    }

    fn ended(&mut self) -> Result<(), ServerError> {
        let program = self.program.path.clone();
        let status =
            self.child.wait().map_err(|source| ServerError::Start { program: program.clone(), source })?;
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(ServerError::Failed { program, status: status.to_string(), said })
    }
}

/// Waits a while for a descriptor.
fn ready(what: impl AsFd, for_what: PollFlags) {
    // An error is found by whoever uses it next.
    let _ = poll(&mut [PollFd::new(&what, for_what)], Some(&LOOK));
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Address, account and password in a nameless file that the child inherits; it must be the first argument.
pub(crate) fn with_credentials(command: &mut std::process::Command, dsn: &Dsn) -> Result<(), ServerError> {
    let text = dsn.option_file().map_err(|error| ServerError::Password(error.to_string()))?;
    let start = |source| ServerError::Start { program: command.get_program().into(), source };
    let file = host::nameless_file("credentials", text.as_bytes()).map_err(start)?;
    let number = host::leave_open(command, file);
    command.arg(format!("--defaults-file=/dev/fd/{number}"));
    Ok(())
}

/// The end of what a program says, at most [`SAID`] bytes; read to its end, so that the program never waits.
pub(crate) fn last_words(mut stderr: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * SAID {
            kept.drain(..kept.len() - SAID);
        }
    }
    let from = kept.len().saturating_sub(SAID);
    String::from_utf8_lossy(&kept[from..]).trim().to_owned()
}
