//! Conditions (7.2 of the manual): named and anonymous acls, negated, and-ed, or-ed.

use super::acl::{self, Test};
use super::{Acls, Context, Moment, Scope};
use crate::proxy::config::words::{Parsed, Words};
use std::sync::Arc;

/// `if` or `unless` and what follows: disjunction of conjunctions of possibly negated acls.
#[derive(Clone, Debug)]
pub struct Condition {
    unless: bool,
    any: Vec<Vec<Term>>,
}

#[derive(Clone, Debug)]
struct Term {
    negated: bool,
    /// Lines of a named acl, any of which is enough.
    tests: Arc<[Arc<Test>]>,
}

impl Condition {
    /// Reads `if ...` or `unless ...` up to the end of the line; the cursor stands at that word.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Condition> {
        // HAProxy lets conditions look at what is not there: they just do not match.
        let scope = &Scope { moment: Moment::Any, ..*scope };
        let unless = if words.take("if") {
            false
        } else if words.take("unless") {
            true
        } else {
            return Err(words.problem("a condition is missing", "`if` or `unless`", ""));
        };
        let mut any = vec![Vec::new()];
        while words.peek().is_some() {
            let last = any.len() - 1;
            if words.take("or") || words.take("||") {
                if any[last].is_empty() {
                    return Err(words.problem_before("`or` has nothing before it", "the name of an acl", ""));
                }
                any.push(Vec::new());
                continue;
            }
            let term = term(words, scope)?;
            any[last].push(term);
        }
        if any.last().is_none_or(Vec::is_empty) {
            let before = words.before();
            return Err(words.problem(
                &format!("nothing follows `{before}`"),
                "the name of an acl, or `{ ... }`",
                "",
            ));
        }
        Ok(Condition { unless, any })
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
        let found = self.any.iter().any(|all| {
            all.iter().all(|term| term.negated != term.tests.iter().any(|test| test.holds(context)))
        });
        found != self.unless
    }
}

/// A condition that may be missing: then the rule always applies.
pub fn applies(condition: Option<&Condition>, context: &Context<'_>) -> bool {
    condition.is_none_or(|condition| condition.holds(context))
}

/// One acl: `name`, `!name`, `! name`, `{ criterion ... }`.
fn term(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Term> {
    let mut negated = false;
    while words.take("!") {
        negated = !negated;
    }
    if words.take("{") || words.take("!{") {
        negated ^= words.before() == "!{";
        let test = acl::anonymous(words, scope)?;
        return Ok(Term { negated, tests: [Arc::new(test)].into() });
    }
    let word = words.demand("the name of an acl")?;
    let name = word.trim_start_matches('!');
    negated ^= (word.len() - name.len()) % 2 == 1;
    match named(scope.acls, name, scope) {
        Some(tests) => Ok(Term { negated, tests }),
        None => Err(acl::unknown(words, scope, name)),
    }
}

/// Lines of the section with that name, else the acl that is built in.
fn named(acls: &Acls, name: &str, scope: &Scope<'_>) -> Option<Arc<[Arc<Test>]>> {
    let tests: Vec<_> = acls.tests(name).collect();
    if !tests.is_empty() {
        return Some(tests.into());
    }
    acl::built_in(name, scope).map(|test| [Arc::new(test)].into())
}
