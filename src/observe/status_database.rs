//! The database section of a node's status: what nfs1 reads, what the backup keeps.

use super::super::words;
use super::{NodeStatus, Screen, VerifyStatus};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A base snapshot or standby that is this much later than it should be needs a person.
const LATE: u64 = 2;
/// Clocks of different hosts may differ so much without a word, in milliseconds.
const CLOCKS_MS: u64 = 60_000;

/// The database. nfs1 fills in `source` and `snapshot`, the backup the rest.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseStatus {
    pub source: Option<DatabaseSourceStatus>,
    pub snapshot: Option<DatabaseSnapshotStatus>,
    pub archive: Option<DatabaseArchiveStatus>,
    pub bases: Option<DatabaseBasesStatus>,
    pub standby: Option<DatabaseStandbyStatus>,
    /// Who replicates from the archive now.
    pub replicas: Vec<DatabaseReplicaStatus>,
    /// Newest moment that files and database have in common.
    pub newest_mark_ms: Option<u64>,
    /// The last verification of archive and standby.
    #[serde(default)]
    pub verify: Option<VerifyStatus>,
}

/// The connection to the server, and through it to the backup.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseSourceStatus {
    /// "streaming", "connecting", "refused", "gap", "ahead", "damaged", "failed" and so on.
    pub state: String,
    /// It does its work; false = the state needs time or a person.
    pub well: bool,
    /// Where the server is, and what it says it is: "/run/mysqld/mysqld.sock", "10.11.6-MariaDB-log".
    pub address: String,
    pub version: String,
    /// End of what was read.
    pub file: String,
    pub offset: u64,
    /// GTID state of what was read.
    pub gtid: String,
    /// Age of the oldest event that is not on the backup's disk; 0 = all are. While nothing streams: how long ago all
    /// were there.
    pub lag_ms: u64,
    pub bytes: u64,
    pub events: u64,
    pub reconnects: u64,
    pub semi_sync: Option<DatabaseSemiSyncStatus>,
    /// What the preflight found, with the statement or line that repairs it.
    pub findings: Vec<String>,
    pub last_error: Option<String>,
}

/// Semi-synchronous replication, as the server counts it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseSemiSyncStatus {
    /// "on", "fallen back", "without a replica", "interrupted", "shared", "impossible", "unknown".
    pub state: String,
    /// Commits wait for the backup's disk, and for nobody else's.
    pub holds: bool,
    pub since_ms: u64,
    /// Times that it fell back since the start.
    pub fallbacks: u64,
    /// Commits answered without the backup since the start.
    pub unprotected_commits: u64,
}

/// Base snapshots, as nfs1 takes them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseSnapshotStatus {
    /// What it does now: "dumping, 1.2 GiB read".
    pub running: Option<String>,
    pub last_ms: Option<u64>,
    pub next_ms: Option<u64>,
    pub last_error: Option<String>,
}

/// The archive of binary logs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseArchiveStatus {
    pub directory: String,
    /// Whether nfs1 is connected.
    pub connected: bool,
    /// Servers in succession that it holds.
    pub lineages: u32,
    pub files: u64,
    pub bytes: u64,
    /// End of what is on the disk.
    pub file: String,
    pub offset: u64,
    pub gtid: String,
    /// When the newest event arrived.
    pub newest_ms: Option<u64>,
    pub error: Option<String>,
}

/// The base snapshots that are kept.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseBasesStatus {
    pub count: u64,
    /// Number of the newest.
    pub newest: Option<u64>,
    pub newest_ms: Option<u64>,
    /// Its dump, before compression.
    pub newest_bytes: u64,
    /// What all of them take on the disk.
    pub stored_bytes: u64,
    /// `base_every`.
    pub every_ms: u64,
    pub error: Option<String>,
}

/// The standby.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseStandbyStatus {
    /// "running", "not built", "building", "stopped", "failed".
    pub state: String,
    pub well: bool,
    pub address: String,
    /// Behind the archive.
    pub lag_ms: u64,
    pub gtid: String,
    pub error: Option<String>,
}

/// A server that replicates from the archive.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatabaseReplicaStatus {
    pub server_id: u32,
    pub address: String,
    pub file: String,
    pub offset: u64,
}

impl DatabaseStatus {
    /// Adds what another role of the same node knows.
    pub fn merge(&mut self, other: DatabaseStatus) {
        self.source = self.source.take().or(other.source);
        self.snapshot = self.snapshot.take().or(other.snapshot);
        self.archive = self.archive.take().or(other.archive);
        self.bases = self.bases.take().or(other.bases);
        self.standby = self.standby.take().or(other.standby);
        self.replicas.extend(other.replicas);
        self.newest_mark_ms = self.newest_mark_ms.max(other.newest_mark_ms);
        self.verify = self.verify.take().or(other.verify);
    }

    /// How far the newest moment that the backup knows lies in its future, where that is more than clocks may differ:
    /// moments are times of nfs1's clock, and they never go back.
    pub fn ahead(&self, now_ms: u64) -> Option<Duration> {
        let archived = self.archive.as_ref().and_then(|archive| archive.newest_ms);
        let ahead = self.newest_mark_ms.max(archived)?.saturating_sub(now_ms);
        (ahead > CLOCKS_MS).then(|| Duration::from_millis(ahead))
    }

