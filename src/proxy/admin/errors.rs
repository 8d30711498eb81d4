//! `show errors`: the last message of each section that was no HTTP.

use super::commands::Caller;
use super::{Answer, Context};
use crate::host::local_time;
use crate::proxy::config::model::ProxyIndex;
use crate::proxy::state::Refused;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a message in one line.
const LINE: usize = 70;

/// `show errors [SECTION|ID] [request|response]`.
pub(super) fn show(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let proxies = &context.running.config.proxies;
    let only = match arguments.first() {
        None | Some(&"-1") => None,
        Some(name) => {
            let found =
                proxies.iter().position(|proxy| proxy.name == **name || proxy.id.to_string() == **name);
            if found.is_none() {
                return Answer::error("No such proxy.\n");
            }
            found
        }
    };
    let wants = |side: &str| arguments.get(1).is_none_or(|word| *word == side);
    let errors = &context.running.errors;
    let mut out = format!("Total events captured on [{}] : {}\n", time(context.moment.wall), errors.count());
    for index in (0..proxies.len()).filter(|index| only.is_none_or(|only| only == *index)) {
        let (request, response) = errors.of(index);
        if let Some(request) = request.filter(|_| wants("request")) {
            describe(context, index, &request, true, &mut out);
        }
        if let Some(response) = response.filter(|_| wants("response")) {
            describe(context, index, &response, false, &mut out);
        }
    }
    Answer::Text(out)
}

fn describe(context: &Context<'_>, index: ProxyIndex, refused: &Refused, request: bool, out: &mut String) {
    let proxies = &context.running.config.proxies;
    let section = |index: Option<ProxyIndex>| match index.and_then(|index| proxies.get(index)) {
        Some(proxy) => format!("{} (#{})", proxy.name, proxy.id),
        None => "<NONE> (#-1)".to_owned(),
    };
    let server = refused.backend.and_then(|index| proxies.get(index)).zip(refused.server);
    let server = server.and_then(|(proxy, server)| proxy.servers.get(server));
    let server =
        server.map_or("<NONE> (#-1)".to_owned(), |server| format!("{} (#{})", server.name, server.id));
    let (what, kind, other) = match request {
        true => ("frontend", "request", format!("backend {}", section(refused.backend))),
        false => ("backend", "response", format!("frontend {}", section(Some(refused.frontend)))),
    };
    let _ = write!(
        out,
        " \n[{}] {what} {}: invalid {kind}\n  {other}, server {server}, event #{}, src {}\n  \
         len {}, error at position {}: {}\n  \n",
        time(refused.when),
        section(Some(index)),
        refused.number,
        refused.source,
        refused.bytes.len(),
        refused.position,
        refused.fault
    );
    let mut from = 0;
    while from < refused.bytes.len() {
        let rest = &refused.bytes[from..];
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1).min(LINE);
        // `+`: it goes on from the line before.
        let fresh = from == 0 || refused.bytes.get(from - 1) == Some(&b'\n');
        let _ = writeln!(out, "  {from:05}{} {}", if fresh { ' ' } else { '+' }, printable(&rest[..length]));
        from += length;
    }
}

/// Bytes as text: what does not print is escaped.
fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "\\x{other:02X}");
            }
        }
    }
    out
}

/// `27/Nov/2026:11:56:33.448`, local time.
fn time(when: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let local = local_time::local_time(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let month = MONTHS.get(usize::from(local.month).saturating_sub(1)).unwrap_or(&"???");
    format!(
        "{:02}/{month}/{}:{:02}:{:02}:{:02}.{:03}",
        local.day,
        local.year,
        local.hour,
        local.minute,
        local.second,
        since.subsec_millis()
    )
}
