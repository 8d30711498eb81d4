//! What rules do to messages and connections, as the wire, the log and the counters show it. What is expected was seen
//! of HAProxy 2.6.12 where nothing else is said.

use super::{Proxy, ask, ends_with, http, read_until, server};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What each connection of a server received.
type Received = Arc<Mutex<Vec<u8>>>;

/// A server that gives this answer to whatever ends with `end`, and what it received.
fn recording(answer: &'static str, end: &'static str) -> (SocketAddr, Received) {
    let received = Received::default();
    let kept = received.clone();
    let at = server(move |mut stream| {
        loop {
            let request = read_until(&mut stream, ends_with(end));
            kept.lock().unwrap().extend_from_slice(&request);
            if !request.ends_with(end.as_bytes()) || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (at, received)
}

/// What a server receives of a request when these rules are applied.
fn sent_on(rules: &str, request: &str, end: &'static str) -> String {
    let (at, received) = recording(OK, end);
    let proxy = Proxy::start(1, &http(rules, at, ""));
    let mut client = proxy.connect();
    ask(&mut client, request);
    let answer = read_until(&mut client, ends_with("hello"));
    assert!(answer.ends_with(b"hello"), "{rules}: {}", String::from_utf8_lossy(&answer));
    let seen = received.lock().unwrap();
    String::from_utf8_lossy(&seen).replace("\r\n", "|")
}

#[test]
fn a_request_is_framed_as_it_is_whatever_rules_say_of_it() {
    let sized = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let old = "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello";
    let chunks = "POST / HTTP/1.1|host: h|transfer-encoding: chunked||5|hello|0||";
    for rule in ["del-header content-length", "del-header content- -m beg"] {
        assert_eq!(sent_on(&format!(" http-request {rule}"), sized, "0\r\n\r\n"), chunks, "{rule}");
    }
    // HAProxy sends such a body without framing, or answers 500 to a length that it does not find.
    assert_eq!(
        sent_on(" http-request del-header content-length", old, "hello"),
        "POST / HTTP/1.0|connection: keep-alive|content-length: 5||hello"
    );
    for rule in
        ["set-header content-length 3", "add-header content-length 9", "add-header transfer-encoding gzip"]
    {
        let seen = sent_on(&format!(" http-request {rule}"), sized, "hello");
        assert_eq!(seen, "POST / HTTP/1.1|host: h|content-length: 5||hello", "{rule}");
        assert_eq!(sent_on(&format!(" http-request {rule}"), chunked, "0\r\n\r\n"), chunks, "{rule}");
        // A second request cannot hide behind one that has no body.
        let seen = sent_on(&format!(" http-request {rule}"), GET, "\r\n\r\n");
        assert_eq!(seen, "GET /x HTTP/1.1|host: h||", "{rule}");
    }
    let seen = sent_on(" option httpclose\n http-request add-header content-length 9", sized, "hello");
    assert_eq!(seen, "POST / HTTP/1.1|host: h|content-length: 5|connection: close||hello");
    assert_eq!(sent_on(" http-request del-header transfer-encoding", chunked, "0\r\n\r\n"), chunks);
}

/// What a client receives of two requests on one connection when these rules are applied, up to `end` and to the end.
fn sent_back(rules: &str, request: &str, answer: &'static str, end: &str) -> Vec<String> {
    let (at, _) = recording(answer, "\r\n\r\n");
    let proxy = Proxy::start(1, &http(rules, at, ""));
    let mut client = proxy.connect();
    let mut seen = Vec::new();
    for _ in 0..2 {
        if client.write_all(request.as_bytes()).is_err() {
            break;
        }
        let answer = read_until(&mut client, ends_with(end));
        if answer.is_empty() {
            break;
        }
        seen.push(String::from_utf8_lossy(&answer).replace("\r\n", "|"));
    }
    seen
}

#[test]
fn an_answer_is_framed_as_it_is_whatever_rules_say_of_it() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let chunks = "HTTP/1.1 200 OK|transfer-encoding: chunked||5|hello|0||";
    let twice = |one: &str| vec![one.to_owned(); 2];
    for (rule, answer) in [
        ("del-header content-length", OK),
        ("del-header content- -m beg", OK),
        ("del-header transfer-encoding", chunked),
        ("add-header content-length 9", chunked),
    ] {
        let seen = sent_back(&format!(" http-response {rule}"), GET, answer, "0\r\n\r\n");
        assert_eq!(seen, twice(chunks), "{rule}");
        let seen = sent_back(&format!(" http-after-response {rule}"), GET, answer, "0\r\n\r\n");
        assert_eq!(seen, twice(chunks), "after: {rule}");
    }
    // HAProxy ends the connection instead.
    let seen = sent_back(" http-response set-header content-length 3", GET, OK, "hello");
    assert_eq!(seen, twice("HTTP/1.1 200 OK|content-length: 5||hello"));
    // HAProxy sends chunks to HTTP/1.0.
    let old = "GET / HTTP/1.0\r\n\r\n";
    let seen = sent_back(" http-response del-header content-length", old, OK, "-");
    assert_eq!(seen, ["HTTP/1.1 200 OK|connection: close||hello"]);
    let own = " http-request return status 200 content-type text/plain string hello\n http-after-response ";
    let seen = sent_back(&format!("{own}del-header content-length"), GET, OK, "0\r\n\r\n");
    let made = "HTTP/1.1 200 OK|content-type: text/plain|transfer-encoding: chunked||5|hello|0||";
    assert_eq!(seen, twice(made));
    let head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
    let seen = sent_back(&format!("{own}del-header content-length"), head, OK, "\r\n\r\n");
    assert_eq!(seen, twice("HTTP/1.1 200 OK|content-type: text/plain||"));
}

#[test]
fn a_status_without_a_body_has_none() {
    let twice = |one: &str| vec![one.to_owned(); 2];
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for answer in [OK, chunked] {
        let seen = sent_back(" http-response set-status 204", GET, answer, "\r\n\r\n");
        assert_eq!(seen, twice("HTTP/1.1 204 No Content||"));
    }
    let seen = sent_back(" http-response set-status 304", GET, OK, "\r\n\r\n");
    assert_eq!(seen, twice("HTTP/1.1 304 Not Modified|content-length: 5||"));
    let own = " http-request return status 200 content-type text/plain string hello\n http-after-response ";
    let seen = sent_back(&format!("{own}set-status 204"), GET, OK, "\r\n\r\n");
    assert_eq!(seen, twice("HTTP/1.1 204 No Content|content-type: text/plain||"));
    // And the other way round.
    let seen = sent_back(" http-response set-status 200", GET, "HTTP/1.1 204 No\r\n\r\n", "0\r\n\r\n");
    assert_eq!(seen, twice("HTTP/1.1 200 OK|transfer-encoding: chunked||0||"));
}

/// A frontend and a backend with these lines.
fn two(mode: &str, frontend: &str, backend: &str, server: SocketAddr) -> String {
    let log = if mode == "http" { "httplog" } else { "tcplog" };
    format!(
        "defaults\n mode {mode}\n log global\n option {log}\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend web\n bind 127.0.0.1:1\n{frontend}\n default_backend b\nbackend b\n{backend}\n server s {server}\n"
    )
}

/// What is left of a log line behind its date, and what the client got.
fn refused(sections: &str, request: &str) -> (Proxy, String, Vec<u8>) {
    let proxy = Proxy::start(1, sections);
    let mut client = proxy.connect();
    ask(&mut client, request);
    let mut got = Vec::new();
    // Closed with something unread: a reset is an end too.
    let _ = client.read_to_end(&mut got);
    let line = proxy.line();
    let line = line.split_once("] ").map_or(line.clone(), |(_, rest)| rest.to_owned());
    (proxy, line, got)
}

#[test]
fn content_rules_keep_out_whom_they_reject() {
    let (at, received) = recording(OK, "\r\n\r\n");
    let rule = " tcp-request content reject if { src 127.0.0.1 }";
    let denied = |proxy: &Proxy| {
        let front = &proxy.running.proxies[0].frontend.as_ref().unwrap().counters;
        let back = &proxy.running.proxies[1].backend.as_ref().unwrap().counters;
        let (requests, sessions) = (back.requests.get(), back.traffic.sessions.get());
        (front.denied_requests.get(), front.requests.get(), requests, sessions)
    };
    // Before everything else: it is not even a request.
    let front = format!("{rule}\n http-request return status 200");
    let (proxy, line, got) = refused(&two("http", &front, "", at), GET);
    assert_eq!(
        line,
        "web web/<NOSRV> -1/-1/-1/-1/0 -1 0 - - PR-- 1/1/0/0/0 0/0 \"<BADREQ>\"",
        "{}",
        String::from_utf8_lossy(&got)
    );
    assert!(got.is_empty());
    assert_eq!(denied(&proxy), (1, 0, 0, 0));
    // The backend's, before its other rules.
    let back = format!(" http-request deny\n{rule}");
    let (proxy, line, got) = refused(&two("http", "", &back, at), GET);
    assert_eq!(line, "web b/<NOSRV> -1/-1/-1/-1/0 -1 0 - - PR-- 1/1/0/0/0 0/0 \"GET /x HTTP/1.1\"");
    assert!(got.is_empty());
    assert_eq!(denied(&proxy), (1, 1, 1, 1));
    for (front, back, name) in [(rule, "", "web"), ("", rule, "b")] {
        let (proxy, line, got) = refused(&two("tcp", front, back, at), GET);
        assert_eq!(line, format!("web {name}/<NOSRV> -1/-1/0 0 PR 1/1/0/0/0 0/0"));
        assert!(got.is_empty());
        assert_eq!(denied(&proxy).0, 1);
    }
    assert!(received.lock().unwrap().is_empty(), "nothing may reach a server");
}

#[test]
fn content_rules_look_at_every_request() {
    let (at, _) = recording(OK, "\r\n\r\n");
    for (front, back) in [
        (" tcp-request content reject if { path /no }", ""),
        ("", " tcp-request content reject if { path /no }"),
    ] {
        let proxy = Proxy::start(1, &two("http", front, back, at));
        let mut client = proxy.connect();
        ask(&mut client, GET);
        assert!(read_until(&mut client, ends_with("hello")).ends_with(b"hello"));
        assert_eq!(proxy.ending(), ("200".to_owned(), "----".to_owned()));
        ask(&mut client, &GET.replace("/x", "/no"));
        assert!(read_until(&mut client, |_| false).is_empty());
        assert_eq!(proxy.ending(), ("-1".to_owned(), "PR--".to_owned()));
    }
    let first = " tcp-request content accept\n tcp-request content reject\n tcp-request content set-var(txn.a) str(x)";
    let proxy = Proxy::start(1, &two("http", first, "", at));
    let mut client = proxy.connect();
    ask(&mut client, GET);
    assert!(read_until(&mut client, ends_with("hello")).ends_with(b"hello"));
}

#[test]
fn who_is_rejected_is_counted() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let (proxy, line, got) = refused(&two("http", "", " http-request reject", at), GET);
    assert_eq!(line, "web b/<NOSRV> -1/-1/-1/-1/0 -1 0 - - PR-- 1/1/0/0/0 0/0 \"GET /x HTTP/1.1\"");
    assert!(got.is_empty());
    let front = &proxy.running.proxies[0].frontend.as_ref().unwrap().counters;
    let back = &proxy.running.proxies[1].backend.as_ref().unwrap().counters;
    assert_eq!((front.denied_requests.get(), back.denied_requests.get()), (1, 1));
    assert_eq!((front.requests.get(), back.requests.get()), (1, 1));
}

#[test]
fn a_dropped_answer_is_not_sent() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let rule = " http-response silent-drop";
    for (front, back) in [(rule, ""), ("", rule)] {
        let (proxy, line, got) = refused(&two("http", front, back, at), GET);
        assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
        let words: Vec<&str> = line.split(' ').collect();
        // 33 of the line, 15 of the field, 1 of the end, 5 of the body in HAProxy; the body is not read here.
        assert_eq!((words[1], words[3], words[7]), ("b/s", "200", "PR--"), "{line}");
        assert!(words[2].contains("/-1/"), "{line}");
        let front = &proxy.running.proxies[0].frontend.as_ref().unwrap().counters;
        let backend = proxy.running.proxies[1].backend.as_ref().unwrap();
        assert_eq!((front.denied_requests.get(), backend.counters.denied_requests.get()), (1, 1));
        assert_eq!(backend.servers[0].counters.requests.get(), 1);
    }
}

