//! The forms. Each hides `GET /smuggled` where one reader sees a body and another sees the next request.

/// One of them.
pub(super) struct Form {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Request lines that a server sees, in order. None: refused.
    pub(super) seen: Vec<&'static str>,
    /// The fault is in the body: the head has been sent on when it is found.
    pub(super) breaks_off: bool,
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";
const A: &str = "POST /a HTTP/1.1";

fn form(name: String, bytes: Vec<u8>, seen: &[&'static str]) -> Form {
    Form { name, bytes, seen: seen.to_vec(), breaks_off: false }
}

/// A POST with these fields and this body.
fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /a HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n", body].concat()
}

/// The hidden request in a chunk, or all of it as chunks say.
fn chunked_smuggled() -> String {
    format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())
}

fn named(what: &str, detail: &[u8]) -> String {
    format!("{what}: {}", detail.escape_ascii())
}

pub(super) fn all() -> Vec<Form> {
    [lengths(), codings(), both(), hidden_fields(), start_lines(), chunks(), hops(), plain()]
        .into_iter()
        .flatten()
        .collect()
}

/// Requests that mean the same to everybody.
fn plain() -> Vec<Form> {
    let length = SMUGGLED.len();
    let seen = [A];
    let both = [A, "GET /smuggled HTTP/1.1"];
    vec![
        form(
            "in the body".into(),
            post(format!("Content-Length: {length}\r\n").as_bytes(), SMUGGLED.as_bytes()),
            &seen,
        ),
        form(
            "in a chunk".into(),
            post(b"Transfer-Encoding: chunked\r\n", chunked_smuggled().as_bytes()),
            &seen,
        ),
        form("pipelined".into(), post(b"Content-Length: 0\r\n", SMUGGLED.as_bytes()), &both),
        form("pipelined without a length".into(), post(b"", SMUGGLED.as_bytes()), &both),
        form(
            "pipelined behind chunks".into(),
            post(b"Transfer-Encoding: chunked\r\n", format!("0\r\n\r\n{SMUGGLED}").as_bytes()),
            &both,
        ),
        form(
            "in the body of a GET".into(),
            format!("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}").into_bytes(),
            &["GET /a HTTP/1.1"],
        ),
        form(
            "in the body of a HEAD".into(),
            format!("HEAD /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}").into_bytes(),
            &["HEAD /a HTTP/1.1"],
        ),
        form(
            "behind an unfulfilled expectation".into(),
            post(
                format!("Expect: 100-continue\r\nContent-Length: {length}\r\n").as_bytes(),
                SMUGGLED.as_bytes(),
            ),
            &seen,
        ),
    ]
}

fn lengths() -> Vec<Form> {
    let mut forms = Vec::new();
    for value in [
        "+3",
        "-3",
        "0x3",
        "3.0",
        "3;",
        "3 3",
        "\"3\"",
        ",3",
        "3,",
        "3,,3",
        "3,4",
        "",
        " ",
        "\x0b3",
        "3\x0b",
        "\x0c3",
        "3e0",
        "03x",
        "9223372036854775808",
        "18446744073709551616",
        "18446744073709551619",
        "340282366920938463463374607431768211459",
        "3\r\nContent-Length: 0",
        "0\r\nContent-Length: 3",
        "3\r\nContent-Length: 4",
        "3\r\nContent-Length: 3, 4",
        "3\r\ncontent-LENGTH:\t4",
        "0\r\nX: y\r\nContent-Length: 39",
        "\r\nContent-Length: 3",
        "3\r\nContent-Length:",
    ] {
        let fields = format!("Content-Length: {value}\r\n");
        forms.push(form(
            named("length", value.as_bytes()),
            post(fields.as_bytes(), format!("abc{SMUGGLED}").as_bytes()),
            &[],
        ));
    }
    for value in [
        "3",
        "03",
        "3, 3",
        "3\r\nContent-Length: 3",
        "3\r\nContent-Length: 003",
        "0000000000000000000000000003",
    ] {
        let fields = format!("Content-Length: {value}\r\n");
        let bytes = post(fields.as_bytes(), format!("abc{SMUGGLED}").as_bytes());
        forms.push(form(named("length", value.as_bytes()), bytes, &[A, "GET /smuggled HTTP/1.1"]));
    }
    forms
}

