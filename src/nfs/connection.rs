//! One client connection: a reader that keeps many requests in flight, and one writer.

use super::budget::{Budget, Reserved};
use super::dispatch::{self, Action};
use super::job::Job;
use super::meters::Traffic;
use super::server::Shared;
use super::workers::Workers;
use crate::observe::metrics;
use bytes::BufMut;
use ehpc_proto::record::{Assembler, RecordError};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Bytes read at once while records are small.
const READ_BUFFER: usize = 32 * 1024;
/// A fragment that lacks more than this is read straight into its record.
const DIRECT: usize = 16 * 1024;
/// A record longer than this reserves its memory before it is read.
const LARGE_RECORD: usize = 64 * 1024;
/// Most replies in one system call.
const COALESCED: usize = 64;

/// A connection being served.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) workers: Arc<Workers>,
    pub(super) budget: Budget,
    pub(super) peer: SocketAddr,
    pub(super) traffic: Arc<Traffic>,
}

/// A reply on its way, and what it holds until it is written.
struct Outgoing {
    bytes: Vec<u8>,
    _slot: OwnedSemaphorePermit,
    _reserved: Option<Reserved>,
}

/// How reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The client closed between two records.
    Closed,
    /// The server is being shut down.
    Stopped,
    /// Anything else.
    Broken,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the connection ended in the middle of a record")]
    Truncated,
    #[error("a record took longer than {0:?} to arrive")]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Connection {
    /// Serves until the client leaves, something breaks, or `stop`; then answers what is in flight.
    pub(super) async fn run(self, stream: TcpStream, stop: CancellationToken) {
        let stall = self.shared.options.stall;
        let (read, write) = stream.into_split();
        let broken = CancellationToken::new();
        let (replies, outgoing) = unbounded_channel();
        let writer = tokio::spawn(write_replies(write, outgoing, stall, broken.clone()));
        let mut writer = AbortOnDropHandle::new(writer);
        let end = tokio::select! {
            () = stop.cancelled() => End::Stopped,
            () = broken.cancelled() => End::Broken,
            end = Box::pin(self.read_requests(read, &replies)) => end,
        };
        drop(replies);
        // A client that is gone may have left calls that take long: do not wait for them for ever.
        let written = match timeout(stall, &mut writer).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => false,
        };
        if end != End::Closed || !written {
            self.shared.cache.lock().connection_lost(self.peer.ip(), self.peer.port());
        }
    }

    async fn read_requests(&self, read: OwnedReadHalf, replies: &UnboundedSender<Outgoing>) -> End {
        let slots = Arc::new(Semaphore::new(self.shared.options.in_flight.max(1)));
        let mut records = Records::new(read, self.shared.options.stall, self.budget.clone());
        loop {
            if slots.available_permits() == 0 {
                metrics::NFS_IN_FLIGHT_WAITS.inc();
            }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return End::Broken };
            let (record, reserved) = match records.next().await {
                Ok(Some(record)) => record,
                Ok(None) => return End::Closed,
                Err(error) => return self.unreadable(&error),
            };
            self.traffic.requests.fetch_add(1, Ordering::Relaxed);
            match dispatch::read(&self.shared, self.peer, record) {
                Action::Ignore => {}
                Action::Close => return End::Broken,
                Action::Answer(bytes) => {
                    let _ = replies.send(Outgoing { bytes, _slot: slot, _reserved: reserved });
                }
                Action::Run(job) => {
                    if !self.start(job, slot, reserved, replies.clone()).await {
                        return End::Broken;
                    }
                }
            }
        }
    }

    fn unreadable(&self, error: &ReadError) -> End {
        match error {
            ReadError::Io(error) => tracing::debug!(client = %self.peer, %error, "NFS connection lost"),
            error => self.shared.bad_request(|held_back| {
                tracing::warn!(client = %self.peer, %error, held_back, "closing an NFS connection");
            }),
        }
        End::Broken
    }

    /// Hands a job to the workers, once there is memory and a place in the queue for it.
    async fn start(
        &self,
        job: Box<Job>,
        slot: OwnedSemaphorePermit,
        reserved: Option<Reserved>,
        replies: UnboundedSender<Outgoing>,
    ) -> bool {
        let unstarted = Unstarted { shared: Arc::clone(&self.shared), job: Some(job) };
        let reserved = match reserved {
            Some(reserved) => Some(reserved),
            None => self.budget.reserve(unstarted.cost()).await,
        };
        let shared = Arc::clone(&self.shared);
        let traffic = Arc::clone(&self.traffic);
        let work = move || {
            let Some(mut job) = unstarted.take() else { return };
            let done = job.run(&shared);
            let answer = Answer { job, traffic, replies, slot, reserved };
            match done.settled {
                None => answer.send(&shared, done.reply, false),
                Some(settled) => {
                    let runtime = shared.runtime.clone();
                    runtime.spawn(async move {
                        settled.await;
                        answer.send(&shared, done.reply, true);
                    });
                }
            }
        };
        self.workers.submit(work).await
    }
}

