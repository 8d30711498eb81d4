//! Limits, listings, stopping.

use super::{Proxy, ask, ends_with, eventually, http, read_until, server};
use crate::proxy::engine::Which;
use crate::proxy::exchange::Endpoint;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that answers when it is told to.
fn patient() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (told, asked) = mpsc::channel();
    let told = Mutex::new(told);
    let at = server(move |mut stream| {
        read_until(&mut stream, ends_with("\r\n\r\n"));
        told.lock().unwrap().send(stream).unwrap();
    });
    (at, asked)
}

fn answer(mut stream: TcpStream) {
    ask(&mut stream, OK);
}

fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_freed_place_wakes_a_waiter_of_another_thread() {
    let (at, asked) = patient();
    let proxy = Proxy::start(2, &http(" maxconn 1\n option httpclose", at, ""));
    let mut clients: Vec<TcpStream> = (0..8).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, GET));
    for _ in 0..8 {
        let stream = asked.recv_timeout(super::PATIENCE).unwrap();
        assert!(asked.try_recv().is_err(), "two at once");
        answer(stream);
    }
    for client in &mut clients {
        assert!(read_until(client, |_| false).ends_with(b"ok"));
    }
    let gate = &proxy.running.proxies[0].frontend.as_ref().unwrap().gate;
    eventually("all have gone", || gate.now() == 0);
    assert_eq!(gate.most(), 1);
}

#[test]
fn who_waits_too_long_for_a_full_server_is_sent_away() {
    let (at, asked) = patient();
    let proxy = Proxy::start(1, &http(" timeout queue 200ms", at, "maxconn 1"));
    let mut first = proxy.connect();
    ask(&mut first, GET);
    let stream = asked.recv_timeout(super::PATIENCE).unwrap();
    let mut second = proxy.connect();
    ask(&mut second, GET);
    assert!(read_until(&mut second, ends_with("</html>\n")).starts_with(b"HTTP/1.1 503 "));
    assert_eq!(proxy.ending(), ("503".to_owned(), "sQ--".to_owned()));
    // And one that waits less is served.
    let mut third = proxy.connect();
    ask(&mut third, GET);
    let backend = proxy.running.proxies[0].backend.clone().unwrap();
    eventually("it waits", || backend.queued.load(Ordering::SeqCst) == 1);
    answer(stream);
    answer(asked.recv_timeout(super::PATIENCE).unwrap());
    assert!(read_until(&mut third, ends_with("ok")).ends_with(b"ok"));
}

#[test]
fn sessions_are_listed_and_ended() {
    let (at, asked) = patient();
    let proxy = Proxy::start(2, &http("", at, ""));
    let mut client = proxy.connect();
    ask(&mut client, GET);
    let _held = asked.recv_timeout(super::PATIENCE).unwrap();
    let rows = within(proxy.engine.sessions());
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].backend, rows[0].server, rows[0].requests), (Some(0), Some(0), 1));
    assert_eq!(within(proxy.engine.kill(Which::Server(0, 0))), 1);
    assert!(read_until(&mut client, |_| false).starts_with(b"HTTP/1.1 502 "));
    assert_eq!(proxy.ending(), ("502".to_owned(), "KH--".to_owned()));
    eventually("it has gone", || within(proxy.engine.sessions()).is_empty());
}

/// `shutdown sessions server`, `on-marked-down shutdown-sessions`.
#[test]
fn a_session_is_its_last_servers_no_more_when_it_is_idle_or_waits_for_another() {
    let (at, asked) = patient();
    let sections = http(" use_backend other if { path /other }", at, "");
    let proxy = Proxy::start(1, &format!("{sections}backend other\n server two {at} maxconn 1\n"));
    let (one, two) = ((0, 0), (1, 0));
    let mut before = proxy.connect();
    ask(&mut before, &GET.replace("/x", "/other"));
    let held = asked.recv_timeout(super::PATIENCE).unwrap();
    let mut client = proxy.connect();
    ask(&mut client, &GET.replace("/x", "/one"));
    answer(asked.recv_timeout(super::PATIENCE).unwrap());
    assert!(read_until(&mut client, ends_with("ok")).ends_with(b"ok"));
    let servers = || {
        let rows = within(proxy.engine.sessions());
        let mut servers: Vec<_> = rows.iter().map(|row| row.backend.zip(row.server)).collect();
        servers.sort();
        servers
    };
    eventually("nobody serves the idle one", || servers() == [None, Some(two)]);
    assert_eq!(within(proxy.engine.kill(Which::Server(one.0, one.1))), 0);
    ask(&mut client, &GET.replace("/x", "/other"));
    let backend = proxy.running.proxies[two.0].backend.clone().unwrap();
    eventually("it waits", || backend.queued.load(Ordering::SeqCst) == 1);
    assert_eq!(within(proxy.engine.kill(Which::Server(one.0, one.1))), 0);
    answer(held);
    answer(asked.recv_timeout(super::PATIENCE).unwrap());
    assert!(read_until(&mut client, ends_with("ok")).ends_with(b"ok"));
}

