//! `mode tcp`: a connection gets a server, and bytes go both ways until both have ended.

use super::live::{Doing, Live};
use super::record::{self, Presence};
use super::server::{Failure, Link, Wanted, reach};
use super::session::Client;
use super::thread::Thread;
use super::tunnel::{Broken, Party, Tunnel};
use super::wait::{Interrupted, until};
use super::{persist, route};
use crate::proxy::config::model::{Proxy, Timeouts};
use crate::proxy::exchange::{Exchange, Session};
use crate::proxy::rules::{self, Verdict};
use std::time::Instant;

/// The life of a TCP session.
pub(crate) async fn serve(
    thread: &Thread,
    live: &Live,
    proxy: &Proxy,
    client: &mut Client,
    session: &Session,
) {
    let (started, started_at) = (session.accepted, session.accepted_at);
    let mut exchange = Box::new(Exchange::new(session.clone(), started, started_at));
    let exchange = &mut *exchange;
    exchange.times.request_head = Some(started_at);
    match rules::tcp(&proxy.tcp_request, false, exchange, &thread.running) {
        Verdict::Continue => {
            let result = relay(thread, live, proxy, client, exchange).await;
            if let Err(failure) = result {
                (exchange.ending.cause, exchange.ending.state) = (failure.cause, failure.state);
            }
        }
        _ => {
            let denied = deny(thread, exchange);
            (exchange.ending.cause, exchange.ending.state) = (denied.cause, denied.state);
        }
    }
    exchange.times.ended = Some(Instant::now());
    let bytes = (exchange.counts.bytes_in, exchange.counts.bytes_out);
    record::count_bytes(thread, exchange, bytes.0, bytes.1);
    record::count_times(thread, exchange);
    if !(proxy.options.logasap || proxy.options.dontlognull && exchange.counts.bytes_in == 0) {
        record::note_active(thread, exchange);
        record::log(thread, proxy, exchange);
    }
}

/// A rule lets nothing pass.
fn deny(thread: &Thread, exchange: &Exchange) -> Failure {
    record::concerned(thread, exchange).fronts().for_each(|one| one.denied_requests.add(1));
    Failure { status: 0, cause: b'P', state: b'R' }
}

async fn relay(
    thread: &Thread,
    live: &Live,
    proxy: &Proxy,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<(), Failure> {
    let none = Failure { status: 503, cause: b'S', state: b'C' };
    let backend = route::backend(thread, proxy, exchange).ok_or(none)?;
    exchange.route.backend = Some(backend);
    let _presence = Presence::new(thread, backend);
    let settings = thread.running.config.proxies.get(backend).ok_or(none)?;
    if backend != exchange.session.frontend
        && !matches!(rules::tcp(&settings.tcp_request, false, exchange, &thread.running), Verdict::Continue)
    {
        return Err(deny(thread, exchange));
    }
    let wish = persist::of_request(thread, backend, exchange).wish;
    let wanted = Wanted { backend, wish, pieces: [&[]; 3], reuse: None };
    let link = reach(thread, live, client, exchange, wanted).await?;
    persist::remember(thread, backend, exchange);
    if proxy.options.logasap {
        record::note_active(thread, exchange);
        record::log(thread, proxy, exchange);
    }
    live.doing(Doing::Data);
    let timeouts = Timeouts {
        client: proxy.timeouts.client,
        client_fin: proxy.timeouts.client_fin,
        tunnel: settings.timeouts.tunnel.or(proxy.timeouts.tunnel),
        ..settings.timeouts
    };
    let (ending, moved) = join(thread, live, client, link, &timeouts).await;
    (exchange.counts.bytes_in, exchange.counts.bytes_out) = moved;
    let concerned = record::concerned(thread, exchange);
    match ending {
        Ok(()) => return Ok(()),
        Err(Failure { cause: b'C', .. }) => {
            concerned.backend.inspect(|one| one.client_aborts.add(1));
            concerned.server.inspect(|one| one.client_aborts.add(1));
        }
        Err(Failure { cause: b'S', .. }) => {
            concerned.backend.inspect(|one| one.server_aborts.add(1));
            concerned.server.inspect(|one| one.server_aborts.add(1));
        }
        // As HAProxy: in no state when an operator ended it.
        Err(Failure { cause: b'K', .. }) => return Err(Failure { status: 0, cause: b'K', state: b'-' }),
        Err(_) => {}
    }
    ending
}

/// Joins both sides until they end: how, and bytes (from the client, to it).
pub(crate) async fn join(
    thread: &Thread,
    live: &Live,
    client: &mut Client,
    mut link: Link,
    timeouts: &Timeouts,
) -> (Result<(), Failure>, (u64, u64)) {
    let mut tunnel = Tunnel::new(Instant::now(), client.input.take(), None);
    tunnel.up.ended = client.ended;
    let ending = run(thread, live, client, &mut link, &mut tunnel, timeouts).await;
    tunnel.up.release(&thread.buffers);
    tunnel.down.release(&thread.buffers);
    (ending, (tunnel.up.moved, tunnel.down.moved))
}

/// Moves bytes until both ways have ended.
pub(crate) async fn run(
    thread: &Thread,
    live: &Live,
    client: &mut Client,
    link: &mut Link,
    tunnel: &mut Tunnel,
    timeouts: &Timeouts,
) -> Result<(), Failure> {
    let mut blame = Party::Client;
    let Client { stream, deadline, .. } = client;
    deadline.set(None);
    let ended = until(deadline, live, |context, deadline| {
        let moved = tunnel.poll(context, stream, &mut link.stream, &thread.buffers);
        if moved.is_pending() {
            let expires = tunnel.expires(timeouts);
            deadline.set(expires.map(|(at, _)| at));
            blame = expires.map_or(blame, |(_, party)| party);
        }
        moved
    })
    .await;
    let cause = match ended {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Broken { party: Party::Client, .. })) => b'C',
        Ok(Err(Broken { party: Party::Server, .. })) => b'S',
        Err(Interrupted::Killed) => b'K',
        Err(Interrupted::Expired) if blame == Party::Client => b'c',
        Err(Interrupted::Expired) => b's',
    };
    Err(Failure { status: 0, cause, state: b'D' })
}
