//! Servers that are dead, slow or go away; clients that do; timeouts.

use super::super::case::{Act, Answer, Group, When, acts, case, ok, raw, send};
use super::{get, group, guide, over};

pub(super) fn groups() -> Vec<Group> {
    vec![dead(), dead_down(), slow_connect(), timeouts(), server_aborts(), client_aborts()]
}

fn dead() -> Group {
    let configuration = guide(
        "listen guide\n bind {ip}:80\n balance roundrobin\n cookie SESSION_ID insert indirect nocache\n server web1 {ip}:9009 cookie A\n server web2 {ip}:9002 cookie B\n\
         listen both\n bind {ip}:81\n server a {ip}:9009\n server b {ip}:9008\n\
         listen one\n bind {ip}:82\n server a {ip}:9009\n\
         listen stay\n bind {ip}:83\n no option redispatch\n cookie S insert indirect\n server a {ip}:9009 cookie A\n server b {ip}:9002 cookie B\n\
         listen once\n bind {ip}:84\n retries 0\n server a {ip}:9009\n\
         listen every\n bind {ip}:85\n option redispatch 1\n retries 2\n cookie S insert\n server a {ip}:9009 cookie A\n server b {ip}:9002 cookie B\n",
    );
    let cases = vec![
        case("not sticky").ask(get("")).shows("/+1 "),
        case("sticky, dead").ask(get("Cookie: SESSION_ID=A\r\n")).shows("/+3 ").shows("--DI"),
        case("sticky, alive").ask(get("Cookie: SESSION_ID=B\r\n")).shows("--VN"),
        case("both dead").port(81).ask(get("")).shows(" 503 ").shows("SC"),
        case("one dead").port(82).ask(get("")).shows(" 503 "),
        case("post to a dead server")
            .port(82)
            .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        case("no redispatch").port(83).ask(get("Cookie: S=A\r\n")).shows(" 503 "),
        case("no retries").port(84).ask(get("")).shows(" 503 "),
        case("redispatch at every retry").port(85).ask(get("Cookie: S=A\r\n")),
    ];
    group("dead", configuration, cases)
}

fn dead_down() -> Group {
    let configuration = guide(
        "listen none\n bind {ip}:80\n server a {ip}:9001 disabled\n server b {ip}:9002 disabled\n\
         listen empty\n bind {ip}:81\n\
         listen backup\n bind {ip}:82\n server a {ip}:9001 disabled\n server b {ip}:9002 backup\n server c {ip}:9003 backup\n\
         listen allbackups\n bind {ip}:83\n option allbackups\n server a {ip}:9001 disabled\n server b {ip}:9002 backup\n server c {ip}:9003 backup\n\
         listen sticky\n bind {ip}:84\n cookie S insert indirect\n server a {ip}:9001 disabled cookie A\n server b {ip}:9002 cookie B\n\
         listen persist\n bind {ip}:85\n option persist\n retries 1\n cookie S insert indirect\n server a {ip}:9009 disabled cookie A\n server b {ip}:9002 cookie B\n",
    );
    let cases = vec![
        case("all down").ask(get("")).shows("<NOSRV>").shows(" 503 "),
        case("no servers").port(81).ask(get("")).shows("<NOSRV>"),
        case("head, all down").send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe(),
        case("post, all down").ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        case("first backup").port(82).send(get("")).reply().ask(get("")).logs(2),
        case("all backups").port(83).send(get("")).reply().ask(get("")).logs(2),
        case("sticky to a disabled server").port(84).ask(get("Cookie: S=A\r\n")).shows("--DI"),
        case("option persist").port(85).ask(get("Cookie: S=A\r\n")),
    ];
    group("down", configuration, cases)
}

fn slow_connect() -> Group {
    let configuration = over("", "timeout connect 1s\nretries 1\nserver s1 10.99.0.1:80");
    let cases = vec![case("no answer to SYN").ask(get("")).shows(" 503 ").shows("sC")];
    group("slow-connect", configuration, cases)
}

