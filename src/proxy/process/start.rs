//! From the command line to a running process, in HAProxy's order (management manual, 3): parse, error files, limits,
//! sockets, logs, pidfile, fork, chroot, user; threads come last.

use super::arguments::{self, Action, Arguments};
use super::gather;
use super::identity::{self, Who};
use super::inherited::Inherited;
use super::limits;
use super::load::{self, Refused};
use super::master::{self, Past};
use super::notices::Notices;
use super::open::{self, OpenBind, Way};
use super::version;
use super::worker::{CONTROL, Worker};
use crate::host::signals::{self, Forked};
use crate::proxy::config::{self, Config};
use crate::proxy::state;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Where the process is on its way.
pub(super) struct Plan {
    pub(super) program: OsString,
    pub(super) arguments: Arguments,
    pub(super) config: Arc<Config>,
    pub(super) notices: Notices,
    pub(super) threads: usize,
    pub(super) maxconn: u32,
    pub(super) who: Who,
    pub(super) open: Vec<OpenBind>,
    /// States of servers, of the process before.
    pub(super) states: String,
    pub(super) daemon: bool,
}

/// Runs the role. `all[0]` is the program's name.
pub(super) fn main(all: &[OsString]) -> ExitCode {
    let arguments = match arguments::parse(all.get(1..).unwrap_or_default()) {
        Ok(arguments) => arguments,
        Err(misuse) => {
            let _ = write!(io::stderr(), "{}{misuse}\n\n{}", version::text(false), arguments::USAGE);
            return ExitCode::from(1);
        }
    };
    let notices = Notices { quiet: arguments.quiet && !arguments.verbose };
    match &arguments.action {
        Action::Version { long } => say(&version::text(*long)),
        Action::Help => say(arguments::USAGE),
        Action::Condition(text) => match load::condition(text) {
            Ok(holds) => ExitCode::from(u8::from(!holds)),
            Err(what) => {
                notices.alert(&format!("config : Failed to evaluate condition: {what}"));
                ExitCode::from(2)
            }
        },
        Action::Keywords => say(&config::listing()),
        Action::Check | Action::Run => {
            let program = all.first().cloned().unwrap_or_else(|| "haproxy".into());
            started(program, arguments, notices).unwrap_or_else(|failure| failure.tell(notices))
        }
    }
}

/// Why there is no running process.
pub(super) enum Failure {
    /// The files.
    Configuration(Refused),
    /// One sentence.
    Other(String),
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Other(what)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Configuration(refused)
    }
}

impl Failure {
    /// Tells it; the status of the process's end.
    pub(super) fn tell(self, notices: Notices) -> ExitCode {
        match self {
            Failure::Configuration(refused) => {
                notices.alerts(&refused.to_string());
                ExitCode::from(refused.status)
            }
            Failure::Other(what) => {
                notices.alert(&what);
                ExitCode::from(1)
            }
        }
    }
}

