//! `ehpc-store verify`: has the running nfs1 prove that its backup equals it.

use super::locate::{Role, Where};
use super::{Verdict, say};
use crate::observe::words;
use crate::verify::{Progress, Report, Verdict as Finding};
use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// Prove that the backup equals the share, under load, by hash; run it on nfs1
///
/// Everything that happened before the call is first brought to the backup; then every object is compared. What
/// keeps changing meanwhile is compared again, and at last listed as unchecked, never as different.
/// Exit status: 0 equal, 1 different, 2 could not be verified.
#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    at: Where,
    /// The backup re-reads its live replica and its packs too; else its recorded hashes stand for them
    #[arg(long)]
    read_data: bool,
    /// Send what differs anew, mend the backup's disk, then verify once more
    #[arg(long)]
    repair: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Verdict> {
        let node = self.at.node(Role::Nfs1)?;
        let mut bar = Bar::new(!self.json && stderr().is_terminal());
        let arguments = json!({ "read_data": self.read_data, "repair": self.repair });
        let outcome = node.act("verify", arguments, &mut |step| bar.step(step));
        bar.clear();
        let report: Report = serde_json::from_value(outcome?).context("the report is not understood")?;
        match self.json {
            true => say(&serde_json::to_string(&report)?)?,
            false => say(&report.to_string())?,
        }
        Ok(match report.verdict {
            Finding::Equal => Verdict::Good,
            Finding::Different => Verdict::Bad,
        })
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

    fn clear(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
