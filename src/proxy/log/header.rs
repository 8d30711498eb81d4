//! What stands before the text of a log line, in each of HAProxy's formats (4.2 `log`). Pure: the time is given.

use crate::proxy::config::model::SyslogFormat;
use std::io::Write;

/// How urgent a line is (RFC 5424, 6.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Severity {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

impl Severity {
    /// 0 to 7; more is debug.
    pub fn from_number(number: u8) -> Severity {
        use Severity::*;
        const ALL: [Severity; 8] = [Emergency, Alert, Critical, Error, Warning, Notice, Info, Debug];
        ALL.get(usize::from(number)).copied().unwrap_or(Debug)
    }
}

/// A moment as the machine's clocks show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub(super) struct Moment {
    pub(super) unix_seconds: i64,
    pub(super) microseconds: u32,
    pub(super) year: i32,
    /// 1 to 12.
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    /// East of Greenwich.
    pub(super) offset_seconds: i32,
}

/// What the lines of one target say of their sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sender {
    /// Which header.
    pub(super) format: SyslogFormat,
    /// 0 to 23.
    pub(super) facility: u8,
    /// `log-send-hostname`.
    pub(super) hostname: Option<String>,
    /// `log-tag`.
    pub(super) tag: String,
    /// Process number.
    pub(super) pid: u32,
}

