//! What a node says of itself: one value for the screen, `--json`, the dashboard and health.
//! Times are milliseconds since 1970, UTC.

use super::{LatencyCounts, words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A link that is up must bring an acknowledgement within this time.
const STALLED_MS: u64 = 120_000;

/// A node: the sections of the roles it runs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NodeStatus {
    pub process: ProcessStatus,
    pub nfs: Option<NfsStatus>,
    pub capture: Option<CaptureStatus>,
    pub sender: Option<SenderStatus>,
    pub link: Option<LinkStatus>,
    pub backup: Option<BackupStatus>,
    #[serde(default)]
    pub database: Option<DatabaseStatus>,
    pub verify: Option<VerifyStatus>,
    /// Child processes: web nodes, proxy.
    #[serde(default)]
    pub children: Vec<ChildStatus>,
    /// What a person must decide or repair before work goes on.
    pub attention: Vec<String>,
}

/// The process.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProcessStatus {
    pub pid: u32,
    pub version: String,
    /// "nfs1", "backup".
    pub roles: Vec<String>,
    pub uptime_ms: u64,
    pub rss_bytes: u64,
    pub now_ms: u64,
    /// Listening addresses by purpose, as bound.
    pub listening: Vec<(String, String)>,
}

/// A child process that is kept alive.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ChildStatus {
    pub name: String,
    /// Absent: it does not run now.
    pub pid: Option<u32>,
    pub address: Option<String>,
    /// Start of the running process.
    pub since_ms: u64,
    /// Times that it ended unasked.
    pub restarts: u64,
    /// How it ended last: "exit status: 2", "signal: 9 (SIGKILL)".
    pub last_end: Option<String>,
}

/// The NFS server.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NfsStatus {
    pub export: String,
    pub path: String,
    pub durability: String,
    pub clients: Vec<NfsClient>,
    pub operations: u64,
    pub operations_per_second: f64,
    pub errors: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Procedures that were called.
    pub procedures: Vec<NfsProcedure>,
    /// What is exported, sorted by name.
    pub exports: Vec<NfsExport>,
    pub connections: u64,
    /// Most of them at once; `[nfs1] connections`.
    pub connections_max: u64,
    pub reply_cache_bytes: u64,
    /// Times that a connection waited because of `[nfs1] in_flight`.
    pub in_flight_waits: u64,
    /// Times that a request waited because of `[nfs1] memory`.
    pub memory_waits: u64,
    /// What this server cannot do for want of privileges.
    pub notes: Vec<String>,
}

/// A client: connected now, or before.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NfsClient {
    /// "other": all clients that are not counted one by one.
    pub address: String,
    /// Its name in cluster.toml.
    pub host: Option<String>,
    pub connections: u64,
    pub operations: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// What went through an export.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NfsExport {
    pub name: String,
    /// Who may use it, as exports(5) writes it: "web1(rw,sync,secure,root_squash)".
    pub clients: Vec<String>,
    /// It lies in what is replicated.
    pub backed_up: bool,
    /// Exported because what it is mounted in is (`crossmnt`).
    pub implied: bool,
    pub operations: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// A procedure, from the request's last byte to its reply being ready.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NfsProcedure {
    /// "read", "mount_mnt", "acl_getacl".
    pub name: String,
    pub latency: LatencyCounts,
    /// Answers with an error, by status: "NOENT".
    pub errors: BTreeMap<String, u64>,
}

/// How changes by local processes are noticed.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CaptureStatus {
    /// "fanotify", "notify" or "none".
    pub watcher: String,
    /// Why this one.
    pub reason: String,
    pub watched_directories: Option<u64>,
    pub events: u64,
    pub overflows: u64,
    /// Other file systems mounted below the export: not shared, not replicated.
    pub mount_points: Vec<String>,
    pub scan: Option<ScanStatus>,
}

/// The reconcile scan that is running, or the last one.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ScanStatus {
    pub running: bool,
    pub finished_ms: Option<u64>,
    pub objects: u64,
    pub differing: u64,
    /// Why the last one did not finish, or not in full, and what to do.
    pub problem: Option<String>,
}

/// The sender of changes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SenderStatus {
    /// "idle", "sending", "waiting for the link", and so on.
    pub state: String,
    pub dirty: u64,
    /// Age of the oldest change that the backup does not have; 0 = it has all.
    pub lag_ms: u64,
    pub acknowledged_batch: Option<u64>,
    pub acknowledged_ms: Option<u64>,
    pub batches_sent: u64,
    /// Object states, since the start.
    pub objects_sent: u64,
    /// Could not be read, with the reason; first ones only.
    pub unreadable: Vec<String>,
    pub unreadable_total: u64,
    pub fuzzy_total: u64,
}

