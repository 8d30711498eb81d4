//! What the proxy answers itself.

use super::{At, Next, head};
use crate::proxy::config::model::ConnectionMode;
use crate::proxy::engine::server::Failure;
use crate::proxy::engine::session::Client;
use crate::proxy::engine::wait::until;
use crate::proxy::exchange::{Ending, Exchange};
use crate::proxy::rules::{Reply, ReplyBody};
use ehpc_proto::http1::{self, Framing, ParsedRequest, ParsedResponse};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Sends a reply to a request that was read.
pub(super) async fn send(at: &mut At<'_>, reply: Box<Reply>, parsed: &ParsedRequest) -> Next {
    // Its body has not been read: the next request cannot be found behind it.
    let unread = !parsed.framing.is_empty();
    let keep = parsed.keep_alive && at.mode != http1::Mode::Close && !unread && !at.thread.stopping.get();
    let without_body = at.exchange.received_method() == b"HEAD";
    let version = at.exchange.request.version;
    let client = http1::Client { version, keep_alive: keep };
    let keep = match *reply {
        Reply::File { status, content } => {
            at.exchange.response.clear();
            match file(at, &content) {
                Some(mut parsed) => {
                    parsed.to_head = without_body;
                    let body = if without_body { &[] } else { &content[parsed.head_len..] };
                    let last = closes(&content);
                    // HAProxy weighs that field, unless the frontend keeps connections to servers.
                    let weighed = last && at.frontend.connection != ConnectionMode::KeepAlive;
                    at.bytes_out += if weighed { b"connectionclose".len() as u64 } else { 0 };
                    let client = http1::Client { keep_alive: keep && !last, ..client };
                    let keep = message(at, body, &parsed, client).await;
                    // The log tells the error, whatever the file says.
                    at.exchange.response.status = status;
                    keep
                }
                None => {
                    at.exchange.response.status = status;
                    write(at, &content, &[]).await;
                    at.bytes_out += content.len() as u64;
                    false
                }
            }
        }
        Reply::Message { head, body } => {
            at.exchange.response = *head;
            let parsed = made(&body, without_body);
            let body: &[u8] = if without_body { &[] } else { &body };
            message(at, body, &parsed, client).await
        }
    };
    let next = match (keep, parsed.keep_alive || unread) {
        (true, _) => Next::Keep,
        (false, true) => Next::Linger,
        (false, false) => Next::Close,
    };
    at.exchange.times.ended = Some(Instant::now());
    next
}

/// Lets the client wait before it is answered (`http-request tarpit`), as long as it stays. As HAProxy: the answer is
/// said also to one that has gone.
pub(super) async fn tarpit(
    at: &mut At<'_>,
    reply: Box<Reply>,
    time: Duration,
    parsed: &ParsedRequest,
) -> Next {
    at.client.deadline.set_after(Instant::now(), Some(time));
    {
        let Client { stream, deadline, .. } = &mut *at.client;
        // Nothing is read meanwhile: what it sends would fill memory, or have to be thrown away as fast as it comes.
        let mut left = pin!(stream.left());
        let _ = until(deadline, at.live, |context, _| left.as_mut().poll(context)).await;
    }
    send(at, reply, parsed).await
}

/// Reads an error file's head as if a server had sent it. `None`: it is no response, and is sent as it is.
fn file(at: &mut At<'_>, content: &[u8]) -> Option<ParsedResponse> {
    let limits = head::limits(at);
    let head = &mut at.exchange.response;
    http1::parse_response(content, &limits, true, http1::Asked::default(), head).ok().flatten()
}

/// An error file that says `Connection: close` is the last answer, as with HAProxy; its version says nothing.
fn closes(content: &[u8]) -> bool {
    let head =
        content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).take_while(|line| !line.is_empty());
    head.filter_map(|line| line.split_at_checked(b"connection:".len())).any(|(name, value)| {
        name.eq_ignore_ascii_case(b"connection:") && value.trim_ascii().eq_ignore_ascii_case(b"close")
    })
}

/// What is known of an answer that is made here.
fn made(body: &ReplyBody, to_head: bool) -> ParsedResponse {
    ParsedResponse {
        head_len: 0,
        framing: Framing::Length(body.len() as u64),
        keep_alive: true,
        interim: false,
        tunnel: false,
        upgrade: false,
        to_head,
    }
}

