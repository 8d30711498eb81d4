//! Transcripts as comparable text: what differs between two runs of the same program is masked, nothing else.

use super::backend::Seen;
use super::message;
use std::fmt::Write;

/// A difference from HAProxy that is meant.
pub(crate) struct Allowed {
    /// `group/case`.
    pub(crate) case: &'static str,
    /// What may differ.
    pub(crate) what: Difference,
    /// Why.
    pub(crate) reason: &'static str,
}

/// What may differ.
pub(crate) enum Difference {
    /// This text of HAProxy's transcript is that one in ours.
    Text(&'static str, &'static str),
    /// The transcripts differ as a whole; ours contains these.
    Ours(&'static [&'static str]),
}

/// One text of everything that was seen.
pub(crate) fn transcript(
    address: &str,
    got: &[Vec<u8>],
    seen: &[Seen],
    lines: &[String],
    pooled: bool,
) -> String {
    let mut out = String::new();
    for (number, text) in got.iter().enumerate() {
        let _ = writeln!(out, "client {} got:\n{}", number + 1, shown(text));
    }
    // Checks and connections that carried nothing leave no trace.
    for seen in seen.iter().filter(|seen| !seen.bytes.is_empty()) {
        let reused = if seen.reused { " (an earlier connection)" } else { "" };
        let _ = writeln!(
            out,
            "s{} got{reused}:\n{}",
            seen.server + 1,
            shown(&message::with_plain_chunks(&seen.bytes))
        );
        if !pooled {
            let _ = writeln!(out, "[{}]", if seen.ended { "ended" } else { "STAYS OPEN" });
        }
    }
    for line in lines {
        let _ = writeln!(out, "log: {}", masked_line(line));
    }
    let dates =
        |line: &str| if line.starts_with("date: ") { "date: DATE\\r".to_owned() } else { line.to_owned() };
    let lines: Vec<String> = out.replace(address, "{ip}").lines().map(dates).collect();
    lines.join("\n") + "\n"
}

/// Bytes as text; long runs of one byte are counted.
fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let same = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
        if same > 40 {
            let _ = write!(out, "<{same} times {}>", bytes[at].escape_ascii());
            at += same;
            continue;
        }
        match bytes[at] {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push('\n'),
            byte => {
                let _ = write!(out, "{}", byte.escape_ascii());
            }
        }
        at += 1;
    }
    out
}

/// A log line without what no two runs share: date, process, ports, times below the half second.
fn masked_line(line: &str) -> String {
    if line.starts_with("TIMEOUT: ") {
        return line.into();
    }
    let (priority, rest) = match line.split_once('>') {
        Some((priority, rest)) => (format!("{priority}>"), rest),
        None => (String::new(), line),
    };
    // "Nov 27 10:00:00 haproxy[12]: ..."
    let message = rest.get(16..).unwrap_or(rest);
    let mut words: Vec<String> = message.split(' ').map(str::to_owned).collect();
    if let Some(first) = words.first_mut()
        && let Some((name, _)) = first.split_once('[')
    {
        *first = format!("{name}[PID]:");
    }
    for word in &mut words {
        if word.starts_with('[') && word.contains('/') && word.contains(':') {
            *word = "[DATE]".into();
        } else if let Some((host, port)) = word.rsplit_once(':')
            && host.split('.').count() == 4
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && !port.is_empty()
        {
            *word = format!("{host}:PORT");
        }
    }
    // CLF has port and times as words.
    if let Some(at) = words.iter().position(|word| word == "\"\"") {
        for word in &mut words[at..] {
            if word.parse::<u32>().is_ok() {
                *word = "N".into();
            }
        }
    }
    // The word after the server is the times: "a/b/c/d/e" (http) or "a/b/c" (tcp).
    if let Some(at) = words.iter().position(|word| is_times(word)) {
        words[at] = words[at].split('/').map(masked_time).collect::<Vec<_>>().join("/");
    }
    format!("{priority}{}", words.join(" "))
}

fn is_times(word: &str) -> bool {
    let parts: Vec<&str> = word.split('/').collect();
    (parts.len() == 5 || parts.len() == 3)
        && parts.iter().all(|part| part.trim_start_matches('+').parse::<i64>().is_ok())
}

/// Milliseconds to the next second, below the half none; `-1` is `-1`.
fn masked_time(part: &str) -> String {
    match part.trim_start_matches('+').parse::<i64>() {
        Ok(-1) => "-1".into(),
        Ok(time) if time < 500 => "0s".into(),
        Ok(time) => format!("{}s", (time + 500) / 1000),
        Err(_) => part.into(),
    }
}

/// A transcript whose masked times say only whether there is one, and without %ac: a connection that has just ended may
/// still count.
pub(crate) fn without_times(transcript: &str) -> String {
    let masked = |part: &str| {
        part == "-1" || part.strip_suffix('s').is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let word = |word: &str| {
        if word.contains('/') && word.split('/').all(masked) {
            word.split('/').map(|part| if part == "-1" { "-1" } else { "0s" }).collect::<Vec<_>>().join("/")
        } else {
            match word.split_once('/') {
                Some((active, rest)) if rest.split('/').count() == 4 && active.parse::<u32>().is_ok() => {
                    format!("ac/{rest}")
                }
                _ => word.to_owned(),
            }
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    transcript.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// The first line that differs, with what is around it.
pub(crate) fn difference(reference: &str, ours: &str) -> Option<String> {
    if reference == ours {
        return None;
    }
    let (theirs, mine): (Vec<&str>, Vec<&str>) = (reference.lines().collect(), ours.lines().collect());
    let first = theirs.iter().zip(&mine).take_while(|(a, b)| a == b).count();
    let mut out = String::new();
    for line in theirs.iter().take(first).skip(first.saturating_sub(2)) {
        let _ = writeln!(out, "      {line}");
    }
    for line in theirs.iter().skip(first).take(8) {
        let _ = writeln!(out, "    - {line}");
    }
    for line in mine.iter().skip(first).take(8) {
        let _ = writeln!(out, "    + {line}");
    }
    Some(out)
}

#[test]
fn masks_only_what_two_runs_do_not_share() {
    let line = "<134>Nov 27 10:00:00 haproxy[77]: 10.1.0.1:40000 [27/Nov/2026:10:00:00.123] p b/s1 0/0/1/1900/1901 200 61 - - NI-- 1/1/0/0/+3 0/0 \"GET / HTTP/1.1\"";
    let masked = "<134>haproxy[PID]: 10.1.0.1:PORT [DATE] p b/s1 0s/0s/0s/2s/2s 200 61 - - NI-- 1/1/0/0/+3 0/0 \"GET / HTTP/1.1\"";
    assert_eq!(masked_line(line), masked);
}
