//! Getting a connection to a server: choice, queue, attempts, redispatch. The same for HTTP and TCP.

use super::dial::{DialOptions, Dialled, dial, no_descriptor};
use super::live::{Doing, Live};
use super::session::Client;
use super::stream::{Pieces, Stream};
use super::thread::Thread;
use super::wait::{Interrupted, until};
use crate::proxy::config::model::{Balance, Proxy, ProxyIndex};
use crate::proxy::exchange::Exchange;
use crate::proxy::state::{Backend, Choice, Slot, Wish};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Pause before the same server is tried again.
const TURN_AROUND: Duration = Duration::from_secs(1);

/// A connection to a server, and the right to it.
pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) slot: Slot,
    /// Bytes of [`Wanted::pieces`] that were sent already.
    pub(crate) sent: usize,
    /// It has served other requests before.
    pub(crate) reused: bool,
    /// The next request may have it.
    pub(crate) keep: bool,
    /// Of the server's address when it was made.
    pub(crate) generation: u32,
}

/// Why there is none: the status to answer, and how the log calls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) cause: u8,
    pub(crate) state: u8,
}

/// What is wanted.
pub(crate) struct Wanted<'w> {
    pub(crate) backend: ProxyIndex,
    pub(crate) wish: Wish,
    /// To be sent as soon as a connection begins.
    pub(crate) pieces: Pieces<'w>,
    /// A waiting connection will do (HTTP). `Some(true)`: for the first request of its client.
    pub(crate) reuse: Option<bool>,
}

/// The attempts of one exchange.
struct Attempts<'a> {
    thread: &'a Thread,
    live: &'a Live,
    client: &'a mut Client,
    proxy: &'a Proxy,
    backend: &'a Arc<Backend>,
    wanted: Wanted<'a>,
}

/// Chooses a server and connects, again and elsewhere as `retries` and `option redispatch` say.
///
/// # Errors
/// [`Failure`] when there is no server, no connection, or no client any more.
pub(crate) async fn reach(
    thread: &Thread,
    live: &Live,
    client: &mut Client,
    exchange: &mut Exchange,
    wanted: Wanted<'_>,
) -> Result<Link, Failure> {
    let none = Failure { status: 503, cause: b'S', state: b'C' };
    let proxy = thread.running.config.proxies.get(wanted.backend).ok_or(none)?;
    let backend = thread.running.proxies[wanted.backend].backend.as_ref().ok_or(none)?;
    let mut attempts = Attempts { thread, live, client, proxy, backend, wanted };
    let mut slot = attempts.assign(exchange).await?;
    loop {
        attempts.note(exchange, &slot);
        let failed = match attempts.connect(exchange, &slot).await {
            Ok(Made { stream, sent, reused, generation }) => {
                exchange.times.connected = Some(Instant::now());
                return Ok(Link { stream, slot, sent, reused, keep: false, generation });
            }
            Err(failed) => failed,
        };
        if failed.again {
            exchange.counts.retries += 1;
        }
        if exchange.counts.retries > proxy.retries || !failed.again {
            exchange.counts.retries = exchange.counts.retries.min(proxy.retries);
            slot.server().counters.connect_errors.add(1);
            backend.counters.connect_errors.add(1);
            return Err(failed.failure);
        }
        slot = attempts.again(exchange, slot, failed).await?;
    }
}

/// One attempt was good: see [`Link`].
struct Made {
    stream: Stream,
    sent: usize,
    reused: bool,
    generation: u32,
}

/// One attempt failed.
struct Failed {
    failure: Failure,
    /// It may be tried again.
    again: bool,
    /// At once: it took the whole `timeout connect` already.
    at_once: bool,
}

