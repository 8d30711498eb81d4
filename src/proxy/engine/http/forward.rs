//! A request to a server, and its answer back.

use super::body::{Half, Torn};
use super::response::{self, Instead};
use super::{At, Next, answer, head, mode};
use crate::proxy::config::model::{Proxy, ProxyIndex, Reuse};
use crate::proxy::engine::buffer::Buffer;
use crate::proxy::engine::deadline::Deadline;
use crate::proxy::engine::live::Doing;
use crate::proxy::engine::persist::{self, Persistence};
use crate::proxy::engine::record::{self, Presence};
use crate::proxy::engine::server::{Failure, Link, Wanted, reach};
use crate::proxy::engine::session::Client;
use crate::proxy::engine::tunnel::Party;
use crate::proxy::engine::wait::{Interrupted, until};
use ehpc_proto::http1::{self, Asked, BadMessage, Framing, ParsedRequest, ParsedResponse, ResponseParser};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// So many waiting connections of a server a thread may always keep.
const FEW_IDLE: usize = 32;

/// An exchange that has reached a server.
pub(super) struct Forward<'f, 'r> {
    pub(super) at: &'f mut At<'r>,
    pub(super) settings: &'r Proxy,
    pub(super) backend: ProxyIndex,
    pub(super) persistence: Persistence,
    pub(super) parsed: &'f ParsedRequest,
    /// The request.
    pub(super) up: Half,
    /// The server takes no more of it.
    pub(super) up_dead: bool,
    pub(super) link: Link,
    /// Received from the server, not yet looked at.
    pub(super) input: Option<Buffer>,
    /// When either side last sent or took something.
    pub(super) active: Instant,
}

/// Why there is no answer.
pub(super) enum Trouble {
    /// A waiting connection turned out to be closed: nothing was lost, try again.
    Stale,
    Failed(Failure),
}

/// Sends a request to a server of `backend` and its answer to the client.
pub(super) async fn run(at: &mut At<'_>, backend: ProxyIndex, parsed: ParsedRequest) -> Next {
    let none = Failure { status: 503, cause: b'S', state: b'C' };
    let Some(settings) = at.thread.running.config.proxies.get(backend) else {
        return answer::fail(at, none, &parsed).await;
    };
    at.mode = mode(at.frontend.connection, settings.connection);
    let presence = Presence::new(at.thread, backend);
    let persistence = persist::of_request(at.thread, backend, at.exchange);
    let wish = persistence.wish;
    let asked = Asked::new(&at.exchange.request, &parsed);
    let framing = http1::prepare_request(&mut at.exchange.request, &parsed, at.mode);
    let mut reuse = true;
    let next = loop {
        let up = match upload(at, &parsed, framing) {
            Ok(up) => up,
            Err(bad) => {
                let failure = Failure { status: bad.status(), cause: b'P', state: b'R' };
                break answer::fail(at, failure, &parsed).await;
            }
        };
        let first_request = at.exchange.first || !reuse;
        let wanted = Wanted { backend, wish, pieces: up.ready(), reuse: Some(first_request) };
        let link = match reach(at.thread, at.live, at.client, at.exchange, wanted).await {
            Ok(link) => link,
            Err(failure) => {
                let mut up = up;
                up.release(&at.thread.buffers);
                break answer::fail(at, failure, &parsed).await;
            }
        };
        let active = at.exchange.times.connected.unwrap_or_else(Instant::now);
        let parsed = &parsed;
        let mut forward = Forward {
            at,
            settings,
            backend,
            persistence,
            parsed,
            up,
            up_dead: false,
            link,
            input: None,
            active,
        };
        forward.up.note_sent(forward.link.sent);
        match forward.answer_head(asked).await {
            Ok(head) => {
                let next = forward.relay(head).await;
                forward.release();
                let Link { stream, slot, reused, keep, generation, .. } = forward.link;
                if keep && settings.reuse != Reuse::Never {
                    let most = at.thread.most_under_way().max(FEW_IDLE);
                    at.thread.idle.give((backend, slot.server), generation, stream, reused, most);
                }
                break next;
            }
            Err(Trouble::Stale) => {
                forward.release();
                reuse = false;
            }
            Err(Trouble::Failed(failure)) => {
                forward.release();
                drop(forward);
                let killed = failure.cause == b'K';
                if killed {
                    at.live.is_ending();
                }
                let next = answer::fail(at, failure, parsed).await;
                break if killed && next == Next::Keep { Next::Close } else { next };
            }
        }
    };
    drop(presence);
    next
}

