//! Sample expressions: a fetch, then converters (7 of the manual); conditions over them (`acl`, `if`, `unless`); log
//! formats (8.2.6); variables. Compiled when the file is read (with a [`Scope`]), evaluated over a [`Context`] without a
//! look-up by name.

mod acl;
mod arguments;
mod base64;
mod calendar;
mod condition;
mod context;
mod convert;
mod credentials;
mod fetch;
#[cfg(test)]
mod fuzz_tests;
mod hash;
mod log_format;
mod map;
mod parse;
mod pattern;
mod replacement;
mod sample;
mod scope;
mod substitution;
mod variables;

pub use acl::{Acl, Acls};
pub use condition::{Condition, applies};
pub use context::Context;
pub(in crate::proxy) use fetch::basic_credentials;
pub use log_format::LogFormat;
pub use sample::{Kind, Sample};
pub use scope::{Moment, Names, Scope, SectionName};
pub use variables::{Variable, VariableNames, VariableScope, Variables};

use super::config::words::{Parsed, Words};

pub use credentials::check_hash;
pub(in crate::proxy) use fetch::header_segments;
pub(in crate::proxy) use replacement::{Dynamic, HeaderNames};

use arguments::Arguments;
use std::sync::Arc;

/// A fetch and its converters: `hdr(host),lower`.
#[derive(Clone, Debug)]
pub struct Expression(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    fetch: &'static fetch::Fetch,
    arguments: Arguments,
    converters: Vec<Conversion>,
    /// Type of what comes out.
    kind: Kind,
    /// As written, for messages.
    text: String,
}

#[derive(Debug)]
struct Conversion {
    run: convert::Run,
    input: Kind,
    arguments: Arguments,
}

impl Expression {
    /// Reads one expression: one word, `fetch(arguments),converter(arguments),...`; converters may follow as words of
    /// their own.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Expression> {
        parse::expression(words, scope)
    }

    /// Its value; `None` when the exchange has none. Of several values of one header the last is taken.
    pub fn evaluate<'e>(&'e self, context: &Context<'e>) -> Option<Sample<'e>> {
        let compiled = &*self.0;
        if !compiled.is_here(context) {
            return None;
        }
        let value = match compiled.fetch.run {
            fetch::Run::One(run) | fetch::Run::Many(run, _) => run(context, &compiled.arguments)?,
        };
        compiled.convert(value, context)
    }

    /// Shows each of its values until `visit` says `true`; whether it did. What conditions do.
    pub fn any<'e>(&'e self, context: &Context<'e>, mut visit: impl FnMut(&Sample<'e>) -> bool) -> bool {
        let compiled = &*self.0;
        if !compiled.is_here(context) {
            return false;
        }
        let mut visit = |value| compiled.convert(value, context).is_some_and(|value| visit(&value));
        match compiled.fetch.run {
            fetch::Run::One(run) => run(context, &compiled.arguments).is_some_and(visit),
            fetch::Run::Many(_, each) => each(context, &compiled.arguments, &mut visit),
        }
    }

    /// Type of its value.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether converters stand behind the fetch.
    fn is_converted(&self) -> bool {
        !self.0.converters.is_empty()
    }

    /// As written.
    pub fn as_written(&self) -> &str {
        &self.0.text
    }
}

impl Compiled {
    /// Whether the message that the fetch needs is the one that is being handled.
    fn is_here(&self, context: &Context<'_>) -> bool {
        self.fetch.side.is_none_or(|side| side == context.exchange.side)
    }

    fn convert<'e>(&'e self, mut value: Sample<'e>, context: &Context<'e>) -> Option<Sample<'e>> {
        for step in &self.converters {
            value = (step.run)(convert::cast(value, step.input)?, &step.arguments, context)?;
        }
        Some(value)
    }
}

/// A word of the expression language, for listings.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: &'static str,
    /// Type of its value.
    pub kind: &'static str,
    pub help: &'static str,
}

/// Every fetch.
pub fn fetches() -> impl Iterator<Item = Entry> {
    fetch::all().map(|row| Entry { name: row.name, kind: row.kind.name(), help: row.help })
}

/// Every converter but the maps (`map_METHOD_TYPE`).
pub fn converters() -> impl Iterator<Item = Entry> {
    convert::all().map(|row| Entry { name: row.name, kind: row.output.name(), help: row.help })
}
