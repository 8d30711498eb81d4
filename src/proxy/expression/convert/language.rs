//! `language`: what a client prefers of what there is (`Accept-Language`).

use super::texts::bytes;
use super::{Converter, row};
use crate::proxy::expression::arguments::{Arguments, Slot};
use crate::proxy::expression::{Context, Kind, Sample};

pub(super) const TABLE: &[Converter] =
    &[row("language", Kind::Text, Kind::Text, language, "the preferred language")
        .takes(&[Slot::Text, Slot::Text], 1)];

/// A q-factor in thousandths (RFC 9110 section 12.4.2).
fn quality(text: &[u8]) -> u32 {
    let mut digits = text.iter();
    let whole = match digits.next() {
        Some(b'1') => return 1000,
        Some(b'0') => 0,
        _ => return 1000,
    };
    if digits.next() != Some(&b'.') {
        return whole;
    }
    let mut thousandths = 0;
    for place in [100, 10, 1] {
        match digits.next() {
            Some(digit) if digit.is_ascii_digit() => thousandths += u32::from(digit - b'0') * place,
            _ => break,
        }
    }
    thousandths
}

fn language<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let header = bytes(sample);
    let mut best: Option<(u32, &'e [u8])> = None;
    for entry in header.split(|byte| *byte == b',') {
        let mut parts = entry.split(|byte| *byte == b';');
        let tag = parts.next().unwrap_or_default().trim_ascii();
        let factor = parts.find_map(|part| part.trim_ascii().strip_prefix(b"q=")).map_or(1000, quality);
        if factor == 0 || best.is_some_and(|(known, _)| known >= factor) {
            continue;
        }
        let base = tag.split(|byte| *byte == b'-').next().unwrap_or_default();
        let known =
            |wanted: &[u8]| arguments.text(0).split(|byte| *byte == b';').find(|known| *known == wanted);
        if let Some(found) = known(tag).or_else(|| known(base)) {
            best = Some((factor, found));
        }
    }
    match best {
        Some((_, found)) => Some(Sample::text(found)),
        None => arguments.get(1).map(|_| Sample::text(arguments.text(1))),
    }
}
