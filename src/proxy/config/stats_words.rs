//! `stats ...` in a section (4.2 of the manual): the page in the browser.

use super::draft::{Context, Draft, StatsDraft};
use super::values::{Unit, time};
use super::words::{Parsed, Words};

/// Any `stats` line makes the page.
fn page(draft: &mut Draft) -> &mut StatsDraft {
    draft.stats.get_or_insert_default()
}

/// `stats enable`.
pub(crate) fn enable(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    page(draft);
    Ok(())
}

/// `stats uri PREFIX`.
pub(crate) fn uri(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    page(draft).uri = Some(words.demand("a URI")?.as_bytes().to_vec());
    Ok(())
}

/// `stats realm TEXT`.
pub(crate) fn realm(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let text = words.demand("a text")?;
    if words.peek().is_some() {
        let next = "write it in quotes, or a backslash before each blank";
        return Err(words.problem("the realm is one word", "the end of the line", next));
    }
    page(draft).realm = Some(text.to_owned());
    Ok(())
}

/// `stats auth USER:PASSWORD`.
pub(crate) fn auth(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let text = words.demand("USER:PASSWORD")?;
    let Some((user, password)) = text.split_once(':') else {
        return Err(words.problem_before("there is no password", "USER:PASSWORD", "add it"));
    };
    let pair = (user.to_owned(), password.to_owned());
    page(draft).users.push(pair);
    Ok(())
}

/// `stats refresh TIME`; seconds.
pub(crate) fn refresh(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let every = time(words, Unit::Seconds)?;
    page(draft).refresh = Some(every).filter(|every| !every.is_zero());
    Ok(())
}

/// `stats hide-version`.
pub(crate) fn hide_version(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    page(draft).hide_version = true;
    Ok(())
}

/// `stats show-node [NAME]`; the host's name when there is none.
pub(crate) fn show_node(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    page(draft).show_node = Some(words.next().map_or_else(own, str::to_owned));
    Ok(())
}

/// `stats show-desc [TEXT]`; the global description when there is none.
pub(crate) fn show_desc(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let text: Vec<&str> = words.rest().iter().map(|word| word.text.as_str()).collect();
    page(draft).show_desc = Some(text.join(" "));
    Ok(())
}

/// `stats show-legends`.
pub(crate) fn show_legends(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    page(draft).show_legends = true;
    Ok(())
}

/// `stats scope NAME`.
pub(crate) fn scope(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let name = words.demand("the name of a section, or `.` for this one")?.to_owned();
    page(draft).scope.push(name);
    Ok(())
}
