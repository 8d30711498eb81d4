//! nginx and gunicorn behind.

use super::super::case::{Group, case};
use super::{group, guide};

pub(super) fn groups() -> Vec<Group> {
    let configuration = guide(
        "listen nginx\n bind {ip}:80\n cookie SESSION_ID insert indirect nocache\n server web1 {ip}:9101 cookie A\n\
         listen gunicorn\n bind {ip}:81\n cookie SESSION_ID insert indirect nocache\n server web2 {ip}:9102 cookie B\n\
         listen keeping\n bind {ip}:82\n no option http-server-close\n server web1 {ip}:9101\n",
    );
    let ask =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
    let post = |headers: &str, body: &str| format!("POST /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
    let cases = vec![
        case("nginx").ask(ask("/a?b", "")).shows("/a?b"),
        case("nginx, a file").ask(ask("/files/small", "")).shows("etag: "),
        case("nginx, head").send("HEAD /files/small HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe(),
        case("nginx, a megabyte").ask(ask("/files/big", "")).shows("<1048576 times z>"),
        case("nginx, a range").ask(ask("/files/small", "Range: bytes=2-5\r\n")).shows(" 206 "),
        case("nginx, ranges").ask(ask("/files/big", "Range: bytes=1048570-\r\n")).shows(" 206 "),
        case("nginx, not modified")
            .ask(ask("/files/small", "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n"))
            .shows(" 304 "),
        case("nginx, not found").ask(ask("/files/none", "")).shows(" 404 "),
        case("nginx, post to a file")
            .ask("POST /files/small HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .shows(" 405 "),
        case("nginx, HTTP/1.0").send("GET /x HTTP/1.0\r\n\r\n").reply().end(),
        case("nginx, kept").port(82).send(ask("/1", "")).reply().ask(ask("/2", "")).logs(2),
        case("nginx, pipelined").send(ask("/1", "") + &ask("/2", "")).reply().reply().probe().logs(2),
        case("gunicorn").port(81).ask(ask("/a?b", "")).shows("/a?b"),
        case("gunicorn, chunked").port(81).ask(ask("/chunked", "")).shows("<chunked>one two"),
        case("gunicorn, head").port(81).send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe(),
        case("gunicorn, post").port(81).ask(post("Content-Length: 5\r\n", "hello")).shows("hello"),
        case("gunicorn, chunked post")
            .port(81)
            .ask(post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"))
            .shows("helloyou"),
        case("gunicorn, 100-continue")
            .port(81)
            .send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""))
            .until("100 Continue\r\n\r\n")
            .ask("hello"),
        case("gunicorn, big post")
            .port(81)
            .ask(post("Content-Length: 500000\r\n", &"w".repeat(500_000)))
            .shows("<500000 times w>"),
        case("gunicorn, sticky").port(81).ask(ask("/s", "Cookie: SESSION_ID=B\r\n")).shows("--VN"),
    ];
    let mut group = group("real-servers", configuration, cases);
    group.real = true;
    vec![group]
}
