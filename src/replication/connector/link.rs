//! Blocking calls of the sender's thread, and asynchronous questions.

use super::{Desk, Shared, State};
use crate::observe::metrics::{BATCHES_SENT, BLOBS_SENT};
use crate::replication::link::{Link, LinkDown};
use crate::replication::session::cost;
use crate::replication::transport::Sealed;
use bytes::Bytes;
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::{Answer, Blob, Query, ToBackup};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Waits end without being notified after this time, to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One connection in the sender's hands. Dropping it closes the connection.
pub(super) struct TlsLink {
    shared: Arc<Shared>,
}

impl TlsLink {
    pub(super) fn new(shared: Arc<Shared>) -> TlsLink {
        TlsLink { shared }
    }

    /// Waits until `ready` gives something.
    fn wait<T>(
        &self,
        mut ready: impl FnMut(&mut MutexGuard<'_, State>) -> Result<Option<T>, LinkDown>,
    ) -> Result<T, LinkDown> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(value) = ready(&mut state)? {
                return Ok(value);
            }
            self.shared.changed.wait_for(&mut state, LOOK_AGAIN);
        }
    }
}

fn granted(granted: bool) -> Option<()> {
    granted.then_some(())
}

impl Link for TlsLink {
    fn send_blobs(&mut self, blobs: Vec<Blob>) -> Result<(), LinkDown> {
        if blobs.is_empty() {
            return self.check();
        }
        let (cost, count) = (cost(&blobs), blobs.len() as u64);
        let sealed = Sealed::to_backup(&ToBackup::Blobs(blobs));
        self.wait(|state| state.session.take_credit(cost).map(granted))?;
        self.shared.send(sealed);
        BLOBS_SENT.add(count);
        self.check()
    }

    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, LinkDown> {
        if hashes.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = self.wait(|state| state.session.offer(hashes.len()))?;
        self.shared.send(Sealed::to_backup(&ToBackup::Offer { hashes: hashes.to_vec() }));
        self.wait(|state| match state.lacking.remove(&ticket) {
            Some(flags) => Ok(Some(flags)),
            None => state.session.check().map(|_| None),
        })
    }

    fn send_batch(&mut self, number: u64, encoded: Bytes) -> Result<(), LinkDown> {
        let length = encoded.len();
        let sealed = Sealed::to_backup(&ToBackup::Batch(encoded));
        self.wait(|state| state.session.batch(number, length).map(granted))?;
        self.shared.send(sealed);
        BATCHES_SENT.inc();
        self.check()
    }

    fn poll_acks(&mut self) -> Option<u64> {
        self.shared.state.lock().acked.take()
    }

    fn ask(&mut self, query: Query) -> Result<Answer, LinkDown> {
        let (id, mut parts) = self.wait(|state| question(state))?;
        self.shared.send(Sealed::to_backup(&ToBackup::Ask { id, query }));
        let mut whole: Option<Answer> = None;
        loop {
            let Some((part, more)) = parts.blocking_recv() else {
                self.check()?;
                return Err(LinkDown::Lost { reason: "an answer ended early".to_owned() });
            };
            whole = Some(match whole {
                None => part,
                Some(before) => joined(before, part),
            });
            if !more && let Some(answer) = whole {
                return Ok(answer);
            }
        }
    }

    fn check(&self) -> Result<(), LinkDown> {
        self.shared.state.lock().session.check().map(|_| ())
    }

    fn on_event(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        let now = {
            let mut state = self.shared.state.lock();
            state.wake = Some(wake.clone());
            state.acked.is_some() || state.session.check().is_err()
        };
        // What came before must not be missed.
        if now {
            wake();
        }
    }
}

impl Drop for TlsLink {
    fn drop(&mut self) {
        self.shared.state.lock().wake = None;
        self.shared.end(LinkDown::Closed);
    }
}

/// Two parts of an answer as one.
fn joined(before: Answer, part: Answer) -> Answer {
    match (before, part) {
        (
            Answer::ReadData { damage: mut damages, unchecked: mut left, .. },
            Answer::ReadData { progress, damage, unchecked },
        ) => {
            damages.extend(damage);
            left.extend(unchecked);
            Answer::ReadData { progress, damage: damages, unchecked: left }
        }
        (Answer::Live { objects: mut all, entries: mut names }, Answer::Live { objects, entries }) => {
            all.extend(objects);
            names.extend(entries);
            Answer::Live { objects: all, entries: names }
        }
        (Answer::Touched { objects: mut all, entries: mut names }, Answer::Touched { objects, entries }) => {
            all.extend(objects);
            names.extend(entries);
            Answer::Touched { objects: all, entries: names }
        }
        (Answer::Blobs(mut all), Answer::Blobs(part)) => {
            all.extend(part);
            Answer::Blobs(all)
        }
        (Answer::Versions(mut all), Answer::Versions(part)) => {
            all.extend(part);
            Answer::Versions(all)
        }
        (Answer::Buckets { digests: mut all, .. }, Answer::Buckets { digests, highest, objects }) => {
            all.extend(digests);
            Answer::Buckets { digests: all, highest, objects }
        }
        // A failure ends the answer, whatever came before.
        (_, last) => last,
    }
}

type Parts = mpsc::UnboundedReceiver<(Answer, bool)>;

/// Registers a question; `None` = too many are open.
fn question(state: &mut State) -> Result<Option<(u64, Parts)>, LinkDown> {
    let Some(id) = state.session.ask()? else { return Ok(None) };
    let (listener, parts) = mpsc::unbounded_channel();
    state.questions.insert(id, listener);
    Ok(Some((id, parts)))
}

/// Asks the backup on whatever connection stands. Cheap to clone.
#[derive(Clone)]
pub struct Asker {
    desk: Arc<Desk>,
}

impl Asker {
    pub(super) fn new(desk: Arc<Desk>) -> Asker {
        Asker { desk }
    }

    /// Sends the question; the answer comes in parts.
    pub async fn ask(&self, query: Query) -> Result<Answers, LinkDown> {
        let current = self.desk.current.lock().clone();
        let Some(shared) = current else {
            let reason = self.desk.status.lock().last_error.clone();
            let reason = reason.unwrap_or_else(|| "not connected yet".to_owned());
            return Err(LinkDown::Lost { reason });
        };
        let (id, parts) = loop {
            let registered = question(&mut shared.state.lock())?;
            match registered {
                Some(registered) => break registered,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        shared.send(Sealed::to_backup(&ToBackup::Ask { id, query }));
        Ok(Answers { shared, parts, finished: false })
    }

    /// Asks and puts the parts of the answer together.
    pub async fn ask_whole(&self, query: Query) -> Result<Answer, LinkDown> {
        let mut answers = self.ask(query).await?;
        let mut whole: Option<Answer> = None;
        while let Some(part) = answers.next().await? {
            whole = Some(match whole {
                None => part,
                Some(before) => joined(before, part),
            });
        }
        whole.ok_or_else(|| LinkDown::Protocol { reason: "an answer without parts".to_owned() })
    }
}

/// The parts of one answer.
pub struct Answers {
    shared: Arc<Shared>,
    parts: Parts,
    finished: bool,
}

impl Answers {
    /// The next part; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Answer>, LinkDown> {
        if self.finished {
            return Ok(None);
        }
        match self.parts.recv().await {
            Some((part, more)) => {
                self.finished = !more;
                Ok(Some(part))
            }
            None => {
                self.shared.state.lock().session.check()?;
                Err(LinkDown::Lost { reason: "an answer ended early".to_owned() })
            }
        }
    }
}
