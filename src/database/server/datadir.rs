//! A server's data directory: made without accounts; and what of ours is in it while a server runs there.

use super::arguments::path_option;
use super::error::ServerError;
use super::load::last_words;
use super::owner::Owner;
use super::tools::{Flavor, Program, Tool, Tools};
use crate::host;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Ours in a data directory, while a server runs there. Servers take a directory of this name for something temporary
/// and do not show it as a database.
pub(super) const PRIVATE: &str = "#sql-ehpc";

/// Places below [`PRIVATE`], made anew at each start.
pub(super) struct Private {
    pub(super) account: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) files: PathBuf,
}

impl Private {
    pub(super) fn make(datadir: &Path) -> Result<Private, ServerError> {
        let all = datadir.join(PRIVATE);
        match std::fs::remove_dir_all(&all) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ServerError::File { what: "cannot remove", path: all, source });
            }
            _ => {}
        }
        let private = Private {
            account: all.join("account.sql"),
            temporary: all.join("tmp"),
            files: all.join("files"),
        };
        for directory in [&all, &private.temporary, &private.files] {
            std::fs::create_dir(directory).map_err(ServerError::file("cannot make", directory))?;
        }
        Ok(private)
    }
}

/// Whoever runs this command is that owner.
pub(super) fn become_owner(command: &mut Command, owner: Owner) {
    match owner {
        // The ids are changed before the program starts: `--user` would clear the signal at the parent's end.
        Owner::Other { uid, gid } => {
            command.uid(uid).gid(gid);
        }
        // A server refuses to be root unless it is told so.
        Owner::Own if host::privileges().euid == 0 => {
            command.arg("--user=root");
        }
        Owner::Own => {}
    }
}

/// Makes a data directory in an absent or empty one; when that fails, it is empty.
pub(super) fn init(datadir: &Path, tools: &Tools, flavor: Flavor) -> Result<(), ServerError> {
    std::fs::create_dir_all(datadir).map_err(ServerError::file("cannot make the directory", datadir))?;
    let mut entries = std::fs::read_dir(datadir).map_err(ServerError::file("cannot read", datadir))?;
    if entries.next().is_some() {
        return Err(ServerError::NotEmpty { path: datadir.to_owned() });
    }
    let made = fill(datadir, tools, flavor);
    if made.is_err() {
        empty(datadir);
    }
    made
}

/// Removes everything in a directory that was made here.
pub(crate) fn empty(datadir: &Path) {
    for entry in std::fs::read_dir(datadir).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "left behind by a data directory that could not be made");
        }
    }
}

fn fill(datadir: &Path, tools: &Tools, flavor: Flavor) -> Result<(), ServerError> {
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(datadir, mode).map_err(ServerError::file("cannot change", datadir))?;
    let owner = Owner::of(datadir);
    let private = Private::make(datadir)?;
    owner.give_all(datadir)?;
    let server = tools.find(Tool::Server, flavor)?;
    let mut command = match server.flavor {
        Flavor::MariaDb => {
            let mut command = tools.find(Tool::Install, flavor)?.command();
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            command
        }
        Flavor::MySql if server.release() < (5, 7) => {
            return Err(ServerError::NoInitialize { program: server.path, version: server.version });
        }
        Flavor::MySql => {
            let mut command = server.command();
            command.args(["--no-defaults", "--initialize-insecure"]);
            command
        }
    };
    command.arg(path_option("datadir", datadir)).arg(path_option("tmpdir", &private.temporary));
    become_owner(command.current_dir(datadir), owner);
    run(&mut command)?;
    if server.flavor == Flavor::MariaDb {
        forget_accounts(datadir, &private, &server, owner)?;
    }
    std::fs::remove_dir_all(datadir.join(PRIVATE)).map_err(ServerError::file("cannot remove", datadir))
}

/// The installer's own accounts would stand in the way of those of a base that have the same names.
fn forget_accounts(
    datadir: &Path,
    private: &Private,
    server: &Program,
    owner: Owner,
) -> Result<(), ServerError> {
    let mut command = server.command();
    command
        .args(["--no-defaults", "--bootstrap", "--skip-grant-tables", "--skip-networking", "--skip-log-bin"])
        .arg(path_option("datadir", datadir))
        .arg(path_option("tmpdir", &private.temporary))
        .current_dir(datadir)
        .stdin(Stdio::piped());
    become_owner(&mut command, owner);
    let start = |source| ServerError::Start { program: server.path.clone(), source };
    host::end_with_parent(&mut command);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(start)?;
    if let Some(mut input) = child.stdin.take() {
        let sql = b"DELETE FROM mysql.global_priv WHERE User NOT IN ('mariadb.sys', 'PUBLIC');\nDELETE FROM mysql.proxies_priv;\n";
        input.write_all(sql).map_err(start)?;
    }
    let said = child.stderr.take().map(last_words).unwrap_or_default();
    let status = child.wait().map_err(start)?;
    if status.success() { Ok(()) } else { Err(failed(server.path.clone(), status, said)) }
}

fn run(command: &mut Command) -> Result<(), ServerError> {
    let program = PathBuf::from(command.get_program());
    let start = |source| ServerError::Start { program: program.clone(), source };
    host::end_with_parent(command);
    let output = command.output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = last_words(&[output.stdout.as_slice(), &output.stderr].concat()[..]);
    Err(failed(program, output.status, said))
}

fn failed(program: PathBuf, status: std::process::ExitStatus, said: String) -> ServerError {
    ServerError::Failed { program, status: status.to_string(), said }
}
