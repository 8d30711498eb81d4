//! From the words of a line to an [`Expression`].

use super::arguments::{self, Arguments};
use super::{Compiled, Conversion, Expression, Kind, Moment, Scope, convert, fetch};
use crate::proxy::config::words::{Parsed, Words};
use crate::proxy::exchange::Side;
use crate::settings::{Problem, Site, problem};
use std::sync::Arc;

/// What is wrong, and where in the text (in bytes from its beginning).
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) next: String,
}

impl Fault {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Fault {
        Fault { at, what: what.into(), expected: String::new(), next: String::new() }
    }

    /// As a problem of the word that was taken last.
    pub(super) fn into_problem(self, words: &Words<'_>, quoted: bool) -> Box<Problem> {
        let mut site = words.site_before();
        if let (Site::At { column, .. }, false) = (&mut site, quoted) {
            let before = words.before();
            *column += before.get(..self.at).map_or(0, |part| part.chars().count());
        }
        Box::new(Problem { site, what: self.what, expected: self.expected, next: self.next })
    }
}

/// Takes a word and reads it as an expression; then words that are converters.
pub(super) fn expression(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Expression> {
    let quoted = words.peek_word().is_some_and(|word| word.quoted);
    let word = words.demand("an expression, as in `hdr(host),lower`")?;
    let mut reader = match Reader::start(word, 0, scope) {
        Ok(reader) => reader,
        Err(fault) => return Err(fault.into_problem(words, quoted)),
    };
    if reader.at < word.len() {
        let rest = &word[reader.at..];
        let fault = Fault::new(reader.at, format!("`{rest}` is too much behind an expression"));
        return Err(fault.into_problem(words, quoted));
    }
    while let Some(next) = words.peek_word() {
        let name = next.text.split('(').next().unwrap_or("");
        if convert::find(name).is_none() && super::map::of_name(name).is_none() {
            break;
        }
        let text = words.next().unwrap_or("");
        let mut more = Reader { text, at: 0, scope, compiled: reader.compiled };
        let read = more.converter().and_then(|()| more.converters());
        match read {
            Ok(()) if more.at == text.len() => {}
            Ok(()) => {
                let fault =
                    Fault::new(more.at, format!("`{}` is too much behind a converter", &text[more.at..]));
                return Err(fault.into_problem(words, next.quoted));
            }
            Err(fault) => return Err(fault.into_problem(words, next.quoted)),
        }
        reader.compiled = more.compiled;
        reader.compiled.text.push(' ');
        reader.compiled.text.push_str(text);
    }
    Ok(Expression(Arc::new(reader.compiled)))
}

/// Reads an expression that begins at `at` of a text; the expression, and where it ends.
pub(super) fn within(text: &str, at: usize, scope: &Scope<'_>) -> Result<(Expression, usize), Fault> {
    let reader = Reader::start(text, at, scope)?;
    Ok((Expression(Arc::new(reader.compiled)), reader.at))
}

struct Reader<'t, 's> {
    text: &'t str,
    at: usize,
    scope: &'t Scope<'s>,
    compiled: Compiled,
}

/// A name may hold anything but what ends it.
fn name_end(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')))
        .unwrap_or(text.len())
}

/// Name and raw arguments at a place, and where they end.
fn call(text: &str, at: usize) -> Result<(&str, Vec<Vec<u8>>, usize), Fault> {
    let name = &text[at..at + name_end(&text[at..])];
    let mut end = at + name.len();
    let mut list = Vec::new();
    if text[end..].starts_with('(') {
        let split = arguments::split(&text.as_bytes()[end + 1..]);
        let Some((words, close)) = split else {
            return Err(Fault::new(end, format!("the parenthesis behind `{name}` is not closed")));
        };
        list = words;
        end += close + 2;
    }
    Ok((name, list, end))
}

impl<'t, 's> Reader<'t, 's> {
    fn start(text: &'t str, at: usize, scope: &'t Scope<'s>) -> Result<Reader<'t, 's>, Fault> {
        let (name, list, end) = call(text, at)?;
        let fetch = fetch::find(name).ok_or_else(|| unknown_fetch(at, name))?;
        if let Some(what) = not_here(fetch, scope.moment) {
            let mut fault = Fault::new(at, format!("`{name}` has no value here: {what}"));
            fault.next =
                "keep it in a variable (`http-request set-var(txn.name) ...`) or capture it".to_owned();
            return Err(fault);
        }
        let fault = |what: String| Fault::new(at, format!("`{name}`: {what}"));
        let mut arguments =
            Arguments::read(&list, text[at..end].ends_with(')'), fetch.slots, fetch.required, scope)
                .map_err(fault)?;
        arguments.side = fetch.side;
        if let Some(prepare) = fetch.prepare {
            prepare(&mut arguments, scope).map_err(fault)?;
        }
        let compiled =
            Compiled { fetch, arguments, converters: Vec::new(), kind: fetch.kind, text: String::new() };
        let mut reader = Reader { text, at: end, scope, compiled };
        reader.converters()?;
        reader.compiled.text = text[at..reader.at].to_owned();
        Ok(reader)
    }

    fn converters(&mut self) -> Result<(), Fault> {
        while self.text[self.at..].starts_with(',') {
            self.at += 1;
            self.converter()?;
        }
        Ok(())
    }

    fn converter(&mut self) -> Result<(), Fault> {
        let at = self.at;
        let (name, list, end) = call(self.text, at)?;
        let fault = |what: String| Fault::new(at, format!("`{name}`: {what}"));
        let called = self.text[at..end].ends_with(')');
        let known = convert::find(name);
        let (run, input, output, arguments) = if let Some(row) = known {
            let mut arguments =
                Arguments::read(&list, called, row.slots, row.required, self.scope).map_err(fault)?;
            if let Some(prepare) = row.prepare {
                prepare(&mut arguments, self.scope).map_err(fault)?;
            }
            (row.run, row.input, row.output, arguments)
        } else if super::map::of_name(name).is_some() {
            let slots = [arguments::Slot::Text; 2];
            let mut arguments = Arguments::read(&list, called, &slots, 1, self.scope).map_err(fault)?;
            let (input, output) = convert::prepare_map(name, &mut arguments, self.scope).map_err(fault)?;
            (convert::map as convert::Run, input, output, arguments)
        } else {
            return Err(unknown_converter(at, name));
        };
        let before = self.compiled.kind;
        if !before.casts_to(input) {
            let what =
                format!("`{name}` takes {}, but what stands before it gives {}", input.name(), before.name());
            return Err(Fault::new(at, what));
        }
        self.compiled.converters.push(Conversion { run, input, arguments });
        self.compiled.kind = output;
        self.at = end;
        Ok(())
    }
}

/// Why a fetch cannot have a value at that moment.
fn not_here(fetch: &fetch::Fetch, moment: Moment) -> Option<&'static str> {
    match (moment, fetch.side) {
        (Moment::Request, Some(Side::Response)) => Some("there is no response yet"),
        (Moment::Response, Some(Side::Request)) => Some("the request has been sent"),
        _ => None,
    }
}

