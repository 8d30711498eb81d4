//! Cookies of the request (`Cookie`) and of the response (`Set-Cookie`).

use super::headers::fields;
use super::{Fetch, Run, row};
use crate::proxy::exchange::Side;
use crate::proxy::expression::arguments::{Arguments, Slot};
use crate::proxy::expression::sample::wrapping_integer;
use crate::proxy::expression::{Context, Kind, Sample};

const NAME: &[Slot] = &[Slot::Text];
const COOKIE: Run = Run::Many(cookie, each_cookie);
const VALUE: Run = Run::Many(cookie_val, each_cookie_val);
const COUNT: Run = Run::One(cookie_count);

pub(super) const TABLE: &[Fetch] = &[
    row("req.cook", Kind::Text, COOKIE, "value of a request cookie").takes(NAME, 0).of(Side::Request),
    row("cook", Kind::Text, COOKIE, "value of a request cookie").takes(NAME, 0).of(Side::Request),
    row("cookie", Kind::Text, COOKIE, "value of a cookie of either message").takes(NAME, 0),
    row("res.cook", Kind::Text, COOKIE, "value of a response cookie").takes(NAME, 0).of(Side::Response),
    row("scook", Kind::Text, COOKIE, "value of a response cookie").takes(NAME, 0).of(Side::Response),
    row("req.cook_cnt", Kind::Integer, COUNT, "number of request cookies").takes(NAME, 0).of(Side::Request),
    row("cook_cnt", Kind::Integer, COUNT, "number of request cookies").takes(NAME, 0).of(Side::Request),
    row("res.cook_cnt", Kind::Integer, COUNT, "number of response cookies").takes(NAME, 0).of(Side::Response),
    row("scook_cnt", Kind::Integer, COUNT, "number of response cookies").takes(NAME, 0).of(Side::Response),
    row("req.cook_val", Kind::Integer, VALUE, "a request cookie as an integer")
        .takes(NAME, 0)
        .of(Side::Request),
    row("cook_val", Kind::Integer, VALUE, "a request cookie as an integer").takes(NAME, 0).of(Side::Request),
    row("res.cook_val", Kind::Integer, VALUE, "a response cookie as an integer")
        .takes(NAME, 0)
        .of(Side::Response),
    row("scook_val", Kind::Integer, VALUE, "a response cookie as an integer")
        .takes(NAME, 0)
        .of(Side::Response),
];

/// Shows the values of a cookie (of all, without a name).
fn each<'e>(context: &Context<'e>, arguments: &Arguments, visit: &mut dyn FnMut(&'e [u8]) -> bool) -> bool {
    let side = arguments.side.unwrap_or(context.exchange.side);
    let (header, first_only): (&[u8], bool) = match side {
        Side::Request => (b"cookie", false),
        // Of `Set-Cookie` only the first pair is the cookie, the others are its attributes. Without a name HAProxy
        // counts those too.
        Side::Response => (b"set-cookie", !arguments.text(0).is_empty()),
    };
    let wanted = arguments.text(0);
    for (_, line) in fields(context, arguments).all(header) {
        let mut rest = line;
        loop {
            let end = pair_end(rest, side == Side::Request);
            let (name, value) = pair(&rest[..end]);
            let named = wanted.is_empty() || name == wanted;
            if let Some(value) = value.filter(|_| named)
                && visit(value)
            {
                return true;
            }
            match rest.get(end + 1..) {
                Some(next) if !first_only => rest = next,
                _ => break,
            }
        }
    }
    false
}

/// Where a pair ends: at `;`, of a request also at `,` (RFC 2965 allowed it), outside of quotes.
fn pair_end(line: &[u8], comma: bool) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return at,
            b',' if !quoted && comma => return at,
            _ => {}
        }
    }
    line.len()
}

fn pair(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(sign) => (text[..sign].trim_ascii(), Some(text[sign + 1..].trim_ascii())),
        None => (text.trim_ascii(), None),
    }
}

fn cookie<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let any = arguments.text(0).is_empty();
    let mut found = None;
    each(context, arguments, &mut |value| {
        found = Some(value);
        any
    });
    found.map(Sample::text)
}

fn each_cookie<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    each(context, arguments, &mut |value| visit(Sample::text(value)))
}

fn cookie_count<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let mut count = 0;
    each(context, arguments, &mut |_| {
        count += 1;
        false
    });
    Some(Sample::Integer(count))
}

fn cookie_val<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    match cookie(context, arguments)? {
        Sample::Text(value) => Some(Sample::Integer(wrapping_integer(&value))),
        _ => None,
    }
}

fn each_cookie_val<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    each(context, arguments, &mut |value| visit(Sample::Integer(wrapping_integer(value))))
}
