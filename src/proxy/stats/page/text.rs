//! Text on its way into HTML and addresses, and out of forms.

use std::fmt::Write as _;

/// Text between tags or in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Text in a query (RFC 3986 section 2): everything but unreserved characters as `%XX`.
pub(super) fn query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A field of a form (`application/x-www-form-urlencoded`): `+` is a blank, `%XX` a byte.
pub(super) fn form_text(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let coded = (*first == b'%').then(|| behind.get(..2)).flatten();
        let byte = coded.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, first) {
            (Some(byte), _) => {
                out.push(byte);
                rest = &behind[2..];
            }
            (None, b'+') => out.push(b' '),
            (None, other) => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A number with its thousands set apart, as HTML.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        match left > 1 && left % 3 == 1 {
            true => {
                let _ = write!(out, "<span class=\"rls\">{digit}</span>");
            }
            false => out.push(digit),
        }
    }
    out
}

/// Seconds in at most two units: `3d4h`, `1m2s`.
pub(super) fn duration(seconds: i64) -> String {
    if seconds < 0 {
        return "?".to_owned();
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_through() {
        assert_eq!(escaped("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        assert_eq!(query("a b/é"), "a%20b%2F%C3%A9");
        assert_eq!(form_text(b"a+b%2Fc%zz%4"), "a b/c%zz%4");
        assert_eq!(grouped(1_234_567), "<span class=\"rls\">1</span>23<span class=\"rls\">4</span>567");
        assert_eq!(grouped(-12), "-12");
        assert_eq!([5, 62, 3_700, 90_000, -1].map(duration), ["5s", "1m2s", "1h1m", "1d1h", "?"]);
    }
}
