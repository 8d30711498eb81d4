//! A regular expression and what takes the place of what it matched: `regsub`, `replace-header`, `replace-path` ...

use super::pattern;
use regex::bytes::{Captures, Regex};

/// Both, compiled.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Substitution {
    regex: Regex,
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

impl Substitution {
    /// `\0` to `\9` are groups, `\xNN` is a byte, a backslash protects anything else.
    pub(in crate::proxy) fn new(
        regex: &[u8],
        replacement: &[u8],
        ignore_case: bool,
    ) -> Result<Substitution, String> {
        let regex = pattern::compile(regex, ignore_case)?;
        let pieces = read(replacement)?;
        let groups = regex.captures_len();
        for piece in &pieces {
            if let Piece::Group(group) = piece
                && *group >= groups
            {
                return Err(format!("there is no group \\{group} in the regular expression"));
            }
        }
        Ok(Substitution { regex, pieces })
    }

    /// What stands for the first match, alone; `None` without a match.
    pub(in crate::proxy) fn expand(&self, text: &[u8]) -> Option<Vec<u8>> {
        let captures = self.regex.captures(text)?;
        let mut out = Vec::new();
        self.append(&captures, &mut out);
        Some(out)
    }

    /// The text with its first match replaced, or all of them; `None` without a match.
    pub(in crate::proxy) fn replace(&self, text: &[u8], all: bool) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let mut last = 0;
        for captures in self.regex.captures_iter(text) {
            let Some(whole) = captures.get(0) else { break };
            out.extend_from_slice(&text[last..whole.start()]);
            self.append(&captures, &mut out);
            last = whole.end();
            if !all {
                out.extend_from_slice(&text[last..]);
                return Some(out);
            }
        }
        if last == 0 && out.is_empty() && !self.regex.is_match(text) {
            return None;
        }
        out.extend_from_slice(&text[last..]);
        Some(out)
    }

    fn append(&self, captures: &Captures<'_>, out: &mut Vec<u8>) {
        append(&self.pieces, captures, out);
    }
}

/// What a replacement makes of a match; `None` when it cannot be read.
pub(super) fn expand(captures: &Captures<'_>, replacement: &[u8]) -> Option<Vec<u8>> {
    let pieces = read(replacement).ok()?;
    let mut out = Vec::new();
    append(&pieces, captures, &mut out);
    Some(out)
}

fn append(pieces: &[Piece], captures: &Captures<'_>, out: &mut Vec<u8>) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Group(group) => {
                if let Some(found) = captures.get(*group) {
                    out.extend_from_slice(found.as_bytes());
                }
            }
        }
    }
}

fn read(replacement: &[u8]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut bytes = replacement.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        match bytes.next() {
            Some(digit @ b'0'..=b'9') => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Group(usize::from(digit - b'0')));
            }
            Some(b'x') => {
                let pair: Vec<u8> = bytes.by_ref().take(2).collect();
                let byte = super::fetch::from_hex(&pair).filter(|_| pair.len() == 2);
                let byte = byte.ok_or("`\\x` needs two hexadecimal digits")?;
                if byte.iter().any(|byte| b"\r\n\0".contains(byte)) {
                    return Err("a replacement cannot hold a line end or a NUL".to_owned());
                }
                text.extend(byte);
            }
            Some(other) => text.push(other),
            None => return Err("a backslash at its end protects nothing".to_owned()),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}
