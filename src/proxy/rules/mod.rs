//! Rules: what the file says to do with an exchange (`http-request`, `http-response`, `tcp-request`). They act on
//! [`Exchange`] alone; what has to be done on a wire is returned as a [`Verdict`].

mod reply;

pub use reply::{Reply, ReplyBody, reason};

use super::config::words::{Parsed, Words};
use super::exchange::Exchange;
use super::expression::{Condition, Scope};
use super::state::Running;

/// What has to be done next.
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
pub struct RequestRule {
    condition: Option<Condition>,
}

/// One `http-response` or `http-after-response` line.
#[derive(Clone, Debug)]
pub struct ResponseRule {
    condition: Option<Condition>,
}

/// One `tcp-request connection` or `tcp-request content` line.
#[derive(Clone, Debug)]
pub struct TcpRule {
    condition: Option<Condition>,
}

impl RequestRule {
    /// Reads a line; the cursor stands behind `http-request`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<RequestRule> {
        let _ = scope;
        Err(words.problem("`http-request` is not supported yet", "", ""))
    }

    /// Reads a line; the cursor stands behind `redirect`.
    pub fn parse_redirect(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<RequestRule> {
        let _ = scope;
        Err(words.problem("`redirect` is not supported yet", "", ""))
    }

    /// `http-request capture ... len N` makes a request capture of N bytes: append `(empty name, N)` to the
    /// frontend's `Captures::request`.
    pub fn declared_capture(&self) -> Option<usize> {
        let _ = &self.condition;
        None
    }
}

impl ResponseRule {
    /// Reads a line; the cursor stands behind `http-response`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<ResponseRule> {
        let _ = scope;
        Err(words.problem("`http-response` is not supported yet", "", ""))
    }

    /// Reads a line; the cursor stands behind `http-after-response`.
    pub fn parse_after(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<ResponseRule> {
        let _ = scope;
        Err(words.problem("`http-after-response` is not supported yet", "", ""))
    }
}

impl TcpRule {
    /// Reads a line; the cursor stands behind `tcp-request`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<TcpRule> {
        let _ = scope;
        Err(words.problem("`tcp-request` is not supported yet", "", ""))
    }

    /// It is a `tcp-request connection` rule (else `content`).
    pub fn of_connection(&self) -> bool {
        let _ = &self.condition;
        false
    }
}

/// Applies `http-request` rules in order.
pub fn request(rules: &[RequestRule], exchange: &mut Exchange, running: &Running) -> Verdict {
    let _ = (rules.iter().map(|rule| &rule.condition), exchange, running);
    Verdict::Continue
}

/// Applies `http-response` rules (or `http-after-response` rules) in order.
pub fn response(rules: &[ResponseRule], exchange: &mut Exchange, running: &Running) -> Verdict {
    let _ = (rules.iter().map(|rule| &rule.condition), exchange, running);
    Verdict::Continue
}

/// Applies the `tcp-request connection` rules, or the `content` ones.
pub fn tcp(rules: &[TcpRule], of_connection: bool, exchange: &mut Exchange, running: &Running) -> Verdict {
    let _ = (rules, of_connection, exchange, running);
    Verdict::Continue
}
