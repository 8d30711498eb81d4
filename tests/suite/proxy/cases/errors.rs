//! Error files of a frontend and of a backend; what else surprised.

use super::super::case::{Act, Group, acts, case, send};
use super::{get, group, guide};

pub(super) fn groups() -> Vec<Group> {
    vec![files(), surprises()]
}

fn files() -> Group {
    let configuration = guide(
        "frontend own\n bind {ip}:80\n errorfile 503 {dir}/503.http\n errorfile 502 {dir}/502.http\n errorfile 504 {dir}/504.http\n \
         http-request deny deny_status 502 if { path /denied }\n http-request return status 503 errorfile {dir}/debian.http if { path /closing }\n use_backend none if { path /none }\n use_backend dead if { path /dead }\n \
         use_backend theirs if { path /theirs }\n default_backend plain\n\
         backend none\n\
         backend dead\n server a {ip}:9009\n\
         backend theirs\n errorfile 503 {dir}/debian.http\n\
         backend plain\n timeout server 300ms\n server s1 {ip}:9001\n",
    );
    let to = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let cases = vec![
        case("no server in the backend").send(to("/none")).reply().probe().shows("x-file: 503"),
        case("a dead server").send(to("/dead")).reply().probe().shows("x-file: 503"),
        case("the backend's own file goes first").send(to("/theirs")).reply().probe().shows("<html>page"),
        case("an answer that is none")
            .send(get(""))
            .reply()
            .end()
            .answer("what\r\n\r\n")
            .shows("x-file: 502"),
        case("no answer").send(get("")).reply().probe().answers([acts([Act::Hold])]).shows("x-file: 504"),
        case("a rule's").send(to("/denied")).reply().probe().shows("x-file: 502"),
        case("a file that ends the connection").send(to("/closing")).reply().end().shows("[closed]"),
    ];
    group("fallback-files", configuration, cases)
}

fn surprises() -> Group {
    let configuration = guide(
        "frontend f\n bind {ip}:80\n http-request set-method PUT if { path /m }\n http-request deny if { method PUT }\n \
         http-response set-header Connection close if { res.hdr(x-last) -m found }\n \
         default_backend b\nbackend b\n server s1 {ip}:9001\n",
    );
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let switched = "HTTP/1.1 101 Sw\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbye";
    let cases = vec![
        case("the method as received").ask("GET /m HTTP/1.1\r\nHost: a\r\n\r\n").shows("PUT /m"),
        case("a rule ends the connection")
            .send(get(""))
            .reply()
            .end()
            .answer("HTTP/1.1 200 OK\r\nX-Last: 1\r\nContent-Length: 2\r\n\r\nok")
            .shows("[closed]"),
        case("the server ends its way of a tunnel")
            .send(upgrade)
            .end()
            .answers([acts([send(switched), Act::HalfClose, Act::Hold])])
            .shows(" 101 "),
    ];
    group("surprises", configuration, cases)
}
