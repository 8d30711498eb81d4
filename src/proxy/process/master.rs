//! The master of `-W`: one thread, root, outside of the chroot. It holds the listening sockets, starts a worker,
//! and on SIGUSR2 or SIGHUP becomes itself anew (execve), so that a new file, and a new program, take effect.
//! A file that does not load leaves everything as it is.

use super::arguments::Arguments;
use super::gather::{self, send_signal};
use super::inherited::Inherited;
use super::notices::Notices;
use super::open::OpenBind;
use super::service_manager::ServiceManager;
use super::start::{self, Failure, Plan, Side};
use super::worker::{CONTROL, Worker};
use crate::host::descriptors::{keep_across_exec, take_inherited};
use crate::host::signals::{self, Forked, SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitOptions, WaitStatus};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

/// How a master that becomes itself anew tells what it holds.
const PAST: &str = "EHPC_PROXY_PAST";
/// A worker that has not started by then never will.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a master knew before it became itself anew.
#[derive(Debug, Default)]
pub(super) struct Past {
    sockets: Vec<OwnedFd>,
    /// Workers that live, and which reload started each; the highest serves.
    workers: BTreeMap<i32, u32>,
    reloads: u32,
    daemon: bool,
}

impl Past {
    /// Read once, at the start; `None`: this is the first.
    pub(super) fn of_environment() -> Option<Past> {
        let text = std::env::var(PAST).ok()?;
        let mut past = Past::default();
        // `daemon reloads pid,pid:reload,... fd,fd,...`: written by `describe`, for this process id only.
        let mut words = text.split(' ');
        if words.next()?.parse::<u32>().ok()? != std::process::id() {
            return None;
        }
        past.daemon = words.next()? == "daemon";
        past.reloads = words.next()?.parse().ok()?;
        for worker in words.next()?.split(',').filter(|word| !word.is_empty()) {
            let (pid, reload) = worker.split_once(':')?;
            past.workers.insert(pid.parse().ok()?, reload.parse().ok()?);
        }
        for number in words.next()?.split(',').filter_map(|word| word.parse().ok()) {
            past.sockets.extend(take_inherited(number));
        }
        Some(past)
    }

    /// The sockets, and the states of servers from the worker that serves.
    pub(super) fn gather(&self, inherited: &mut Inherited, notices: Notices) -> String {
        for socket in &self.sockets {
            match socket.try_clone() {
                Ok(copy) => inherited.add_all([copy]),
                Err(error) => notices.warning(&format!("a listening socket cannot be kept: {error}")),
            }
        }
        let serving = self.workers.iter().max_by_key(|(_, reload)| **reload).map(|(pid, _)| *pid);
        serving.map_or_else(String::new, |pid| gather::from_one(pid, inherited).unwrap_or_default())
    }
}

/// What became of a worker.
enum Started {
    Yes,
    /// It did not start; those before it go on.
    No,
    /// This process is the worker, at its end.
    Here(ExitCode),
}

struct Master {
    program: OsString,
    arguments: Arguments,
    notices: Notices,
    manager: ServiceManager,
    sockets: Vec<OwnedFd>,
    workers: BTreeMap<i32, u32>,
    reloads: u32,
    daemon: bool,
    /// The signal that ends everything, once it came.
    ending: Option<i32>,
    /// How the process ends when its workers have.
    code: u8,
}

/// Starts a worker and stays with it.
pub(super) fn run(plan: Plan, past: Past) -> ExitCode {
    let notices = plan.notices;
    match begin(plan, past) {
        Ok(Ok(mut master)) => master.stay(),
        Ok(Err(code)) => code,
        Err(what) => {
            notices.alert(&what);
            ExitCode::from(1)
        }
    }
}

/// A new configuration that does not load: stays with what runs.
pub(super) fn keep(
    program: OsString,
    arguments: Arguments,
    notices: Notices,
    past: Past,
    what: Failure,
) -> ExitCode {
    what.tell(notices);
    notices.warning("Loading failure!");
    let (sockets, workers) = (past.sockets, past.workers);
    let mut master = Master {
        manager: ServiceManager::new(arguments.notify),
        program,
        arguments,
        notices,
        sockets,
        workers,
        reloads: past.reloads,
        daemon: past.daemon,
        ending: None,
        code: 0,
    };
    master.manager.ready("The new configuration was refused; the old one runs.");
    master.stay()
}

