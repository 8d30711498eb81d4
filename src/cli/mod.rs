//! The command line: one file per subcommand; `assemble` builds a node from its roles.
//!
//! Called as `haproxy` the program is the proxy (`proxy.rs`).
//!
//! Exit status: 0 as asked, 1 a negative finding (different, unhealthy, problems), 2 could not do it.

mod assemble;
mod backup;
mod base_link;
mod check;
mod children;
mod client;
mod control;
mod ctl;
mod daemon;
mod database_archive;
mod database_bases;
mod database_link;
mod database_marks;
mod database_preflight;
mod database_source;
mod db;
mod db_keep;
mod db_prune;
mod db_restore;
mod demo_web;
mod describe;
mod locate;
mod nfs1;
mod offline;
mod pair;
mod panics;
mod prove;
mod prove_database;
mod proxy;
mod rate;
mod restore;
mod restoring;
mod role_backup;
mod role_front;
mod role_mariadb;
mod role_nfs1;
mod shares;
mod state_directory;
mod status;
mod unprivileged;
mod up;
mod verify;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// What a command found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// As asked.
    Good,
    /// Done, and the finding is negative.
    Bad,
}

#[derive(Parser)]
#[command(
    name = "ehpc-store",
    version,
    about = "A shared directory for a small web cluster, and a backup of it that is never behind and can prove it",
    after_help = "Exit status: 0 as asked, 1 a negative finding (different, unhealthy), 2 could not do it.\n\
                  Start with `ehpc-store up`."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Nfs1(Box<nfs1::Nfs1>),
    Backup(backup::Backup),
    Verify(verify::Verify),
    Status(status::Status),
    Pair(pair::Pair),
    Check(check::Check),
    Db(db::Db),
    Restore(restore::Restore),
    Ctl(ctl::Ctl),
    DemoWeb(demo_web::DemoWeb),
    Proxy(proxy::Proxy),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = proxy::called(&arguments) {
        return code;
    }
    let outcome = match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Nfs1(nfs1) => nfs1.run(),
        Command::Backup(backup) => backup.run(),
        Command::Verify(verify) => verify.run(),
        Command::Status(status) => status.run(),
        Command::Pair(pair) => pair.run(),
        Command::Check(check) => check.run(),
        Command::Db(db) => db.run(),
        Command::Restore(restore) => restore.run(),
        Command::Ctl(ctl) => ctl.run(),
        Command::DemoWeb(node) => node.run(),
        Command::Proxy(proxy) => return proxy.run(),
    };
    match outcome {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            // Whoever closed the pipe has read enough.
            let piped =
                error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe);
            if !piped {
                let _ = writeln!(io::stderr(), "ehpc-store: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

/// Writes to standard output; unlike `println!`, a closed pipe is an error and no panic.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes a line to standard error, where progress and remarks go.
pub(crate) fn say_aside(text: &str) {
    // Who closed it does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        for command in Arguments::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
