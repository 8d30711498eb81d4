//! Other forms of bytes: hexadecimal, base 64, URL encoding, JSON.

use super::texts::{bytes, part};
use super::{Converter, row};
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::{Context, Kind, Sample, Scope, base64};

const B: Kind = Kind::Binary;
const T: Kind = Kind::Text;
const CHUNKS: &[Slot] = &[Slot::Text, Slot::Integer, Slot::Integer];

pub(super) const TABLE: &[Converter] = &[
    row("bytes", B, B, some_bytes, "a part: offset and length").takes(&[Slot::Integer, Slot::Integer], 1),
    row("hex", B, T, hex, "in hexadecimal"),
    row("hex2i", T, Kind::Integer, hex2i, "hexadecimal as an integer"),
    row("htonl", Kind::Integer, B, htonl, "4 bytes in network order"),
    row("base64", B, T, to_base64, "in base 64"),
    row("b64dec", T, B, from_base64, "from base 64"),
    row("ub64enc", B, T, to_base64_url, "in base 64 for URLs"),
    row("ub64dec", T, B, from_base64_url, "from base 64 for URLs"),
    row("be2hex", B, T, be2hex, "in hexadecimal, in chunks").takes(CHUNKS, 0).prepared(check_chunks),
    row("be2dec", B, T, be2dec, "in decimal, in chunks").takes(CHUNKS, 2).prepared(check_words),
    row("url_dec", T, T, url_dec, "without URL encoding").takes(&[Slot::Integer], 0),
    row("url_enc", T, T, url_enc, "with URL encoding").takes(&[Slot::Text], 0).prepared(check_url_enc),
    row("json", T, T, json, "escaped for JSON").takes(&[Slot::Text], 0).prepared(prepare_json),
];

fn some_bytes<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let all = bytes(sample);
    let from = usize::try_from(arguments.integer(0)?).ok()?;
    if from >= all.len() {
        return Some(Sample::Binary((&[][..]).into()));
    }
    let length = arguments.integer(1).map_or(Some(all.len()), |length| usize::try_from(length).ok())?;
    let to = from.saturating_add(length).min(all.len());
    Some(Sample::Binary(part(all, from, to)))
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}

fn hex<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let mut out = Vec::new();
    bytes(sample).iter().for_each(|byte| push_hex(&mut out, *byte));
    Some(Sample::made(out))
}

fn hex2i<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let mut value: i64 = 0;
    for byte in text.iter() {
        value = value << 4 | i64::from(char::from(*byte).to_digit(16)?);
    }
    Some(Sample::Integer(value))
}

fn htonl<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let value = sample.to_integer()?.to_be_bytes();
    Some(Sample::Binary(value[4..].to_vec().into()))
}

fn to_base64<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(Sample::made(base64::encode(&bytes(sample), base64::STANDARD)))
}

fn to_base64_url<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(Sample::made(base64::encode(&bytes(sample), base64::URL)))
}

fn from_base64<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    base64::decode(&bytes(sample), base64::STANDARD).map(|bytes| Sample::Binary(bytes.into()))
}

fn from_base64_url<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    base64::decode(&bytes(sample), base64::URL).map(|bytes| Sample::Binary(bytes.into()))
}

fn check_chunks(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    match arguments.integer(1) {
        Some(size) if size < 1 => Err("argument 2: a chunk has at least 1 byte".to_owned()),
        None if !arguments.text(0).is_empty() => Err("argument 2: a separator needs a chunk size".to_owned()),
        _ => Ok(()),
    }
}

fn check_words(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    match arguments.integer(1) {
        Some(1..=8) => Ok(()),
        _ => Err("argument 2: a chunk has 1 to 8 bytes".to_owned()),
    }
}

/// Writes each chunk with the separator between them; an incomplete last one only without `truncate`.
fn chunked(all: &[u8], arguments: &Arguments, mut write: impl FnMut(&mut Vec<u8>, &[u8])) -> Sample<'static> {
    let size = arguments.integer(1).and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX).max(1);
    let truncate = arguments.integer(2).unwrap_or(0) != 0;
    let mut out = Vec::new();
    for (place, chunk) in all.chunks(size).enumerate() {
        if truncate && chunk.len() < size {
            break;
        }
        if place > 0 {
            out.extend_from_slice(arguments.text(0));
        }
        write(&mut out, chunk);
    }
    Sample::made(out)
}

