//! Dates of the proleptic Gregorian calendar, without a locale.

use crate::host::local_time::LocalTime;

/// From Sunday.
pub(in crate::proxy) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// From January.
pub(in crate::proxy) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Wall clock in UTC. A year that does not fit is the zero of `LocalTime`.
pub(in crate::proxy) fn utc(unix_seconds: i64) -> LocalTime {
    let (days, rest) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    // Days from 0000-03-01, in eras of 400 years (Hinnant's civil_from_days).
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era.saturating_mul(400) + i64::from(month <= 2);
    let Ok(year) = i32::try_from(year) else { return LocalTime::default() };
    let small = |value: i64| u8::try_from(value).unwrap_or(0);
    LocalTime {
        year,
        month: small(month),
        day: small(day),
        hour: small(rest / 3_600),
        minute: small(rest / 60 % 60),
        second: small(rest % 60),
        offset_seconds: 0,
    }
}

/// 1 to 366.
pub(in crate::proxy) fn day_of_year(time: &LocalTime) -> u16 {
    const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = time.year % 4 == 0 && (time.year % 100 != 0 || time.year % 400 == 0);
    BEFORE[usize::from(time.month.clamp(1, 12) - 1)] + u16::from(time.day) + u16::from(leap && time.month > 2)
}

/// 0 (Sunday) to 6.
pub(in crate::proxy) fn day_of_week(time: &LocalTime) -> usize {
    const MONTH: [i64; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let year = i64::from(time.year) - i64::from(time.month < 3);
    let month = MONTH[usize::from(time.month.clamp(1, 12) - 1)];
    let day =
        year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + month + i64::from(time.day);
    usize::try_from(day.rem_euclid(7)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        for (seconds, expected, week, of_year) in [
            (0, (1970, 1, 1, 0, 0, 0), 4, 1),
            (951_782_399, (2000, 2, 28, 23, 59, 59), 1, 59),
            (951_782_400, (2000, 2, 29, 0, 0, 0), 2, 60),
            (1_795_775_129, (2026, 11, 27, 10, 25, 29), 5, 331),
            (-1, (1969, 12, 31, 23, 59, 59), 3, 365),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0), 1, 60),
        ] {
            let time = utc(seconds);
            let got = (time.year, time.month, time.day, time.hour, time.minute, time.second);
            assert_eq!(got, expected);
            assert_eq!((day_of_week(&time), day_of_year(&time)), (week, of_year), "{seconds}");
        }
        assert_eq!(utc(i64::MAX).year, 0);
    }
}
