//! From the words of a line to a rule: one table of actions, and the sets of rules they may stand in.

use super::Rule;
use super::action::{Action, End, Part};
use super::answer::Answer;
use super::redirect::Redirect;
use crate::proxy::config::words::{Parsed, Words};
use crate::proxy::exchange::{LogLevel, Side};
use crate::proxy::expression::{
    Condition, Dynamic, Expression, HeaderNames, LogFormat, Moment, Scope, Variable,
};
use crate::settings::problem;

/// Kinds of lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ruleset {
    Request,
    Response,
    AfterResponse,
    Connection,
    Content,
}

use Ruleset::{AfterResponse, Connection, Content, Request, Response};

type Read = fn(&mut Words<'_>, &Scope<'_>, Ruleset) -> Parsed<Action>;

const HTTP: &[Ruleset] = &[Request, Response, AfterResponse];
const BOTH: &[Ruleset] = &[Request, Response];
const REQUEST: &[Ruleset] = &[Request];

/// Name, where it may stand, reader.
const ACTIONS: &[(&str, &[Ruleset], Read)] = &[
    ("accept", &[Connection, Content], |_, _, _| Ok(Action::Allow)),
    ("add-header", HTTP, |words, scope, _| {
        Ok(Action::AddHeader(header(words)?, LogFormat::parse_line(words, scope)?))
    }),
    ("allow", HTTP, |_, _, _| Ok(Action::Allow)),
    ("auth", REQUEST, auth),
    ("capture", BOTH, capture),
    ("del-header", HTTP, |words, _, _| HeaderNames::parse(words).map(Action::DeleteHeader)),
    ("deny", BOTH, |words, scope, set| {
        let status = if set == Request { 403 } else { 502 };
        Ok(Action::Deny(Box::new(Answer::parse(words, scope, status, false)?)))
    }),
    ("disable-l7-retry", REQUEST, |_, _, _| Ok(Action::Nothing("http-request disable-l7-retry"))),
    ("redirect", BOTH, |words, scope, _| Ok(Action::Redirect(Box::new(Redirect::parse(words, scope)?)))),
    ("reject", &[Request, Connection, Content], |_, _, _| Ok(Action::Close)),
    ("replace-header", HTTP, |words, scope, _| {
        Ok(Action::ReplaceHeader(header(words)?, Dynamic::parse(words, scope)?))
    }),
    ("replace-path", REQUEST, |words, scope, _| {
        Ok(Action::ReplaceTarget(Part::Path, Dynamic::parse(words, scope)?))
    }),
    ("replace-pathq", REQUEST, |words, scope, _| {
        Ok(Action::ReplaceTarget(Part::PathAndQuery, Dynamic::parse(words, scope)?))
    }),
    ("replace-uri", REQUEST, |words, scope, _| {
        Ok(Action::ReplaceTarget(Part::Uri, Dynamic::parse(words, scope)?))
    }),
    ("replace-value", HTTP, |words, scope, _| {
        Ok(Action::ReplaceValue(header(words)?, Dynamic::parse(words, scope)?))
    }),
    ("return", BOTH, |words, scope, _| Ok(Action::Return(Box::new(Answer::parse(words, scope, 200, true)?)))),
    ("set-dst", &[Request, Connection, Content], |words, scope, _| end(words, scope, End::Destination)),
    ("set-dst-port", &[Request, Connection, Content], |words, scope, _| {
        end(words, scope, End::DestinationPort)
    }),
    ("set-header", HTTP, |words, scope, _| {
        Ok(Action::SetHeader(header(words)?, LogFormat::parse_line(words, scope)?))
    }),
    ("set-log-level", &[Request, Response, Content], log_level),
    ("set-method", REQUEST, |words, scope, _| LogFormat::parse_line(words, scope).map(Action::SetMethod)),
    ("set-nice", &[Request, Response, Content], |words, _, _| {
        words.demand("a number")?;
        Ok(Action::Nothing("set-nice"))
    }),
    ("set-path", REQUEST, |words, scope, _| {
        Ok(Action::SetTarget(Part::Path, LogFormat::parse_line(words, scope)?))
    }),
    ("set-pathq", REQUEST, |words, scope, _| {
        Ok(Action::SetTarget(Part::PathAndQuery, LogFormat::parse_line(words, scope)?))
    }),
    ("set-query", REQUEST, |words, scope, _| {
        Ok(Action::SetTarget(Part::Query, LogFormat::parse_line(words, scope)?))
    }),
    ("set-src", &[Request, Connection, Content], |words, scope, _| end(words, scope, End::Source)),
    ("set-src-port", &[Request, Connection, Content], |words, scope, _| end(words, scope, End::SourcePort)),
    ("set-status", &[Response, AfterResponse], status),
    ("set-uri", REQUEST, |words, scope, _| {
        Ok(Action::SetTarget(Part::Uri, LogFormat::parse_line(words, scope)?))
    }),
    ("silent-drop", &[Request, Response, Connection, Content], |_, _, _| Ok(Action::Close)),
    ("strict-mode", HTTP, strict_mode),
    ("tarpit", REQUEST, |words, scope, _| {
        Ok(Action::Tarpit(Box::new(Answer::parse(words, scope, 500, false)?)))
    }),
    ("use-service", REQUEST, service),
];

