//! The same configuration and the same raw requests through the real haproxy and through `config`, `rules` and
//! `expression`: the answers must be equal byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // how a test fails

mod actions;
mod conditions;
mod expressions;
mod logs;
mod peer;
mod responses;

use peer::{Peer, Request};

/// Requests that every case is tried with.
pub(super) const REQUESTS: &[&str] = &[
    "GET /a/b.html?x=1&y=two&x=3;z=&e HTTP/1.1\r\nHost: www.Example.com:8080\r\nCookie: SEEN=1; B=two; C=\"q;u\"; B=3\r\n\
     X-Forwarded-For: 10.0.0.1, 192.168.1.7,::1\r\nx-forwarded-for: 172.16.0.9:4444\r\nX-List: a, b ,,\"c,d\",e\r\n\
     User-Agent: Mozilla/5.0 (X11; a, b)\r\nAccept-Language: fr;q=0.5, de-AT, en;q=0.8\r\nX-Num:  42abc\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nAuthorization: Basic am9lOnNlY3JldA==\r\nX-Num: -7\r\nX-Empty:\r\n\
     X-List: one\r\nX-Addr: [2001:db8::1]:443\r\nX-Text: Hello \"World\" \\ / {a|b} #1 %41\r\n",
    "GET http://abs.example:81/p/q/?k=v HTTP/1.1\r\nHost: abs.example:81\r\nX-Addr: 10.1.2.3\r\nX-Num: 9223372036854775807\r\n\
     Cookie: a=1,b=2\r\nCookie: SEEN=last\r\nX-Text: caf\u{e9}\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: star\r\nX-Num: 0\r\nX-List: ,\r\nX-Text: a%20b+c?d+e%2\r\nAuthorization: Bearer tok.en\r\n",
    "HEAD /static/img/Logo.PNG HTTP/1.0\r\nX-Num: 12\r\nX-Text: a.b.c_d.e\r\nX-B64: aGVsbG8=\r\nAuthorization: basic am9lOndyb25n\r\n",
    "GET /a//b/../c?q=a%20b&q2=/x?y=1 HTTP/1.1\r\nHost: [::1]:99\r\nX-Text: abc\r\nX-Num: 255\r\nX-Addr: nonsense\r\n\
     X-Many: 1\r\nX-Many: 2\r\nX-Many: 3,4\r\nX-Ip: [2001:db8::2]\r\nX-Language: es-ES;q=0, en\r\nAccept-Language: es-ES;q=0.2, en\r\n",
    "PUT /api/v1/users/5;p=2?id=7 HTTP/1.1\r\nHost: Api.Test\r\nContent-Length: 0\r\nX-Num: 0x1F\r\nX-Addr: ::ffff:1.2.3.4\r\n\
     Cookie: =v; novalue; SEEN=; B = spaced ; B=\r\nX-Text:  \t lead and trail \t \r\n",
];

/// Where ours is another answer on purpose: case, beginning of the request, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("set-query a=1", "OPTIONS *", "`*` is no path: haproxy makes `*?a=1` of it, which no server takes"),
    ("set-query ?a=1", "OPTIONS *", "the same"),
    (
        "{ hdr_val(x-num) -- -7 0 12 }",
        "GET http://abs.example:81/",
        "haproxy reads the sign of `-7` as a range without a lower end; the manual says that it is an integer",
    ),
    (
        "req.fhdr(x-language),language(es;fr;en)",
        "GET /a//b",
        "haproxy stops at a q-factor of 0 instead of dropping that language only, as the manual says",
    ),
];

/// Runs every case with every request through both; all differences at once.
fn compare(peer: &Peer, cases: impl Iterator<Item = (String, String)>) {
    let mut differences = Vec::new();
    let mut count = 0;
    let known = |case: &str, raw: &str| {
        DIFFERENCES.iter().any(|(known, begin, _)| *known == case && raw.starts_with(begin))
    };
    for (key, what) in cases {
        for raw in REQUESTS {
            count += 1;
            let request = Request::new(raw, &key);
            let theirs = peer.ask(&request);
            let ours = peer.ours(&request);
            if known(&what, raw) {
                assert_ne!(theirs, ours, "{what} of {raw:?} is no difference any more");
            } else if theirs != ours {
                let first = raw.lines().next().unwrap_or("");
                differences.push(format!("{what}\n    of {first}\n    haproxy {theirs}\n    ours    {ours}"));
            }
        }
    }
    assert!(count > 100, "{count} cases only");
    assert!(differences.is_empty(), "{} of {count} differ:\n{}", differences.len(), differences.join("\n"));
}

