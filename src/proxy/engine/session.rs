//! A client's connection, from its acceptance to its end.

use super::accept::Passes;
use super::buffer::{Buffer, Buffers};
use super::deadline::Deadline;
use super::fault::Witness;
use super::live::{Doing, Member, SessionRow};
use super::stream::Stream;
use super::thread::Thread;
use super::{http, tcp};
use crate::proxy::config::model::{Mode, Proxy};
use crate::proxy::exchange::{Exchange, Session};
use crate::proxy::rules::{self, Verdict};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Bytes that a client may send ahead of their turn.
const AHEAD: usize = 16 * 1024;

/// The client's side of a session.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// Received and not yet looked at.
    pub(crate) input: Option<Buffer>,
    /// It will send no more.
    pub(crate) ended: bool,
    /// Its connection is gone.
    pub(crate) broken: bool,
    /// The one timer of the session.
    pub(crate) deadline: Deadline,
}

impl Client {
    /// Nothing was received yet.
    pub(crate) fn new(stream: Stream) -> Client {
        Client { stream, input: None, ended: false, broken: false, deadline: Deadline::default() }
    }

    /// Looks whether the client sends more, or has gone, while something else is waited for. Never ready: it only makes
    /// sure that the task is woken.
    pub(crate) fn watch(&mut self, context: &mut Context<'_>, buffers: &Buffers) {
        while !self.ended && !self.broken && self.input.as_ref().is_none_or(|input| input.len() < AHEAD) {
            let mut buffer = match self.input.take() {
                Some(input) => input,
                None => buffers.take(),
            };
            let room = buffer.room(1);
            let most = room.len().min(AHEAD);
            let read = self.stream.poll_read(context, &mut room[..most]);
            match read {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(count)) => buffer.fill(count),
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => {}
            }
            self.input = buffers.park(buffer);
            if read.is_pending() {
                return;
            }
        }
    }
}

/// The life of a session.
#[allow(clippy::manual_async_fn)] // keeps its arguments twice, and this is what every idle connection costs
pub(crate) fn serve(
    thread: Rc<Thread>,
    mut client: Client,
    mut session: Session,
    mut passes: Passes,
) -> impl Future<Output = ()> {
    let member = join(&thread, &session);
    async move {
        let running = &thread.running;
        let Some(proxy) = running.config.proxies.get(session.frontend) else { return };
        let _witness = Witness { thread: &thread, live: member.live.clone() };
        poll_fn(|context| {
            member.live.note_waker(context);
            Poll::Ready(())
        })
        .await;
        prepare(proxy, &client.stream);
        if !admit(&thread, proxy, &mut session) {
            return;
        }
        let arrival = super::record::Arrival::new(&thread, &session);
        let linger = match proxy.mode {
            Mode::Tcp => {
                Box::pin(tcp::serve(&thread, &member.live, proxy, &mut client, &session)).await;
                false
            }
            Mode::Http => http::serve(&thread, &member.live, proxy, &mut client, &mut session).await,
        };
        drop(arrival);
        if linger {
            // What is left is a courtesy. It costs the process a descriptor, but its section nothing.
            passes.leave_section();
            Box::pin(http::linger(&thread, &member.live, &mut client)).await;
        }
    }
}

fn join(thread: &Rc<Thread>, session: &Session) -> Member {
    let row = SessionRow {
        number: session.number,
        thread: thread.index,
        client: session.client,
        frontend: session.frontend,
        backend: None,
        server: None,
        accepted_at: session.accepted_at,
        doing: Doing::Request,
        requests: 0,
    };
    Member::join(Rc::clone(thread), row)
}

/// Socket options of a client's connection.
fn prepare(proxy: &Proxy, stream: &Stream) {
    if proxy.options.tcpka_client {
        // Fails on a socket that is gone; the first read will say so.
        let _ = rustix::net::sockopt::set_socket_keepalive(stream.fd(), true);
    }
    if proxy.options.nolinger {
        stream.no_linger();
    }
}

/// Counts the connection and asks the `tcp-request connection` rules: whether it may stay.
fn admit(thread: &Thread, proxy: &Proxy, session: &mut Session) -> bool {
    let frontend = thread.running.proxies[session.frontend].frontend.as_ref();
    let Some(counters) = frontend.map(|one| &one.counters) else { return false };
    counters.connections.add(1);
    if proxy.tcp_request.iter().any(|rule| rule.of_connection()) {
        let mut exchange = Exchange::new(session.clone(), session.accepted, session.accepted_at);
        let verdict = rules::tcp(&proxy.tcp_request, true, &mut exchange, &thread.running);
        *session = exchange.session;
        if !matches!(verdict, Verdict::Continue) {
            counters.denied_connections.add(1);
            return false;
        }
    }
    counters.traffic.sessions.add(1);
    true
}