/// Actions with an argument in parentheses.
const CALLS: &[&str] = &["set-var", "set-var-fmt", "unset-var"];

/// HAProxy's actions that are refused: beginning of the name, why.
const REFUSED: &[(&str, &str)] = &[
    ("add-acl", "acls cannot be changed at run time yet"),
    ("del-acl", "acls cannot be changed at run time yet"),
    ("set-map", "maps cannot be changed at run time yet"),
    ("del-map", "maps cannot be changed at run time yet"),
    ("cache-", "there is no cache"),
    ("do-resolve", "names are resolved when the file is read only"),
    ("early-hint", "the answer 103 is not made yet"),
    ("expect-proxy", "the PROXY protocol is not supported yet"),
    ("expect-netscaler-cip", "the PROXY protocol is not supported yet"),
    ("lua.", "Lua is not supported"),
    ("normalize-uri", "it is experimental in HAProxy 2.6 and not supported here"),
    ("sc-", "rate tracking is not supported yet"),
    ("track-sc", "rate tracking is not supported yet"),
    ("send-spoe-group", "SPOE is not supported"),
    ("set-bandwidth-limit", "bandwidth is not limited"),
    ("set-mark", "packets are not marked"),
    ("set-tos", "packets are not marked"),
    ("set-priority-", "the queue has no priorities yet"),
    ("set-timeout", "timeouts cannot be changed by rules yet"),
    ("switch-mode", "a connection keeps its mode"),
    ("attach-srv", "reverse HTTP is not supported"),
    ("use-service lua.", "Lua is not supported"),
    ("wait-for-body", "bodies are not buffered"),
    ("wait-for-handshake", "TLS is not supported yet"),
];

fn set_name(set: Ruleset) -> &'static str {
    match set {
        Request => "http-request",
        Response => "http-response",
        AfterResponse => "http-after-response",
        Connection => "tcp-request connection",
        Content => "tcp-request content",
    }
}

/// Reads an action and its condition, up to the end of the line.
pub(super) fn rule(words: &mut Words<'_>, scope: &Scope<'_>, set: Ruleset) -> Parsed<Rule> {
    let moment = match set {
        Request => Moment::Request,
        Response | AfterResponse => Moment::Response,
        Connection | Content => Moment::Any,
    };
    let scope = &Scope { moment, ..*scope };
    let word = words.demand("an action")?;
    let action = match word.split_once('(') {
        Some((name, rest)) if CALLS.contains(&name) => variable(words, scope, name, rest)?,
        _ => match ACTIONS.iter().find(|(name, sets, _)| *name == word && sets.contains(&set)) {
            Some((_, _, read)) => read(words, scope, set)?,
            None => return Err(unknown(words, word, set)),
        },
    };
    let condition = Condition::parse_optional(words, scope)?;
    Ok(Rule { action, condition })
}

