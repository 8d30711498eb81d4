//! What is refused, and what a person reads then.

#![allow(clippy::unwrap_used, clippy::panic)] // how a test fails

use crate::proxy::config::{self, Environment, Surroundings};

/// A line of a frontend; part of what is said, with the column.
const REFUSED: &[(&str, &str)] = &[
    (
        "http-request set-headr X y",
        "14|there is no action `http-request set-headr`|did you mean `set-header`?",
    ),
    ("http-request set-header X", "|not complete|a format"),
    ("http-request set-header 'X Y' z", "|`X Y` is no name of a header"),
    ("http-request set-header X \"a\\nb\"", "|cannot hold a line end"),
    ("http-request set-header X %[pth]", "29|there is no fetch `pth`|did you mean `path`?"),
    ("http-request set-header X %[path,lowr]", "34|there is no converter `lowr`|did you mean `lower`?"),
    ("http-request set-header X %[path,lower", "|`]` is missing"),
    ("http-request set-header X %[path(1)]", "|`path`: it takes no argument"),
    ("http-request set-header X %[hdr(a,b)]", "|argument 2: `b` is no integer"),
    ("http-request set-header X %[hdr(a]", "|parenthesis behind `hdr` is not closed"),
    ("http-request set-header X %[src,url_dec,ipmask(33)]", "|argument 1: a mask has at most 32 bits"),
    (
        "http-request set-header X %[bin(41),add(1)]",
        "|`add` takes integer, but what stands before it gives binary",
    ),
    ("http-request set-header X %xy", "27|there is no variable `%xy`|`%%`"),
    ("http-request set-header X %{+Z}ci", "|there is no flag `Z`"),
    ("http-request set-header X %[nbsrv(nobody)]", "|there is no backend `nobody`"),
    ("http-request set-header X %[srv_conn(b/nobody)]", "|there is no server `b/nobody`"),
    ("http-request set-header X %[path,map(none.map)]", "|none.map: "),
    ("http-request set-header X %[ssl_fc_sni]", "|TLS is not supported yet"),
    ("http-request set-header X %[sc0_conn_rate]", "|rate tracking is not supported yet"),
    ("http-request set-header X %[req.body]", "|bodies are not buffered"),
    ("http-request set-header X %[path,hmac(a,b)]", "|cryptography is not supported"),
    ("http-request set-header X %[status,field(0,a)]", "|fields are counted from 1"),
    ("http-request set-header X %[path,regsub([,x)]", "|is no regular expression"),
    ("http-request set-header X '%[path,regsub(a,\"\\2\")]'", "|there is no group \\2"),
    ("http-request set-header X %[date,utime(%Q)]", "|`%Q` is not supported"),
    ("http-request set-header X y if nothing", "|there is no acl `nothing`"),
    ("http-request set-header X y if METH_GTE", "|there is no acl `METH_GTE`|did you mean `METH_GET`?"),
    ("http-request set-header X y if", "|nothing follows `if`"),
    ("http-request set-header X y if or TRUE", "|`or` has nothing before it"),
    ("http-request set-header X y when TRUE", "|`when` is too much"),
    (
        "http-request set-header X y if { path_bge /a }",
        "|there is no fetch `path_bge`|did you mean `path_beg`?",
    ),
    ("http-request set-header X y if { path /a", "|the brace is not closed"),
    ("http-request set-header X y if { path -m rex a }", "|there is no match method `rex`"),
    ("http-request set-header X y if { path -x a }", "|there is no flag `-x`"),
    ("http-request set-header X y if { path -f none.lst }", "|pattern file none.lst"),
    ("http-request set-header X y if { path_len abc }", "|`abc` is no integer"),
    ("http-request set-header X y if { path_len 9:1 }", "|the range is empty"),
    ("http-request set-header X y if { src 10.0.0.0/33 }", "|is no address or network"),
    ("http-request set-header X y if { path_reg (a }", "|is no regular expression"),
    ("http-request set-header X y if { path_reg (?=a) }", "|is no regular expression"),
    ("http-request set-header X y if { bin(41) a }", "|has no method of its own|-m str"),
    ("http-request set-header X y if { http_auth(nobody) }", "|there is no userlist `nobody`"),
    ("http-request set-var(txn.a", "|parenthesis of `set-var` is not closed"),
    ("http-request set-var(foo.a) path", "|has no scope"),
    ("http-request set-var(proc.a) path", "|variables of the process"),
    ("http-request set-var(txn.a,ifnotexists) path", "|conditions of variables are not supported yet"),
    ("http-request set-vra(txn.a) path", "|there is no action"),
    ("http-request set-var(txn.a) status,field(1,a) b", "|`b` is too much"),
    ("http-request redirect", "|the redirection leads nowhere"),
    ("http-request redirect location /x code 404", "|`404` is no status of a redirection"),
    ("http-request redirect location /x sometimes", "|`sometimes` is no part of a redirection"),
    ("http-request deny deny_status 299", "|there is no error text"),
    ("http-request deny status 99", "|`99` is no status"),
    ("http-request return string a", "|the body has no type"),
    ("http-request return content-type a string b lf-string c", "|an answer has one body"),
    ("http-request return errorfiles x", "|http-errors"),
    ("http-request capture path", "|not complete|`len` or `id`"),
    ("http-request capture path len 0", "|at least 1 byte"),
    ("http-request capture path id 3", "|no capture 3 is declared above"),
    ("http-request track-sc0 src", "|rate tracking is not supported yet"),
    ("http-request wait-for-body time 1s", "|bodies are not buffered"),
    ("http-request use-service lua.x", "|there is no service `lua.x`"),
    ("http-request set-log-level loud", "|there is no level `loud`"),
    ("http-request set-status 200", "|belongs to another kind of rule"),
    ("http-response set-header X %[path]", "|`path` has no value here: the request has been sent|set-var"),
    ("http-response auth", "|belongs to another kind of rule"),
    ("http-response set-status 99999", "|is no status"),
    ("http-after-response deny", "|belongs to another kind of rule"),
    ("http-request set-header X %[res.hdr(a)]", "|there is no response yet"),
    ("http-request del-header X -m len", "|cannot be deleted by `-m len`"),
    ("tcp-request content track-sc0 src", "|rate tracking is not supported yet"),
    ("tcp-request connection expect-proxy layer4", "|PROXY protocol is not supported yet"),
    ("acl or path /a", "|cannot be the name of an acl"),
    ("acl a/b path /a", "|may not hold `/`"),
    ("acl a", "|not complete|a criterion"),
];

