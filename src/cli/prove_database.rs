//! What verifying the database needs of a running nfs1: a fence, the server, and questions to the backup.

use super::database_source::DatabaseSource;
use crate::database::checks::remote::Ask;
use crate::database::checks::{DatabaseReport, Progress, Whole};
use crate::observe::control::Progress as Steps;
use crate::observe::words;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// One at a time: a second one would stop the standby under the first.
static ONE: Mutex<()> = Mutex::const_new(());

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wishes {
    /// Every table row by row.
    pub(super) deep: bool,
    /// Damaged files of the archive are fetched again.
    pub(super) repair: bool,
    /// A restore drill besides.
    pub(super) drill: bool,
}

/// Verifies it. `stopping` ends it early, as does an asker who leaves.
pub(super) async fn verify(
    database: Arc<DatabaseSource>,
    wishes: Wishes,
    steps: Steps,
    stopping: Arc<AtomicBool>,
) -> Result<DatabaseReport, String> {
    let Ok(_one) = ONE.try_lock() else {
        return Err("the database is being verified already; wait for it".to_owned());
    };
    database.verified.lock().running = true;
    let Wishes { deep, repair, drill } = wishes;
    // A drill restores what a repair has mended.
    let mut outcome = run(&database, (deep, drill && !repair), &steps, &stopping).await;
    if let (true, Ok(first)) = (repair, &outcome)
        && (drill || !first.archive.is_equal())
    {
        let (first, notes) = (first.clone(), mend(&database, first).await);
        let second = run(&database, (deep, drill), &steps, &stopping).await;
        let mut report = first.after_repair(second);
        report.notes.extend(notes);
        outcome = Ok(report);
    }
    let mut verified = database.verified.lock();
    verified.running = false;
    // What was stopped half-way takes no difference back.
    if let Ok(report) = &outcome
        && (!report.equal || report.failed.is_empty())
    {
        verified.finished_ms = Some(words::now_ms());
        verified.equal = Some(report.equal);
        verified.summary = report.summary();
    }
    outcome
}

/// Fetches the files that differ from the server again; what could not be fetched, and why.
async fn mend(database: &DatabaseSource, report: &DatabaseReport) -> Vec<String> {
    let mut notes = Vec::new();
    let mut last = None;
    for file in &report.archive.differences {
        // A file may be damaged in several places.
        if last.replace((file.lineage, file.ordinal)) == Some((file.lineage, file.ordinal)) {
            continue;
        }
        let fetched = match file.closed {
            true => database.source().refetch_file(file.lineage, file.ordinal).await,
            false => {
                Err("the server still writes it; FLUSH BINARY LOGS there, then repair once more".to_owned())
            }
        };
        if let Err(why) = fetched {
            notes.push(format!("{} could not be fetched again: {why}", file.name));
        }
    }
    notes
}

async fn run(
    database: &Arc<DatabaseSource>,
    (deep, drill): (bool, bool),
    steps: &Steps,
    stopping: &AtomicBool,
) -> Result<DatabaseReport, String> {
    database.fence().await?;
    let primary = database.server()?;
    let stop = Arc::new(AtomicBool::new(false));
    let asker = Arc::clone(database);
    let ask: Ask = Arc::new(move |query| {
        let asker = Arc::clone(&asker);
        Box::pin(async move { asker.source().ask(query).await })
    });
    let progress = |step: Progress| {
        if let Ok(step) = serde_json::to_value(step) {
            // A slow reader misses steps; that is all.
            let _ = steps.try_send(step);
        }
    };
    let tell = |text: String| drop(steps.try_send(serde_json::json!({ "text": text })));
    let whole = Whole {
        primary: &primary,
        ask,
        standby: database.settings().standby.is_some(),
        drill,
        deep,
        progress: &progress,
        tell: &tell,
        stop: Arc::clone(&stop),
    };
    // It is told to stop rather than dropped: a standby that it has stopped is started again.
    let whole = whole.run();
    tokio::pin!(whole);
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            report = &mut whole => return report,
            _ = looks.tick() => {
                if steps.is_closed() || stopping.load(Ordering::Relaxed) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}
