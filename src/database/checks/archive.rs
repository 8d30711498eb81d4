//! The archive against the server's own binary logs: each file's length and BLAKE3, the archive's own check of every
//! event, and where in a file a difference lies.
//!
//! The server's files are read where they are, on nfs1's host. The one bit that is not part of the log is masked: a file
//! that is in use says so in its header (and goes on saying so for ever when its server was killed).

use super::remote::Ask;
use crate::database::sql::{Sql, SqlError};
use ehpc_proto::replication::database::{ArchivedFile, DbAnswer, DbQuery};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Offset of the low byte of the flags of the first event, behind the four bytes of the magic.
const FLAGS_AT: u64 = 4 + 17;
/// LOG_EVENT_BINLOG_IN_USE_F.
const IN_USE: u8 = 1;
/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// A difference is looked for down to a range of this many bytes.
const NARROW: u64 = 4096;

/// How a file of the archive differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileDifference {
    /// Lineage and name.
    pub lineage: u32,
    /// Its number in the lineage.
    pub ordinal: u32,
    /// The server's name for it.
    pub name: String,
    /// Its bytes on the backup.
    pub bytes: u64,
    /// The server went on to another file: it can be fetched again.
    pub closed: bool,
    /// In words.
    pub what: String,
}

impl FileDifference {
    fn of(file: &ArchivedFile, what: String) -> FileDifference {
        FileDifference {
            lineage: file.lineage,
            ordinal: file.ordinal,
            name: file.name.clone(),
            bytes: file.len,
            closed: file.closed,
            what,
        }
    }
}

/// A file that was not compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileUnchecked {
    /// The server's name for it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What checking an archive has found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// Files of the archive, and their bytes, that were read and checked event by event on the backup.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were compared with the server's, byte by byte (by BLAKE3).
    pub compared: u64,
    /// Bytes of them.
    pub compared_bytes: u64,
    /// Files that the server has purged, or that belong to an earlier server.
    pub older: u64,
    /// What is different or damaged.
    pub differences: Vec<FileDifference>,
    /// What was not compared.
    pub unchecked: Vec<FileUnchecked>,
}

impl ArchiveReport {
    /// Whether everything that was checked is as it should be.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for ArchiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = crate::observe::words::bytes;
        writeln!(
            f,
            "  archive   {} files, {}, every event checked; {} of them, {}, compared with the server's own",
            self.files,
            bytes(self.bytes),
            self.compared,
            bytes(self.compared_bytes)
        )?;
        if self.older > 0 {
            writeln!(f, "            {} files are no longer on the server", self.older)?;
        }
        if !self.differences.is_empty() {
            writeln!(f, "differences in the archive ({}):", self.differences.len())?;
            for difference in &self.differences {
                writeln!(f, "  {} (lineage {}): {}", difference.name, difference.lineage, difference.what)?;
            }
        }
        if !self.unchecked.is_empty() {
            writeln!(f, "unchecked in the archive ({}):", self.unchecked.len())?;
            for unchecked in &self.unchecked {
                writeln!(f, "  {}: {}", unchecked.name, unchecked.reason)?;
            }
        }
        Ok(())
    }
}

/// Why an archive could not be checked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArchiveCheckError {
    #[error("the server: {0}")]
    Server(#[from] SqlError),
    #[error("the backup: {0}")]
    Backup(String),
    #[error("stopped before it was finished")]
    Stopped,
}

/// Checks the archive behind `ask`, and compares it with the files of the server at `sql`.
/// What the server wrote before the call must be durable already (a fence).
pub async fn check(
    sql: &mut Sql,
    ask: &Ask,
    stop: &Arc<AtomicBool>,
) -> Result<ArchiveReport, ArchiveCheckError> {
    let mut report = ArchiveReport::default();
    let files = files(ask).await?;
    let newest = files.last().map(|file| file.lineage);
    let local = Local::find(sql).await?;
    for file in files {
        if stop.load(Ordering::Relaxed) {
            return Err(ArchiveCheckError::Stopped);
        }
        let damaged = own_check(ask, &file, &mut report).await?;
        if Some(file.lineage) != newest || !local.on_server(&file.name) {
            report.older += 1;
            continue;
        }
        // What is damaged is said already, with the place.
        if !damaged {
            compare(ask, &local, &file, &mut report, stop).await?;
        }
    }
    Ok(report)
}

