//! Users and groups as written: they must exist on this machine.

use super::draft::Context;
use super::model::Identity;
use super::values::number;
use super::words::{Parsed, Words};
use std::io;

/// `user NAME`.
pub(crate) fn user(words: &mut Words<'_>, context: &Context<'_>) -> Parsed<Option<Identity>> {
    named(words, "user", context.surroundings.user)
}

/// `group NAME`.
pub(crate) fn group(words: &mut Words<'_>, context: &Context<'_>) -> Parsed<Option<Identity>> {
    named(words, "group", context.surroundings.group)
}

/// `uid NUMBER`, `gid NUMBER`.
pub(crate) fn id(words: &mut Words<'_>) -> Parsed<Option<Identity>> {
    Ok(Some(Identity::Id(number(words, "a number", 0..=u32::MAX)?)))
}

fn named(
    words: &mut Words<'_>,
    what: &str,
    find: fn(&str) -> io::Result<Option<u32>>,
) -> Parsed<Option<Identity>> {
    let name = words.demand("a name")?;
    let fault = match find(name) {
        Ok(Some(_)) => return Ok(Some(Identity::Name(name.to_owned()))),
        Ok(None) => format!("there is no {what} `{name}` on this machine"),
        Err(error) => format!("{what} `{name}` cannot be looked up: {error}"),
    };
    Err(words.problem_before(&fault, "a name that exists", "create it, or use another"))
}
