//! The archive against the server's own binary logs: each file's length and BLAKE3, the archive's own check of every
//! event, and where in a file a difference lies.
//!
//! The server's files are read where they are (`local`), when that is nfs1's host and they are certainly its own; else the
//! server sends them once more, as it sends them to replicas (`fetched`).

use super::remote::Ask;
use super::{fetched, local};
use crate::database::sql::{Dsn, Row, Sql, SqlError};
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::database::{ArchivedFile, DbAnswer, DbQuery};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Those of the compared ones that the server sent once more, for its files are not to be read on this host.
    pub fetched: u64,
    /// Files that the server has purged, or that belong to an earlier server.
    pub older: u64,
    /// What is different or damaged.
    pub differences: Vec<FileDifference>,
    /// What was not compared.
    pub unchecked: Vec<FileUnchecked>,
    /// Why nothing is said about the rest.
    pub ended: Option<String>,
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
        if self.fetched > 0 {
            writeln!(
                f,
                "            {} of these were sent by the server once more: they cannot be read on this host",
                self.fetched
            )?;
        }
        if self.older > 0 {
            writeln!(
                f,
                "            {} files are no longer on the server: nothing was there to compare them with",
                self.older
            )?;
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
    #[error("the backup: {0}")]
    Refused(String),
    #[error("stopped before it was finished")]
    Stopped,
}

/// Checks the archive behind `ask`, and compares it with the files of the server at `dsn`.
/// What the server wrote before the call must be durable already (a fence). What was found is told also when it ends
/// early.
///
/// # Errors
///
/// It could not begin.
pub async fn check(dsn: &Dsn, ask: &Ask, stop: &Arc<AtomicBool>) -> Result<ArchiveReport, ArchiveCheckError> {
    let mut sql = Sql::connect(dsn).await?;
    let base = sql.variable("log_bin_basename").await?.unwrap_or_default();
    let directory = Path::new(&base).parent().filter(|path| path.is_absolute() && dsn.server.is_local());
    let found = check_at(&mut sql, dsn, directory.map(Path::to_owned), ask, stop).await;
    sql.close().await;
    found
}

/// The same; `directory`: where the server's files may be on this host.
async fn check_at(
    sql: &mut Sql,
    dsn: &Dsn,
    directory: Option<PathBuf>,
    ask: &Ask,
    stop: &Arc<AtomicBool>,
) -> Result<ArchiveReport, ArchiveCheckError> {
    let files = files(ask).await?;
    let listed = sql.rows("SHOW BINARY LOGS").await?;
    let mut report = ArchiveReport::default();
    let ended = report.check_files(files, &listed, (dsn, directory.as_deref()), ask, stop).await;
    report.ended = ended.err().map(|error| error.to_string());
    Ok(report)
}

