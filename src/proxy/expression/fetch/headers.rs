//! Header fields of the request and the response.

use super::{Fetch, Run, row};
use crate::proxy::exchange::Side;
use crate::proxy::expression::arguments::{Arguments, Slot};
use crate::proxy::expression::sample::wrapping_integer;
use crate::proxy::expression::{Context, Kind, Sample};
use core::net::{IpAddr, Ipv4Addr};
use ehpc_proto::http::Fields;

const NAMED: &[Slot] = &[Slot::HeaderName, Slot::Integer];
const NAME: &[Slot] = &[Slot::HeaderName];
const LISTED: Run = Run::Many(header, each_header);
const FULL: Run = Run::Many(full, each_full);
const ADDRESS: Run = Run::Many(header_ip, each_header_ip);
const NUMBER: Run = Run::Many(header_val, each_header_val);

pub(super) const TABLE: &[Fetch] = &[
    row("hdr", Kind::Text, LISTED, "last value of a header, or the one of an occurrence").takes(NAMED, 0),
    row("req.hdr", Kind::Text, LISTED, "the same of the request").takes(NAMED, 0).of(Side::Request),
    row("res.hdr", Kind::Text, LISTED, "the same of the response").takes(NAMED, 0).of(Side::Response),
    row("shdr", Kind::Text, LISTED, "the same of the response").takes(NAMED, 0).of(Side::Response),
    row("fhdr", Kind::Text, FULL, "last line of a header, not split at commas").takes(NAMED, 0),
    row("req.fhdr", Kind::Text, FULL, "the same of the request").takes(NAMED, 0).of(Side::Request),
    row("res.fhdr", Kind::Text, FULL, "the same of the response").takes(NAMED, 0).of(Side::Response),
    row("hdr_cnt", Kind::Integer, Run::One(header_count), "number of values")
        .takes(NAME, 0)
        .of(Side::Request),
    row("req.hdr_cnt", Kind::Integer, Run::One(header_count), "number of values")
        .takes(NAME, 0)
        .of(Side::Request),
    row("res.hdr_cnt", Kind::Integer, Run::One(header_count), "number of values")
        .takes(NAME, 0)
        .of(Side::Response),
    row("shdr_cnt", Kind::Integer, Run::One(header_count), "number of values")
        .takes(NAME, 0)
        .of(Side::Response),
    row("req.fhdr_cnt", Kind::Integer, Run::One(full_count), "number of lines")
        .takes(NAME, 0)
        .of(Side::Request),
    row("res.fhdr_cnt", Kind::Integer, Run::One(full_count), "number of lines")
        .takes(NAME, 0)
        .of(Side::Response),
    row("hdr_ip", Kind::Address, ADDRESS, "a value as an address").takes(NAMED, 0).of(Side::Request),
    row("req.hdr_ip", Kind::Address, ADDRESS, "a value as an address").takes(NAMED, 0).of(Side::Request),
    row("res.hdr_ip", Kind::Address, ADDRESS, "a value as an address").takes(NAMED, 0).of(Side::Response),
    row("shdr_ip", Kind::Address, ADDRESS, "a value as an address").takes(NAMED, 0).of(Side::Response),
    row("hdr_val", Kind::Integer, NUMBER, "a value as an integer").takes(NAMED, 0).of(Side::Request),
    row("req.hdr_val", Kind::Integer, NUMBER, "a value as an integer").takes(NAMED, 0).of(Side::Request),
    row("res.hdr_val", Kind::Integer, NUMBER, "a value as an integer").takes(NAMED, 0).of(Side::Response),
    row("shdr_val", Kind::Integer, NUMBER, "a value as an integer").takes(NAMED, 0).of(Side::Response),
    row("req.hdr_names", Kind::Text, Run::One(names), "names of all headers")
        .takes(&[Slot::Text], 0)
        .of(Side::Request),
    row("res.hdr_names", Kind::Text, Run::One(names), "names of all headers")
        .takes(&[Slot::Text], 0)
        .of(Side::Response),
    row("req.hdrs", Kind::Text, Run::One(block), "all headers and the empty line").of(Side::Request),
    row("res.hdrs", Kind::Text, Run::One(block), "all headers and the empty line").of(Side::Response),
];

/// As many values as HAProxy can count back from the last one.
const HISTORY: i64 = 10;

pub(super) fn fields<'e>(context: &Context<'e>, arguments: &Arguments) -> &'e Fields {
    match arguments.side.unwrap_or(context.exchange.side) {
        Side::Request => &context.exchange.request.fields,
        Side::Response => &context.exchange.response.fields,
    }
}

/// Values of a line: split at commas outside of quotes, trimmed.
fn values(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    segments(line).map(<[u8]>::trim_ascii)
}

