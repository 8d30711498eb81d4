//! Conditions (7.2 of the manual): named and anonymous acls, negated, and-ed, or-ed.

use super::{Context, Scope};
use crate::proxy::config::words::{Parsed, Words};

/// `if` or `unless` and what follows: disjunction of conjunctions of possibly negated acls.
#[derive(Clone, Debug)]
pub struct Condition {}

/// One `acl` line.
#[derive(Clone, Debug)]
pub struct Acl {}

/// The acls of a section, in order.
#[derive(Clone, Debug, Default)]
pub struct Acls {}

impl Condition {
    /// Reads `if ...` or `unless ...` up to the end of the line; the cursor stands at that word.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Condition> {
        let _ = scope;
        Err(words.problem("conditions are not supported yet", "", ""))
    }

    /// The same where a condition may be missing: nothing left is no condition, another word is a problem.
    pub fn parse_optional(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Option<Condition>> {
        match words.peek() {
            None => Ok(None),
            Some("if" | "unless") => Condition::parse(words, scope).map(Some),
            Some(_) => words.end().map(|()| None),
        }
    }

    /// Whether it holds.
    pub fn holds(&self, context: &Context<'_>) -> bool {
        let _ = context;
        false
    }
}

impl Acl {
    /// Reads `acl NAME CRITERION [flags] [operator] [value]...`; the cursor stands behind `acl`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Acl> {
        let _ = scope;
        Err(words.problem("acls are not supported yet", "", ""))
    }
}

impl Acls {
    /// Adds a line; lines of one name are or-ed.
    pub fn add(&mut self, acl: Acl) {
        let _ = acl;
    }
}
