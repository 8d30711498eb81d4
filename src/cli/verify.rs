//! `ehpc-store verify`: has the running nfs1 prove that its backup equals it, files and database.

use super::client::Client;
use super::locate::{Role, Where};
use super::{Verdict, say, say_aside};
use crate::database::checks::{self, DatabaseReport};
use crate::observe::words;
use crate::verify::{Progress, Report, Verdict as Finding};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// Prove that the backup equals the share and the database, under load; run it on nfs1
///
/// Everything that happened before the call is first brought to the backup; then every object is compared by hash.
/// Of the database, the archive is compared with the server's binary logs, and every table of the standby with the
/// server's at one exact position. What keeps changing meanwhile is compared again, and at last listed as unchecked,
/// never as different. With --drill the backup restores its newest base snapshot and its archive into a server that is
/// made for that, the tables there are compared as well, and the server is removed.
/// Exit status: 0 equal; 1 different (or the backup cannot be restored), also when something else could not be verified;
/// 2 nothing differs, but not all could be verified. What was found is told in any case. With --json, `verdict` says the
/// same (equal, different, failed), `failed` lists what could not be verified, and `database` is the report of the database,
/// or null: it was not asked for, is not there, or could not be verified at all.
#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    at: Where,
    /// The files only; with --database: both, and it is an error when there is no database
    #[arg(long)]
    files: bool,
    /// The database only
    #[arg(long)]
    database: bool,
    /// Every table row by row with MD5, not by the server's CHECKSUM TABLE
    #[arg(long)]
    deep: bool,
    /// Besides, have the backup restore the newest base and the archive into a scratch server, and compare that
    #[arg(long)]
    drill: bool,
    /// The backup re-reads its live replica and its packs too; else its recorded hashes stand for them
    #[arg(long)]
    read_data: bool,
    /// Send files that differ anew, mend the backup's disk, fetch binary logs again that are damaged or gone, then verify once more
    #[arg(long)]
    repair: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Verdict> {
        let files = self.files || !self.database;
        let database = self.database || !self.files;
        if self.deep && !database {
            bail!("--deep is about the database; leave --files out, or add --database");
        }
        if self.drill && !database {
            bail!("--drill is about the database; leave --files out, or add --database");
        }
        if self.read_data && !files {
            bail!("--read-data is about the files; leave --database out, or add --files");
        }
        let node = self.at.node(Role::Nfs1)?;
        let mut whole = json!({});
        let (mut good, mut failed) = (true, Vec::new());
        if files {
            let mut bar = Bar::new(!self.json && stderr().is_terminal());
            let arguments = json!({ "read_data": self.read_data, "repair": self.repair });
            let outcome = node.act("verify", arguments, &mut |step| bar.step(step));
            bar.clear();
            whole = outcome?;
            let report: Report =
                serde_json::from_value(whole.clone()).context("the report is not understood")?;
            good = report.verdict == Finding::Equal;
            if !self.json {
                say(&report.to_string())?;
            }
        }
        whole["database"] = Value::Null;
        if database {
            match self.database(&node)? {
                Ok(None) => {}
                Ok(Some((report, told))) => {
                    good &= report.equal;
                    failed = report.failed;
                    whole["database"] = told;
                }
                // What was found of the files is told all the same.
                Err(why) => failed = vec![why],
            }
        }
        let ending = Ending::of(good, &failed);
        if self.json {
            whole["verdict"] = json!(ending);
            whole["failed"] = json!(failed);
            say(&serde_json::to_string(&whole)?)?;
        }
        let why = format!("the database could not be verified as a whole: {}", failed.join("; "));
        match ending {
            Ending::Equal => Ok(Verdict::Good),
            Ending::Failed => bail!(why),
            Ending::Different => {
                if !failed.is_empty() {
                    say_aside(&format!("ehpc-store: {why}"));
                }
                Ok(Verdict::Bad)
            }
        }
    }

    /// Its report, also as it came; `Ok(None)`: there is no database. The error says why it could not be verified at all.
    fn database(&self, node: &Client) -> Result<Result<Option<(DatabaseReport, Value)>, String>> {
        let mut bar = Bar::new(!self.json && stderr().is_terminal());
        let arguments = json!({
            "deep": self.deep,
            "repair": self.repair,
            "drill": self.drill,
            // Without a database there is nothing to drill.
            "required": self.database || self.drill,
        });
        let outcome = node.act("verify-database", arguments, &mut |step| bar.table(step));
        bar.clear();
        let told = match outcome {
            Ok(told) => told,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        let report: Option<DatabaseReport> =
            serde_json::from_value(told.clone()).context("the report is not understood")?;
        let Some(report) = report else { return Ok(Ok(None)) };
        if !self.json {
            say(&report.to_string())?;
        }
        Ok(Ok(Some((report, told))))
    }
}

/// What is said of both together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Ending {
    Equal,
    /// A difference is one, whatever else could not be verified.
    Different,
    Failed,
}

impl Ending {
    fn of(nothing_differs: bool, failed: &[String]) -> Ending {
        match (nothing_differs, failed) {
            (false, _) => Ending::Different,
            (true, []) => Ending::Equal,
            (true, _) => Ending::Failed,
        }
    }
}

/// A progress bar for objects, with bytes and phase beside it; nothing when nobody watches.
struct Bar {
    bar: Option<ProgressBar>,
    last: Progress,
}

impl Bar {
    fn new(watched: bool) -> Bar {
        let bar = watched.then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{msg:36} {wide_bar} {pos}/{len} {elapsed} ");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Bar { bar, last: Progress::default() }
    }

    fn step(&mut self, step: Value) {
        let (Some(bar), Ok(step)) = (&self.bar, serde_json::from_value::<Progress>(step)) else { return };
        // The two sides tell their numbers in steps of their own.
        let last = &mut self.last;
        last.objects = last.objects.max(step.objects);
        last.objects_total = last.objects_total.max(step.objects_total).max(last.objects);
        last.bytes = last.bytes.max(step.bytes);
        last.backup_objects = last.backup_objects.max(step.backup_objects);
        last.backup_total = last.backup_total.max(step.backup_total);
        bar.set_length(last.objects_total + last.backup_total);
        bar.set_position(last.objects + last.backup_objects);
        bar.set_message(match step.round {
            0 => format!("comparing, {} read", words::bytes(last.bytes)),
            round => format!("round {round}: {} objects that moved", step.candidates),
        });
    }

    fn table(&mut self, step: Value) {
        if let (Some(bar), Some(text)) = (&self.bar, step["text"].as_str()) {
            bar.set_message(text.to_owned());
            return;
        }
        let (Some(bar), Ok(step)) = (&self.bar, serde_json::from_value::<checks::Progress>(step)) else {
            return;
        };
        bar.set_length(step.bytes_total);
        bar.set_position(step.bytes);
        bar.set_message(format!("round {}: table {} of {}", step.round, step.tables, step.tables_total));
    }

    fn clear(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_whatever_else_could_not_be_verified() {
        let failed = ["the server is down".to_owned()];
        assert_eq!(Ending::of(false, &failed), Ending::Different);
        assert_eq!(Ending::of(false, &[]), Ending::Different);
        assert_eq!(Ending::of(true, &failed), Ending::Failed);
        assert_eq!(Ending::of(true, &[]), Ending::Equal);
        assert_eq!(json!(Ending::Different), json!(Finding::Different));
        assert_eq!(json!(Ending::Equal), json!(Finding::Equal));
    }
}
