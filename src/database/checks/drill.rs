//! A restore drill, as nfs1 asks for it: the backup restores its newest base snapshot and its archive into a server that is
//! there for nothing else (`drills`), and that server is compared with the primary at one exact position.

use super::remote::{Ask, RemoteStandby};
use super::report::Comparison;
use super::{CheckError, Compare, Progress};
use crate::database::restore::is_of_machine;
use crate::database::sql::Dsn;
use ehpc_proto::replication::database::{DbAnswer, DbQuery, DrillState, DrillStep, Drilled};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// While it is compared: so that the backup knows that somebody is there.
const STILL_HERE: Duration = Duration::from_secs(5);
/// The connection to the backup may be away for so long.
const AWAY: Duration = Duration::from_secs(30);

/// What a drill has found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DrillReport {
    /// Number of the base snapshot that it began with.
    pub base: u64,
    /// Where the restore stopped: the binary log's name, the offset in it.
    pub file: String,
    /// See `file`.
    pub offset: u64,
    /// GTID state there.
    pub gtid: String,
    /// Seconds that restoring took.
    pub seconds: f64,
    /// Tables that were compared with the sums recorded when the base was taken.
    pub recorded: u64,
    /// Those that were not equal to them, in words.
    pub recorded_differences: Vec<String>,
    /// Why none was compared, or not as much of each as usual.
    pub compared_note: Option<String>,
    /// Tables that have lost their earlier rows (`WITH SYSTEM VERSIONING`): the base does not hold them.
    pub lacks_history: Vec<String>,
    /// XA branches that the binary log ends and never prepares: what they changed is in no log.
    pub unlogged_branches: Vec<String>,
    /// The restored server ("standby" here) and the primary; `None`: they could not be compared.
    pub comparison: Option<Comparison>,
}

/// Why a drill has not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DrillFault {
    /// What the backup holds cannot be restored, or cannot go on: a finding.
    Unsound(String),
    /// Something else, which says nothing about the backup.
    Failed(String),
}

impl DrillReport {
    fn of(drilled: Drilled) -> DrillReport {
        DrillReport {
            base: drilled.base,
            file: drilled.file,
            offset: drilled.offset,
            gtid: drilled.gtid,
            seconds: Duration::from_millis(drilled.millis).as_secs_f64(),
            recorded: drilled.recorded,
            recorded_differences: drilled.differences,
            compared_note: drilled.compared_note,
            lacks_history: drilled.lacks_history,
            unlogged_branches: drilled.unlogged_branches,
            comparison: None,
        }
    }

    /// Whether everything that was compared is equal.
    pub fn is_equal(&self) -> bool {
        self.recorded_differences.is_empty() && self.comparison.as_ref().is_none_or(Comparison::is_equal)
    }
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  drill     base {} and the archive up to {}:{} (GTID {}) were restored in {:.1} s, into a server that is gone \
             again;",
            self.base, self.file, self.offset, self.gtid, self.seconds
        )?;
        let (recorded, not) = (self.recorded, self.recorded_differences.len());
        match (recorded, not, &self.compared_note) {
            (0, _, Some(note)) => writeln!(f, "            {note}")?,
            (0, _, None) => {
                writeln!(f, "            nothing was recorded of its tables when the base was taken")?
            }
            (_, 0, Some(note)) => writeln!(
                f,
                "            {recorded} tables do not contradict what was recorded with the base ({note})"
            )?,
            (_, 0, None) => {
                writeln!(f, "            {recorded} tables are what was recorded when the base was taken")?
            }
            (_, _, note) => {
                let note = note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
                writeln!(
                    f,
                    "            {not} of {recorded} tables are not what was recorded with the base{note}:"
                )?;
                for difference in &self.recorded_differences {
                    writeln!(f, "  {difference}")?;
                }
            }
        }
        if !self.lacks_history.is_empty() {
            let tables = self.lacks_history.join(", ");
            writeln!(
                f,
                "  NOT WHOLE the base does not hold the earlier rows (WITH SYSTEM VERSIONING) of {tables}"
            )?;
        }
        for branch in &self.unlogged_branches {
            writeln!(
                f,
                "  NOT WHOLE the changes of XA branch {branch}: the binary log ends it and never prepares it (its server was \
                 killed within XA PREPARE)"
            )?;
        }
        match &self.comparison {
            Some(comparison) => {
                writeln!(f, "            it is what is called the standby here:")?;
                comparison.fmt(f)
            }
            None => writeln!(f, "            it was not compared with the primary"),
        }
    }
}

