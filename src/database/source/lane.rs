//! The source's end of the lane: what goes to the archive, and what comes back.
//!
//! Two tasks a connection: one sends what it is given and keeps the connection alive, one receives. When either ends,
//! the connection has fallen.

use crate::database::link::{BoxFuture, Dial, WireIn, WireOut};
use crate::database::source::fault::SourceFault;
use bytes::Bytes;
use ehpc_proto::replication::database::{
    ArchivedFile, CREDIT, DATABASE_VERSION, DbAnswer, DbQuery, Lineage, Mark, Place, ToArchive, ToSource,
};
use ehpc_proto::replication::wire::{decode_to_source, encode_to_archive};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

/// A connection and its welcome must be there within this time.
const WELCOME_WITHIN: Duration = Duration::from_secs(60);
/// Time between two signs of life.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Silence after which the other side is gone.
const SILENT: Duration = Duration::from_secs(20);
/// Time for an orderly end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Messages that wait to be sent.
const QUEUE: usize = 16;
/// Longest piece of a repair, bytes.
pub(super) const PATCH: usize = 64 * 1024;
/// Pieces of a repair that are under way at a time: what an event of the stream, and so an acknowledgement, may have to wait
/// for.
pub(super) const PATCHES: usize = 4;
/// Most parts of an answer.
const MAX_PARTS: usize = 4096;

/// Asks for nothing: its answer says that what was sent before has arrived.
const BEHIND: DbQuery = DbQuery::Files { from: (u32::MAX, u32::MAX) };

/// Pieces of a repair that were sent, oldest first: each resolves when it has arrived.
#[derive(Default)]
pub(super) struct UnderWay(VecDeque<BoxFuture<'static, Result<Vec<DbAnswer>, String>>>);

/// Where the archive ends.
#[derive(Clone, Default, Debug)]
pub struct ArchiveEnd {
    /// Its newest lineage.
    pub lineage: Option<Lineage>,
    /// Its last file.
    pub file: Option<ArchivedFile>,
    /// First bytes of that file.
    pub head: Vec<u8>,
    /// GTID state at the end.
    pub gtid: String,
}

impl ArchiveEnd {
    /// As a place.
    pub fn place(&self) -> Option<Place> {
        let file = self.file.as_ref()?;
        Some(Place { lineage: file.lineage, file: file.ordinal, offset: file.len })
    }
}

/// A way to the archive.
#[derive(Clone, Debug)]
struct Way {
    out: mpsc::Sender<ToArchive>,
    credit: Arc<Semaphore>,
}

type Parts = (Vec<DbAnswer>, oneshot::Sender<Result<Vec<DbAnswer>, String>>);

/// What outlives a connection of the lane.
#[derive(Debug)]
pub struct Exchange {
    durable: watch::Sender<Option<Place>>,
    open: Mutex<Option<Way>>,
    asked: Mutex<Asked>,
}

#[derive(Default, Debug)]
struct Asked {
    last: u64,
    open: HashMap<u64, Parts>,
}

impl Exchange {
    /// Nothing is connected.
    pub fn new() -> Exchange {
        let (durable, _) = watch::channel(None);
        Exchange { durable, open: Mutex::new(None), asked: Mutex::new(Asked::default()) }
    }

    /// What is on the backup's disk; `None` until the first connection.
    pub fn durable(&self) -> watch::Receiver<Option<Place>> {
        self.durable.subscribe()
    }

    fn way(&self) -> Result<Way, String> {
        self.open.lock().clone().ok_or_else(|| "there is no connection to the backup".to_owned())
    }

    /// Sends a mark, and waits until the archive has kept it, or has said in its log why not.
    ///
    /// # Errors
    ///
    /// The lane is down, or fell before the mark was kept for certain.
    pub async fn mark(&self, mark: Mark) -> Result<(), String> {
        let lost = |_| "the connection to the backup was lost".to_owned();
        self.way()?.out.send(ToArchive::Mark(mark)).await.map_err(lost)?;
        self.passed().await
    }

    /// Waits until the archive has taken what was sent before: it is asked for nothing, behind that.
    async fn passed(&self) -> Result<(), String> {
        self.ask(BEHIND).await.map(drop)
    }

    /// Asks the archive.
    ///
    /// # Errors
    ///
    /// The lane is down, or fell before the answer was complete.
    pub async fn ask(&self, query: DbQuery) -> Result<Vec<DbAnswer>, String> {
        let (_, answered) = self.question(query).await?;
        answered.await
    }

    /// Asks; the question's number, and its answer.
    ///
    /// # Errors
    ///
    /// As for `ask`.
    pub async fn question(
        &self,
        query: DbQuery,
    ) -> Result<(u64, impl Future<Output = Result<Vec<DbAnswer>, String>> + use<>), String> {
        let way = self.way()?;
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut asked = self.asked.lock();
            asked.last += 1;
            let id = asked.last;
            asked.open.insert(id, (Vec::new(), answer));
            id
        };
        let lost = "the connection to the backup was lost";
        if way.out.send(ToArchive::Ask { id, query }).await.is_err() {
            self.asked.lock().open.remove(&id);
            return Err(lost.to_owned());
        }
        Ok((id, async move { answered.await.unwrap_or_else(|_| Err(lost.to_owned())) }))
    }

    /// Sends bytes for a range that is written anew: never more than [`PATCHES`] pieces that have not arrived are in the way
    /// of what the stream sends. Those of this range are in `under_way`.
    ///
    /// # Errors
    ///
    /// The lane is down.
    pub(super) async fn patch(
        &self,
        id: u64,
        mut offset: u64,
        mut bytes: Bytes,
        under_way: &mut UnderWay,
    ) -> Result<(), String> {
        let lost = |_| "the connection to the backup was lost".to_owned();
        while !bytes.is_empty() {
            if under_way.0.len() == PATCHES
                && let Some(oldest) = under_way.0.pop_front()
            {
                oldest.await?;
            }
            let piece = bytes.split_to(bytes.len().min(PATCH));
            let len = piece.len();
            let way = self.way()?;
            let permit = way.credit.acquire_many(u32::try_from(len).unwrap_or(u32::MAX)).await;
            let permit = permit.map_err(|error| lost(error.to_string()))?;
            let patch = ToArchive::Patch { id, offset, bytes: piece };
            way.out.send(patch).await.map_err(|error| lost(error.to_string()))?;
            permit.forget();
            let (_, arrived) = self.question(BEHIND).await?;
            under_way.0.push_back(Box::pin(arrived));
            offset += len as u64;
        }
        Ok(())
    }

    fn answered(&self, id: u64, more: bool, answer: DbAnswer) {
        let mut asked = self.asked.lock();
        let Some((parts, _)) = asked.open.get_mut(&id) else { return };
        parts.push(answer);
        let too_long = parts.len() > MAX_PARTS;
        if more && !too_long {
            return;
        }
        if let Some((parts, waiting)) = asked.open.remove(&id) {
            // Whoever asked may have gone.
            let _ = waiting.send(if too_long { Err("the answer has no end".to_owned()) } else { Ok(parts) });
        }
    }

    fn fell(&self) {
        *self.open.lock() = None;
        self.asked.lock().open.clear();
    }
}

