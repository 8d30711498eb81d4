//! Dates of log lines: each thread remembers the last second that it wrote, so that a line costs neither a system call
//! nor arithmetic of calendars.

use crate::host::local_time::{LocalTime, local_time};
use crate::proxy::expression::calendar::{MONTHS, utc};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// `27/Nov/2026:10:25:29 +0100`
#[derive(Clone, Copy, Debug)]
struct Written {
    second: i64,
    text: [u8; 26],
}

const NEVER: Written = Written { second: i64::MIN, text: [0; 26] };

thread_local! {
    /// Of UTC and of here; two seconds each, as a connection is older than its request.
    static REMEMBERED: RefCell<[[Written; 2]; 2]> = const { RefCell::new([[NEVER; 2]; 2]) };
}

/// Seconds since 1970 and milliseconds.
pub(super) fn split(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_millis()),
        Err(_) => (0, 0),
    }
}

/// `27/Nov/2026:10:25:29.123` in local time.
pub(super) fn with_milliseconds(time: SystemTime, out: &mut Vec<u8>) {
    let (second, milliseconds) = split(time);
    out.extend_from_slice(&text(second, false)[..20]);
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend([b'.', digit(milliseconds / 100), digit(milliseconds / 10), digit(milliseconds)]);
}

/// `27/Nov/2026:10:25:29 +0100`
pub(super) fn with_zone(time: SystemTime, gmt: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&text(split(time).0, gmt));
}

fn text(second: i64, gmt: bool) -> [u8; 26] {
    REMEMBERED.with_borrow_mut(|all| {
        let slots = &mut all[usize::from(gmt)];
        let slot = usize::from(second & 1 != 0);
        if slots[slot].second != second {
            let time = if gmt { utc(second) } else { local_time(second) };
            slots[slot] = Written { second, text: write(&time) };
        }
        slots[slot].text
    })
}

fn write(time: &LocalTime) -> [u8; 26] {
    let month = &MONTHS[usize::from(time.month.clamp(1, 12) - 1)][..3];
    let sign = if time.offset_seconds < 0 { '-' } else { '+' };
    let minutes = time.offset_seconds.unsigned_abs() / 60;
    let text = format!(
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02} {sign}{:02}{:02}",
        time.day,
        time.year.clamp(0, 9999),
        time.hour,
        time.minute,
        time.second,
        minutes / 60 % 100,
        minutes % 60
    );
    text.as_bytes().try_into().unwrap_or([b'?'; 26])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_their_second() {
        let at = |seconds: u64, milliseconds: u64| {
            UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(milliseconds)
        };
        for _ in 0..2 {
            for (seconds, expected) in [
                (1_795_775_129, "27/Nov/2026:10:25:29 +0000"),
                (1_795_775_131, "27/Nov/2026:10:25:31 +0000"),
                (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            ] {
                let mut out = Vec::new();
                with_zone(at(seconds, 0), true, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
        let mut out = Vec::new();
        with_milliseconds(at(1_795_775_129, 7), &mut out);
        assert!(out.ends_with(b".007") && out.len() == 24, "{out:?}");
    }
}
