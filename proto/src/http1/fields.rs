//! The field block of a head or of trailers: lines up to the empty one, read once however they arrive.

use super::codes::{blank_len, is_blank, line_stop, token_len, trim};
use super::fault::{BadMessage, Fault};
use crate::http::Fields;

/// What is overlooked in a field block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tolerance {
    /// A line may end in LF alone.
    pub(super) bare_line_feed: bool,
    /// A field may go on in the next line.
    pub(super) folded: bool,
    /// NUL may stand in a value.
    pub(super) nul: bool,
    /// Any byte but CR, LF and the colon may stand in a name.
    pub(super) odd_names: bool,
}

impl Tolerance {
    /// `option accept-invalid-http-request`, `option accept-invalid-http-response`.
    pub(super) const LENIENT: Tolerance =
        Tolerance { bare_line_feed: true, folded: true, nul: true, odd_names: true };
    /// A response of a server: its lines as servers send them, which this proxy writes anew.
    pub(super) const RESPONSE: Tolerance =
        Tolerance { bare_line_feed: true, folded: true, nul: false, odd_names: false };
}

/// How far a head has been read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// First byte of the first line that was not read.
    pub(super) line: usize,
    /// No end of that line is before here.
    searched: usize,
}

impl Progress {
    /// Whether the line that is read next is worth reading: at its first sight, and when its end has come. So a line
    /// that arrives byte by byte is read twice, not once a byte.
    pub(super) fn worth_reading(&mut self, bytes: &[u8], folded: bool) -> bool {
        if self.searched <= self.line {
            return self.line < bytes.len();
        }
        while let Some(rest) = bytes.get(self.searched..)
            && let Some(found) = rest.iter().position(|byte| *byte == b'\n')
        {
            let end = self.searched + found;
            let next = bytes.get(end + 1);
            // A field is complete when the next line does not continue it; the empty line has no next.
            let continued = folded && end > self.line + 1 && next.is_none_or(|byte| is_blank(*byte));
            if !continued {
                return true;
            }
            if next.is_none() {
                self.searched = end;
                return false;
            }
            self.searched = end + 1;
        }
        self.searched = bytes.len();
        false
    }

    /// The line is incomplete. (The last byte may be an end that waits to see whether the next line continues it.)
    pub(super) fn wait(&mut self, bytes: &[u8]) {
        self.searched = bytes.len().saturating_sub(1);
    }

    /// The line was read; the next one begins here.
    pub(super) fn advance(&mut self, next: usize) {
        self.line = next;
    }
}

/// One line of a field block.
pub(super) enum Line {
    /// It has not arrived.
    Incomplete,
    /// The empty line; the block ends before this place.
    End(usize),
    /// A field was appended; its value began here, the next line begins there.
    Field { value: usize, next: usize },
}

/// Where a line ends: CR LF, or LF where that is tolerated. `at` is a CR, an LF or a NUL. `None`: not there yet.
pub(super) fn line_end(bytes: &[u8], at: usize, bare_line_feed: bool) -> Result<Option<usize>, BadMessage> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), None) | (None, _) => Ok(None),
        (Some(b'\r'), Some(_)) => Err(BadMessage::new(Fault::BareCarriageReturn, at)),
        (Some(b'\n'), _) if bare_line_feed => Ok(Some(at + 1)),
        (Some(b'\n'), _) => Err(BadMessage::new(Fault::BareLineFeed, at)),
        _ => Err(BadMessage::new(Fault::Nul, at)),
    }
}