fn codings() -> Vec<Form> {
    let mut forms = Vec::new();
    for value in [
        &b"xchunked"[..],
        b"chunked, chunked",
        b"chunked, identity",
        b"identity",
        b"identity, chunked",
        b"gzip, chunked",
        b"chunked, gzip",
        b"\"chunked\"",
        b"'chunked'",
        b"chunked;q=1",
        b"chunked;",
        b"chunk ed",
        b"gzip chunked",
        b"\x0bchunked",
        b"chunked\x0b",
        b"\x0cchunked",
        b"\x08chunked",
        b"chunked\x00",
        b"\x00chunked",
        b"\xa0chunked",
        b"\xffchunked",
        b"chunke\xc4\x91",
        b"cow",
        b"",
        b"chunked\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: identity",
        b"identity\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-encoding: cow",
        b"x\r\nTransfer-Encoding: chunked",
        b"\r\n chunked",
        b"\r\n\tchunked",
        b"chunked\r\n , identity",
        b"chunked\n",
        b"\nchunked",
        b"\rchunked",
        b"chunked\r",
        b"{chunked}",
        b"chunked-",
        b"chunked, , x",
        b"trailers, chunked",
    ] {
        let fields = [b"Content-Length: 5\r\nTransfer-Encoding: ", value, b"\r\n"].concat();
        let body = format!("0\r\n\r\n{SMUGGLED}");
        forms.push(form(named("coding beside a length", value), post(&fields, body.as_bytes()), &[]));
        let fields = [b"Transfer-Encoding: ", value, b"\r\n"].concat();
        forms.push(form(named("coding", value), post(&fields, body.as_bytes()), &[]));
    }
    for value in [
        "chunked",
        "Chunked",
        "cHuNkEd",
        "chunked,",
        ", chunked",
        "\tchunked\t",
        "chunked\r\nTransfer-Encoding:",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        let bytes = post(fields.as_bytes(), format!("0\r\n\r\n{SMUGGLED}").as_bytes());
        forms.push(form(named("coding", value.as_bytes()), bytes, &[A, "GET /smuggled HTTP/1.1"]));
    }
    forms
}

