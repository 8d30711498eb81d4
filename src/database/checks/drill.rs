//! A restore drill, as nfs1 asks for it: the backup restores its newest base snapshot and its archive into a server that is
//! there for nothing else (`drills`), and that server is compared with the primary at one exact position.

use super::remote::{Ask, RemoteStandby};
use super::report::Comparison;
use super::{CheckError, Compare, Progress};
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
    /// The restored server ("standby" here) and the primary.
    pub comparison: Comparison,
}

impl DrillReport {
    fn of(drilled: Drilled, comparison: Comparison) -> DrillReport {
        let Drilled { base, file, offset, gtid, recorded, differences, millis } = drilled;
        DrillReport {
            base,
            file,
            offset,
            gtid,
            seconds: Duration::from_millis(millis).as_secs_f64(),
            recorded,
            recorded_differences: differences,
            comparison,
        }
    }

    /// Whether everything that was compared is equal.
    pub fn is_equal(&self) -> bool {
        self.recorded_differences.is_empty() && self.comparison.is_equal()
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
        match (recorded, not) {
            (0, _) => writeln!(f, "            nothing was recorded of its tables when the base was taken")?,
            (_, 0) => {
                writeln!(f, "            {recorded} tables are what was recorded when the base was taken")?
            }
            _ => {
                writeln!(
                    f,
                    "            {not} of {recorded} tables are not what was recorded with the base:"
                )?;
                for difference in &self.recorded_differences {
                    writeln!(f, "  {difference}")?;
                }
            }
        }
        writeln!(f, "            it is what is called the standby here:")?;
        self.comparison.fmt(f)
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
    /// Runs it to the end; whatever happens, the backup is told that it is over.
    pub(super) async fn run(&self) -> Result<DrillReport, String> {
        let drill = rand::random();
        let found = self.restored(drill).await;
        let found = match found {
            Ok(drilled) => self.compared(drill).await.map(|comparison| DrillReport::of(drilled, comparison)),
            Err(why) => Err(why),
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

    async fn restored(&self, drill: u64) -> Result<Drilled, String> {
        let failed = |why: String| format!("the restore drill on the backup: {why}");
        let mut state = self.step(drill, DrillStep::Begin).await.map_err(failed)?;
        let mut heard = Instant::now();
        loop {
            match state {
                DrillState::Ready(drilled) => return Ok(drilled),
                DrillState::Failed(why) => return Err(failed(why)),
                DrillState::Ended => return Err(failed("it has ended; its log says why".to_owned())),
                DrillState::Working(text) => (self.tell)(format!("drill: {text}")),
            }
            state = loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(CheckError::Stopped.to_string());
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

    async fn compared(&self, drill: u64) -> Result<Comparison, String> {
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
fn said(error: CheckError) -> String {
    match error {
        CheckError::Standby(error) => format!("the restored server: {error}"),
        CheckError::NotRunning(why) => format!(
            "what was restored cannot go on with the archive ({why}): it is not what the primary was. Take a new base \
             snapshot (`ehpc-store db snapshot`), and drill once more"
        ),
        CheckError::Ahead { standby, primary } => format!(
            "what was restored, {standby}, is not in the primary's history, which is at {primary}: has it lost transactions?"
        ),
        other => other.to_string(),
    }
}
