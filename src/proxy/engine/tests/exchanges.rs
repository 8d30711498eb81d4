//! What clients, servers and the log see of single exchanges.

use super::{Proxy, ask, connect, ends_with, http, read_until, server};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn head(stream: &mut TcpStream) -> String {
    String::from_utf8_lossy(&read_until(stream, ends_with("\r\n\r\n"))).into_owned()
}

/// What a server does with a connection whose request has come; the log's (status, ending).
fn ending_with(act: fn(&mut TcpStream), options: &str) -> (String, String) {
    let at = server(move |mut stream| {
        head(&mut stream);
        act(&mut stream);
    });
    let proxy = Proxy::start(1, &http(options, at, ""));
    let mut client = proxy.connect();
    ask(&mut client, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    read_until(&mut client, |_| false);
    proxy.ending()
}

fn say(stream: &mut TcpStream, text: &str) {
    // The other side may have gone.
    let _ = stream.write_all(text.as_bytes());
}

/// Holds the connection until the other side ends it.
fn hold(stream: &mut TcpStream) {
    read_until(stream, |_| false);
}

#[test]
fn the_log_says_how_it_ended() {
    /// What it is called, words for the section, what the server does, status, ending.
    type Case = (&'static str, &'static str, fn(&mut TcpStream), &'static str, &'static str);
    // As HAProxy 2.6 logs them.
    let brief = " timeout server 200ms";
    let cases: [Case; 7] = [
        ("whole", "", |stream| say(stream, OK), "200", "----"),
        ("nothing", "", |_| {}, "502", "SH--"),
        ("no HTTP", "", |stream| say(stream, "what?\r\n\r\n"), "502", "PH--"),
        ("half a head", "", |stream| say(stream, "HTTP/1.1 200 OK\r\nA:"), "502", "SH--"),
        ("silence", brief, hold, "504", "sH--"),
        (
            "a short body",
            "",
            |stream| say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
            "200",
            "SD--",
        ),
        (
            "a body that stops",
            brief,
            |stream| {
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
                hold(stream);
            },
            "200",
            "sD--",
        ),
    ];
    for (what, options, act, status, ending) in cases {
        assert_eq!(ending_with(act, options), (status.to_owned(), ending.to_owned()), "{what}");
    }
}

#[test]
fn a_request_and_its_answer_are_one_line_each() {
    let at = server(|mut stream| {
        assert_eq!(head(&mut stream), "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Abc: de\r\n\r\nhello");
    });
    let proxy = Proxy::start(1, &http(" option http-server-close", at, ""));
    let mut client = proxy.connect();
    for _ in 0..2 {
        ask(&mut client, GET);
        let answer = read_until(&mut client, ends_with("hello"));
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-abc: de\r\n\r\nhello"
        );
        let line = proxy.line();
        assert!(line.contains("web web/one "), "{line}");
        assert!(line.ends_with("200 61 - - ---- 1/1/0/0/0 0/0 \"GET /x HTTP/1.1\""), "{line}");
    }
}

#[test]
fn a_kept_connection_is_used_again_and_a_stale_one_is_no_fault() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (told, closed) = mpsc::channel();
    let at = {
        let connections = connections.clone();
        server(move |mut stream| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            for _ in 0..2 {
                if head(&mut stream).is_empty() {
                    return;
                }
                say(&mut stream, OK);
            }
            if number == 0 {
                // Closed without a word, when the proxy thinks that it may use it.
                drop(stream);
                told.send(()).unwrap();
            } else {
                hold(&mut stream);
            }
        })
    };
    let proxy = Proxy::start(1, &http(" option http-keep-alive", at, ""));
    let mut client = proxy.connect();
    for request in 0..4 {
        if request == 2 {
            closed.recv_timeout(super::PATIENCE).unwrap();
        }
        ask(&mut client, GET);
        assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes(), "request {request}");
        assert_eq!(proxy.ending(), ("200".to_owned(), "----".to_owned()));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn what_follows_101_goes_both_ways_until_both_have_ended() {
    let at = server(|mut stream| {
        let request = head(&mut stream);
        assert!(request.contains("connection: upgrade\r\n") && !request.contains("close"), "{request}");
        say(
            &mut stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhello ",
        );
        let sent = read_until(&mut stream, |_| false);
        stream.write_all(&sent).unwrap();
    });
    let proxy = Proxy::start(1, &http(" option http-server-close", at, ""));
    let mut client = proxy.connect();
    ask(&mut client, "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nearly ");
    let answer = read_until(&mut client, ends_with("hello "));
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    ask(&mut client, "late");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_until(&mut client, |_| false), b"early late");
    assert_eq!(proxy.ending(), ("101".to_owned(), "----".to_owned()));
}

