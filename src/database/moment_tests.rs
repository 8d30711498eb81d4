//! Moments.

use super::*;

fn at(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp { seconds, nanos }
}

fn utc(_: i64) -> i32 {
    0
}

/// A zone like Berlin's in 2026: +01:00, and +02:00 from 03-29 01:00 UTC to 10-25 01:00 UTC.
fn berlin(instant: i64) -> i32 {
    if (1_774_746_000..1_792_890_000).contains(&instant) { 7200 } else { 3600 }
}

fn instant(text: &str) -> Timestamp {
    match Moment::parse(text, &berlin).unwrap() {
        Moment::At(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn instants_with_an_offset() {
    for (text, seconds, nanos) in [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("2026-11-27T10:25:29Z", 1_795_775_129, 0),
        ("2026-11-27 10:25:29z", 1_795_775_129, 0),
        ("2026-11-27t11:25:29.25+01:00", 1_795_775_129, 250_000_000),
        ("2026-11-27T05:55:29.000000001-04:30", 1_795_775_129, 1),
        ("2024-02-29T12:00Z", 1_709_208_000, 0),
        ("1969-12-31T23:59:59.5Z", -1, 500_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_799, 999_999_999),
        ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
    ] {
        assert_eq!(instant(text), at(seconds, nanos), "{text}");
    }
}

#[test]
fn instants_on_this_machines_clock() {
    assert_eq!(instant("2026-11-27 11:25:29"), at(1_795_775_129, 0), "winter");
    assert_eq!(instant("2026-07-01T02:00"), at(1_782_864_000, 0), "summer");
    // Around both changes, to the second.
    assert_eq!(instant("2026-03-29 01:59:59"), at(1_774_745_999, 0));
    assert_eq!(instant("2026-03-29 03:00:00"), at(1_774_746_000, 0));
    assert_eq!(instant("2026-10-25 01:59:59"), at(1_792_886_399, 0));
    assert_eq!(instant("2026-10-25 03:00:00"), at(1_792_893_600, 0));
    assert_eq!(
        Moment::parse("2026-03-29 02:30:00", &berlin).unwrap_err(),
        MomentError::Never("2026-03-29 02:30:00".into())
    );
    let error = Moment::parse("2026-10-25 02:30:00", &berlin).unwrap_err().to_string();
    assert!(error.contains("write `2026-10-25 02:30:00+02:00` or `2026-10-25 02:30:00+01:00`"), "{error}");
    // And what it says to write is understood.
    assert_eq!(
        instant("2026-10-25 02:30:00+02:00").seconds + 3600,
        instant("2026-10-25 02:30:00+01:00").seconds
    );
}

#[test]
fn other_forms() {
    let parse = |text: &str| Moment::parse(text, &utc).unwrap();
    assert_eq!(parse(" latest "), Moment::Latest);
    assert_eq!(parse("-5m"), Moment::Ago(Duration::from_secs(300)));
    assert_eq!(parse("-1d2h3m4s"), Moment::Ago(Duration::from_secs(93_784)));
    assert_eq!(parse("label:before the move"), Moment::Label("before the move".into()));
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        "now",
        "-",
        "-5",
        "-m",
        "-5x",
        "-5m5h",
        "-+5m",
        "--5m",
        "5m",
        "2026",
        "2026-11-27",
        "2026-11-27T",
        "Latest",
        "2026-11-27T1:00:00Z",
        "2026-11-27T10:00:00.Z",
        "2026-11-27T10:00:00.1234567890Z",
        "2026-11-27T10.5Z",
        "2026-11-27T10:00:00+1",
        "2026-11-27T10:00:00+24:00",
        "2026-11-27T10:00:00 +01:00",
        "26-11-2027 10:00:00",
        "2026/11/27 10:00",
        "２０26-11-27 10:00:00",
        "-9999999999d",
        "2026-11-27T10:00:00+é:00",
    ] {
        let error = Moment::parse(text, &utc).unwrap_err();
        assert!(matches!(error, MomentError::Form(_)), "{text}: {error:?}");
    }
    for text in [
        "2026-13-01 00:00",
        "2026-02-29 00:00",
        "2026-00-01 00:00",
        "2026-01-00 00:00",
        "2026-01-01 24:00",
        "2026-01-01 00:60",
        "2026-01-01 00:00:61",
    ] {
        let error = Moment::parse(text, &utc).unwrap_err();
        assert!(matches!(error, MomentError::Calendar(_)), "{text}: {error:?}");
    }
    for text in ["label:", "label: x", "label:a\nb", &format!("label:{}", "x".repeat(101))] {
        assert!(matches!(Moment::parse(text, &utc), Err(MomentError::Label(_))), "{text}");
    }
}

#[test]
fn targets() {
    let now = at(1000, 250_000_000);
    let target = |moment: Moment| moment.target(now);
    assert_eq!(target(Moment::Latest).unwrap(), Target::Latest);
    assert_eq!(target(Moment::Label("x".into())).unwrap(), Target::Label("x".into()));
    assert_eq!(target(Moment::At(now)).unwrap(), Target::Time(now));
    assert_eq!(target(Moment::Ago(Duration::from_millis(500))).unwrap(), Target::Time(at(999, 750_000_000)));
    let error = target(Moment::At(at(1000, 250_000_001))).unwrap_err().to_string();
    assert!(error.starts_with("1970-01-01T00:16:40.250000001Z is later than now"), "{error}");
    assert!(matches!(target(Moment::Ago(Duration::from_secs(2000))), Err(MomentError::Range(_))));
}

#[test]
fn every_day_comes_back() {
    for day in (-800_000..3_000_000).step_by(97) {
        let (year, month, of_month) = civil(day);
        assert_eq!(days(year, month, of_month), day);
    }
    for seconds in [0, 951_782_400, 1_795_775_129, 4_107_542_400] {
        assert_eq!(instant(&rfc3339(at(seconds, 120))), at(seconds, 120));
    }
}

#[test]
fn clock_jumps_do_not_reorder() {
    let measured = [10, 11, 5, 12, 12, 3, 20];
    let mut running = Running::default();
    let index: Vec<(Timestamp, usize)> =
        measured.iter().enumerate().map(|(n, seconds)| (running.next(at(*seconds, 0)), n)).collect();
    let last = |seconds| last_at_or_before(&index, |entry| entry.0, at(seconds, 999)).map(|entry| entry.1);
    // At 11 the groups 0, 1 and the one after the clock was set back are there; never a later one without an earlier.
    assert_eq!(
        [last(9), last(10), last(11), last(12), last(19), last(20)],
        [None, Some(0), Some(2), Some(5), Some(5), Some(6)]
    );
    assert!(of_header(7) < at(8, 0) && of_header(7) > at(7, 999_998_999));
}
