//! Forms of the page: `s` servers, `action`, `b` backend (its name, or `#` and its number).

use super::{Ask, text};
use crate::proxy::state::{Backend, Operation};
use ehpc_proto::http::RequestHead;
use std::sync::Arc;

/// Fields of a form.
#[derive(Debug, Default)]
struct Form {
    servers: Vec<String>,
    action: String,
    backend: String,
}

impl Form {
    fn read(body: &[u8]) -> Form {
        let mut form = Form::default();
        for pair in body.split(|byte| *byte == b'&') {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = text::form_text(pair.get(at + 1..).unwrap_or_default());
            match &pair[..at] {
                b"s" => form.servers.push(value),
                b"action" => form.action = value,
                b"b" => form.backend = value,
                _ => {}
            }
        }
        form
    }
}

/// What an action does with one server; whether it could.
type Change = fn(&Arc<Backend>, usize) -> bool;

/// Does what a form says, and answers with the code that the page then shows.
pub(super) fn carry_out(ask: &Ask<'_>) -> &'static str {
    if !ask.admin || foreign(ask.request) {
        return "DENY";
    }
    let Some(body) = ask.form else { return "EXCD" };
    let form = Form::read(body);
    if form.servers.is_empty() {
        return "NONE";
    }
    let number = form.backend.strip_prefix('#').and_then(|number| number.parse::<u32>().ok());
    let mut sections = ask.running.config.proxies.iter().zip(&ask.running.proxies);
    let found = sections.find_map(|(proxy, state)| {
        let meant = number.map_or(form.backend == proxy.name, |number| number == proxy.id);
        state.backend.as_ref().filter(|_| meant).map(|backend| (proxy, backend))
    });
    let (Some((proxy, backend)), Some(change)) = (found, change(&form.action)) else { return "ERRP" };
    let mut done = 0;
    for name in &form.servers {
        let server = proxy.servers.iter().position(|server| server.name == *name);
        done += usize::from(server.is_some_and(|server| change(backend, server)));
    }
    match done {
        0 => "ERRP",
        _ if done == form.servers.len() => "DONE",
        _ => "PART",
    }
}

/// Actions by their names in the form.
fn change(action: &str) -> Option<Change> {
    Some(match action {
        "ready" => |backend, server| {
            backend.make_ready(server);
            true
        },
        "drain" => |backend, server| {
            backend.make_drain(server);
            true
        },
        // `stop` and `start` are what old pages sent.
        "maint" | "stop" => |backend, server| {
            backend.make_maintenance(server);
            true
        },
        "start" => |backend, server| {
            backend.end_maintenance(server);
            true
        },
        "dhlth" => |backend, server| backend.enable_checks(server, false),
        "ehlth" => |backend, server| backend.enable_checks(server, true),
        "hrunn" => |backend, server| force(backend, server, Operation::Running),
        "hnolb" => |backend, server| force(backend, server, Operation::Stopping),
        "hdown" => |backend, server| force(backend, server, Operation::Stopped),
        _ => return None,
    })
}

/// As if checks had said so.
fn force(backend: &Arc<Backend>, server: usize, operation: Operation) -> bool {
    backend.set_operation(server, operation);
    true
}

/// A browser says that another site's page sent the form. Credentials that a browser keeps would go with it.
fn foreign(request: &RequestHead) -> bool {
    if let Some(site) = request.fields.get(b"sec-fetch-site") {
        return !matches!(site, b"same-origin" | b"none");
    }
    let Some(origin) = request.fields.get(b"origin") else { return false };
    let host = request.fields.get(b"host").unwrap_or_default();
    let at = origin.windows(3).position(|bytes| bytes == b"://").map_or(origin.len(), |at| at + 3);
    !origin[at..].eq_ignore_ascii_case(host) || host.is_empty()
}