/// The first part of a master's life; `Ok(Err(code))`: this is another process, which ends so.
fn begin(plan: Plan, past: Past) -> Result<Result<Master, ExitCode>, String> {
    let notices = plan.notices;
    let first = past.reloads == 0 && past.workers.is_empty();
    let mut tell = None;
    if first {
        let mut pidfile = start::open_pidfile(&plan)?;
        if plan.daemon {
            match start::become_daemon()? {
                Side::Other(waiting) => return Ok(Err(waiting.then(|| ()))),
                Side::Serving(ready) => tell = Some(ready),
            }
        }
        start::write_pid(&mut pidfile, &plan)?;
    }
    let mut master = Master {
        program: plan.program.clone(),
        arguments: plan.arguments.clone(),
        notices,
        manager: ServiceManager::new(plan.arguments.notify),
        sockets: copies_of(&plan.open).map_err(|error| format!("cannot copy a socket: {error}"))?,
        workers: past.workers,
        reloads: past.reloads,
        daemon: plan.daemon || past.daemon,
        ending: None,
        code: 0,
    };
    drop(past.sockets);
    match master.start_worker(plan)? {
        Started::Here(code) => return Ok(Err(code)),
        Started::No => {
            master.manager.ready("The new configuration did not start; the old one runs.");
            return Ok(Ok(master));
        }
        Started::Yes => {}
    }
    if first {
        gather::dismiss(&master.arguments, notices);
    }
    master.dismiss_former();
    notices.notice("Loading success.");
    if let Some(mut tell) = tell {
        if master.daemon {
            let detached = super::worker::detach();
            detached.map_err(|error| format!("cannot give up the standard streams: {error}"))?;
        }
        let _ = tell.write_all(b"+");
    }
    master.manager.ready("Ready.");
    Ok(Ok(master))
}

/// What is kept for the next reload: not what was given as `fd@`, which stays open under its number anyway.
fn copies_of(open: &[OpenBind]) -> io::Result<Vec<OwnedFd>> {
    let ours = open.iter().filter(|bind| bind.ours).flat_map(|bind| &bind.sockets);
    ours.map(|socket| std::os::fd::AsFd::as_fd(socket).try_clone_to_owned()).collect()
}

impl Master {
    /// Forks a worker and waits until it serves. An error: it does not, and there is no other.
    fn start_worker(&mut self, plan: Plan) -> Result<Started, String> {
        let (ready, tell) = io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
        let daemon = self.daemon;
        let master = Some(std::process::id());
        match signals::fork().map_err(|error| format!("cannot fork a worker: {error}"))? {
            Forked::Child => {
                drop(ready);
                self.sockets.clear();
                let worker = Worker { master, ready: Some(tell), detach: daemon, ..plan.worker() };
                Ok(Started::Here(worker.run()))
            }
            Forked::Parent(pid) => {
                drop((tell, plan));
                let pid = pid.as_raw_nonzero().get();
                self.notices.notice(&format!("New worker ({pid}) forked"));
                self.reloads += 1;
                if says_ready(ready, pid) {
                    self.workers.insert(pid, self.reloads);
                    return Ok(Started::Yes);
                }
                // It is about to end, and has said why or is about to say it.
                let status = wait_for(pid);
                let how = status.map_or_else(|| "is gone".to_owned(), told);
                if self.workers.is_empty() {
                    return Err(format!("the worker ({pid}) did not start: {how}"));
                }
                self.notices
                    .alert(&format!("the new worker ({pid}) did not start: {how}; the former one goes on"));
                Ok(Started::No)
            }
        }
    }

    /// Tells the workers before the newest to finish.
    fn dismiss_former(&self) {
        let newest = self.newest();
        for &pid in self.workers.keys().filter(|&&pid| Some(pid) != newest) {
            let _ = send_signal(pid, SIGUSR1);
        }
    }

    fn newest(&self) -> Option<i32> {
        self.workers.iter().max_by_key(|(_, reload)| **reload).map(|(pid, _)| *pid)
    }

    /// Waits for signals until all workers have ended.
    fn stay(&mut self) -> ExitCode {
        // A worker may have ended while nobody was looking.
        self.reap();
        while !self.workers.is_empty() {
            match signals::wait(CONTROL, None) {
                Ok(Some(SIGCHLD)) => self.reap(),
                Ok(Some(SIGUSR2 | SIGHUP)) if self.ending.is_none() => self.reload(),
                Ok(Some(signal @ (SIGTERM | SIGINT | SIGUSR1))) => self.end(signal),
                Ok(_) => {}
                Err(error) => {
                    self.notices.alert(&format!("cannot wait for signals: {error}"));
                    self.end(SIGTERM);
                    return ExitCode::from(1);
                }
            }
        }
        self.notices.warning(&format!("All workers exited. Exiting... ({})", self.code));
        ExitCode::from(self.code)
    }

    fn end(&mut self, signal: i32) {
        self.notices.warning("Exiting Master process...");
        self.manager.stopping();
        self.ending = Some(signal);
        // Nobody takes over any more: without workers, clients are to be refused and not to wait.
        self.sockets.clear();
        if signal == SIGINT {
            self.code = 130;
        }
        for &pid in self.workers.keys() {
            let _ = send_signal(pid, signal);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let current = self.newest() == Some(pid);
            if self.workers.remove(&pid).is_none() {
                continue;
            }
            let (code, how) = (code_of(status), told(status));
            if !current {
                self.notices.warning(&format!("Former worker ({pid}) exited with {how}"));
                continue;
            }
            let text = format!("Current worker ({pid}) exited with {how}");
            if code == 0 {
                self.notices.warning(&text)
            } else {
                self.notices.alert(&text)
            }
            if code != 0 && self.ending.is_none() {
                // The service manager starts everything again; half a service would hide the failure from it.
                self.notices.alert("exit-on-failure: killing every processes with SIGTERM");
                self.code = code;
                self.ending = Some(SIGTERM);
                self.sockets.clear();
                for &pid in self.workers.keys() {
                    let _ = send_signal(pid, SIGTERM);
                }
            }
        }
    }

