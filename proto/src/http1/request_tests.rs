//! What requests are taken, and as what. Where HAProxy 2.6.12 takes one that is refused here, the fault says so.

use super::*;
use crate::http::{RequestHead, Version};

/// Start line and fields as they would be written again, and what was said beside them.
fn parse(bytes: &[u8], lenient: bool) -> Result<(String, ParsedRequest), Fault> {
    let mut head = RequestHead::default();
    let parsed = parse_request(bytes, &Limits::default(), lenient, &mut head).map_err(|bad| {
        assert!(bad.at <= bytes.len(), "{bad:?}");
        bad.fault
    })?;
    Ok((written(&head), parsed.expect("complete")))
}

fn written(head: &RequestHead) -> String {
    let mut out = Vec::new();
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&head.target);
    out.extend_from_slice(if head.version == Version::Http11 { b" 1.1|" } else { b" 1.0|" });
    head.fields.write_to(&mut out);
    out.iter().map(|byte| char::from(*byte)).collect::<String>().replace("\r\n", "|")
}

/// Fields (with line ends) of a GET with a Host -> the fields after the Host.
fn fields(lines: &[u8], lenient: bool) -> Result<String, Fault> {
    let bytes = [b"GET / HTTP/1.1\r\nHost: h\r\n", lines, b"\r\n"].concat();
    parse(&bytes, lenient).map(|(text, _)| text.strip_prefix("GET / 1.1|host: h|").unwrap().to_owned())
}

/// The same of a POST -> fields, framing, whether the connection may go on.
fn framed(lines: &[u8]) -> Result<(String, Framing, bool), Fault> {
    let bytes = [b"POST / HTTP/1.1\r\nHost: h\r\n", lines, b"\r\n"].concat();
    let (text, parsed) = parse(&bytes, false)?;
    let text = text.strip_prefix("POST / 1.1|host: h|").unwrap().to_owned();
    Ok((text, parsed.framing, parsed.keep_alive))
}

