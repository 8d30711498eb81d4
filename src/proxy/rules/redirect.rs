//! `redirect` (4.2 of the manual).

use super::parse::one_line;
use super::reply::Reply;
use crate::proxy::config::words::{Parsed, Words};
use crate::proxy::exchange::{Exchange, Side};
use crate::proxy::expression::{Context, LogFormat, Scope};
use crate::proxy::state::Running;

/// A redirection as the file describes it.
#[derive(Clone, Debug)]
pub(super) struct Redirect {
    kind: Kind,
    to: LogFormat,
    status: u16,
    drop_query: bool,
    append_slash: bool,
    ignore_empty: bool,
    /// Whole value of `set-cookie`.
    cookie: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Location,
    Prefix,
    Scheme,
}

impl Redirect {
    /// Reads the words behind `redirect`, up to the condition.
    pub(super) fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Redirect> {
        let mut to = None;
        let (mut status, mut cookie) = (302, None);
        let (mut drop_query, mut append_slash, mut ignore_empty) = (false, false, false);
        while let Some(word) = words.peek() {
            if matches!(word, "if" | "unless") {
                break;
            }
            words.next();
            match word {
                "location" => to = Some((Kind::Location, LogFormat::parse_line(words, scope)?)),
                "prefix" => to = Some((Kind::Prefix, LogFormat::parse_line(words, scope)?)),
                "scheme" => to = Some((Kind::Scheme, LogFormat::parse_line(words, scope)?)),
                "code" => {
                    let code = words.demand("a status")?;
                    status = match code.parse() {
                        Ok(code @ (301 | 302 | 303 | 307 | 308)) => code,
                        _ => {
                            let what = format!("`{code}` is no status of a redirection");
                            return Err(words.problem_before(&what, "301, 302, 303, 307 or 308", ""));
                        }
                    };
                }
                "set-cookie" => {
                    let name = one_line(words, "a cookie, as in `SEEN=1`")?;
                    cookie = Some(format!("{name}; path=/;").into_bytes().into());
                }
                "clear-cookie" => {
                    let name = one_line(words, "a cookie, as in `USERID=`")?;
                    cookie = Some(format!("{name}; path=/; Max-Age=0;").into_bytes().into());
                }
                "drop-query" => drop_query = true,
                "append-slash" => append_slash = true,
                "ignore-empty" => ignore_empty = true,
                _ => {
                    let what = format!("`{word}` is no part of a redirection");
                    let known = "location, prefix, scheme, code, set-cookie, clear-cookie, drop-query, \
                                 append-slash, ignore-empty, or a condition";
                    return Err(words.problem_before(&what, known, ""));
                }
            }
        }
        let Some((kind, to)) = to else {
            return Err(words.problem(
                "the redirection leads nowhere",
                "`location`, `prefix` or `scheme`",
                "",
            ));
        };
        Ok(Redirect { kind, to, status, drop_query, append_slash, ignore_empty, cookie })
    }

    /// The answer; `None` when the location is empty and `ignore-empty` says to go on.
    pub(super) fn make(&self, exchange: &Exchange, running: &Running) -> Option<Reply> {
        let context = Context { exchange, running };
        let mut location = Vec::new();
        // A prefix of exactly `/` means the same place.
        if !(self.kind == Kind::Prefix && self.to.as_literal() == Some(b"/")) {
            self.to.render(&context, &mut location);
        }
        if location.is_empty() && self.ignore_empty {
            return None;
        }
        if exchange.side == Side::Request {
            self.append_target(exchange, &mut location);
        }
        let mut reply = Reply::message(self.status, Vec::new());
        if let Reply::Message { head, .. } = &mut reply {
            head.fields.push(b"location", &location);
            if matches!(self.status, 302 | 303 | 307) {
                head.fields.push(b"cache-control", b"no-cache");
            }
            if let Some(cookie) = &self.cookie {
                head.fields.push(b"set-cookie", cookie);
            }
        }
        Some(reply)
    }

    /// What `prefix` and `scheme` keep of the request.
    fn append_target(&self, exchange: &Exchange, location: &mut Vec<u8>) {
        if self.kind == Kind::Location {
            return;
        }
        let request = &exchange.request;
        let start = request.path_start();
        let mut path = &request.target[start..];
        if self.drop_query {
            let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
            path = &path[..end];
        }
        if path.is_empty() {
            path = b"/";
        }
        if self.kind == Kind::Scheme {
            location.extend_from_slice(b"://");
            location.extend_from_slice(request.fields.get(b"host").unwrap_or_default());
        }
        location.extend_from_slice(path);
        if self.append_slash && location.last().is_some_and(|byte| *byte != b'/') {
            location.push(b'/');
        }
    }
}
