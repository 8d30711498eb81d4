//! `show sess`, `shutdown session`, `shutdown sessions server`. The rows are asked from the engine's threads, so these
//! commands answer with a question that whoever runs them puts to the engine.

use super::commands::Caller;
use super::{Answer, Context, Question, servers};
use crate::proxy::engine::{Doing, SessionRow, Which};
use crate::proxy::exchange::Endpoint;
use std::fmt::Write as _;

/// A session's name: its number in the process, from 1, as HAProxy writes the address of its own.
fn name(row: &SessionRow) -> u64 {
    row.number + 1
}

/// The session that a word names.
fn number(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()?.checked_sub(1)
}

/// `show sess [all|ID]`.
pub(super) fn show(_: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    match arguments.first() {
        None | Some(&"all") => Answer::Ask(Question::Sessions(None)),
        Some(word) => match number(word) {
            Some(number) => Answer::Ask(Question::Sessions(Some(number))),
            None => Answer::error("Session not found.\n"),
        },
    }
}

/// `shutdown session ID`.
pub(super) fn shutdown(_: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    match arguments.first() {
        None => Answer::error("Session pointer expected (use 'show sess').\n"),
        Some(word) => match number(word) {
            Some(number) => Answer::Ask(Question::Kill(Which::Number(number))),
            None => Answer::error("No such session (use 'show sess').\n"),
        },
    }
}

/// `shutdown sessions server BACKEND/SERVER`.
pub(super) fn shutdown_of_server(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    match servers::find(context, arguments.first()) {
        Ok(found) => {
            let (backend, server) = found.place();
            Answer::Ask(Question::Kill(Which::Server(backend, server)))
        }
        Err(answer) => answer,
    }
}

/// What is answered when the engine has given its rows.
pub(super) fn listed(context: &Context<'_>, rows: &[SessionRow], wanted: Option<u64>) -> Answer {
    let mut out = String::new();
    for row in rows.iter().filter(|row| wanted.is_none_or(|number| row.number == number)) {
        line(context, row, &mut out);
    }
    match wanted {
        Some(_) if out.is_empty() => Answer::error("Session not found.\n"),
        _ => Answer::Text(out),
    }
}

/// What is answered when the engine has ended sessions.
pub(super) fn ended(which: Which, count: usize) -> Answer {
    match which {
        Which::Number(_) if count == 0 => Answer::error("No such session (use 'show sess').\n"),
        _ => Answer::Done,
    }
}

/// `0x1: proto=tcpv4 src=... fe=... be=... srv=... age=...s`, as HAProxy begins; what follows is this engine's own.
fn line(context: &Context<'_>, row: &SessionRow, out: &mut String) {
    let proxies = &context.running.config.proxies;
    let (protocol, source) = match row.client {
        Endpoint::Tcp(address) if address.is_ipv4() => ("tcpv4", address.to_string()),
        Endpoint::Tcp(address) => ("tcpv6", address.to_string()),
        Endpoint::Unix => ("unix_stream", "unix:1".to_owned()),
    };
    let frontend = proxies.get(row.frontend).map_or("<NONE>", |proxy| &proxy.name);
    let backend = row.backend.and_then(|index| proxies.get(index));
    let server = backend.zip(row.server).and_then(|(proxy, server)| proxy.servers.get(server));
    let doing = match row.doing {
        Doing::Idle => "idle",
        Doing::Request => "request",
        Doing::Queue => "queue",
        Doing::Connect => "connect",
        Doing::Response => "response",
        Doing::Data => "data",
    };
    let _ = writeln!(
        out,
        "{:#x}: proto={protocol} src={source} fe={frontend} be={} srv={} age={}s requests={} state={doing} thread={}",
        name(row),
        backend.map_or("<NONE>", |proxy| &proxy.name),
        server.map_or("<none>", |server| &server.name),
        context.moment.monotonic.saturating_duration_since(row.accepted_at).as_secs(),
        row.requests,
        row.thread + 1
    );
}
