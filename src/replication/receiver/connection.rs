//! One connection of the paired primary: its session, and the tasks around it.

use super::writer::{Outcome, Party, Work};
use super::{Desk, StoreFault};
use crate::replication::session::{Action, BackupSession};
use crate::replication::transport::{FrameReader, FrameWriter, Sealed, Socket, TransportError, off_runtime};
use bytes::Bytes;
use ehpc_proto::replication::message::{Answer, ToBackup, ToPrimary};
use ehpc_proto::replication::wire::{self, FrameKind, MAX_FRAME, WireError};
use ehpc_proto::replication::{Batch, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Batches from this size on are decoded on a blocking thread.
const BLOCK_FROM: usize = 64 * 1024;
/// The last words of a connection are given this time to be sent.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// What a shutting-down backup waits for its disk.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What the reading task found.
enum Incoming {
    Message(ToBackup),
    Batch(Bytes, Batch),
    /// The peer breaks the protocol.
    Violation(WireError),
    /// The connection is at its end.
    Ended(String),
}

/// What work beside the writer came to.
enum Found {
    Lacking(Result<Vec<bool>, StoreFault>),
    Answer { id: u64, more: bool, answer: Answer },
}

/// Serves the connection to its end.
pub(super) async fn run(desk: Arc<Desk>, id: u64, stream: TlsStream<Socket>, who: String) {
    let (read, write) = tokio::io::split(stream);
    let (incoming, inbox) = mpsc::channel(2);
    let (outbox, outgoing) = mpsc::channel(64);
    let (outcomes, outcome_queue) = mpsc::unbounded_channel();
    let (found, found_queue) = mpsc::channel(4);
    let (lookups, lookup_queue) = mpsc::channel(crate::replication::session::QUESTIONS_IN_FLIGHT);
    let stop = CancellationToken::new();
    let reader = tokio::spawn(receive(desk.clone(), FrameReader::new(read, MAX_FRAME), incoming));
    let writer = tokio::spawn(transmit(FrameWriter::new(write), outgoing));
    let looking = tokio::spawn(look_up(desk.clone(), lookup_queue, found.clone()));
    let started = Instant::now();
    let connection = Connection {
        id,
        session: BackupSession::start(Duration::ZERO),
        started,
        desk,
        who,
        stop,
        outbox,
        outcomes,
        found,
        lookups,
    };
    connection.run(inbox, outcome_queue, found_queue).await;
    looking.abort();
    // The connection's ends of the channels are dropped: the writing task sends what is left and closes. Until the
    // primary has read it and closes too, what it still sends is read and dropped: to close with bytes unread would
    // reset the connection, and the last words be lost.
    finish(writer).await;
    finish(reader).await;
}

async fn finish(task: JoinHandle<()>) {
    let abort = task.abort_handle();
    if tokio::time::timeout(FAREWELL_WITHIN, task).await.is_err() {
        abort.abort();
    }
}

struct Connection {
    id: u64,
    desk: Arc<Desk>,
    who: String,
    session: BackupSession,
    started: Instant,
    /// Cancelled by a newer connection.
    stop: CancellationToken,
    outbox: mpsc::Sender<Sealed>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    found: mpsc::Sender<Found>,
    lookups: mpsc::Sender<Vec<Hash>>,
}

/// Why a connection ended.
struct Over(String);

impl Connection {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Incoming>,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
        mut found: mpsc::Receiver<Found>,
    ) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let Over(why) = loop {
            let step = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Over("a newer connection takes its place".to_owned())),
                () = self.desk.shutdown.cancelled() => break self.drain(&mut outcomes).await,
                Some(outcome) = outcomes.recv() => self.outcome(outcome).await,
                Some(found) = found.recv() => self.found(found).await,
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
        self.desk.leave(self.id, &why);
        tracing::info!(primary = self.who, "replication link ended: {why}");
    }

    async fn incoming(&mut self, incoming: Option<Incoming>) -> Result<(), Over> {
        let now = self.started.elapsed();
        let actions = match incoming {
            Some(Incoming::Message(message)) => self.session.received(now, message),
            Some(Incoming::Batch(encoded, batch)) => self.session.received_batch(now, encoded, batch),
            Some(Incoming::Violation(error)) => self.session.refuse(error.to_string()),
            Some(Incoming::Ended(why)) => return Err(Over(why)),
            None => return Err(Over("the reading task ended".to_owned())),
        };
        self.perform(actions).await
    }

    async fn outcome(&mut self, outcome: Outcome) -> Result<(), Over> {
        let actions = match outcome {
            Outcome::Greeted { position, shadow_known } => {
                tracing::info!(
                    primary = self.who,
                    batch = position.map_or(0, |p| p.number),
                    "replication link is up"
                );
                self.session.greeted(position, shadow_known)
            }
            Outcome::Written(cost) => self.session.written(cost),
            Outcome::Durable(number) => self.session.durable(number),
            Outcome::Failed(fault) => {
                tracing::error!(primary = self.who, "{fault}");
                self.session.refuse(fault.to_string())
            }
            Outcome::Drained => return Ok(()),
        };
        self.perform(actions).await
    }

    async fn found(&mut self, found: Found) -> Result<(), Over> {
        let actions = match found {
            Found::Lacking(Ok(flags)) => self.session.lacking(flags),
            Found::Lacking(Err(fault)) => self.session.refuse(fault.to_string()),
            Found::Answer { id, more, answer } => self.session.answer(id, more, answer),
        };
        self.perform(actions).await
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), Over> {
        for action in actions {
            match action {
                Action::Send(message) => self.send(message).await?,
                Action::Greet(hello) => {
                    self.desk.take_charge(self.id, self.stop.clone(), &self.who);
                    let party = Party { id: self.id, outcomes: self.outcomes.clone() };
                    self.work(Work::Greet(party, hello))?;
                }
                Action::Lookup(hashes) => {
                    let sent = self.lookups.send(hashes).await;
                    sent.map_err(|_| Over("the task that looks up offers ended".to_owned()))?;
                }
                Action::Store(blobs) => self.work(Work::Store(self.id, blobs))?,
                Action::Append { encoded, batch } => self.work(Work::Append(self.id, encoded, batch))?,
                Action::Answer { id, query } => self.answer(id, query),
                Action::End { reason } => return Err(Over(reason)),
            }
        }
        Ok(())
    }

    fn work(&self, work: Work) -> Result<(), Over> {
        self.desk.work.send(work).map_err(|_| Over("the store's thread ended".to_owned()))
    }

    async fn send(&self, message: ToPrimary) -> Result<(), Over> {
        let long = matches!(message, ToPrimary::Answer { .. });
        let sealed = if long {
            off_runtime(move || Sealed::to_primary(&message)).await
        } else {
            Ok(Sealed::to_primary(&message))
        };
        let sealed = match sealed {
            Ok(Ok(sealed)) => sealed,
            Ok(Err(error)) => return Err(Over(format!("a message of this host: {error}"))),
            Err(error) => return Err(Over(error.to_string())),
        };
        self.outbox.send(sealed).await.map_err(|_| Over("the connection broke".to_owned()))
    }

    /// Starts to look for an answer; its parts come back as [`Found`].
    fn answer(&self, id: u64, query: ehpc_proto::replication::message::Query) {
        let (queries, found) = (self.desk.options.queries.clone(), self.found.clone());
        let answering = self.desk.answering.clone();
        tokio::spawn(async move {
            let Ok(_turn) = answering.acquire_owned().await else { return };
            let work = tokio::task::spawn_blocking(move || {
                let mut last = false;
                queries.answer(query, &mut |answer, more| {
                    last = !more;
                    found.blocking_send(Found::Answer { id, more, answer }).is_ok()
                });
                // An asker must not wait for ever because a handler forgot the end.
                if !last {
                    let answer = Answer::Failed { reason: "the answer ended early".to_owned() };
                    let _ = found.blocking_send(Found::Answer { id, more: false, answer });
                }
            });
            if let Err(error) = work.await {
                tracing::error!("a question of the primary was not answered: {error}");
            }
        });
    }

    /// Shutdown: nothing more is read; what has arrived is made durable and acknowledged.
    async fn drain(&mut self, outcomes: &mut mpsc::UnboundedReceiver<Outcome>) -> Over {
        let over = Over("this host is shutting down".to_owned());
        if !self.session.is_open() || self.work(Work::Drain(self.id)).is_err() {
            return over;
        }
        let draining = async {
            while let Some(outcome) = outcomes.recv().await {
                let drained = matches!(outcome, Outcome::Drained);
                if self.outcome(outcome).await.is_err() || drained {
                    return;
                }
            }
        };
        if tokio::time::timeout(DRAIN_WITHIN, draining).await.is_err() {
            tracing::warn!("what the primary sent last was not stored within {} s", DRAIN_WITHIN.as_secs());
        }
        over
    }
}

