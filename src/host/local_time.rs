//! The machine's time zone.

use std::sync::Once;

/// Wall clock of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct LocalTime {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    /// 60 in a leap second.
    pub second: u8,
    /// Seconds east of Greenwich.
    pub offset_seconds: i32,
}

/// Reads the machine's time zone (`TZ`, else /etc/localtime). It is read once: call this before a chroot, where
/// the file cannot be found any more.
pub fn read_time_zone() {
    unsafe extern "C" {
        // Of the C library, but not in the libc crate.
        fn tzset();
    }
    static READ: Once = Once::new();
    // SAFETY: no arguments; tzset locks what it changes.
    READ.call_once(|| unsafe { tzset() });
}

/// What clocks here show at this many seconds after 1970 (UTC).
pub fn local_time(unix_seconds: i64) -> LocalTime {
    read_time_zone();
    // SAFETY: tm is plain data (and a pointer that may be null); zero is a valid value of it.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to whole values that live during the call.
    let found = unsafe { libc::localtime_r(&raw const unix_seconds, &raw mut tm) };
    if found.is_null() {
        return LocalTime::default(); // a year that does not fit
    }
    let small = |value: libc::c_int| u8::try_from(value).unwrap_or(0);
    LocalTime {
        year: tm.tm_year.saturating_add(1900),
        month: small(tm.tm_mon + 1),
        day: small(tm.tm_mday),
        hour: small(tm.tm_hour),
        minute: small(tm.tm_min),
        second: small(tm.tm_sec),
        offset_seconds: i32::try_from(tm.tm_gmtoff).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_second_is_a_known_day_in_every_zone() {
        // 2026-11-27 10:25:29 UTC.
        let at = 1_795_775_129;
        let here = local_time(at);
        let utc = local_time(at - i64::from(here.offset_seconds));
        assert_eq!((utc.year, utc.month, utc.day), (2026, 11, 27));
        assert_eq!((utc.hour, utc.minute, utc.second), (10, 25, 29));
    }
}