#[test]
fn request_lines() {
    let line = |line: &[u8], lenient| {
        parse(&[line, b"Host: h\r\n\r\n"].concat(), lenient).map(|(text, _)| text.replace("|host: h|", ""))
    };
    for (bytes, text) in [
        (&b"GET / HTTP/1.1\r\n"[..], "GET / 1.1"),
        (b"GET  / \t HTTP/1.1\r\n", "GET / 1.1"),
        (b"GET\t/\tHTTP/1.0\r\n", "GET / 1.0"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", "GET / 1.1"),
        (b"get /?a=\"<>{}|\\^` HTTP/1.1\r\n", "get /?a=\"<>{}|\\^` 1.1"),
        (b"M-S!#$%&'*+.^_`|~1 * HTTP/1.1\r\n", "M-S!#$%&'*+.^_`|~1 * 1.1"),
        (b"GET http://h:80/x HTTP/1.1\r\n", "GET http://h/x 1.1"),
    ] {
        assert_eq!(line(bytes, false).as_deref(), Ok(text));
        assert_eq!(line(bytes, true).as_deref(), Ok(text));
    }
    for (bytes, fault, lenient) in [
        (&b"\nGET / HTTP/1.1\r\n"[..], Fault::BareLineFeed, Ok("GET / 1.1")), // HAProxy takes it
        (b"GET / HTTP/1.1\n", Fault::BareLineFeed, Ok("GET / 1.1")),          // HAProxy takes it
        (b"\rGET / HTTP/1.1\r\n", Fault::BareCarriageReturn, Err(Fault::BareCarriageReturn)),
        (b" GET / HTTP/1.1\r\n", Fault::Method, Err(Fault::Method)),
        (b"G@T / HTTP/1.1\r\n", Fault::Method, Err(Fault::Method)),
        (b"G\xe9T / HTTP/1.1\r\n", Fault::Method, Err(Fault::Method)),
        (b"GET\r\n", Fault::Method, Err(Fault::Method)),
        (b"GET / HTTP/1.1 \r\n", Fault::Version, Err(Fault::Version)),
        (b"GET /a b HTTP/1.1\r\n", Fault::Version, Err(Fault::Version)),
        (b"GET /a\x01b HTTP/1.1\r\n", Fault::Target, Err(Fault::Target)),
        (b"GET /a\x00b HTTP/1.1\r\n", Fault::Target, Err(Fault::Target)),
        (b"GET /a\xe9b HTTP/1.1\r\n", Fault::Target, Ok("GET /a\u{e9}b 1.1")),
        (b"GET /a\x7fb HTTP/1.1\r\n", Fault::Target, Ok("GET /a\x7fb 1.1")), // HAProxy takes it
        (b"GET /a#b HTTP/1.1\r\n", Fault::Target, Ok("GET /a#b 1.1")),
        (b"GET abc HTTP/1.1\r\n", Fault::TargetForm, Ok("GET abc 1.1")),
        (b"GET http://i/ HTTP/1.1\r\n", Fault::HostMismatch, Ok("GET http://i/ 1.1")),
        (b"CONNECT h HTTP/1.1\r\n", Fault::ConnectTarget, Ok("CONNECT h 1.1")),
        (b"GET / HTTP/1.2\r\n", Fault::Version, Ok("GET / 1.1")), // HAProxy takes it, as the next three
        (b"GET / HTTP/3.0\r\n", Fault::Version, Ok("GET / 1.1")),
        (b"GET / HTTP/9.9\r\n", Fault::Version, Ok("GET / 1.1")),
        (b"GET / HTTP/0.9\r\n", Fault::Version, Ok("GET / 1.0")),
        (b"GET / HTTP/1.10\r\n", Fault::Version, Ok("GET / 1.0")),
        (b"GET / HTTP1.1\r\n", Fault::Version, Ok("GET / 1.0")),
        (b"GET / http/1.1\r\n", Fault::Version, Err(Fault::Version)),
        (b"GET / HTTP/1.1\rX\r\n", Fault::BareCarriageReturn, Err(Fault::BareCarriageReturn)),
        (b"PRI * HTTP/2.0\r\n", Fault::Version, Ok("PRI * 1.1")),
        (b"POST /\r\n", Fault::NoVersion, Err(Fault::NoVersion)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Fault::Method, Err(Fault::Method)),
    ] {
        assert_eq!(line(bytes, false), Err(fault), "{bytes:?}");
        assert_eq!(line(bytes, true), lenient.map(str::to_owned), "{bytes:?}");
    }
    let (text, parsed) = parse(b"GET /\r\nX: y\r\n\r\n", true).unwrap();
    assert_eq!((text.as_str(), parsed.head_len, parsed.keep_alive), ("GET / 1.0|", 7, false));
    assert_eq!(parse(b"GET /\r\n", false).unwrap_err(), Fault::NoVersion);
}

#[test]
fn field_lines() {
    assert_eq!(fields(b"a: \t b \t \r\nB:c\r\nd:\r\ne: \r\n", false).unwrap(), "a: b|b: c|d: |e: |");
    assert_eq!(fields(b"!#$%&'*+-.^_`|~09aZ: c\r\n", false).unwrap(), "!#$%&'*+-.^_`|~09az: c|");
    assert_eq!(fields(b"a: b\x01\x08\x7f\xe9\tc\r\n", false).unwrap(), "a: b\x01\x08\x7f\u{e9}\tc|");
    for (lines, fault, lenient) in [
        (&b"a: b\n"[..], Fault::BareLineFeed, Ok("a: b|")), // HAProxy takes it
        (b"a: b\rc\r\n", Fault::BareCarriageReturn, Err(Fault::BareCarriageReturn)),
        (b"a: b\r\r\n", Fault::BareCarriageReturn, Err(Fault::BareCarriageReturn)),
        (b"a: b\x00c\r\n", Fault::Nul, Ok("a: b\0c|")), // HAProxy takes it
        (b"a: b\r\n c\r\n\td\r\n", Fault::FoldedLine, Ok("a: b   c  \td|")), // HAProxy takes it
        (b"a:\r\n c\r\n", Fault::FoldedLine, Ok("a: c|")), // HAProxy takes it
        (b"a: b\r\n \r\n", Fault::FoldedLine, Ok("a: b|")), // HAProxy takes it
        (b"a : b\r\n", Fault::SpaceBeforeColon, Ok("a : b|")),
        (b"a\t: b\r\n", Fault::SpaceBeforeColon, Ok("a\t: b|")),
        (b": b\r\n", Fault::EmptyFieldName, Err(Fault::EmptyFieldName)),
        (b"abc\r\n", Fault::NoColon, Err(Fault::NoColon)),
        (b"a bc\r\n", Fault::FieldName, Err(Fault::NoColon)),
        (b"a\xe9: b\r\n", Fault::FieldName, Ok("a\u{e9}: b|")),
        (b"a\x00: b\r\n", Fault::FieldName, Ok("a\0: b|")),
        (b"a b: c\r\n", Fault::FieldName, Ok("a b: c|")),
        (b"a@b: c\r\n", Fault::FieldName, Ok("a@b: c|")),
        (b"a\rb: c\r\n", Fault::NoColon, Err(Fault::NoColon)),
        // Not even leniently: names that a careless peer takes for what frames the message. (HAProxy's option does.)
        (b"Transfer-Encoding : chunked\r\n", Fault::SpaceBeforeColon, Err(Fault::SpaceBeforeColon)),
        (b"Content-Length\x0b: 3\r\n", Fault::FieldName, Err(Fault::FieldName)),
        (b"Host\t: i\r\n", Fault::SpaceBeforeColon, Err(Fault::SpaceBeforeColon)),
    ] {
        assert_eq!(fields(lines, false), Err(fault), "{lines:?}");
        assert_eq!(fields(lines, true), lenient.map(str::to_owned), "{lines:?}");
    }
    let first_folded = b"GET / HTTP/1.1\r\n a: b\r\nHost: h\r\n\r\n";
    assert_eq!(parse(first_folded, false).unwrap_err(), Fault::FoldedLine);
    let folded =
        |name: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{name}:\r\n chunked\r\n\r\n").into_bytes();
    assert_eq!(parse(&folded("Transfer-Encoding"), true).unwrap().1.framing, Framing::Chunked);
    assert_eq!(parse(&folded("Content-Length"), true).unwrap_err(), Fault::ContentLength);
}

#[test]
fn hosts() {
    let host = |lines: &str, lenient| {
        parse(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), lenient).map(|(text, _)| text)
    };
    assert_eq!(host("Host: h\r\nHOST: H\r\n", false).unwrap(), "GET / 1.1|host: h|");
    assert_eq!(host("Host:\r\n", false).unwrap(), "GET / 1.1|host: |");
    assert_eq!(host("Host: h\r\nHost: i\r\n", false).unwrap_err(), Fault::HostsDiffer);
    assert_eq!(host("Host: h\r\nHost: i\r\n", true).unwrap_err(), Fault::HostsDiffer);
    assert_eq!(host("", false).unwrap_err(), Fault::NoHost); // HAProxy takes it
    assert_eq!(host("", true).unwrap(), "GET / 1.1|");
    assert_eq!(parse(b"GET / HTTP/1.0\r\n\r\n", false).unwrap().0, "GET / 1.0|");
    let connect = b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n";
    assert_eq!(parse(connect, false).unwrap().0, "CONNECT h:443 1.1|host: h|");
}

