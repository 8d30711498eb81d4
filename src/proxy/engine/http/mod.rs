//! HTTP/1 connections of clients: request after request, each with its answer.
//!
//! ```text
//! serve      waits for the next request, holding nothing; a box for each exchange
//!   head     reads the request's head
//!   request  what the file says to do with it: rules, backend, server wanted, fields added
//!   forward  to a server and back: request body and answer at the same time (body: one direction)
//!   answer   what the proxy says itself
//!   service  statistics page, exporter
//!   finish   log line, counters
//! ```

mod answer;
mod body;
mod finish;
mod forward;
mod head;
mod relay;
mod request;
mod response;
mod service;

use super::buffer::Buffer;
use super::live::{Doing, Live};
use super::session::Client;
use super::thread::Thread;
use super::wait::until;
use crate::proxy::config::model::{ConnectionMode, Proxy};
use crate::proxy::exchange::{Exchange, Session};
use ehpc_proto::http1;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

/// How long an idle connection has for one more request when the process stops: a client that sends it at this moment
/// must not find its connection closed.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long is read from a client after its answer, so that closing does not destroy what it has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// What is at hand during one exchange.
struct At<'r> {
    thread: &'r Thread,
    live: &'r Live,
    frontend: &'r Proxy,
    client: &'r mut Client,
    exchange: &'r mut Exchange,
    /// `HTTP/1` connection rules of frontend and backend together.
    mode: http1::Mode,
    /// Bytes as HAProxy counts them: heads weigh what their parts weigh.
    bytes_in: u64,
    bytes_out: u64,
    /// `option logasap`: its line has been sent.
    logged: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// It may send another request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed after what it is still sending was read, for a while.
    Linger,
}

/// The life of an HTTP session; whether its client may still be sending when it ends ([`linger`]).
pub(crate) fn serve<'s>(
    thread: &'s Thread,
    live: &'s Live,
    frontend: &'s Proxy,
    client: &'s mut Client,
    session: &'s mut Session,
) -> impl Future<Output = bool> + 's {
    let mut first = true;
    async move {
        loop {
            if client.input.is_none() {
                live.doing(if first { Doing::Request } else { Doing::Idle });
                if !arrive(thread, live, frontend, client, session, first).await {
                    if !first {
                        return false;
                    }
                    let next = Box::pin(finish::nothing_came(thread, live, frontend, client, session)).await;
                    return next == Next::Linger && !client.ended;
                }
            }
            let next = Box::pin(one(thread, live, frontend, client, session, first)).await;
            match next {
                Next::Keep => first = false,
                Next::Close => return false,
                Next::Linger => return true,
            }
        }
    }
}

/// Waits for the first byte of a request. `false`: none came.
fn arrive<'s>(
    thread: &'s Thread,
    live: &'s Live,
    frontend: &Proxy,
    client: &'s mut Client,
    session: &Session,
    first: bool,
) -> impl Future<Output = bool> + use<'s> {
    let timeouts = &frontend.timeouts;
    let patience = match first {
        true => shorter(timeouts.client, timeouts.http_request),
        false => shorter(timeouts.client, timeouts.http_keep_alive.or(timeouts.http_request)),
    };
    let since = if first { session.accepted_at } else { Instant::now() };
    let Client { stream, input, deadline, ended, .. } = client;
    deadline.set_after(since, patience);
    let mut told = first;
    let arrived = until(deadline, live, move |context, deadline| {
        let mut buffer = thread.buffers.take();
        let read = stream.poll_read(context, buffer.room(1));
        if let Poll::Ready(Ok(count)) = &read {
            buffer.fill(*count);
            *ended = *count == 0;
        }
        if buffer.is_empty() {
            thread.buffers.give(buffer);
        } else {
            *input = Some(buffer);
        }
        if read.is_pending() && !told && thread.stopping.get() {
            told = true;
            let soon = Instant::now() + LAST_CHANCE;
            deadline.set(Some(deadline.at().map_or(soon, |at| at.min(soon))));
        }
        read
    });
    async move { matches!(arrived.await, Ok(Ok(count)) if count > 0) }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// One request and its answer.