    /// What needs a person.
    pub(super) fn unhealthy(&self, now_ms: u64) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(source) = &self.source {
            if !source.well {
                let why = source.last_error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                reasons.push(format!("the database does not stream to the backup ({}){why}", source.state));
            }
            if let Some(semi_sync) = source.semi_sync.as_ref().filter(|semi_sync| !semi_sync.holds) {
                reasons.push(format!(
                    "commits do not wait for the backup's disk although durability is remote: semi-sync is {}",
                    semi_sync.state
                ));
            }
            reasons.extend(source.findings.iter().cloned());
        }
        reasons.extend(self.snapshot.as_ref().and_then(|snapshot| {
            Some(format!("the last base snapshot of the database failed: {}", snapshot.last_error.as_ref()?))
        }));
        reasons.extend(self.archive.as_ref().and_then(|archive| archive.error.clone()));
        reasons.extend(self.ahead(now_ms).map(|ahead| {
            format!(
                "the newest moment of the database lies {} in the future: the clock of nfs1 was ahead. Until then a time \
                 (--at TIME) finds what was before that jump; restore with `--at latest`, --gtid or --position, and let \
                 NTP keep the clock of nfs1",
                words::duration(ahead)
            )
        }));
        if let Some(bases) = &self.bases {
            reasons.extend(bases.error.clone());
            let age_ms = bases.newest_ms.map(|newest| now_ms.saturating_sub(newest));
            if let Some(age_ms) = age_ms.filter(|age| *age > bases.every_ms.saturating_mul(LATE)) {
                let age = words::duration(Duration::from_millis(age_ms));
                reasons.push(format!("the newest base snapshot of the database is {age} old"));
            }
        }
        if let Some(standby) = self.standby.as_ref().filter(|standby| !standby.well) {
            let why = standby.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
            reasons.push(format!("the standby of the database is {}{why}", standby.state));
        }
        if let Some(verify) = self.verify.as_ref().filter(|verify| verify.equal == Some(false)) {
            reasons
                .push(format!("the last verification of the database found differences: {}", verify.summary));
        }
        reasons
    }
}

impl NodeStatus {
    /// Adds what a role knows of the database.
    pub fn add_database(&mut self, database: DatabaseStatus) {
        self.database.get_or_insert_default().merge(database);
    }

    pub(super) fn render_database(&self, out: &mut Screen) {
        let Some(database) = &self.database else { return };
        if let Some(source) = &database.source {
            render_source(source, out);
        }
        if let Some(snapshot) = &database.snapshot {
            let last = snapshot.last_ms.map_or("none taken since the start".to_owned(), |ms| {
                format!("last taken {}", words::ago(ms, self.process.now_ms))
            });
            out.line("base snapshot", snapshot.running.clone().unwrap_or(last));
            if let Some(error) = &snapshot.last_error {
                out.line("", format!("last error: {error}"));
            }
        }
        if let Some(archive) = &database.archive {
            let newest = archive.newest_ms.map_or("nothing yet".to_owned(), |ms| {
                format!("newest event {}", words::ago(ms, self.process.now_ms))
            });
            out.line(
                "binary logs",
                format!(
                    "{}: {} files, {}, up to {}:{}, {newest}{}",
                    archive.directory,
                    words::count(archive.files),
                    words::bytes(archive.bytes),
                    archive.file,
                    archive.offset,
                    if archive.connected { "" } else { "; nfs1 is not connected" }
                ),
            );
            if !archive.gtid.is_empty() {
                out.line("", format!("GTID {}", archive.gtid));
            }
        }
        if let Some(bases) = &database.bases {
            let newest = match (bases.newest, bases.newest_ms) {
                (Some(number), Some(ms)) => format!(
                    "{} kept, {} on the disk; number {number} is {} old, {} of SQL",
                    words::count(bases.count),
                    words::bytes(bases.stored_bytes),
                    words::duration(Duration::from_millis(self.process.now_ms.saturating_sub(ms))),
                    words::bytes(bases.newest_bytes)
                ),
                _ => "none yet".to_owned(),
            };
            out.line("bases", newest);
        }
        if let Some(standby) = &database.standby {
            let lag = match standby.lag_ms {
                0 => "none".to_owned(),
                ms => words::duration(Duration::from_millis(ms)),
            };
            out.line("standby", format!("{} {}, lag {lag}", standby.address, standby.state));
        }
        for replica in &database.replicas {
            let at = format!("{}:{}", replica.file, replica.offset);
            out.line("replica", format!("server_id {} at {}, {at}", replica.server_id, replica.address));
        }
        if let Some(ms) = database.newest_mark_ms {
            let ago = words::ago(ms, self.process.now_ms);
            out.line("one moment", format!("files and database of {} ({ago})", words::utc(ms)));
        }
        if let Some(verify) = &database.verify {
            out.line("verify of it", verify.line(self.process.now_ms));
        }
    }
}

fn render_source(source: &DatabaseSourceStatus, out: &mut Screen) {
    let lag = match source.lag_ms {
        0 => "none".to_owned(),
        ms => words::duration(Duration::from_millis(ms)),
    };
    out.line(
        "database",
        format!(
            "{} {} {}, {}:{}, lag {lag}, {} events, {}",
            source.address,
            source.version,
            source.state,
            source.file,
            source.offset,
            words::count(source.events),
            words::bytes(source.bytes)
        ),
    );
    if let Some(semi_sync) = &source.semi_sync {
        out.line(
            "semi-sync",
            format!(
                "{} since {}, fell back {} times, {} commits without the backup",
                semi_sync.state,
                words::utc(semi_sync.since_ms),
                words::count(semi_sync.fallbacks),
                words::count(semi_sync.unprotected_commits)
            ),
        );
    }
    if let Some(error) = &source.last_error {
        out.line("", format!("last error: {error}"));
    }
}

#[cfg(test)]
#[path = "status_database_tests.rs"]
pub(super) mod tests;
