//! `ehpc-store proxy`, and the name `haproxy`: HAProxy's own command line.

use clap::Args;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Run the proxy: reads haproxy.cfg, takes HAProxy's options (`ehpc-store proxy --help`)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Proxy {
    /// HAProxy's options: -f FILE, -c, -D, -W, -p PIDFILE, -sf PID ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// Runs the role if the process was called for it, as `haproxy ...` or as `ehpc-store proxy ...`. Its options are
/// not read by this command line: `-sf 12 34` and `-dM` are no options in any other program.
pub(crate) fn called(arguments: &[OsString]) -> Option<ExitCode> {
    let (program, rest) = arguments.split_first()?;
    let options = match Path::new(program).file_name() {
        Some(name) if name == OsStr::new("haproxy") => rest,
        _ if rest.first().is_some_and(|word| word == "proxy") => &rest[1..],
        _ => return None,
    };
    let all: Vec<OsString> = [program].into_iter().chain(options).cloned().collect();
    Some(crate::proxy::main(&all))
}

impl Proxy {
    /// Never called: [`called`] comes first.
    pub(crate) fn run(self) -> ExitCode {
        let all: Vec<OsString> = ["haproxy".into()].into_iter().chain(self.options).collect();
        crate::proxy::main(&all)
    }
}