fn refusal(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, why)| (*why).to_owned())
}

fn unknown_fetch(at: usize, name: &str) -> Fault {
    unknown(at, "fetch", name, refusal(name, fetch::REFUSED), fetch::all().map(|row| row.name))
}

fn unknown_converter(at: usize, name: &str) -> Fault {
    unknown(at, "converter", name, refusal(name, convert::REFUSED), convert::all().map(|row| row.name))
}

fn unknown<'k>(
    at: usize,
    what: &str,
    name: &str,
    why: Option<String>,
    known: impl Iterator<Item = &'k str>,
) -> Fault {
    let mut fault = match why {
        Some(why) => return Fault::new(at, format!("{what} `{name}`: {why}")),
        None if name.is_empty() => return Fault::new(at, format!("the name of a {what} is missing")),
        None => Fault::new(at, format!("there is no {what} `{name}`")),
    };
    if let Some(near) = problem::nearest(name, known) {
        fault.next = format!("did you mean `{near}`?");
    }
    fault
}

/// Whether a type can be compared without `-m`.
pub(super) fn default_method(kind: Kind) -> Option<super::pattern::Method> {
    use super::pattern::Method;
    match kind {
        Kind::Bool => Some(Method::Bool),
        Kind::Integer => Some(Method::Integer),
        Kind::Address => Some(Method::Address),
        Kind::Text | Kind::Method => Some(Method::Exact),
        Kind::Any | Kind::Binary => None,
    }
}
