//! What the file says to do with a server's answer, before it is sent to the client.

use super::At;
use super::request::captured;
use crate::proxy::config::model::Proxy;
use crate::proxy::exchange::Side;
use crate::proxy::rules::{self, Reply, Verdict};

/// Applies captures and rules of backend and frontend. `Err`: this is answered instead.
pub(super) fn decide(at: &mut At<'_>, backend: &Proxy, same: bool) -> Result<(), Box<Reply>> {
    at.exchange.side = Side::Response;
    for (name, most) in &at.frontend.captures.response {
        let value = at.exchange.response.fields.all(name).next_back().map(|(_, value)| value);
        let value = value.map(|value| value[..value.len().min(*most)].to_vec());
        at.exchange.response_captures.push(value);
    }
    if let Some(cookie) = &at.frontend.captures.cookie {
        let mut fields = at.exchange.response.fields.all(b"set-cookie");
        let first =
            |value: &[u8]| value.split(|byte| *byte == b';').next().and_then(|one| captured(one, cookie));
        at.exchange.cookies.1 = fields.find_map(|(_, value)| first(value));
    }
    apply(at, backend)?;
    if !same {
        apply(at, at.frontend)?;
    }
    Ok(())
}

/// `http-after-response` rules of backend and frontend: for every answer, also for those of this proxy.
pub(super) fn after(at: &mut At<'_>) {
    at.exchange.side = Side::Response;
    let front = at.exchange.session.frontend;
    let backend = at.exchange.route.backend.filter(|backend| *backend != front);
    let backend = backend.and_then(|index| at.thread.running.config.proxies.get(index));
    for section in backend.into_iter().chain([at.frontend]) {
        if !section.after_response_rules.is_empty() {
            rules::after_response(&section.after_response_rules, at.exchange, &at.thread.running);
        }
    }
}

fn apply(at: &mut At<'_>, section: &Proxy) -> Result<(), Box<Reply>> {
    if section.response_rules.is_empty() {
        return Ok(());
    }
    match rules::response(&section.response_rules, at.exchange, &at.thread.running) {
        Verdict::Reply(reply) => Err(reply),
        _ => Ok(()),
    }
}
