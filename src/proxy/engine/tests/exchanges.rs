//! What clients, servers and the log see of single exchanges.

use super::{Proxy, ask, connect, ends_with, http, read_until, server};
use crate::proxy::config::model::{ServerAddress, ServerPort};
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

#[test]
fn a_line_as_soon_as_possible_is_sent_once_also_for_a_failure() {
    let options = " option logasap";
    assert_eq!(ending_with(|_| {}, options), ("502".to_owned(), "SH--".to_owned()));
    let at = server(|mut stream| {
        head(&mut stream);
        say(&mut stream, OK);
    });
    let proxy = Proxy::start(1, &http(options, at, ""));
    for _ in 0..2 {
        let mut client = proxy.connect();
        ask(&mut client, GET);
        assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes());
    }
    let lines = [proxy.line(), proxy.line()];
    // A plus sign: counted up to the head only. Two exchanges, two lines.
    assert!(lines.iter().all(|line| line.contains(" 200 +")), "{lines:?}");
    assert_ne!(lines[0].split(' ').next(), lines[1].split(' ').next(), "{lines:?}");
}

#[test]
fn connections_that_nobody_uses_again_do_not_pile_up() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let at = {
        let (open, most) = (open.clone(), most.clone());
        server(move |mut stream| {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while !head(&mut stream).is_empty() {
                say(&mut stream, OK);
            }
            open.fetch_sub(1, Ordering::SeqCst);
        })
    };
    // `safe`: the first request of a client never gets a used connection.
    let proxy = Proxy::start(1, &http(" option http-keep-alive", at, ""));
    for _ in 0..400 {
        let mut client = proxy.connect();
        ask(&mut client, GET);
        assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes());
    }
    // The server's threads may be late to see that a connection was closed.
    let most = most.load(Ordering::SeqCst);
    assert!(most < 200, "{most} connections for one request at a time");
}

/// `set server addr` while requests come all the time.
#[test]
fn a_server_that_has_moved_gets_the_next_request_and_the_old_place_none() {
    let (told, asked) = mpsc::channel();
    let place = |name: &'static str| {
        let told = told.clone();
        server(move |mut stream| {
            while !head(&mut stream).is_empty() {
                told.send(name).unwrap();
                say(&mut stream, OK);
            }
            told.send("closed").unwrap();
        })
    };
    let (old, new) = (place("old"), place("new"));
    let proxy = Proxy::start(1, &http(" option http-keep-alive\n http-reuse always", old, ""));
    let mut client = proxy.connect();
    let mut get = || {
        ask(&mut client, GET);
        assert_eq!(read_until(&mut client, ends_with("ok")), OK.as_bytes());
        // Its line comes after the connection was put aside.
        proxy.line();
    };
    let backend = proxy.running.proxies[0].backend.clone().unwrap();
    let go = |at| backend.set_address(0, ServerAddress::Tcp { host: None, at, port: ServerPort::Fixed });
    get();
    go(new);
    get();
    // And back, where a connection of the first time may be waiting.
    go(old);
    get();
    let mut said: Vec<&str> =
        (0..5).map(|_| asked.recv_timeout(super::PATIENCE).expect("asked, or closed")).collect();
    said.retain(|said| *said != "closed");
    assert_eq!(said, ["old", "new", "old"]);
}

#[test]
fn a_tarpit_without_a_time_answers_at_once() {
    let proxy = Proxy::start(
        1,
        "defaults\n mode http\n log global\n option httplog\n timeout client 20s\n\
         frontend web\n bind 127.0.0.1:1\n http-request tarpit\n",
    );
    let mut client = proxy.connect();
    ask(&mut client, GET);
    assert!(read_until(&mut client, ends_with("</html>\n")).starts_with(b"HTTP/1.1 500 "));
    assert_eq!(proxy.ending(), ("500".to_owned(), "PT--".to_owned()));
}

/// As HAProxy: also when more has come than it reads.
#[test]
fn a_tarpitted_client_that_leaves_is_noticed_whatever_it_has_sent() {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = Proxy::start(1, &http(" timeout tarpit 1h\n http-request tarpit", nobody, ""));
    for length in [60_000, 0] {
        for how in ["half", "whole"] {
            let mut client = proxy.connect();
            ask(&mut client, &format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
            client.write_all(&vec![b'x'; length]).unwrap();
            let kept = (how == "half").then(|| client.try_clone().unwrap());
            client.shutdown(Shutdown::Write).unwrap();
            drop(client);
            let ending = proxy.ending();
            assert_eq!(ending, ("500".to_owned(), "PT--".to_owned()), "{how}, {length}");
            drop(kept);
        }
    }
}