impl Default for Exchange {
    fn default() -> Exchange {
        Exchange::new()
    }
}

/// A connection of the lane. Dropped, it ends.
pub struct Lane {
    /// Where the archive ended when it was opened.
    pub end: ArchiveEnd,
    /// Messages to send, in order.
    pub out: mpsc::Sender<ToArchive>,
    /// Bytes that may be sent.
    pub credit: Arc<Semaphore>,
    exchange: Arc<Exchange>,
    tasks: JoinSet<SourceFault>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.exchange.fell();
        // Who waits for credit waits in vain.
        self.credit.close();
    }
}

impl Lane {
    /// Dials and says hello.
    ///
    /// # Errors
    ///
    /// The backup cannot be reached, or refuses.
    pub async fn open(
        dial: &dyn Dial,
        source: String,
        exchange: &Arc<Exchange>,
    ) -> Result<Lane, SourceFault> {
        match timeout(WELCOME_WITHIN, Lane::greet(dial, source, exchange)).await {
            Ok(lane) => lane,
            Err(_) => Err(SourceFault::Lane(format!("no welcome within {} s", WELCOME_WITHIN.as_secs()))),
        }
    }

    async fn greet(dial: &dyn Dial, source: String, exchange: &Arc<Exchange>) -> Result<Lane, SourceFault> {
        let wire = dial.dial().await.map_err(SourceFault::Lane)?;
        let (mut input, mut output) = wire.split();
        let hello = ToArchive::Hello { version: DATABASE_VERSION, source };
        output.send(encode_to_archive(&hello)).await.map_err(SourceFault::Lane)?;
        output.flush().await.map_err(SourceFault::Lane)?;
        let (end, credit) = match receive(&mut *input).await? {
            ToSource::Welcome { version: DATABASE_VERSION, lineage, file, head, gtid, credit } => {
                (ArchiveEnd { lineage, file, head, gtid }, credit)
            }
            ToSource::Welcome { version, .. } => {
                let text =
                    format!("it speaks version {version} of this protocol, this host {DATABASE_VERSION}");
                return Err(SourceFault::Refused(text));
            }
            ToSource::Refused { reason } => return Err(SourceFault::Refused(reason)),
            _ => return Err(SourceFault::Lane("its first message is no welcome".to_owned())),
        };
        let credit = Arc::new(Semaphore::new(credit.min(CREDIT) as usize));
        let (out, queue) = mpsc::channel(QUEUE);
        exchange.durable.send_replace(end.place());
        let mut tasks = JoinSet::new();
        tasks.spawn(send(output, queue));
        tasks.spawn(listen(input, exchange.clone(), credit.clone()));
        *exchange.open.lock() = Some(Way { out: out.clone(), credit: credit.clone() });
        Ok(Lane { end, out, credit, exchange: exchange.clone(), tasks })
    }