/// Sends `at.exchange.response` and a body; whether the connection lives on.
async fn message(at: &mut At<'_>, body: &[u8], parsed: &ParsedResponse, client: http1::Client) -> bool {
    super::response::after(at);
    at.bytes_out += head::weight_of_response(&at.exchange.response) + body.len() as u64;
    let outgoing = http1::prepare_response(&mut at.exchange.response, parsed, client);
    let mut text = at.thread.buffers.take_text();
    http1::write_response(&at.exchange.response, &mut text);
    let body = match outgoing.framing {
        Framing::None => &[],
        // A rule took the length away.
        Framing::Chunked => {
            http1::write_chunk(body, &mut text);
            text.extend_from_slice(b"0\r\n\r\n");
            &[]
        }
        Framing::Length(_) | Framing::UntilClose => body,
    };
    let sent = write(at, &text, body).await;
    at.thread.buffers.give_text(text);
    sent && outgoing.keep_alive
}

/// Writes everything, as long as the client takes it; whether it did.
pub(super) async fn write(at: &mut At<'_>, first: &[u8], second: &[u8]) -> bool {
    let patience = at.frontend.timeouts.client;
    let (stream, deadline) = (&mut at.client.stream, &mut at.client.deadline);
    let mut sent = 0;
    deadline.set_after(Instant::now(), patience);
    let result = until(deadline, at.live, |context, deadline| {
        while sent < first.len() + second.len() {
            let (one, other) = match sent.checked_sub(first.len()) {
                None => (&first[sent..], second),
                Some(of_second) => (&second[of_second..], &[][..]),
            };
            match stream.poll_write(context, [one, other, &[]]) {
                Poll::Ready(Ok(count)) => {
                    sent += count;
                    deadline.set_after(Instant::now(), patience);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await;
    let cause = match result {
        Ok(Ok(())) => return true,
        Ok(Err(_)) => b'C',
        Err(_) => b'c',
    };
    if at.exchange.ending.cause == b'-' {
        (at.exchange.ending.cause, at.exchange.ending.state) = (cause, b'D');
    }
    false
}

/// Answers a request that no server has answered.
pub(super) async fn fail(at: &mut At<'_>, failure: Failure, parsed: &ParsedRequest) -> Next {
    note(at.exchange, failure.cause, failure.state);
    if failure.status == 0 {
        at.exchange.response.clear();
        at.exchange.times.ended = Some(Instant::now());
        return Next::Close;
    }
    if failure.status == 400 {
        let next = refuse(at, failure.status).await;
        at.exchange.times.ended = Some(Instant::now());
        return next;
    }
    let backend = at.exchange.route.backend.and_then(|index| at.thread.running.config.proxies.get(index));
    let reply = Reply::error_of(backend, at.frontend, failure.status);
    send(at, Box::new(reply), parsed).await
}

/// How it ended.
pub(super) fn note(exchange: &mut Exchange, cause: u8, state: u8) {
    let Ending { cause: was, state: in_state, .. } = &mut exchange.ending;
    (*was, *in_state) = (cause, state);
}

/// `monitor-uri`: says that the service is there, neither counted nor logged.
pub(super) async fn monitor(at: &mut At<'_>, parsed: &ParsedRequest) -> Next {
    let failed = {
        let context =
            crate::proxy::expression::Context { exchange: at.exchange, running: &at.thread.running };
        at.frontend.monitor_fail.iter().any(|condition| condition.holds(&context))
    };
    let status = if failed { 503 } else { 200 };
    let reply = Reply::error(at.frontend, status);
    send(at, Box::new(reply), parsed).await
}

/// What is answered to something that is no request: the error file, else HAProxy's text, byte for byte; then the
/// connection closes.
pub(super) async fn refuse(at: &mut At<'_>, status: u16) -> Next {
    at.exchange.response.clear();
    at.exchange.response.status = status;
    match Reply::error(at.frontend, status) {
        Reply::File { content, .. } => write(at, &content, &[]).await,
        Reply::Message { .. } => write(at, &Reply::bare(status), &[]).await,
    };
    Next::Linger
}
