//! What verify needs of a running nfs1: its fence, its sender, and questions to its backup.

use crate::change::{Fence, Scans, ShadowReader};
use crate::host::{ObjectKey, Tree};
use crate::observe::control::Progress as Steps;
use crate::observe::status::VerifyStatus;
use crate::observe::{metrics, words};
use crate::replication::connector::Asker;
use crate::replication::sender::SenderControl;
use crate::verify::{Backup, Options, Primary, Progress, Report, Verdict, Verify};
use ehpc_proto::replication::ObjectId;
use ehpc_proto::replication::message::{Answer, Query};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A fence of verify waits so long for the backup.
const FENCE_PATIENCE: Duration = Duration::from_secs(600);
/// Time between two progress steps.
const STEP_EVERY: Duration = Duration::from_millis(100);

/// Everything that a verification uses; shared by those that are asked for.
pub(super) struct Prover {
    pub(super) tree: Arc<Tree>,
    /// The shadow's file; each run opens a reader of its own.
    pub(super) index: PathBuf,
    pub(super) scans: Arc<Scans>,
    pub(super) fence: Fence,
    pub(super) sender: SenderControl,
    pub(super) asker: Asker,
    pub(super) runtime: Handle,
    /// What the last one found.
    pub(super) last: Mutex<VerifyStatus>,
}

impl Prover {
    /// Runs one; blocks. `stopping` ends it early, as does an asker who leaves.
    pub(super) fn run(
        &self,
        options: Options,
        steps: &Steps,
        stopping: &AtomicBool,
    ) -> Result<Report, String> {
        {
            let mut last = self.last.lock();
            if last.running {
                return Err("a verification is running already; wait for it".to_owned());
            }
            last.running = true;
        }
        let outcome = self.verify(options, steps, stopping);
        let mut last = self.last.lock();
        last.running = false;
        if let Ok(report) = &outcome {
            metrics::VERIFY_RUNS.inc();
            metrics::VERIFY_DIFFERENCES.set(i64::try_from(report.differences.len()).unwrap_or(i64::MAX));
            last.finished_ms = Some(words::now_ms());
            last.equal = Some(report.verdict == Verdict::Equal);
            last.summary = summary(report);
        }
        outcome
    }

    fn verify(&self, options: Options, steps: &Steps, stopping: &AtomicBool) -> Result<Report, String> {
        let stop = AtomicBool::new(false);
        let shadow = ShadowReader::open(&self.index).map_err(|error| error.to_string())?;
        let told = Mutex::new(Instant::now());
        let progress = |step: Progress| {
            // The asker has gone, and nobody wants the report; or the node ends.
            if steps.is_closed() || stopping.load(Ordering::Relaxed) {
                stop.store(true, Ordering::Relaxed);
            }
            let mut told = told.lock();
            if told.elapsed() >= STEP_EVERY
                && let Ok(step) = serde_json::to_value(step)
            {
                *told = Instant::now();
                // A slow reader misses steps; that is all.
                let _ = steps.try_send(step);
            }
        };
        let verify = Verify {
            tree: &self.tree,
            shadow: &shadow,
            primary: self,
            backup: self,
            progress: &progress,
            stop: &stop,
        };
        verify.run(options).map_err(|error| error.to_string())
    }
}

/// One line for `status`.
fn summary(report: &Report) -> String {
    let objects = words::count(report.objects());
    let mut text = match report.verdict {
        Verdict::Equal => format!("equal, {objects} objects"),
        Verdict::Different => {
            format!("DIFFERENT: {} of {objects} objects", words::count(report.differences.len() as u64))
        }
    };
    if !report.unchecked.is_empty() {
        text.push_str(&format!(", {} unchecked", words::count(report.unchecked.len() as u64)));
    }
    text.push_str(if report.read_data { ", all data read" } else { ", the backup's recorded hashes" });
    text
}

impl Primary for Prover {
    fn fence(&self) -> Result<u64, String> {
        self.runtime.block_on(async {
            self.fence.wait(FENCE_PATIENCE).await.map_err(|error| error.to_string())?;
            self.sender.flush().await.map_err(|error| error.to_string())
        })?;
        Ok(self.sender.status().report().acknowledged_batch)
    }

    fn reship(&self, objects: &[ObjectId], unknown: &[ObjectKey]) {
        if let Err(error) = self.runtime.block_on(self.sender.reship(objects.to_vec())) {
            tracing::error!(%error, "what differs could not be shipped anew");
        }
        if !unknown.is_empty() {
            // Only their names lead to them; the next fence waits for the scan that finds those.
            self.scans.demand();
        }
    }
}

impl Backup for Prover {
    fn ask(&self, query: Query, part: &mut dyn FnMut(Answer)) -> Result<(), String> {
        self.runtime.block_on(async {
            let mut answers = self.asker.ask(query).await.map_err(|error| error.to_string())?;
            while let Some(answer) = answers.next().await.map_err(|error| error.to_string())? {
                part(answer);
            }
            Ok(())
        })
    }
}