fn say(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn started(program: OsString, arguments: Arguments, notices: Notices) -> Result<ExitCode, Failure> {
    if arguments.action == Action::Check {
        load::config(&arguments, notices)?;
        if !notices.quiet {
            return Ok(say("Configuration file is valid\n"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Who waits for these says when he is ready for them.
    signals::block(CONTROL);
    // Relative names of the program must mean the same after a change of directory.
    let program = master::absolute(&program);
    if let Some(directory) = &arguments.directory {
        std::env::set_current_dir(directory)
            .map_err(|error| format!("-C {}: {error}", directory.display()))?;
    }
    if let Some(socket) = &arguments.master_socket {
        notices.warning(&format!(
            "-S {socket}: the master has no command socket; `stats socket` answers commands"
        ));
    }
    let mut past = Past::of_environment();
    let plan = prepare(program.clone(), arguments.clone(), notices, &mut past);
    match plan {
        Ok(plan) if past.is_some() || plan.arguments.master || plan.config.global.master_worker => {
            Ok(master::run(plan, past.unwrap_or_default()))
        }
        Ok(plan) => Ok(alone(plan)?),
        // A master stays with what runs.
        Err(what) => match past {
            Some(past) => Ok(master::keep(program, arguments, notices, past, what)),
            None => Err(what),
        },
    }
}

/// Everything up to the open sockets.
fn prepare(
    program: OsString,
    arguments: Arguments,
    notices: Notices,
    past: &mut Option<Past>,
) -> Result<Plan, Failure> {
    let config = Arc::new(load::config(&arguments, notices)?);
    let global = &config.global;
    let who = Who {
        chroot: global.chroot.clone(),
        uid: global.user.as_ref().map(identity::user_id).transpose()?,
        gid: global.group.as_ref().map(identity::group_id).transpose()?,
    };
    let threads = match global.nbthread {
        Some(threads) => usize::from(threads).max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let sockets = open::binds(&config).count() * threads;
    let limits = limits::raise(&config, &arguments, sockets, threads);
    if let Some(warning) = &limits.warning {
        notices.warning(warning);
    }
    if let Some(mib) = arguments.memory_mib
        && !limits::set_memory(mib)
    {
        return Err(format!("-m {mib}: the kernel does not take this limit").into());
    }
    let mut inherited = Inherited::default();
    let states = match past {
        Some(past) => past.gather(&mut inherited, notices),
        None => gather::from_old(&arguments, &mut inherited, notices),
    };
    // What the process before said comes later, and counts.
    let (from_files, warnings) = state::read_states(&config, |path| std::fs::read_to_string(path));
    warnings.iter().for_each(|warning| notices.warning(warning));
    let states = from_files + &states;
    inherited.keep_only(open::binds(&config).map(|(_, bind, _, _)| bind));
    let sockets = if arguments.one_socket { 1 } else { threads };
    let reuse_port = !arguments.one_socket;
    let way = Way { sockets, reuse_port, beside_old: past.is_none() && !arguments.old.is_empty(), notices };
    let open = open::all(&config, &mut inherited, way).map_err(Refused::of_sockets)?;
    let daemon = (arguments.daemon || global.daemon) && !arguments.foreground && past.is_none();
    Ok(Plan {
        program,
        notices,
        threads,
        maxconn: limits.maxconn,
        who,
        open,
        states,
        daemon,
        arguments,
        config,
    })
}

/// Without a master.
fn alone(plan: Plan) -> Result<ExitCode, String> {
    let mut pidfile = match plan.daemon {
        true => open_pidfile(&plan)?,
        // As HAProxy: who stays in the foreground is known to whoever started him.
        false => None,
    };
    // Who has given up root cannot tell others to go: another process does it, when this one serves.
    let who_tells = if plan.daemon {
        Some(become_daemon()?)
    } else if plan.who != Who::default() && !plan.arguments.old.is_empty() {
        Some(stay_in_front()?)
    } else {
        None
    };
    let ready = match who_tells {
        Some(Side::Other(waiting)) => {
            return Ok(waiting.then(|| gather::dismiss(&plan.arguments, plan.notices)));
        }
        Some(Side::Serving(ready)) => Some(ready),
        None => None,
    };
    write_pid(&mut pidfile, &plan)?;
    drop(pidfile);
    let (arguments, notices) = (plan.arguments.clone(), plan.notices);
    let mut worker = Worker { ready, ..plan.worker() };
    if worker.ready.is_none() {
        worker.when_ready = Some(Box::new(move || gather::dismiss(&arguments, notices)));
    }
    Ok(worker.run())
}

impl Plan {
    /// What the worker needs, without a word about others.
    pub(super) fn worker(self) -> Worker {
        Worker {
            config: self.config,
            maxconn: self.maxconn,
            threads: self.threads,
            open: self.open,
            who: self.who,
            states: self.states,
            notices: self.notices,
            detach: self.daemon,
            master: None,
            ready: None,
            when_ready: None,
        }
    }

    fn pidfile_path(&self) -> Option<&Path> {
        self.arguments.pidfile.as_deref().or(self.config.global.pidfile.as_deref())
    }
}

/// Opened before anything is given up; emptied, so that nobody reads an old number.
pub(super) fn open_pidfile(plan: &Plan) -> Result<Option<File>, String> {
    let Some(path) = plan.pidfile_path() else { return Ok(None) };
    let file = File::options().write(true).create(true).truncate(true).open(path);
    file.map(Some).map_err(|error| format!("cannot create the pidfile {}: {error}", path.display()))
}

/// This process's number.
pub(super) fn write_pid(file: &mut Option<File>, plan: &Plan) -> Result<(), String> {
    let (Some(file), Some(path)) = (file, plan.pidfile_path()) else { return Ok(()) };
    writeln!(file, "{}", std::process::id())
        .map_err(|error| format!("cannot write the pidfile {}: {error}", path.display()))
}

/// Which process this is after a fork.
pub(super) enum Side {
    /// The one that waits until the other serves, and ends.
    Other(Waiting),
    /// The one that goes on, and where it tells that it serves.
    Serving(io::PipeWriter),
}

/// Waits until another process serves.
pub(super) struct Waiting {
    ready: io::PipeReader,
    child: Option<Pid>,
}

impl Waiting {
    /// Does `act` when the other process serves; how this one ends.
    pub(super) fn then(mut self, act: impl FnOnce()) -> ExitCode {
        if self.ready.read_exact(&mut [0]).is_ok() {
            act();
            return ExitCode::SUCCESS;
        }
        // It has said why, unless it was killed.
        let status = self.child.map(|child| waitpid(Some(child), WaitOptions::empty()));
        if let Some(Ok(Some((_, status)))) = status
            && status.exit_status().is_none()
        {
            Notices::default()
                .alert(&format!("the process in the background ended: {}", master::told(status)));
        }
        ExitCode::from(1)
    }
}

fn ready_pipe() -> Result<(io::PipeReader, io::PipeWriter), String> {
    io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))
}

/// Forks; the process that goes on is the new one, in the background.
pub(super) fn become_daemon() -> Result<Side, String> {
    let (ready, tell) = ready_pipe()?;
    match signals::fork().map_err(|error| format!("cannot fork into the background: {error}"))? {
        Forked::Parent(child) => Ok(Side::Other(Waiting { ready, child: Some(child) })),
        Forked::Child => {
            rustix::process::setsid().map_err(|error| format!("cannot leave the terminal: {error}"))?;
            Ok(Side::Serving(tell))
        }
    }
}

/// Forks; the process that goes on is the old one.
fn stay_in_front() -> Result<Side, String> {
    let (ready, tell) = ready_pipe()?;
    // Nobody waits for the other one.
    signals::ignore(&[signals::SIGCHLD]);
    match signals::fork().map_err(|error| format!("cannot fork: {error}"))? {
        Forked::Parent(_) => Ok(Side::Serving(tell)),
        Forked::Child => Ok(Side::Other(Waiting { ready, child: None })),
    }
}
