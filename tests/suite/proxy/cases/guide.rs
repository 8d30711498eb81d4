//! The guide's configuration: cookies, forwarded addresses, plain exchanges.

use super::super::case::{Group, case, ok, raw};
use super::{get, group, over};

const SERVERS: &str = "balance roundrobin
cookie SESSION_ID insert indirect nocache
server web1 {ip}:9001 cookie A maxconn 10000
server web2 {ip}:9002 cookie B maxconn 10000";

pub(super) fn groups() -> Vec<Group> {
    vec![plain(), cookies(), cookie_modes(), forwarded(), error_files()]
}

fn plain() -> Group {
    let pages = |bodies: [&str; 2]| bodies.map(ok);
    let cases = vec![
        case("get").ask(get("")).shows("--NI"),
        case("two on one connection").send(get("")).reply().ask(get("X: 2\r\n")).answers(pages(["1", "2"])).logs(2),
        case("pipelined").send(get("X: 1\r\n") + &get("X: 2\r\n")).reply().ask("").answers(pages(["1", "2"])).logs(2),
        case("pipelined, the second cut").send(get("X: 1\r\n") + "GET /2 HT").reply().send("TP/1.1\r\nHost: b\r\n\r\n").ask("").logs(2),
        case("byte by byte").send("G").pause(20).send("ET /slow HTTP/1.1\r").pause(20).send("\nHost: b\r\n\r").pause(20).ask("\n"),
        case("header names").ask(get("X-MiXed: Value\r\nACCEPT:  spaces around  \r\nEmpty:\r\n"))
            .answer("HTTP/1.1 200 Fine Thanks\r\nX-UPPER: Yes\r\nSERVER: s\r\nContent-Length: 2\r\n\r\nok").shows("x-mixed: Value").shows("x-upper: Yes"),
        case("repeated headers").ask(get("X: 1\r\nY: 2\r\nX: 3\r\n"))
            .answer("HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nVia: x\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"),
        case("client closes").send(get("Connection: close\r\n")).reply().end().shows("connection: close"),
        case("client says keep-alive").ask(get("Connection: keep-alive\r\n")),
        case("connection lists a header").ask(get("Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n")),
        case("server says close").ask(get("")).answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        case("server says keep-alive").ask(get("")).answer("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=3\r\nContent-Length: 2\r\n\r\nok"),
        case("absolute URI").ask("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n").shows("GET http://a.example/x?y"),
        case("OPTIONS *").ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("unknown method").ask("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n").shows("BREW /pot"),
        case("lower-case method").ask("get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("empty lines before").ask("\r\n\r\n".to_owned() + &get("")),
        case("quotes in the URI").ask("GET /a%22b'\" HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("8-bit value").ask(get("X: caf\u{e9}\r\n").as_str()),
        case("nothing sent").close().logs(0).shows("client 1 got"),
        case("half-closed after the request").send(get("")).half_close().reply().end(),
        case("404 passes").ask(get("")).answer("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope").shows(" 404 "),
        case("500 passes").ask(get("")).answer("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
        case("503 of the server passes").ask(get("")).answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"),
        case("no reason").ask(get("")).answer("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        case("upgrade of a request that is refused").ask(get("Connection: Upgrade\r\nUpgrade: h2c\r\n")),
        case("te header").ask(get("TE: trailers, gzip\r\nConnection: TE\r\n")),
        case("proxy-connection").ask(get("Proxy-Connection: keep-alive\r\n")),
    ];
    group("plain", over("", SERVERS), cases)
}

fn cookies() -> Group {
    let cookie = |name, value: &str| case(name).ask(get(&format!("Cookie: {value}\r\n")));
    let sets = "HTTP/1.1 200 OK\r\nSet-Cookie: SESSION_ID=mine; path=/\r\nSet-Cookie: other=1\r\nContent-Length: 2\r\n\r\nok";
    let cacheable = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok";
    let public = "HTTP/1.1 200 OK\r\nCache-Control: public\r\nContent-Length: 2\r\n\r\nok";
    let cases = vec![
        case("no cookie").ask(get("")).shows("--NI").shows("set-cookie: SESSION_ID="),
        cookie("valid A", "SESSION_ID=A").shows("--VN"),
        cookie("valid B", "SESSION_ID=B").shows("--VN"),
        cookie("valid among others", "a=1; SESSION_ID=B; c=3").shows("cookie: a=1; c=3"),
        cookie("valid first", "SESSION_ID=B; c=3"),
        cookie("valid last", "a=1;SESSION_ID=B"),
        cookie("valid, then unknown", "SESSION_ID=A; SESSION_ID=Z"),
        cookie("unknown, then valid", "SESSION_ID=Z; SESSION_ID=A"),
        cookie("two valid", "SESSION_ID=A; SESSION_ID=B"),
        cookie("unknown", "SESSION_ID=nobody").shows("--II"),
        cookie("empty value", "SESSION_ID="),
        cookie("quoted", "SESSION_ID=\"A\""),
        cookie("spaces around =", "SESSION_ID = A"),
        cookie("other case", "session_id=A"),
        cookie("prefix of the name", "SESSION_IDX=A; XSESSION_ID=B"),
        cookie("no value", "SESSION_ID"),
        cookie("rubbish", ";;; =;SESSION_ID=A;;"),
        case("two cookie headers").ask(get("Cookie: a=1\r\nCookie: SESSION_ID=B\r\nCookie: c=3\r\n")),
        case("on two connections")
            .send(get(""))
            .reply()
            .another()
            .ask(get("Cookie: SESSION_ID=B\r\n"))
            .logs(2),
        case("later request changes server")
            .send(get("Cookie: SESSION_ID=A\r\n"))
            .reply()
            .ask(get("Cookie: SESSION_ID=B\r\n"))
            .logs(2),
        case("the server's own cookie").ask(get("")).answer(sets).shows("other=1"),
        case("the server's own cookie with a valid one").ask(get("Cookie: SESSION_ID=A\r\n")).answer(sets),
        case("cacheable").ask(get("")).answer(cacheable),
        case("public").ask(get("")).answer(public),
        case("cacheable with a valid cookie").ask(get("Cookie: SESSION_ID=A\r\n")).answer(cacheable),
        case("POST gets one")
            .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .shows("set-cookie"),
        case("404 gets one").ask(get("")).answer("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
        case("304 gets one")
            .ask(get("If-None-Match: x\r\n"))
            .answer("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        case("HEAD gets one").send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe().logs(1),
    ];
    group("cookies", over("", SERVERS), cases)
}

fn cookie_modes() -> Group {
    let servers = |cookie: &str| {
        format!("cookie {cookie}\n server s1 {{ip}}:9001 cookie A\n server s2 {{ip}}:9002 cookie B\n")
    };
    let configuration = super::guide(&format!(
        "listen rewrite\n bind {{ip}}:80\n {}listen prefix\n bind {{ip}}:81\n {}listen insert\n bind {{ip}}:82\n {}listen preserve\n bind {{ip}}:83\n {}listen posts\n bind {{ip}}:84\n {}",
        servers("SID rewrite"),
        servers("SID prefix"),
        servers("SID insert"),
        servers("SID insert preserve indirect httponly secure domain .a.example"),
        servers("SID insert indirect postonly"),
    ));
    let sets = "HTTP/1.1 200 OK\r\nSet-Cookie: SID=app123; path=/x\r\nContent-Length: 2\r\n\r\nok";
    let cases = vec![
        case("rewrite").ask(get("")).answer(sets),
        case("rewrite without the server's").ask(get("")),
        case("rewrite valid").ask(get("Cookie: SID=B\r\n")).answer(sets),
        case("prefix").port(81).ask(get("")).answer(sets).shows("SID=A~app123"),
        case("prefix valid").port(81).ask(get("Cookie: x=1; SID=B~app123; y=2\r\n")),
        case("prefix without ~").port(81).ask(get("Cookie: SID=app123\r\n")),
        case("insert").port(82).ask(get("")).answer(sets),
        case("insert valid is passed on").port(82).ask(get("Cookie: SID=B\r\n")).shows("cookie: SID=B"),
        case("preserve").port(83).ask(get("")).answer(sets),
        case("insert with attributes").port(83).ask(get("")).shows("HttpOnly"),
        case("postonly GET").port(84).ask(get("")),
        case("postonly POST").port(84).ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"),
    ];
    group("cookie-modes", configuration, cases)
}

fn forwarded() -> Group {
    let configuration = super::guide(
        "listen guide\n bind {ip}:80\n server s1 {ip}:9001\n\
         listen named\n bind {ip}:81\n option forwardfor header X-Client if-none\n server s1 {ip}:9001\n\
         ",
    );
    let cases = vec![
        case("another address").ask(get("")).shows("x-forwarded-for: 10.1."),
        case("loopback").loopback().ask(get("")),
        case("there is one").ask(get("X-Forwarded-For: 1.2.3.4\r\n")).shows("1.2.3.4"),
        case("loopback, there is one").loopback().ask(get("X-Forwarded-For: 1.2.3.4\r\n")),
        case("if-none").port(81).ask(get("")).shows("x-client: "),
        case("if-none, there is one").port(81).ask(get("X-Client: 9.9.9.9\r\n")),
        case("each request of a connection").send(get("")).reply().ask(get("")).logs(2),
    ];
    group("forwarded", configuration, cases)
}

fn error_files() -> Group {
    let configuration = super::guide(
        "listen proxy\n bind {ip}:80\n errorfile 400 {dir}/400.http\n errorfile 403 {dir}/403.http\n errorfile 408 {dir}/408.http\n \
         errorfile 500 {dir}/500.http\n errorfile 502 {dir}/502.http\n errorfile 503 {dir}/503.http\n errorfile 504 {dir}/504.http\n \
         timeout server 1s\n timeout http-request 1s\n http-request deny if { path /deny }\n option http-keep-alive\n \
         use_backend none if { path /none }\n use_backend debian if { path /debian }\n server s1 {ip}:9001\n\
         backend none\n errorfile 503 {dir}/500.http\nbackend debian\n errorfile 503 {dir}/debian.http\n",
    );
    let cases = vec![
        case("403").ask("GET /deny HTTP/1.1\r\nHost: a\r\n\r\n").shows("x-file: 403"),
        case("502").ask(get("")).answer("rubbish\r\n\r\n").shows("x-file: 502"),
        case("503 of the back end").ask("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").shows("x-file: 500"),
        case("503 of Debian").send("GET /debian HTTP/1.1\r\nHost: a\r\n\r\n").reply().end().shows("page"),
        case("503 of Debian to HTTP/1.0")
            .send("GET /debian HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .reply()
            .end(),
        case("503 of Debian, then more").ask("GET /debian HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("504").send(get("")).answers([raw("")]).reply().end().shows("x-file: 504"),
        case("408").send("GET / HT").reply().end().shows("cR--"),
        case("400").send("GET / rubbish\r\n\r\n").reply().end().shows("PR--"),
        case("HEAD 403").send("HEAD /deny HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe(),
    ];
    let mut group = group("error-files", configuration, cases);
    group.pooled = true;
    group
}
