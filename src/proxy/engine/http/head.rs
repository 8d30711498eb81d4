//! Reading the head of a request.

use super::{At, received, shorter};
use crate::proxy::engine::session::Client;
use crate::proxy::engine::wait::{Interrupted, until};
use ehpc_proto::http1::{BadMessage, Limits, ParsedRequest, RequestParser};
use std::task::Poll;
use std::time::Instant;

/// Why there is no request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// It breaks the rules.
    Bad(BadMessage),
    /// It did not come in time.
    Late,
    /// Its client ended in the middle.
    Ended,
    /// Its connection broke, or was ended by an operator.
    Gone,
}

/// Bounds of heads, as configured.
pub(super) fn limits(at: &At<'_>) -> Limits {
    let tune = &at.thread.running.config.global.tune;
    Limits { head: tune.bufsize.saturating_sub(tune.maxrewrite), fields: tune.maxhdr.saturating_sub(1) }
}

/// Reads until the head is complete. What follows it stays in the client's input.
pub(super) async fn read(at: &mut At<'_>) -> Result<ParsedRequest, Refused> {
    let limits = limits(at);
    let lenient = at.frontend.options.accept_invalid_request;
    let mut parser = RequestParser::default();
    loop {
        let bytes = received(&at.client.input);
        match parser.parse(bytes, &limits, lenient, &mut at.exchange.request) {
            Ok(Some(parsed)) => {
                let line = bytes.get(parsed.line.clone()).unwrap_or(&[]);
                let logged = line.len().min(at.thread.running.config.global.tune.logurilen);
                at.exchange.request_line.extend_from_slice(&line[..logged]);
                at.exchange.times.request_head = Some(Instant::now());
                take(at, parsed.head_len);
                at.bytes_in += weight_of_request(at);
                return Ok(parsed);
            }
            Ok(None) => more(at).await?,
            Err(bad) => return Err(Refused::Bad(bad)),
        }
    }
}

/// So much of what was received is done with.
pub(super) fn take(at: &mut At<'_>, count: usize) {
    if let Some(mut input) = at.client.input.take() {
        input.consume(count);
        at.client.input = at.thread.buffers.park(input);
    }
}

/// Waits for more of the head, at most as long as the whole head may take.
pub(super) async fn more(at: &mut At<'_>) -> Result<(), Refused> {
    let timeouts = &at.frontend.timeouts;
    let patience = shorter(timeouts.client, timeouts.http_request);
    let since = match at.exchange.first {
        true => at.exchange.session.accepted_at,
        false => at.exchange.times.request_started_at,
    };
    let buffers = &at.thread.buffers;
    at.client.input = at.client.input.take().and_then(|input| buffers.park(input));
    let Client { stream, input, deadline, .. } = &mut *at.client;
    deadline.set_after(since, patience);
    let read = until(deadline, at.live, |context, _| {
        let mut buffer = input.take().unwrap_or_else(|| buffers.take());
        let read = stream.poll_read(context, buffer.room(1));
        if let Poll::Ready(Ok(count)) = &read {
            buffer.fill(*count);
        }
        *input = Some(buffer);
        read
    })
    .await;
    match read {
        Ok(Ok(0)) => Err(Refused::Ended),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(Interrupted::Killed) => Err(Refused::Gone),
        Err(Interrupted::Expired) => Err(Refused::Late),
    }
}

/// Bytes of a head as HAProxy counts them: a start line has 20 more than its three parts, a field has its name and its
/// value, the end has one.
fn weight_of_request(at: &At<'_>) -> u64 {
    let head = &at.exchange.request;
    let line = head.method.as_bytes().len() + head.target.len() + head.version.as_bytes().len();
    let fields: usize = head.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    (20 + line + fields + 1) as u64
}

/// The same of an answer.
pub(super) fn weight_of_response(head: &ehpc_proto::http::ResponseHead) -> u64 {
    let line = head.version.as_bytes().len() + 3 + head.reason.len();
    let fields: usize = head.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    (20 + line + fields + 1) as u64
}
