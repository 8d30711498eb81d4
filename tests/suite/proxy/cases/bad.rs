//! What is refused: malformed requests, malformed responses, too much of something.

use super::super::case::{Act, Case, Group, acts, case, ok, raw, send};
use super::{get, group, over};

pub(super) fn groups() -> Vec<Group> {
    vec![requests(), responses(), sizes()]
}

fn requests() -> Group {
    let refused =
        |name: &'static str, text: &[u8]| case(name).send(text).reply().end().shows(" 400 ").shows("PR--");
    let strict = |name: &'static str, text: &[u8]| -> Case { case(name).send(text).reply().probe() };
    let post = |headers: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n5\r\nhello\r\n0\r\n\r\n").into_bytes()
    };
    let cases = vec![
        refused("no version", b"GET /\r\n\r\n"),
        refused("rubbish", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"),
        refused("words", b"this is no request\r\n\r\n"),
        refused("bad version", b"GET / HTTX/1.1\r\nHost: a\r\n\r\n"),
        refused("space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        refused("header without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
        refused("header without a name", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
        refused("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        refused("8-bit URI", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("control character in the URI", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("control character in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\x01: 1\r\n\r\n"),
        refused("absolute URI of another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("lengths that differ", &post("Content-Length: 5\r\nContent-Length: 6\r\n")),
        refused("length +5", &post("Content-Length: +5\r\n")),
        refused("length -5", &post("Content-Length: -5\r\n")),
        refused("length of letters", &post("Content-Length: 5x\r\n")),
        refused("huge length", &post("Content-Length: 99999999999999999999\r\n")),
        refused("empty length", &post("Content-Length: \r\n")),
        refused("chunked twice", &post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        refused("xchunked", &post("Transfer-Encoding: xchunked\r\n")),
        refused("chunked not last", &post("Transfer-Encoding: chunked, gzip\r\n")),
        strict("gzip, chunked", &post("Transfer-Encoding: gzip, chunked\r\n")),
        strict("length and chunked", &post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        strict(
            "HTTP/1.0 chunked",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        strict("bare LF", b"GET / HTTP/1.1\nHost: a\n\n"),
        strict("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        strict("obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        strict("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        strict("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        strict("no host", b"GET / HTTP/1.1\r\nX: 1\r\n\r\n"),
        strict("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        strict("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("HTTP/2 preface").send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").pause(300).close().logs(0),
        case("chunk size of letters")
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n")
            .reply()
            .end(),
        case("chunk without its CRLF")
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n")
            .reply()
            .end(),
        case("huge chunk")
            .send(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
            )
            .reply()
            .end(),
        case("good, then bad").send(get("") + "BAD\r\n\r\n").reply().reply().end().logs(2).shows("PR--"),
    ];
    group("bad-requests", over("", "server s1 {ip}:9001"), cases)
}

fn responses() -> Group {
    let bad = |name: &'static str, text: &str| {
        case(name)
            .send(get(""))
            .answers([acts([send(text), Act::Pause(50), Act::Close]), ok("probe")])
            .reply()
            .probe()
            .shows(" 502 ")
            .shows("PH")
    };
    let cases = vec![
        bad("not HTTP", "rubbish rubbish\r\n\r\n"),
        bad("bad status", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("bad length", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n"),
        bad("lengths that differ", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        bad("space in a name", "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 0\r\n\r\n"),
        bad("101 that nobody asked for", "HTTP/1.1 101 Switching\r\n\r\n"),
        case("bad chunk in a response")
            .send(get(""))
            .answers([acts([
                send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n"),
                Act::Pause(50),
                Act::Close,
            ])])
            .reply()
            .end(),
        case("bare LF in a response")
            .send(get(""))
            .answers([raw("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), ok("probe")])
            .reply()
            .probe(),
        case("obs-fold in a response")
            .send(get(""))
            .answers([raw("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"), ok("probe")])
            .reply()
            .probe(),
        case("HTTP/1.2 response")
            .send(get(""))
            .answers([raw("HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"), ok("probe")])
            .reply()
            .probe(),
    ];
    group("bad-responses", over("", "server s1 {ip}:9001"), cases)
}

fn sizes() -> Group {
    let headers = |count: usize| (0..count).map(|number| format!("H{number}: v\r\n")).collect::<String>();
    let long = |length: usize| format!("X: {}\r\n", "v".repeat(length));
    let answer = |headers: String| {
        [raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok")), ok("probe")]
    };
    let cases = vec![
        case("100 headers").ask(get(&headers(97))),
        case("120 headers").send(get(&headers(140))).reply().end().shows(" 400 "),
        case("8 KiB of header").ask(get(&long(8_000))),
        case("14 KiB of header").ask(get(&long(14_000))),
        case("17 KiB of header").send(get(&long(17_000))).reply().end().shows(" 400 "),
        case("8 KiB of URI").ask(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(8_000))),
        case("8 KiB of response header").ask(get("")).answers(answer(long(8_000))),
        case("17 KiB of response header")
            .send(get(""))
            .answers(answer(long(17_000)))
            .reply()
            .probe()
            .shows(" 502 "),
        case("140 response headers")
            .send(get(""))
            .answers(answer(headers(140)))
            .reply()
            .probe()
            .shows(" 502 "),
    ];
    group("sizes", over("", "server s1 {ip}:9001"), cases)
}