fn unknown(words: &Words<'_>, word: &str, set: Ruleset) -> Box<crate::settings::Problem> {
    let line = format!("{} {word}", set_name(set));
    if let Some((_, why)) = REFUSED.iter().find(|(begin, _)| word.starts_with(begin)) {
        return words.problem_before(&format!("`{line}`: {why}"), "", "");
    }
    let here = ACTIONS.iter().filter(|(_, sets, _)| sets.contains(&set)).map(|(name, ..)| *name);
    let next = match problem::nearest(word, here.chain(CALLS.iter().copied())) {
        Some(near) if CALLS.contains(&near) => format!("write `{near}(txn.name)`"),
        Some(near) => format!("did you mean `{near}`?"),
        None if ACTIONS.iter().any(|(name, ..)| *name == word) => {
            "this action belongs to another kind of rule".to_owned()
        }
        None => String::new(),
    };
    words.problem_before(&format!("there is no action `{line}`"), "", &next)
}

/// The name of a header, lowered.
pub(super) fn header(words: &mut Words<'_>) -> Parsed<Box<[u8]>> {
    let name = words.demand("the name of a header")?;
    if name.is_empty() || !name.bytes().all(super::is_token) {
        return Err(words.problem_before(
            &format!("`{name}` is no name of a header"),
            "letters, digits and `-`",
            "",
        ));
    }
    Ok(name.to_ascii_lowercase().into_bytes().into())
}

/// A word that becomes a part of a head.
pub(super) fn one_line<'l>(words: &mut Words<'l>, what: &str) -> Parsed<&'l str> {
    let text = words.demand(what)?;
    match text.bytes().any(|byte| b"\r\n\0".contains(&byte)) {
        true => Err(words.problem_before("a head cannot hold a line end or a NUL", "a text of one line", "")),
        false => Ok(text),
    }
}

fn auth(words: &mut Words<'_>, scope: &Scope<'_>, _: Ruleset) -> Parsed<Action> {
    let realm = match words.take("realm") {
        true => Some(LogFormat::literal(one_line(words, "the name of the realm")?.as_bytes())),
        false => None,
    };
    Ok(Action::Authenticate { realm, section: scope.proxy })
}

/// `capture EXPRESSION len N` or `capture EXPRESSION id N`.
fn capture(words: &mut Words<'_>, scope: &Scope<'_>, set: Ruleset) -> Parsed<Action> {
    let value = Expression::parse(words, scope)?;
    let kind = words.demand("`len` or `id`")?;
    let side = if set == Request { Side::Request } else { Side::Response };
    let number = |words: &mut Words<'_>| {
        let text = words.demand("a number")?;
        text.parse::<usize>()
            .map_err(|_| words.problem_before(&format!("`{text}` is no number"), "a number", ""))
    };
    match kind {
        "len" if set == Request => {
            let front =
                scope.proxy.and_then(|own| scope.names.proxies.get(own)).is_some_and(|section| section.front);
            if !front {
                let what = "a backend cannot declare a capture";
                return Err(words.problem_before(
                    what,
                    "`id` and the number of a capture of the frontend",
                    "",
                ));
            }
            let length = number(words)?;
            if length == 0 {
                return Err(words.problem_before("a capture keeps at least 1 byte", "a length", ""));
            }
            Ok(Action::Capture { side, place: scope.captures.request.len(), length: Some(length), value })
        }
        "id" => {
            let place = number(words)?;
            let declared =
                if set == Request { scope.captures.request.len() } else { scope.captures.response.len() };
            let front =
                scope.proxy.and_then(|own| scope.names.proxies.get(own)).is_some_and(|section| section.front);
            if front && place >= declared {
                let what = format!("no capture {place} is declared above");
                return Err(words.problem_before(
                    &what,
                    "the number of a capture, from 0",
                    "add `declare capture`",
                ));
            }
            Ok(Action::Capture { side, place, length: None, value })
        }
        other => {
            let expected = if set == Request { "`len N` or `id N`" } else { "`id N`" };
            Err(words.problem_before(&format!("`{other}` says not where to"), expected, ""))
        }
    }
}

