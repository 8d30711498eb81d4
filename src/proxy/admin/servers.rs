//! Commands on one server: `set server`, `set weight`, `get weight`, `enable`/`disable`, `set maxconn server`.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::{self, ProxyIndex, ServerAddress, ServerIndex, ServerPort};
use crate::proxy::state::{Backend, Operation, Server};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// A server that a command named.
pub(super) struct Found<'r> {
    section: ProxyIndex,
    backend: &'r Arc<Backend>,
    index: ServerIndex,
    written: &'r model::Server,
    state: &'r Server,
}

impl Found<'_> {
    /// Which backend's.
    pub(super) fn place(&self) -> (ProxyIndex, ServerIndex) {
        (self.section, self.index)
    }
}

/// Looks up `backend/server`; names, or `#` and a number.
pub(super) fn find<'r>(context: &Context<'r>, name: Option<&&str>) -> Result<Found<'r>, Answer> {
    let (backend, server) = name
        .and_then(|name| name.split_once('/'))
        .ok_or_else(|| Answer::error("Require 'backend/server'.\n"))?;
    let is = |wanted: &str, name: &str, id: u32| {
        wanted == name || wanted.strip_prefix('#').and_then(|id| id.parse().ok()) == Some(id)
    };
    let mut sections = context.running.config.proxies.iter().zip(&context.running.proxies).enumerate();
    let (number, section, state) = sections
        .find_map(|(number, (proxy, state))| {
            let found = state.backend.as_ref().filter(|_| is(backend, &proxy.name, proxy.id));
            found.map(|state| (number, proxy, state))
        })
        .ok_or_else(|| Answer::error("No such backend.\n"))?;
    let mut servers = section.servers.iter().zip(&state.servers).enumerate();
    let (index, (written, server)) = servers
        .find(|(_, (written, _))| is(server, &written.name, written.id))
        .ok_or_else(|| Answer::error("No such server.\n"))?;
    Ok(Found { section: number, backend: state, index, written, state: server })
}

/// Carries something out on the server that the first argument names.
fn on(
    context: &Context<'_>,
    arguments: &[&str],
    change: impl FnOnce(Found<'_>, &[&str]) -> Answer,
) -> Answer {
    match find(context, arguments.first()) {
        Ok(found) => change(found, arguments.get(1..).unwrap_or_default()),
        Err(answer) => answer,
    }
}

/// `get weight`.
pub(super) fn get_weight(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, _| {
        Answer::info(format!("{} (initial {})\n", server.state.weight.load(SeqCst), server.written.weight))
    })
}

/// `set weight`.
pub(super) fn set_weight(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, weight)
}

/// `set maxconn server`.
pub(super) fn set_maxconn(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, arguments| {
        let Some(text) = arguments.first() else { return Answer::error("Require <maxconn>.\n") };
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Answer::error("maxconn string empty or preceded by garbage");
        }
        match text.parse() {
            Ok(limit) => {
                server.backend.set_maxconn(server.index, limit);
                Answer::Done
            }
            Err(_) => Answer::error("Trailing garbage in maxconn string"),
        }
    })
}

/// `enable server`.
pub(super) fn enable(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, _| {
        server.backend.end_maintenance(server.index);
        Answer::Done
    })
}

/// `disable server`.
pub(super) fn disable(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, _| {
        server.backend.make_maintenance(server.index);
        Answer::Done
    })
}

/// `enable health`: checks go on.
pub(super) fn enable_health(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, _| match server.backend.enable_checks(server.index, true) {
        false => Answer::error("Health check was not configured on this server, cannot enable.\n"),
        true => Answer::Done,
    })
}

/// `disable health`: no more checks; the server stays as it is.
pub(super) fn disable_health(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, _| {
        server.backend.enable_checks(server.index, false);
        Answer::Done
    })
}

/// `enable agent`: there are no agents here.
pub(super) fn enable_agent(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |_, _| Answer::error("Agent was not configured on this server, cannot enable.\n"))
}

/// `disable agent`: nothing to disable.
pub(super) fn disable_agent(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |_, _| Answer::Done)
}

/// `set server`.
pub(super) fn set(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    on(context, arguments, |server, arguments| {
        let (what, rest) = arguments.split_first().map_or(("", arguments), |(what, rest)| (*what, rest));
        match what {
            "weight" => weight(server, rest),
            "state" => state(&server, rest.first().copied()),
            "health" => health(&server, rest.first().copied()),
            "addr" => address(&server, rest),
            "agent" | "agent-send" => Answer::error("agent checks are not enabled on this server.\n"),
            "agent-addr" | "agent-port" => Answer::error("agent checks are not enabled on this server"),
            "check-addr" | "check-port" if server.written.check.is_none() => {
                Answer::error("health checks are not enabled on this server")
            }
            "check-addr" | "check-port" => Answer::error(
                "Where checks go does not change at run time here: change the file and reload.\n",
            ),
            "fqdn" => Answer::error("set server <b>/<s> fqdn failed because no resolution is configured.\n"),
            "ssl" => Answer::error(
                "'set server <srv> ssl' cannot be set.  default-server should define ssl settings\n",
            ),
            _ => Answer::error(
                "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | agent-send | \
                 check-addr | check-port | fqdn | health | ssl | state | weight\n",
            ),
        }
    })
}

