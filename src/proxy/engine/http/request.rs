//! What the file says to do with a request, before a server is looked for.

use super::{At, service};
use crate::proxy::config::model::{Captures, ForwardFor, Proxy, ProxyIndex};
use crate::proxy::engine::record::{self, Concerned, Presence};
use crate::proxy::engine::route;
use crate::proxy::exchange::{Endpoint, Exchange};
use crate::proxy::rules::{self, Reply, Verdict};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// What happens next.
pub(super) enum Decision {
    /// This backend's servers answer.
    Forward(ProxyIndex),
    /// The proxy answers.
    Answer(Box<Reply>),
    /// The proxy answers, but lets the client wait.
    Tarpit(Box<Reply>, Duration),
    /// The statistics page of this section.
    Statistics(ProxyIndex),
    /// The Prometheus exporter.
    Prometheus,
    /// `monitor-uri`
    Monitor,
    /// The connection is closed without a word.
    Close,
}

/// Applies the rules of the frontend, finds the backend, applies its rules.
pub(super) fn decide(at: &mut At<'_>) -> Decision {
    let frontend = at.frontend;
    if frontend.monitor_uri.as_ref().is_some_and(|uri| *uri == at.exchange.request.target) {
        return Decision::Monitor;
    }
    capture(&frontend.captures, at.exchange);
    let front = at.exchange.session.frontend;
    if let Some(decision) = apply(at, front, frontend) {
        return decision;
    }
    let Some(backend) = route::backend(at.thread, frontend, at.exchange) else {
        (at.exchange.ending.cause, at.exchange.ending.state) = (b'S', b'C');
        return Decision::Answer(Box::new(Reply::error(frontend, 503)));
    };
    at.exchange.route.backend = Some(backend);
    let proxies = &at.thread.running.config.proxies;
    let Some(settings) = proxies.get(backend) else { return Decision::Close };
    if backend != front && !tcp_content(at, settings) {
        return drop_in_silence(at);
    }
    if backend != front
        && let Some(decision) = apply(at, backend, settings)
    {
        return decision;
    }
    forward_for(frontend, settings, at.exchange);
    Decision::Forward(backend)
}

/// The `http-request` rules of one section, then its page.
fn apply(at: &mut At<'_>, index: ProxyIndex, section: &Proxy) -> Option<Decision> {
    if section.request_rules.is_empty() {
        return service::is_page(at, section).then_some(Decision::Statistics(index));
    }
    let verdict = rules::request(&section.request_rules, at.exchange, &at.thread.running);
    let concerned = record::concerned(at.thread, at.exchange);
    let Concerned { frontend, backend, .. } = concerned;
    let denied = at.exchange.ending.cause == b'P';
    match verdict {
        Verdict::Continue => service::is_page(at, section).then_some(Decision::Statistics(index)),
        Verdict::Reply(reply) => {
            // A backend's rules are counted in both sections.
            if denied {
                concerned.fronts().for_each(|one| one.denied_requests.add(1));
                backend.inspect(|one| one.denied_requests.add(1));
            } else {
                // As HAProxy: only what a frontend answers before a backend is chosen.
                frontend.filter(|_| backend.is_none()).inspect(|one| one.intercepted.add(1));
            }
            Some(Decision::Answer(reply))
        }
        Verdict::Tarpit(reply) => {
            concerned.fronts().for_each(|one| one.denied_requests.add(1));
            backend.inspect(|one| one.denied_requests.add(1));
            // As HAProxy: without a time there is nothing to wait for.
            let time = section.timeouts.tarpit.or(section.timeouts.connect).unwrap_or_default();
            Some(Decision::Tarpit(reply, time))
        }
        Verdict::Close => {
            backend.inspect(|one| one.denied_requests.add(1));
            Some(drop_in_silence(at))
        }
        Verdict::Prometheus => Some(Decision::Prometheus),
    }
}

/// `tcp-request content` of a section: whether the request may go on.
fn tcp_content(at: &mut At<'_>, section: &Proxy) -> bool {
    section.tcp_request.is_empty()
        || matches!(
            rules::tcp(&section.tcp_request, false, at.exchange, &at.thread.running),
            Verdict::Continue
        )
}