/// The link to the other side.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LinkStatus {
    pub up: bool,
    /// "connected", "connecting", "not paired", "refused".
    pub state: String,
    pub peer: String,
    pub since_ms: Option<u64>,
    pub bytes_sent: u64,
    pub last_error: Option<String>,
}

/// The backup's store, catalog and mirror.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BackupStatus {
    pub directory: String,
    pub stream: Option<String>,
    /// Newest batch on the disk.
    pub durable: u64,
    /// Newest batch in the catalog and on the mirror.
    pub applied: u64,
    pub packs_bytes: u64,
    pub free_bytes: u64,
    /// "DIR/mirror", or `None` with `mirror = false`.
    pub mirror: Option<String>,
    /// What the mirror cannot hold (not root), and other remarks.
    pub notes: Vec<String>,
    pub error: Option<String>,
}

/// The last verification.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VerifyStatus {
    pub running: bool,
    pub finished_ms: Option<u64>,
    pub equal: Option<bool>,
    pub summary: String,
}

impl VerifyStatus {
    /// When it was, and what it found.
    fn line(&self, now_ms: u64) -> String {
        let when = match (self.running, self.finished_ms) {
            (true, _) => "running now".to_owned(),
            (false, Some(ms)) => words::ago(ms, now_ms),
            (false, None) => "never".to_owned(),
        };
        let summary = if self.summary.is_empty() { String::new() } else { format!(": {}", self.summary) };
        format!("{when}{summary}")
    }
}

impl NodeStatus {
    /// Why the node is not healthy; empty = healthy.
    pub fn unhealthy(&self) -> Vec<String> {
        let mut reasons = self.attention.clone();
        if let Some(link) = &self.link
            && !link.up
        {
            let why = link.last_error.as_ref().map_or(String::new(), |error| format!(": {error}"));
            reasons.push(format!("the replication link is down ({}){why}", link.state));
        }
        reasons.extend(self.stalled());
        reasons.extend(self.backup.as_ref().and_then(|backup| backup.error.clone()));
        reasons.extend(self.database.iter().flat_map(|database| database.unhealthy(self.process.now_ms)));
        for child in self.children.iter().filter(|child| child.pid.is_none()) {
            let how = child.last_end.as_deref().unwrap_or("it has not started");
            reasons.push(format!("{} does not run ({how}); it is started again", child.name));
        }
        if let Some(verify) = &self.verify
            && verify.equal == Some(false)
        {
            reasons.push(format!("the last verification found differences: {}", verify.summary));
        }
        reasons
    }

    /// Changes wait, the link is up, and yet nothing has been acknowledged for a while.
    fn stalled(&self) -> Option<String> {
        let sender = self.sender.as_ref()?;
        let silent_ms = sender.acknowledged_ms.map_or(u64::MAX, |ms| self.process.now_ms.saturating_sub(ms));
        let waiting_ms = sender.lag_ms.min(silent_ms);
        let since = words::duration(Duration::from_millis(waiting_ms));
        (waiting_ms > STALLED_MS && self.link.as_ref().is_some_and(|link| link.up))
            .then(|| format!("the backup has acknowledged nothing for {since} although changes wait"))
    }

    /// One screen.
    pub fn render(&self) -> String {
        let mut out = Screen(String::new());
        self.render_process(&mut out);
        self.render_children(&mut out);
        self.render_nfs(&mut out);
        self.render_capture(&mut out);
        self.render_sender(&mut out);
        self.render_link(&mut out);
        self.render_backup(&mut out);
        self.render_database(&mut out);
        if let Some(verify) = &self.verify {
            out.line("verify", verify.line(self.process.now_ms));
        }
        for text in &self.attention {
            out.line("ATTENTION", text.clone());
        }
        out.0
    }

    fn render_process(&self, out: &mut Screen) {
        let process = &self.process;
        let up = words::duration(Duration::from_millis(process.uptime_ms));
        let health = if self.unhealthy().is_empty() { "healthy" } else { "NOT HEALTHY" };
        out.line(
            "node",
            format!(
                "{} {health}, up {up}, pid {}, {} of memory, version {}",
                process.roles.join(" + "),
                process.pid,
                words::bytes(process.rss_bytes),
                process.version
            ),
        );
        let listening: Vec<String> =
            process.listening.iter().map(|(what, at)| format!("{what} {at}")).collect();
        if !listening.is_empty() {
            out.line("listening", listening.join(", "));
        }
    }