#[test]
fn what_cannot_be_done_is_refused_with_its_place_and_a_reason() {
    let mut faults = Vec::new();
    for (line, expected) in REFUSED {
        let text = format!(
            "defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nfrontend f\n bind :1\n\
             {line}\nbackend b\n server s 127.0.0.1:1\n"
        );
        let loaded = config::load_bytes("t", text.as_bytes(), Environment::default(), &Surroundings::none());
        let Err(problems) = loaded else {
            faults.push(format!("accepted: {line}"));
            continue;
        };
        let said = problems.to_string();
        let (column, parts) = expected.split_once('|').unwrap();
        if !column.is_empty() && !said.contains(&format!("t:8:{column}: ")) {
            faults.push(format!("{line}\n  not at column {column}: {said}"));
        }
        for part in parts.split('|').filter(|part| !said.contains(part)) {
            faults.push(format!("{line}\n  does not say {part}: {said}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Lists of a hundred thousand patterns are compiled and searched as sets.
#[test]
fn long_lists_are_sets() {
    fn list(path: &std::path::Path, _: u64) -> std::io::Result<Vec<u8>> {
        let name = path.to_str().unwrap();
        let lines = (0..100_000_u32).map(|number| match name {
            "ips" => format!("{}/32\n", core::net::Ipv4Addr::from(number * 7)),
            "numbers" => format!("{}\n", number * 7),
            _ => format!("/some/path/{number}/x\n"),
        });
        Ok(lines.collect::<String>().into_bytes())
    }
    let tests = [
        "path -f texts",
        "path_beg -f texts",
        "path_end -i -f texts",
        "path_sub -f texts",
        "src -f ips",
        "path_len -f numbers",
    ];
    let mut text = String::from("frontend f\n mode http\n timeout client 1s\n bind :1\n");
    for test in tests {
        text.push_str(&format!(" http-request deny if {{ {test} }}\n"));
    }
    let surroundings = Surroundings { read: list, ..Surroundings::none() };
    let config = config::load_bytes("t", text.as_bytes(), Environment::default(), &surroundings).unwrap();
    assert_eq!(config.proxies[0].request_rules.len(), tests.len());
}