/// Its services end what does not end by itself: signals, `hard-stop-after`.
#[test]
fn the_first_thread_stays_until_the_sessions_of_all_have_ended() {
    let at = server(|mut stream| drop(read_until(&mut stream, |_| false)));
    let mut proxy = Proxy::start(4, &http(" mode tcp", at, ""));
    let mut clients: Vec<TcpStream> = Vec::new();
    let elsewhere = || within(proxy.engine.sessions()).iter().any(|row| row.thread > 0);
    while !elsewhere() {
        assert!(clients.len() < 200, "the first thread accepts everything");
        clients.push(proxy.connect());
    }
    eventually("all are there", || within(proxy.engine.sessions()).len() == clients.len());
    let rows = within(proxy.engine.sessions());
    let of_first: Vec<_> = rows.iter().filter(|row| row.thread == 0).map(|row| row.client).collect();
    clients.retain(|client| !of_first.contains(&Endpoint::Tcp(client.local_addr().unwrap())));
    eventually("the first thread is empty", || {
        within(proxy.engine.sessions()).iter().all(|row| row.thread > 0)
    });
    proxy.engine.stop();
    let service = proxy.fail.take().unwrap();
    for _ in 0..200 {
        // In the order of its commands: the first thread has been told to stop when it answers.
        assert_eq!(within(proxy.engine.sessions()).len(), clients.len());
        assert!(!service.is_closed(), "its services have ended");
    }
    assert_eq!(within(proxy.engine.kill(Which::All)), clients.len());
    proxy.thread.take().unwrap().join().unwrap().unwrap();
}

#[test]
fn a_soft_stop_serves_what_is_under_way_and_what_comes_at_the_last_moment() {
    let (at, asked) = patient();
    let mut proxy = Proxy::start(2, &http(" option http-keep-alive", at, ""));
    let mut busy = proxy.connect();
    ask(&mut busy, GET);
    let stream = asked.recv_timeout(super::PATIENCE).unwrap();
    let mut idle = proxy.connect();
    ask(&mut idle, GET);
    answer(asked.recv_timeout(super::PATIENCE).unwrap());
    assert!(read_until(&mut idle, ends_with("ok")).ends_with(b"ok"));
    proxy.engine.stop();
    eventually("it stops", || proxy.running.stopping.load(Ordering::SeqCst));
    ask(&mut idle, GET);
    answer(asked.recv_timeout(super::PATIENCE).unwrap());
    let last = read_until(&mut idle, |_| false);
    assert!(String::from_utf8_lossy(&last).contains("connection: close\r\n"));
    answer(stream);
    let mut all = Vec::new();
    busy.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(b"ok") && String::from_utf8_lossy(&all).contains("connection: close\r\n"));
    // Nobody is left: it ends by itself.
    proxy.thread.take().unwrap().join().unwrap().unwrap();
}

/// A fault in the rules of the request, in those of the answer, in the making of the log line.
#[test]
fn a_panic_ends_one_connection_and_nothing_else() {
    crate::proxy::engine::note_panics(|what| eprintln!("{what}"));
    let at = server(|mut stream| {
        while read_until(&mut stream, ends_with("\r\n\r\n")).ends_with(b"\r\n\r\n") {
            ask(&mut stream, OK);
        }
    });
    let proxy = Proxy::start(
        1,
        &http(
            " option http-keep-alive\n maxconn 3\n http-request set-header a %[path,test_panic] if { path /request }\n \
             http-request set-var(txn.answer) str(x) if { path /answer }\n \
             http-response set-header a %[var(txn.answer),test_panic]\n \
             http-request set-var(txn.line) str(x) if { path /line }\n log-format %HP,%[var(txn.line),test_panic]",
            at,
            "maxconn 3",
        ),
    );
    let mut other = proxy.connect();
    for path in ["/request", "/answer", "/line"].iter().cycle().take(12) {
        let mut client = proxy.connect();
        ask(&mut client, &GET.replace("/x", path));
        let seen = read_until(&mut client, |_| false);
        // Only the log line is made after the answer.
        assert_eq!(seen.is_empty(), *path != "/line", "{path}: {}", String::from_utf8_lossy(&seen));
        let told = proxy.line();
        let client = client.local_addr().unwrap();
        assert!(
            told.contains(&format!("ended the connection of {client}: a fault, on purpose at ")),
            "{told}"
        );
        ask(&mut other, GET);
        assert!(read_until(&mut other, ends_with("ok")).ends_with(b"ok"));
        assert_eq!(proxy.line(), "/x,-");
    }
    drop(other);
    let running = &proxy.running;
    let backend = running.proxies[0].backend.clone().unwrap();
    let held = || {
        (
            running.gate.now(),
            running.proxies[0].frontend.as_ref().unwrap().gate.now(),
            backend.counters.now.load(Ordering::SeqCst),
            backend.servers[0].sessions.load(Ordering::SeqCst),
            within(proxy.engine.sessions()).len(),
        )
    };
    eventually("nothing is held by who has gone", || held() == (0, 0, 0, 0, 0));
}

/// What everything depends on is different: the process ends, and whoever supervises it starts it again.
#[test]
fn a_panic_of_a_needed_task_ends_the_engine() {
    let (at, _asked) = patient();
    let mut proxy = Proxy::start(2, &http("", at, ""));
    proxy.fail.take().unwrap().send(()).unwrap();
    let result = proxy.thread.take().unwrap().join().unwrap();
    assert!(result.unwrap_err().to_string().contains("everything depends on"), "it says so");
}
