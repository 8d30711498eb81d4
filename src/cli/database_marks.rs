//! Moments that files and database have in common: marked for every fence, and every `mark_every` when something moved.
//!
//! The order makes it one moment: first the database's end is asked for, then the files are fenced. Whatever a
//! transaction before that end names was durable before the files' fence began, so that its row never comes back without
//! its file.

use crate::change::Fence;
use crate::database::source::Source;
use crate::host;
use crate::replication::sender::SenderControl;
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{Mark, MarkKind, Place};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// A fence waits so long for the database's end.
const PATIENCE: Duration = Duration::from_secs(600);
/// A periodic mark that takes longer is left out.
const MARK_WITHIN: Duration = Duration::from_secs(60);
/// A mark that was lost with its connection is sent again after so long.
const AGAIN: Duration = Duration::from_millis(200);

/// What a moment is made of.
pub(super) trait Sides: Send + Sync {
    /// Where the server is now, as soon as all before was handed to the archive.
    async fn database_end(&self, within: Duration) -> Result<Place, String>;
    /// What the archive has on its disk.
    fn archived(&self) -> watch::Receiver<Option<Place>>;
    /// Waits until every change of the files before now is on the backup; its cut.
    async fn files_fenced(&self, within: Duration) -> Result<u64, String>;
    /// The newest batch on the backup. Right after a fence it holds the fence's cut.
    fn batch(&self) -> u64;
    /// This host's clock.
    fn now(&self) -> Timestamp;
    /// Waits until the backup has kept the mark.
    async fn keep(&self, mark: Mark) -> Result<(), String>;
}

/// The running database and share.
pub(super) struct Running {
    pub(super) source: Arc<Source>,
    pub(super) fence: Fence,
    pub(super) sender: SenderControl,
}

impl Sides for Running {
    async fn database_end(&self, within: Duration) -> Result<Place, String> {
        self.source.fresh(within).await
    }

    fn archived(&self) -> watch::Receiver<Option<Place>> {
        self.source.durable()
    }

    async fn files_fenced(&self, within: Duration) -> Result<u64, String> {
        self.fence.wait(within).await.map_err(|error| error.to_string())
    }

    fn batch(&self) -> u64 {
        self.sender.status().report().acknowledged_batch
    }

    fn now(&self) -> Timestamp {
        host::now()
    }

    async fn keep(&self, mark: Mark) -> Result<(), String> {
        self.source.mark(mark).await
    }
}

/// Waits until everything that was committed before the call is on the backup.
pub(super) async fn fence(sides: &impl Sides) -> Result<(), String> {
    let place = sides.database_end(PATIENCE).await?;
    reach(sides, place, PATIENCE).await
}

/// Where the database is now; before the files' fence begins.
pub(super) async fn fence_begins(sides: &impl Sides) -> Result<(Place, Timestamp), String> {
    let place = sides.database_end(PATIENCE).await?;
    // Not before: what came until then is before the place, and must not be found by an earlier time.
    Ok((place, sides.now()))
}

/// The files are on the backup: waits until that place is too, and marks the moment.
pub(super) async fn fence_ends(
    sides: &impl Sides,
    (place, time): (Place, Timestamp),
    cut: u64,
) -> Result<(), String> {
    let batch = sides.batch();
    reach(sides, place, PATIENCE).await?;
    let mark = Mark { time, place, batch, cut, kind: MarkKind::Fence };
    let until = Instant::now() + MARK_WITHIN;
    loop {
        let kept = tokio::time::timeout_at(until, sides.keep(mark)).await;
        match kept.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            Ok(()) => return Ok(()),
            // Lost with its connection.
            Err(_) if Instant::now() + AGAIN < until => tokio::time::sleep(AGAIN).await,
            Err(why) => {
                return Err(format!(
                    "everything is on the backup, but the backup could not be told that this is one moment: {why}"
                ));
            }
        }
    }
}

/// Marks now and then, without end. `moved`: where both are now, so that nothing is marked twice.
pub(super) async fn now_and_then(
    sides: &impl Sides,
    every: Duration,
    moved: impl Fn() -> Option<(Place, u64)>,
) {
    let mut every = tokio::time::interval(every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        every.tick().await;
        if last.is_none() || last != moved() {
            last = mark(sides).await.or(last);
        }
    }
}

/// One mark. A source that lags makes none: it would name an older database.
async fn mark(sides: &impl Sides) -> Option<(Place, u64)> {
    let place = sides.database_end(MARK_WITHIN).await.ok()?;
    let time = sides.now();
    let cut = sides.files_fenced(MARK_WITHIN).await.ok()?;
    let batch = sides.batch();
    reach(sides, place, MARK_WITHIN).await.ok()?;
    let mark = Mark { time, place, batch, cut, kind: MarkKind::Periodic };
    // One that is lost with its connection is followed by the next.
    tokio::time::timeout(MARK_WITHIN, sides.keep(mark)).await.ok()?.ok()?;
    Some((place, cut))
}

/// Waits until the archive holds everything before `place`.
async fn reach(sides: &impl Sides, place: Place, patience: Duration) -> Result<(), String> {
    let mut durable = sides.archived();
    let reached = durable.wait_for(|durable| durable.is_some_and(|durable| durable >= place));
    let reached = tokio::time::timeout(patience, reached).await;
    match reached.map(|durable| durable.map(|durable| *durable)) {
        // A failover in between: what was before it may not have arrived.
        Ok(Ok(Some(durable))) if durable.lineage != place.lineage => {
            Err("the database: another server took its place meanwhile; ask again".to_owned())
        }
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the database: nfs1 is stopping".to_owned()),
        Err(_) => Err(format!(
            "the database: the backup does not have everything within {} s; `ehpc-store db status` says why",
            patience.as_secs()
        )),
    }
}

#[cfg(test)]
#[path = "database_marks_tests.rs"]
mod tests;