/// All files of the archive, in order.
async fn files(ask: &Ask) -> Result<Vec<ArchivedFile>, ArchiveCheckError> {
    let mut all: Vec<ArchivedFile> = Vec::new();
    loop {
        let from = all.last().map_or((0, 0), |last| (last.lineage, last.ordinal + 1));
        let mut more = Vec::new();
        for part in asked(ask, DbQuery::Files { from }).await? {
            match part {
                DbAnswer::Files(files) => more.extend(files),
                other => return Err(unfit(&other)),
            }
        }
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

async fn asked(ask: &Ask, query: DbQuery) -> Result<Vec<DbAnswer>, ArchiveCheckError> {
    let parts = ask(query).await.map_err(ArchiveCheckError::Backup)?;
    for part in &parts {
        if let DbAnswer::Failed { reason } = part {
            return Err(ArchiveCheckError::Backup(reason.clone()));
        }
    }
    Ok(parts)
}

fn unfit(answer: &DbAnswer) -> ArchiveCheckError {
    let shown: String = format!("{answer:?}").chars().take(80).collect();
    ArchiveCheckError::Backup(format!("an answer that does not fit the question: {shown}"))
}

/// The backup reads the file; whether it is damaged.
async fn own_check(
    ask: &Ask,
    file: &ArchivedFile,
    report: &mut ArchiveReport,
) -> Result<bool, ArchiveCheckError> {
    report.files += 1;
    report.bytes += file.len;
    let mut damaged = false;
    let query = DbQuery::Check { lineage: file.lineage, ordinal: file.ordinal };
    for part in asked(ask, query).await? {
        let DbAnswer::Checked(damage) = part else { return Err(unfit(&part)) };
        for place in damage {
            damaged = true;
            let what = match place.at {
                Some(at) => format!("damaged on the backup at byte {at}: {}", place.reason),
                None => format!("damaged on the backup: {}", place.reason),
            };
            report.differences.push(FileDifference::of(file, what));
        }
    }
    Ok(damaged)
}

/// The server's files, where they can be read.
struct Local {
    directory: Option<PathBuf>,
    /// Names and lengths as the server lists them.
    files: Vec<(String, u64)>,
    why_not: String,
}

impl Local {
    async fn find(sql: &mut Sql) -> Result<Local, ArchiveCheckError> {
        let listed = sql.rows("SHOW BINARY LOGS").await?;
        let files = listed.iter().map(|row| (row.string(0), row.number(1).unwrap_or(0))).collect();
        let base = sql.variable("log_bin_basename").await?.unwrap_or_default();
        let mut local = Local { directory: None, files, why_not: String::new() };
        match Path::new(&base).parent() {
            Some(directory) if directory.is_absolute() => local.directory = Some(directory.to_owned()),
            _ => local.why_not = "the server does not tell where its files are".to_owned(),
        }
        Ok(local)
    }

    fn on_server(&self, name: &str) -> bool {
        self.files.iter().any(|(listed, _)| listed == name)
    }
}

async fn compare(
    ask: &Ask,
    local: &Local,
    file: &ArchivedFile,
    report: &mut ArchiveReport,
    stop: &Arc<AtomicBool>,
) -> Result<(), ArchiveCheckError> {
    let unchecked = |reason: String| FileUnchecked { name: file.name.clone(), reason };
    let Some(directory) = &local.directory else {
        report.unchecked.push(unchecked(local.why_not.clone()));
        return Ok(());
    };
    let path = directory.join(&file.name);
    // The length first: a file that is in use grows, and what is in the archive was in the file before.
    let len = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) => {
            report.unchecked.push(unchecked(format!("{} cannot be read: {error}", path.display())));
            return Ok(());
        }
    };
    let mut differs = |what: String| {
        report.differences.push(FileDifference::of(file, what));
    };
    if len < file.len {
        differs(format!(
            "{} bytes on the backup, {len} on the server: the server has lost what it sent",
            file.len
        ));
        return Ok(());
    }
    if file.closed && len > file.len && !is_torn(&path, file.len, len) {
        differs(format!("{} bytes on the backup, {len} on the server, which has closed the file", file.len));
    }
    match equal(ask, &path, file, (0, file.len), stop).await? {
        Some(true) => {
            report.compared += 1;
            report.compared_bytes += file.len;
        }
        Some(false) => {
            let (from, to) = narrowed(ask, &path, file, stop).await?;
            differs(format!("bytes {from} to {to} are not those of the server's {}", path.display()));
        }
        None => report.unchecked.push(unchecked(format!("{} went away while it was read", path.display()))),
    }
    Ok(())
}

