//! MOMENT: a point of time as a person writes it, and which group of an archive is the last one before it.
//!
//! | written | means |
//! |---|---|
//! | `2026-11-23T10:00:00Z`, `2026-11-23 10:00:00.25+01:00` | that instant (RFC 3339; a space may stand for the `T`) |
//! | `2026-11-23 10:00:00`, `2026-11-23 10:00` | that time on this machine's clock |
//! | `-5m`, `-1h30m`, `-2d` | so long ago (units d, h, m, s) |
//! | `label:NAME` | where the base snapshot with that label was taken |
//! | `latest` | everything there is |

use ehpc_proto::replication::Timestamp;
use std::fmt;
use std::time::Duration;

const DAY: i64 = 86_400;
/// Longest label.
pub const MAX_LABEL: usize = 100;

/// What a person asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Everything there is.
    Latest,
    /// An instant.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
    /// Where a labelled base snapshot was taken.
    Label(String),
}

/// What to look for in an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Its end.
    Latest,
    /// The last group at or before this.
    Time(Timestamp),
    /// The place of the base snapshot with this label.
    Label(String),
}

/// What is wrong with a moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum MomentError {
    #[error(
        "`{0}` is not a moment; write `latest`, `-5m`, `label:NAME`, `2026-11-23 10:00:00` (local time) or \
         `2026-11-23T10:00:00Z`"
    )]
    Form(String),
    #[error("`{0}` is not a day of the calendar, or not a time of a day")]
    Calendar(String),
    #[error("`{text}` happened twice here (the clocks were set back); write {first} or {second}")]
    Twice { text: String, first: String, second: String },
    #[error(
        "`{0}` never was on the clocks here (they were set forward); write it with its offset, or as UTC with a `Z`"
    )]
    Never(String),
    #[error(
        "`{0}` is not a label: 1 to {MAX_LABEL} characters, none of them a control character or a space at an end"
    )]
    Label(String),
    #[error("{moment} is later than now ({now}); `latest` means everything there is")]
    Future { moment: String, now: String },
    #[error("`{0}` is too long ago")]
    Range(String),
}

impl Moment {
    /// Reads one. `offset_at` tells how many seconds local clocks are east of Greenwich at an instant (seconds after
    /// 1970).
    pub fn parse(text: &str, offset_at: &dyn Fn(i64) -> i32) -> Result<Moment, MomentError> {
        let text = text.trim();
        if text == "latest" {
            return Ok(Moment::Latest);
        }
        if let Some(label) = text.strip_prefix("label:") {
            return if is_label(label) {
                Ok(Moment::Label(label.to_owned()))
            } else {
                Err(MomentError::Label(label.to_owned()))
            };
        }
        if let Some(span) = text.strip_prefix('-') {
            return parse_span(span).map(Moment::Ago).ok_or_else(|| MomentError::Form(text.to_owned()));
        }
        parse_instant(text, offset_at).map(Moment::At)
    }

    /// What to look for, asked now. An instant in the future is refused: it would quietly mean `latest`.
    pub fn target(&self, now: Timestamp) -> Result<Target, MomentError> {
        match self {
            Moment::Latest => Ok(Target::Latest),
            Moment::Label(label) => Ok(Target::Label(label.clone())),
            Moment::At(at) if *at > now => {
                Err(MomentError::Future { moment: rfc3339(*at), now: rfc3339(now) })
            }
            Moment::At(at) => Ok(Target::Time(*at)),
            Moment::Ago(span) => {
                before(now, *span).map(Target::Time).ok_or_else(|| MomentError::Range(self.to_string()))
            }
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Latest => f.write_str("latest"),
            Moment::At(at) => f.write_str(&rfc3339(*at)),
            Moment::Ago(span) => write!(f, "-{}s", span.as_secs()),
            Moment::Label(label) => write!(f, "label:{label}"),
        }
    }
}

/// Whether a text can be a label.
pub fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.chars().count() <= MAX_LABEL
        && !text.chars().any(char::is_control)
}

/// The time of groups as an archive orders them: it never goes back, however clocks jump, so that the groups up to a
/// moment are always a prefix of the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running(Timestamp);

impl Default for Running {
    fn default() -> Running {
        Running(Timestamp { seconds: i64::MIN, nanos: 0 })
    }
}

impl Running {
    /// The next group's time, given the time that was measured for it.
    pub fn next(&mut self, measured: Timestamp) -> Timestamp {
        self.0 = self.0.max(measured);
        self.0
    }
}

/// The time of a group that was not seen live: its header tells whole seconds, and it may have been committed at the
/// very end of that second.
pub fn of_header(seconds: u32) -> Timestamp {
    Timestamp { seconds: i64::from(seconds), nanos: 999_999_000 }
}

/// The last entry of an index at or before `at`; the index's times never go back ([`Running`]).
pub fn last_at_or_before<T>(index: &[T], time: impl Fn(&T) -> Timestamp, at: Timestamp) -> Option<&T> {
    let after = index.partition_point(|entry| time(entry) <= at);
    index.get(after.checked_sub(1)?)
}

