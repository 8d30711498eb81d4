//! maxconn: queues in front of a server, the backlog in front of a front end.

use super::super::case::{Act, Group, acts, case, send};
use super::{get, group, guide};

pub(super) fn groups() -> Vec<Group> {
    let configuration = guide(
        "listen queue\n bind {ip}:80\n timeout queue 1s\n server s1 {ip}:9001 maxconn 1\n\
         listen nolimit\n bind {ip}:81\n timeout connect 1s\n server s1 {ip}:9001 maxconn 1\n\
         listen frontend\n bind {ip}:82\n maxconn 1\n server s1 {ip}:9001\n\
         listen maxqueue\n bind {ip}:83\n timeout queue 1s\n cookie S insert indirect\n server s1 {ip}:9001 maxconn 1 maxqueue 1 cookie A\n server s2 {ip}:9002 cookie B\n",
    );
    let slow = |milliseconds| {
        acts([Act::Pause(milliseconds), send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")])
    };
    let cases = vec![
        case("waits, then served")
            .send(get("X: 1\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\n"))
            .reply()
            .on(0)
            .reply()
            .answers([slow(700), slow(0)])
            .logs(2),
        case("waits too long")
            .send(get("X: 1\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\n"))
            .reply()
            .on(0)
            .reply()
            .answers([slow(2000)])
            .logs(2)
            .shows(" 503 ")
            .shows("sQ"),
        case("timeout connect bounds the queue")
            .port(81)
            .send(get("X: 1\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\n"))
            .reply()
            .on(0)
            .reply()
            .answers([slow(2000)])
            .logs(2)
            .shows("sQ"),
        case("leaves the queue")
            .send(get("X: 1\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\n"))
            .pause(100)
            .reset()
            .on(0)
            .reply()
            .answers([slow(900)])
            .logs(2),
        case("front end is full")
            .port(82)
            .send(get("X: 1\r\nConnection: close\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\n"))
            .on(0)
            .reply()
            .end()
            .on(1)
            .reply()
            .answers([slow(300), slow(0)])
            .logs(2),
        case("sticky server is full")
            .port(83)
            .send(get("X: 1\r\nCookie: S=A\r\n"))
            .arrived("x: 1")
            .another()
            .send(get("X: 2\r\nCookie: S=A\r\n"))
            .reply()
            .on(0)
            .reply()
            .answers([slow(600), slow(0)])
            .logs(2),
    ];
    vec![group("queue", configuration, cases)]
}