fn timeouts() -> Group {
    let configuration = guide(
        "listen short\n bind {ip}:80\n timeout client 1s\n timeout server 1s\n timeout http-keep-alive 1s\n timeout http-request 2s\n server s1 {ip}:9001\n\
         listen slowclient\n bind {ip}:81\n timeout client 1s\n server s1 {ip}:9001\n\
         listen tunnels\n bind {ip}:82\n timeout client 1s\n timeout server 1s\n timeout tunnel 2s\n server s1 {ip}:9001\n",
    );
    let holding = || [acts([Act::Hold])];
    let half = || [acts([send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Act::Hold])];
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let cases = vec![
        case("504").send(get("")).reply().probe().answers(holding()).shows(" 504 ").shows("sH--"),
        case("half a request").send("GET / HTTP/1.1\r\nHo").reply().end().shows(" 408 ").shows("cR--"),
        case("nothing").end().logs(0).shows("[closed]"),
        case("keep-alive runs out").send(get("")).reply().end().shows("[closed]"),
        case("half a second request").send(get("") + "GET /2 H").reply().reply().end().logs(2).shows("cR--"),
        case("body that does not come")
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
            .reply()
            .end()
            .shows("sH--"),
        case("response that stops").send(get("")).answers(half()).reply().end().shows("sD--"),
        case("head of a response that stops")
            .send(get(""))
            .answers([acts([send("HTTP/1.1 200 OK\r\nX: "), Act::Hold])])
            .reply()
            .probe()
            .shows(" 504 "),
        case("no http-request timeout").port(81).send("GET / HTTP/1.1\r\nHo").reply().end().shows("cR--"),
        case("tunnel runs out").port(82).send(upgrade).end().answers([Answer {
            when: When::Head,
            acts: vec![send("HTTP/1.1 101 Sw\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), Act::Hold],
        }]),
    ];
    group("timeouts", configuration, cases)
}

fn server_aborts() -> Group {
    let cut = |name: &'static str, last: Act, bytes: &str| {
        let acts = acts([send(bytes), last]);
        case(name).send(get("")).answers([acts, ok("probe")]).reply().probe()
    };
    let cases = vec![
        cut("closes without a word", Act::Close, "").shows(" 502 ").shows("SH--"),
        cut("resets without a word", Act::Reset, "").shows(" 502 "),
        cut("closes in the head", Act::Close, "HTTP/1.1 200 OK\r\nX").shows(" 502 "),
        cut("closes in the body", Act::Close, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .shows("SD--"),
        cut("closes in a chunk", Act::Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha")
            .shows("SD--"),
        cut(
            "half-closes after the response",
            Act::HalfClose,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        case("closes while the body comes")
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
            .reply()
            .end()
            .answers([Answer { when: When::Head, acts: vec![Act::Await("half"), Act::Close] }])
            .shows("SH--"),
    ];
    group("server-aborts", over("", "server s1 {ip}:9001"), cases)
}

fn client_aborts() -> Group {
    let configuration = guide(
        "listen plain\n bind {ip}:80\n server s1 {ip}:9001\n\
         listen abort\n bind {ip}:81\n option abortonclose\n server s1 {ip}:9001\n\
         listen connecting\n bind {ip}:82\n option abortonclose\n server s1 10.99.0.1:80\n\
         listen logged\n bind {ip}:83\n no option dontlognull\n server s1 {ip}:9001\n",
    );
    let after = |milliseconds| {
        [acts([Act::Pause(milliseconds), send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")])]
    };
    let endless = || {
        [acts([
            send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            Act::Pause(600),
            send("more"),
            Act::Pause(300),
            send("x"),
            Act::Hold,
        ])]
    };
    let cases = vec![
        case("closes in the head").send("GET / HTTP/1.1\r\nHo").pause(50).close().shows("CR--"),
        case("resets in the head").send("GET / HTTP/1.1\r\nHo").pause(50).reset().shows("CR--"),
        case("resets while the server works").send(get("")).arrived("GET /").reset().answers(after(100)),
        case("abortonclose, closes while the server works")
            .port(81)
            .send(get(""))
            .arrived("GET /")
            .close()
            .answers([acts([Act::Hold])])
            .shows("CH--"),
        case("abortonclose, resets while the server works")
            .port(81)
            .send(get(""))
            .arrived("GET /")
            .reset()
            .answers([acts([Act::Hold])])
            .shows("CD--"),
        case("closes while connecting").port(82).send(get("")).pause(100).close().shows("CC--"),
        case("resets in the response").send(get("")).until("half").reset().answers(endless()).shows("CD--"),
        case("closes in the response").send(get("")).until("half").close().answers(endless()).shows("CD--"),
        case("closes in the request's body")
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
            .arrived("half")
            .close()
            .answers([Answer { when: When::Head, acts: vec![Act::Hold] }])
            .shows("CD--"),
        case("resets in the request's body")
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
            .arrived("half")
            .reset()
            .answers([Answer { when: When::Head, acts: vec![Act::Hold] }]),
        case("dontlognull off").port(83).close().shows("BADREQ"),
        case("answered before the abort")
            .send(get(""))
            .reply()
            .reset()
            .answers([raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]),
    ];
    group("client-aborts", configuration, cases)
}