#[test]
fn a_client_that_waits_with_its_body_is_told_to_go_on() {
    let at = server(|mut stream| {
        assert!(head(&mut stream).contains("expect: 100-continue"));
        say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(read_until(&mut stream, ends_with("body")), b"body");
        say(&mut stream, OK);
    });
    let proxy = Proxy::start(1, &http("", at, ""));
    let mut client = proxy.connect();
    ask(&mut client, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    ask(&mut client, "body");
    assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes());
}

#[test]
fn heads_that_do_not_come_in_time_or_at_all() {
    let at = server(|_| {});
    let options = " timeout http-request 200ms\n option dontlognull";
    let proxy = Proxy::start(1, &http(options, at, ""));
    // Slowly, byte after byte: the time is for the whole head.
    let mut client = proxy.connect();
    ask(&mut client, "GET / HTTP/1.1\r\nA");
    let answer = read_until(&mut client, |_| false);
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    let line = proxy.line();
    assert!(
        line.contains("web/<NOSRV> -1/-1/-1/-1/")
            && line.ends_with("408 0 - - cR-- 1/1/0/0/0 0/0 \"<BADREQ>\""),
        "{line}"
    );
    // Nothing at all: answered, not logged.
    assert!(read_until(&mut proxy.connect(), |_| false).starts_with(b"HTTP/1.1 408 "));
    let mut client = proxy.connect();
    ask(&mut client, "GET / HTTP/1.1\r\nHost : h\r\n\r\n");
    assert!(read_until(&mut client, |_| false).starts_with(b"HTTP/1.1 400 "));
    assert_eq!(proxy.ending(), ("400".to_owned(), "PR--".to_owned()));
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alive = server(|mut stream| {
        head(&mut stream);
        say(&mut stream, OK);
    });
    let options = format!(" option redispatch\n server dead {dead}");
    let proxy = Proxy::start(1, &http(&options, alive, ""));
    for _ in 0..2 {
        let mut client = proxy.connect();
        ask(&mut client, GET);
        assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes());
    }
    let lines = [proxy.line(), proxy.line()];
    // Not sticky: at once elsewhere.
    let redispatched = lines.iter().filter(|line| line.contains("web/one") && line.contains(" 1/1/0/0/+1 "));
    assert!(redispatched.count() >= 1, "{lines:?}");
}

#[test]
fn nobody_there_is_503() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(1, &http(" retries 0", dead, ""));
    let mut client = proxy.connect();
    ask(&mut client, GET);
    assert!(read_until(&mut client, ends_with("</html>\n")).starts_with(b"HTTP/1.1 503 "));
    assert_eq!(proxy.ending(), ("503".to_owned(), "SC--".to_owned()));
    // The connection lives on.
    ask(&mut client, GET);
    assert!(read_until(&mut client, ends_with("</html>\n")).starts_with(b"HTTP/1.1 503 "));
}

#[test]
fn tcp_is_joined_with_half_closes() {
    let at = server(|mut stream| {
        say(&mut stream, "first ");
        let sent = read_until(&mut stream, |_| false);
        stream.write_all(&sent).unwrap();
    });
    let sections = format!(
        "defaults\n mode tcp\n log global\n option tcplog\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen db\n bind 127.0.0.1:1\n server one {at}\n"
    );
    let proxy = Proxy::start(1, &sections);
    let mut client = connect(proxy.at[0]);
    assert_eq!(read_until(&mut client, ends_with("first ")), b"first ");
    ask(&mut client, "second");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_until(&mut client, |_| false), b"second");
    let line = proxy.line();
    assert!(line.contains(" db db/one ") && line.ends_with(" 12 -- 1/1/0/0/0 0/0"), "{line}");
}
