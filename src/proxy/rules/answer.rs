//! Answers that rules describe: `deny`, `tarpit`, `return` (4.2 of the manual, `http-request return`).

use super::parse::{header, one_line};
use super::reply::{ErrorText, Reply};
use crate::proxy::config::words::{Parsed, Words};
use crate::proxy::exchange::Exchange;
use crate::proxy::expression::{Context, LogFormat, Scope};
use crate::proxy::state::Running;
use std::path::Path;
use std::sync::Arc;

/// An answer as the file describes it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    body: Body,
    content_type: Option<Box<[u8]>>,
    headers: Vec<(Box<[u8]>, LogFormat)>,
}

#[derive(Clone, Debug)]
enum Body {
    /// No body at all.
    Nothing,
    /// The section's errorfile, else the built-in text.
    ErrorFiles,
    /// A file that holds a whole answer.
    ErrorFile(Arc<[u8]>),
    Plain(Arc<[u8]>),
    Format(LogFormat),
}

/// Largest file that is answered: HAProxy's buffer less its reserve.
const LARGEST: usize = 15_360;

/// The error text of the backend, else of the frontend, else the built-in one.
pub(super) fn error(context: &Context<'_>, status: u16) -> Reply {
    match (context.backend(), context.frontend()) {
        (backend, Some(frontend)) => Reply::error_of(backend, frontend, status),
        (_, None) => Reply::built_in(status),
    }
}

impl Answer {
    /// Reads the words behind `deny`, `tarpit` or `return`, up to the condition.
    pub(super) fn parse(
        words: &mut Words<'_>,
        scope: &Scope<'_>,
        status: u16,
        returns: bool,
    ) -> Parsed<Answer> {
        let body = if returns { Body::Nothing } else { Body::ErrorFiles };
        let mut answer = Answer { status, body, content_type: None, headers: Vec::new() };
        let mut body_word: Option<String> = None;
        while let Some(word) = words.peek() {
            match word {
                "if" | "unless" => break,
                "status" | "deny_status" => {
                    words.next();
                    // HAProxy: a `status` alone has no body, a `deny_status` has the error text.
                    if word == "status" && body_word.is_none() {
                        answer.body = Body::Nothing;
                    }
                    answer.status = parse_status(words)?;
                }
                "content-type" => {
                    words.next();
                    answer.content_type = Some(one_line(words, "a content type")?.as_bytes().into());
                }
                "hdr" => {
                    words.next();
                    answer.headers.push((header(words)?, LogFormat::parse_line(words, scope)?));
                }
                "default-errorfiles" | "errorfile" | "file" | "lf-file" | "string" | "lf-string" => {
                    if let Some(before) = body_word.replace(word.to_owned()) {
                        let what = format!("`{word}` stands behind `{before}`: an answer has one body");
                        return Err(words.problem(&what, "one of them", ""));
                    }
                    answer.body = parse_body(words, scope)?;
                }
                "errorfiles" => {
                    let what = "`errorfiles`: sections `http-errors` are not supported yet";
                    return Err(words.problem(what, "", "name the file with `errorfile`"));
                }
                _ => {
                    let what = format!("`{word}` is no part of an answer");
                    let known = "status, content-type, default-errorfiles, errorfile, file, lf-file, string, \
                                 lf-string, hdr, or a condition";
                    return Err(words.problem(&what, known, ""));
                }
            }
        }
        answer.check(words)?;
        Ok(answer)
    }

    fn check(&self, words: &Words<'_>) -> Parsed<()> {
        match &self.body {
            Body::ErrorFiles if !ErrorText::exists(self.status) => {
                let what = format!("status {}: there is no error text", self.status);
                Err(words.problem_before(&what, "a status that has one, or a `string`", ""))
            }
            Body::Plain(content) if !content.is_empty() && self.content_type.is_none() => {
                Err(words.problem_before("the body has no type", "`content-type` and a type", ""))
            }
            Body::Format(_) if self.content_type.is_none() => {
                Err(words.problem_before("the body has no type", "`content-type` and a type", ""))
            }
            _ => Ok(()),
        }
    }

    /// The answer for this exchange.
    pub(super) fn make(&self, exchange: &Exchange, running: &Running) -> Reply {
        let context = Context { exchange, running };
        let body = match &self.body {
            Body::ErrorFiles => return error(&context, self.status),
            Body::ErrorFile(content) => {
                return Reply::File { status: self.status, content: Arc::clone(content) };
            }
            Body::Nothing => Vec::new(),
            Body::Plain(content) => content.to_vec(),
            Body::Format(format) => {
                let mut body = Vec::new();
                format.render(&context, &mut body);
                body
            }
        };
        let mut reply = Reply::message(self.status, Vec::new());
        if let Reply::Message { head, body: place } = &mut reply {
            head.fields.clear();
            for (name, format) in &self.headers {
                let mut value = Vec::new();
                format.render(&context, &mut value);
                if !value.is_empty() {
                    head.fields.push(name, &value);
                }
            }
            if self.status != 204 {
                head.fields.push(b"content-length", body.len().to_string().as_bytes());
            }
            if let (Some(kind), false) = (&self.content_type, body.is_empty()) {
                head.fields.push(b"content-type", kind);
            }
            *place = body.into();
        }
        reply
    }
}

fn parse_status(words: &mut Words<'_>) -> Parsed<u16> {
    let word = words.demand("a status")?;
    match word.parse::<u16>() {
        Ok(status) if (200..=599).contains(&status) => Ok(status),
        _ => Err(words.problem_before(&format!("`{word}` is no status"), "200 to 599", "")),
    }
}

fn parse_body(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Body> {
    let kind = words.next().unwrap_or("");
    match kind {
        "default-errorfiles" => Ok(Body::ErrorFiles),
        "string" => Ok(Body::Plain(words.demand("a text")?.as_bytes().into())),
        "lf-string" => LogFormat::parse_text(words, scope).map(Body::Format),
        _ => {
            let path = words.demand("a file")?;
            let content = (scope.read)(Path::new(path)).map_err(|error| {
                words.problem_before(&format!("{path}: {error}"), "a file that can be read", "")
            })?;
            if content.len() > LARGEST {
                let what = format!("{path} is larger than {LARGEST} bytes");
                return Err(words.problem_before(&what, "a file that fits into a buffer", ""));
            }
            match kind {
                "errorfile" => Ok(Body::ErrorFile(content.into())),
                "file" => Ok(Body::Plain(content.into())),
                _ => {
                    let text = String::from_utf8_lossy(&content);
                    LogFormat::from_text(words, &text, scope).map(Body::Format)
                }
            }
        }
    }
}