/// `state ready|drain|maint`.
fn state(server: &Found<'_>, word: Option<&str>) -> Answer {
    match word {
        Some("ready") => server.backend.make_ready(server.index),
        Some("drain") => server.backend.make_drain(server.index),
        Some("maint") => server.backend.make_maintenance(server.index),
        _ => return Answer::error("'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n"),
    }
    Answer::Done
}

/// `health up|stopping|down`: as if checks had said so.
fn health(server: &Found<'_>, word: Option<&str>) -> Answer {
    let operation = match word {
        Some("up") => Operation::Running,
        Some("stopping") => Operation::Stopping,
        Some("down") => Operation::Stopped,
        _ => return Answer::error("'set server <srv> health' expects 'up', 'stopping', or 'down'.\n"),
    };
    server.backend.set_operation(server.index, operation);
    Answer::Done
}

/// `N` from 0 to 256, or `N%` of the file's weight.
fn weight(server: Found<'_>, arguments: &[&str]) -> Answer {
    let Some(text) = arguments.first() else { return Answer::error("Require <weight> or <weight%>.\n") };
    match new_weight(text, server.written.weight) {
        Ok(weight) => {
            server.backend.set_weight(server.index, weight);
            Answer::Done
        }
        Err(text) => Answer::error(text),
    }
}

/// The weight that a word means, or what is wrong with it.
pub(super) fn new_weight(text: &str, initial: u32) -> Result<u32, &'static str> {
    const OUT_OF_RANGE: &str = "Absolute weight can only be between 0 and 256 inclusive.\n";
    let digits = text.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    let signs = text.len() - text.trim_start_matches('-').len();
    if digits == 0 || signs > 1 {
        return Err("Empty weight string empty or preceded by garbage");
    }
    let (number, unit) = text.split_at(signs + digits);
    // So many digits that it does not fit: more than any weight.
    let number = number.parse::<i64>().unwrap_or(if signs == 1 { -1 } else { i64::MAX });
    match unit {
        "%" if number < 0 => Err("Relative weight must be positive.\n"),
        "%" => {
            let weight = number.min(25_600) * i64::from(initial) / 100;
            Ok(u32::try_from(weight.min(256)).unwrap_or(256))
        }
        "" => u32::try_from(number).ok().filter(|weight| *weight <= 256).ok_or(OUT_OF_RANGE),
        _ => Err("Trailing garbage in weight string"),
    }
}

/// `addr IP [port PORT]`: PORT may be `+N` or `-N`, relative to the port that the client connected to.
fn address(server: &Found<'_>, arguments: &[&str]) -> Answer {
    let Some(text) = arguments.first() else {
        return Answer::error("set server <b>/<s> addr requires an address and optionally a port.\n");
    };
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Answer::error(&format!("Invalid addr '{text}' by 'stats socket command'\n"));
    };
    let ServerAddress::Tcp { at, port, .. } = server.state.address.read().clone() else {
        return Answer::error("The server's address is a Unix socket: it does not change at run time.\n");
    };
    let mut changes = vec![if ip == at.ip() {
        "no need to change the addr".to_owned()
    } else {
        format!("IP changed from '{}' to '{ip}'", at.ip())
    }];
    let mut new = (at.port(), port);
    if arguments.get(1) == Some(&"port") {
        match arguments.get(2).map(|text| new_port(text)) {
            Some(Some(wanted)) => new = wanted,
            _ => {
                return Answer::error(
                    "The port must be a number from 0 to 65535, or +N or -N with a mapped port.\n",
                );
            }
        }
        changes.push(match new == (at.port(), port) {
            true => "no need to change the port".to_owned(),
            false => format!(
                "port changed from '{}' to '{}'",
                written_port(at.port(), port),
                written_port(new.0, new.1)
            ),
        });
    }
    if ip != at.ip() || new != (at.port(), port) {
        let changed = ServerAddress::Tcp { host: None, at: SocketAddr::new(ip, new.0), port: new.1 };
        server.backend.set_address(server.index, changed);
    }
    Answer::info(format!("{} by 'stats socket command'\n", changes.join(", ")))
}

fn new_port(text: &str) -> Option<(u16, ServerPort)> {
    if text.starts_with(['+', '-']) {
        let offset = text.parse::<i32>().ok().filter(|offset| offset.unsigned_abs() <= 65_535)?;
        return Some((0, ServerPort::Mapped(offset)));
    }
    Some((text.parse().ok()?, ServerPort::Fixed))
}

fn written_port(number: u16, port: ServerPort) -> String {
    match port {
        ServerPort::Fixed => number.to_string(),
        ServerPort::Mapped(offset) => format!("{offset:+}"),
    }
}