/// A condition that chooses the rules of one case.
fn chosen(key: &str) -> String {
    format!("{{ req.fhdr(x-case) -m str {key} }}")
}

#[test]
fn expressions_have_haproxys_values() {
    let mut lines = String::new();
    for (number, expression) in expressions::EXPRESSIONS.iter().enumerate() {
        let case = chosen(&format!("e{number}"));
        lines.push_str(&format!(
            "  http-request return status 200 content-type text/plain string none if {case} !{{ '{expression}' -m found }}\n  \
             http-request return status 200 content-type text/plain lf-string '[%[{expression}]]' if {case}\n"
        ));
    }
    let peer = Peer::start(&lines);
    compare(
        &peer,
        expressions::EXPRESSIONS.iter().enumerate().map(|(n, e)| (format!("e{n}"), (*e).to_owned())),
    );
}

#[test]
fn conditions_hold_where_haproxys_do() {
    let mut lines = String::from(conditions::ACLS);
    for (number, condition) in conditions::CONDITIONS.iter().enumerate() {
        let case = chosen(&format!("c{number}"));
        lines.push_str(&format!(
            "  http-request set-var(txn.hit) str(yes) if {condition}\n  \
             http-request return status 200 content-type text/plain lf-string '%[var(txn.hit)]' if {case}\n  \
             http-request unset-var(txn.hit)\n"
        ));
    }
    let peer = Peer::start(&lines);
    compare(
        &peer,
        conditions::CONDITIONS.iter().enumerate().map(|(n, c)| (format!("c{n}"), (*c).to_owned())),
    );
}

#[test]
fn actions_change_and_answer_as_haproxys_do() {
    let mut lines = String::new();
    for (number, action) in actions::ACTIONS.iter().enumerate() {
        let case = chosen(&format!("a{number}"));
        for line in action.lines() {
            lines.push_str(&format!("  http-request {line} if {case}\n"));
        }
    }
    lines.push_str(
        "  http-request return status 200 content-type text/plain \
         lf-string '%[method] %[url] %[req.hdrs] %[src] %[src_port] %[var(txn.x)]|%[capture.req.hdr(0)]|%[capture.req.hdr(1)]'\n",
    );
    let peer = Peer::start(&lines);
    compare(&peer, actions::ACTIONS.iter().enumerate().map(|(n, a)| (format!("a{n}"), (*a).to_owned())));
}

#[test]
fn response_rules_change_answers_as_haproxys_do() {
    let mut lines = String::from("  http-request set-var(txn.case) req.fhdr(x-case)\n");
    for (number, rules) in responses::RULES.iter().enumerate() {
        for line in rules.lines() {
            lines.push_str(&format!("  {line} if {{ var(txn.case) -m str r{number} }}\n"));
        }
    }
    lines.push_str("  use_backend origin if { req.fhdr(x-case) -m beg r }\n");
    let headers: String =
        peer::ORIGIN.iter().take(4).map(|(name, value)| format!(" hdr {name} \"{value}\"")).collect();
    let sections = format!(
        "backend origin\n  server one unix@DIR/origin\nlisten inside\n  bind unix@DIR/origin\n  \
         http-request return status 200 content-type text/plain string hello{headers}\n"
    );
    let peer = Peer::start_with(&lines, "", &sections);
    compare(&peer, responses::RULES.iter().enumerate().map(|(n, a)| (format!("r{n}"), (*a).to_owned())));
}

#[test]
fn error_texts_are_haproxys_to_the_byte() {
    let statuses =
        [200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504];
    let mut lines = String::new();
    for status in statuses {
        let case = chosen(&format!("s{status}"));
        lines.push_str(&format!("  http-request return status {status} default-errorfiles if {case}\n"));
    }
    let peer = Peer::start(&lines);
    compare(&peer, statuses.iter().map(|status| (format!("s{status}"), status.to_string())));
}