/// The `tcp-request content` rules of the frontend, before anything is said of a request: whether it may go on. Else
/// it is no request for counters and log, as with HAProxy.
pub(super) fn admit(at: &mut At<'_>) -> bool {
    if tcp_content(at, at.frontend) {
        return true;
    }
    at.exchange.request_line.clear();
    drop_in_silence(at);
    false
}

/// The connection is closed without a word: counted, and logged without times, as HAProxy does.
fn drop_in_silence(at: &mut At<'_>) -> Decision {
    at.exchange.times.request_head = None;
    let concerned = record::concerned(at.thread, at.exchange);
    concerned.fronts().for_each(|one| one.denied_requests.add(1));
    if let Some(backend) = at.exchange.route.backend {
        // It was there.
        drop(Presence::new(at.thread, backend));
        concerned.backend.inspect(|one| one.requests.add(1));
    }
    Decision::Close
}

/// `capture request header`
fn capture(captures: &Captures, exchange: &mut Exchange) {
    for (name, most) in &captures.request {
        // The last occurrence, as HAProxy does.
        let value = exchange.request.fields.all(name).next_back().map(|(_, value)| value);
        let value = value.map(|value| value[..value.len().min(*most)].to_vec());
        exchange.request_captures.push(value);
    }
    if let Some(cookie) = &captures.cookie {
        let fields = exchange.request.fields.all(b"cookie");
        exchange.cookies.0 = fields
            .flat_map(|(_, value)| value.split(|byte| *byte == b';'))
            .find_map(|one| captured(one, cookie));
    }
}

/// `capture cookie` of one `NAME=VALUE`: cut to the longest kept.
pub(super) fn captured(one: &[u8], (name, prefix, most): &(Vec<u8>, bool, usize)) -> Option<Vec<u8>> {
    let one = one.trim_ascii();
    let rest = one.strip_prefix(&name[..])?;
    (*prefix || rest.starts_with(b"=")).then(|| one[..one.len().min(*most)].to_vec())
}

/// `option forwardfor`, `option originalto`: the client's address, and the one that it connected to, each as a header
/// of its own. The backend's settings win; both except.
fn forward_for(frontend: &Proxy, backend: &Proxy, exchange: &mut Exchange) {
    let (client, local) = (exchange.session.client, exchange.session.local);
    tell_address(client, frontend.forward_for.as_ref(), backend.forward_for.as_ref(), exchange);
    tell_address(local, frontend.original_to.as_ref(), backend.original_to.as_ref(), exchange);
}

fn tell_address(
    end: Endpoint,
    frontend: Option<&ForwardFor>,
    backend: Option<&ForwardFor>,
    exchange: &mut Exchange,
) {
    let Some(settings) = backend.or(frontend) else { return };
    let Endpoint::Tcp(end) = end else { return };
    let address = end.ip().to_canonical();
    let excepted =
        |one: &ForwardFor| one.except.is_some_and(|(network, bits)| inside(address, network, bits));
    if [frontend, backend].into_iter().flatten().any(excepted) {
        return;
    }
    if settings.if_none && exchange.request.fields.contains(&settings.header) {
        return;
    }
    let mut text = [0_u8; 48];
    let mut rest = &mut text[..];
    // An address has at most 45 characters.
    let _ = write!(rest, "{address}");
    let left = rest.len();
    exchange.request.fields.push(&settings.header, &text[..48 - left]);
}

fn inside(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        let bits = u32::from(bits).min(width);
        bits == 0 || (one ^ other) >> (width - bits) == 0
    };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_their_members() {
        let inside = |address: &str, network: &str, bits| {
            inside(address.parse().unwrap(), network.parse().unwrap(), bits)
        };
        assert!(inside("127.1.2.3", "127.0.0.0", 8));
        assert!(!inside("128.0.0.1", "127.0.0.0", 8));
        assert!(inside("10.0.0.1", "0.0.0.0", 0));
        assert!(inside("10.0.0.1", "10.0.0.1", 32));
        assert!(!inside("10.0.0.1", "10.0.0.2", 32));
        assert!(inside("2001:db8::1", "2001:db8::", 32));
        assert!(!inside("::1", "127.0.0.0", 8));
    }
}