/// Content-Length and Transfer-Encoding: the latter wins, and the connection ends.
fn both() -> Vec<Form> {
    let mut forms = Vec::new();
    for (name, fields) in [
        ("length, coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("coding, length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("coding, long length", "Transfer-Encoding: chunked\r\nContent-Length: 44\r\n"),
        ("length twice, coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("odd case", "CONTENT-LENGTH: 5\r\ntRANSFER-eNCODING: chunKED\r\n"),
    ] {
        forms.push(form(
            name.into(),
            post(fields.as_bytes(), format!("0\r\n\r\n{SMUGGLED}").as_bytes()),
            &[A],
        ));
        let hidden = post(fields.as_bytes(), chunked_smuggled().as_bytes());
        forms.push(form(format!("{name}, hidden in a chunk"), hidden, &[A]));
    }
    forms
}

/// Fields that one reader sees and another does not.
fn hidden_fields() -> Vec<Form> {
    let mut forms = Vec::new();
    for line in [
        &b"Transfer-Encoding : chunked\r\n"[..],
        b"Transfer-Encoding\t: chunked\r\n",
        b"Transfer-Encoding\x0b: chunked\r\n",
        b"Transfer-Encoding\x00: chunked\r\n",
        b"Transfer-Encoding\xa0: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"\tTransfer-Encoding: chunked\r\n",
        b"\x0bTransfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"X: y\r\n\rTransfer-Encoding: chunked\r\n",
        b"X: y\x00\nTransfer-Encoding: chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"X:\r\n\tTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding\r\n: chunked\r\n",
        b"Transfer-Encoding\n: chunked\r\n",
        b"Transfer-Encoding chunked\r\n",
        b"Transfer Encoding: chunked\r\n",
        b": chunked\r\n",
        b"(Transfer-Encoding): chunked\r\n",
        b"Transfer-Encoding\\: chunked\r\n",
        b"X: y\r\r\nTransfer-Encoding: chunked\r\n",
        b"X: y\n\r\n",
        b"X: y\r\n\n",
        b"\nTransfer-Encoding: chunked\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length\x00: 3\r\n",
        b"Content-Length\r\n: 3\r\n",
        b" Content-Length: 3\r\n",
        b"X: y\rContent-Length: 3\r\n",
        b"X: y\nContent-Length: 3\r\n",
        b"Host : evil\r\n",
        b"Host: evil\r\n",
        b"X: y\x00Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r",
        b"@: y\r\n",
        b"X[]: y\r\n",
        b"X/Y: z\r\n",
        b"\xef\xbb\xbfX: y\r\n",
    ] {
        let fields = [b"Content-Length: 5\r\n", line].concat();
        forms.push(form(
            named("hidden field", line),
            post(&fields, format!("0\r\n\r\n{SMUGGLED}").as_bytes()),
            &[],
        ));
    }
    for line in [
        "Transfer_Encoding: chunked\r\n",
        "Transfer.Encoding: chunked\r\n",
        "X-Transfer-Encoding: chunked\r\n",
        "Transfer-Encodings: chunked\r\n",
        "Content_Length: 99\r\n",
    ] {
        let fields = format!("Content-Length: 5\r\n{line}");
        forms.push(form(
            named("another field", line.as_bytes()),
            post(fields.as_bytes(), b"0\r\n\r\n"),
            &[A],
        ));
    }
    forms
}

fn start_lines() -> Vec<Form> {
    let mut forms = Vec::new();
    for line in [
        &b"POST /a HTTP/1.1 \r\n"[..],
        b"POST /a HTTP/1.1\n",
        b"POST /a\r\n",
        b"POST\r\n",
        b" POST /a HTTP/1.1\r\n",
        b"POST /a HTTP/1.10\r\n",
        b"POST /a HTTP/1.2\r\n",
        b"POST /a HTTP/0.9\r\n",
        b"POST /a HTTP/2.0\r\n",
        b"POST /a http/1.1\r\n",
        b"POST /a HTTP/1.1\rX\r\n",
        b"POST /a b HTTP/1.1\r\n",
        b"POST /a\x00 HTTP/1.1\r\n",
        b"POST /a\x0b HTTP/1.1\r\n",
        b"POST /a\xa0b HTTP/1.1\r\n",
        b"POST /a#b HTTP/1.1\r\n",
        b"POST a HTTP/1.1\r\n",
        b"PO ST /a HTTP/1.1\r\n",
        b"PO\x00ST /a HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\x00\r\n",
        b"\nPOST /a HTTP/1.1\r\n",
        b"\rPOST /a HTTP/1.1\r\n",
        b"POST http://evil/a HTTP/1.1\r\n",
        b"POST http://h:81/a HTTP/1.1\r\n",
        b"POST http://h?/a HTTP/1.1\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\n",
        b"POST \r\n",
        b"POST /a HTTP/1.1 HTTP/1.1\r\n",
        b"POST /a HTTP/1,1\r\n",
        b"POST /a XTTP/1.1\r\n",
        b"POST /a HTTP/1.1;\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"POST /a\r GET /smuggled HTTP/1.1\r\n",
    ] {
        let bytes = [line, b"Host: h\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", SMUGGLED.as_bytes()].concat();
        forms.push(form(named("start line", line), bytes, &[]));
    }
    for line in ["\r\nPOST /a HTTP/1.1\r\n", "\r\n\r\n\r\nPOST /a HTTP/1.1\r\n"] {
        let bytes = format!("{line}Host: h\r\nContent-Length: 5\r\n\r\n0\r\n\r\n").into_bytes();
        forms.push(form(named("start line", line.as_bytes()), bytes, &[A]));
    }
    let old =
        |fields: &str| format!("POST /a HTTP/1.0\r\nHost: h\r\n{fields}\r\n0\r\n\r\n{SMUGGLED}").into_bytes();
    forms.push(form(
        "HTTP/1.0 with chunks".into(),
        old("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"),
        &[],
    ));
    forms.push(form(
        "HTTP/1.0 with both".into(),
        old("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        &[],
    ));
    forms.push(form("HTTP/1.0, and more".into(), old("Content-Length: 5\r\n"), &["POST /a HTTP/1.0"]));
    forms.push(form(
        "no Host".into(),
        format!("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}").into_bytes(),
        &[],
    ));
    forms
}

fn chunks() -> Vec<Form> {
    let mut forms = Vec::new();
    let head = b"Transfer-Encoding: chunked\r\n";
    for body in [
        &b"3\nabc\n0\n\n"[..],
        b"3\r\nabc\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabcXX0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b"3 3\r\nabc\r\n0\r\n\r\n",
        b"3,\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"3\x00\r\nabc\r\n0\r\n\r\n",
        b"3\x0b\r\nabc\r\n0\r\n\r\n",
        b"\xc2\xa03\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"fffffffffffffffe\r\nabc\r\n0\r\n\r\n",
        b"8000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n",
        b"3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
        b"3;\x00\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\r\n",
        b"3\r\nabc\r\n0\r\n\n",
        b"3\r\nabc\r\n0\r\n\rX\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        b"3\r\nabc\r\n0\r\n X: y\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\rZ: z\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n",
        b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
    ] {
        let bytes = post(head, &[body, SMUGGLED.as_bytes()].concat());
        // What the server sees depends on when the fault arrives: nothing, or a request that never ends.
        forms.push(Form { breaks_off: true, ..form(named("chunks", body), bytes, &[]) });
    }
    for body in [
        &b"3\r\nabc\r\n0\r\n\r\n"[..],
        b"003\r\nabc\r\n000\r\n\r\n",
        b"3;x\r\nabc\r\n0;y\r\n\r\n",
        b"3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n",
        b"3 ; x\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\t\r\n\r\n",
        b"3;\xe9\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\r\nZ: GET /smuggled HTTP/1.1\r\n\r\n",
        b"00000000000000000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3;0\r\nabc\r\n0\r\n\r\n",
        b"3;ffffffff\r\nabc\r\n0\r\n\r\n",
        b"2\r\n\r\n\r\n0\r\n\r\n",
        b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    ] {
        let bytes = post(head, &[body, SMUGGLED.as_bytes()].concat());
        forms.push(form(named("chunks", body), bytes, &[A, "GET /smuggled HTTP/1.1"]));
    }
    forms
}

/// Fields about one hop that name the framing, and upgrades that do not happen.
fn hops() -> Vec<Form> {
    let mut forms = Vec::new();
    let length = SMUGGLED.len();
    for line in [
        "Connection: Content-Length\r\n",
        "Connection: keep-alive, Content-Length\r\n",
        "Connection: Host\r\n",
        "Connection: Transfer-Encoding, X\r\n",
        "Proxy-Connection: Content-Length\r\n",
        "Keep-Alive: Content-Length\r\n",
        "TE: chunked\r\n",
        "TE: trailers, chunked\r\n",
        "Trailer: Content-Length\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: websocket\r\n",
        "Content-Encoding: chunked\r\n",
        "X-HTTP-Method-Override: GET\r\n",
    ] {
        let fields = format!("{line}Content-Length: {length}\r\n");
        forms.push(form(named("hop", line.as_bytes()), post(fields.as_bytes(), SMUGGLED.as_bytes()), &[A]));
    }
    for upgrade in [
        "websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "foo",
        "h2c",
    ] {
        let head = format!("GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        // No 101 comes, so what follows is the next request, to the proxy and to the server.
        let bytes = format!("{head}{SMUGGLED}").into_bytes();
        forms.push(form(
            named("upgrade", upgrade.as_bytes()),
            bytes,
            &["GET /a HTTP/1.1", "GET /smuggled HTTP/1.1"],
        ));
    }
    let no_key =
        format!("GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}");
    forms.push(form("websocket without a key".into(), no_key.into_bytes(), &[]));
    forms
}