/// The request as it will be sent, its body framed as `outgoing`, with what has come of its body.
///
/// # Errors
/// What has come of the body breaks the rules.
fn upload(at: &mut At<'_>, parsed: &ParsedRequest, outgoing: Framing) -> Result<Half, BadMessage> {
    let mut text = at.thread.buffers.take_text();
    http1::write_request(&at.exchange.request, &mut text);
    let held = if parsed.framing.is_empty() { None } else { at.client.input.take() };
    let mut up = Half::new(Party::Client, text, parsed.framing, outgoing, held);
    match up.prime() {
        Err(Torn::Bad(bad)) => {
            up.release(&at.thread.buffers);
            Err(bad)
        }
        _ => Ok(up),
    }
}

impl Forward<'_, '_> {
    /// Sends the request and waits for the head of the final answer.
    async fn answer_head(&mut self, asked: Asked) -> Result<ParsedResponse, Trouble> {
        // What came while a connection was made is body, or the next request, which stays where it is.
        if !self.up.complete
            && let Some(more) = self.at.client.input.take()
        {
            self.up.append(more, &self.at.thread.buffers);
        }
        self.at.live.doing(Doing::Response);
        let client = http1::Client::new(self.at.exchange.request.version, self.parsed, self.at.mode);
        loop {
            let parsed = self.one_head(asked).await?;
            if let Some(input) = &mut self.input {
                input.consume(parsed.head_len);
            }
            if !parsed.interim {
                return Ok(parsed);
            }
            self.at.bytes_out += head::weight_of_response(&self.at.exchange.response);
            if client.takes_interim() {
                http1::prepare_response(&mut self.at.exchange.response, &parsed, client);
                let mut text = self.at.thread.buffers.take_text();
                http1::write_response(&self.at.exchange.response, &mut text);
                let sent = answer::write(self.at, &text, &[]).await;
                self.at.thread.buffers.give_text(text);
                if !sent {
                    return Err(Trouble::Failed(Failure { status: 0, cause: b'C', state: b'H' }));
                }
            }
            self.at.exchange.response.clear();
            // Others have their turn, however many of these there are.
            tokio::task::yield_now().await;
        }
    }

