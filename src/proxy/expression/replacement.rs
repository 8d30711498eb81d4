//! What rules replace and delete: a regular expression with a replacement that may be made for each request; names of
//! headers by a match method.

use super::pattern::{self, Method, Patterns};
use super::substitution::{self, Substitution};
use super::{Context, LogFormat, Sample, Scope};
use crate::proxy::config::words::{Parsed, Words};
use regex::bytes::Regex;

/// A regular expression, and a format that makes what takes the place of the whole text that it matched in.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Dynamic(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Fixed(Box<Substitution>),
    Made(Regex, Box<LogFormat>),
}

impl Dynamic {
    /// Reads `REGEX FORMAT`.
    pub(in crate::proxy) fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Dynamic> {
        let source = words.demand("a regular expression")?.as_bytes();
        let regex = pattern::compile(source, false).map_err(|what| words.problem_before(&what, "", ""))?;
        let format = LogFormat::parse_line(words, scope)?;
        let kind = match format.as_literal() {
            Some(text) => {
                let fixed = Substitution::new(source, text, false);
                Kind::Fixed(Box::new(fixed.map_err(|what| words.problem_before(&what, "", ""))?))
            }
            None => Kind::Made(regex, Box::new(format)),
        };
        Ok(Dynamic(kind))
    }

    /// What takes the place of `text`; `None` when it does not match.
    pub(in crate::proxy) fn expand(&self, text: &[u8], context: &Context<'_>) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Fixed(substitution) => substitution.expand(text),
            Kind::Made(regex, format) => {
                let captures = regex.captures(text)?;
                let mut replacement = Vec::new();
                format.render(context, &mut replacement);
                substitution::expand(&captures, &replacement)
            }
        }
    }
}

/// Which headers are deleted.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct HeaderNames(Patterns);

impl HeaderNames {
    /// Reads `NAME [-m METHOD]`.
    pub(in crate::proxy) fn parse(words: &mut Words<'_>) -> Parsed<HeaderNames> {
        let name = words.demand("the name of a header")?.as_bytes().to_vec();
        let mut method = Method::Exact;
        if words.take("-m") {
            let text = words.demand("a match method")?;
            method = match Method::find(text) {
                Some(
                    known @ (Method::Exact | Method::Begin | Method::End | Method::Within | Method::Regex),
                ) => known,
                _ => {
                    let what = format!("headers cannot be deleted by `-m {text}`");
                    return Err(words.problem_before(&what, "str, beg, end, sub or reg", ""));
                }
            };
        }
        match Patterns::new(method, method != Method::Regex, &[name]) {
            Ok(patterns) => Ok(HeaderNames(patterns)),
            Err(what) => Err(words.problem_before(&what, "", "")),
        }
    }

    /// Whether a name (in lower case) is one of them.
    pub(in crate::proxy) fn matches(&self, name: &[u8]) -> bool {
        self.0.find(&Sample::text(name)).is_some()
    }
}