/// A drill to come.
pub(super) struct Drill<'a> {
    pub(super) primary: &'a Dsn,
    pub(super) ask: &'a Ask,
    pub(super) deep: bool,
    pub(super) progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// Told what the backup does now.
    pub(super) tell: &'a (dyn Fn(String) + Send + Sync),
    pub(super) stop: &'a AtomicBool,
}

impl Drill<'_> {
    /// Runs it to the end; whatever happens, the backup is told that it is over. What was restored, and why that is not all.
    pub(super) async fn run(&self) -> (Option<DrillReport>, Option<DrillFault>) {
        let drill = rand::random();
        let found = match self.restored(drill).await {
            Ok(drilled) => {
                let mut report = DrillReport::of(drilled);
                let fault = match self.compared(drill).await {
                    Ok(comparison) => {
                        report.comparison = Some(comparison);
                        None
                    }
                    Err(fault) => Some(fault),
                };
                (Some(report), fault)
            }
            Err(fault) => (None, Some(fault)),
        };
        // Without an answer it ends by itself.
        let _ = self.step(drill, DrillStep::End).await;
        found
    }

    async fn step(&self, drill: u64, step: DrillStep) -> Result<DrillState, String> {
        match (self.ask)(DbQuery::Drill { drill, step }).await?.into_iter().next() {
            Some(DbAnswer::Drill(state)) => Ok(state),
            Some(DbAnswer::Failed { reason }) => Err(reason),
            other => Err(format!("an answer that does not fit: {other:?}")),
        }
    }

    async fn restored(&self, drill: u64) -> Result<Drilled, DrillFault> {
        let failed = |why: String| DrillFault::Failed(format!("the restore drill on the backup: {why}"));
        if self.stop.load(Ordering::Relaxed) {
            return Err(failed(CheckError::Stopped.to_string()));
        }
        let mut state = self.step(drill, DrillStep::Begin).await.map_err(failed)?;
        let mut heard = Instant::now();
        loop {
            match state {
                DrillState::Ready(drilled) => return Ok(drilled),
                DrillState::Failed(why) => return Err(failed(why)),
                DrillState::Unsound(why) => return Err(DrillFault::Unsound(why)),
                DrillState::Ended => return Err(failed("it has ended; its log says why".to_owned())),
                DrillState::Working(text) => (self.tell)(format!("drill: {text}")),
            }
            state = loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(failed(CheckError::Stopped.to_string()));
                }
                tokio::time::sleep(LOOK_EVERY).await;
                match self.step(drill, DrillStep::Look).await {
                    Ok(state) => break state,
                    Err(why) if heard.elapsed() > AWAY => return Err(failed(why)),
                    Err(_) => {}
                }
            };
            heard = Instant::now();
        }
    }

    async fn compared(&self, drill: u64) -> Result<Comparison, DrillFault> {
        let restored = RemoteStandby::drill(Arc::clone(self.ask));
        let compare = Compare {
            primary: self.primary,
            standby: &restored,
            deep: self.deep,
            progress: self.progress,
            stop: self.stop,
        };
        let compare = compare.run();
        tokio::pin!(compare);
        let mut still_here = tokio::time::interval(STILL_HERE);
        loop {
            tokio::select! {
                found = &mut compare => return found.map_err(said),
                // If it has ended meanwhile, the comparison finds out.
                _ = still_here.tick() => {
                    let _ = self.step(drill, DrillStep::Look).await;
                }
            }
        }
    }
}

/// What is wrong, of the server of a drill.
fn said(error: CheckError) -> DrillFault {
    match error {
        CheckError::Applier { number, what } if !is_of_machine(number) => DrillFault::Unsound(format!(
            "what was restored cannot go on with the archive (error {number}: {what}): it is not what the primary was"
        )),
        CheckError::Ahead { standby, primary } => DrillFault::Unsound(format!(
            "what was restored, {standby}, is not in the primary's history, which is at {primary}: has it lost transactions?"
        )),
        CheckError::Standby(error) => DrillFault::Failed(format!("the restored server: {error}")),
        CheckError::Applier { number, what } => {
            DrillFault::Failed(format!("the restored server does not replicate (error {number}: {what})"))
        }
        CheckError::NotRunning(why) => {
            DrillFault::Failed(format!("the restored server does not replicate ({why})"))
        }
        other => DrillFault::Failed(other.to_string()),
    }
}
