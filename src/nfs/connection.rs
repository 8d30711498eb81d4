//! One client connection, on one engine thread: what has arrived is read, quick calls are answered on the spot, and
//! all their replies leave together. What has to wait (a worker, a disk, the backup) comes back later, in any order.
//!
//! It is one hand-written future: read, answer, write, for as long as something happens, then wait for whatever comes
//! first. An idle connection holds no buffer.

use super::budget::{Budget, Reserved};
use super::dispatch::{self, Action};
use super::engine::Thread;
use super::input::{Input, Read, ReadError};
use super::job::{Job, Place, Ran};
use super::meters::Traffic;
use super::offload::{self, Outgoing};
use super::output::{Output, Segment};
use super::procedures::Promise;
use super::server::Shared;
use super::turns;
use super::workers::Workers;
use crate::observe::metrics;
use ehpc_proto::codec::Encoder;
use ehpc_proto::record::MAX_RECORD;
use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// Calls answered before the other connections of this thread are looked at.
const TURN: usize = 32;
/// The same while other clients have connections on this thread.
const SHARED_TURN: usize = 8;
/// So many bytes of a call and its reply count as one more call.
const BYTES_AS_CALL: usize = 16 * 1024;
/// Bytes of small replies after which they are sent before more calls are answered.
const SEND_AT: usize = 16 * 1024;
/// A reply that may be longer gets a buffer of its own.
const LARGE_REPLY: usize = 8 * 1024;
/// A record or reply that may be longer reserves its memory first.
const LARGE: usize = 64 * 1024;

impl Drop for Connection {
    fn drop(&mut self) {
        self.thread.turns.leave(self.peer.ip(), self.id);
    }
}

/// Something that must come before the next call, and what comes of it.
type Obstacle = Pin<Box<dyn Future<Output = Passed>>>;

enum Passed {
    /// A worker will do the call; false: there are none any more.
    Submitted(bool),
    /// Memory for the record that is arriving; `None`: shutting down.
    Memory(Option<Reserved>),
}

/// How it went on.
enum Step {
    /// Something was done: there may be more.
    On,
    /// There is more, but it is the others' turn.
    Yield,
    /// Nothing can be done until something happens.
    Wait,
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

/// A connection being served.
pub(super) struct Connection {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    thread: Rc<Thread>,
    budget: Budget,
    peer: SocketAddr,
    traffic: Arc<Traffic>,
    id: turns::Id,
    /// What this turn has taken, in calls.
    spent: usize,
    stream: TcpStream,
    input: Input,
    output: Output,
    /// Memory of the large record that is arriving.
    reserved: Option<Reserved>,
    obstacle: Option<Obstacle>,
    /// Calls that others are doing or that wait to be durable.
    elsewhere: usize,
    /// They are as many as one connection may have.
    at_limit: bool,
    finished: UnboundedReceiver<Outgoing>,
    finish: UnboundedSender<Outgoing>,
    end: Option<End>,
    /// By when the client must have taken some of the output.
    write_by: Option<Instant>,
    /// By when what is elsewhere must have come back, once reading has ended.
    end_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// A connection that was accepted.
    pub(super) fn new(
        (shared, workers, thread): (Arc<Shared>, Arc<Workers>, Rc<Thread>),
        (stream, peer): (TcpStream, SocketAddr),
        budget: Budget,
        traffic: Arc<Traffic>,
    ) -> Connection {
        let (finish, finished) = unbounded_channel();
        Connection {
            shared,
            workers,
            budget,
            peer,
            traffic,
            id: thread.turns.join(peer.ip()),
            spent: 0,
            stream,
            thread,
            input: Input::default(),
            output: Output::default(),
            reserved: None,
            obstacle: None,
            elsewhere: 0,
            at_limit: false,
            finished,
            finish,
            end: None,
            write_by: None,
            end_by: None,
            timer: None,
        }
    }

