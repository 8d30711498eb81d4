//! `log` (4.2 of the manual): where lines go.

use super::address::{self, Address, Transport};
use super::draft::{Context, LogChoice};
use super::model::{LogAddress, LogTarget, SyslogFormat};
use super::values::number;
use super::words::{Parsed, Words};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2", "ftp", "ntp",
    "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Reads what stands behind `log`.
pub(crate) fn parse(words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<LogChoice> {
    let text = words.demand("`global` or an address, then a facility")?;
    if text == "global" {
        words.end()?;
        return Ok(LogChoice::Global);
    }
    let site = words.site_before();
    let address = match text {
        "stdout" => LogAddress::Stdout,
        "stderr" => LogAddress::Stderr,
        _ => match address::parse(text, Transport::Datagram, words, context)? {
            Address::Unix(path) => LogAddress::Unix(path),
            Address::Descriptor(number) => LogAddress::Descriptor(number),
            internet @ Address::Internet { .. } => match internet.with_port(Some(514)) {
                Some(address) => LogAddress::Udp(address),
                None => return Err(words.problem_before("a log target has one port", "HOST:PORT", "")),
            },
            Address::Abstract(_) => {
                return Err(words.problem_before(
                    "an abstract socket is no log target",
                    "a path or an address",
                    "",
                ));
            }
        },
    };
    let mut target = LogTarget {
        site,
        address,
        length: 1024,
        format: SyslogFormat::Rfc3164,
        facility: 0,
        level: 7,
        min_level: 0,
    };
    loop {
        if words.take("len") {
            target.length = number(words, "bytes", 80..=65_535)?;
        } else if words.take("format") {
            target.format = format(words)?;
        } else if words.take("sample") {
            return Err(words.problem_before("`sample` is not supported yet", "a facility", "remove it"));
        } else {
            break;
        }
    }
    target.facility = one_of(words, "facility", &FACILITIES)?;
    if words.peek().is_some() {
        target.level = one_of(words, "level", &LEVELS)?;
    }
    if words.peek().is_some() {
        target.min_level = one_of(words, "level", &LEVELS)?;
    }
    words.end()?;
    Ok(LogChoice::Own(target))
}

fn one_of(words: &mut Words<'_>, what: &str, names: &[&str]) -> Parsed<u8> {
    let expected = format!("a {what}: {}", names.join(" "));
    let text = words.demand(&expected)?;
    let found = names.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
    found.ok_or_else(|| words.problem_before(&format!("unknown log {what} `{text}`"), &expected, ""))
}

fn format(words: &mut Words<'_>) -> Parsed<SyslogFormat> {
    let expected = "one of local, rfc3164, rfc5424, priority, short, timed, raw";
    Ok(match words.demand(expected)? {
        "local" => SyslogFormat::Local,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424,
        "priority" => SyslogFormat::Priority,
        "short" => SyslogFormat::Short,
        "timed" => SyslogFormat::Timed,
        "raw" => SyslogFormat::Raw,
        other => return Err(words.problem_before(&format!("unknown log format `{other}`"), expected, "")),
    })
}