fn be2hex<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(chunked(&bytes(sample), arguments, |out, chunk| chunk.iter().for_each(|byte| push_hex(out, *byte))))
}

fn be2dec<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(chunked(&bytes(sample), arguments, |out, chunk| {
        let value = chunk.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        out.extend_from_slice(value.to_string().as_bytes());
    }))
}

fn url_dec<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    // `+` is a space in a query only.
    let mut query = arguments.integer(0).unwrap_or(0) != 0;
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'%' => {
                let pair = text.get(at + 1..at + 3)?;
                out.extend(crate::proxy::expression::fetch::from_hex(pair)?);
                at += 2;
            }
            b'+' if query => out.push(b' '),
            _ => {
                query |= *byte == b'?';
                out.push(*byte);
            }
        }
        at += 1;
    }
    Some(Sample::made(out))
}

fn check_url_enc(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    match arguments.text(0) {
        b"" | b"query" => Ok(()),
        _ => Err("argument 1: the only encoding is `query`".to_owned()),
    }
}

fn url_enc<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let mut out = Vec::new();
    for byte in bytes(sample).iter() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
        } else {
            out.push(b'%');
            push_hex(&mut out, *byte);
        }
    }
    Some(Sample::made(out))
}

/// How `json` reads its input: ascii, or UTF-8 with what happens to errors.
const JSON: &[&[u8]] = &[b"ascii", b"utf8", b"utf8s", b"utf8p", b"utf8ps"];

fn prepare_json(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let name = if arguments.text(0).is_empty() { b"ascii" } else { arguments.text(0) };
    let Some(mode) = JSON.iter().position(|known| *known == name) else {
        return Err("the input code is ascii, utf8, utf8s, utf8p or utf8ps".to_owned());
    };
    arguments.put(0, Argument::Integer(i64::try_from(mode).unwrap_or(0)));
    Ok(())
}

/// A character at the beginning of `text`: its value, its length, and whether it is well formed. An overlong form has a
/// value but is not well formed.
fn character(text: &[u8]) -> (Option<u32>, usize, bool) {
    let first = text[0];
    let (length, mut value) = match first {
        0..=0x7f => return (Some(first.into()), 1, true),
        0xc0..=0xdf => (2, u32::from(first & 0x1f)),
        0xe0..=0xef => (3, u32::from(first & 0x0f)),
        0xf0..=0xf7 => (4, u32::from(first & 0x07)),
        _ => return (None, 1, false),
    };
    for (count, byte) in text[1..].iter().take(length - 1).enumerate() {
        if byte & 0xc0 != 0x80 {
            return (None, count + 1, false);
        }
        value = value << 6 | u32::from(byte & 0x3f);
    }
    if text.len() < length {
        return (None, text.len(), false);
    }
    let overlong = value < [0, 0, 0x80, 0x800, 0x1_0000][length];
    match char::from_u32(value) {
        Some(_) => (Some(value), length, !overlong),
        None => (None, length, false),
    }
}

fn json<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let text = bytes(sample);
    let mode = arguments.integer(0).unwrap_or(0);
    let (utf8, silent, permissive) = (mode > 0, mode == 2 || mode == 4, mode >= 3);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (value, length, well) =
            if utf8 { character(&text[at..]) } else { (Some(text[at].into()), 1, true) };
        at += length;
        let value = match value.filter(|value| (well || permissive) && *value <= 0xffff) {
            Some(value) => value,
            None if silent => continue,
            None => return None,
        };
        match u8::try_from(value) {
            Ok(b @ (b'"' | b'\\' | b'/')) => out.extend([b'\\', b]),
            Ok(8) => out.extend(b"\\b"),
            Ok(12) => out.extend(b"\\f"),
            Ok(b'\r') => out.extend(b"\\r"),
            Ok(b'\n') => out.extend(b"\\n"),
            Ok(b'\t') => out.extend(b"\\t"),
            Ok(b @ b' '..=b'~') => out.push(b),
            _ => out.extend(format!("\\u{value:04x}").bytes()),
        }
    }
    Some(Sample::made(out))
}