impl ArchiveReport {
    async fn check_files(
        &mut self,
        files: Vec<ArchivedFile>,
        listed: &[Row],
        (dsn, directory): (&Dsn, Option<&Path>),
        ask: &Ask,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), ArchiveCheckError> {
        let newest = files.last().map(|file| file.lineage);
        for file in files {
            if stop.load(Ordering::Relaxed) {
                return Err(ArchiveCheckError::Stopped);
            }
            let on_server = listed.iter().find(|row| row.string(0) == file.name);
            let on_server = on_server.filter(|_| Some(file.lineage) == newest);
            let on_server = on_server.map(|row| (dsn, row.number(1).unwrap_or(0), directory));
            match check_file(&Archived { ask, file: &file, stop }, on_server).await {
                Ok(checked) => self.add(&file, checked),
                // The others are looked at all the same. One that was pruned meanwhile is nothing any more.
                Err(ArchiveCheckError::Refused(reason)) if is_listed(ask, &file).await? => {
                    self.unchecked.push(FileUnchecked { name: file.name, reason });
                }
                Err(ArchiveCheckError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What checking one file has come to.
enum Checked {
    /// Damaged on the backup, in words.
    Damaged { what: Vec<String>, on_server: bool },
    /// It is sound; the server has it no more.
    Older,
    /// It is sound; compared with the server's own, which was sent once more for it or not.
    Compared(Found, bool),
}

/// `on_server`: the server that has it, its length there, and where it may be on this host.
async fn check_file(
    archived: &Archived<'_>,
    on_server: Option<(&Dsn, u64, Option<&Path>)>,
) -> Result<Checked, ArchiveCheckError> {
    let what = own_check(archived).await?;
    // What is damaged is said with the place.
    if !what.is_empty() {
        return Ok(Checked::Damaged { what, on_server: on_server.is_some() });
    }
    let Some((dsn, listed, directory)) = on_server else { return Ok(Checked::Older) };
    let here = match directory {
        Some(directory) => local::compare(archived, &directory.join(&archived.file.name)).await?,
        None => None,
    };
    Ok(match here {
        Some(found) => Checked::Compared(found, false),
        None => Checked::Compared(fetched::compare(archived, dsn, listed).await?, true),
    })
}

/// What comparing one file has come to.
pub(super) enum Found {
    /// The same bytes on both sides.
    Equal,
    /// In words.
    Differs(Vec<String>),
    /// Why nothing is known.
    Unknown(String),
}

impl ArchiveReport {
    fn add(&mut self, file: &ArchivedFile, checked: Checked) {
        self.files += 1;
        self.bytes += file.len;
        let (found, fetched) = match checked {
            Checked::Damaged { what, on_server } => {
                self.older += u64::from(!on_server);
                self.differences.extend(what.into_iter().map(|what| FileDifference::of(file, what)));
                return;
            }
            Checked::Older => {
                self.older += 1;
                return;
            }
            Checked::Compared(found, fetched) => (found, fetched),
        };
        match found {
            Found::Unknown(reason) => {
                self.unchecked.push(FileUnchecked { name: file.name.clone(), reason });
                return;
            }
            Found::Differs(what) => {
                self.differences.extend(what.into_iter().map(|what| FileDifference::of(file, what)));
            }
            Found::Equal => {}
        }
        self.compared += 1;
        self.compared_bytes += file.len;
        self.fetched += u64::from(fetched);
    }
}

/// A file of the archive, for those who compare it.
pub(super) struct Archived<'a> {
    ask: &'a Ask,
    pub(super) file: &'a ArchivedFile,
    pub(super) stop: &'a Arc<AtomicBool>,
}

impl Archived<'_> {
    /// BLAKE3 of a range of it.
    pub(super) async fn hash(&self, from: u64, to: u64) -> Result<Hash, ArchiveCheckError> {
        let query = DbQuery::Hash { lineage: self.file.lineage, ordinal: self.file.ordinal, from, to };
        match asked(self.ask, query).await?.first() {
            Some(DbAnswer::Hash(hash)) => Ok(*hash),
            Some(other) => Err(unfit(other)),
            None => Err(ArchiveCheckError::Backup("no answer".to_owned())),
        }
    }
}

/// All files of the archive, in order; those that it has lost are among them.
async fn files(ask: &Ask) -> Result<Vec<ArchivedFile>, ArchiveCheckError> {
    let mut all: Vec<ArchivedFile> = Vec::new();
    loop {
        let from = all.last().map_or((0, 0), |last| (last.lineage, last.ordinal + 1));
        let more = files_from(ask, from).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// As many as it tells at once.
async fn files_from(ask: &Ask, from: (u32, u32)) -> Result<Vec<ArchivedFile>, ArchiveCheckError> {
    let mut files = Vec::new();
    for part in asked(ask, DbQuery::Files { from }).await? {
        match part {
            DbAnswer::Files(part) => files.extend(part),
            other => return Err(unfit(&other)),
        }
    }
    Ok(files)
}

async fn is_listed(ask: &Ask, file: &ArchivedFile) -> Result<bool, ArchiveCheckError> {
    let key = (file.lineage, file.ordinal);
    let files = files_from(ask, key).await?;
    Ok(files.iter().any(|file| (file.lineage, file.ordinal) == key))
}

async fn asked(ask: &Ask, query: DbQuery) -> Result<Vec<DbAnswer>, ArchiveCheckError> {
    let parts = ask(query).await.map_err(ArchiveCheckError::Backup)?;
    for part in &parts {
        if let DbAnswer::Failed { reason } = part {
            return Err(ArchiveCheckError::Refused(reason.clone()));
        }
    }
    Ok(parts)
}

fn unfit(answer: &DbAnswer) -> ArchiveCheckError {
    let shown: String = format!("{answer:?}").chars().take(80).collect();
    ArchiveCheckError::Backup(format!("an answer that does not fit the question: {shown}"))
}

/// The backup reads the file; what is damaged, in words.
async fn own_check(archived: &Archived<'_>) -> Result<Vec<String>, ArchiveCheckError> {
    let mut what = Vec::new();
    let query = DbQuery::Check { lineage: archived.file.lineage, ordinal: archived.file.ordinal };
    for part in asked(archived.ask, query).await? {
        let DbAnswer::Checked(damage) = part else { return Err(unfit(&part)) };
        what.extend(damage.into_iter().map(|place| match place.at {
            Some(at) => format!("damaged on the backup at byte {at}: {}", place.reason),
            None => format!("damaged on the backup: {}", place.reason),
        }));
    }
    Ok(what)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