fn end(words: &mut Words<'_>, scope: &Scope<'_>, end: End) -> Parsed<Action> {
    Ok(Action::SetEnd(end, Expression::parse(words, scope)?))
}

fn log_level(words: &mut Words<'_>, _: &Scope<'_>, _: Ruleset) -> Parsed<Action> {
    const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    let name = words.demand("a level")?;
    if name == "silent" {
        return Ok(Action::SetLogLevel(LogLevel::Silent));
    }
    match LEVELS.iter().position(|level| *level == name).and_then(|level| u8::try_from(level).ok()) {
        Some(level) => Ok(Action::SetLogLevel(LogLevel::Level(level))),
        None => {
            let known = format!("silent or one of {}", LEVELS.join(", "));
            Err(words.problem_before(&format!("there is no level `{name}`"), &known, ""))
        }
    }
}

fn status(words: &mut Words<'_>, _: &Scope<'_>, _: Ruleset) -> Parsed<Action> {
    let text = words.demand("a status")?;
    let Ok(status @ 100..=999) = text.parse::<u16>() else {
        return Err(words.problem_before(&format!("`{text}` is no status"), "100 to 999", ""));
    };
    let reason = match words.take("reason") {
        true => Some(one_line(words, "a reason")?.as_bytes().into()),
        false => None,
    };
    Ok(Action::SetStatus(status, reason))
}

fn strict_mode(words: &mut Words<'_>, _: &Scope<'_>, _: Ruleset) -> Parsed<Action> {
    match words.demand("`on` or `off`")? {
        "on" | "off" => Ok(Action::Nothing("strict-mode")),
        other => Err(words.problem_before(&format!("`{other}` is no mode"), "`on` or `off`", "")),
    }
}

fn service(words: &mut Words<'_>, _: &Scope<'_>, _: Ruleset) -> Parsed<Action> {
    match words.demand("the name of a service")? {
        "prometheus-exporter" => Ok(Action::Prometheus),
        other => {
            Err(words.problem_before(&format!("there is no service `{other}`"), "`prometheus-exporter`", ""))
        }
    }
}

/// `set-var(NAME) EXPRESSION`, `set-var-fmt(NAME) FORMAT`, `unset-var(NAME)`; `rest` begins behind the parenthesis.
fn variable(words: &mut Words<'_>, scope: &Scope<'_>, action: &str, rest: &str) -> Parsed<Action> {
    let Some(inside) = rest.strip_suffix(')') else {
        return Err(words.problem_before(&format!("the parenthesis of `{action}` is not closed"), "`)`", ""));
    };
    if let Some((_, condition)) = inside.split_once(',') {
        let what = format!("`{condition}`: conditions of variables are not supported yet");
        return Err(words.problem_before(
            &what,
            "the name of a variable alone",
            "write the condition behind `if`",
        ));
    }
    let variable: Variable = scope
        .variables
        .borrow_mut()
        .variable(inside)
        .map_err(|what| words.problem_before(&what, "as in `txn.name`", ""))?;
    match action {
        "set-var" => Ok(Action::SetVariable(variable, Expression::parse(words, scope)?)),
        "set-var-fmt" => Ok(Action::SetVariableFormat(variable, LogFormat::parse_text(words, scope)?)),
        _ => Ok(Action::UnsetVariable(variable)),
    }
}
