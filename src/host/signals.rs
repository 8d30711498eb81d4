//! Signals that a single-threaded process waits for, and forking while there is only one thread.

use rustix::process::Pid;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

pub use libc::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

/// Signals by number.
fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a sigset_t is plain data that sigemptyset fills in; sigaddset refuses numbers that are no signals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn mask(how: libc::c_int, signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: the set is whole; only the calling thread's mask changes. The arguments cannot be refused.
    unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) };
}

/// The calling thread, and those it starts, do not take these signals: they stay pending.
pub fn block(signals: &[i32]) {
    mask(libc::SIG_BLOCK, signals);
}

/// The calling thread takes these signals again.
pub fn unblock(signals: &[i32]) {
    mask(libc::SIG_UNBLOCK, signals);
}

/// These signals do nothing.
pub fn ignore(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: SIG_IGN is no function of ours; a number that is no signal is refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// These signals do what they do to any process.
pub fn restore_default(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: SIG_DFL is no function of ours; a number that is no signal is refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Waits for one of these signals, which must be blocked; `None` when none came in time (`None`: no limit).
pub fn wait(signals: &[i32], at_most: Option<Duration>) -> io::Result<Option<i32>> {
    let set = set_of(signals);
    let time = at_most.map(|at_most| libc::timespec {
        tv_sec: libc::time_t::try_from(at_most.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(at_most.subsec_nanos().cast_signed()),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    loop {
        // SAFETY: the set is whole, no information is asked for, the time is null or lives during the call.
        let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), time) };
        if signal > 0 {
            return Ok(Some(signal));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// Ends this process as that signal does when nobody handles it; returns only if the kernel refuses.
pub fn end_by(signal: i32) {
    restore_default(&[signal]);
    unblock(&[signal]);
    // SAFETY: plain integers.
    unsafe { libc::raise(signal) };
}

/// Becomes another program; returns only when that fails. What is blocked or ignored stays so, unlike with
/// `std::process::Command`: no signal is lost or deadly on the way. `program` is a path.
pub fn become_program(
    program: &OsStr,
    arguments: &[OsString],
    variables: &[(OsString, OsString)],
) -> io::Error {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
    let prepared = (|| {
        let program = text(program.as_bytes())?;
        let arguments: Vec<CString> =
            arguments.iter().map(|word| text(word.as_bytes())).collect::<io::Result<_>>()?;
        let variables: Vec<CString> = variables
            .iter()
            .map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect::<io::Result<_>>()?;
        Ok((program, arguments, variables))
    })();
    let (program, arguments, variables) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let list = |words: &[CString]| {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
    };
    let (arguments, variables) = (list(&arguments), list(&variables));
    // SAFETY: three strings and lists of strings that end with NUL, the lists with a null; all live during the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
    io::Error::last_os_error()
}

/// Which side of a fork this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forked {
    /// The process that forked; the new one's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a copy of this process. Refused when it has more than one thread: locks that another thread holds would
/// stay held for ever in the copy.
pub fn fork() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("this process has {threads} threads and cannot fork")));
    }
    // SAFETY: there is one thread, so no lock of the C library or of ours is held by anybody else.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        id => match Pid::from_raw(id) {
            Some(pid) if id > 0 => Ok(Forked::Parent(pid)),
            _ => Err(io::Error::last_os_error()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test harness has some.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        assert!(fork().unwrap_err().to_string().contains("threads"));
        drop(hold);
        let _ = thread.join();
    }

    #[test]
    fn a_blocked_signal_is_waited_for() {
        const SIGNAL: i32 = libc::SIGURG;
        block(&[SIGNAL]);
        assert_eq!(wait(&[SIGNAL], Some(Duration::ZERO)).unwrap(), None);
        // SAFETY: the calling thread, which blocks this signal.
        unsafe { libc::pthread_kill(libc::pthread_self(), SIGNAL) };
        assert_eq!(wait(&[SIGNAL], Some(Duration::from_secs(5))).unwrap(), Some(SIGNAL));
    }
}