/// Reads the line that begins at `start` and appends its field.
pub(super) fn read_line(
    bytes: &[u8],
    start: usize,
    tolerance: Tolerance,
    fields: &mut Fields,
) -> Result<Line, BadMessage> {
    let name_end = start + token_len(&bytes[start..]);
    let colon = match bytes.get(name_end) {
        None => return Ok(Line::Incomplete),
        Some(b':') if name_end > start => name_end,
        Some(b'\r' | b'\n') if name_end == start => {
            let end = line_end(bytes, start, tolerance.bare_line_feed)?;
            return Ok(end.map_or(Line::Incomplete, Line::End));
        }
        Some(_) => match odd_name(bytes, start, name_end, tolerance)? {
            Some(colon) => colon,
            None => return Ok(Line::Incomplete),
        },
    };
    let value = colon + 1 + blank_len(&bytes[colon + 1..]);
    let mut stop = value + line_stop(&bytes[value..]);
    while tolerance.nul && bytes.get(stop) == Some(&0) {
        stop += 1;
        stop += line_stop(&bytes[stop..]);
    }
    let Some(next) = line_end(bytes, stop, tolerance.bare_line_feed)? else { return Ok(Line::Incomplete) };
    if tolerance.folded {
        match bytes.get(next) {
            None => return Ok(Line::Incomplete),
            Some(byte) if is_blank(*byte) => return folded(bytes, (start, colon, value), tolerance, fields),
            Some(_) => {}
        }
    }
    let plain = value == colon + 2
        && bytes[colon + 1] == b' '
        && stop > value
        && !is_blank(bytes[stop - 1])
        && next == stop + 2;
    if plain {
        fields.push_line(&bytes[start..next], colon - start);
    } else {
        fields.push(&bytes[start..colon], trim(&bytes[value..stop]));
    }
    Ok(Line::Field { value, next })
}

/// A name with a byte in it that is no token byte, at `at`. Where its colon is, if such a name is tolerated; `None`: not
/// enough has arrived to say.
fn odd_name(
    bytes: &[u8],
    start: usize,
    at: usize,
    tolerance: Tolerance,
) -> Result<Option<usize>, BadMessage> {
    let byte = bytes[at];
    let after = bytes.get(at + blank_len(&bytes[at..]));
    if is_blank(byte) && at > start && after.is_none() {
        return Ok(None);
    }
    let fault = match byte {
        b':' => Fault::EmptyFieldName,
        b'\r' | b'\n' => Fault::NoColon,
        b' ' | b'\t' if at == start => Fault::FoldedLine,
        b' ' | b'\t' if bytes[at + blank_len(&bytes[at..])..].first() == Some(&b':') => {
            Fault::SpaceBeforeColon
        }
        _ => Fault::FieldName,
    };
    let bad = BadMessage::new(fault, at);
    if !tolerance.odd_names || matches!(byte, b':' | b'\r' | b'\n') {
        return Err(bad);
    }
    let Some(found) = bytes[at..].iter().position(|byte| matches!(byte, b':' | b'\r' | b'\n')) else {
        return Ok(None);
    };
    let colon = at + found;
    if bytes[colon] != b':' {
        return Err(BadMessage::new(Fault::NoColon, colon));
    }
    // What a careless peer could take for one of these frames the message: never tolerated.
    let letters: Vec<u8> = bytes[start..colon]
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .map(u8::to_ascii_lowercase)
        .collect();
    match letters.as_slice() {
        b"contentlength" | b"transferencoding" | b"host" => Err(bad),
        _ => Ok(Some(colon)),
    }
}

/// A field that goes on in the next lines. Line ends inside become blanks, as in HAProxy.
fn folded(
    bytes: &[u8],
    (start, colon, value): (usize, usize, usize),
    tolerance: Tolerance,
    fields: &mut Fields,
) -> Result<Line, BadMessage> {
    let mut whole = Vec::new();
    let mut from = value;
    loop {
        let mut stop = from + line_stop(&bytes[from..]);
        while tolerance.nul && bytes.get(stop) == Some(&0) {
            stop += 1;
            stop += line_stop(&bytes[stop..]);
        }
        let Some(next) = line_end(bytes, stop, tolerance.bare_line_feed)? else {
            return Ok(Line::Incomplete);
        };
        whole.extend_from_slice(&bytes[from..stop]);
        match bytes.get(next) {
            None => return Ok(Line::Incomplete),
            Some(byte) if is_blank(*byte) => whole.resize(whole.len() + next - stop, b' '),
            Some(_) => {
                fields.push(&bytes[start..colon], trim(&whole));
                return Ok(Line::Field { value, next });
            }
        }
        from = next;
    }
}
