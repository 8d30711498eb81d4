//! What responses are taken, and as what; each case was tried with HAProxy 2.6.12.

use super::*;
use crate::http::{ResponseHead, Version};

fn parse(bytes: &[u8], asked: Asked) -> Result<(String, ParsedResponse), Fault> {
    let mut head = ResponseHead::default();
    let parsed =
        parse_response(bytes, &Limits::default(), false, asked, &mut head).map_err(|bad| bad.fault)?;
    Ok((written(&head), parsed.expect("complete")))
}

fn written(head: &ResponseHead) -> String {
    let mut out = if head.version == Version::Http11 { b"1.1 ".to_vec() } else { b"1.0 ".to_vec() };
    out.extend_from_slice(format!("{} ", head.status).as_bytes());
    out.extend_from_slice(&head.reason);
    out.push(b'|');
    head.fields.write_to(&mut out);
    out.iter().map(|byte| char::from(*byte)).collect::<String>().replace("\r\n", "|")
}

#[test]
fn status_lines() {
    let line = |line: &[u8]| parse(&[line, b"Content-Length: 2\r\n\r\nok"].concat(), Asked::default());
    for (bytes, text) in [
        (&b"HTTP/1.1 200 OK\r\n"[..], "1.1 200 OK"),
        (b"HTTP/1.0 200 OK\r\n", "1.0 200 OK"),
        (b"HTTP/1.1 200\r\n", "1.1 200 "),
        (b"HTTP/1.1 200 \r\n", "1.1 200 "),
        (b"HTTP/1.1  200 OK\r\n", "1.1 200 OK"),
        (b"HTTP/1.1\t200\tX y\r\n", "1.1 200 X y"),
        (b"HTTP/1.1 200   a  b  \r\n", "1.1 200 a  b  "),
        (b"HTTP/1.1 200 a\xe9\x01\tb\r\n", "1.1 200 a\u{e9}\x01\tb"),
        (b"HTTP/1.1 999 X\r\n", "1.1 999 X"),
        (b"HTTP/2.0 200 X\r\n", "1.1 200 X"),
        (b"HTTP/0.9 200 X\r\n", "1.0 200 X"),
        (b"HTTP/1.1 200 OK\n", "1.1 200 OK"),
        (b"\r\nHTTP/1.1 200 OK\r\n", "1.1 200 OK"),
    ] {
        assert_eq!(line(bytes).unwrap().0, format!("{text}|content-length: 2|"));
    }
    for (bytes, fault) in [
        (&b"HTTP/1.1 20x X\r\n"[..], Fault::StatusLine),
        (b"ICY 200 X\r\n", Fault::StatusLine),
        (b"http/1.1 200 X\r\n", Fault::StatusLine),
        (b"HTTP/1.1 200 a\rb\r\n", Fault::BareCarriageReturn),
        (b"HTTP/1.1200 X\r\n", Fault::StatusLine),
        (b"HTTP/1.1 200X\r\n", Fault::StatusLine),
        (b"HTTP/1.1\r\n", Fault::StatusLine),
        (b"HTTP/1\r\n", Fault::StatusLine),
        (b"HTTP/1.x 200 X\r\n", Fault::Version),
        // HAProxy takes the following.
        (b"HTTP/1.1 99 X\r\n", Fault::StatusLine),
        (b"HTTP/1.1 099 X\r\n", Fault::StatusLine),
        (b"HTTP/1.1 1000 X\r\n", Fault::StatusLine),
        (b"HTTP/1.1 200 a\x00b\r\n", Fault::Nul),
    ] {
        assert_eq!(line(bytes).unwrap_err(), fault, "{bytes:?}");
    }
}