    /// One head, interim or final; the request goes on meanwhile.
    async fn one_head(&mut self, asked: Asked) -> Result<ParsedResponse, Trouble> {
        let limits = head::limits(self.at);
        let lenient = self.settings.options.accept_invalid_response;
        let mut parser = ResponseParser::default();
        let mut deadline = std::mem::take(&mut self.at.client.deadline);
        let mut blame = Party::Server;
        let live = self.at.live;
        let result = until(&mut deadline, live, |context, deadline| {
            if let Poll::Ready(Err(trouble)) = self.send_request(context) {
                return Poll::Ready(Err(trouble));
            }
            loop {
                if let Some(input) = &self.input {
                    let response = &mut self.at.exchange.response;
                    match parser.parse(input.data(), &limits, lenient, asked, response) {
                        Ok(Some(parsed)) => return Poll::Ready(Ok(parsed)),
                        Ok(None) => {}
                        Err(bad) => {
                            let refused = record::refused(self.at.exchange, input.data(), bad);
                            self.at.thread.running.errors.note_response(self.backend, refused);
                            return Poll::Ready(Err(Trouble::Failed(self.failed(502, b'P'))));
                        }
                    }
                }
                match self.receive(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(trouble)) => return Poll::Ready(Err(trouble)),
                    Poll::Pending => break,
                }
            }
            // As long as there is more of the request to come, the upload itself reads.
            if self.settings.options.abortonclose && self.up.complete {
                self.at.client.watch(context, &self.at.thread.buffers);
                if self.at.client.broken {
                    return Poll::Ready(Err(self.aborted(b'D')));
                }
                if self.at.client.ended {
                    self.count_client_abort();
                    let failure = Failure { status: 400, cause: b'C', state: b'H' };
                    return Poll::Ready(Err(Trouble::Failed(failure)));
                }
            }
            blame = self.set_deadline(deadline);
            Poll::Pending
        })
        .await;
        self.at.client.deadline = deadline;
        match result {
            Ok(result) => result,
            // As HAProxy: who has sent its request whole is answered.
            Err(Interrupted::Killed) => {
                let status = if self.up.sent { 502 } else { 0 };
                Err(Trouble::Failed(Failure { status, cause: b'K', state: b'H' }))
            }
            Err(Interrupted::Expired) if blame == Party::Server => {
                Err(Trouble::Failed(self.failed(504, b's')))
            }
            Err(Interrupted::Expired) => {
                Err(Trouble::Failed(Failure { status: 408, cause: b'c', state: b'H' }))
            }
        }
    }

    /// Sends what can be sent of the request.
    fn send_request(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        if self.up.sent || self.up_dead {
            return Poll::Ready(Ok(()));
        }
        let before = self.up.moves;
        let Client { stream, .. } = &mut *self.at.client;
        let moved = self.up.poll(context, stream, &mut self.link.stream, &self.at.thread.buffers);
        if before != self.up.moves {
            self.active = Instant::now();
        }
        match moved {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            // It may have answered before it stopped to listen.
            Poll::Ready(Err(Torn::Receiver)) => {
                self.up_dead = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(Torn::Sender | Torn::Short)) => Poll::Ready(Err(self.aborted(b'D'))),
            Poll::Ready(Err(Torn::Bad(bad))) => {
                Poll::Ready(Err(Trouble::Failed(Failure { status: bad.status(), cause: b'P', state: b'D' })))
            }
        }
    }

    /// Reads from the server.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let buffers = &self.at.thread.buffers;
        let mut buffer = self.input.take().unwrap_or_else(|| buffers.take());
        let read = self.link.stream.poll_read(context, buffer.room(4096));
        if let Poll::Ready(Ok(count)) = &read {
            buffer.fill(*count);
        }
        self.input = buffers.park(buffer);
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Ok(())),
            Poll::Ready(_) if self.may_repeat() => Poll::Ready(Err(Trouble::Stale)),
            Poll::Ready(_) => Poll::Ready(Err(Trouble::Failed(self.failed(502, b'S')))),
        }
    }

    /// A waiting connection was closed by its server when the request was on its way: it can be sent again if it had
    /// no body and means the same twice (RFC 9110 section 9.2.2).
    fn may_repeat(&self) -> bool {
        self.link.reused
            && self.input.is_none()
            && self.parsed.framing.is_empty()
            && self.at.exchange.request.method.is_idempotent()
    }

    /// Until when, and who has to do something.
    fn set_deadline(&self, deadline: &mut Deadline) -> Party {
        let after = |timeout: Option<Duration>| timeout.map(|timeout| self.active + timeout);
        let server = after(self.settings.timeouts.server);
        let uploading = !self.up.sent && !self.up_dead && self.up.waits_for() == Party::Client;
        let client = after(self.at.frontend.timeouts.client).filter(|_| uploading);
        let first = match (server, client) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        deadline.set(first);
        if client.is_some() && first == client { Party::Client } else { Party::Server }
    }

    /// The server failed.
    pub(super) fn failed(&self, status: u16, cause: u8) -> Failure {
        let concerned = record::concerned(self.at.thread, self.at.exchange);
        concerned.backend.inspect(|one| one.response_errors.add(1));
        concerned.server.inspect(|one| one.response_errors.add(1));
        Failure { status, cause, state: b'H' }
    }

    /// The client has gone: nothing is answered.
    fn aborted(&self, state: u8) -> Trouble {
        self.count_client_abort();
        Trouble::Failed(Failure { status: 0, cause: b'C', state })
    }

    pub(super) fn count_client_abort(&self) {
        let concerned = record::concerned(self.at.thread, self.at.exchange);
        concerned.backend.inspect(|one| one.client_aborts.add(1));
        concerned.server.inspect(|one| one.client_aborts.add(1));
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        self.up.release(&self.at.thread.buffers);
        if let Some(input) = self.input.take() {
            self.at.thread.buffers.give(input);
        }
    }

    /// The head of the answer is there: what the file says of it, then both bodies.
    async fn relay(&mut self, parsed: ParsedResponse) -> Next {
        self.at.exchange.times.response_head = Some(Instant::now());
        self.at.bytes_out += head::weight_of_response(&self.at.exchange.response);
        let same = self.backend == self.at.exchange.session.frontend;
        if let Err(instead) = response::decide(self.at, self.settings, same) {
            self.release();
            // HAProxy counts no response from the server then (%Tr).
            self.at.exchange.times.response_head = None;
            response::count_replaced(self.at, &instead);
            let Instead::Answer(reply) = instead else { return Next::Close };
            if self.at.exchange.ending.cause == b'-' {
                answer::note(self.at.exchange, b'P', b'H');
            }
            return answer::send(self.at, reply, self.parsed).await;
        }
        persist::into_answer(self.at.thread, self.backend, self.at.exchange, self.persistence);
        response::after(self.at);
        self.at.live.doing(Doing::Data);
        let mut client = http1::Client::new(self.at.exchange.request.version, self.parsed, self.at.mode);
        client.keep_alive &= !self.at.thread.stopping.get() && !self.up_dead;
        let outgoing = http1::prepare_response(&mut self.at.exchange.response, &parsed, client);
        let mut text = self.at.thread.buffers.take_text();
        http1::write_response(&self.at.exchange.response, &mut text);
        if self.at.frontend.options.logasap {
            self.at.exchange.counts.bytes_out = self.at.bytes_out;
            record::note_active(self.at.thread, self.at.exchange);
            record::log(self.at.thread, self.at.frontend, self.at.exchange);
            self.at.logged = true;
        }
        if parsed.tunnel {
            // Rare, and large: it has a box of its own.
            return Box::pin(self.tunnel(text)).await;
        }
        self.bodies(parsed, outgoing, text).await
    }
}