/// The same with the white space around them.
pub(in crate::proxy) fn segments(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = value_end(line);
        rest = line.get(end + 1..);
        Some(&line[..end])
    })
}

fn value_end(line: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    line.len()
}

/// Shows the lines of a header (of all, without a name).
fn lines<'e>(fields: &'e Fields, name: &[u8], visit: &mut dyn FnMut(&'e [u8]) -> bool) -> bool {
    fields.iter().filter(|(known, _)| name.is_empty() || *known == name).any(|(_, line)| visit(line))
}

/// The value of an occurrence: from the first with positive numbers, from the last with negative ones; 0 is the last.
fn occurrence<'e>(
    occurrence: i64,
    mut all: impl FnMut(&mut dyn FnMut(&'e [u8]) -> bool) -> bool,
) -> Option<&'e [u8]> {
    if occurrence > 0 {
        let (mut count, mut found) = (0, None);
        all(&mut |value| {
            count += 1;
            found = (count == occurrence).then_some(value);
            found.is_some()
        });
        return found;
    }
    let back = if occurrence == 0 { 1 } else { occurrence.checked_neg()? };
    if back > HISTORY {
        return None;
    }
    let mut ring: [&'e [u8]; HISTORY as usize] = [b""; HISTORY as usize];
    let mut count: usize = 0;
    all(&mut |value| {
        ring[count % ring.len()] = value;
        count += 1;
        false
    });
    let index = count.checked_sub(usize::try_from(back).ok()?)?;
    Some(ring[index % ring.len()])
}

fn all_values<'e>(
    context: &Context<'e>,
    arguments: &Arguments,
    visit: &mut dyn FnMut(&'e [u8]) -> bool,
) -> bool {
    lines(fields(context, arguments), arguments.text(0), &mut |line| values(line).any(&mut *visit))
}

fn header<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let wanted = arguments.integer(1).unwrap_or(0);
    occurrence(wanted, |visit| all_values(context, arguments, visit)).map(Sample::text)
}

fn each_header<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    match arguments.integer(1) {
        Some(_) => header(context, arguments).is_some_and(visit),
        None => all_values(context, arguments, &mut |value| visit(Sample::text(value))),
    }
}

fn full<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let fields = fields(context, arguments);
    let wanted = arguments.integer(1).unwrap_or(0);
    occurrence(wanted, |visit| lines(fields, arguments.text(0), visit)).map(Sample::text)
}

fn each_full<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    match arguments.integer(1) {
        Some(_) => full(context, arguments).is_some_and(visit),
        None => {
            let fields = fields(context, arguments);
            lines(fields, arguments.text(0), &mut |value| visit(Sample::text(value)))
        }
    }
}

fn header_count<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let mut count = 0;
    all_values(context, arguments, &mut |_| {
        count += 1;
        false
    });
    Some(Sample::Integer(count))
}

fn full_count<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let mut count = 0;
    lines(fields(context, arguments), arguments.text(0), &mut |_| {
        count += 1;
        false
    });
    Some(Sample::Integer(count))
}

/// An address as it stands in `X-Forwarded-For`: IPv4 with an optional port, or IPv6.
fn address(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let (address, rest) = text.split_once(':')?;
    port(rest).then(|| address.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?
}

fn each_header_ip<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    match arguments.integer(1) {
        Some(_) => header_ip(context, arguments).is_some_and(visit),
        None => all_values(context, arguments, &mut |value| {
            address(value).is_some_and(|address| visit(Sample::Address(address)))
        }),
    }
}

fn header_ip<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    match header(context, arguments)? {
        Sample::Text(value) => address(&value).map(Sample::Address),
        _ => None,
    }
}

fn header_val<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    match header(context, arguments)? {
        Sample::Text(value) => Some(Sample::Integer(wrapping_integer(&value))),
        _ => None,
    }
}

fn each_header_val<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    match arguments.integer(1) {
        Some(_) => header_val(context, arguments).is_some_and(visit),
        None => all_values(context, arguments, &mut |value| visit(Sample::Integer(wrapping_integer(value)))),
    }
}

fn names<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let delimiter = arguments.text(0).first().copied().unwrap_or(b',');
    let mut list = Vec::new();
    for (place, (name, _)) in fields(context, arguments).iter().enumerate() {
        if place > 0 {
            list.push(delimiter);
        }
        list.extend_from_slice(name);
    }
    Some(Sample::made(list))
}

fn block<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let mut block = Vec::new();
    for (name, value) in fields(context, arguments).iter() {
        for part in [name, b": ", value, b"\r\n"] {
            block.extend_from_slice(part);
        }
    }
    block.extend_from_slice(b"\r\n");
    Some(Sample::made(block))
}
