//! Values of one word: times, sizes, numbers (2.5 of the manual).

use super::words::{Parsed, Words};
use std::time::Duration;

/// Longest time: HAProxy's timers are 31 bits of milliseconds.
const LONGEST_MS: u64 = i32::MAX as u64;

/// Unit of a time that has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Unit {
    Milliseconds,
    Seconds,
}

/// `10s`, `5000`, `1d`, `500us`.
pub(crate) fn time(words: &mut Words<'_>, unit: Unit) -> Parsed<Duration> {
    let expected = "a time such as 500ms, 10s, 1m";
    let text = words.demand(expected)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let default = match unit {
        Unit::Milliseconds => "ms",
        Unit::Seconds => "s",
    };
    let microseconds: u64 = match if suffix.is_empty() { default } else { suffix } {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => {
            let what = format!("`{text}` is not a time");
            return Err(words.problem_before(&what, expected, "the units are us, ms, s, m, h and d"));
        }
    };
    if number.is_empty() {
        let what = format!("`{text}` is not a time");
        return Err(words.problem_before(&what, expected, "write a whole number before the unit"));
    }
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(microseconds));
    let total = total.filter(|total| total / 1000 <= LONGEST_MS).ok_or_else(|| {
        let what = format!("`{text}` is too long");
        words.problem_before(&what, "at most 2147483647 ms (24.8 days)", "write a shorter time")
    })?;
    // As HAProxy: parts of a millisecond count as one.
    Ok(Duration::from_millis(total.div_ceil(1000)))
}

/// A time where 0 means none.
pub(crate) fn timeout(words: &mut Words<'_>) -> Parsed<Option<Duration>> {
    Ok(Some(time(words, Unit::Milliseconds)?).filter(|time| !time.is_zero()))
}

/// A whole number of a range.
pub(crate) fn number<N>(words: &mut Words<'_>, what: &str, range: std::ops::RangeInclusive<N>) -> Parsed<N>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let expected = format!("{what}: a whole number from {} to {}", range.start(), range.end());
    let text = words.demand(&expected)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let value = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<N>().ok()).flatten();
    value.filter(|value| range.contains(value)).ok_or_else(|| {
        words.problem_before(&format!("`{text}` cannot be used"), &expected, "write a number of that range")
    })
}

/// A size with an optional `k`, `m` or `g` (powers of 1024).
pub(crate) fn size(words: &mut Words<'_>) -> Parsed<usize> {
    let expected = "a size such as 200000, 64k, 1m";
    let text = words.demand(expected)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix {
        "" => Some(0),
        "k" | "K" => Some(10),
        "m" | "M" => Some(20),
        "g" | "G" => Some(30),
        _ => None,
    };
    shift
        .zip(number.parse::<u32>().ok())
        .and_then(|(shift, number)| usize::try_from(u64::from(number) << shift).ok())
        .filter(|size| u32::try_from(*size).is_ok())
        .ok_or_else(|| words.problem_before(&format!("`{text}` is not a size"), expected, "write it so"))
}

/// A file mode in octal.
pub(crate) fn mode(words: &mut Words<'_>) -> Parsed<u32> {
    let text = words.demand("a file mode such as 660")?;
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        words.problem_before(&format!("`{text}` is not a file mode"), "octal digits such as 660", "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::words::{Line, Word};
    use std::path::Path;

    fn line(word: &str) -> Line {
        let words = vec![Word { text: word.to_owned(), column: 1, quoted: false }];
        Line { file: Path::new("x").into(), number: 1, words }
    }

    #[test]
    fn times_are_read_as_haproxy_reads_them() {
        for (text, unit, ms) in [
            ("5000", Unit::Milliseconds, 5000),
            ("5", Unit::Seconds, 5000),
            ("10s", Unit::Milliseconds, 10_000),
            ("1d", Unit::Milliseconds, 86_400_000),
            ("2h", Unit::Milliseconds, 7_200_000),
            ("3m", Unit::Seconds, 180_000),
            ("1500us", Unit::Milliseconds, 2),
            ("0", Unit::Milliseconds, 0),
            ("2147483647", Unit::Milliseconds, 2_147_483_647),
        ] {
            let line = line(text);
            assert_eq!(time(&mut Words::new(&line), unit), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "10 s", "10sec", "-1", "1.5s", "2147483648", "25d", "99999999999999999999s"] {
            let line = line(text);
            assert!(time(&mut Words::new(&line), Unit::Milliseconds).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_sizes_have_bounds() {
        let of = |text: &str| number(&mut Words::new(&line(text)), "weight", 0..=256_u32);
        assert_eq!(of("256"), Ok(256));
        assert!(of("257").is_err() && of("-1").is_err() && of("+1").is_err() && of("1x").is_err());
        let of = |text: &str| size(&mut Words::new(&line(text)));
        assert_eq!((of("10"), of("2k"), of("1m")), (Ok(10), Ok(2048), Ok(1 << 20)));
        assert!(of("k").is_err() && of("4g").is_err() && of("1t").is_err());
        assert_eq!(mode(&mut Words::new(&line("660"))), Ok(0o660));
        assert!(mode(&mut Words::new(&line("68"))).is_err());
    }
}
