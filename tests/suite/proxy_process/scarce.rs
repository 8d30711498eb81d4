//! Few descriptors.

use super::process::{Place, wait_listening};
use super::reload::FRONT;
use crate::proxy::inside::inside;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A server that keeps its connections.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("a second descriptor")).lines();
                while let Some(Ok(line)) = lines.next() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if line.is_empty() && (&stream).write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// Connections to servers that wait for nobody in particular are no reason to turn a client away.
#[test]
fn waiting_connections_give_way_when_no_descriptor_is_left() {
    inside("proxy_process::scarce::waiting_connections_give_way_when_no_descriptor_is_left", || {
        let mut text = "global\n ulimit-n 100\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n \
             timeout client 1m\n timeout server 1m\nlisten front\n bind 127.0.0.1:8080\n http-reuse safe\n"
            .to_owned();
        // Each may keep 32 connections.
        for number in 0..4 {
            let _ = writeln!(text, " server s{number} {}", server());
        }
        let place = Place::new(&text);
        let mut proxy = place.start(&place.ours, &["-db"]);
        wait_listening(FRONT, &mut proxy);
        for number in 0..200 {
            let mut client = TcpStream::connect(FRONT).expect("connects");
            client.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("answered");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{number}: {answer}\n{}", proxy.said());
        }
    });
}
