//! The command line, as HAProxy's (management manual, 3). Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Arguments {
    /// `-f`, and what follows `--`: files and directories, in order.
    pub(super) files: Vec<PathBuf>,
    pub(super) action: Action,
    /// `-D`
    pub(super) daemon: bool,
    /// `-d` or `-db`: stays in the foreground whatever the file says.
    pub(super) foreground: bool,
    /// `-W`
    pub(super) master: bool,
    /// `-Ws`: tells the service manager when it is ready.
    pub(super) notify: bool,
    /// `-q`
    pub(super) quiet: bool,
    /// `-V`
    pub(super) verbose: bool,
    /// `-dW`: a warning is an error.
    pub(super) warnings_are_errors: bool,
    /// `-dR`: no SO_REUSEPORT.
    pub(super) one_socket: bool,
    /// `-p`
    pub(super) pidfile: Option<PathBuf>,
    /// `-n`
    pub(super) maxconn: Option<u32>,
    /// `-N`
    pub(super) proxy_maxconn: Option<u32>,
    /// `-m`, MiB
    pub(super) memory_mib: Option<u64>,
    /// `-C`
    pub(super) directory: Option<PathBuf>,
    /// `-x`: socket of the process whose listening sockets are taken.
    pub(super) sockets_from: Option<PathBuf>,
    /// `-sf` or `-st`: processes that are told to go when this one is ready.
    pub(super) old: Vec<i32>,
    /// `-st`: at once, not when their connections have ended.
    pub(super) terminate_old: bool,
    /// `-S`: a command socket of the master, which is not there.
    pub(super) master_socket: Option<String>,
    /// Options that mean something to HAProxy's engine only.
    pub(super) without_meaning: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Action {
    #[default]
    Run,
    /// `-c`
    Check,
    /// `-cc`
    Condition(String),
    /// `-v`, `-vv`
    Version { long: bool },
    /// `-dK`: known words.
    Keywords,
    /// `--help`, `-h`
    Help,
}

