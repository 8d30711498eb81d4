//! Classes of bytes, and the searches that the parsers spend their time in.

/// For a byte of a token (RFC 9110 section 5.6.2): its lower case. For any other byte: 0.
static TOKEN: [u8; 256] = token_table();

const fn token_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        let punctuation = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if punctuation || byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// Whether a byte may stand in a token.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)] != 0
}

/// Space or tab (`OWS`, RFC 9110 section 5.6.3).
pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// How many bytes from the start are token bytes.
pub(super) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_token(*byte)).unwrap_or(bytes.len())
}

/// How many bytes from the start are blanks.
pub(super) fn blank_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_blank(*byte)).unwrap_or(bytes.len())
}

/// Place of the first CR, LF or NUL; the length when there is none.
pub(super) fn line_stop(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let stops = |byte: u8| matches!(byte, b'\r' | b'\n' | 0);
    let mut at = 0;
    // Eight at a time while none is below 0x0e; a tab only costs the look at its eight.
    while let Some(eight) = bytes.get(at..at + 8).and_then(|slice| <[u8; 8]>::try_from(slice).ok()) {
        let word = u64::from_le_bytes(eight);
        let low = word.wrapping_sub(ONES * 0x0e) & !word & HIGH;
        if low != 0
            && let Some(found) = eight.iter().position(|byte| stops(*byte))
        {
            return at + found;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| stops(*byte)).map_or(bytes.len(), |found| at + found)
}

/// A slice without blanks at its ends.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_rfc() {
        let tokens: Vec<u8> = (0..=255).filter(|byte| is_token(*byte)).collect();
        assert_eq!(tokens, b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
    }

    #[test]
    fn a_line_stops_where_it_does_however_long_it_is() {
        for len in 0..40 {
            let mut line = vec![b'\t'; len];
            line.extend((0..len).map(|n| 0x80 | u8::try_from(n).unwrap()));
            assert_eq!(line_stop(&line), line.len());
            for stop in [b'\r', b'\n', 0] {
                for at in 0..line.len() {
                    let mut line = line.clone();
                    line[at] = stop;
                    assert_eq!(line_stop(&line), at, "{len}");
                }
            }
        }
    }
}