impl Attempts<'_> {
    fn note(&mut self, exchange: &mut Exchange, slot: &Slot) {
        exchange.route.server = Some(slot.server);
        self.live.update(|row| {
            row.backend = Some(self.wanted.backend);
            row.server = Some(slot.server);
            row.doing = Doing::Connect;
        });
    }

    /// The next attempt's server: the same after a pause, or another (`back_handle_st_cer` of HAProxy).
    async fn again(&mut self, exchange: &mut Exchange, slot: Slot, failed: Failed) -> Result<Slot, Failure> {
        let (proxy, backend) = (self.proxy, self.backend);
        let (active, _) = backend.usable();
        let in_turn =
            matches!(proxy.balance, Balance::RoundRobin | Balance::StaticRoundRobin | Balance::Random);
        let sticky = self.wanted.wish.sticky.is_some();
        if proxy.redispatch != 0
            && (self.is_turn_to_redispatch(exchange) || (!sticky && active > 1 && in_turn))
        {
            let before = slot.server;
            drop(slot);
            self.wanted.wish.sticky = None;
            self.wanted.wish.avoid = Some(before);
            // HAProxy waits before it goes to a server that may be the same.
            if !(failed.at_once || (in_turn && active > 1)) {
                self.pause().await?;
            }
            let slot = self.assign(exchange).await?;
            if slot.server != before {
                exchange.counts.redispatched = true;
                if exchange.ending.client_cookie == b'V' {
                    exchange.ending.client_cookie = b'D';
                }
                backend.servers[before].counters.redispatches.add(1);
                backend.counters.redispatches.add(1);
                return Ok(slot);
            }
            slot.server().counters.retries.add(1);
            backend.counters.retries.add(1);
            return Ok(slot);
        }
        slot.server().counters.retries.add(1);
        backend.counters.retries.add(1);
        if !failed.at_once {
            self.pause().await?;
        }
        Ok(slot)
    }

    /// `option redispatch N`: every N-th retry, or counted from the last one.
    fn is_turn_to_redispatch(&self, exchange: &Exchange) -> bool {
        let tried = i64::from(exchange.counts.retries);
        let every = match i64::from(self.proxy.redispatch) {
            after if after > 0 => after,
            after => i64::from(self.proxy.retries) + 1 + after,
        };
        tried.checked_rem(every) == Some(0)
    }

    async fn pause(&mut self) -> Result<(), Failure> {
        let connect = self.proxy.timeouts.connect.unwrap_or(TURN_AROUND);
        let pause = TURN_AROUND.min(connect);
        match self.wait::<()>(Some(pause), |_| Poll::Pending).await {
            Err(Ended::Interrupted(Interrupted::Expired)) | Ok(()) => Ok(()),
            Err(Ended::Interrupted(Interrupted::Killed)) => Err(killed(b'C')),
            Err(Ended::Aborted) => Err(Failure { status: 503, cause: b'C', state: b'C' }),
        }
    }

    /// Chooses a server, and waits for it in the queue when it must.
    async fn assign(&mut self, exchange: &mut Exchange) -> Result<Slot, Failure> {
        let nobody = Failure { status: 503, cause: b'S', state: b'C' };
        let slot = match self.backend.choose(self.wanted.wish) {
            Choice::Server(slot) => slot,
            Choice::Nobody => {
                self.backend.counters.connect_errors.add(1);
                return Err(nobody);
            }
            Choice::Full => {
                let slot = self.queue(exchange).await;
                // The time in the queue is logged also of who got nothing.
                exchange.times.dequeued = Some(Instant::now());
                slot?
            }
        };
        exchange.times.dequeued = Some(Instant::now());
        Ok(slot)
    }

    async fn queue(&mut self, exchange: &mut Exchange) -> Result<Slot, Failure> {
        self.live.update(|row| {
            row.doing = Doing::Queue;
            (row.backend, row.server) = (Some(self.wanted.backend), None);
        });
        let limit = self.proxy.timeouts.queue.or(self.proxy.timeouts.connect);
        let mut waiting = self.backend.queue(self.wanted.wish);
        let result = self.wait(limit, |context| Pin::new(&mut waiting).poll(context)).await;
        let (of_server, of_backend) = if result.is_ok() { waiting.positions() } else { waiting.give_up() };
        exchange.times.dequeued = Some(Instant::now());
        exchange.counts.server_queue += of_server;
        exchange.counts.backend_queue += of_backend;
        match result {
            Ok(Some(slot)) => Ok(slot),
            Ok(None) => Err(Failure { status: 503, cause: b'S', state: b'Q' }),
            Err(Ended::Aborted) => Err(Failure { status: 503, cause: b'C', state: b'Q' }),
            Err(Ended::Interrupted(Interrupted::Expired)) => {
                Err(Failure { status: 503, cause: b's', state: b'Q' })
            }
            Err(Ended::Interrupted(Interrupted::Killed)) => Err(killed(b'Q')),
        }
    }

    /// One attempt.
    async fn connect(&mut self, exchange: &Exchange, slot: &Slot) -> Result<Made, Failed> {
        let server = slot.server();
        if let Some(first) = self.wanted.reuse
            && let Some(made) = self.reuse(slot, first).await
        {
            server.counters.traffic.sessions.add(1);
            server.counters.reused.add(1);
            self.backend.counters.reused.add(1);
            return Ok(made);
        }
        server.counters.connects.add(1);
        self.backend.counters.connects.add(1);
        let mut dialled = self.dial(exchange, slot);
        if dialled.as_ref().is_err_and(no_descriptor) && self.thread.idle.clear() {
            dialled = self.dial(exchange, slot);
        }
        let (dialled, generation) = dialled.map_err(|error| failed(&error))?;
        // As HAProxy: who could not even begin to connect has not come.
        server.counters.traffic.sessions.add(1);
        let mut stream = Stream::new(dialled.fd, dialled.unix).map_err(|error| failed(&error))?;
        if self.proxy.options.nolinger {
            stream.no_linger();
        }
        if let Some(sent) = dialled.sent {
            if sent > 0 {
                stream.has_sent();
            }
            return Ok(Made { stream, sent, reused: false, generation });
        }
        let limit = self.proxy.timeouts.connect;
        match self.wait(limit, |context| stream.poll_connected(context)).await {
            Ok(Ok(())) => Ok(Made { stream, sent: 0, reused: false, generation }),
            Ok(Err(error)) => Err(failed(&error)),
            // Nobody is there to be answered.
            Err(Ended::Aborted) => Err(last(Failure { status: 0, cause: b'C', state: b'C' })),
            Err(Ended::Interrupted(Interrupted::Killed)) => Err(last(killed(b'C'))),
            Err(Ended::Interrupted(Interrupted::Expired)) => Err(Failed {
                failure: Failure { status: 503, cause: b's', state: b'C' },
                again: true,
                at_once: true,
            }),
        }
    }

    /// Begins a connection, and the generation of the address that it goes to.
    fn dial(&self, exchange: &Exchange, slot: &Slot) -> io::Result<(Dialled, u32)> {
        let settings = self.proxy.servers.get(slot.server);
        let options = DialOptions {
            keepalive: self.proxy.options.tcpka_server,
            user_timeout: settings.and_then(|settings| settings.tcp_user_timeout),
        };
        let address = slot.server().address.read();
        let generation = slot.server().generation();
        let dialled = dial(&address, exchange.session.local, options, self.wanted.pieces)?;
        Ok((dialled, generation))
    }

    /// A waiting connection that takes the request.
    async fn reuse(&mut self, slot: &Slot, first: bool) -> Option<Made> {
        let generation = slot.server().generation();
        let place = (self.wanted.backend, slot.server);
        loop {
            let mut stream = self.thread.idle.take(place, generation, self.proxy.reuse, first)?.stream;
            let pieces = self.wanted.pieces;
            let sent = std::future::poll_fn(|context| match stream.poll_write(context, pieces) {
                Poll::Ready(result) => Poll::Ready(result),
                // An idle connection has room; the caller sends the rest.
                Poll::Pending => Poll::Ready(Ok(0)),
            });
            // One that failed was closed at this moment: nothing was sent, take the next.
            if let Ok(sent) = sent.await {
                return Some(Made { stream, sent, reused: true, generation });
            }
        }
    }

    /// Waits for `poll`, at most `limit`, as long as the client is there.
    async fn wait<T>(
        &mut self,
        limit: Option<Duration>,
        mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>,
    ) -> Result<T, Ended> {
        let Client { deadline, .. } = &mut *self.client;
        deadline.set_after(Instant::now(), limit);
        let mut deadline = std::mem::take(deadline);
        let (client, buffers) = (&mut *self.client, &self.thread.buffers);
        let abort_when_closed = self.proxy.options.abortonclose;
        let tcp = self.wanted.reuse.is_none();
        let result = until(&mut deadline, self.live, |context, _| {
            if let Poll::Ready(value) = poll(context) {
                return Poll::Ready(Ok(value));
            }
            if !abort_when_closed && !tcp {
                return Poll::Pending;
            }
            client.watch(context, buffers);
            let closed = client.ended && (abort_when_closed || (tcp && client.input.is_none()));
            if client.broken || closed { Poll::Ready(Err(Ended::Aborted)) } else { Poll::Pending }
        })
        .await;
        self.client.deadline = deadline;
        match result {
            Ok(result) => result,
            Err(interrupted) => Err(Ended::Interrupted(interrupted)),
        }
    }
}

enum Ended {
    Interrupted(Interrupted),
    Aborted,
}

fn killed(state: u8) -> Failure {
    Failure { status: 503, cause: b'K', state }
}

fn last(failure: Failure) -> Failed {
    Failed { failure, again: false, at_once: true }
}

/// What an error of connect(2) means.
fn failed(error: &io::Error) -> Failed {
    use rustix::io::Errno;
    let resource = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let is = |errno: &Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if resource.iter().any(is) {
        return last(Failure { status: 503, cause: b'R', state: b'C' });
    }
    Failed { failure: Failure { status: 503, cause: b'S', state: b'C' }, again: true, at_once: false }
}
