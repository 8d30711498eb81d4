//! nfs1 and backup as two real processes over loopback, with everything below one directory.

use crate::lan::{self, Lan};
use crate::process::{self, Daemon};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Paths and options of a cluster.
pub struct Cluster {
    /// Everything is below it.
    pub directory: PathBuf,
    /// More arguments for nfs1.
    pub nfs1_arguments: Vec<String>,
    /// More arguments for backup.
    pub backup_arguments: Vec<String>,
    /// Where the backup's directory is; below `directory` when `None`.
    pub backup_at: Option<PathBuf>,
    /// Run as this user id (and group id) instead of root.
    pub uid: Option<u32>,
    /// Run in this network namespace, with NFS on port 2049 of all its addresses.
    pub namespace: Option<PathBuf>,
    /// Shell commands that run before each daemon, in a mount namespace of its own.
    pub stage: Option<String>,
    /// The exported directory as the daemon sees it on its stage; [`Cluster::share`] when `None`.
    pub export: Option<PathBuf>,
    /// The running nfs1.
    pub nfs1: Option<Daemon>,
    /// The running backup.
    pub backup: Option<Daemon>,
    backup_port: u16,
    nfs_port: u16,
}

impl Cluster {
    /// Directories only; nothing is started.
    pub fn new(directory: &Path) -> Result<Cluster> {
        std::fs::create_dir_all(directory.join("share"))?;
        Ok(Cluster {
            directory: directory.to_owned(),
            nfs1_arguments: Vec::new(),
            backup_arguments: Vec::new(),
            backup_at: None,
            uid: None,
            namespace: None,
            stage: None,
            export: None,
            nfs1: None,
            backup: None,
            backup_port: 0,
            nfs_port: 0,
        })
    }