/// Whether what is behind `from` is not a whole event: a server that was killed leaves one half written, and never
/// sends it.
fn is_torn(path: &Path, from: u64, len: u64) -> bool {
    const HEADER: u64 = 19;
    const SIZE_AT: usize = 9;
    let mut header = [0; HEADER as usize];
    if len - from < HEADER {
        return true;
    }
    match File::open(path).and_then(|file| file.read_exact_at(&mut header, from)) {
        Ok(()) => {
            let size = header[SIZE_AT..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            u64::from(size) > len - from || size == 0
        }
        Err(_) => false,
    }
}

/// Whether a range is the same on both sides; `None` when the server's file cannot be read any more.
async fn equal(
    ask: &Ask,
    path: &Path,
    file: &ArchivedFile,
    (from, to): (u64, u64),
    stop: &Arc<AtomicBool>,
) -> Result<Option<bool>, ArchiveCheckError> {
    let query = DbQuery::Hash { lineage: file.lineage, ordinal: file.ordinal, from, to };
    let (path, stop) = (path.to_owned(), Arc::clone(stop));
    let ours = tokio::task::spawn_blocking(move || hash(&path, from, to, &stop));
    let (theirs, ours) = tokio::join!(asked(ask, query), ours);
    let ours = match ours {
        Ok(Ok(hash)) => hash,
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            return Err(ArchiveCheckError::Stopped);
        }
        Ok(Err(_)) => return Ok(None),
        Err(error) => return Err(ArchiveCheckError::Backup(error.to_string())),
    };
    match theirs?.first() {
        Some(DbAnswer::Hash(theirs)) => Ok(Some(theirs.0 == *ours.as_bytes())),
        Some(other) => Err(unfit(other)),
        None => Err(ArchiveCheckError::Backup("no answer".to_owned())),
    }
}

/// Halves a range that differs until it is short.
async fn narrowed(
    ask: &Ask,
    path: &Path,
    file: &ArchivedFile,
    stop: &Arc<AtomicBool>,
) -> Result<(u64, u64), ArchiveCheckError> {
    let (mut from, mut to) = (0, file.len);
    while to - from > NARROW {
        let middle = from + (to - from) / 2;
        match equal(ask, path, file, (from, middle), stop).await? {
            Some(true) => from = middle,
            _ => to = middle,
        }
    }
    Ok((from, to))
}

/// BLAKE3 of a range of a file of the server, the bit of its being in use masked.
fn hash(path: &Path, from: u64, to: u64, stop: &AtomicBool) -> io::Result<blake3::Hash> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < to {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        let bytes = &mut piece[..len];
        file.read_exact_at(bytes, at)?;
        if let Some(flags) =
            FLAGS_AT.checked_sub(at).and_then(|offset| bytes.get_mut(usize::try_from(offset).ok()?))
        {
            *flags &= !IN_USE;
        }
        hasher.update(bytes);
        at += len as u64;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
