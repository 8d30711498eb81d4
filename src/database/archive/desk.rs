//! Serves connections of the lane: a session, the tasks around it, and the writing thread behind.

use super::Archive;
use super::append::Append;
use super::refetch::Wanted;
use super::session::{Action, ArchiveSession, DEAD_AFTER};
use super::writer::{Outcome, Party, Work};
use crate::database::link::{BoxFuture, Wire, WireIn, WireOut};
use ehpc_proto::replication::database::{DbAnswer, DbQuery, MAX_FILES, Mark, ToArchive, ToSource};
use ehpc_proto::replication::wire::{decode_to_archive, encode_to_source};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The last words of a connection are given this time to be sent.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// What a stopping archive waits for its disk.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Answers questions that are not about the archive; each part of the answer is one message.
pub type Others = Arc<dyn Fn(DbQuery) -> BoxFuture<'static, Vec<DbAnswer>> + Send + Sync>;

/// Takes what nfs1 sends into an archive.
#[derive(Clone)]
pub struct ArchiveDesk {
    archive: Arc<Archive>,
    on_mark: Arc<dyn Fn(Mark) + Send + Sync>,
    others: Others,
}

/// What the reading task found.
enum Incoming {
    Message(ToArchive),
    Violation(String),
    Ended(String),
}

/// Why a connection ended.
struct Over(String);

impl ArchiveDesk {
    /// For `archive`. `on_mark` keeps a mark; it may block for a sync, and is called on a thread for that. `others` answers
    /// what the archive does not know.
    pub fn new(
        archive: Arc<Archive>,
        on_mark: Arc<dyn Fn(Mark) + Send + Sync>,
        others: Others,
    ) -> ArchiveDesk {
        ArchiveDesk { archive, on_mark, others }
    }

    /// Serves one connection to its end; `peer` is for logs. When `stop` is cancelled, what has arrived is made durable and
    /// acknowledged, and nothing more is read. A newer connection takes the archive over when its hello comes.
    pub fn serve(
        &self,
        wire: Box<dyn Wire>,
        peer: String,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let desk = self.clone();
        Box::pin(async move { desk.run(wire, peer, stop).await })
    }

    async fn run(self, wire: Box<dyn Wire>, peer: String, stop: CancellationToken) {
        let (input, output) = wire.split();
        let (incoming, inbox) = mpsc::channel(2);
        let (outbox, outgoing) = mpsc::channel(64);
        let (outcomes, outcome_queue) = mpsc::unbounded_channel();
        let (found, found_queue) = mpsc::channel(4);
        let reader = tokio::spawn(receive(input, incoming));
        let writer = tokio::spawn(transmit(output, outgoing));
        let id = self.archive.next_party.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            id,
            desk: self,
            session: ArchiveSession::start(Duration::ZERO),
            started: Instant::now(),
            outbox,
            outcomes,
            found,
            peer,
        };
        connection.run(inbox, outcome_queue, found_queue, stop).await;
        // As in the files' link: the last words are sent, and what still comes is read until the other side closes.
        finish(writer).await;
        finish(reader).await;
    }
}

async fn finish(task: JoinHandle<()>) {
    let abort = task.abort_handle();
    if tokio::time::timeout(FAREWELL_WITHIN, task).await.is_err() {
        abort.abort();
    }
}

struct Connection {
    id: u64,
    desk: ArchiveDesk,
    session: ArchiveSession,
    started: Instant,
    outbox: mpsc::Sender<ToSource>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    found: mpsc::Sender<(u64, bool, DbAnswer)>,
    peer: String,
}

