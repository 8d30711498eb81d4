//! What one rule does.

use super::answer::Answer;
use super::redirect::Redirect;
use super::{Verdict, reply::Reply, target};
use crate::proxy::config::model::ProxyIndex;
use crate::proxy::exchange::{Endpoint, Exchange, LogLevel, Side};
use crate::proxy::expression::{
    Context, Dynamic, Expression, HeaderNames, LogFormat, Sample, Variable, VariableScope, header_segments,
};
use crate::proxy::state::Running;
use core::net::{IpAddr, SocketAddr};
use ehpc_proto::http::{Fields, Method};
use std::cell::RefCell;

/// Which value of a header, or part of the target, is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Path,
    PathAndQuery,
    Query,
    Uri,
}

/// Which address or port of the client's connection is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Source,
    SourcePort,
    Destination,
    DestinationPort,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Accepted, but without a meaning here; its name.
    Nothing(&'static str),
    AddHeader(Box<[u8]>, LogFormat),
    SetHeader(Box<[u8]>, LogFormat),
    DeleteHeader(HeaderNames),
    /// Whole lines whose value matches.
    ReplaceHeader(Box<[u8]>, Dynamic),
    /// Values between commas that match.
    ReplaceValue(Box<[u8]>, Dynamic),
    SetMethod(LogFormat),
    SetTarget(Part, LogFormat),
    ReplaceTarget(Part, Dynamic),
    SetStatus(u16, Option<Box<[u8]>>),
    SetVariable(Variable, Expression),
    SetVariableFormat(Variable, LogFormat),
    UnsetVariable(Variable),
    /// Into the frontend's capture of that number; `length` when the rule declares it.
    Capture {
        side: Side,
        place: usize,
        length: Option<usize>,
        value: Expression,
    },
    SetLogLevel(LogLevel),
    SetEnd(End, Expression),
    Allow,
    Deny(Box<Answer>),
    Tarpit(Box<Answer>),
    Return(Box<Answer>),
    Redirect(Box<Redirect>),
    Authenticate {
        realm: Option<LogFormat>,
        section: Option<ProxyIndex>,
    },
    Close,
    Prometheus,
}

/// How rules go on.
#[derive(Debug)]
pub(super) enum Outcome {
    Next,
    /// No more rules of this set.
    Stop,
    Verdict(Verdict),
}

