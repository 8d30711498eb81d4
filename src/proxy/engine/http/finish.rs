//! The end of an exchange: counters and the log line.

use super::head::Refused;
use super::{At, Next, answer};
use crate::proxy::config::model::Proxy;
use crate::proxy::engine::live::Live;
use crate::proxy::engine::record::{self, Concerned};
use crate::proxy::engine::session::Client;
use crate::proxy::engine::thread::Thread;
use crate::proxy::exchange::{Exchange, Session};
use ehpc_proto::http1::BadMessage;
use std::time::Instant;

/// A request was received.
pub(super) fn count_request(at: &At<'_>) {
    if let Some(counters) = record::concerned(at.thread, at.exchange).frontend {
        counters.requests.add(1);
    }
}

/// Counts and logs an exchange that is over.
pub(super) fn record(at: &mut At<'_>) {
    let exchange = &mut *at.exchange;
    if exchange.times.ended.is_none() {
        exchange.times.ended = Some(Instant::now());
    }
    exchange.counts.bytes_in = at.bytes_in;
    exchange.counts.bytes_out = at.bytes_out;
    record::count_bytes(at.thread, exchange, at.bytes_in, at.bytes_out);
    record::count_times(at.thread, exchange);
    let Concerned { frontend, backend, server, .. } = record::concerned(at.thread, exchange);
    let status = exchange.response.status;
    if status > 0 {
        frontend.inspect(|one| one.codes.add(status));
        backend.inspect(|one| {
            one.codes.add(status);
            one.requests.add(1);
        });
        // What this proxy answers in its stead is not the server's.
        server.filter(|_| exchange.times.response_head.is_some()).inspect(|one| {
            one.codes.add(status);
            one.requests.add(1);
        });
    }
    if !at.logged {
        record::note_active(at.thread, exchange);
        record::log(at.thread, at.frontend, exchange);
    }
}

/// What came was no request.
pub(super) async fn refuse(at: &mut At<'_>, refused: Refused) -> Next {
    let (status, cause) = match refused {
        Refused::Bad(BadMessage { .. }) => (400, b'P'),
        Refused::Late => (408, b'c'),
        Refused::Ended => (400, b'C'),
        Refused::Gone => (400, b'C'),
    };
    let status = if let Refused::Bad(bad) = refused { bad.status() } else { status };
    record::concerned(at.thread, at.exchange).fronts().for_each(|one| one.request_errors.add(1));
    if let Some(counters) = record::concerned(at.thread, at.exchange).frontend {
        counters.requests.add(1);
        counters.codes.add(status);
    }
    if let Refused::Bad(bad) = refused {
        keep(at, bad);
    }
    at.exchange.request.clear();
    at.exchange.request_line.clear();
    at.exchange.response.status = status;
    at.exchange.times.request_head = None;
    at.exchange.times.ended = Some(Instant::now());
    answer::note(at.exchange, cause, b'R');
    record::note_active(at.thread, at.exchange);
    record::log(at.thread, at.frontend, at.exchange);
    if matches!(refused, Refused::Gone) {
        return Next::Close;
    }
    answer::refuse(at, status).await
}

/// Keeps what came for `show errors`.
fn keep(at: &At<'_>, bad: BadMessage) {
    let refused = record::refused(at.exchange, super::received(&at.client.input), bad);
    at.thread.running.errors.note_request(refused);
}

/// A connection on which no byte came.
pub(super) async fn nothing_came(
    thread: &Thread,
    live: &Live,
    frontend: &Proxy,
    client: &mut Client,
    session: &Session,
) -> Next {
    // Browsers open connections that they do not use; health checks do, too.
    if frontend.options.http_ignore_probes || live.killed() {
        return Next::Close;
    }
    let refused = if client.ended { Refused::Ended } else { Refused::Late };
    let (accepted, accepted_at) = (session.accepted, session.accepted_at);
    let mut exchange = Box::new(Exchange::new(session.clone(), accepted, accepted_at));
    if frontend.options.dontlognull {
        exchange.log_level = Some(crate::proxy::exchange::LogLevel::Silent);
    }
    let mut at = At::new(thread, live, frontend, client, &mut exchange);
    Box::pin(refuse(&mut at, refused)).await
}
