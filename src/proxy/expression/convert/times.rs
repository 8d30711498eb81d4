//! Dates: `ltime`, `utime`, `http_date`, and strftime(3) for them in the C locale.

use super::{Converter, row};
use crate::host::local_time::{LocalTime, local_time};
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::calendar::{DAYS, MONTHS, day_of_week, day_of_year, utc};
use crate::proxy::expression::{Context, Kind, Sample, Scope};

const FORMAT: &[Slot] = &[Slot::Text, Slot::Integer];

pub(super) const TABLE: &[Converter] = &[
    row("ltime", Kind::Integer, Kind::Text, ltime, "a date in local time")
        .takes(FORMAT, 1)
        .prepared(check_format),
    row("utime", Kind::Integer, Kind::Text, utime, "a date in UTC").takes(FORMAT, 1).prepared(check_format),
    row("http_date", Kind::Integer, Kind::Text, http_date, "a date as in HTTP headers")
        .takes(&[Slot::Integer, Slot::Text], 0)
        .prepared(prepare_http_date),
];

fn check_format(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let mut out = Vec::new();
    match strftime(arguments.text(0), &utc(0), 0, "UTC", &mut out) {
        Ok(()) => Ok(()),
        Err(letter) => Err(format!("argument 1: `%{letter}` is not supported")),
    }
}

/// strftime(3) without a locale. The error is a letter that is not supported.
fn strftime(
    format: &[u8],
    time: &LocalTime,
    seconds: i64,
    zone: &str,
    out: &mut Vec<u8>,
) -> Result<(), char> {
    let mut bytes = format.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let letter = bytes.next().ok_or('%')?;
        conversion(letter, time, seconds, zone, out)?;
    }
    Ok(())
}

fn conversion(letter: u8, time: &LocalTime, seconds: i64, zone: &str, out: &mut Vec<u8>) -> Result<(), char> {
    let weekday = day_of_week(time);
    let hour12 = if time.hour.is_multiple_of(12) { 12 } else { time.hour % 12 };
    let nested = |text: &[u8], out: &mut Vec<u8>| strftime(text, time, seconds, zone, out);
    let text = match letter {
        b'Y' => time.year.to_string(),
        b'C' => format!("{:02}", time.year.div_euclid(100)),
        b'y' => format!("{:02}", time.year.rem_euclid(100)),
        b'm' => format!("{:02}", time.month),
        b'd' => format!("{:02}", time.day),
        b'e' => format!("{:2}", time.day),
        b'H' => format!("{:02}", time.hour),
        b'k' => format!("{:2}", time.hour),
        b'I' => format!("{hour12:02}"),
        b'l' => format!("{hour12:2}"),
        b'M' => format!("{:02}", time.minute),
        b'S' => format!("{:02}", time.second),
        b'p' => (if time.hour < 12 { "AM" } else { "PM" }).to_owned(),
        b'P' => (if time.hour < 12 { "am" } else { "pm" }).to_owned(),
        b'j' => format!("{:03}", day_of_year(time)),
        b'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
        b'w' => weekday.to_string(),
        b's' => seconds.to_string(),
        b'z' => offset(time.offset_seconds),
        b'Z' => zone.to_owned(),
        b'a' => DAYS[weekday][..3].to_owned(),
        b'A' => DAYS[weekday].to_owned(),
        b'b' | b'h' => MONTHS[usize::from(time.month.clamp(1, 12) - 1)][..3].to_owned(),
        b'B' => MONTHS[usize::from(time.month.clamp(1, 12) - 1)].to_owned(),
        b'n' => "\n".to_owned(),
        b't' => "\t".to_owned(),
        b'%' => "%".to_owned(),
        b'T' | b'X' => return nested(b"%H:%M:%S", out),
        b'R' => return nested(b"%H:%M", out),
        b'r' => return nested(b"%I:%M:%S %p", out),
        b'F' => return nested(b"%Y-%m-%d", out),
        b'D' | b'x' => return nested(b"%m/%d/%y", out),
        b'c' => return nested(b"%a %b %e %H:%M:%S %Y", out),
        other => return Err(char::from(other)),
    };
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// `+0100`
fn offset(seconds: i32) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
}

fn ltime<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let seconds = sample.to_integer()?.wrapping_add(arguments.integer(1).unwrap_or(0));
    let mut out = Vec::new();
    strftime(arguments.text(0), &local_time(seconds), seconds, "", &mut out).ok()?;
    Some(Sample::made(out))
}

fn utime<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let seconds = sample.to_integer()?.wrapping_add(arguments.integer(1).unwrap_or(0));
    let mut out = Vec::new();
    strftime(arguments.text(0), &utc(seconds), seconds, "GMT", &mut out).ok()?;
    Some(Sample::made(out))
}

fn prepare_http_date(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let divisor = match arguments.text(1) {
        b"" | b"s" => 1,
        b"ms" => 1_000,
        b"us" => 1_000_000,
        _ => return Err("argument 2: the unit is s, ms or us".to_owned()),
    };
    arguments.put(1, Argument::Integer(divisor));
    Ok(())
}

fn http_date<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let value = sample.to_integer()?.wrapping_add(arguments.integer(0).unwrap_or(0));
    let divisor = arguments.integer(1).unwrap_or(1);
    let seconds = value.div_euclid(divisor);
    let mut out = Vec::new();
    strftime(b"%a, %d %b %Y %H:%M:%S", &utc(seconds), seconds, "GMT", &mut out).ok()?;
    if divisor > 1 {
        // HAProxy 2.6 writes the fraction, unpadded, which no HTTP date has.
        out.extend_from_slice(format!(".{}", value.rem_euclid(divisor)).as_bytes());
    }
    out.extend_from_slice(b" GMT");
    Some(Sample::made(out))
}