/// Reads frames and decodes them, ahead of the session by two messages at most.
async fn receive(
    desk: Arc<Desk>,
    mut reader: FrameReader<ReadHalf<TlsStream<Socket>>>,
    incoming: mpsc::Sender<Incoming>,
) {
    loop {
        let next = reader.next(FrameKind::ToBackup).await;
        let received = reader.take_received();
        desk.note(|status| status.bytes_received += received);
        let (found, goes_on) = match next {
            Ok(Some(payload)) => match decode(payload).await {
                Ok(found) => (found, true),
                Err(TransportError::Wire(error)) => (Incoming::Violation(error), false),
                Err(error) => (Incoming::Ended(error.to_string()), false),
            },
            Ok(None) => (Incoming::Ended("the primary closed it".to_owned()), false),
            Err(TransportError::Wire(error)) => (Incoming::Violation(error), false),
            Err(error) => (Incoming::Ended(error.to_string()), false),
        };
        if !goes_on {
            let _ = incoming.send(found).await;
            return;
        }
        if incoming.send(found).await.is_err() {
            break;
        }
    }
    while let Ok(Some(_)) = reader.next(FrameKind::ToBackup).await {}
}

async fn decode(payload: Bytes) -> Result<Incoming, TransportError> {
    match wire::decode_to_backup(payload)? {
        ToBackup::Batch(encoded) if encoded.len() >= BLOCK_FROM => {
            let (encoded, batch) = off_runtime(move || {
                let batch = wire::decode_batch(&encoded);
                (encoded, batch)
            })
            .await?;
            Ok(Incoming::Batch(encoded, batch?))
        }
        message => Ok(Incoming::Message(message)),
    }
}

/// Writes frames until there are no more to come, then closes.
async fn transmit(mut writer: FrameWriter<WriteHalf<TlsStream<Socket>>>, mut queue: mpsc::Receiver<Sealed>) {
    while let Some(frame) = queue.recv().await {
        let mut written = writer.write(&frame).await;
        while let (Ok(()), Ok(frame)) = (&written, queue.try_recv()) {
            written = writer.write(&frame).await;
        }
        if written.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // The peer may be gone already.
    let _ = writer.finish().await;
}

/// Looks up offers, one after the other: they are answered in order.
async fn look_up(desk: Arc<Desk>, mut queue: mpsc::Receiver<Vec<Hash>>, found: mpsc::Sender<Found>) {
    while let Some(hashes) = queue.recv().await {
        let store = desk.options.store.clone();
        let looked = off_runtime(move || store.lacking(&hashes)).await;
        let flags = looked.unwrap_or_else(|e| Err(StoreFault::Broken { reason: e.to_string() }));
        if found.send(Found::Lacking(flags)).await.is_err() {
            return;
        }
    }
}
