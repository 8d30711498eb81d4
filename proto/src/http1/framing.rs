//! How long a body is: Content-Length and Transfer-Encoding (RFC 9112 section 6).

use super::codes::trim;
use super::fault::Fault;
use crate::http::{FieldIndex, Fields};

/// Where a message's body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// With the connection.
    UntilClose,
}

impl Framing {
    /// No byte of a body comes.
    pub fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// What the fields of a head have said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announced {
    pub(super) length: Option<u64>,
    /// A Transfer-Encoding was there.
    pub(super) coded: bool,
    /// `chunked` was named.
    pub(super) chunked: bool,
    /// Something that is not `chunked` was named.
    pub(super) other: bool,
}

/// What becomes of a field that was interpreted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Keep,
    Drop,
    /// It gets the one value that everybody understands.
    Become(Vec<u8>),
}

/// Does that to the field that was appended last.
pub(super) fn apply(fate: Fate, index: FieldIndex, fields: &mut Fields) {
    match fate {
        Fate::Keep => {}
        Fate::Drop => fields.pop(),
        Fate::Become(value) => fields.replace(index, &value),
    }
}

/// Whether a head weighs more than `limit` (see [`super::Limits`]). `start_line`: its length without its end.
pub(super) fn too_heavy(start_line: usize, fields: &Fields, limit: usize) -> bool {
    let fixed = start_line.saturating_sub(2) + 85;
    if fixed + fields.text_len() + 4 * fields.len() <= limit {
        return false;
    }
    // The text may hold fields that are gone.
    fixed + fields.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>() > limit
}

impl Announced {
    /// A Content-Length field. Lists of equal numbers are one number (section 6.3), as in HAProxy; a number beyond
    /// 2^63-1 is refused, so that no peer wraps around.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<Fate, Fault> {
        let first_field = self.length.is_none();
        for item in value.split(|byte| *byte == b',') {
            let number = decimal(trim(item)).ok_or(Fault::ContentLength)?;
            if self.length.is_some_and(|known| known != number) {
                return Err(Fault::ContentLengthsDiffer);
            }
            self.length = Some(number);
        }
        let canonical =
            value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value.first() != Some(&b'0'));
        Ok(match (first_field, canonical) {
            (false, _) => Fate::Drop,
            (true, true) => Fate::Keep,
            (true, false) => Fate::Become(self.length.unwrap_or_default().to_string().into_bytes()),
        })
    }

    /// A Transfer-Encoding field. `chunked` twice, or anything after it, is refused at once (section 6.1); a coding
    /// before it is remembered. Empty list items are nothing.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<Fate, Fault> {
        self.coded = true;
        let mut names_chunked = false;
        for item in value.split(|byte| *byte == b',').map(trim).filter(|item| !item.is_empty()) {
            if self.chunked {
                return Err(Fault::TransferEncoding);
            }
            if item.eq_ignore_ascii_case(b"chunked") {
                self.chunked = true;
                names_chunked = true;
            } else {
                self.other = true;
            }
        }
        Ok(match (names_chunked, value.eq_ignore_ascii_case(b"chunked")) {
            (false, _) => Fate::Drop,
            (true, true) => Fate::Keep,
            (true, false) => Fate::Become(b"chunked".to_vec()),
        })
    }

    /// The fault of a message with a Transfer-Encoding that this product does not read.
    pub(super) fn coding_fault(&self) -> Option<Fault> {
        match (self.coded, self.chunked, self.other) {
            (true, true, true) => Some(Fault::UnsupportedCoding),
            (true, false, _) => Some(Fault::TransferEncoding),
            _ => None,
        }
    }
}

/// A length, at most 2^63-1.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    i64::try_from(number).is_ok().then_some(number)
}

/// Items of a list field's value, trimmed, empty ones left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|item| !item.is_empty())
}

/// Notes what a `connection` value says, and takes `close` and `keep-alive` out of it, as HAProxy does on arrival; an
/// empty rest takes the field with it.
pub(super) fn connection(value: &[u8], said: &mut ConnectionOptions) -> Fate {
    let mut kept = 0;
    let mut taken = false;
    for item in list(value) {
        if item.eq_ignore_ascii_case(b"close") {
            said.close = true;
            taken = true;
        } else if item.eq_ignore_ascii_case(b"keep-alive") {
            said.keep_alive = true;
            taken = true;
        } else {
            said.upgrade |= item.eq_ignore_ascii_case(b"upgrade");
            kept += 1;
        }
    }
    if kept == 0 {
        return Fate::Drop;
    }
    if !taken {
        return Fate::Keep;
    }
    let hop =
        |item: &&[u8]| !item.eq_ignore_ascii_case(b"close") && !item.eq_ignore_ascii_case(b"keep-alive");
    Fate::Become(list(value).filter(hop).collect::<Vec<_>>().join(&b','))
}

/// A `te` value: `trailers` is the only coding that this hop leaves to the next one (HAProxy does the same).
pub(super) fn trailers_only(value: &[u8]) -> Fate {
    let asked = list(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
    match (asked, value == b"trailers") {
        (false, _) => Fate::Drop,
        (true, true) => Fate::Keep,
        (true, false) => Fate::Become(b"trailers".to_vec()),
    }
}

/// Options of all `connection` fields of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}