#[test]
fn content_lengths() {
    for (value, number) in [
        ("3", 3),
        ("03", 3),
        ("0000000000000000000000003", 3),
        ("3 ", 3),
        ("3,3", 3),
        ("3, 3", 3),
        ("0", 0),
        ("9223372036854775807", i64::MAX as u64),
        ("3\r\nContent-Length: 3", 3),
        ("3\r\nContent-Length: 03", 3),
    ] {
        let (text, framing, keep_alive) = framed(format!("Content-Length: {value}\r\n").as_bytes()).unwrap();
        assert_eq!((text, framing), (format!("content-length: {number}|"), Framing::Length(number)));
        assert!(keep_alive);
    }
    for value in [
        "",
        " ",
        "+3",
        "-3",
        ",3",
        "3,",
        ", 3",
        "3,,3",
        "3 3",
        "0x3",
        "3.0",
        "3;",
        "\"3\"",
        "\x0b3",
        "3\x0b",
        "3e1",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
        "3\r\nContent-Length:",
        "\r\nContent-Length: 3",
    ] {
        let lines = format!("Content-Length: {value}\r\n");
        assert_eq!(framed(lines.as_bytes()), Err(Fault::ContentLength), "{value:?}");
    }
    for value in
        ["3,4", "3\r\nContent-Length: 4", "0\r\nContent-Length: 3", "3\r\nX: y\r\ncontent-length: 33"]
    {
        let lines = format!("Content-Length: {value}\r\n");
        assert_eq!(framed(lines.as_bytes()), Err(Fault::ContentLengthsDiffer), "{value:?}");
    }
}

