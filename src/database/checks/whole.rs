//! The whole of a database's verification: archive and tables, in one report.

use super::archive::{self, ArchiveReport, FileDifference};
use super::drill::{Drill, DrillFault, DrillReport};
use super::remote::{Ask, RemoteStandby};
use super::report::Comparison;
use super::{CheckError, Compare, Progress};
use crate::database::sql::Dsn;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a verification of the database has found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Everything that was compared is equal, and nothing that the backup holds stood in a restore's way.
    pub equal: bool,
    /// The archive and the server's binary logs.
    pub archive: ArchiveReport,
    /// The standby and the server; `None`: there is no standby, or it could not be compared.
    pub tables: Option<Comparison>,
    /// What the restore drill has restored, where one was asked for.
    pub drill: Option<DrillReport>,
    /// Why the backup cannot be restored, or what was restored cannot go on: a finding of the drill.
    pub unsound: Option<String>,
    /// What could not be verified, and why: nothing is said about that.
    pub failed: Vec<String>,
    /// Files of the archive that differed, and were fetched from the server again (`--repair`).
    pub repaired: Vec<FileDifference>,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl DatabaseReport {
    /// Comparisons with other servers: the standby, that of a drill.
    fn comparisons(&self) -> impl Iterator<Item = &Comparison> {
        self.tables.iter().chain(self.drill.iter().filter_map(|drill| drill.comparison.as_ref()))
    }

    /// What is told when files were fetched again after this one; `second` was found behind that. What nobody looked at again
    /// counts as it was: what was different may still be.
    pub fn after_repair(mut self, second: Result<DatabaseReport, String>) -> DatabaseReport {
        self.repaired = self.archive.differences.clone();
        let mut told = match second {
            Ok(second) => second,
            Err(why) => {
                self.failed.push(format!("what is written here was found before the repair; then: {why}"));
                return self;
            }
        };
        told.repaired = self.repaired;
        if let Some(why) = &told.archive.ended {
            let why = format!("what is not known otherwise was found before the repair; then: {why}");
            told.failed.push(why);
        }
        for before in self.archive.differences {
            let found = &told.archive;
            let is_told = found
                .differences
                .iter()
                .any(|now| (now.lineage, now.ordinal) == (before.lineage, before.ordinal));
            let is_open =
                found.ended.is_some() || found.unchecked.iter().any(|file| file.name == before.name);
            if is_open && !is_told {
                told.archive.differences.push(before);
            }
        }
        told.tables = told.tables.or(self.tables);
        told.drill = told.drill.or(self.drill);
        told.unsound = told.unsound.or(self.unsound.filter(|_| told.drill.is_none()));
        told.equal = told.is_equal();
        told
    }

    fn is_equal(&self) -> bool {
        self.unsound.is_none()
            && self.archive.is_equal()
            && self.tables.as_ref().is_none_or(Comparison::is_equal)
            && self.drill.as_ref().is_none_or(DrillReport::is_equal)
    }

    /// One line for `status`.
    pub fn summary(&self) -> String {
        let tables = self.comparisons().map(|comparison| comparison.tables).max().unwrap_or(0);
        let files = self.archive.files;
        let (different, unchecked) = self.counts();
        let mut text = match (self.equal, &self.unsound) {
            (true, _) => format!("equal, {files} binary logs, {tables} tables"),
            (false, Some(why)) => format!("the backup CANNOT BE RESTORED: {why}"),
            (false, None) => format!("DIFFERENT: {different} of {files} binary logs and {tables} tables"),
        };
        if unchecked > 0 {
            text.push_str(&format!(", {unchecked} unchecked"));
        }
        if self.drill.is_some() {
            text.push_str(", with a restore drill");
        }
        text
    }

    /// How many things differ, and how many were not compared.
    pub fn counts(&self) -> (usize, usize) {
        let of_all = |count: fn(&Comparison) -> usize| self.comparisons().map(count).sum::<usize>();
        let recorded = self.drill.as_ref().map_or(0, |drill| drill.recorded_differences.len());
        (
            self.archive.differences.len() + recorded + of_all(|comparison| comparison.differences.len()),
            self.archive.unchecked.len() + of_all(|comparison| comparison.unchecked.len()),
        )
    }

    fn verdict(&self) -> String {
        if self.unsound.is_some() {
            return "NOT SOUND: the database's backup cannot be restored (below)".to_owned();
        }
        if !self.equal {
            return "DIFFERENT: the database".to_owned();
        }
        if !self.failed.is_empty() {
            return "NOT VERIFIED as a whole: the database; nothing that was compared differs".to_owned();
        }
        if self.counts().1 > 0 {
            return "EQUAL: the database, but for what could not be compared (below)".to_owned();
        }
        let mut copies = vec!["archive"];
        copies.extend(self.tables.as_ref().map(|_| "standby"));
        copies.extend(self.drill.as_ref().map(|_| "a restored copy"));
        let last = copies.pop().unwrap_or_default();
        let copies =
            if copies.is_empty() { last.to_owned() } else { format!("{} and {last}", copies.join(", ")) };
        let (is, has) = if self.comparisons().count() == 0 { ("is", "written") } else { ("are", "") };
        let purged = if self.archive.older > 0 { ", as far as its binary logs are still there" } else { "" };
        let space = if has.is_empty() { "" } else { " " };
        format!("EQUAL: the database's {copies} {is} what its server has{space}{has}{purged}")
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict())?;
        self.archive.fmt(f)?;
        if let Some(tables) = &self.tables {
            tables.fmt(f)?;
        }
        if let Some(drill) = &self.drill {
            drill.fmt(f)?;
        }
        if let Some(why) = &self.unsound {
            writeln!(f, "  NOT SOUND {why}")?;
        }
        for why in &self.failed {
            writeln!(f, "  FAILED    {why}")?;
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
        if self.unsound.is_some() || self.drill.as_ref().is_some_and(|drill| !drill.is_equal()) {
            writeln!(
                f,
                "next: `ehpc-store db snapshot` takes a new base, from which a restore is right again; rows that were changed \
                 past the binary log (sql_log_bin = 0) are in no archive"
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
    /// A restore drill besides.
    pub drill: bool,
    /// Every table row by row.
    pub deep: bool,
    /// Told now and then where the comparison of tables stands.
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// Told what a drill does now.
    pub tell: &'a (dyn Fn(String) + Send + Sync),
    /// Set from outside to stop early.
    pub stop: Arc<AtomicBool>,
}

impl Whole<'_> {
    /// Runs to the end. What the server committed before the call must be on the backup already (a fence).
    /// The error says why nothing is said about equality; what fails after something was found is part of the report.
    pub async fn run(&self) -> Result<DatabaseReport, String> {
        let archive =
            archive::check(self.primary, &self.ask, &self.stop).await.map_err(|error| error.to_string())?;
        let failed = archive.ended.iter().map(|why| format!("the rest of the archive: {why}")).collect();
        let mut report = DatabaseReport {
            equal: false,
            archive,
            tables: None,
            drill: None,
            unsound: None,
            failed,
            repaired: Vec::new(),
            notes: Vec::new(),
        };
        let archive = &report.archive;
        if archive.ended.is_none() && archive.files > 0 && archive.compared == 0 && archive.is_equal() {
            report.failed.push(nothing_compared(archive));
        }
        if self.standby {
            match self.compared().await {
                Ok(tables) => report.tables = Some(tables),
                Err(error) => report.failed.push(error.to_string()),
            }
        } else if !self.drill {
            report.notes.push(
                "there is no [database.standby]: the log that makes the tables was compared, the tables were not; --drill \
                 restores and compares them"
                    .to_owned(),
            );
        }
        if self.drill && report.archive.is_equal() {
            let fault;
            (report.drill, fault) = self.drilled().await;
            match fault {
                Some(DrillFault::Unsound(why)) => report.unsound = Some(why),
                Some(DrillFault::Failed(why)) => report.failed.push(why),
                None => {}
            }
        } else if self.drill {
            report.notes.push("the drill was left out: the archive that it restores is not sound".to_owned());
        }
        report.equal = report.is_equal();
        Ok(report)
    }

    async fn compared(&self) -> Result<Comparison, CheckError> {
        let standby = RemoteStandby::new(Arc::clone(&self.ask));
        let compare = Compare {
            primary: self.primary,
            standby: &standby,
            deep: self.deep,
            progress: self.progress,
            stop: &self.stop,
        };
        compare.run().await
    }

    async fn drilled(&self) -> (Option<DrillReport>, Option<DrillFault>) {
        let drill = Drill {
            primary: self.primary,
            ask: &self.ask,
            deep: self.deep,
            progress: self.progress,
            tell: self.tell,
            stop: &self.stop,
        };
        drill.run().await
    }
}

/// Why nothing is said: the archive is sound in itself, and with nothing of the server's has it been compared.
fn nothing_compared(archive: &ArchiveReport) -> String {
    let why = match archive.unchecked.first() {
        Some(first) => format!("{}: {}", first.name, first.reason),
        None => "the server has none of its files any more (SHOW BINARY LOGS)".to_owned(),
    };
    format!("none of the archive's {} files could be compared with the server's: {why}", archive.files)
}