    fn render_children(&self, out: &mut Screen) {
        for child in &self.children {
            let mut text = match child.pid {
                Some(pid) => {
                    format!("runs, pid {pid}, started {}", words::ago(child.since_ms, self.process.now_ms))
                }
                None => "DOES NOT RUN".to_owned(),
            };
            if let Some(end) = &child.last_end {
                let _ =
                    write!(text, ", restarted {} times, last because of {end}", words::count(child.restarts));
            }
            out.line(&child.name, text);
        }
    }

    fn render_capture(&self, out: &mut Screen) {
        let Some(capture) = &self.capture else { return };
        let watched = capture
            .watched_directories
            .map_or(String::new(), |n| format!(", {} directories", words::count(n)));
        out.line(
            "watcher",
            format!(
                "{} ({}){watched}, {} events, {} overflows",
                capture.watcher,
                capture.reason,
                words::count(capture.events),
                capture.overflows
            ),
        );
        if let Some(scan) = &capture.scan {
            let when = match (scan.running, scan.finished_ms) {
                (true, _) => "running".to_owned(),
                (false, Some(ms)) => words::ago(ms, self.process.now_ms),
                (false, None) => "never".to_owned(),
            };
            out.line(
                "scan",
                format!(
                    "{when}, {} objects compared, {} changes found",
                    words::count(scan.objects),
                    words::count(scan.differing)
                ),
            );
        }
        for mount in &capture.mount_points {
            out.line("not shared", format!("{mount} is another file system mounted below the export"));
        }
    }

    fn render_sender(&self, out: &mut Screen) {
        let Some(sender) = &self.sender else { return };
        let lag = match sender.lag_ms {
            0 => "none".to_owned(),
            ms => words::duration(Duration::from_millis(ms)),
        };
        out.line(
            "changes",
            format!("{}; {} not yet on the backup, lag {lag}", sender.state, words::count(sender.dirty)),
        );
        let acknowledged = match (sender.acknowledged_batch, sender.acknowledged_ms) {
            (Some(batch), Some(ms)) => {
                let age = words::ago(ms, self.process.now_ms);
                format!("batch {} at {} ({age})", words::count(batch), words::utc(ms))
            }
            (Some(batch), None) => format!("batch {}, before this start", words::count(batch)),
            _ => "nothing yet".to_owned(),
        };
        out.line("acknowledged", acknowledged);
        out.line(
            "sent",
            format!(
                "{} objects in {} batches since the start",
                words::count(sender.objects_sent),
                words::count(sender.batches_sent)
            ),
        );
        if sender.fuzzy_total > 0 {
            let n = words::count(sender.fuzzy_total);
            out.line("fuzzy", format!("{n} files were shipped while they changed without pause"));
        }
        for text in &sender.unreadable {
            out.line("unreadable", text.clone());
        }
        if sender.unreadable_total > sender.unreadable.len() as u64 {
            out.line("", format!("{} objects could not be read", words::count(sender.unreadable_total)));
        }
    }

    fn render_link(&self, out: &mut Screen) {
        let Some(link) = &self.link else { return };
        let since = link.since_ms.map_or(String::new(), |ms| format!(" since {}", words::utc(ms)));
        let sent = words::bytes(link.bytes_sent);
        out.line("link", format!("{} {}{since}, {sent} sent", link.peer, link.state));
        if let Some(error) = &link.last_error {
            out.line("", format!("last error: {error}"));
        }
    }

    fn render_backup(&self, out: &mut Screen) {
        let Some(backup) = &self.backup else { return };
        out.line(
            "backup",
            format!(
                "{}: batch {} durable, {} applied; packs {}, {} free",
                backup.directory,
                words::count(backup.durable),
                words::count(backup.applied),
                words::bytes(backup.packs_bytes),
                words::bytes(backup.free_bytes)
            ),
        );
        out.line("mirror", backup.mirror.clone().unwrap_or_else(|| "off (mirror = false)".to_owned()));
        for note in &backup.notes {
            out.line("", note.clone());
        }
        if let Some(error) = &backup.error {
            out.line("ERROR", error.clone());
        }
    }
}

#[path = "status_nfs.rs"]
mod nfs;

#[path = "status_database.rs"]
mod database;

pub use database::{
    DatabaseArchiveStatus, DatabaseBasesStatus, DatabaseReplicaStatus, DatabaseSemiSyncStatus,
    DatabaseSnapshotStatus, DatabaseSourceStatus, DatabaseStandbyStatus, DatabaseStatus,
};

/// Two columns.
struct Screen(String);

impl Screen {
    fn line(&mut self, label: &str, text: String) {
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{label:<14}{text}");
    }
}

/// Memory that this process holds now, from /proc; 0 where it cannot be read.
pub fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
#[path = "status_tests.rs"]
pub(crate) mod tests;