    /// Ends it in order: what was handed over goes out.
    pub async fn close(mut self) {
        self.exchange.fell();
        let (closed, _) = mpsc::channel(1);
        self.out = closed;
        // The sender's task ends when nobody can give it anything.
        let _ = timeout(CLOSE_WITHIN, self.tasks.join_next()).await;
    }

    /// Waits until the connection has fallen; why. Safe to cancel.
    pub async fn fell(&mut self) -> SourceFault {
        match self.tasks.join_next().await {
            Some(Ok(fault)) => fault,
            _ => SourceFault::Lane("its tasks ended".to_owned()),
        }
    }
}

async fn receive(input: &mut dyn WireIn) -> Result<ToSource, SourceFault> {
    let message = input.next().await.map_err(SourceFault::Lane)?;
    let message = message.ok_or_else(|| SourceFault::Lane("it closed the connection".to_owned()))?;
    decode_to_source(&message).map_err(|error| SourceFault::Lane(error.to_string()))
}

/// Sends what it is given; flushes when nothing waits; says that it lives.
async fn send(mut output: Box<dyn WireOut>, mut queue: mpsc::Receiver<ToArchive>) -> SourceFault {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pings = 0;
    loop {
        let message = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => message,
                None => {
                    let finished = output.finish().await;
                    return SourceFault::Lane(finished.err().unwrap_or_else(|| "it is closed".to_owned()));
                }
            },
            _ = ping.tick() => {
                pings += 1;
                ToArchive::Ping(pings)
            }
        };
        if let Err(text) = send_all(&mut *output, message, &mut queue).await {
            return SourceFault::Lane(text);
        }
    }
}

async fn send_all(
    output: &mut dyn WireOut,
    first: ToArchive,
    queue: &mut mpsc::Receiver<ToArchive>,
) -> Result<(), String> {
    output.send(encode_to_archive(&first)).await?;
    while let Ok(message) = queue.try_recv() {
        output.send(encode_to_archive(&message)).await?;
    }
    output.flush().await
}

/// Receives until the end.
async fn listen(mut input: Box<dyn WireIn>, exchange: Arc<Exchange>, credit: Arc<Semaphore>) -> SourceFault {
    loop {
        // The connection is not used any more after this time-out, so that what it cuts does not matter.
        let message = match timeout(SILENT, receive(&mut *input)).await {
            Err(_) => return SourceFault::Lane(format!("it was silent for {} s", SILENT.as_secs())),
            Ok(Err(fault)) => return fault,
            Ok(Ok(message)) => message,
        };
        match message {
            ToSource::Durable(place) => {
                exchange.durable.send_if_modified(|durable| {
                    let newer = durable.is_none_or(|durable| durable < place);
                    if newer {
                        *durable = Some(place);
                    }
                    newer
                });
            }
            ToSource::Credit { bytes } => {
                let bytes = bytes as usize;
                if bytes > CREDIT as usize || credit.available_permits() + bytes > CREDIT as usize {
                    return SourceFault::Lane("it gives more credit than there is".to_owned());
                }
                credit.add_permits(bytes);
            }
            ToSource::Answer { id, more, answer } => exchange.answered(id, more, answer),
            ToSource::Refused { reason } => return SourceFault::Refused(reason),
            ToSource::Pong(_) => {}
            ToSource::Welcome { .. } => return SourceFault::Lane("a second welcome".to_owned()),
        }
    }
}
