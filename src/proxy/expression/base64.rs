//! Base 64 (RFC 4648): `base64`, `b64dec`, `ub64enc`, `ub64dec`, credentials.

/// Alphabet of section 4; padded.
pub(crate) const STANDARD: &Alphabet = &Alphabet { last: *b"+/", padded: true };
/// Alphabet of section 5, for URLs; not padded.
pub(crate) const URL: &Alphabet = &Alphabet { last: *b"-_", padded: false };

/// One of the two alphabets.
#[derive(Debug)]
pub(crate) struct Alphabet {
    last: [u8; 2],
    padded: bool,
}

impl Alphabet {
    fn digit(&self, value: u8) -> u8 {
        match value {
            0..=25 => b'A' + value,
            26..=51 => b'a' + (value - 26),
            52..=61 => b'0' + (value - 52),
            62 => self.last[0],
            _ => self.last[1],
        }
    }

    fn value(&self, digit: u8) -> Option<u8> {
        match digit {
            b'A'..=b'Z' => Some(digit - b'A'),
            b'a'..=b'z' => Some(digit - b'a' + 26),
            b'0'..=b'9' => Some(digit - b'0' + 52),
            _ if digit == self.last[0] => Some(62),
            _ if digit == self.last[1] => Some(63),
            _ => None,
        }
    }
}

/// Encodes.
pub(crate) fn encode(bytes: &[u8], alphabet: &Alphabet) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let at = |index: usize| part.get(index).copied().unwrap_or(0);
        let sixths = [at(0) >> 2, (at(0) & 3) << 4 | at(1) >> 4, (at(1) & 15) << 2 | at(2) >> 6, at(2) & 63];
        for (index, value) in sixths.into_iter().enumerate() {
            match (index <= part.len(), alphabet.padded) {
                (true, _) => out.push(alphabet.digit(value)),
                (false, true) => out.push(b'='),
                (false, false) => {}
            }
        }
    }
    out
}

/// Decodes; `None` for what is no base 64.
pub(crate) fn decode(text: &[u8], alphabet: &Alphabet) -> Option<Vec<u8>> {
    if alphabet.padded && !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let digits = &text[..text.len() - padding];
    if digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for part in digits.chunks(4) {
        let mut bits: u32 = 0;
        for index in 0..4 {
            let value = part.get(index).map_or(Some(0), |digit| alphabet.value(*digit))?;
            bits = bits << 6 | u32::from(value);
        }
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..part.len()]);
    }
    Some(out)
}
