//! Sample expressions: a fetch, then converters (7 of the manual); conditions over them (`acl`, `if`, `unless`); log
//! formats (8.2.6); variables. Compiled when the file is read (with a [`Scope`]), evaluated over a [`Context`] without a
//! look-up by name.

mod condition;
mod context;
mod log_format;
mod sample;
mod scope;
mod variables;

pub use condition::{Acl, Acls, Condition};
pub use context::Context;
pub use log_format::LogFormat;
pub use sample::{Kind, Sample};
pub use scope::{Names, Scope, SectionName};
pub use variables::{Variable, VariableNames, VariableScope, Variables};

use super::config::words::{Parsed, Words};

/// A fetch and its converters: `hdr(host),lower`.
#[derive(Clone, Debug)]
pub struct Expression {}

impl Expression {
    /// Reads one expression: one word, `fetch(arguments),converter(arguments),...`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Expression> {
        let _ = scope;
        Err(words.problem("expressions are not supported yet", "", ""))
    }

    /// Its value; `None` when the exchange has none.
    pub fn evaluate<'e>(&'e self, context: &Context<'e>) -> Option<Sample<'e>> {
        let _ = context;
        None
    }
}