async fn one(
    thread: &Thread,
    live: &Live,
    frontend: &Proxy,
    client: &mut Client,
    session: &mut Session,
    first: bool,
) -> Next {
    live.update(|row| {
        row.doing = Doing::Request;
        row.requests += 1;
        (row.backend, row.server) = (None, None);
    });
    let (now, now_at) = (SystemTime::now(), Instant::now());
    let mut exchange = thread.take_exchange(session, now, now_at);
    std::mem::swap(session, &mut exchange.session);
    exchange.first = first;
    if first {
        exchange.times.idle = now_at.saturating_duration_since(exchange.session.accepted_at);
    }
    let mut at = At::new(thread, live, frontend, client, &mut exchange);
    let next = at.serve().await;
    // No server serves it any more: what ends a server's sessions does not mean this one.
    live.update(|row| (row.backend, row.server) = (None, None));
    std::mem::swap(session, &mut exchange.session);
    thread.give_exchange(exchange);
    next
}

impl<'r> At<'r> {
    fn new(
        thread: &'r Thread,
        live: &'r Live,
        frontend: &'r Proxy,
        client: &'r mut Client,
        exchange: &'r mut Exchange,
    ) -> At<'r> {
        At {
            thread,
            live,
            frontend,
            client,
            exchange,
            mode: mode(frontend.connection, frontend.connection),
            bytes_in: 0,
            bytes_out: 0,
            logged: false,
        }
    }

    async fn serve(&mut self) -> Next {
        let parsed = match head::read(self).await {
            Ok(parsed) => parsed,
            Err(refused) => return finish::refuse(self, refused).await,
        };
        if !request::admit(self) {
            finish::record(self);
            return Next::Close;
        }
        self.exchange.number = self.thread.running.requests.fetch_add(1, Ordering::Relaxed);
        finish::count_request(self);
        let next = match request::decide(self) {
            request::Decision::Answer(answer) => answer::send(self, answer, &parsed).await,
            request::Decision::Forward(backend) => forward::run(self, backend, parsed).await,
            request::Decision::Tarpit(answer, time) => answer::tarpit(self, answer, time, &parsed).await,
            request::Decision::Statistics(section) => service::statistics(self, section, parsed).await,
            request::Decision::Prometheus => service::metrics(self, &parsed).await,
            request::Decision::Close => Next::Close,
            request::Decision::Monitor => return answer::monitor(self, &parsed).await,
        };
        finish::record(self);
        next
    }
}

/// The stricter of two sections' modes.
fn mode(frontend: ConnectionMode, backend: ConnectionMode) -> http1::Mode {
    match (frontend, backend) {
        (ConnectionMode::Close, _) | (_, ConnectionMode::Close) => http1::Mode::Close,
        (ConnectionMode::ServerClose, _) | (_, ConnectionMode::ServerClose) => http1::Mode::ServerClose,
        _ => http1::Mode::KeepAlive,
    }
}

/// Tells the client that nothing more comes, and reads what it is still sending: closing at once would make the kernel
/// reset the connection, and take back what the client has not read.
pub(crate) async fn linger(thread: &Thread, live: &Live, client: &mut Client) {
    client.stream.shut_write();
    let Client { stream, deadline, .. } = client;
    deadline.set_after(Instant::now(), Some(LINGER));
    let _ = until(deadline, live, |context, _| {
        let mut buffer = thread.buffers.take();
        let over = loop {
            match stream.poll_read(context, buffer.room(1)) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => break true,
                Poll::Pending => break false,
            }
        };
        thread.buffers.give(buffer);
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What was received of a message so far.
fn received(input: &Option<Buffer>) -> &[u8] {
    input.as_ref().map_or(&[], Buffer::data)
}
