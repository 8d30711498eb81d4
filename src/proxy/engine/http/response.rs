//! What the file says to do with a server's answer, before it is sent to the client.

use super::At;
use super::request::captured;
use crate::proxy::config::model::Proxy;
use crate::proxy::engine::record;
use crate::proxy::exchange::Side;
use crate::proxy::expression::VariableScope;
use crate::proxy::rules::{self, Reply, Verdict};

/// What is done instead of sending the server's answer.
pub(super) enum Instead {
    /// This is answered.
    Answer(Box<Reply>),
    /// The client's connection is closed without a word (`silent-drop`).
    Close,
}

/// Applies captures and rules of backend and frontend. `Err`: this is done instead.
pub(super) fn decide(at: &mut At<'_>, backend: &Proxy, same: bool) -> Result<(), Instead> {
    begin(at);
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
    begin(at);
    let front = at.exchange.session.frontend;
    let backend = at.exchange.route.backend.filter(|backend| *backend != front);
    let backend = backend.and_then(|index| at.thread.running.config.proxies.get(index));
    for section in backend.into_iter().chain([at.frontend]) {
        if !section.after_response_rules.is_empty() {
            rules::after_response(&section.after_response_rules, at.exchange, &at.thread.running);
        }
    }
}

/// The request is over, and so are its variables (`req.`).
fn begin(at: &mut At<'_>) {
    at.exchange.side = Side::Response;
    at.exchange.variables.clear_scope(VariableScope::Request);
}

/// Counts an answer of a server that rules replaced, by their denial or otherwise. Its server has answered all the
/// same.
pub(super) fn count_replaced(at: &At<'_>, instead: &Instead) {
    let concerned = record::concerned(at.thread, at.exchange);
    let denied = at.exchange.ending.cause == b'P';
    match instead {
        // As HAProxy counts it.
        Instead::Close => {
            concerned.fronts().for_each(|one| one.denied_requests.add(1));
            concerned.backend.inspect(|one| one.denied_requests.add(1));
        }
        Instead::Answer(_) if denied => {
            concerned.fronts().for_each(|one| one.denied_responses.add(1));
            concerned.backend.inspect(|one| one.denied_responses.add(1));
            concerned.server.inspect(|one| one.denied_responses.add(1));
        }
        Instead::Answer(_) => {}
    }
    concerned.server.inspect(|one| {
        one.codes.add(at.exchange.response.status);
        one.requests.add(1);
    });
}

fn apply(at: &mut At<'_>, section: &Proxy) -> Result<(), Instead> {
    if section.response_rules.is_empty() {
        return Ok(());
    }
    match rules::response(&section.response_rules, at.exchange, &at.thread.running) {
        // There is no exporter among the rules of responses.
        Verdict::Continue | Verdict::Prometheus => Ok(()),
        Verdict::Reply(reply) | Verdict::Tarpit(reply) => Err(Instead::Answer(reply)),
        Verdict::Close => Err(Instead::Close),
    }
}
