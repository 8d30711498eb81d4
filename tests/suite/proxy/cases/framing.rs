//! Where messages end: lengths, chunks, trailers, interim responses, upgrades.

use super::super::case::{Act, Answer, Group, When, acts, case, ok, raw, send};
use super::{get, group, over};

const SERVERS: &str = "server s1 {ip}:9001";

pub(super) fn groups() -> Vec<Group> {
    vec![requests(), responses(), interim(), tunnels()]
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}")
}

fn requests() -> Group {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let big = "x".repeat(300_000);
    let cases = vec![
        case("post").ask(post("Content-Length: 5\r\n", "hello")),
        case("post of nothing").ask(post("Content-Length: 0\r\n", "")),
        case("post without a length").ask(post("", "")),
        case("post, body later").send(post("Content-Length: 5\r\n", "")).pause(30).ask("hello"),
        case("post in pieces")
            .send(post("Content-Length: 5\r\n", "he"))
            .pause(20)
            .send("l")
            .pause(20)
            .ask("lo"),
        case("post, then get")
            .send(post("Content-Length: 5\r\n", "hello") + &get(""))
            .reply()
            .ask("")
            .logs(2),
        case("big post").ask(post("Content-Length: 300000\r\n", &big)).shows("times x>"),
        case("chunked").ask(chunked("5\r\nhello\r\n0\r\n\r\n")).shows("<chunked>hello"),
        case("chunks in pieces")
            .send(chunked("5\r\nhe"))
            .pause(20)
            .send("llo\r")
            .pause(20)
            .send("\n3\r\n123\r\n0\r")
            .pause(20)
            .ask("\n\r\n"),
        case("chunked, then get").send(chunked("5\r\nhello\r\n0\r\n\r\n") + &get("")).reply().ask("").logs(2),
        case("chunk extensions").ask(chunked("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n")),
        case("request trailers")
            .ask(chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"))
            .shows("x-sum: 1"),
        case("upper-case hex and zeros").ask(chunked("000A\r\n0123456789\r\n00\r\n\r\n")),
        case("big chunks").ask(chunked(&format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len()))),
        case("get with a body").ask("GET /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        case("delete with a chunked body")
            .ask("DELETE /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        case("early answer")
            .send(post("Content-Length: 100000\r\n", "begin"))
            .reply()
            .answers([Answer {
                when: When::Head,
                acts: vec![
                    send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"),
                    Act::Hold,
                ],
            }])
            .close()
            .shows(" 413 "),
        case("equal lengths twice").ask(post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        case("lengths in a list").ask(post("Content-Length: 5, 5\r\n", "hello")),
        case("HTTP/1.0 post").send("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab").reply().end(),
    ];
    group("requests", over("", SERVERS), cases)
}

fn responses() -> Group {
    let head =
        |name: &'static str| case(name).send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe();
    let closing = |bytes: &str| [acts([send(bytes), Act::Close]), ok("probe")];
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n{}", "y".repeat(400_000));
    let old = |headers: &str| format!("GET /old HTTP/1.0\r\n{headers}\r\n");
    let chunks =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let cases = vec![
        head("head").answers([raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"), ok("probe")]).shows("content-length: 1234"),
        head("head chunked").answers([raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), ok("probe")]),
        head("head without a length").answers([raw("HTTP/1.1 200 OK\r\n\r\n"), ok("probe")]),
        case("204").ask(get("")).answers([raw("HTTP/1.1 204 No Content\r\n\r\n"), ok("probe")]),
        case("204 with a length").ask(get("")).answers([raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"), ok("probe")]),
        case("304 with a length").ask(get("")).answers([raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"), ok("probe")]),
        case("empty body").ask(get("")).answers([raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), ok("probe")]),
        case("chunked response").ask(get("")).answers([raw(chunks), ok("probe")]).shows("<chunked>hello world"),
        case("response trailers").ask(get("")).answers([raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n1\r\na\r\n0\r\nX: 1\r\n\r\n"), ok("probe")]),
        case("chunks later").ask(get("")).answers([
            acts([send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"), Act::Pause(20), send("llo\r\n"), Act::Pause(20), send("0\r\n\r\n")]),
            ok("probe"),
        ]),
        case("body until close").send(get("")).answers(closing("HTTP/1.1 200 OK\r\n\r\nall until the end")).reply().end(),
        case("body until close, HTTP/1.0 server").send(get("")).answers(closing("HTTP/1.0 200 OK\r\n\r\nall until the end")).reply().end(),
        case("HTTP/1.0 server with a length").ask(get("")).answers(closing("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")),
        case("big response").ask(get("")).answers([raw(big), ok("probe")]).shows("times y>"),
        case("response in pieces").ask(get("")).answers([
            acts([send("HT"), Act::Pause(20), send("TP/1.1 200 OK\r\nContent-"), Act::Pause(20), send("Length: 4\r\n\r\nab"), Act::Pause(20), send("cd")]),
            ok("probe"),
        ]),
        case("TE and length in a response").send(get("")).answers([raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"), ok("probe")]).reply().probe(),
        case("HTTP/1.0 client").send(old("")).reply().end(),
        case("HTTP/1.0 client, keep-alive").ask(old("Connection: keep-alive\r\n")),
        case("HTTP/1.0 client, chunked response").send(old("")).answers([raw(chunks)]).reply().end(),
        case("HTTP/1.0 client with a host").send(old("Host: x\r\n")).reply().end(),
        case("more bytes than the length").send(get("")).answers(closing("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokTOO MUCH")).reply().probe(),
    ];
    group("responses", over("", SERVERS), cases)
}

fn interim() -> Group {
    let expecting = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n{body}")
    };
    let continuing = |last: &str| {
        [
            Answer {
                when: When::Head,
                acts: vec![send("HTTP/1.1 100 Continue\r\n\r\n"), Act::Await("hello"), send(last)],
            },
            ok("probe"),
        ]
    };
    let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let cases = vec![
        case("100-continue")
            .send(expecting(""))
            .until("100 Continue\r\n\r\n")
            .ask("hello")
            .answers(continuing(fine))
            .shows("100 Continue"),
        case("100-continue, not waited for")
            .send(expecting("hello"))
            .reply()
            .probe()
            .answers(continuing(fine)),
        case("expectation refused").send(expecting("")).reply().close().answers([Answer {
            when: When::Head,
            acts: vec![send("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), Act::Close],
        }]),
        case("early hints")
            .ask(get(""))
            .answers([raw(format!("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n{fine}")), ok("probe")])
            .shows("103 Early"),
        case("102, then 103").ask(get("")).answers([
            raw(format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{fine}")),
            ok("probe"),
        ]),
        case("100 that nobody asked for")
            .ask(get(""))
            .answers([raw(format!("HTTP/1.1 100 Continue\r\n\r\n{fine}")), ok("probe")]),
        case("1xx to HTTP/1.0")
            .send("GET / HTTP/1.0\r\n\r\n")
            .answers([raw(format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{fine}"))])
            .reply()
            .end(),
    ];
    group("interim", over("", SERVERS), cases)
}

fn tunnels() -> Group {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let echo = |head: &str| {
        [Answer {
            when: When::Head,
            acts: vec![send(head), Act::Await("ping"), send("pong"), Act::Await("bye"), Act::Close],
        }]
    };
    let connect = "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n";
    let cases = vec![
        case("websocket")
            .send(upgrade)
            .until("\r\n\r\n")
            .send("ping")
            .until("pong")
            .send("bye")
            .end()
            .answers(echo(switching))
            .shows(" 101 "),
        case("websocket with bytes behind the head")
            .send(format!("{upgrade}ping"))
            .until("pong")
            .send("bye")
            .end()
            .answers(echo(switching)),
        case("websocket, server talks at once")
            .send(upgrade)
            .until("\r\n\r\nping?")
            .send("ping")
            .until("pong")
            .send("bye")
            .end()
            .answers(echo(&format!("{switching}ping?"))),
        case("websocket refused")
            .ask(upgrade)
            .answers([raw("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"), ok("probe")]),
        case("websocket, client goes")
            .send(upgrade)
            .until("\r\n\r\n")
            .send("ping")
            .until("pong")
            .close()
            .answers(echo(switching)),
        case("websocket, client half-closes")
            .send(upgrade)
            .until("\r\n\r\n")
            .send("ping")
            .until("pong")
            .half_close()
            .end()
            .answers(echo(switching)),
        case("connect")
            .send(connect)
            .until("\r\n\r\n")
            .send("ping")
            .until("pong")
            .send("bye")
            .end()
            .answers(echo("HTTP/1.1 200 OK\r\n\r\n")),
        case("connect refused")
            .send(connect)
            .reply()
            .probe()
            .answers([raw("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n"), ok("probe")]),
    ];
    group("tunnels", over("timeout tunnel 5s", SERVERS), cases)
}