#[test]
fn bodies_and_what_frames_them() {
    let get = Asked::default();
    let head = Asked { head: true, ..get };
    let connect = Asked { connect: true, ..get };
    for (asked, status, fields, framing, keep_alive, left) in [
        (get, 200, "Content-Length: 2\r\n", Framing::Length(2), true, "content-length: 2|"),
        (
            get,
            200,
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            Framing::Length(2),
            true,
            "content-length: 2|",
        ),
        (get, 200, "", Framing::UntilClose, false, ""),
        (get, 205, "", Framing::UntilClose, false, ""),
        (get, 200, "Transfer-Encoding: Chunked\r\n", Framing::Chunked, true, "transfer-encoding: Chunked|"),
        (
            get,
            200,
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            Framing::Chunked,
            false,
            "transfer-encoding: chunked|",
        ),
        (head, 200, "Content-Length: 5\r\n", Framing::None, true, "content-length: 5|"),
        (head, 200, "Transfer-Encoding: chunked\r\n", Framing::None, true, "transfer-encoding: chunked|"),
        (head, 200, "", Framing::None, true, ""),
        (get, 204, "", Framing::None, true, ""),
        (get, 204, "Content-Length: 5\r\n", Framing::None, true, "content-length: 5|"),
        (get, 204, "Transfer-Encoding: chunked\r\n", Framing::None, true, "transfer-encoding: chunked|"),
        (get, 304, "Content-Length: 5\r\n", Framing::None, true, "content-length: 5|"),
        (get, 304, "Transfer-Encoding: chunked\r\n", Framing::None, true, "transfer-encoding: chunked|"),
        (get, 102, "Content-Length: 5\r\nConnection: close\r\n", Framing::None, false, "content-length: 5|"),
        (connect, 200, "", Framing::None, false, ""),
        (connect, 404, "Content-Length: 3\r\n", Framing::Length(3), true, "content-length: 3|"),
    ] {
        let bytes = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let (text, parsed) = parse(bytes.as_bytes(), asked).unwrap();
        assert_eq!(text, format!("1.1 {status} X|{left}"), "{bytes}");
        assert_eq!((parsed.framing, parsed.keep_alive), (framing, keep_alive), "{bytes}");
        assert_eq!(parsed.interim, status == 102);
        assert_eq!(parsed.tunnel, asked.connect && status == 200);
    }
    for (fields, fault) in [
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::UnsupportedCoding),
        ("Transfer-Encoding: gzip\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::TransferEncoding),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", Fault::ContentLengthsDiffer),
        ("Content-Length: +2\r\n", Fault::ContentLength),
        ("A : b\r\n", Fault::SpaceBeforeColon),
        ("A\u{e9}: b\r\n", Fault::FieldName),
        ("A: b\0\r\n", Fault::Nul), // HAProxy takes it
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(parse(bytes.as_bytes(), get).unwrap_err(), fault, "{fields}");
    }
    let sloppy = b"HTTP/1.1 200 OK\nA: b\r\n c\nContent-Length: 2\n\nok";
    assert_eq!(parse(sloppy, get).unwrap().0, "1.1 200 OK|a: b   c|content-length: 2|");
}

#[test]
fn connections() {
    for (version, fields, left, keep_alive) in [
        ("1.1", "Connection: close\r\n", "", false),
        ("1.1", "Connection: keep-alive\r\n", "", true),
        ("1.1", "Connection: Keep-Alive, foo\r\n", "connection: foo|", true),
        ("1.1", "Connection: foo, close\r\n", "connection: foo|", false),
        ("1.0", "", "", false),
        ("1.0", "Connection: keep-alive\r\n", "", true),
    ] {
        let bytes = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        let (text, parsed) = parse(bytes.as_bytes(), Asked::default()).unwrap();
        assert_eq!(text, format!("{version} 200 OK|content-length: 0|{left}"));
        assert_eq!(parsed.keep_alive, keep_alive, "{bytes}");
    }
    let old_chunked = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(!parse(old_chunked, Asked::default()).unwrap().1.keep_alive);
}

#[test]
fn switching_protocols_must_have_been_asked_for() {
    let asked = |upgrade| Asked { upgrade, ..Asked::default() };
    let switch = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 3\r\n\r\nhello";
    let (text, parsed) = parse(switch, asked(Upgrade::Named)).unwrap();
    assert_eq!(text, "1.1 101 X|connection: Upgrade|upgrade: foo|content-length: 3|");
    assert!(parsed.tunnel && !parsed.interim && !parsed.keep_alive && parsed.upgrade);
    assert_eq!(&switch[parsed.head_len..], b"hello");
    let unexpected =
        |bytes: &[u8], upgrade| parse(bytes, asked(upgrade)).unwrap_err() == Fault::UnexpectedUpgrade;
    assert!(unexpected(switch, Upgrade::None));
    assert!(unexpected(switch, Upgrade::Unnamed));
    assert!(unexpected(switch, Upgrade::WebSocket)); // no Sec-WebSocket-Accept
    assert!(unexpected(b"HTTP/1.1 101 X\r\nA: b\r\n\r\n", Upgrade::Named));
    assert!(unexpected(b"HTTP/1.1 101 X\r\nUpgrade: foo\r\n\r\n", Upgrade::Named));
}

#[test]
fn every_cut_gives_the_same() {
    let cases: [&[u8]; 5] = [
        b"\r\nHTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nA: b\n c\n\td\n\nabc",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    ];
    for bytes in cases {
        let mut head = ResponseHead::default();
        let limits = Limits::default();
        let whole = parse_response(bytes, &limits, false, Asked::default(), &mut head);
        let text = written(&head);
        let (mut by_byte, mut slow) = (ResponseParser::default(), Ok(None));
        let mut by_byte_head = ResponseHead::default();
        for end in 1..=bytes.len() {
            let mut parser = ResponseParser::default();
            let mut cut_head = ResponseHead::default();
            let mut cut = parser.parse(&bytes[..end], &limits, false, Asked::default(), &mut cut_head);
            if cut == Ok(None) {
                cut = parser.parse(bytes, &limits, false, Asked::default(), &mut cut_head);
            }
            assert_eq!(cut, whole, "{bytes:?} {end}");
            if slow == Ok(None) {
                slow = by_byte.parse(&bytes[..end], &limits, false, Asked::default(), &mut by_byte_head);
            }
        }
        assert_eq!(slow, whole, "{bytes:?}");
        if whole.is_ok() {
            assert_eq!(written(&by_byte_head), text);
        }
    }
    let mut head = ResponseHead::default();
    let bad = parse_response(b"SSH-2.0-x", &Limits::default(), false, Asked::default(), &mut head);
    assert_eq!(bad.unwrap_err().fault, Fault::StatusLine);
}