/// The part of a header that is the same for a whole second.
#[derive(Clone, Debug, Default)]
pub(super) struct Cached {
    second: Option<i64>,
    before_microseconds: Vec<u8>,
    after_microseconds: Vec<u8>,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Cached {
    /// Appends the header of a line of this severity at this moment.
    pub(super) fn write(&mut self, sender: &Sender, severity: Severity, at: &Moment, line: &mut Vec<u8>) {
        let severity = severity as u8;
        // Writing into memory does not fail.
        let _ = match sender.format {
            SyslogFormat::Raw => return,
            SyslogFormat::Short | SyslogFormat::Timed => write!(line, "<{severity}>"),
            SyslogFormat::Rfc3164 | SyslogFormat::Local | SyslogFormat::Rfc5424 | SyslogFormat::Priority => {
                write!(line, "<{}>", u32::from(sender.facility) * 8 + u32::from(severity))
            }
        };
        if matches!(sender.format, SyslogFormat::Short | SyslogFormat::Priority) {
            return;
        }
        if self.second != Some(at.unix_seconds) {
            self.renew(sender, at);
        }
        line.extend_from_slice(&self.before_microseconds);
        if matches!(sender.format, SyslogFormat::Rfc5424 | SyslogFormat::Timed) {
            let _ = write!(line, "{:06}", at.microseconds);
        }
        line.extend_from_slice(&self.after_microseconds);
    }

    fn renew(&mut self, sender: &Sender, at: &Moment) {
        self.second = Some(at.unix_seconds);
        self.before_microseconds.clear();
        self.after_microseconds.clear();
        let (before, after) = (&mut self.before_microseconds, &mut self.after_microseconds);
        let _ = match sender.format {
            SyslogFormat::Rfc3164 | SyslogFormat::Local => {
                let month = MONTHS[usize::from(at.month.clamp(1, 12)) - 1];
                let (day, hour, minute, second) = (at.day, at.hour, at.minute, at.second);
                let _ = write!(before, "{month} {day:2} {hour:02}:{minute:02}:{second:02} ");
                // RFC 3164 has a host name there; HAProxy sends one only when told so, and `local` never has it.
                if let (SyslogFormat::Rfc3164, Some(hostname)) = (sender.format, &sender.hostname) {
                    let _ = write!(before, "{hostname} ");
                }
                write!(before, "{}[{}]: ", sender.tag, sender.pid)
            }
            SyslogFormat::Rfc5424 => {
                let _ = before.write_all(b"1 ");
                iso(before, after, at);
                let hostname = sender.hostname.as_deref().unwrap_or("-");
                write!(after, " {hostname} {} {} - - ", sender.tag, sender.pid)
            }
            SyslogFormat::Timed => {
                iso(before, after, at);
                after.write_all(b" ")
            }
            SyslogFormat::Raw | SyslogFormat::Short | SyslogFormat::Priority => Ok(()),
        };
    }
}

/// `2026-11-27T10:25:29.` and `+00:00`.
fn iso(before: &mut Vec<u8>, after: &mut Vec<u8>, at: &Moment) {
    let (year, month, day) = (at.year, at.month, at.day);
    let _ = write!(before, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.", at.hour, at.minute, at.second);
    let sign = if at.offset_seconds < 0 { '-' } else { '+' };
    let minutes = at.offset_seconds.unsigned_abs() / 60;
    let _ = write!(after, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
}

/// Ends a line as HAProxy does: at most `length` bytes, one newline. Control characters that formats let through
/// (`%[path,url_dec]`, `%CC`) would let clients forge lines, or speak to a terminal: they become `#0A`, as HAProxy writes
/// them where it encodes. Tabs may stand in formats and do no harm.
pub(super) fn finish(line: &mut Vec<u8>, length: usize) {
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if line.iter().any(control) {
        let mut clean = Vec::with_capacity(line.len() + 16);
        for byte in line.iter() {
            if control(byte) {
                let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half & 15)];
                clean.extend([b'#', digit(byte >> 4), digit(*byte)]);
            } else {
                clean.push(*byte);
            }
        }
        *line = clean;
    }
    line.truncate(length.max(1));
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment {
        unix_seconds: 1_795_775_129,
        microseconds: 818_174,
        year: 2026,
        month: 11,
        day: 7,
        hour: 10,
        minute: 25,
        second: 29,
        offset_seconds: 0,
    };

    fn header(format: SyslogFormat, facility: u8, hostname: Option<&str>, at: &Moment) -> String {
        let hostname = hostname.map(str::to_owned);
        let sender = Sender { format, facility, hostname, tag: "haproxy".into(), pid: 24008 };
        let mut line = Vec::new();
        Cached::default().write(&sender, Severity::Info, at, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn headers_are_those_that_haproxy_sends() {
        // As HAProxy 2.6.12 sent them.
        use SyslogFormat::*;
        assert_eq!(header(Rfc3164, 16, None, &AT), "<134>Nov  7 10:25:29 haproxy[24008]: ");
        assert_eq!(header(Rfc3164, 16, Some("h"), &AT), "<134>Nov  7 10:25:29 h haproxy[24008]: ");
        assert_eq!(header(Local, 20, Some("h"), &AT), "<166>Nov  7 10:25:29 haproxy[24008]: ");
        assert_eq!(
            header(Rfc5424, 17, None, &AT),
            "<142>1 2026-11-07T10:25:29.818174+00:00 - haproxy 24008 - - "
        );
        assert_eq!(header(Short, 21, None, &AT), "<6>");
        assert_eq!(header(Raw, 22, None, &AT), "");
        assert_eq!(header(Priority, 22, None, &AT), "<182>");
        assert_eq!(header(Timed, 22, None, &AT), "<6>2026-11-07T10:25:29.818174+00:00 ");
        let west = Moment { offset_seconds: -(3 * 3600 + 1800), ..AT };
        assert_eq!(header(Timed, 22, None, &west), "<6>2026-11-07T10:25:29.818174-03:30 ");
    }

    #[test]
    fn the_second_is_made_once_and_renewed() {
        let sender =
            Sender { format: SyslogFormat::Rfc5424, facility: 0, hostname: None, tag: "t".into(), pid: 1 };
        let mut cached = Cached::default();
        let mut write = |at: &Moment| {
            let mut line = Vec::new();
            cached.write(&sender, Severity::Info, at, &mut line);
            String::from_utf8(line).unwrap()
        };
        assert!(write(&AT).contains("10:25:29.818174+"));
        assert!(write(&Moment { microseconds: 5, ..AT }).contains("10:25:29.000005+"));
        let next = Moment { unix_seconds: AT.unix_seconds + 1, second: 30, ..AT };
        assert!(write(&next).contains("10:25:30.818174+"));
    }

    #[test]
    fn a_line_is_cut_at_its_longest() {
        // HAProxy's `len 80`: 80 bytes and the newline.
        let mut line = vec![b'x'; 300];
        finish(&mut line, 80);
        assert_eq!((line.len(), line[80]), (81, b'\n'));
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let mut line = b"a\nb\rc\x1b[2Jd\x7f\x00\te\xc3\xa9".to_vec();
        finish(&mut line, 1024);
        assert_eq!(line, b"a#0Ab#0Dc#1B[2Jd#7F#00\te\xc3\xa9\n");
        let mut line = b"abc\n\n".to_vec();
        finish(&mut line, 5);
        assert_eq!(line, b"abc#0\n");
    }
}