    /// Starts both, paired.
    pub fn started(directory: &Path) -> Result<Cluster> {
        let mut cluster = Cluster::new(directory)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Starts backup, then nfs1.
    pub fn start(&mut self) -> Result<()> {
        self.start_backup()?;
        self.start_nfs1()
    }

    /// The exported directory.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// The live replica.
    pub fn mirror(&self) -> PathBuf {
        self.backup_directory().join("mirror")
    }

    /// The backup's directory.
    pub fn backup_directory(&self) -> PathBuf {
        self.backup_at.clone().unwrap_or_else(|| self.directory.join("backup"))
    }

    /// nfs1's state.
    pub fn state(&self) -> PathBuf {
        self.directory.join("nfs1")
    }

    /// Starts both, paired, in the namespace of `lan`.
    pub fn started_on(lan: &Lan, directory: &Path) -> Result<Cluster> {
        let mut cluster = Cluster::new(directory)?;
        cluster.start_on(lan)?;
        Ok(cluster)
    }

    /// Starts both, paired, in the namespace of `lan`.
    pub fn start_on(&mut self, lan: &Lan) -> Result<()> {
        self.namespace = Some(lan.namespace());
        self.nfs_port = 2049;
        self.start()
    }

    /// The executable, as the user and in the namespace asked for.
    fn executable(&self) -> Command {
        let executable = process::executable();
        let mut words: Vec<OsString> = Vec::new();
        if let Some(uid) = self.uid {
            words.extend([
                "setpriv".into(),
                format!("--reuid={uid}").into(),
                format!("--regid={uid}").into(),
            ]);
            words.extend(["--clear-groups".into(), "--no-new-privs".into()]);
        }
        if let Some(stage) = &self.stage {
            words.extend(["unshare", "--mount", "sh", "-c"].map(OsString::from));
            words.extend([format!("{stage}\nexec \"$@\"").into(), "stage".into()]);
        }
        words.push(executable.into());
        let mut command = match &self.namespace {
            None => Command::new(&words[0]),
            Some(namespace) => lan::inside(namespace, &words[0]),
        };
        command.args(&words[1..]);
        command
    }

    fn daemon(&self, arguments: Vec<OsString>, log: &str) -> Result<Daemon> {
        Daemon::spawn(self.executable().args(arguments), &self.directory.join(log))
    }

    /// Starts the backup (on the port it had before, if any) and pairs the two state directories once.
    pub fn start_backup(&mut self) -> Result<()> {
        let mut arguments: Vec<OsString> =
            vec!["backup".into(), "--dir".into(), self.backup_directory().into()];
        arguments.extend(["--listen".into(), format!("127.0.0.1:{}", self.backup_port).into()]);
        arguments.extend(["--dashboard".into(), "127.0.0.1:0".into()]);
        arguments.extend(self.backup_arguments.iter().map(OsString::from));
        let daemon = self.daemon(arguments, "backup.log")?;
        self.backup_port = daemon.port("replication")?;
        self.backup = Some(daemon);
        if !self.state().join("peers.toml").exists() {
            self.pair()?;
        }
        Ok(())
    }

    fn pair(&self) -> Result<()> {
        let offer = process::run(&[
            OsString::from("pair"),
            "--state".into(),
            self.backup_directory().into(),
            "--json".into(),
        ])?;
        if !offer.status.success() {
            bail!("pair on the backup: {}", String::from_utf8_lossy(&offer.stderr));
        }
        let offer: serde_json::Value = serde_json::from_slice(&offer.stdout).context("pair --json")?;
        let code = offer["code"].as_str().context("no code")?;
        let taken = self
            .executable()
            .args(["pair", "--state"])
            .arg(self.state())
            .args(["--backup", &format!("127.0.0.1:{}", self.backup_port), "--code", code])
            .output()?;
        if !taken.status.success() {
            bail!("pair on nfs1: {}", String::from_utf8_lossy(&taken.stderr));
        }
        Ok(())
    }

    /// Starts nfs1 (on the port it had before, if any).
    pub fn start_nfs1(&mut self) -> Result<()> {
        let mut arguments: Vec<OsString> = vec![
            "nfs1".into(),
            "--export".into(),
            self.export.clone().unwrap_or_else(|| self.share()).into(),
        ];
        arguments.extend(["--export-name".into(), "/share".into(), "--state".into(), self.state().into()]);
        let address = if self.namespace.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        arguments.extend(["--listen".into(), format!("{address}:{}", self.nfs_port).into()]);
        arguments.extend(["--dashboard".into(), "127.0.0.1:0".into()]);
        arguments.extend(["--backup".into(), format!("127.0.0.1:{}", self.backup_port).into()]);
        arguments.extend(self.nfs1_arguments.iter().map(OsString::from));
        let daemon = self.daemon(arguments, "nfs1.log")?;
        self.nfs_port = daemon.port("nfs")?;
        self.nfs1 = Some(daemon);
        Ok(())
    }

    /// kill -9 of nfs1.
    pub fn kill_nfs1(&mut self) -> Result<()> {
        self.nfs1.take().map_or(Ok(()), Daemon::kill)
    }

    /// kill -9 of backup.
    pub fn kill_backup(&mut self) -> Result<()> {
        self.backup.take().map_or(Ok(()), Daemon::kill)
    }

    /// SIGTERM to nfs1; its end is waited for, and it must end well.
    pub fn stop_nfs1(&mut self) -> Result<()> {
        let status = self.nfs1.take().map_or(Ok(0), Daemon::terminate)?;
        if status != 0 {
            bail!("nfs1 ended with {status} on SIGTERM\n{}", self.logs());
        }
        Ok(())
    }

    /// Port of NFS and MOUNT.
    pub fn nfs_port(&self) -> Result<u16> {
        self.nfs1.as_ref().context("nfs1 is not running")?.port("nfs")
    }

    /// Port of the replication listener.
    pub fn backup_port(&self) -> u16 {
        self.backup_port
    }

    /// Runs a subcommand against nfs1's state; (exit status, stdout, stderr).
    pub fn command(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all.extend(["--state".into(), self.state().into()]);
        let output = process::run(&all)?;
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// `ctl fence`: returns when everything before the call is on the backup's disk.
    pub fn fence(&self) -> Result<()> {
        let (status, out, error) = self.command(&["ctl", "fence"])?;
        if status != 0 {
            bail!("fence: exit status {status}\n{out}\n{error}");
        }
        Ok(())
    }

    /// `status --json` of nfs1.
    pub fn status(&self) -> Result<serde_json::Value> {
        let (status, out, error) = self.command(&["status", "--json"])?;
        serde_json::from_str(&out).with_context(|| format!("status: exit {status}: {out}\n{error}"))
    }

    /// `verify` with `arguments`; (exit status, report).
    pub fn verify(&self, arguments: &[&str]) -> Result<(i32, serde_json::Value)> {
        let mut all = vec!["verify", "--json"];
        all.extend(arguments);
        let (status, out, error) = self.command(&all)?;
        let report =
            serde_json::from_str(&out).with_context(|| format!("verify: exit {status}: {out}\n{error}"))?;
        Ok((status, report))
    }

    /// Fails unless `verify --read-data` finds everything equal and nothing unchecked.
    pub fn assert_equal(&self) -> Result<()> {
        let (status, report) = self.verify(&["--read-data"])?;
        if status != 0 {
            bail!("verify: exit status {status}: {report:#}\n{}", self.logs());
        }
        Ok(())
    }

    /// What an independent rsync finds between export and mirror; empty = equal.
    pub fn rsync_differences(&self) -> Result<String> {
        rsync_differences(&self.share(), &self.mirror())
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

    /// Waits until `condition`; a minute at most.
    pub fn wait(&self, what: &str, condition: impl FnMut() -> bool) -> Result<Duration> {
        process::wait_until(what, Duration::from_secs(60), condition).with_context(|| self.logs())
    }
}

/// `rsync -aHAXnci --modify-window=-1 --delete`: differences to the nanosecond, one a line.
pub fn rsync_differences(from: &Path, to: &Path) -> Result<String> {
    let output = Command::new("rsync")
        .args(["-aHAXnci", "--modify-window=-1", "--delete"])
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output()?;
    if !output.status.success() {
        bail!("rsync: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Cluster {
    /// `status --json` of the backup.
    pub fn backup_status(&self) -> Result<serde_json::Value> {
        let arguments =
            [OsString::from("status"), "--json".into(), "--state".into(), self.backup_directory().into()];
        let output = process::run(&arguments)?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status of the backup: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits until catalog and mirror have applied everything that is durable.
    pub fn settle_backup(&self, deadline: Duration) -> Result<()> {
        process::wait_until("the backup applied everything", deadline, || {
            self.backup_status().is_ok_and(|status| {
                let backup = &status["backup"];
                backup["durable"].is_u64() && backup["durable"] == backup["applied"]
            })
        })
        .with_context(|| self.logs())?;
        Ok(())
    }
}
