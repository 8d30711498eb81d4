//! Converters of text.

use super::{Converter, row};
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::sample::leading_integer;
use crate::proxy::expression::substitution::Substitution;
use crate::proxy::expression::{Context, Kind, Sample, Scope};
use std::borrow::Cow;

const PART: &[Slot] = &[Slot::Integer, Slot::Text, Slot::Integer];

pub(super) const TABLE: &[Converter] = &[
    row("lower", Kind::Text, Kind::Text, lower, "in lower case"),
    row("upper", Kind::Text, Kind::Text, upper, "in upper case"),
    row("length", Kind::Text, Kind::Integer, length, "number of bytes"),
    row("field", Kind::Text, Kind::Text, field, "a field between delimiters")
        .takes(PART, 2)
        .prepared(check_part),
    row("word", Kind::Text, Kind::Text, word, "a word between delimiters")
        .takes(PART, 2)
        .prepared(check_part),
    row("regsub", Kind::Text, Kind::Text, regsub, "replaces what a regular expression matches")
        .takes(&[Slot::Text, Slot::Text, Slot::Text], 2)
        .prepared(prepare_regsub),
    row("ltrim", Kind::Text, Kind::Text, ltrim, "without these characters at its beginning")
        .takes(&[Slot::Text], 1),
    row("rtrim", Kind::Text, Kind::Text, rtrim, "without these characters at its end")
        .takes(&[Slot::Text], 1),
    row("cut_crlf", Kind::Text, Kind::Text, cut_crlf, "up to the first line end"),
    row("host_only", Kind::Text, Kind::Text, host_only, "a Host header without its port, in lower case"),
    row("port_only", Kind::Text, Kind::Integer, port_only, "port of a Host header, 0 without one"),
];

/// The bytes of a value that has been cast to `str` or `bin`.
pub(super) fn bytes(sample: Sample<'_>) -> Cow<'_, [u8]> {
    sample.into_text()
}

/// A part of a text, without a copy where it is borrowed.
pub(super) fn part(text: Cow<'_, [u8]>, from: usize, to: usize) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
        Cow::Owned(mut text) => {
            text.truncate(to);
            text.drain(..from);
            Cow::Owned(text)
        }
    }
}

fn lower<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    if !text.iter().any(u8::is_ascii_uppercase) {
        return Some(Sample::Text(text));
    }
    let mut text = text.into_owned();
    text.make_ascii_lowercase();
    Some(Sample::made(text))
}

fn upper<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let mut text = bytes(sample).into_owned();
    text.make_ascii_uppercase();
    Some(Sample::made(text))
}

fn length<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    i64::try_from(bytes(sample).len()).ok().map(Sample::Integer)
}

fn check_part(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    if arguments.integer(0).unwrap_or(0) == 0 {
        return Err("argument 1: fields are counted from 1 or from -1".to_owned());
    }
    if arguments.integer(2).is_some_and(|count| count < 0) {
        return Err("argument 3: a number of fields is not negative".to_owned());
    }
    Ok(())
}

/// Picks `count` of `parts` (0: all up to the end), from the first or from the last; a range of the text.
fn pick(parts: &[(usize, usize)], arguments: &Arguments) -> Option<(usize, usize)> {
    let index = arguments.integer(0)?;
    let count = usize::try_from(arguments.integer(2).unwrap_or(1)).ok()?;
    let place = usize::try_from(index.unsigned_abs()).ok()?.checked_sub(1)?;
    if index > 0 {
        let first = parts.get(place)?;
        let last = match count {
            0 => parts.last()?,
            count => parts.get((place + count - 1).min(parts.len() - 1))?,
        };
        return Some((first.0, last.1));
    }
    let place = parts.len().checked_sub(place + 1)?;
    let first = match count {
        0 => parts.first()?,
        count => parts.get((place + 1).saturating_sub(count))?,
    };
    Some((first.0, parts.get(place)?.1))
}

/// Ranges between delimiters; empty ones too.
fn fields(text: &[u8], delimiters: &[u8]) -> smallvec::SmallVec<[(usize, usize); 16]> {
    let mut list = smallvec::SmallVec::new();
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        if delimiters.contains(byte) {
            list.push((start, at));
            start = at + 1;
        }
    }
    list.push((start, text.len()));
    list
}

fn field<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let parts = fields(&text, arguments.text(1));
    pick(&parts, arguments).map(|(from, to)| Sample::Text(part(text, from, to)))
}

fn word<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let mut parts = fields(&text, arguments.text(1));
    parts.retain(|(from, to)| from < to);
    match pick(&parts, arguments) {
        Some((from, to)) => Some(Sample::Text(part(text, from, to))),
        None => Some(Sample::text(b"")),
    }
}

fn prepare_regsub(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let flags = arguments.text(2);
    if let Some(unknown) = flags.iter().find(|flag| !matches!(flag, b'g' | b'i')) {
        return Err(format!("argument 3: the flags are g and i, not `{}`", char::from(*unknown)));
    }
    let (all, ignore_case) = (flags.contains(&b'g'), flags.contains(&b'i'));
    let substitution = Substitution::new(arguments.text(0), arguments.text(1), ignore_case)?;
    arguments.put(0, Argument::Substitution(Box::new(substitution)));
    arguments.put(1, Argument::Integer(all.into()));
    Ok(())
}

fn regsub<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let Some(Argument::Substitution(substitution)) = arguments.get(0) else { return None };
    let text = bytes(sample);
    match substitution.replace(&text, arguments.integer(1) == Some(1)) {
        Some(replaced) => Some(Sample::made(replaced)),
        None => Some(Sample::Text(text)),
    }
}

fn ltrim<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let from = text.iter().position(|byte| !arguments.text(0).contains(byte)).unwrap_or(text.len());
    let to = text.len();
    Some(Sample::Text(part(text, from, to)))
}

fn rtrim<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let to = text.iter().rposition(|byte| !arguments.text(0).contains(byte)).map_or(0, |at| at + 1);
    Some(Sample::Text(part(text, 0, to)))
}

fn cut_crlf<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let to = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(text.len());
    Some(Sample::Text(part(text, 0, to)))
}

/// Where the port of a Host header begins (behind the colon), and where the host ends.
fn port_of(host: &[u8]) -> (usize, Option<usize>) {
    let colon = host.iter().rposition(|byte| !byte.is_ascii_digit()).filter(|at| host[*at] == b':');
    match colon {
        // Inside of brackets a colon belongs to the address.
        Some(colon) if host.first() != Some(&b'[') || host[..colon].ends_with(b"]") => {
            (colon, Some(colon + 1))
        }
        _ => (host.len(), None),
    }
}

fn host_only<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let (end, _) = port_of(&text);
    lower(Sample::Text(part(text, 0, end)), arguments, context)
}

fn port_only<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let port = port_of(&text).1.map_or(0, |at| leading_integer(&text[at..]));
    Some(Sample::Integer(port))
}