#[test]
fn transfer_encodings() {
    for (lines, text, keep_alive) in [
        ("Transfer-Encoding: chunked\r\n", "transfer-encoding: chunked|", true),
        ("TRANSFER-ENCODING: CHUNKED \r\n", "transfer-encoding: CHUNKED|", true),
        ("Transfer-Encoding: chunked,\r\n", "transfer-encoding: chunked|", true),
        ("Transfer-Encoding: , chunked\r\n", "transfer-encoding: chunked|", true), // HAProxy: 422
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", "transfer-encoding: chunked|", true),
        ("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", "transfer-encoding: chunked|", true),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "transfer-encoding: chunked|", false),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\nX: y\r\n",
            "transfer-encoding: chunked|x: y|",
            false,
        ),
    ] {
        assert_eq!(
            framed(lines.as_bytes()),
            Ok((text.to_owned(), Framing::Chunked, keep_alive)),
            "{lines:?}"
        );
    }
    for value in [
        "",
        "xchunked",
        "chunked, chunked",
        "identity",
        "chunked, identity",
        "gzip",
        "chunked, gzip",
        "\"chunked\"",
        "chunked;q=1",
        "chunked\x0b",
        "\x0bchunked",
        "\x08chunked",
        "chunked\x0c",
        "chunk ed",
        "gzip chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
    ] {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        assert_eq!(framed(lines.as_bytes()), Err(Fault::TransferEncoding), "{value:?}");
    }
    for value in ["identity, chunked", "gzip, chunked", "x, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        assert_eq!(framed(lines.as_bytes()), Err(Fault::UnsupportedCoding), "{value:?}");
    }
    assert_eq!(BadMessage::new(Fault::UnsupportedCoding, 0).status(), 422);
    assert_eq!(framed(b"Transfer-Encoding: chunked\x00\r\n"), Err(Fault::Nul));
    assert_eq!(framed(b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n"), Err(Fault::ContentLength));
    assert_eq!(framed(b"X: y\rTransfer-Encoding: chunked\r\n"), Err(Fault::BareCarriageReturn));
    // HAProxy sends it on as HTTP/1.0 with chunks, and what a server makes of that is anybody's guess.
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(old, false).unwrap_err(), Fault::TransferEncodingInHttp10);
    let (text, parsed) = parse(old, true).unwrap();
    assert_eq!(text, "POST / 1.1|transfer-encoding: chunked|");
    assert!(!parsed.keep_alive);
    // Names that only look like it are other fields.
    let other = framed(b"Transfer_Encoding: chunked\r\nContent-Length: 3\r\n").unwrap();
    assert_eq!(other, ("transfer_encoding: chunked|content-length: 3|".into(), Framing::Length(3), true));
}

