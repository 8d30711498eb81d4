//! A page that talks over a WebSocket, through the proxy as the guide configures it.

use super::driver::Browser;
use super::eventually;
use crate::proxy::inside::inside;
use crate::proxy_process::process::Place;
use std::io::{Read, Write};
use std::net::TcpListener;

const ADDRESS: &str = "10.1.0.2";

const TEXT: &str = "\
global
    log 10.1.0.2:514 local0
defaults
    mode http
    log global
    option httplog
    option http-server-close
    option forwardfor except 127.0.0.0/8
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    timeout tunnel 1h
frontend proxy
    bind 10.1.0.2:80
    use_backend chat if { path /chat }
    default_backend dynamic
backend dynamic
    balance roundrobin
    cookie SESSION_ID insert indirect nocache
    server web1 10.1.0.2:9001 cookie A
backend chat
    server chat1 10.1.0.2:9002
";

/// Answers every request with an empty page.
fn pages() {
    let listener = TcpListener::bind((ADDRESS, 9001)).expect("the port is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\nConnection: close\r\n\r\n<!DOCTYPE html>hello",
            );
        }
    });
}

/// Sends back what it gets; ends when it is told to.
fn chat() {
    let listener = TcpListener::bind((ADDRESS, 9002)).expect("the port is free");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(mut socket) = tungstenite::accept(stream) else { continue };
            while let Ok(message) = socket.read() {
                let told = message.to_text().is_ok_and(|text| text == "bye");
                if (message.is_text() || message.is_binary()) && !told && socket.send(message).is_err() {
                    break;
                }
                if told {
                    let _ = socket.close(None);
                }
            }
        }
    });
}

#[test]
fn a_page_talks_over_a_websocket() {
    inside("browser::sockets::a_page_talks_over_a_websocket", || {
        pages();
        chat();
        let log = std::net::UdpSocket::bind((ADDRESS, 514)).expect("the port is free");
        log.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set");
        let place = Place::new(TEXT);
        let _proxy = place.start(&place.ours, &["-db"]);
        eventually("it listens", || crate::proxy::side::listens(ADDRESS, 80), |listens| *listens);
        let browser = Browser::start();
        browser.open(&format!("http://{ADDRESS}/"));
        assert_eq!(browser.text(), "hello");
        let seen = browser.run_until_done(
            "const socket = new WebSocket('ws://' + location.host + '/chat');
             const sent = ['short', '\u{4e2d}\u{6587}', 'x'.repeat(300000)], got = [];
             socket.onopen = () => sent.forEach(text => socket.send(text));
             socket.onmessage = event => {
                 got.push(event.data);
                 if (got.length == sent.length) socket.send('bye');
             };
             socket.onerror = () => done(['error']);
             socket.onclose = event => done([got.every((text, at) => text == sent[at]), got.length, event.wasClean]);",
        );
        assert_eq!(seen, serde_json::json!([true, 3, true]));
        let mut bytes = [0; 4096];
        let line = std::iter::repeat_with(|| {
            let length = log.recv(&mut bytes).expect("a line in time");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        })
        .find(|line| line.contains(" chat/chat1 "))
        .expect("endless");
        assert!(line.contains(" 101 ") && line.contains("\"GET /chat HTTP/1.1\""), "{line}");
    });
}
