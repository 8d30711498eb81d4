//! nfs1 and backup as two real processes of one cluster file with a `[database]`, beside a server of the test's own.

use super::server::free_port;
use crate::process::{self, Daemon};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Paths, settings and processes.
pub struct Stack {
    /// Everything is below it; not removed.
    pub directory: PathBuf,
    /// The running nfs1.
    pub nfs1: Option<Daemon>,
    /// The running backup.
    pub backup: Option<Daemon>,
    /// Variables of the environment of what is started from now on.
    pub environment: Vec<(String, String)>,
}

impl Stack {
    /// Writes the cluster file. `database`: lines of `[database]`, and further sections if they follow. Nothing is
    /// started.
    pub fn new(directory: &Path, database: &str) -> Result<Stack> {
        let stack =
            Stack { directory: directory.to_owned(), nfs1: None, backup: None, environment: Vec::new() };
        std::fs::create_dir_all(stack.share())?;
        stack.configure(database)?;
        Ok(stack)
    }

    /// Writes the file anew, for the next start.
    pub fn configure(&self, database: &str) -> Result<()> {
        let port = free_port;
        let at = self.directory.display();
        let (nfs, one, link, two, binlog) = (port()?, port()?, port()?, port()?, port()?);
        let text = format!(
            "[hosts.nfs1]\naddress = \"127.0.0.1\"\n[hosts.backup]\naddress = \"127.0.0.2\"\n\
             [nfs1]\nhost = \"nfs1\"\nstate = \"{at}/nfs1\"\nlisten = \"127.0.0.1:{nfs}\"\ndashboard = \"127.0.0.1:{one}\"\n\
             grace = \"1s\"\n[nfs1.export]\npath = \"{at}/share\"\nname = \"/share\"\n\
             [backup]\nhost = \"backup\"\ndirectory = \"{at}/backup\"\nlisten = \"127.0.0.2:{link}\"\n\
             dashboard = \"127.0.0.2:{two}\"\n[database]\nlisten = \"127.0.0.1:{binlog}\"\n{database}\n"
        );
        std::fs::write(self.cluster_file(), text)?;
        Ok(())
    }

    /// The cluster file.
    pub fn cluster_file(&self) -> PathBuf {
        self.directory.join("cluster.toml")
    }

    /// The exported directory.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// The live replica.
    pub fn mirror(&self) -> PathBuf {
        self.directory.join("backup/mirror")
    }

    /// Archive, base snapshots, standby.
    pub fn database(&self) -> PathBuf {
        self.directory.join("backup/database")
    }

    /// Starts both, paired.
    pub fn start(&mut self) -> Result<()> {
        self.start_backup()?;
        self.start_nfs1()
    }

    fn daemon(&self, role: &str) -> Result<Daemon> {
        let file = self.cluster_file();
        let arguments = [OsString::from(role), "--cluster".into(), file.into(), "--host".into(), role.into()];
        let mut command = Command::new(process::executable());
        command.args(&arguments).envs(self.environment.iter().cloned());
        Daemon::spawn(&mut command, &self.directory.join(format!("{role}.log")))
    }

    /// Starts the backup, and pairs the two once.
    pub fn start_backup(&mut self) -> Result<()> {
        self.backup = Some(self.daemon("backup")?);
        if self.directory.join("nfs1/peers.toml").exists() {
            return Ok(());
        }
        let (status, offer, error) = self.command("backup", &["pair", "--json"])?;
        if status != 0 {
            bail!("pair on the backup: {error}");
        }
        let offer: Value = serde_json::from_str(&offer).context("pair --json")?;
        let code = offer["code"].as_str().context("no code")?;
        let (status, out, error) = self.command("nfs1", &["pair", "--code", code])?;
        if status != 0 {
            bail!("pair on nfs1: {out}{error}");
        }
        Ok(())
    }

    /// Starts nfs1.
    pub fn start_nfs1(&mut self) -> Result<()> {
        self.nfs1 = Some(self.daemon("nfs1")?);
        Ok(())
    }

    /// kill -9 of nfs1.
    pub fn kill_nfs1(&mut self) -> Result<()> {
        self.nfs1.take().map_or(Ok(()), Daemon::kill)
    }

    /// kill -9 of the backup.
    pub fn kill_backup(&mut self) -> Result<()> {
        self.backup.take().map_or(Ok(()), Daemon::kill)
    }

    /// SIGTERM to both; they must end well.
    pub fn stop(&mut self) -> Result<()> {
        for (name, daemon) in [("nfs1", self.nfs1.take()), ("backup", self.backup.take())] {
            let status = daemon.map_or(Ok(0), Daemon::terminate)?;
            if status != 0 {
                bail!("{name} ended with {status} on SIGTERM\n{}", self.logs());
            }
        }
        Ok(())
    }

    /// Runs a subcommand as on that host; (exit status, stdout, stderr).
    pub fn command(&self, host: &str, arguments: &[&str]) -> Result<(i32, String, String)> {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all.extend(["--cluster".into(), self.cluster_file().into(), "--host".into(), host.into()]);
        let output = process::run(&all)?;
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Begins a subcommand as on that host.
    pub fn begin(&self, host: &str, arguments: &[&str]) -> Result<std::process::Child> {
        let mut command = std::process::Command::new(process::executable());
        command.args(arguments).arg("--cluster").arg(self.cluster_file()).args(["--host", host]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("starting {command:?}"))
    }

    /// Its standard output; fails unless the exit status is 0.
    pub fn ok(&self, host: &str, arguments: &[&str]) -> Result<String> {
        let (status, out, error) = self.command(host, arguments)?;
        if status != 0 {
            bail!("{arguments:?} on {host}: exit status {status}\n{out}{error}\n{}", self.logs());
        }
        Ok(out)
    }

    /// The database section of a host's `status --json`.
    pub fn status(&self, host: &str) -> Result<Value> {
        let (status, out, error) = self.command(host, &["status", "--json"])?;
        let mut value: Value =
            serde_json::from_str(&out).with_context(|| format!("status: exit {status}: {out}\n{error}"))?;
        Ok(value["database"].take())
    }

    /// Everything before the call is on the backup's disk, files and database.
    pub fn fence(&self) -> Result<()> {
        self.ok("nfs1", &["ctl", "fence"]).map(drop)
    }

    /// Ends of both logs.
    pub fn logs(&self) -> String {
        ["nfs1.log", "backup.log"]
            .iter()
            .map(|name| {
                let text = std::fs::read_to_string(self.directory.join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
            })
            .collect()
    }

    /// Waits until `condition`; two minutes at most.
    pub fn wait(&self, what: &str, condition: impl FnMut() -> bool) -> Result<Duration> {
        process::wait_until(what, Duration::from_secs(120), condition).with_context(|| self.logs())
    }
}