#[test]
fn connect_has_no_body() {
    for (fields, keep_alive) in
        [("", true), ("Content-Length: 3\r\n", false), ("Transfer-Encoding: chunked\r\nX: y\r\n", false)]
    {
        let bytes = format!("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n{fields}\r\n");
        let (text, parsed) = parse(bytes.as_bytes(), false).unwrap();
        let left = if fields.contains("X: y") { "x: y|" } else { "" };
        assert_eq!(text, format!("CONNECT h:1 1.1|host: h:1|{left}"));
        assert_eq!((parsed.framing, parsed.keep_alive), (Framing::None, keep_alive));
    }
}

#[test]
fn connections() {
    let case = |start: &str, lines: &str| {
        let bytes = format!("{start}\r\nHost: h\r\n{lines}\r\n");
        let (text, parsed) = parse(bytes.as_bytes(), false).unwrap();
        (text.split_once("host: h|").unwrap().1.to_owned(), parsed.keep_alive, parsed.upgrade)
    };
    let (get, old) = ("GET / HTTP/1.1", "GET / HTTP/1.0");
    for (start, lines, text, keep_alive, upgrade) in [
        (get, "Connection: close\r\n", "", false, Upgrade::None),
        (get, "Connection: keep-alive\r\nKeep-Alive: 300\r\n", "keep-alive: 300|", true, Upgrade::None),
        (
            get,
            "Connection: keep-alive, x-a , Foo\r\nX-A: 1\r\n",
            "connection: x-a,Foo|x-a: 1|",
            true,
            Upgrade::None,
        ),
        (get, "Connection: Close, keep-alive\r\nB: 3\r\n", "b: 3|", false, Upgrade::None),
        (
            get,
            "Connection: a, b\r\nConnection: bar, close\r\n",
            "connection: a, b|connection: bar|",
            false,
            Upgrade::None,
        ),
        (get, "Connection:\r\n", "", true, Upgrade::None),
        (
            get,
            "TE: trailers, gzip\r\nConnection: TE\r\n",
            "te: trailers|connection: TE|",
            true,
            Upgrade::None,
        ),
        (get, "TE: gzip\r\n", "", true, Upgrade::None),
        (old, "", "", false, Upgrade::None),
        (old, "Connection: Keep-Alive\r\n", "", true, Upgrade::None),
        (old, "Proxy-Connection: keep-alive\r\n", "proxy-connection: keep-alive|", false, Upgrade::None),
        (get, "Upgrade: foo\r\n", "upgrade: foo|", true, Upgrade::None),
        (get, "Connection: upgrade\r\n", "connection: upgrade|", true, Upgrade::Unnamed),
        (
            get,
            "Connection: Upgrade\r\nUpgrade: f\r\n",
            "connection: Upgrade|upgrade: f|",
            true,
            Upgrade::Named,
        ),
        (
            get,
            "Upgrade: f\r\nConnection: close, upgrade\r\n",
            "upgrade: f|connection: upgrade|",
            false,
            Upgrade::Named,
        ),
        (
            "POST / HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: f\r\nContent-Length: 3\r\n",
            "connection: Upgrade|content-length: 3|",
            true,
            Upgrade::Unnamed,
        ),
        (
            get,
            "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n",
            "connection: Upgrade|upgrade: WebSocket|sec-websocket-key: k|",
            true,
            Upgrade::WebSocket,
        ),
    ] {
        assert_eq!(case(start, lines), (text.to_owned(), keep_alive, upgrade), "{start} {lines}");
    }
    let no_key = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(parse(no_key, false).unwrap_err(), Fault::WebSocketKey);
}

#[test]
fn expectations() {
    let expects = |start: &str, lines: &str| {
        parse(format!("{start}\r\nHost: h\r\n{lines}\r\n").as_bytes(), false).unwrap().1.expect_continue
    };
    assert!(expects("POST / HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 3\r\n"));
    assert!(!expects("POST / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 3\r\n"));
    assert!(!expects("POST / HTTP/1.1", "Expect: 100-continue\r\n"));
    assert!(!expects("POST / HTTP/1.1", "Expect: foo\r\nContent-Length: 3\r\n"));
}