/// A job that no worker has taken yet. If none ever does, copies of its call may be done.
struct Unstarted {
    shared: Arc<Shared>,
    job: Option<Box<Job>>,
}

impl Unstarted {
    fn cost(&self) -> usize {
        self.job.as_ref().map_or(0, |job| job.cost)
    }

    fn take(mut self) -> Option<Box<Job>> {
        self.job.take()
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(job) = &self.job
            && let Some(call) = job.replay
        {
            self.shared.cache.lock().abandon(call, job.peer.port());
        }
    }
}

/// Where the reply of a job goes.
struct Answer {
    job: Box<Job>,
    traffic: Arc<Traffic>,
    replies: UnboundedSender<Outgoing>,
    slot: OwnedSemaphorePermit,
    reserved: Option<Reserved>,
}

impl Answer {
    /// `settled`: it was waited for something after the call was done.
    fn send(self, shared: &Shared, bytes: Vec<u8>, settled: bool) {
        self.job.account(shared, &self.traffic, settled);
        if let Some(call) = self.job.replay {
            shared.cache.lock().finish(call, self.job.peer.port(), &bytes, shared.now());
        }
        // Fails when the connection is gone: the client asks again and finds the reply in the cache.
        let _ = self.replies.send(Outgoing { bytes, _slot: self.slot, _reserved: self.reserved });
    }
}

/// Writes replies in the order in which they come, several at once; true if all were written.
async fn write_replies(
    mut write: OwnedWriteHalf,
    mut outgoing: UnboundedReceiver<Outgoing>,
    stall: Duration,
    broken: CancellationToken,
) -> bool {
    let mut batch = Vec::with_capacity(COALESCED);
    while outgoing.recv_many(&mut batch, COALESCED).await > 0 {
        if write_batch(&mut write, &batch, stall).await.is_err() {
            broken.cancel();
            return false;
        }
        batch.clear();
    }
    write.shutdown().await.is_ok()
}

async fn write_batch(write: &mut OwnedWriteHalf, batch: &[Outgoing], stall: Duration) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|reply| IoSlice::new(&reply.bytes)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = timeout(stall, write.write_vectored(rest))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

/// Records as they come in.
struct Records {
    read: OwnedReadHalf,
    assembler: Assembler,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    stall: Duration,
    budget: Budget,
}

type Record = (Vec<u8>, Option<Reserved>);

impl Records {
    fn new(read: OwnedReadHalf, stall: Duration, budget: Budget) -> Records {
        let buffer = vec![0; READ_BUFFER].into_boxed_slice();
        Records { read, assembler: Assembler::default(), buffer, start: 0, end: 0, stall, budget }
    }

    /// The next record, with the memory reserved for it if it is large; `None` when the client closed.
    async fn next(&mut self) -> Result<Option<Record>, ReadError> {
        let mut reserved = None;
        let mut deadline = None;
        loop {
            let mut input = &self.buffer[self.start..self.end];
            let record = self.assembler.feed(&mut input)?;
            self.start = self.end - input.len();
            if let Some(record) = record {
                return Ok(Some((record, reserved)));
            }
            if reserved.is_none() && self.assembler.announced() > LARGE_RECORD {
                // The reply to a large record is small: reserved along with it.
                let bytes = ehpc_proto::record::MAX_RECORD;
                reserved = Some(self.budget.reserve(bytes).await.ok_or(ReadError::ShuttingDown)?);
            }
            let read = if self.assembler.is_between_records() {
                self.fill().await?
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.stall);
                let stalled = ReadError::Stalled(self.stall);
                timeout_at(deadline, self.fill()).await.map_err(|_| stalled)??
            };
            match read {
                Fill::More => {}
                Fill::Record(record) => return Ok(Some((record, reserved))),
                Fill::End if self.assembler.is_between_records() => return Ok(None),
                Fill::End => return Err(ReadError::Truncated),
            }
        }
    }

    /// Reads once: into the buffer, or straight into a large record.
    async fn fill(&mut self) -> Result<Fill, io::Error> {
        if let Some(body) = self.assembler.body()
            && body.missing > DIRECT
        {
            let read = self.read.read_buf(&mut body.record.limit(body.missing)).await?;
            return Ok(match self.assembler.take_complete() {
                Some(record) => Fill::Record(record),
                None if read == 0 => Fill::End,
                None => Fill::More,
            });
        }
        (self.start, self.end) = (0, 0);
        self.end = self.read.read(&mut self.buffer).await?;
        Ok(if self.end == 0 { Fill::End } else { Fill::More })
    }
}

enum Fill {
    More,
    Record(Vec<u8>),
    End,
}
