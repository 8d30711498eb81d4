//! Rules: what the file says to do with an exchange (`http-request`, `http-response`, `tcp-request`). They act on
//! [`Exchange`] alone; what has to be done on a wire is returned as a [`Verdict`].

mod action;
mod answer;
#[cfg(test)]
mod compare;
mod parse;
#[cfg(test)]
mod parse_tests;
mod redirect;
mod reply;
mod target;

pub use reply::{Reply, ReplyBody, reason};

use super::config::words::{Parsed, Words};
use super::exchange::Exchange;
use super::expression::{Condition, Context, Scope, applies};
use super::state::Running;
use action::Action;

/// What has to be done next. Cause and state of the exchange's ending are set already (`PR`, `LR`, `PT`).
#[derive(Debug)]
pub enum Verdict {
    /// All rules were applied: go on.
    Continue,
    /// Answer this, and do nothing else.
    Reply(Box<Reply>),
    /// Wait for `timeout tarpit` (else `timeout connect`), then answer this.
    Tarpit(Box<Reply>),
    /// Close the client's connection without an answer (`tcp-request ... reject`, `silent-drop`).
    Close,
    /// Answer with the Prometheus exporter's text.
    Prometheus,
}

/// One `http-request` line.
#[derive(Clone, Debug)]
pub struct RequestRule(Rule);

/// One `http-response` or `http-after-response` line.
#[derive(Clone, Debug)]
pub struct ResponseRule(Rule);

/// One `tcp-request connection`, `session` or `content` line.
#[derive(Clone, Debug)]
pub struct TcpRule {
    rule: Rule,
    of_connection: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    action: Action,
    condition: Option<Condition>,
}

impl RequestRule {
    /// Reads a line; the cursor stands behind `http-request`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<RequestRule> {
        parse::rule(words, scope, parse::Ruleset::Request).map(RequestRule)
    }

    /// Reads a line; the cursor stands behind `redirect`.
    pub fn parse_redirect(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<RequestRule> {
        let action = Action::Redirect(Box::new(redirect::Redirect::parse(words, scope)?));
        Ok(RequestRule(Rule { action, condition: Condition::parse_optional(words, scope)? }))
    }

    /// `http-request capture ... len N` makes a request capture of N bytes: append `(empty name, N)` to the
    /// frontend's `Captures::request`.
    pub fn declared_capture(&self) -> Option<usize> {
        match &self.0.action {
            Action::Capture { length, .. } => *length,
            _ => None,
        }
    }

    /// The word, when the rule is accepted though it means nothing in this engine.
    pub fn without_meaning(&self) -> Option<&'static str> {
        match &self.0.action {
            Action::Nothing(word) => Some(word),
            _ => None,
        }
    }
}

impl ResponseRule {
    /// Reads a line; the cursor stands behind `http-response`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<ResponseRule> {
        parse::rule(words, scope, parse::Ruleset::Response).map(ResponseRule)
    }

    /// Reads a line; the cursor stands behind `http-after-response`.
    pub fn parse_after(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<ResponseRule> {
        parse::rule(words, scope, parse::Ruleset::AfterResponse).map(ResponseRule)
    }

    /// The word, when the rule is accepted though it means nothing in this engine.
    pub fn without_meaning(&self) -> Option<&'static str> {
        match &self.0.action {
            Action::Nothing(word) => Some(word),
            _ => None,
        }
    }
}

impl TcpRule {
    /// Reads a line; the cursor stands behind `tcp-request`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<TcpRule> {
        let of_connection = match words.demand("`connection`, `session` or `content`")? {
            "connection" | "session" => true,
            "content" => false,
            "inspect-delay" => {
                let what = "`tcp-request inspect-delay`: the content of connections is not waited for";
                return Err(words.problem_before(what, "", "leave it out, if no rule looks at content"));
            }
            other => {
                let what = format!("there is no `tcp-request {other}`");
                return Err(words.problem_before(&what, "`connection`, `session` or `content`", ""));
            }
        };
        let set = if of_connection { parse::Ruleset::Connection } else { parse::Ruleset::Content };
        Ok(TcpRule { rule: parse::rule(words, scope, set)?, of_connection })
    }

    /// It is a `tcp-request connection` or `session` rule (else `content`).
    pub fn of_connection(&self) -> bool {
        self.of_connection
    }
}

/// Applies `http-request` rules in order.
pub fn request(rules: &[RequestRule], exchange: &mut Exchange, running: &Running) -> Verdict {
    run(rules.iter().map(|rule| &rule.0), exchange, running)
}

/// Applies `http-response` rules in order: to an answer of a server. `exchange.side` is `Response`.
pub fn response(rules: &[ResponseRule], exchange: &mut Exchange, running: &Running) -> Verdict {
    run(rules.iter().map(|rule| &rule.0), exchange, running)
}

/// Applies `http-after-response` rules in order: to every answer, of a server or of this proxy, after `http-response`.
/// They only change `exchange.response`.
pub fn after_response(rules: &[ResponseRule], exchange: &mut Exchange, running: &Running) {
    run(rules.iter().map(|rule| &rule.0), exchange, running);
}

/// Applies the `tcp-request connection` rules, or the `content` ones.
pub fn tcp(rules: &[TcpRule], of_connection: bool, exchange: &mut Exchange, running: &Running) -> Verdict {
    let chosen = rules.iter().filter(|rule| rule.of_connection == of_connection);
    run(chosen.map(|rule| &rule.rule), exchange, running)
}

/// A byte of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn run<'r>(rules: impl Iterator<Item = &'r Rule>, exchange: &mut Exchange, running: &Running) -> Verdict {
    for rule in rules {
        if !applies(rule.condition.as_ref(), &Context { exchange, running }) {
            continue;
        }
        match rule.action.apply(exchange, running) {
            action::Outcome::Next => {}
            action::Outcome::Stop => return Verdict::Continue,
            action::Outcome::Verdict(verdict) => return verdict,
        }
    }
    Verdict::Continue
}