thread_local! {
    /// Where texts are made; kept, so that a rule allocates nothing.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Renders a format and hands it over together with the exchange.
fn with_text<R>(
    format: &LogFormat,
    exchange: &mut Exchange,
    running: &Running,
    then: impl FnOnce(&mut Exchange, &[u8]) -> R,
) -> R {
    let mut text = SCRATCH.take();
    text.clear();
    format.render(&Context { exchange, running }, &mut text);
    let result = then(exchange, &text);
    SCRATCH.set(text);
    result
}

fn fields(exchange: &mut Exchange) -> &mut Fields {
    match exchange.side {
        Side::Request => &mut exchange.request.fields,
        Side::Response => &mut exchange.response.fields,
    }
}

/// Notes who ended the exchange, and where: `PR`, `LR`, `PH` ...
fn ends(exchange: &mut Exchange, cause: u8) {
    let state = match exchange.side {
        Side::Request => b'R',
        Side::Response => b'H',
    };
    (exchange.ending.cause, exchange.ending.state) = (cause, state);
}

impl Action {
    pub(super) fn apply(&self, exchange: &mut Exchange, running: &Running) -> Outcome {
        match self {
            Action::Allow => return Outcome::Stop,
            Action::Deny(answer) => {
                ends(exchange, b'P');
                return reply(answer.make(exchange, running));
            }
            Action::Tarpit(answer) => {
                (exchange.ending.cause, exchange.ending.state) = (b'P', b'T');
                let reply = answer.make(exchange, running);
                return Outcome::Verdict(Verdict::Tarpit(Box::new(reply)));
            }
            Action::Return(answer) => {
                ends(exchange, b'L');
                return reply(answer.make(exchange, running));
            }
            Action::Redirect(redirect) => {
                let Some(made) = redirect.make(exchange, running) else { return Outcome::Next };
                ends(exchange, b'L');
                return reply(made);
            }
            Action::Authenticate { realm, section } => {
                ends(exchange, b'L');
                return reply(ask(realm.as_ref(), *section, exchange, running));
            }
            Action::Close => {
                // Also among the rules of responses.
                (exchange.ending.cause, exchange.ending.state) = (b'P', b'R');
                return Outcome::Verdict(Verdict::Close);
            }
            Action::Prometheus => {
                ends(exchange, b'L');
                return Outcome::Verdict(Verdict::Prometheus);
            }
            other => other.change(exchange, running),
        }
        Outcome::Next
    }

    /// Actions after which rules go on.
    fn change(&self, exchange: &mut Exchange, running: &Running) {
        match self {
            Action::AddHeader(name, format) => {
                with_text(format, exchange, running, |exchange, value| fields(exchange).push(name, value));
            }
            Action::SetHeader(name, format) => with_text(format, exchange, running, |exchange, value| {
                fields(exchange).remove(name);
                fields(exchange).push(name, value);
                if exchange.side == Side::Request && **name == *b"host" {
                    target::set_authority(&mut exchange.request, value);
                }
            }),
            Action::DeleteHeader(names) => {
                fields(exchange).retain(|name, _| !names.matches(name));
            }
            Action::ReplaceHeader(name, with) => replace_lines(name, with, exchange, running),
            Action::ReplaceValue(name, with) => replace_values(name, with, exchange, running),
            Action::SetMethod(format) => with_text(format, exchange, running, |exchange, text| {
                // A method that is no token would break the request line (RFC 9110 section 9.1).
                if !text.is_empty() && text.iter().all(|byte| super::is_token(*byte)) {
                    exchange.request.method = Method::new(text);
                }
            }),
            Action::SetTarget(part, format) => with_text(format, exchange, running, |exchange, text| {
                target::set(&mut exchange.request, *part, text);
            }),
            Action::ReplaceTarget(part, with) => {
                let Some(old) = target::get(&exchange.request, *part) else { return };
                if let Some(new) = with.expand(old, &Context { exchange, running }) {
                    target::set(&mut exchange.request, *part, &new);
                }
            }
            Action::SetStatus(status, reason) => {
                exchange.response.status = *status;
                exchange.response.reason = match reason {
                    Some(reason) => reason.to_vec(),
                    None => super::reason(*status).as_bytes().to_vec(),
                };
            }
            Action::SetVariable(variable, value) => {
                let value = value.evaluate(&Context { exchange, running }).map(Sample::into_owned);
                if let Some(value) = value {
                    set_variable(exchange, *variable, value);
                }
            }
            Action::SetVariableFormat(variable, format) => {
                with_text(format, exchange, running, |exchange, text| {
                    set_variable(exchange, *variable, Sample::made(text.to_vec()));
                });
            }
            Action::UnsetVariable(variable) => match variable.scope {
                VariableScope::Session => exchange.session.variables.unset(*variable),
                _ => exchange.variables.unset(*variable),
            },
            Action::Capture { side, place, value, .. } => capture(*side, *place, value, exchange, running),
            Action::SetLogLevel(level) => exchange.log_level = Some(*level),
            Action::SetEnd(end, value) => set_end(*end, value, exchange, running),
            _ => {}
        }
    }
}

fn reply(reply: Reply) -> Outcome {
    Outcome::Verdict(Verdict::Reply(Box::new(reply)))
}

fn set_variable(exchange: &mut Exchange, variable: Variable, value: Sample<'static>) {
    match variable.scope {
        VariableScope::Session => exchange.session.variables.set(variable, value),
        _ => exchange.variables.set(variable, value),
    }
}

/// Whole lines that match become the replacement.
fn replace_lines(name: &[u8], with: &Dynamic, exchange: &mut Exchange, running: &Running) {
    let places: smallvec::SmallVec<[usize; 8]> = fields(exchange).all(name).map(|(place, _)| place).collect();
    for place in places {
        let Some((_, old)) = read_fields(exchange).at(place) else { continue };
        if let Some(new) = with.expand(old, &Context { exchange, running }) {
            fields(exchange).replace(place, &new);
        }
    }
}

fn read_fields(exchange: &Exchange) -> &Fields {
    match exchange.side {
        Side::Request => &exchange.request.fields,
        Side::Response => &exchange.response.fields,
    }
}

/// Values between commas that match become the replacement; the rest of the line stays as it was.
fn replace_values(name: &[u8], with: &Dynamic, exchange: &mut Exchange, running: &Running) {
    let places: smallvec::SmallVec<[usize; 8]> = fields(exchange).all(name).map(|(place, _)| place).collect();
    for place in places {
        let Some((_, line)) = read_fields(exchange).at(place) else { continue };
        let context = Context { exchange, running };
        let mut new = Vec::with_capacity(line.len());
        let mut last = 0;
        let mut changed = false;
        for segment in header_segments(line) {
            // Where it lies in its line; the white space around the value goes with it.
            let from = segment.as_ptr().addr() - line.as_ptr().addr();
            if let Some(replacement) = with.expand(segment.trim_ascii(), &context) {
                new.extend_from_slice(&line[last..from]);
                new.extend_from_slice(&replacement);
                last = from + segment.len();
                changed = true;
            }
        }
        new.extend_from_slice(&line[last..]);
        if changed {
            fields(exchange).replace(place, &new);
        }
    }
}

fn capture(side: Side, place: usize, value: &Expression, exchange: &mut Exchange, running: &Running) {
    let context = Context { exchange, running };
    let declared = context.frontend().map(|frontend| match side {
        Side::Request => &frontend.captures.request,
        Side::Response => &frontend.captures.response,
    });
    let Some((_, longest)) = declared.and_then(|declared| declared.get(place)) else { return };
    let Some(value) = value.evaluate(&context) else { return };
    let mut value = value.into_text().into_owned();
    value.truncate(*longest);
    let list = match side {
        Side::Request => &mut exchange.request_captures,
        Side::Response => &mut exchange.response_captures,
    };
    if list.len() <= place {
        list.resize(place + 1, None);
    }
    list[place] = Some(value);
}

fn set_end(end: End, value: &Expression, exchange: &mut Exchange, running: &Running) {
    let value = value.evaluate(&Context { exchange, running }).map(Sample::into_owned);
    let Some(value) = value else { return };
    let session = &mut exchange.session;
    let known = match end {
        End::Source | End::SourcePort => &mut session.client,
        End::Destination | End::DestinationPort => &mut session.local,
    };
    let (ip, port) = match *known {
        Endpoint::Tcp(address) => (address.ip(), address.port()),
        Endpoint::Unix => (IpAddr::from([0, 0, 0, 0]), 0),
    };
    let changed = match end {
        End::Source | End::Destination => value.to_address().map(|ip| SocketAddr::new(ip, port)),
        End::SourcePort | End::DestinationPort => {
            value.to_integer().and_then(|port| u16::try_from(port).ok()).map(|port| SocketAddr::new(ip, port))
        }
    };
    if let Some(changed) = changed {
        *known = Endpoint::Tcp(changed);
    }
}

/// 401, or 407 to a client that takes this for its proxy.
fn ask(
    realm: Option<&LogFormat>,
    section: Option<ProxyIndex>,
    exchange: &mut Exchange,
    running: &Running,
) -> Reply {
    let proxied = exchange.request.target.first() != Some(&b'/')
        && exchange.request.fields.contains(b"proxy-connection");
    let (status, header): (u16, &[u8]) =
        if proxied { (407, b"proxy-authenticate") } else { (401, b"www-authenticate") };
    let context = Context { exchange, running };
    let mut challenge = b"Basic realm=\"".to_vec();
    match (realm, section.and_then(|section| context.config().proxies.get(section))) {
        (Some(realm), _) => realm.render(&context, &mut challenge),
        (None, section) => {
            challenge.extend_from_slice(section.map_or(b"", |section| section.name.as_bytes()))
        }
    }
    challenge.push(b'"');
    let mut reply = super::answer::error(&context, status);
    if let Reply::Message { head, .. } = &mut reply {
        head.fields.push(header, &challenge);
    }
    reply
}
