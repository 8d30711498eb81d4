//! The whole of a database's verification: archive and tables, in one report.

use super::archive::{self, ArchiveReport, FileDifference};
use super::remote::{Ask, RemoteStandby};
use super::report::Comparison;
use super::{Compare, Progress};
use crate::database::sql::{Dsn, Sql};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a verification of the database has found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Everything that was compared is equal.
    pub equal: bool,
    /// The archive and the server's binary logs.
    pub archive: ArchiveReport,
    /// The standby and the server; `None`: there is no standby.
    pub tables: Option<Comparison>,
    /// Files of the archive that differed, and were fetched from the server again (`--repair`).
    pub repaired: Vec<FileDifference>,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl DatabaseReport {
    /// One line for `status`.
    pub fn summary(&self) -> String {
        let tables = self.tables.as_ref().map_or(0, |tables| tables.tables);
        let files = self.archive.files;
        let mut text = match self.equal {
            true => format!("equal, {files} binary logs, {tables} tables"),
            false => format!("DIFFERENT: {} of {files} binary logs and {tables} tables", self.counts().0),
        };
        if self.counts().1 > 0 {
            text.push_str(&format!(", {} unchecked", self.counts().1));
        }
        text
    }

    /// How many things differ, and how many were not compared.
    pub fn counts(&self) -> (usize, usize) {
        let of_tables = |count: fn(&Comparison) -> usize| self.tables.as_ref().map_or(0, count);
        (
            self.archive.differences.len() + of_tables(|tables| tables.differences.len()),
            self.archive.unchecked.len() + of_tables(|tables| tables.unchecked.len()),
        )
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.equal, self.counts().1, self.tables.is_some()) {
            (false, ..) => "DIFFERENT: the database",
            (true, 0, true) => "EQUAL: the database's archive and standby are what its server has",
            (true, 0, false) => "EQUAL: the database's archive is what its server has written",
            (true, ..) => "EQUAL: the database, but for what could not be compared (below)",
        };
        writeln!(f, "{verdict}")?;
        self.archive.fmt(f)?;
        if let Some(tables) = &self.tables {
            tables.fmt(f)?;
        }
        if !self.repaired.is_empty() {
            writeln!(f, "were different before the repair ({}):", self.repaired.len())?;
            for file in &self.repaired {
                writeln!(f, "  {} (lineage {}): {}", file.name, file.lineage, file.what)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        if !self.archive.is_equal() {
            writeln!(
                f,
                "next: `ehpc-store verify --database --repair` fetches closed files from the server again"
            )?;
        }
        if self.tables.as_ref().is_some_and(|tables| !tables.is_equal()) {
            writeln!(
                f,
                "next: `ehpc-store db standby --init --force` on the backup builds the standby anew"
            )?;
        }
        Ok(())
    }
}

/// What is verified, and how.
pub struct Whole<'a> {
    /// The server.
    pub primary: &'a Dsn,
    /// The backup.
    pub ask: Ask,
    /// Whether it has a standby.
    pub standby: bool,
    /// Every table row by row.
    pub deep: bool,
    /// Told now and then where the comparison of tables stands.
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// Set from outside to stop early.
    pub stop: Arc<AtomicBool>,
}

impl Whole<'_> {
    /// Runs to the end. What the server committed before the call must be on the backup already (a fence).
    /// The error says why nothing is said about equality.
    pub async fn run(&self) -> Result<DatabaseReport, String> {
        let mut sql = Sql::connect(self.primary).await.map_err(|error| error.to_string())?;
        let archive =
            archive::check(&mut sql, &self.ask, &self.stop).await.map_err(|error| error.to_string())?;
        sql.close().await;
        let mut notes = Vec::new();
        let mut tables = None;
        if self.standby {
            let standby = RemoteStandby::new(Arc::clone(&self.ask));
            let compare = Compare {
                primary: self.primary,
                standby: &standby,
                deep: self.deep,
                progress: self.progress,
                stop: &self.stop,
            };
            tables = Some(compare.run().await.map_err(|error| error.to_string())?);
        } else {
            notes.push(
                "there is no [database.standby]: the log that makes the tables was compared, the tables were not"
                    .to_owned(),
            );
        }
        let equal = archive.is_equal() && tables.as_ref().is_none_or(Comparison::is_equal);
        Ok(DatabaseReport { equal, archive, tables, repaired: Vec::new(), notes })
    }
}
