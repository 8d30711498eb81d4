//! Sample expressions: a fetch, then converters (7 of the manual); conditions over them (`acl`, `if`, `unless`); log
//! formats (8.2.4); variables. Compiled when the file is read, evaluated over an [`Exchange`] without a look-up by name.

use super::config::words::{Parsed, Words};
use super::exchange::Exchange;

/// A fetch and its converters: `hdr(host),lower`.
#[derive(Clone, Debug)]
pub struct Expression {}

/// A value (7.1).
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Sample {
    Bool(bool),
    Integer(i64),
    Address(std::net::IpAddr),
    /// `str` and `bin`.
    Bytes(Vec<u8>),
}

/// `if` or `unless` and what follows: disjunction of conjunctions of possibly negated acls.
#[derive(Clone, Debug)]
pub struct Condition {}

/// A log format string, compiled.
#[derive(Clone, Debug, Default)]
pub struct LogFormat {}

/// Variables of one scope.
#[derive(Clone, Debug, Default)]
pub struct Variables {}

impl Expression {
    /// Reads one expression (one word, or several when arguments stand in quotes).
    pub fn parse(words: &mut Words<'_>) -> Parsed<Expression> {
        Err(words.problem("expressions are not supported yet", "", ""))
    }

    /// Its value; `None` when the exchange has none.
    pub fn evaluate(&self, exchange: &Exchange) -> Option<Sample> {
        let _ = exchange;
        None
    }
}