    /// Becomes itself anew. Returns only when that fails.
    fn reload(&mut self) {
        self.notices.notice("Reloading HAProxy");
        self.manager.reloading();
        if let Err(error) = keep_all(&self.sockets, |socket, keep| keep_across_exec(socket, keep)) {
            self.notices.alert(&format!("cannot reload: a socket cannot be kept: {error}"));
            self.manager.ready("The reload failed; the old configuration runs.");
            return;
        }
        let mut variables: Vec<(OsString, OsString)> =
            std::env::vars_os().filter(|(name, _)| name != PAST).collect();
        variables.push((PAST.into(), self.describe().into()));
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let error = signals::become_program(&self.program, &arguments, &variables);
        for socket in &self.sockets {
            let _ = keep_across_exec(socket, false);
        }
        let program = self.program.to_string_lossy();
        self.notices.alert(&format!("cannot reload: {program}: {error}; the former configuration runs on"));
        self.manager.ready("The reload failed; the old configuration runs.");
    }

    /// For [`Past::of_environment`].
    fn describe(&self) -> String {
        let daemon = if self.daemon { "daemon" } else { "foreground" };
        let mut text = format!("{} {daemon} {} ", std::process::id(), self.reloads);
        for (pid, reload) in &self.workers {
            let _ = write!(text, "{pid}:{reload},");
        }
        text.push(' ');
        for socket in &self.sockets {
            let _ = write!(text, "{},", socket.as_raw_fd());
        }
        text
    }
}

/// Every socket stays open in the next program; or none: what this process starts otherwise is not to have them.
fn keep_all(sockets: &[OwnedFd], keep: impl Fn(&OwnedFd, bool) -> io::Result<()>) -> io::Result<()> {
    let kept = sockets.iter().try_for_each(|socket| keep(socket, true));
    if kept.is_err() {
        for socket in sockets {
            let _ = keep(socket, false);
        }
    }
    kept
}

/// Whether a worker tells in time that it serves; one that does not is killed.
fn says_ready(mut pipe: PipeReader, worker: i32) -> bool {
    let until = std::time::Instant::now() + START_LIMIT;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let time = rustix::event::Timespec::try_from(left).unwrap_or_default();
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&time)) {
            Ok(0) => {
                let _ = send_signal(worker, rustix::process::Signal::KILL.as_raw());
                return false;
            }
            Ok(_) => return pipe.read_exact(&mut [0]).is_ok(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn wait_for(pid: i32) -> Option<WaitStatus> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).ok().flatten().map(|(_, status)| status)
}

/// As a shell counts.
fn code_of(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// As HAProxy tells how a process ended.
pub(super) fn told(status: WaitStatus) -> String {
    let code = code_of(status);
    let name = match status.terminating_signal() {
        None => "Exit",
        Some(SIGTERM) => "Terminated",
        Some(SIGINT) => "Interrupt",
        Some(9) => "Killed",
        Some(11) => "Segmentation fault",
        Some(6) => "Aborted",
        Some(_) => "another signal",
    };
    format!("code {code} ({name})")
}

/// A name of this program that is good after a change of directory, and for a program that is replaced by a new one:
/// not what the kernel knows of the file that runs.
pub(super) fn absolute(program: &OsString) -> OsString {
    let path = std::path::Path::new(program);
    if path.components().count() > 1 {
        return std::path::absolute(path).map_or_else(|_| program.clone(), Into::into);
    }
    let found = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|directory| directory.join(path)).find(|file| file.is_file())
    });
    found.map_or_else(|| program.clone(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};

    #[test]
    fn sockets_are_kept_all_or_none() {
        let sockets: Vec<OwnedFd> =
            (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).collect();
        let closed = || {
            let flags = sockets.iter().map(|socket| fcntl_getfd(socket).unwrap());
            flags.filter(|flags| flags.contains(FdFlags::CLOEXEC)).count()
        };
        assert_eq!(closed(), 3);
        let last = sockets[2].as_raw_fd();
        let refuse = |socket: &OwnedFd, keep| match keep && socket.as_raw_fd() == last {
            true => Err(io::Error::other("no")),
            false => keep_across_exec(socket, keep),
        };
        assert!(keep_all(&sockets, refuse).is_err());
        assert_eq!(closed(), 3);
        keep_all(&sockets, |socket, keep| keep_across_exec(socket, keep)).unwrap();
        assert_eq!(closed(), 0);
    }
}