impl Connection {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Incoming>,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
        mut found: mpsc::Receiver<(u64, bool, DbAnswer)>,
        stop: CancellationToken,
    ) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let Over(why) = loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => break self.drain(&mut outcomes).await,
                Some(outcome) = outcomes.recv() => self.outcome(outcome).await,
                Some((id, more, answer)) = found.recv() => {
                    let actions = self.session.answer(id, more, answer);
                    self.perform(actions).await
                }
                incoming = inbox.recv() => self.incoming(incoming).await,
                _ = seconds.tick() => {
                    let actions = self.session.tick(self.started.elapsed());
                    self.perform(actions).await
                }
            };
            if let Err(over) = step {
                break over;
            }
        };
        let shared = &self.desk.archive.shared;
        // Of two connections the newer one has the higher number, and says how it is.
        let _ = shared.connected.compare_exchange(self.id, 0, Ordering::AcqRel, Ordering::Relaxed);
        tracing::info!(primary = self.peer, "the database's lane ended: {why}");
    }

    async fn incoming(&mut self, incoming: Option<Incoming>) -> Result<(), Over> {
        let now = self.started.elapsed();
        let actions = match incoming {
            Some(Incoming::Message(message)) => self.session.received(now, message),
            Some(Incoming::Violation(reason)) => self.session.refuse(reason),
            Some(Incoming::Ended(why)) => return Err(Over(why)),
            None => return Err(Over("the reading task ended".to_owned())),
        };
        self.perform(actions).await
    }

    async fn outcome(&mut self, outcome: Outcome) -> Result<(), Over> {
        let actions = match outcome {
            Outcome::Begun(end) => {
                self.desk.archive.shared.connected.fetch_max(self.id, Ordering::AcqRel);
                let at = end.file.as_ref().map(|file| format!("{} {}", file.name, file.len));
                tracing::info!(primary = self.peer, at, "the database's lane is up");
                self.session.begun(end)
            }
            Outcome::Written(bytes) => self.session.written(bytes),
            Outcome::Durable(place) => self.session.durable(place),
            Outcome::Refetched(id, done) => {
                let failed = |reason| DbAnswer::Failed { reason };
                self.session.answer(id, false, done.map_or_else(failed, |()| DbAnswer::Refetched))
            }
            Outcome::Failed(fault) => {
                tracing::error!(primary = self.peer, "{fault}");
                self.session.refuse(fault.to_string())
            }
            Outcome::Drained => return Ok(()),
        };
        self.perform(actions).await
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), Over> {
        for action in actions {
            match action {
                Action::Send(message) => self.send(message).await?,
                Action::Begin => {
                    self.work(Work::Begin(self.party()))?;
                }
                Action::Append(append) => self.append(append)?,
                Action::Refetch { id, lineage, ordinal, from, to } => {
                    self.work(Work::Refetch(self.id, id, Wanted { lineage, ordinal, from, to }))?;
                }
                Action::Patch { id, offset, bytes } => {
                    self.work(Work::Patch { party: self.id, id, offset, bytes })?;
                }
                Action::Mark(mark) => {
                    let keep = self.desk.on_mark.clone();
                    let kept = tokio::task::spawn_blocking(move || keep(mark)).await;
                    kept.map_err(|error| Over(format!("a mark was not kept: {error}")))?;
                }
                Action::Answer { id, query } => self.answer(id, query),
                Action::End { reason } => return Err(Over(reason)),
            }
        }
        Ok(())
    }

    fn party(&self) -> Party {
        Party { id: self.id, outcomes: self.outcomes.clone() }
    }

    fn append(&self, append: Append) -> Result<(), Over> {
        self.work(Work::Append(self.id, append))
    }

    fn work(&self, work: Work) -> Result<(), Over> {
        self.desk.archive.work.send(work).map_err(|_| Over("the archive is closed".to_owned()))
    }

    async fn send(&self, message: ToSource) -> Result<(), Over> {
        match tokio::time::timeout(DEAD_AFTER, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over("the connection broke".to_owned())),
            Err(_) => Err(Over(format!("nfs1 took nothing for {} s", DEAD_AFTER.as_secs()))),
        }
    }

    /// Looks for an answer; its parts come back as found.
    fn answer(&self, id: u64, query: DbQuery) {
        let (archive, others, found) =
            (self.desk.archive.clone(), self.desk.others.clone(), self.found.clone());
        tokio::spawn(async move {
            let mut parts = match query {
                DbQuery::Files { .. } | DbQuery::Hash { .. } | DbQuery::Refetch { .. } => {
                    let looked = tokio::task::spawn_blocking(move || look(&archive, query)).await;
                    vec![looked.unwrap_or_else(|error| DbAnswer::Failed { reason: error.to_string() })]
                }
                other => others(other).await,
            };
            if parts.is_empty() {
                parts.push(DbAnswer::Failed { reason: "this backup has no answer to that".to_owned() });
            }
            let last = parts.len() - 1;
            for (at, part) in parts.into_iter().enumerate() {
                if found.send((id, at < last, part)).await.is_err() {
                    return; // the connection is over
                }
            }
        });
    }

    /// Nothing more is read; what has arrived is made durable and acknowledged.
    async fn drain(&mut self, outcomes: &mut mpsc::UnboundedReceiver<Outcome>) -> Over {
        let over = Over("a newer connection takes its place, or this host is shutting down".to_owned());
        if !self.session.is_open() || self.work(Work::Drain(self.party())).is_err() {
            return over;
        }
        let draining = async {
            while let Some(outcome) = outcomes.recv().await {
                let drained = matches!(outcome, Outcome::Drained | Outcome::Failed(_));
                if self.outcome(outcome).await.is_err() || drained {
                    return;
                }
            }
        };
        if tokio::time::timeout(DRAIN_WITHIN, draining).await.is_err() {
            tracing::warn!("what nfs1 sent last was not stored within {} s", DRAIN_WITHIN.as_secs());
        }
        over
    }
}

fn look(archive: &Archive, query: DbQuery) -> DbAnswer {
    match query {
        DbQuery::Files { from } => {
            let files = archive.listed().into_iter().filter(|file| (file.lineage, file.ordinal) >= from);
            DbAnswer::Files(files.take(MAX_FILES).collect())
        }
        DbQuery::Hash { lineage, ordinal, from, to } => match archive.hash(lineage, ordinal, from, to) {
            Ok(hash) => DbAnswer::Hash(hash),
            Err(error) => DbAnswer::Failed { reason: error.to_string() },
        },
        _ => DbAnswer::Failed { reason: "that is no question about the archive".to_owned() },
    }
}

/// Reads messages, ahead of the session by two at most.
async fn receive(mut input: Box<dyn WireIn>, incoming: mpsc::Sender<Incoming>) {
    loop {
        let found = match input.next().await {
            Ok(Some(payload)) => match decode_to_archive(payload) {
                Ok(message) => Incoming::Message(message),
                Err(error) => Incoming::Violation(error.to_string()),
            },
            Ok(None) => Incoming::Ended("nfs1 closed it".to_owned()),
            Err(error) => Incoming::Ended(error),
        };
        let goes_on = matches!(found, Incoming::Message(_));
        if incoming.send(found).await.is_err() || !goes_on {
            break;
        }
    }
    while let Ok(Some(_)) = input.next().await {}
}

/// Sends messages until there are no more to come, then ends in order.
async fn transmit(mut output: Box<dyn WireOut>, mut queue: mpsc::Receiver<ToSource>) {
    while let Some(message) = queue.recv().await {
        let mut sent = output.send(encode_to_source(&message).into()).await;
        while let (Ok(()), Ok(message)) = (&sent, queue.try_recv()) {
            sent = output.send(encode_to_source(&message).into()).await;
        }
        if sent.is_err() || output.flush().await.is_err() {
            return;
        }
    }
    // The other side may be gone already.
    let _ = output.finish().await;
}