/// Why the command line is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Misuse {
    #[error("unknown option `{0}`")]
    Unknown(String),
    #[error("`{0}` is not an option; files follow -f, or stand after --")]
    Bare(String),
    #[error("`{0}` needs {1} after it")]
    Incomplete(String, &'static str),
    #[error("`{0}`: `{1}` is not {2}")]
    Value(String, String, &'static str),
    #[error("`{0}` is not supported: {1}")]
    Unsupported(&'static str, &'static str),
    #[error("no configuration: say -f FILE")]
    NoFile,
}

/// Reads the arguments behind the program's name.
pub(super) fn parse(arguments: &[OsString]) -> Result<Arguments, Misuse> {
    let mut found = Arguments::default();
    let mut rest = Rest { arguments, next: 0 };
    while let Some(word) = rest.take() {
        let Some(option) = word.to_str() else { return Err(Misuse::Unknown(word.to_string_lossy().into())) };
        match option {
            "--" => {
                while let Some(file) = rest.take() {
                    found.files.push(file.into());
                }
            }
            "-sf" | "-st" => {
                found.terminate_old = option == "-st";
                while let Some(id) = rest.take_unless_option() {
                    found.old.push(number(option, id, "a process id")?);
                }
            }
            _ if takes_value(&mut found, option, &mut rest)? || switch(&mut found, option) => {}
            "-dr" => {
                return Err(Misuse::Unsupported(
                    "-dr",
                    "a server's name must be known when the file is read",
                ));
            }
            _ if option.starts_with('-') => return Err(Misuse::Unknown(option.to_owned())),
            _ => return Err(Misuse::Bare(option.to_owned())),
        }
    }
    let reads_files = matches!(found.action, Action::Run | Action::Check);
    if reads_files && found.files.is_empty() { Err(Misuse::NoFile) } else { Ok(found) }
}

/// Options that stand alone.
fn switch(found: &mut Arguments, option: &str) -> bool {
    match option {
        "-v" => found.action = Action::Version { long: false },
        "-vv" => found.action = Action::Version { long: true },
        "-h" | "--help" => found.action = Action::Help,
        "-c" => found.action = Action::Check,
        "-D" => found.daemon = true,
        "-d" | "-db" => found.foreground = true,
        "-W" => found.master = true,
        "-Ws" => (found.master, found.notify) = (true, true),
        "-q" => found.quiet = true,
        "-V" => found.verbose = true,
        "-dW" => found.warnings_are_errors = true,
        "-dR" => found.one_socket = true,
        "-de" | "-dp" | "-dS" | "-dG" | "-dV" | "-dD" | "-dL" => {
            found.without_meaning.push(option.to_owned())
        }
        _ if option.starts_with("-dM") => found.without_meaning.push(option.to_owned()),
        _ if option.starts_with("-dK") => found.action = Action::Keywords,
        _ => return false,
    }
    true
}

/// Options with a value behind them.
fn takes_value(found: &mut Arguments, option: &str, rest: &mut Rest<'_>) -> Result<bool, Misuse> {
    let mut value = |what| rest.take().ok_or_else(|| Misuse::Incomplete(option.to_owned(), what));
    match option {
        "-f" => found.files.push(value("a file or directory")?.into()),
        "-p" => found.pidfile = Some(value("a file")?.into()),
        "-C" => found.directory = Some(value("a directory")?.into()),
        // Debian's service asks for it; without an answer there, `stats socket` has all commands.
        "-S" => found.master_socket = Some(value("a socket")?.to_string_lossy().into_owned()),
        "-x" => found.sockets_from = Some(value("a socket")?.into()),
        "-n" => found.maxconn = Some(number(option, value("a number")?, "a number")?),
        "-N" => found.proxy_maxconn = Some(number(option, value("a number")?, "a number")?),
        "-m" => found.memory_mib = Some(number(option, value("a number of MiB")?, "a number of MiB")?),
        // There are no peers; the name would be that of this one.
        "-L" => found.without_meaning.push(format!("-L {}", value("a name")?.to_string_lossy())),
        "-cc" => {
            let condition = value("a condition")?;
            let text = condition.to_str().map(str::to_owned);
            let text = text.ok_or_else(|| wrong(option, condition, "text"))?;
            found.action = Action::Condition(text);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn number<N: std::str::FromStr>(option: &str, word: &OsStr, what: &'static str) -> Result<N, Misuse> {
    word.to_str().and_then(|word| word.parse().ok()).ok_or_else(|| wrong(option, word, what))
}

fn wrong(option: &str, word: &OsStr, what: &'static str) -> Misuse {
    Misuse::Value(option.to_owned(), word.to_string_lossy().into_owned(), what)
}

struct Rest<'a> {
    arguments: &'a [OsString],
    next: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self) -> Option<&'a OsStr> {
        let word = self.arguments.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn take_unless_option(&mut self) -> Option<&'a OsStr> {
        let word = self.arguments.get(self.next)?;
        if word.as_bytes().starts_with(b"-") {
            return None;
        }
        self.take()
    }
}

/// `--help`, and what follows a command line that is not understood.
pub(super) const USAGE: &str = "\
Usage: haproxy -f FILE|DIRECTORY ... [options] [-- FILE ...]
       (ehpc-store proxy takes the same options)

  -f FILE        configuration; several are read in order, a directory means its *.cfg files
  -c             check the configuration and exit: 0 valid, 1 not
  -cc CONDITION  evaluate a condition of .if and exit: 0 true, 1 false
  -D             run in the background         -db, -d   stay in the foreground
  -W             a master that reloads on SIGUSR2 or SIGHUP; -Ws also tells systemd
  -p FILE        write the process id there
  -sf PID ...    take over the listening sockets of these processes (HAProxy's too), then let them finish
  -st PID ...    the same, but they end at once
  -x SOCKET      take over the listening sockets of the process behind this `stats socket`
  -n NUMBER      process's maxconn             -N NUMBER   a frontend's maxconn where the file says nothing
  -m MIB         limit of memory               -C DIR      change there before reading files
  -q             quiet                         -V          verbose
  -dW            a warning is an error         -dR         one socket an address, shared by the threads
  -dK            every word of the configuration that is known, and what becomes of it
  -v, -vv        version, and what it was built with

Signals: SIGUSR1 finishes (existing connections are served to their end), SIGTERM and SIGINT end at once.
-S SOCKET is accepted with a warning: the master has no command socket, use `stats socket`.
Without meaning here, accepted: -de -dp -dS -dG -dV -dD -dL -dM... -L NAME
";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, Misuse> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_haproxy_is_started_with() {
        let systemd = read("-Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid").unwrap();
        assert!(systemd.master && systemd.notify && !systemd.daemon);
        assert_eq!(systemd.pidfile, Some("/run/haproxy.pid".into()));
        let reload = read("-D -f a -f b -p p -sf 12 34 -x /run/admin").unwrap();
        assert_eq!((reload.old, reload.terminate_old), (vec![12, 34], false));
        assert_eq!(reload.files, [PathBuf::from("a"), "b".into()]);
        assert_eq!(reload.sockets_from, Some("/run/admin".into()));
        // `-sf $(pidof haproxy)` when there is none.
        assert_eq!(read("-f a -sf").unwrap().old, Vec::<i32>::new());
        assert_eq!(read("-f a -st 5 -q").unwrap(), {
            let old = vec![5];
            Arguments {
                files: vec!["a".into()],
                old,
                terminate_old: true,
                quiet: true,
                ..Arguments::default()
            }
        });
        assert_eq!(read("-c -- -odd x").unwrap().files, [PathBuf::from("-odd"), "x".into()]);
        assert_eq!(read("-cc streq(a,b)").unwrap().action, Action::Condition("streq(a,b)".into()));
        assert_eq!(read("-vv").unwrap().action, Action::Version { long: true });
        assert_eq!(read("-d -dM0x55 -f a").unwrap().without_meaning, ["-dM0x55"]);
    }

    #[test]
    fn what_is_not_understood_is_told() {
        assert_eq!(read("-Z -f a"), Err(Misuse::Unknown("-Z".into())));
        assert_eq!(read("a.cfg"), Err(Misuse::Bare("a.cfg".into())));
        assert_eq!(read("-f"), Err(Misuse::Incomplete("-f".into(), "a file or directory")));
        assert_eq!(read("-f a -n many").unwrap_err().to_string(), "`-n`: `many` is not a number");
        assert_eq!(read("-f a -sf 12x").unwrap_err().to_string(), "`-sf`: `12x` is not a process id");
        assert_eq!(read("-D"), Err(Misuse::NoFile));
        assert!(matches!(read("-f a -dr"), Err(Misuse::Unsupported("-dr", _))));
        assert_eq!(read("-f a -S /run/x").unwrap().master_socket, Some("/run/x".into()));
    }
}
