//! What each side is sent; every case was recorded from HAProxy 2.6.12 between a raw client and a raw server.

use super::*;
use crate::http::{RequestHead, ResponseHead};

/// Client's bytes, mode, server's bytes -> what the server and the client are sent, whether the client's lives on.
fn exchange(request: &str, mode: Mode, response: &str) -> (String, String, bool) {
    let limits = Limits::default();
    let (mut head, mut answer) = (RequestHead::default(), ResponseHead::default());
    let parsed = parse_request(request.as_bytes(), &limits, false, &mut head).unwrap().unwrap();
    let client = Client::new(head.version, &parsed, mode);
    let asked = Asked::new(&head, &parsed);
    prepare_request(&mut head, &parsed, mode);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    write_request(&head, &mut to_server);
    let said = parse_response(response.as_bytes(), &limits, false, asked, &mut answer).unwrap().unwrap();
    let outgoing = prepare_response(&mut answer, &said, client);
    write_response(&answer, &mut to_client);
    (String::from_utf8(to_server).unwrap(), String::from_utf8(to_client).unwrap(), outgoing.keep_alive)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

#[test]
fn what_the_server_is_told() {
    use Mode::{Close, KeepAlive, ServerClose};
    let sent = |line: &str, fields: &str, mode| {
        let (server, ..) = exchange(&format!("{line}\r\nHost: h\r\n{fields}\r\n"), mode, OK);
        server.replace(&format!("{line}\r\nhost: h\r\n"), "").replace("\r\n", "|")
    };
    let (new, old) = ("GET / HTTP/1.1", "GET / HTTP/1.0");
    for (line, fields, keep, close) in [
        (new, "", "|", "connection: close||"),
        (new, "Connection: close\r\n", "|", "connection: close||"),
        (
            new,
            "Connection: keep-alive, x-a , Foo\r\nX-A: 1\r\n",
            "connection: x-a,Foo|x-a: 1||",
            "connection: x-a,Foo|x-a: 1|connection: close||",
        ),
        (new, "TE: trailers, gzip\r\n", "te: trailers||", "te: trailers|connection: close||"),
        (new, "Upgrade: foo\r\n", "upgrade: foo||", "upgrade: foo|connection: close||"),
        (new, "Connection: upgrade\r\n", "connection: upgrade||", "connection: upgrade||"),
        (
            new,
            "Connection: close, Upgrade\r\nUpgrade: foo\r\n",
            "connection: Upgrade|upgrade: foo||",
            "connection: Upgrade|upgrade: foo||",
        ),
        (old, "", "connection: keep-alive||", "|"),
        (old, "Connection: close\r\n", "connection: keep-alive||", "|"),
        (
            old,
            "Connection: keep-alive, foo\r\n",
            "connection: foo|connection: keep-alive||",
            "connection: foo||",
        ),
        (
            old,
            "Connection: Upgrade\r\nUpgrade: foo\r\n",
            "connection: Upgrade|upgrade: foo||",
            "connection: Upgrade|upgrade: foo||",
        ),
    ] {
        assert_eq!(sent(line, fields, KeepAlive), keep, "{line} {fields}");
        assert_eq!(sent(line, fields, ServerClose), close, "{line} {fields}");
        assert_eq!(sent(line, fields, Close), close, "{line} {fields}");
    }
}

#[test]
fn what_the_client_is_told() {
    use Mode::{Close, KeepAlive, ServerClose};
    let (new, old) = ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.0\r\n\r\n");
    let old_keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let new_close = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let ok_old = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n";
    let endless = "HTTP/1.1 200 OK\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked_old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upgrade = "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n";
    for (request, mode, response, told) in [
        (new, KeepAlive, OK, "HTTP/1.1 200 OK|content-length: 2||+"),
        (new, ServerClose, OK, "HTTP/1.1 200 OK|content-length: 2||+"),
        (new, Close, OK, "HTTP/1.1 200 OK|content-length: 2|connection: close||-"),
        (new_close, KeepAlive, OK, "HTTP/1.1 200 OK|content-length: 2|connection: close||-"),
        (old, ServerClose, OK, "HTTP/1.1 200 OK|content-length: 2|connection: close||-"),
        (old_keep, ServerClose, OK, "HTTP/1.1 200 OK|content-length: 2|connection: keep-alive||+"),
        (old_keep, ServerClose, ok_old, "HTTP/1.0 200 OK|content-length: 2|connection: keep-alive||+"),
        (new, ServerClose, ok_old, "HTTP/1.0 200 OK|content-length: 2|connection: keep-alive||+"),
        (new, Close, ok_old, "HTTP/1.0 200 OK|content-length: 2||-"),
        (new, ServerClose, endless, "HTTP/1.1 200 OK|connection: close||-"),
        (new, ServerClose, upgrade, "HTTP/1.1 200 OK|connection: upgrade|content-length: 2||+"),
        (new, Close, upgrade, "HTTP/1.1 200 OK|connection: upgrade|content-length: 2||-"),
        (new, ServerClose, chunked, "HTTP/1.1 200 OK|transfer-encoding: chunked||+"),
        (new, ServerClose, "HTTP/1.1 103 Early\r\nLink: a\r\n\r\n", "HTTP/1.1 103 Early|link: a||+"),
        (new, ServerClose, "HTTP/1.1 102 P\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 102 P||+"),
        (new, ServerClose, "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 No||+"),
        (new, ServerClose, "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 204 No||+"),
        (
            new,
            ServerClose,
            "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 No|content-length: 5||+",
        ),
        // HAProxy sends chunks to HTTP/1.0 too (RFC 9112 section 6.1 forbids it).
        (old, ServerClose, chunked, "HTTP/1.1 200 OK|connection: close||-"),
        (old_keep, ServerClose, chunked, "HTTP/1.1 200 OK|connection: close||-"),
        (new, ServerClose, chunked_old, "HTTP/1.0 200 OK||-"),
    ] {
        let (_, client, keep_alive) = exchange(request, mode, response);
        let client = client.replace("\r\n", "|") + if keep_alive { "+" } else { "-" };
        assert_eq!(client, told, "{request} {mode:?} {response}");
    }
    let ask = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
    let switch = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(
        exchange(ask, Close, switch).1,
        "HTTP/1.1 101 X\r\nconnection: Upgrade\r\nupgrade: foo\r\n\r\n"
    );
}

/// The field as it came, in another spelling too, is right: it stays what and where it is.
#[test]
fn a_coding_in_capitals_stays_as_it_came() {
    let request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nX-After: 1\r\n\r\n";
    let (server, ..) = exchange(request, Mode::KeepAlive, OK);
    assert!(server.contains("\r\ntransfer-encoding: Chunked\r\nx-after: 1\r\n"), "{server}");
}