#[test]
fn limits_are_haproxys() {
    let head = |size: usize, fields: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
        (0..fields).for_each(|n| head.extend_from_slice(format!("h{n}: v\r\n").as_bytes()));
        head.extend_from_slice(b"A: ");
        head.resize(size - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    // The largest heads that HAProxy 2.6.12 takes with its default buffers.
    for (size, fields) in [(15_273, 0), (14_913, 90)] {
        assert!(parse(&head(size, fields), false).is_ok());
        assert_eq!(parse(&head(size + 1, fields), false).unwrap_err(), Fault::TooLarge);
    }
    assert!(parse(&head(2000, 98), false).is_ok());
    assert_eq!(parse(&head(2000, 99), false).unwrap_err(), Fault::TooManyFields);
    // Incomplete, and already too large.
    for start in [&b"GET / HTTP/1.1\r\nA: "[..], b"GET /", b"GET", b"\r\n"] {
        let endless: Vec<u8> = start.iter().copied().chain(std::iter::repeat_n(b'x', 16_000)).collect();
        let mut head = RequestHead::default();
        let limits = Limits::default();
        let fault = parse_request(&endless, &limits, false, &mut head).map_err(|bad| bad.fault);
        assert_eq!(fault, Err(Fault::TooLarge));
    }
}

#[test]
fn the_place_is_told() {
    let mut head = RequestHead::default();
    let bytes = b"\r\nPOST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let parsed = parse_request(bytes, &Limits::default(), false, &mut head).unwrap().unwrap();
    assert_eq!(&bytes[parsed.line.clone()], b"POST /x HTTP/1.1");
    assert_eq!(&bytes[parsed.head_len..], b"abc");
    let bad = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\na b: c\r\n", &Limits::default(), false, &mut head);
    assert_eq!(bad, Err(BadMessage::new(Fault::FieldName, 26)));
}

/// However a head arrives, the same comes of it.
#[test]
fn every_cut_gives_the_same() {
    let cases: [&[u8]; 8] = [
        b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nA:b\r\nC: d \r\nConnection: close, x\r\nContent-Length: 3\r\n\r\nabc",
        b"GET http://h:80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\na: b\r\n c\r\n \r\n\td: e\r\nf: g\r\n\r\n",
        b"GET / HTTP/1.1\nHost: h\na: b\n c\n\nrest",
        b"GET / HTTP/1.1\r\nHost: h\r\na b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\na\x00: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\na: b\rc\r\n\r\n",
        b"GET /\r\nHost: h\r\n\r\n",
    ];
    for lenient in [false, true] {
        for bytes in cases {
            let mut head = RequestHead::default();
            let whole = parse_request(bytes, &Limits::default(), lenient, &mut head);
            let text = written(&head);
            let (mut by_byte, mut by_byte_head) = (RequestParser::default(), RequestHead::default());
            let mut slow = Ok(None);
            for end in 1..=bytes.len() {
                let mut parser = RequestParser::default();
                let mut cut_head = RequestHead::default();
                let limits = Limits::default();
                let mut cut = parser.parse(&bytes[..end], &limits, lenient, &mut cut_head);
                if cut == Ok(None) {
                    cut = parser.parse(bytes, &limits, lenient, &mut cut_head);
                }
                assert_eq!(cut, whole, "{bytes:?} {end}");
                if whole.is_ok() {
                    assert_eq!(written(&cut_head), text);
                }
                if slow == Ok(None) {
                    slow = by_byte.parse(&bytes[..end], &limits, lenient, &mut by_byte_head);
                }
            }
            assert_eq!(slow, whole, "{bytes:?}");
            if whole.is_ok() {
                assert_eq!(written(&by_byte_head), text);
            }
        }
    }
}