    /// Serves until the client leaves, something breaks, or `stop`; then answers what is in flight.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let in_order = {
            let mut stopped = pin!(stop.cancelled());
            poll_fn(|cx| {
                if self.end.is_none() && stopped.as_mut().poll(cx).is_ready() {
                    self.end_reading(End::Stopped);
                }
                self.poll(cx)
            })
            .await
        };
        if !in_order {
            self.shared.cache.connection_lost(self.peer.ip(), self.peer.port());
        }
    }

    /// Ready when the connection is over: true if the client closed it and has all its replies.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            self.collect(cx);
            if let Err(error) = self.write(cx) {
                tracing::debug!(client = %self.peer, %error, "NFS connection lost");
                return Poll::Ready(false);
            }
            if let Some(end) = self.end {
                self.thread.turns.release(self.id);
                if self.elsewhere > 0 || !self.output.is_empty() {
                    return self.wait(cx);
                }
                let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                return Poll::Ready(end == End::Closed && shut.is_ok());
            }
            match self.advance(cx) {
                Ok(Step::On) => {}
                Ok(Step::Wait) => return self.wait(cx),
                Ok(Step::Yield) => {
                    if let Err(error) = self.write(cx) {
                        tracing::debug!(client = %self.peer, %error, "NFS connection lost");
                        return Poll::Ready(false);
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(end) => self.end_reading(end),
            }
        }
    }

    fn end_reading(&mut self, end: End) {
        if end == End::Closed && (self.elsewhere > 0 || !self.output.is_empty()) {
            // It did not wait for these replies: it may ask for them again, from another port.
            self.shared.cache.connection_lost(self.peer.ip(), self.peer.port());
        }
        self.end = Some(end);
        self.obstacle = None;
        self.input = Input::default();
        // A client that is gone may have left calls that take long: do not wait for them for ever.
        self.end_by = Some(Instant::now() + self.shared.options.stall);
    }

    /// Takes in the replies that were made elsewhere.
    fn collect(&mut self, cx: &mut Context<'_>) {
        while self.elsewhere > 0 {
            let Poll::Ready(Some(Outgoing { bytes, reserved })) = self.finished.poll_recv(cx) else { return };
            self.elsewhere -= 1;
            self.output.push(Segment { bytes, _reserved: reserved });
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut progress = false;
        let stream = Pin::new(&mut self.stream);
        let written = self.output.poll_write(stream, cx, &self.thread.spare, &mut progress);
        if progress {
            self.write_by = None;
        }
        match written {
            Poll::Ready(done) => done,
            Poll::Pending => {
                let stall = self.shared.options.stall;
                self.write_by.get_or_insert_with(|| Instant::now() + stall);
                Ok(())
            }
        }
    }

    /// Has a turn, if there is something to do.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<Step, End> {
        let step = self.take_turn(cx);
        self.thread.turns.release(self.id);
        step
    }

    /// Answers what has arrived, or reads.
    fn take_turn(&mut self, cx: &mut Context<'_>) -> Result<Step, End> {
        if let Some(obstacle) = &mut self.obstacle {
            let Poll::Ready(passed) = obstacle.as_mut().poll(cx) else { return Ok(Step::Wait) };
            self.obstacle = None;
            match passed {
                Passed::Submitted(true) => {}
                Passed::Memory(Some(reserved)) => self.reserved = Some(reserved),
                Passed::Submitted(false) | Passed::Memory(None) => return Err(End::Broken),
            }
        }
        // A client that takes no replies is asked nothing more.
        let at_limit = self.elsewhere >= self.shared.options.in_flight.max(1);
        if at_limit && !self.at_limit {
            metrics::NFS_IN_FLIGHT_WAITS.inc();
        }
        self.at_limit = at_limit;
        if !self.output.is_empty() || at_limit {
            self.input.not_waiting();
            return Ok(Step::Wait);
        }
        if self.reserved.is_none() && self.input.announced() > LARGE {
            // The reply to a large record is small: reserved along with it.
            self.reserved = self.budget.try_reserve(MAX_RECORD);
            if self.reserved.is_none() {
                let budget = self.budget.clone();
                self.obstacle =
                    Some(Box::pin(async move { Passed::Memory(budget.reserve(MAX_RECORD).await) }));
                self.input.not_waiting();
                return Ok(Step::On);
            }
        }
        let turns = &self.thread.turns;
        if turns.contended()
            && (self.input.has_rest() || self.stream.poll_read_ready(cx).is_ready())
            && turns.poll_turn(self.peer.ip(), self.id, cx).is_pending()
        {
            self.input.not_waiting();
            return Ok(Step::Wait);
        }
        if let Some(rest) = self.input.take_rest() {
            let (used, step) = self.answer(rest.get(self.input.rest_start()..).unwrap_or_default())?;
            self.input.put_rest(rest, used);
            return Ok(step);
        }
        let stall = self.shared.options.stall;
        let thread = Rc::clone(&self.thread);
        let mut buffer = thread.buffer.borrow_mut();
        match self.input.poll_read(Pin::new(&mut self.stream), cx, &mut buffer, stall) {
            Poll::Pending => Ok(Step::Wait),
            Poll::Ready(Ok(Read::Bytes(count))) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                let (used, step) = self.answer(bytes)?;
                self.input.keep_rest(bytes.get(used..).unwrap_or_default());
                Ok(step)
            }
            Poll::Ready(Ok(Read::Part)) => Ok(Step::On),
            Poll::Ready(Ok(Read::Record(record))) => {
                drop(buffer);
                self.call(Cow::Owned(record))?;
                Ok(Step::On)
            }
            Poll::Ready(Ok(Read::End)) => Err(End::Closed),
            Poll::Ready(Err(error)) => Err(self.unreadable(&error)),
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

    /// Answers the calls in `bytes`, as many as one turn allows; how many bytes that were.
    fn answer(&mut self, bytes: &[u8]) -> Result<(usize, Step), End> {
        let mut rest = bytes;
        self.spent = 0;
        let turn = if self.thread.turns.contended() { SHARED_TURN } else { TURN };
        let step = loop {
            if rest.is_empty() {
                break Step::On;
            }
            if self.spent >= turn {
                break Step::Yield;
            }
            let may_go_on = self.obstacle.is_none()
                && self.output.gathered() < SEND_AT
                && self.elsewhere < self.shared.options.in_flight.max(1);
            if !may_go_on {
                break Step::On;
            }
            match self.input.record(&mut rest) {
                Ok(Some(record)) => self.call(record)?,
                Ok(None) => break Step::On,
                Err(error) => return Err(self.unreadable(&error.into())),
            }
        };
        Ok((bytes.len() - rest.len(), step))
    }

    fn call(&mut self, record: Cow<'_, [u8]>) -> Result<(), End> {
        self.spent += 1;
        self.traffic.asked();
        let (shared, peer) = (&self.shared, self.peer);
        let read = |out: &mut Encoder| dispatch::read(shared, peer, &record, out);
        match self.output.gather(&self.thread.spare, read) {
            Action::Answered | Action::Ignore => {
                self.reserved = None;
                Ok(())
            }
            Action::Close => Err(End::Broken),
            Action::Run(job) => {
                self.run_here(job, record);
                Ok(())
            }
        }
    }

    /// Does a call on this thread if it is quick, else leaves it to the workers.
    fn run_here(&mut self, mut job: Job, record: Cow<'_, [u8]>) {
        self.spent += job.cost / BYTES_AS_CALL;
        let mut reserved = self.reserved.take();
        if job.reply_bound > LARGE && reserved.is_none() {
            reserved = self.budget.try_reserve(job.cost);
            if reserved.is_none() {
                return self.offload(job, record.into_owned(), None);
            }
        }
        if job.reply_bound > LARGE_REPLY {
            let mut out = Encoder::new();
            *out.buffer() = self.thread.spare.of_size(job.reply_bound);
            match job.run(&self.shared, &record, &mut out, Place::Engine) {
                Ran::Done(settled) => self.done(job, out.finish(), settled, reserved),
                Ran::Blocks => {
                    self.thread.spare.give_back(out.finish());
                    self.offload(job, record.into_owned(), reserved);
                }
            }
            return;
        }
        let (shared, traffic) = (&self.shared, &self.traffic);
        let mut held = None;
        let ran = self.output.gather(&self.thread.spare, |out| {
            let start = out.len();
            let ran = job.run(shared, &record, out, Place::Engine);
            match &ran {
                Ran::Done(None) => {
                    job.finish(shared, traffic, out.as_slice().get(start..).unwrap_or_default())
                }
                Ran::Done(Some(_)) => held = Some(out.buffer().split_off(start)),
                Ran::Blocks => {}
            }
            ran
        });
        match (ran, held) {
            (Ran::Blocks, _) => self.offload(job, record.into_owned(), reserved),
            (Ran::Done(settled @ Some(_)), Some(reply)) => self.done(job, reply, settled, reserved),
            (Ran::Done(_), _) => {}
        }
    }

    /// A call was done here: its reply leaves now, or when it is settled.
    fn done(&mut self, mut job: Job, reply: Vec<u8>, settled: Option<Promise>, reserved: Option<Reserved>) {
        let Some(settled) = settled else {
            job.finish(&self.shared, &self.traffic, &reply);
            return self.output.push(Segment { bytes: reply, _reserved: reserved });
        };
        self.elsewhere += 1;
        let (shared, traffic, finish) =
            (Arc::clone(&self.shared), Arc::clone(&self.traffic), self.finish.clone());
        tokio::task::spawn_local(async move {
            let reply = job.settle(&shared, settled, reply).await;
            job.finish(&shared, &traffic, &reply);
            // Fails when the connection is gone: the client asks again and finds the reply in the cache.
            let _ = finish.send(Outgoing { bytes: reply, reserved });
        });
    }

    /// Hands a call to the workers, once there is memory and a place in their queue for it.
    fn offload(&mut self, job: Job, record: Vec<u8>, reserved: Option<Reserved>) {
        self.elsewhere += 1;
        let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
        let submitting = offload::submit(
            shared,
            workers,
            self.budget.clone(),
            (job, record, reserved),
            Arc::clone(&self.traffic),
            self.finish.clone(),
        );
        self.obstacle = Some(Box::pin(async move { Passed::Submitted(submitting.await) }));
    }

    /// Until something happens, or time is up: then the connection is over.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let read_by = if self.end.is_none() { self.input.read_by() } else { None };
        let Some(by) = [read_by, self.write_by, self.end_by].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        // The timer may be set for an earlier moment: it is moved when it goes off, and not on every call.
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= by {
                break;
            }
            timer.as_mut().reset(by);
        }
        if read_by.is_some_and(|read_by| read_by <= by) {
            let end = self.unreadable(&ReadError::Stalled(self.shared.options.stall));
            self.end_reading(end);
            // Replies that are on their way have their own time.
            return self.poll(cx);
        }
        Poll::Ready(false)
    }
}
