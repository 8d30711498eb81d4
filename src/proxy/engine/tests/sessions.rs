//! Limits, listings, stopping.

use super::{Proxy, ask, ends_with, eventually, http, read_until, server};
use crate::proxy::engine::Which;
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
