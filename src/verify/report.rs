//! The report: for people, and the same as JSON.

use super::BackupDamage;
use super::compare::{Candidate, Finding};
use crate::host::ObjectKey;
use ehpc_proto::replication::ObjectId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that was compared is equal. (`unchecked` lists what was not compared.)
    Equal,
    /// `differences` lists what is not.
    Different,
}

/// Where a difference lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The primary's disk is not what the backup recorded.
    Primary,
    /// The backup's own disk (mirror or packs) is not what the backup recorded.
    Backup,
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// Path within the export; bytes that are not text are escaped.
    pub path: String,
    /// Whose disk.
    pub side: Side,
    /// In words.
    pub reasons: Vec<String>,
    /// Its number in the stream.
    pub object: Option<ObjectId>,
    /// Key of an object that the backup does not know.
    #[serde(skip)]
    key: Option<ObjectKey>,
}

/// Something that was not compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unchecked {
    /// Path within the export.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What a verification found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Regular files read and compared.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks, devices, pipes, sockets.
    pub others: u64,
    /// Bytes of content read on the primary.
    pub bytes: u64,
    /// Batch at which the comparison began.
    pub batch: u64,
    /// Did the backup re-read its mirror and packs?
    pub read_data: bool,
    /// Objects and bytes that the backup re-read.
    pub backup_objects: u64,
    /// Bytes of them.
    pub backup_bytes: u64,
    /// Versions on the backup that were read while the file moved.
    pub fuzzy: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// What is different.
    pub differences: Vec<Difference>,
    /// What was not compared.
    pub unchecked: Vec<Unchecked>,
    /// With `--repair`: what was different before.
    pub repaired: Vec<Difference>,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(batch: u64, read_data: bool) -> Report {
        let mut notes = Vec::new();
        if !read_data {
            notes.push(
                "the backup's side stands by its recorded hashes; --read-data re-reads its mirror and packs"
                    .to_owned(),
            );
        }
        Report {
            verdict: Verdict::Equal,
            files: 0,
            directories: 0,
            others: 0,
            bytes: 0,
            batch,
            read_data,
            backup_objects: 0,
            backup_bytes: 0,
            fuzzy: 0,
            seconds: 0.0,
            differences: Vec::new(),
            unchecked: Vec::new(),
            repaired: Vec::new(),
            notes,
        }
    }

    /// Objects of the primary read so far.
    pub fn objects(&self) -> u64 {
        self.files + self.directories + self.others
    }

    pub(super) fn add_unchecked(&mut self, path: &[u8], reason: String) {
        self.unchecked.push(Unchecked { path: printable_path(path), reason });
    }

    pub(super) fn add_candidate(&mut self, candidate: Candidate, path: &[u8]) {
        let path = printable_path(path);
        match candidate.finding {
            Finding::Differs(reasons) => self.differences.push(Difference {
                path,
                side: Side::Primary,
                reasons,
                object: candidate.id,
                key: candidate.unknown.map(|unknown| unknown.key),
            }),
            Finding::Moving | Finding::Fresh => self.unchecked.push(Unchecked {
                path,
                reason: format!("kept changing while it was compared ({} rounds)", super::ROUNDS),
            }),
            Finding::Unreadable(reason) => {
                self.unchecked
                    .push(Unchecked { path, reason: format!("cannot be read on the primary: {reason}") });
            }
        }
    }

    pub(super) fn add_damage(&mut self, found: BackupDamage) {
        self.backup_objects = found.progress.objects;
        self.backup_bytes = found.progress.bytes;
        for damage in found.damage {
            self.differences.push(Difference {
                path: printable_path(&damage.path),
                side: Side::Backup,
                reasons: vec![damage.reason],
                object: Some(damage.object),
                key: None,
            });
        }
        for damage in found.unchecked {
            self.unchecked.push(Unchecked { path: printable_path(&damage.path), reason: damage.reason });
        }
    }

    pub(super) fn finish(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
        self.verdict = if self.differences.is_empty() { Verdict::Equal } else { Verdict::Different };
        if self.fuzzy > 0 {
            self.notes.push(format!(
                "{} files never held still while they were read: the backup's versions of them are marked fuzzy",
                self.fuzzy
            ));
        }
    }

    pub(super) fn unknown_keys(&self) -> Vec<ObjectKey> {
        self.differences.iter().filter_map(|difference| difference.key.clone()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Equal if self.unchecked.is_empty() => "EQUAL: the backup is what the primary is",
            Verdict::Equal => "EQUAL, but for what could not be compared (below)",
            Verdict::Different => "DIFFERENT",
        };
        writeln!(f, "{verdict}")?;
        writeln!(
            f,
            "  compared  {} files, {} directories, {} others; {} read on the primary",
            self.files,
            self.directories,
            self.others,
            bytes(self.bytes)
        )?;
        if self.read_data {
            writeln!(
                f,
                "  re-read   {} objects on the backup, {}",
                self.backup_objects,
                bytes(self.backup_bytes)
            )?;
        }
        writeln!(f, "  at batch  {}, in {:.1} s", self.batch, self.seconds)?;
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        let mut list = |title: &str, items: &[Difference]| -> fmt::Result {
            if items.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title} ({}):", items.len())?;
            for difference in items {
                let side = match difference.side {
                    Side::Primary => "primary against backup",
                    Side::Backup => "on the backup's disk",
                };
                writeln!(f, "  {}  ({side})", difference.path)?;
                for reason in &difference.reasons {
                    writeln!(f, "      {reason}")?;
                }
            }
            Ok(())
        };
        list("differences", &self.differences)?;
        list("were different before the repair", &self.repaired)?;
        if !self.unchecked.is_empty() {
            writeln!(f, "unchecked ({}):", self.unchecked.len())?;
            for unchecked in &self.unchecked {
                writeln!(f, "  {}: {}", unchecked.path, unchecked.reason)?;
            }
        }
        if self.verdict == Verdict::Different {
            writeln!(f, "next: `ehpc-store verify --repair` ships these again and verifies once more")?;
        }
        Ok(())
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Bytes as text: what is not printable UTF-8 is escaped as in Rust strings.
pub(super) fn printable(name: &[u8]) -> String {
    name.utf8_chunks().fold(String::new(), |mut out, chunk| {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
        out
    })
}

fn printable_path(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { printable(path) }
}
