//! `ehpc-store db restore`: the database as of any moment, into an empty directory or a server.

use super::Verdict;
use super::db::{absolute, print, with_progress};
use super::locate::{Role, Where};
use super::{offline, say_aside};
use crate::database::dsn::{Dsn, Password};
use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// Of the environment.
const PASSWORD: &str = "EHPC_RESTORE_PASSWORD";

/// Restore the database, or one table of it, as it was at a moment
///
/// A base snapshot is loaded, then the binary logs are applied up to exactly that moment, and what was recorded of the
/// tables on the way is compared. With --datadir the result is a data directory that a server can be started on; with
/// --to the statements run on a server that is there. The account that is used for it keeps its password and its privileges
/// (on a MariaDB: what the binary logs do to an account of that name is put right; on a MySQL it is found at the end when they
/// have locked it out). GRANT PROXY of others, which that account may not give, is left out and named.
///
/// A password in --to can be seen by every user of this host while the command runs. Better: password_file=FILE in it (on the
/// backup; mode 0600), the environment variable EHPC_RESTORE_PASSWORD, or --ask-password.
#[derive(Args)]
#[command(group(ArgGroup::new("moment").required(true).args(["at_moment", "gtid", "position"])))]
#[command(group(ArgGroup::new("target").required(true).args(["to", "datadir"])))]
pub(super) struct Restore {
    #[command(flatten)]
    at: Where,
    /// "2026-11-23T10:00:00Z", "2026-11-23 10:00:00" (local time), "-5m", "label:NAME" or "latest"
    #[arg(long = "at", id = "at_moment", value_name = "MOMENT", allow_hyphen_values = true)]
    moment: Option<String>,
    /// Up to and with this transaction, such as 0-1-4711
    #[arg(long, value_name = "GTID")]
    gtid: Option<String>,
    /// Up to this place, which must be the end of a transaction: bin.000007:1234
    #[arg(long, value_name = "FILE:POSITION")]
    position: Option<String>,
    /// A server: the path of its socket (as root), or "mysql://USER@HOST:PORT/?password_file=FILE"
    #[arg(long, value_name = "DSN")]
    to: Option<String>,
    /// Read the password for --to from the standard input, unseen if that is a terminal
    #[arg(long, requires = "to")]
    ask_password: bool,
    /// A directory that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Only this table; needs --to
    #[arg(long, value_name = "DB.TABLE", requires = "to")]
    only: Option<String>,
    /// With --only: the name that it gets
    #[arg(long = "as", id = "as_table", value_name = "DB.TABLE", requires = "only")]
    as_table: Option<String>,
    /// Replace what is on the server
    #[arg(long, requires = "to")]
    overwrite: bool,
    /// Leave the server of --datadir running, and say how to reach it
    #[arg(long, requires = "datadir")]
    keep_running: bool,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    fn request(&self) -> Result<Value> {
        let moment = match (&self.moment, &self.gtid, &self.position) {
            (Some(at), ..) => json!({ "at": at }),
            (_, Some(gtid), _) => json!({ "gtid": gtid }),
            (_, _, Some(position)) => json!({ "position": position }),
            _ => bail!("say which moment: --at, --gtid or --position"),
        };
        Ok(json!({
            "moment": moment,
            "to": self.to,
            "password": self.password()?,
            "datadir": self.datadir.as_deref().map(absolute).transpose()?,
            "only": self.only,
            "as": self.as_table,
            "overwrite": self.overwrite,
            "keep_running": self.keep_running,
        }))
    }

    /// For --to, where it is not in there. It goes to the backup over its control socket, and into no log.
    fn password(&self) -> Result<Option<String>> {
        let Some(to) = &self.to else { return Ok(None) };
        if self.ask_password {
            return ask_password().map(Some);
        }
        let dsn = Dsn::parse(to).context("--to")?;
        match dsn.password {
            Password::Text(_) => {
                say_aside(
                    "the password in --to can be seen in the list of processes: use password_file=, EHPC_RESTORE_PASSWORD or \
                     --ask-password",
                );
                Ok(None)
            }
            Password::File(_) => Ok(None),
            Password::None => Ok(std::env::var(PASSWORD).ok().filter(|password| !password.is_empty())),
        }
    }

    pub(super) fn run(self) -> Result<Verdict> {
        let request = self.request()?;
        let result = match self.at.node(Role::Backup) {
            Ok(node) => with_progress(&node, "db-restore", request)?,
            Err(nobody) => offline::run(&self.at, "db-restore", &request, nobody)?,
        };
        print(&result, self.json)?;
        Ok(if result["equal"].as_bool() == Some(false) { Verdict::Bad } else { Verdict::Good })
    }
}

/// One line of the standard input.
fn ask_password() -> Result<String> {
    let input = std::io::stdin();
    let terminal = input.is_terminal().then(|| Unseen::new(&input)).transpose()?;
    if terminal.is_some() {
        let _ = write!(std::io::stderr(), "Password: ");
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if terminal.is_some() {
        say_aside("");
    }
    drop(terminal);
    read.context("reading the password")?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        bail!("no password on the standard input");
    }
    Ok(password.to_owned())
}

/// A terminal that does not show what is typed; dropped, it does again.
struct Unseen<'a> {
    terminal: &'a std::io::Stdin,
    before: Termios,
}

impl<'a> Unseen<'a> {
    fn new(terminal: &'a std::io::Stdin) -> Result<Unseen<'a>> {
        let before = tcgetattr(terminal).context("the terminal")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent).context("the terminal")?;
        Ok(Unseen { terminal, before })
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