/// RFC 3339 in UTC; fractions as far as there are any.
pub fn rfc3339(time: Timestamp) -> String {
    let (year, month, day) = civil(time.seconds.div_euclid(DAY));
    let second = time.seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if time.nanos > 0 {
        let digits = format!("{:09}", time.nanos);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

fn before(now: Timestamp, span: Duration) -> Option<Timestamp> {
    let mut seconds = now.seconds.checked_sub(i64::try_from(span.as_secs()).ok()?)?;
    let nanos = i64::from(now.nanos) - i64::from(span.subsec_nanos());
    if nanos < 0 {
        seconds = seconds.checked_sub(1)?;
    }
    if seconds < 0 {
        return None;
    }
    Some(Timestamp { seconds, nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()? })
}

/// `5m`, `1h30m`: each unit once, largest first.
fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, seconds) in [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)] {
        let Some((digits, tail)) = rest.split_once(unit) else { continue };
        let count = number(digits, 1..=9)?;
        total = total.checked_add(count.checked_mul(seconds)?)?;
        rest = tail;
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_secs(total))
}

/// ASCII digits only, as many as said.
fn number(digits: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let good = lengths.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if good { digits.parse().ok() } else { None }
}

/// A calendar's reading: (seconds as if it were UTC, nanoseconds, offset when there is one).
fn parse_instant(text: &str, offset_at: &dyn Fn(i64) -> i32) -> Result<Timestamp, MomentError> {
    let form = || MomentError::Form(text.to_owned());
    let (date, rest) = text.split_at_checked(10).ok_or_else(form)?;
    let time = rest.strip_prefix(['T', 't', ' ']).ok_or_else(form)?;
    let days = parse_date(date).ok_or_else(form)?.ok_or_else(|| MomentError::Calendar(text.to_owned()))?;
    let (clock, offset) = split_offset(time).ok_or_else(form)?;
    let (second, nanos) =
        parse_clock(clock).ok_or_else(form)?.ok_or_else(|| MomentError::Calendar(text.to_owned()))?;
    let civil = days * DAY + second;
    let seconds = match offset {
        Some(offset) => civil - offset,
        None => local(civil, text, offset_at)?,
    };
    Ok(Timestamp { seconds, nanos })
}

/// `YYYY-MM-DD` as days after 1970; the inner `None`: there is no such day.
fn parse_date(text: &str) -> Option<Option<i64>> {
    let mut parts = text.split('-');
    let mut part = |length: usize| {
        let value = number(parts.next()?, length..=length)?;
        i64::try_from(value).ok()
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    if parts.next().is_some() {
        return None;
    }
    let good = (1..=12).contains(&month) && day >= 1;
    let days = days(year, month, day);
    // A day that a month does not have comes back as another.
    Some((good && civil(days) == (year, month, day)).then_some(days))
}

/// Cuts `Z`, `+HH:MM`, `-HH:MM` off; `None` for an offset that is none.
fn split_offset(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, Some(0)));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, None)) };
    let (clock, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes) = (number(hours, 2..=2)?, number(minutes, 2..=2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    Some((clock, Some(if offset.starts_with('-') { -seconds } else { seconds })))
}

/// `HH:MM`, `HH:MM:SS`, `HH:MM:SS.FRACTION` as (seconds of the day, nanoseconds); the inner `None`: no such time.
fn parse_clock(text: &str) -> Option<Option<(i64, u32)>> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] if fraction.is_none() => (number(hour, 2..=2)?, number(minute, 2..=2)?, 0),
        [hour, minute, second] => (number(hour, 2..=2)?, number(minute, 2..=2)?, number(second, 2..=2)?),
        _ => return None,
    };
    let nanos = match fraction {
        None => 0,
        Some(digits) => number(digits, 1..=9)? * 10_u64.pow(9 - u32::try_from(digits.len()).ok()?),
    };
    // A leap second is the end of its minute.
    let (second, nanos) = if second == 60 { (59, 999_999_999) } else { (second, nanos) };
    if hour > 23 || minute > 59 || second > 59 {
        return Some(None);
    }
    let seconds = i64::try_from(hour * 3600 + minute * 60 + second).ok()?;
    Some(Some((seconds, u32::try_from(nanos).ok()?)))
}

/// The instant at which clocks here show `civil`.
fn local(civil: i64, text: &str, offset_at: &dyn Fn(i64) -> i32) -> Result<i64, MomentError> {
    // The offsets on either side of a change; a zone changes less than once in two days.
    let before = i64::from(offset_at(civil - DAY));
    let after = i64::from(offset_at(civil + DAY));
    let shows = |offset: i64| (i64::from(offset_at(civil - offset)) == offset).then_some(civil - offset);
    match (shows(before), shows(after)) {
        (Some(first), Some(second)) if first != second => Err(MomentError::Twice {
            text: text.to_owned(),
            first: with_offset(text, before),
            second: with_offset(text, after),
        }),
        (Some(only), _) | (None, Some(only)) => Ok(only),
        (None, None) => Err(MomentError::Never(text.to_owned())),
    }
}

fn with_offset(text: &str, offset: i64) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.abs() / 60;
    format!("`{text}{sign}{:02}:{:02}`", minutes / 60, minutes % 60)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
/// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The reverse: (year, month, day).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "moment_tests.rs"]
mod tests;
