//! Which server a client should get again: cookies, stick tables, hashes.

use super::thread::Thread;
use crate::proxy::balance;
use crate::proxy::config::model::{Balance, Proxy, ProxyIndex};
use crate::proxy::cookie::{Answer, Found};
use crate::proxy::exchange::{Endpoint, Exchange};
use crate::proxy::expression::Context;
use crate::proxy::state::{Backend, Wish};
use crate::proxy::stick;
use std::net::IpAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a request wants of its backend, and what its cookie said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Persistence {
    pub(crate) wish: Wish,
    found: Option<Found>,
}

/// What an exchange wants of its backend. Takes the persistence cookie out of the request where servers must not see
/// it.
pub(crate) fn of_request(thread: &Thread, index: ProxyIndex, exchange: &mut Exchange) -> Persistence {
    let mut persistence = Persistence::default();
    if let Some(settings) = thread.running.config.proxies.get(index) {
        persistence.wish.hash = hash(thread, settings, exchange);
    }
    let Some(backend) = backend_of(thread, index) else { return persistence };
    if let Some(cookies) = &backend.cookies {
        let now = seconds(exchange.times.request_started);
        let found = cookies.request(&mut exchange.request.fields, now, |server| backend.standing(server));
        exchange.ending.client_cookie = found.letter;
        exchange.ending.server_cookie = b'N';
        persistence.wish.sticky = found.server;
        persistence.found = Some(found);
    }
    if let Some(section) =
        thread.running.config.proxies.get(index).filter(|section| !section.stick_rules.is_empty())
    {
        let stuck = stick::request(&section.stick_rules, index, exchange, &thread.running, Instant::now());
        // A cookie goes before a table; a table's server must be one that the client may keep.
        persistence.wish.sticky =
            persistence.wish.sticky.or_else(|| stuck.filter(|server| backend.keeps(*server)));
    }
    persistence
}

/// Puts into an answer what makes its client come back to its server.
pub(crate) fn into_answer(
    thread: &Thread,
    backend: ProxyIndex,
    exchange: &mut Exchange,
    persistence: Persistence,
) {
    remember(thread, backend, exchange);
    let (Some(backend), Some(mut found), Some(server)) =
        (backend_of(thread, backend), persistence.found, exchange.route.server)
    else {
        return;
    };
    let Some(cookies) = &backend.cookies else { return };
    if exchange.counts.redispatched {
        found.redispatched();
        exchange.ending.client_cookie = found.letter;
    }
    let answer = Answer {
        found,
        server,
        method: &exchange.request.method,
        status: exchange.response.status,
        now: seconds(SystemTime::now()),
    };
    exchange.ending.server_cookie = cookies.answer(&mut exchange.response.fields, answer);
}

/// Hash of what `balance source`, `uri`, `hdr` ... look at; `None`: in turn.
fn hash(thread: &Thread, proxy: &Proxy, exchange: &Exchange) -> Option<u32> {
    match &proxy.balance {
        Balance::Source => hash_of_address(exchange.session.client),
        Balance::Hash(expression) => {
            let context = Context { exchange, running: &thread.running };
            expression.evaluate(&context).map(|sample| balance::hash_text(&sample.into_text()))
        }
        _ => None,
    }
}

fn hash_of_address(client: Endpoint) -> Option<u32> {
    let Endpoint::Tcp(client) = client else { return None };
    Some(match client.ip().to_canonical() {
        IpAddr::V4(address) => balance::hash_address(&address.octets()),
        IpAddr::V6(address) => balance::hash_address(&address.octets()),
    })
}

/// Writes into stick tables which server answered.
pub(crate) fn remember(thread: &Thread, index: ProxyIndex, exchange: &mut Exchange) {
    let Some(section) = thread.running.config.proxies.get(index) else { return };
    let server = exchange.route.server.and_then(|server| section.servers.get(server));
    if let Some(server) = server.filter(|_| !section.stick_rules.is_empty()) {
        stick::response(&section.stick_rules, server.id, exchange, &thread.running, Instant::now());
    }
}

fn backend_of(thread: &Thread, backend: ProxyIndex) -> Option<&Backend> {
    thread.running.proxies.get(backend)?.backend.as_deref()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
