//! What the processes before this one leave to it: listening sockets, states of servers; and telling them to go.

use super::arguments::Arguments;
use super::inherited::Inherited;
use super::notices::Notices;
use super::{adopt, handover, sockets};
use crate::host::signals::{SIGTERM, SIGUSR1};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// As HAProxy waits for the sockets of an old process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gathers from `-x` and from the old processes. What cannot be had is told and done without.
pub(super) fn from_old(arguments: &Arguments, inherited: &mut Inherited, notices: Notices) -> String {
    if let Some(path) = &arguments.sockets_from {
        match through(path) {
            Ok(descriptors) => inherited.add_all(descriptors),
            Err(error) => notices.warning(&format!(
                "-x {}: cannot take the listening sockets: {error} (it must be a `stats socket` with `expose-fd listeners`)",
                path.display()
            )),
        }
    }
    let mut states = String::new();
    for &pid in &arguments.old {
        for member in adopt::family(pid) {
            match from_one(member, inherited) {
                Ok(found) if states.is_empty() => states = found,
                Ok(_) => {}
                // A process that is gone has nothing to lose.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(error) => {
                    notices.warning(&format!("process {member}: cannot take its listening sockets: {error}"));
                }
            }
        }
    }
    states
}

/// Sockets and server states of a process: by its own hand, or else without asking it.
pub(super) fn from_one(pid: i32, inherited: &mut Inherited) -> io::Result<String> {
    let (descriptors, states) = match handover::request(pid) {
        Ok(Some(estate)) => (estate.sockets, estate.states),
        // It does not hand over, or another process has that name (process numbers repeat in containers).
        Ok(None) | Err(_) => (adopt::sockets_of(pid)?, String::new()),
    };
    inherited.add_all(descriptors);
    Ok(states)
}

fn through(path: &Path) -> io::Result<Vec<std::os::fd::OwnedFd>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    (&stream).write_all(sockets::COMMAND)?;
    sockets::receive(&stream)
}

/// Tells the old processes to finish, or to end.
pub(super) fn dismiss(arguments: &Arguments, notices: Notices) {
    let signal = if arguments.terminate_old { SIGTERM } else { SIGUSR1 };
    for &pid in &arguments.old {
        if let Err(error) = send_signal(pid, signal)
            && error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error())
        {
            notices.warning(&format!("process {pid}: cannot tell it to go: {error}"));
        }
    }
}

/// Sends a signal to one process.
pub(super) fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}