#[test]
fn a_denied_answer_is_counted() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let (proxy, line, got) = refused(&two("http", " option httpclose\n http-response deny", "", at), GET);
    assert!(got.starts_with(b"HTTP/1.1 502 ") && line.contains(" - - PH-- "), "{line}");
    let front = &proxy.running.proxies[0].frontend.as_ref().unwrap().counters;
    let backend = proxy.running.proxies[1].backend.as_ref().unwrap();
    let server = &backend.servers[0].counters;
    assert_eq!(
        (
            front.denied_responses.get(),
            backend.counters.denied_responses.get(),
            server.denied_responses.get(),
            server.requests.get()
        ),
        (1, 1, 1, 1)
    );
}

#[test]
fn variables_of_the_request_end_with_it() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let rules = " http-request set-var(req.a) str(1)\n http-request set-var(txn.b) str(2)\n \
                 http-request set-header x-a %[var(req.a)]\n http-response set-var(res.c) str(3)\n \
                 http-response set-header x-a a%[var(req.a)]%[var(txn.b)]\n \
                 log-format %[var(req.a)],%[var(txn.b)],%[var(res.c)]";
    let proxy = Proxy::start(1, &http(rules, at, ""));
    let mut client = proxy.connect();
    ask(&mut client, GET);
    let answer = read_until(&mut client, ends_with("hello"));
    assert!(String::from_utf8_lossy(&answer).contains("\r\nx-a: a2\r\n"));
    assert_eq!(proxy.line(), "-,2,3");
    // Of an answer that the proxy makes, too.
    let rules = " http-request set-var(req.a) str(1)\n \
                 http-request return status 200 content-type text/plain lf-string x%[var(req.a)]\n \
                 http-after-response set-header x-a a%[var(req.a)]\n log-format %[var(req.a)]";
    let proxy = Proxy::start(1, &http(rules, at, ""));
    let mut client = proxy.connect();
    ask(&mut client, GET);
    let answer = read_until(&mut client, ends_with("x1"));
    assert!(
        String::from_utf8_lossy(&answer).contains("\r\nx-a: a\r\n"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(proxy.line(), "-");
}

#[test]
fn a_request_line_is_logged_as_long_as_told() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let format = "log-format %r,%HU,%HP,%HM,%HV,%HQ,%[capture.req.uri]";
    let logged = |global: &str, path: &str| {
        let proxy = Proxy::start(1, &format!("{global}{}", http(&format!(" {format}"), at, "")));
        let mut client = proxy.connect();
        ask(&mut client, &GET.replace("/x", path));
        assert!(read_until(&mut client, ends_with("hello")).ends_with(b"hello"));
        proxy.line()
    };
    let short = " tune.http.logurilen 20\n";
    assert_eq!(
        logged(short, "/aaaaaaaaaa?bcdefghi"),
        "GET /aaaaaaaaaa?bcde,/aaaaaaaaaa?bcde,/aaaaaaaaaa,GET,HTTP/0.9,?bcde,/aaaaaaaaaa?bcde"
    );
    assert_eq!(logged(short, "/a?b=1"), "GET /a?b=1 HTTP/1.1,/a?b=1,/a,GET,HTTP/1.1,?b=1,/a?b=1");
    let long = logged(" log 127.0.0.1:1 len 8000 local1\n", &format!("/{}", "a".repeat(1400)));
    let first = long.split(',').next().unwrap();
    assert!(long.len() > 900 && first.len() <= 1023, "{}", first.len());
}

#[test]
fn nobody_forges_a_log_line() {
    let (at, _) = recording(OK, "\r\n\r\n");
    let proxy = Proxy::start(
        1,
        &http(" capture cookie a len 20\n log-format %[capture.req.uri,url_dec],%CC", at, ""),
    );
    let mut client = proxy.connect();
    ask(&mut client, "GET /a%0A<0>b%1b HTTP/1.1\r\nHost: h\r\nCookie: a=\x1b[2J\r\n\r\n");
    assert!(read_until(&mut client, ends_with("hello")).ends_with(b"hello"));
    assert_eq!(proxy.line(), "/a#0A<0>b#1B,a=#1B[2J");
}
