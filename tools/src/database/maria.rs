//! A MariaDB server of Debian's package in a directory of its own.

use super::client::{Access, Client, Row};
use super::server::{Process, Scratch, copy, free_port, once, run};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a server is started. [`Options::default`]: server_id 1, binary log `bin.*`, GTID strict, ROW, everything synced
/// at commit, no TCP.
#[derive(Clone, Debug)]
pub struct Options {
    /// `server_id`.
    pub server_id: u32,
    /// With a binary log (`log_bin=bin`).
    pub log_bin: bool,
    /// Listens on a free port of 127.0.0.1 too.
    pub tcp: bool,
    /// More arguments of `mariadbd`, such as `--log-bin-compress=1`.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options { server_id: 1, log_bin: true, tcp: false, arguments: Vec::new(), environment: Vec::new() }
    }
}

impl Options {
    /// With one more argument.
    pub fn with(mut self, argument: impl Into<String>) -> Options {
        self.arguments.push(argument.into());
        self
    }

    /// With variables of its environment, such as [`super::Clock::environment`].
    pub fn within(mut self, environment: Vec<(String, String)>) -> Options {
        self.environment.extend(environment);
        self
    }

    /// With a TCP port.
    pub fn tcp(mut self) -> Options {
        self.tcp = true;
        self
    }

    /// With this `server_id`.
    pub fn server_id(mut self, id: u32) -> Options {
        self.server_id = id;
        self
    }
}

/// A running (or stopped, or killed) server; dropping it ends it and removes its directory.
pub struct Maria {
    scratch: Scratch,
    options: Options,
    port: Option<u16>,
    process: Option<Process>,
}

impl Maria {
    /// Starts a server with an empty data directory: root has no password, on the socket and on 127.0.0.1.
    pub fn start(options: Options) -> Result<Maria> {
        let template = once("maria-template", |directory| {
            // A server that starts removes the temporary tables of all others in the same directory.
            let temporary = Scratch::new("maria-template")?;
            run(Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .args(["--user=root", "--innodb-log-file-size=16M"])
                .arg(format!("--tmpdir={}", temporary.0.display()))
                .arg(format!("--datadir={}", directory.display())))
            .context("package mariadb-server")
        })?;
        let scratch = Scratch::new("maria")?;
        copy(&template, &scratch.0.join("data"))?;
        Maria::run(scratch, options)
    }

    /// Starts a server on a copy of `datadir` (of a server that has ended, or was killed).
    pub fn start_on(datadir: &Path, options: Options) -> Result<Maria> {
        let scratch = Scratch::new("maria")?;
        copy(datadir, &scratch.0.join("data"))?;
        Maria::run(scratch, options)
    }

    fn run(scratch: Scratch, options: Options) -> Result<Maria> {
        std::fs::create_dir(scratch.0.join("tmp"))?;
        let mut server = Maria { scratch, options, port: None, process: None };
        server.restart()?;
        Ok(server)
    }

    fn command(&self) -> Command {
        let Options { server_id, .. } = self.options;
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--user=root", "--skip-name-resolve"])
            .arg(format!("--datadir={}", self.datadir().display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--tmpdir={}", self.scratch.0.join("tmp").display()))
            .arg(format!("--pid-file={}", self.scratch.0.join("pid").display()))
            .arg(format!("--server-id={server_id}"))
            .args(["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M", "--key-buffer-size=1M"])
            .args(["--innodb-flush-log-at-trx-commit=1", "--character-set-server=utf8mb4"])
            .args(["--max-allowed-packet=1G", "--local-infile=1", "--gtid-strict-mode=1"])
            .args(["--relay-log=relay", "--secure-file-priv="]);
        if self.options.log_bin {
            command.args(["--log-bin=bin", "--binlog-format=ROW", "--sync-binlog=1"]);
        }
        match self.port {
            Some(port) => command.arg(format!("--port={port}")).arg("--bind-address=127.0.0.1"),
            None => command.arg("--skip-networking"),
        };
        command.args(&self.options.arguments).envs(self.options.environment.iter().cloned());
        command
    }

    /// SIGKILL, as a power cut of the process.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("not running")?.end("KILL")
    }

    /// An orderly shutdown.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("not running")?.end("TERM")
    }

    /// Starts it again (stops it first when it runs), at the same port when it has one.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop()?;
        }
        let wanted = self.port;
        let mut tries = 0;
        loop {
            if self.options.tcp && wanted.is_none() {
                self.port = Some(free_port()?);
            }
            match Process::start(&self.command(), &self.socket(), &self.log()) {
                Ok(process) => {
                    self.process = Some(process);
                    return Ok(());
                }
                // Somebody else took the port in the meantime.
                Err(error) if self.options.tcp && tries < 5 && error.to_string().contains("in use") => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Other arguments from the next restart on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.0.join("sock")
    }

    /// Its data directory (binary logs included).
    pub fn datadir(&self) -> PathBuf {
        self.scratch.0.join("data")
    }

    /// Its error log.
    pub fn log(&self) -> PathBuf {
        self.scratch.0.join("log")
    }

    /// Its TCP port; fails without [`Options::tcp`].
    pub fn port(&self) -> Result<u16> {
        self.port.context("this server has no TCP port")
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("not running")?.pid())
    }

    /// How to connect as root.
    pub fn access(&self) -> Access {
        Access::at(&self.socket())
    }

    /// Runs statements; the rows of all results.
    pub fn sql(&self, text: &str) -> Result<Vec<Row>> {
        self.access().sql(text)
    }

    /// The first column of the first row.
    pub fn value(&self, text: &str) -> Result<String> {
        match self.sql(text)?.into_iter().next().and_then(|row| row.into_iter().next()) {
            Some(value) => Ok(value),
            None => bail!("no row: {text}"),
        }
    }

    /// A connection that stays.
    pub fn connect(&self) -> Result<Client> {
        self.access().connect()
    }

    /// Paths of the binary logs in order, as its index names them.
    pub fn binlog_files(&self) -> Result<Vec<PathBuf>> {
        let index = std::fs::read_to_string(self.datadir().join("bin.index"))?;
        Ok(index.lines().map(|name| self.datadir().join(name)).collect())
    }

    /// Names and bytes of the binary logs in order, as a backup holds them: none says that it is open.
    pub fn archived_binlogs(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let archived = |path: PathBuf| {
            let mut bytes = std::fs::read(&path)?;
            // LOG_EVENT_BINLOG_IN_USE_F, in the flags of the first event.
            *bytes.get_mut(21).context("a binary log without an event")? &= !1;
            Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes))
        };
        self.binlog_files()?.into_iter().map(archived).collect()
    }
}

impl Drop for Maria {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.end("KILL");
        }
    }
}
