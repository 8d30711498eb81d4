//! MySQL checks (4.2 `option mysql-check`): the server's greeting, and with `user` a login without password that is ended at
//! once. Pure. Packets: length (3 bytes, little-endian), sequence number, payload (client/server protocol of MySQL, "Connection
//! Phase").

use crate::proxy::health::{CheckReport, CheckStatus};

/// Longest packet that is waited for.
const LONGEST: usize = 8_192;

/// First byte of a packet that tells an error.
const ERROR: u8 = 0xff;

/// What to do next.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// More must arrive.
    More,
    /// This is to be sent.
    Send(Vec<u8>),
    /// That was it.
    Done(CheckReport),
}

/// A conversation; the bytes are kept by the caller.
#[derive(Debug)]
pub(super) struct Conversation<'c> {
    user: Option<&'c [u8]>,
    post_41: bool,
    /// Where the second packet begins, when the first has been answered.
    greeted: Option<usize>,
    version: String,
}

impl<'c> Conversation<'c> {
    pub(super) fn new(user: Option<&'c [u8]>, post_41: bool) -> Conversation<'c> {
        Conversation { user, post_41, greeted: None, version: String::new() }
    }

    /// Looks at everything that has arrived. `ended`: no more will come.
    pub(super) fn step(&mut self, bytes: &[u8], ended: bool) -> Step {
        let invalid = || Step::Done(CheckReport::new(CheckStatus::Layer7Response));
        let (start, number) = self.greeted.map_or((0, 0), |start| (start, 2));
        let rest = bytes.get(start..).unwrap_or_default();
        let payload = match packet(rest, number) {
            Ok(Some(payload)) => payload,
            Ok(None) if ended => return invalid(),
            Ok(None) => return Step::More,
            Err(()) => return invalid(),
        };
        if payload.first() == Some(&ERROR) {
            return error(payload).map_or_else(invalid, Step::Done);
        }
        if self.greeted.is_none() {
            let text = payload.get(1..).unwrap_or_default();
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            if end == 0 {
                return invalid();
            }
            self.version = printable(&text[..end]);
            self.greeted = Some(start + 4 + payload.len());
            if let Some(user) = self.user {
                return Step::Send(login(user, self.post_41));
            }
        }
        Step::Done(CheckReport::new(CheckStatus::Layer7Ok).with_code(0).with_info(self.version.clone()))
    }
}

/// The first packet's payload; `None` while it is not complete, an error when it can be none.
fn packet(bytes: &[u8], number: u8) -> Result<Option<&[u8]>, ()> {
    let [low, middle, high, sequence, rest @ ..] = bytes else { return Ok(None) };
    let length = usize::from(*low) | usize::from(*middle) << 8 | usize::from(*high) << 16;
    if *sequence != number || length == 0 || length > LONGEST {
        return Err(());
    }
    Ok(rest.get(..length))
}

/// Error number and text; since 4.1 the text begins with `#` and a state.
fn error(payload: &[u8]) -> Option<CheckReport> {
    let [_, low, high, text @ ..] = payload else { return None };
    let code = u16::from_le_bytes([*low, *high]);
    Some(CheckReport::new(CheckStatus::Layer7Status).with_code(code).with_info(printable(text)))
}

/// What a server says of itself goes into log lines: no control characters.
fn printable(text: &[u8]) -> String {
    text.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' }).collect()
}

/// A login with an empty password, and the command to quit.
fn login(user: &[u8], post_41: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    if post_41 {
        // Protocol of 4.1, 16 MiB packets, utf8.
        payload.extend_from_slice(&[0x00, 0x82, 0, 0, 0x00, 0x80, 0x00, 0x01, 0x21]);
        payload.extend_from_slice(&[0; 23]);
    } else {
        payload.extend_from_slice(&[0x00, 0x80, 0x00, 0x00, 0x01]);
    }
    payload.extend_from_slice(user);
    payload.extend_from_slice(&[0, 0]);
    let length = payload.len().to_le_bytes();
    let mut bytes = vec![length[0], length[1], length[2], 1];
    bytes.extend(payload);
    bytes.extend_from_slice(&[1, 0, 0, 0, 1]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len().to_le_bytes();
        [&[length[0], length[1], length[2], number], payload].concat()
    }

    fn greeting() -> Vec<u8> {
        packet(0, b"\x0a5.5.5-10.11.19-MariaDB\0\x04\0\0\0!rest of it")
    }

    fn shown(step: Step) -> String {
        match step {
            Step::More => "more".to_owned(),
            Step::Send(bytes) => format!("send {}", bytes.len()),
            Step::Done(report) => {
                report.reason().replace("reason: ", "").replace(", check duration: 0ms", "")
            }
        }
    }

    #[test]
    fn a_greeting_is_enough_without_user() {
        let passed = "Layer7 check passed, code: 0, info: \"5.5.5-10.11.19-MariaDB\"";
        let bytes = greeting();
        for length in 0..bytes.len() {
            assert_eq!(Conversation::new(None, true).step(&bytes[..length], false), Step::More);
            let cut = shown(Conversation::new(None, true).step(&bytes[..length], true));
            assert_eq!(cut, "Layer7 invalid response");
        }
        assert_eq!(shown(Conversation::new(None, true).step(&bytes, false)), passed);
    }

    #[test]
    fn logins_are_those_that_haproxy_sends() {
        // Recorded between HAProxy 2.6.12 and MariaDB 10.11.
        let mut expected = b")\0\0\x01\0\x82\0\0\0\x80\0\x01!".to_vec();
        expected.extend([0; 23]);
        expected.extend_from_slice(b"haproxy\0\0\x01\0\0\0\x01");
        assert_eq!(login(b"haproxy", true), expected);
        assert_eq!(login(b"haproxy", false), b"\x0e\0\0\x01\0\x80\0\0\x01haproxy\0\0\x01\0\0\0\x01");
    }

    #[test]
    fn a_login_passes_or_tells_why_not() {
        let answers: [(&[u8], &str); 3] = [
            (b"\0\0\0\x02\0\0\0", "Layer7 check passed, code: 0, info: \"5.5.5-10.11.19-MariaDB\""),
            (
                b"\xff\x15\x04#28000Access denied",
                "Layer7 wrong status, code: 1045, info: \"#28000Access denied\"",
            ),
            (b"\xff\x15", "Layer7 invalid response"),
        ];
        for (payload, expected) in answers {
            let mut conversation = Conversation::new(Some(b"haproxy"), true);
            let mut bytes = greeting();
            assert_eq!(shown(conversation.step(&bytes, false)), "send 50");
            assert_eq!(conversation.step(&bytes, false), Step::More);
            bytes.extend(packet(2, payload));
            assert_eq!(shown(conversation.step(&bytes, false)), expected);
        }
    }

    #[test]
    fn what_is_no_mysql_is_no_valid_answer() {
        let blocked = packet(0, b"\xff\x69\x04Host 'x' is blocked\n");
        let cases: [(&[u8], &str); 5] = [
            (b"HTTP/1.1 400 Bad\r\n\r\n", "Layer7 invalid response"),
            (b"\0\0\0\0", "Layer7 invalid response"),
            (b"\x05\0\0\x01\x0a5.5\0", "Layer7 invalid response"),
            (b"\x02\0\0\0\x0a\0", "Layer7 invalid response"),
            (&blocked, "Layer7 wrong status, code: 1129, info: \"Host 'x' is blocked?\""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(shown(Conversation::new(Some(b"u"), true).step(bytes, false)), expected);
        }
    }
}
