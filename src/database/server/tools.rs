//! Where the server's own programs are: in the directory of the setting `tools`, else on PATH and where servers are
//! usually installed.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use ehpc_proto::binlog::Flavor;

/// A program of the server's packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// The server itself.
    Server,
    /// Makes a data directory (MariaDB; MySQL's server does it itself).
    Install,
    /// Dumps.
    Dump,
    /// Reads binary logs.
    Binlog,
    /// Runs SQL.
    Client,
}

impl Tool {
    /// Its names, the one of the flavor first: either can often do the other's work.
    fn names(self, flavor: Flavor) -> [&'static str; 2] {
        let (maria, mysql) = match self {
            Tool::Server => ("mariadbd", "mysqld"),
            Tool::Install => ("mariadb-install-db", "mysql_install_db"),
            Tool::Dump => ("mariadb-dump", "mysqldump"),
            Tool::Binlog => ("mariadb-binlog", "mysqlbinlog"),
            Tool::Client => ("mariadb", "mysql"),
        };
        match flavor {
            Flavor::MariaDb => [maria, mysql],
            Flavor::MySql => [mysql, maria],
        }
    }

    /// The package that has it (Debian and Ubuntu, then the vendor's own).
    fn package(self, flavor: Flavor) -> &'static str {
        match (self, flavor) {
            (Tool::Server | Tool::Install, Flavor::MariaDb) => "mariadb-server",
            (_, Flavor::MariaDb) => "mariadb-client",
            (Tool::Server | Tool::Install, Flavor::MySql) => "mysql-server (mysql-community-server)",
            (_, Flavor::MySql) => "mysql-client (mysql-community-client)",
        }
    }
}

/// A program is not installed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "neither {} nor {} is in {looked}: install the package {package}, or name the directory in `tools` of [database]",
    .names[0], .names[1]
)]
pub struct ToolMissing {
    names: [&'static str; 2],
    package: &'static str,
    looked: String,
}

/// A program that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Whose it is, as it says itself: a `mysqldump` may be MariaDB's.
    pub flavor: Flavor,
    /// What `--version` says, without the program's name.
    pub version: String,
}

impl Program {
    /// A command that runs it, without input and without option files.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::null());
        command
    }

    /// (major, minor) of the server that it came with; (0, 0) when it does not say.
    pub fn release(&self) -> (u32, u32) {
        let mut best = (0, 0);
        for word in self.version.split([' ', ',', '-']) {
            let mut numbers = word.split('.').map_while(|part| part.parse::<u32>().ok());
            if let (Some(major), Some(minor), Some(_)) = (numbers.next(), numbers.next(), numbers.next()) {
                best = (major, minor);
            }
        }
        best
    }

    /// Does `--help` name this option? (Programs differ by vendor and version.)
    pub fn knows(&self, option: &str) -> bool {
        let output = self.command().args(["--no-defaults", "--help"]).stderr(Stdio::null()).output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .split([' ', '\t', '\n', ',', '='])
                .any(|word| word == option)
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.version)
    }
}

/// Where programs are looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tools {
    directory: Option<PathBuf>,
}

impl Tools {
    /// `directory`: the setting `tools`; `None`: PATH.
    pub fn new(directory: Option<PathBuf>) -> Tools {
        Tools { directory }
    }

    /// The program for servers of this flavor.
    pub fn find(&self, tool: Tool, flavor: Flavor) -> Result<Program, ToolMissing> {
        let directories = self.directories();
        let names = tool.names(flavor);
        for name in names {
            for directory in &directories {
                let path = directory.join(name);
                if is_program(&path) {
                    return Ok(asked(path, flavor));
                }
            }
        }
        let looked = match &self.directory {
            Some(directory) => directory.display().to_string(),
            None => "any directory of PATH".to_owned(),
        };
        Err(ToolMissing { names, package: tool.package(flavor), looked })
    }

    /// A daemon's PATH often lacks the places of servers.
    fn directories(&self) -> Vec<PathBuf> {
        if let Some(directory) = &self.directory {
            return vec![directory.clone()];
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let usual =
            ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/opt/mysql/bin"];
        all.extend(usual.map(PathBuf::from));
        all
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn asked(path: PathBuf, wanted: Flavor) -> Program {
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let text = text.unwrap_or_default();
    // Not all of them say it (mariadb-binlog, mariadb-install-db); then the name of the file does, which for MariaDB's
    // packages is what an old name links to.
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let named = real.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"mariadb"));
    let maria = named || text.contains("MariaDB");
    let flavor = match (maria, text.is_empty()) {
        (true, _) => Flavor::MariaDb,
        (false, true) => wanted,
        (false, false) => Flavor::MySql,
    };
    let version = text.split_once("  ").map_or(text.as_str(), |(_, rest)| rest).trim().to_owned();
    Program { path, flavor, version }
}
