//! Who closes when: http-keep-alive, httpclose, reuse, tunnels of old.

use super::super::case::{Act, Group, acts, case, ok, raw, send};
use super::{get, group, guide};

pub(super) fn groups() -> Vec<Group> {
    vec![closing(), keeping(), logging(), monitor()]
}

fn closing() -> Group {
    let configuration = guide(
        "listen httpclose\n bind {ip}:80\n no option http-server-close\n option httpclose\n server s1 {ip}:9001\n\
         listen forceclose\n bind {ip}:81\n no option http-server-close\n option httpclose\n server s1 {ip}:9001\n",
    );
    let cases = vec![
        case("closes both").send(get("")).reply().end().shows("connection: close"),
        case("pipelined is not answered").send(get("X: 1\r\n") + &get("X: 2\r\n")).reply().end(),
        case("HTTP/1.0").send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").reply().end(),
        case("post")
            .port(81)
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .reply()
            .end(),
    ];
    group("closing", configuration, cases)
}

fn keeping() -> Group {
    let configuration = guide(
        "listen keep\n bind {ip}:80\n no option http-server-close\n option http-keep-alive\n server s1 {ip}:9001\n\
         listen never\n bind {ip}:81\n no option http-server-close\n http-reuse never\n server s1 {ip}:9001\n\
         listen mixed\n bind {ip}:82\n no option http-server-close\n server s1 {ip}:9001\n server s2 {ip}:9002\n",
    );
    let stale =
        || [acts([send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"), Act::Close]), ok("2"), ok("probe")];
    let cases = vec![
        case("three on one")
            .send(get("X: 1\r\n"))
            .reply()
            .send(get("X: 2\r\n"))
            .reply()
            .ask(get("X: 3\r\n"))
            .logs(3),
        case("server closes")
            .send(get(""))
            .reply()
            .ask(get(""))
            .logs(2)
            .answers([raw("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")]),
        case("stale server connection")
            .send(get("X: 1\r\n"))
            .reply()
            .pause(50)
            .ask(get("X: 2\r\n"))
            .logs(2)
            .answers(stale()),
        case("HTTP/1.0 keep-alive").send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").reply().probe(),
        case("HTTP/1.0 server").send(get("")).reply().probe().answers([
            acts([send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Act::Close]),
            ok("probe"),
        ]),
        case("client closes").send(get("Connection: close\r\n")).reply().end(),
        case("never").port(81).send(get("X: 1\r\n")).reply().ask(get("X: 2\r\n")).logs(2),
        case("same server again").port(82).send(get("X: 1\r\n")).reply().ask(get("X: 2\r\n")).logs(2),
        case("post after get")
            .send(get(""))
            .reply()
            .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .logs(2),
        case("chunked, kept").ask(get("")).answers([
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            ok("probe"),
        ]),
        case("204, kept").ask(get("")).answers([raw("HTTP/1.1 204 No Content\r\n\r\n"), ok("probe")]),
        case("304, kept").ask(get("")).answers([raw("HTTP/1.1 304 Not Modified\r\n\r\n"), ok("probe")]),
    ];
    let mut group = group("keeping", configuration, cases);
    group.pooled = true;
    group
}

fn logging() -> Group {
    let configuration = guide(
        "listen format\n bind {ip}:80\n log-format \"%ci %HM %HU %HV %HP %HQ %ST %B %U %ts %s %b %f %{+Q}o %{+Q}r %hrl %hsl %[capture.req.hdr(0)] %ID\"\n \
           capture request header X len 10\n server s1 {ip}:9001\n\
         listen captures\n bind {ip}:81\n capture request header Host len 20\n capture request header User-Agent len 5\n capture response header Server len 8\n \
           capture cookie sess len 12\n server s1 {ip}:9001\n\
         listen normal\n bind {ip}:82\n option dontlog-normal\n server s1 {ip}:9001\n\
         listen asap\n bind {ip}:83\n option logasap\n server s1 {ip}:9001\n\
         listen separate\n bind {ip}:84\n option log-separate-errors\n server s1 {ip}:9009\n retries 0\n\
         listen tag\n bind {ip}:85\n log-tag web\n server s1 {ip}:9001\n\
         listen clf\n bind {ip}:86\n option httplog clf\n server s1 {ip}:9001\n\
         listen short\n bind {ip}:87\n no log\n log {ip}:514 len 80 local3 info\n server s1 {ip}:9001\n",
    );
    let named = "HTTP/1.1 200 OK\r\nServer: nginx/1.2.3\r\nSet-Cookie: sess=abcdefghijkl\r\nContent-Length: 2\r\n\r\nok";
    let cases = vec![
        case("log-format")
            .ask("GET /path?q=1 HTTP/1.1\r\nHost: a\r\nX: \"quoted] value\r\n\r\n")
            .shows("GET /path?q=1 HTTP/1.1 /path"),
        case("captures")
            .port(81)
            .ask(get("User-Agent: Mozilla\r\nCookie: sess=12345; b=1\r\n"))
            .answers([raw(named), ok("probe")])
            .shows("{a.example|Mozil} {nginx/1."),
        case("captures of nothing").port(81).ask(get("")).shows("{a.example|} {}"),
        case("captured odd bytes").port(81).ask(get("User-Agent: a|b}\"\t\r\n")),
        case("dontlog-normal").port(82).ask(get("")).logs(0),
        case("dontlog-normal, an error")
            .port(82)
            .send(get(""))
            .reply()
            .probe()
            .answers([acts([Act::Close]), ok("probe")])
            .shows(" 502 "),
        case("logasap").port(83).ask(get("")).shows("+"),
        case("log-separate-errors").port(84).ask(get("")).shows("<131>"),
        case("log-tag").port(85).ask(get("")).shows("web[PID]"),
        case("clf").port(86).ask(get("")).answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        case("len 80").port(87).ask(get("")).shows("<158>"),
        case("long URI").ask(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(2000))),
    ];
    group("logging", configuration, cases)
}

fn monitor() -> Group {
    let configuration = guide(
        "listen monitored\n bind {ip}:80\n monitor-uri /alive\n acl dead nbsrv lt 1\n monitor fail if dead\n server s1 {ip}:9001\n\
         listen failing\n bind {ip}:81\n monitor-uri /alive\n acl dead nbsrv lt 1\n monitor fail if dead\n server s1 {ip}:9001 disabled\n\
         listen stats\n bind {ip}:82\n stats enable\n stats uri /stats\n stats realm Statistics\n stats auth admin:secret\n server s1 {ip}:9001\n",
    );
    let alive = "GET /alive HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = vec![
        case("alive").ask(alive).logs(0).shows("200 OK"),
        case("other path").ask(get("")),
        case("longer path").ask("GET /alive2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("fails").port(81).ask(alive).logs(0).shows("503"),
        case("HEAD alive").send("HEAD /alive HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe().logs(0),
        case("stats without a password")
            .port(82)
            .send("GET /stats HTTP/1.1\r\nHost: a\r\n\r\n")
            .reply()
            .probe()
            .shows("401"),
        case("stats with a wrong password")
            .port(82)
            .send("GET /stats HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YWRtaW46d3Jvbmc=\r\n\r\n")
            .reply()
            .probe()
            .shows("401"),
        case("not stats").port(82).ask(get("")),
    ];
    group("monitor", configuration, cases)
}
