//! The parts of `Cookie` and `Set-Cookie` fields. Pure. Lenient as HAProxy is: browsers and servers of thirty years write
//! white space around `=`, quotes, commas, and attributes that begin with `$` (RFC 2109, RFC 2965, RFC 6265).

use std::ops::Range;

/// `name=value` within a field's value; all ranges are of its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crumb {
    /// Where it begins: at the delimiter before it, or at 0.
    pub start: usize,
    /// Its name, without white space.
    pub name: Range<usize>,
    /// Its value, without white space around; `None` of `=`: empty and at `end`.
    pub value: Range<usize>,
    /// Where it ends: at the delimiter after it, or at the end.
    pub end: usize,
    equals: bool,
}

impl Crumb {
    /// Its name.
    pub fn name<'v>(&self, field: &'v [u8]) -> &'v [u8] {
        &field[self.name.clone()]
    }

    /// Its value.
    pub fn value<'v>(&self, field: &'v [u8]) -> &'v [u8] {
        &field[self.value.clone()]
    }

    /// It has an `=`.
    pub fn has_value(&self) -> bool {
        self.equals
    }

    /// `$Version`, `$Path`: says something of the cookie before it.
    pub fn is_attribute(&self, field: &[u8]) -> bool {
        self.name(field).first() == Some(&b'$')
    }
}

/// Space or tabulator.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Parts of a `Cookie` field, divided by `;` or `,`.
pub fn of_request(field: &[u8]) -> impl Iterator<Item = Crumb> + '_ {
    let (mut at, mut first) = (0, true);
    std::iter::from_fn(move || {
        if at >= field.len() {
            return None;
        }
        let crumb = crumb(field, at, !first, b",;");
        (at, first) = (crumb.end, false);
        Some(crumb)
    })
}

/// The cookie of a `Set-Cookie` field; what follows its value (`; path=/`) is not looked at. `None`: empty field.
pub fn of_response(field: &[u8]) -> Option<Crumb> {
    // An unquoted date of `Expires` has a comma: only `;` ends a name here.
    (!field.is_empty()).then(|| crumb(field, 0, false, b";"))
}

/// Values of a comma-separated field, without white space around; commas in quotes divide nothing.
pub fn list(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    field
        .split(move |byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
}

fn crumb(field: &[u8], start: usize, after_delimiter: bool, ends_name: &[u8]) -> Crumb {
    let spaces = |from: usize| field[from..].iter().take_while(|byte| is_space(**byte)).count();
    let begin = start + usize::from(after_delimiter);
    let name_start = begin + spaces(begin);
    let stop = field[name_start..]
        .iter()
        .position(|byte| *byte == b'=' || ends_name.contains(byte))
        .map_or(field.len(), |length| name_start + length);
    let name_end = name_start + trimmed(&field[name_start..stop]);
    if field.get(stop) != Some(&b'=') {
        return Crumb { start, name: name_start..name_end, value: stop..stop, end: stop, equals: false };
    }
    let value_start = stop + 1 + spaces(stop + 1);
    let end = value_start + value_length(&field[value_start..]);
    let value_end = value_start + trimmed(&field[value_start..end]);
    Crumb { start, name: name_start..name_end, value: value_start..value_end, end, equals: true }
}

/// Length without white space at the end.
fn trimmed(text: &[u8]) -> usize {
    text.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1)
}

/// Up to the next delimiter that does not stand in quotes.
fn value_length(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        if escaped {
            escaped = false;
            continue;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b';' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Vec<(String, String)> {
        let bytes = field.as_bytes();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        of_request(bytes).map(|crumb| (text(crumb.name(bytes)), text(crumb.value(bytes)))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parts_are_divided_as_servers_divide_them() {
        assert_eq!(shown("a=1; b=2,c=3"), pairs(&[("a", "1"), ("b", "2"), ("c", "3")]));
        assert_eq!(shown(" a = 1 ;b; =x;;"), pairs(&[("a", "1"), ("b", ""), ("", "x"), ("", ""), ("", "")]));
        assert_eq!(shown("a=\"1;2\\\";3\";b=4"), pairs(&[("a", "\"1;2\\\";3\""), ("b", "4")]));
        assert_eq!(shown("a=\"open; b=2"), pairs(&[("a", "\"open; b=2")]));
        assert_eq!(shown(""), pairs(&[]));
        assert_eq!(shown("a==b=c"), pairs(&[("a", "=b=c")]));
    }

    #[test]
    fn commas_in_quotes_divide_no_list() {
        let values: Vec<&[u8]> = list(b"a , b=\"x, \\\" y\",c").collect();
        assert_eq!(values, [&b"a"[..], b"b=\"x, \\\" y\"", b"c"]);
    }

    #[test]
    fn of_an_answer_only_the_first_part_is_the_cookie() {
        let field = b"a, b = 1, 2; path=/; x=y";
        let crumb = of_response(field).unwrap();
        assert_eq!((crumb.name(field), crumb.value(field)), (&b"a, b"[..], &b"1"[..]));
    }

    #[test]
    fn every_field_is_covered_by_its_parts() {
        let alphabet = b"ab=;,\" \t\\$|~";
        let mut number = 0_usize;
        while number < alphabet.len().pow(4) {
            let field: Vec<u8> =
                (0..4).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]).collect();
            let (mut at, mut first) = (0, true);
            for crumb in of_request(&field) {
                assert_eq!(crumb.start, at);
                assert!(crumb.end > at || first);
                first = false;
                assert!(crumb.name.end <= crumb.value.start && crumb.value.end <= crumb.end);
                at = crumb.end;
            }
            assert_eq!(at, field.len());
            number += 1;
        }
    }
}
