//! acl, use_backend, http-request, http-response, authentication, stickiness, balance.

use super::super::case::{Group, case, ok, raw};
use super::{get, group, guide, over};

pub(super) fn groups() -> Vec<Group> {
    vec![routing(), requests(), responses(), framing(), content(), content_of_tcp(), long_lines(), balance()]
}

fn path(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

fn routing() -> Group {
    let configuration = guide(
        "frontend proxy\n bind {ip}:80\n acl static path_beg /static /img\n acl png path_end -i .png .jpg\n acl post method POST PUT\n acl api hdr(host) -i api.example\n \
           acl local src 127.0.0.0/8\n acl www hdr_beg(host) www.\n acl re path_reg ^/re[0-9]+$\n acl q url_param(x) 1\n acl many hdr_cnt(x) gt 1\n acl sub path_sub needle\n acl dir path_dir deep\n acl dom hdr_dom(host) dom.example\n \
           acl len path_len ge 60\n acl ck cook(kind) special\n \
           use_backend two if static or png\n use_backend two if post !api\n use_backend three if api\n use_backend three if local { path /local }\n use_backend three if www || re\n \
           use_backend two if q\n use_backend three if many\n use_backend two if sub\n use_backend three if dir\n use_backend two if dom\n use_backend three if len\n use_backend two if ck\n use_backend three unless { path_beg / }\n \
           use_backend %[path,field(3,/)] if { path_beg /dynamic/ }\n default_backend one\n\
         backend one\n server s1 {ip}:9001\nbackend two\n server s2 {ip}:9002\nbackend three\n server s3 {ip}:9003\n",
    );
    let to =
        |name, request: &str, server: &'static str| case(name).send(request).reply().close().shows(server);
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let cases = vec![
        to("default", &path("/"), " one/s1 "),
        to("path_beg", &path("/img/x"), " two/s2 "),
        to("path_beg, near miss", &path("/im"), " one/s1 "),
        to("path_end -i", &path("/a/B.PNG"), " two/s2 "),
        to("path_end with a query", &path("/a.png?x=y"), " two/s2 "),
        to("method", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", " two/s2 "),
        to(
            "method and negation",
            "POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 0\r\n\r\n",
            " three/s3 ",
        ),
        to("hdr -i", &host("API.example"), " three/s3 "),
        to("hdr_beg", &host("www.b"), " three/s3 "),
        to("path_reg", &path("/re42"), " three/s3 "),
        to("path_reg, near miss", &path("/re42x"), " one/s1 "),
        to("url_param", &path("/?y=2&x=1"), " two/s2 "),
        to("hdr_cnt", &get("X: 1\r\nX: 2\r\n"), " three/s3 "),
        to("path_sub", &path("/a-needle-b"), " two/s2 "),
        to("path_dir", &path("/a/deep/b"), " three/s3 "),
        to("hdr_dom", &host("x.dom.example:80"), " two/s2 "),
        to("path_len", &path(&format!("/{}", "l".repeat(60))), " three/s3 "),
        to("cook", &get("Cookie: kind=special\r\n"), " two/s2 "),
        to("dynamic name", &path("/dynamic/two/x"), " two/s2 "),
        to("dynamic name that is none", &path("/dynamic/nobody/x"), " one/s1 "),
        to("src", &path("/local"), " three/s3 ").loopback(),
        to("src, another address", &path("/local"), " one/s1 "),
        to("unless", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", " three/s3 "),
    ];
    group("routing", configuration, cases)
}

fn requests() -> Group {
    let configuration = guide(
        "userlist people\n user anna insecure-password secret\n user bert insecure-password other\n\
         frontend proxy\n bind {ip}:80\n \
           http-request set-header X-Set \"%[src] %[req.hdr(host)]\"\n http-request add-header X-Add one\n http-request del-header X-Del\n http-request set-path /new%[path] if { path_beg /old }\n \
           http-request replace-header X-Rep (.*)=(.*) \\2=\\1\n http-request set-query a=b if { path /query }\n http-request set-method PUT if { path /method }\n http-request set-uri /uri?u if { path /uri-was }\n \
           http-request redirect scheme https if { path /scheme }\n http-request redirect prefix http://b.example if { path_beg /prefix }\n http-request redirect location /loc code 303 if { path /location }\n \
           http-request redirect location /gone code 301 drop-query set-cookie A=1 if { path /moved }\n redirect prefix / drop-query append-slash if { path /slash }\n \
           http-request deny if { path /deny }\n http-request deny deny_status 429 if { path /deny429 }\n http-request tarpit if { path /never }\n \
           http-request return status 200 content-type text/plain string \"hi there\" hdr X-R 1 if { path /return }\n http-request return if { path /empty }\n \
           http-request return status 404 content-type text/plain lf-string \"no %[path]\" if { path /lf }\n http-request auth realm Closed if { path_beg /auth } !{ http_auth(people) }\n \
           http-request allow if { path /allow }\n http-request deny if { path /allow /denied }\n http-request set-var(txn.v) path,lower\n http-request set-header X-Var %[var(txn.v)]\n http-request silent-drop if { path /drop }\n \
           reqadd 1\n default_backend dynamic\nbackend dynamic\n server s1 {ip}:9001\n",
    )
    .replace(" reqadd 1\n", "");
    let asks = |name, target: &str| case(name).ask(path(target));
    let auth = |name, value: &str| {
        case(name).ask(format!("GET /auth HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {value}\r\n\r\n"))
    };
    let cases = vec![
        case("headers")
            .ask(get("X-Set: old\r\nX-Add: zero\r\nX-Del: gone\r\nX-Rep: a=b\r\n"))
            .shows("x-rep: b=a")
            .shows("x-set: 10.1."),
        asks("set-path", "/old/a?q").shows("GET /new/old/a?q"),
        asks("set-query", "/query?x"),
        asks("set-method", "/method").shows("PUT /method"),
        asks("set-uri", "/uri-was").shows("GET /uri?u"),
        asks("redirect scheme", "/scheme?x=1").shows("https://a.example/scheme?x=1"),
        asks("redirect prefix", "/prefix/a?b").shows("http://b.example/prefix/a?b"),
        asks("redirect location", "/location").shows(" 303 "),
        asks("redirect with a cookie", "/moved?x").shows("set-cookie: A=1"),
        asks("redirect append-slash", "/slash?x"),
        case("redirect a post").ask("POST /location HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        case("redirect head").send("HEAD /location HTTP/1.1\r\nHost: a\r\n\r\n").reply_head().probe(),
        asks("deny", "/deny").shows(" 403 "),
        asks("deny 429", "/deny429").shows(" 429 "),
        asks("return", "/return").shows("hi there"),
        asks("return nothing", "/empty"),
        asks("return lf-string", "/lf").shows("no /lf"),
        asks("allow stops", "/allow"),
        asks("set-var", "/VaR").shows("x-var: /var"),
        asks("auth, none", "/auth").shows("401"),
        auth("auth, right", "YW5uYTpzZWNyZXQ="),
        auth("auth, wrong", "YW5uYTp3cm9uZw==").shows("401"),
        auth("auth, rubbish", "%%%").shows("401"),
        case("deny a post").ask("POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        case("deny, then served").send(path("/deny")).reply().ask(get("")).logs(2),
    ];
    group("http-request", configuration, cases)
}

fn responses() -> Group {
    let configuration = over(
        "http-response set-header X-Front 1\nhttp-response del-header X-Del\nhttp-response deny if { res.hdr(x-bad) yes }\nhttp-response set-status 299 if { status 201 }",
        "http-response add-header X-Back 2\nhttp-response set-header X-Server %s\nhttp-response replace-value X-List a b\nhttp-response set-header X-Status \"%[status]\"\nserver s1 {ip}:9001",
    );
    let with = |name, head: &str| {
        case(name)
            .ask(get(""))
            .answers([raw(format!("HTTP/1.1 {head}Content-Length: 2\r\n\r\nok")), ok("probe")])
    };
    let cases = vec![
        with("headers", "200 OK\r\nX-Front: 0\r\nX-Del: 1\r\nX-List: a,c,a\r\n").shows("x-server: s1"),
        with("deny", "200 OK\r\nX-Bad: yes\r\n").shows(" 502 "),
        with("set-status", "201 Created\r\n").shows("299"),
    ];
    group("http-response", configuration, cases)
}

/// Rules that touch what frames a message.
fn framing() -> Group {
    let configuration = over(
        "http-request del-header content-length if { path /length }\nhttp-request del-header content- -m beg if { path /content }\n\
         http-request del-header transfer-encoding if { path /coding }\nhttp-request add-header content-length 9 if { path /two }\n\
         http-request return status 200 content-type text/plain string hi if { path /own }",
        "http-response del-header content-length if { res.hdr(x-do) -m str length }\nhttp-response del-header transfer-encoding if { res.hdr(x-do) -m str coding }\n\
         http-response set-status 200 if { status 204 }\nhttp-response set-status 204 if { res.hdr(x-do) -m str 204 }\n\
         http-response set-status 304 if { res.hdr(x-do) -m str 304 }\nserver s1 {ip}:9001",
    )
    .replace("    default_backend", "    http-after-response del-header content-length if { res.hdr(content-type) -m str text/plain }\n    default_backend");
    let post = |name, path: &str, fields: &str| {
        case(name).ask(format!("POST {path} HTTP/1.1\r\nHost: a.example\r\n{fields}"))
    };
    let (sized, chunked) =
        ("Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let answer = |name, what: &str, rest: &str| {
        case(name)
            .ask(get(""))
            .answers([raw(format!("HTTP/1.1 200 OK\r\nX-Do: {what}\r\n{rest}")), ok("probe")])
    };
    let cases = vec![
        post("a request's length", "/length", sized).shows("transfer-encoding: chunked"),
        post("a request's length, by its beginning", "/content", sized).shows("transfer-encoding: chunked"),
        post("a request's length of nothing", "/length", "Content-Length: 0\r\n\r\n"),
        post("a request's coding", "/coding", chunked),
        post("a second length", "/two", sized),
        case("a length where nothing comes").ask(path("/two")),
        answer("an answer's length", "length", sized).shows("transfer-encoding: chunked"),
        answer("an answer's length of nothing", "length", "Content-Length: 0\r\n\r\n"),
        answer("an answer's coding", "coding", chunked),
        answer("204 in place of a body", "204", sized).shows("204 No Content"),
        answer("204 in place of chunks", "204", chunked).shows("204 No Content"),
        answer("304 in place of a body", "304", sized).shows("304 Not Modified"),
        case("200 in place of 204")
            .ask(get(""))
            .answers([raw("HTTP/1.1 204 No\r\n\r\n"), ok("probe")])
            .shows("200 OK"),
        case("an answer of the proxy's own").ask(path("/own")).shows("transfer-encoding: chunked"),
    ];
    group("rules and framing", configuration, cases)
}

/// `tcp-request content` of `mode http`.
fn content() -> Group {
    let configuration = over(
        "tcp-request content accept if { path /accept }\ntcp-request content reject if { path_beg /front /accept }\n\
         tcp-request content set-var(txn.a) path\nhttp-request set-header X-A %[var(txn.a)]\n\
         http-request return status 200 if { path /front }\nhttp-request reject if { path /reject }",
        "http-request deny if { path /back }\ntcp-request content reject if { path /back }\nserver s1 {ip}:9001",
    );
    let rejected = |name, target: &str| case(name).send(path(target)).end().shows("PR--");
    let cases = vec![
        rejected("a frontend's", "/front").shows("<BADREQ>"),
        rejected("a backend's", "/back").shows("dynamic/<NOSRV>"),
        rejected("http-request reject", "/reject"),
        case("the second request")
            .send(path("/"))
            .reply()
            .send(path("/front"))
            .end()
            .logs(2)
            .shows("<BADREQ>"),
        case("accept ends them").ask(path("/accept")),
        case("variables").ask(path("/v")).shows("x-a: /v"),
    ];
    group("tcp-request content", configuration, cases)
}

/// The same of `mode tcp`.
fn content_of_tcp() -> Group {
    let configuration = guide(
        "frontend front\n mode tcp\n option tcplog\n bind {ip}:80\n tcp-request content reject\n default_backend one\n\
         frontend back\n mode tcp\n option tcplog\n bind {ip}:81\n default_backend two\n\
         backend one\n mode tcp\n server s1 {ip}:9001\nbackend two\n mode tcp\n tcp-request content reject\n server s2 {ip}:9002\n",
    )
    // Nothing is sent, and told all the same.
    .replace("    option dontlognull\n", "");
    let cases = vec![
        case("a frontend's").end().shows(" PR "),
        case("a backend's").port(81).end().shows(" two/<NOSRV> "),
    ];
    group("tcp-request content, mode tcp", configuration, cases)
}

/// `tune.http.logurilen`
fn long_lines() -> Group {
    let configuration =
        over("log-format \"%r %HU %HP %HM %HV %HQ %[capture.req.uri]\"", "server s1 {ip}:9001")
            .replace("nbthread 1\n", "nbthread 1\n    tune.http.logurilen 20\n");
    let cases = vec![
        case("a short line").ask(path("/a?b=1")),
        case("cut in the query").ask(path("/aaaaaaaaaa?bcdefghi")).shows("?bcde "),
        case("cut in the path").ask(path(&format!("/{}?b", "a".repeat(40)))),
        case("cut in the version").ask(path("/aaaaaaaa")),
    ];
    group("logurilen", configuration, cases)
}

fn balance() -> Group {
    let servers = "server s1 {ip}:9001\n server s2 {ip}:9002\n server s3 {ip}:9003\n";
    let configuration = guide(&format!(
        "listen roundrobin\n bind {{ip}}:80\n balance roundrobin\n {servers}\
         listen weights\n bind {{ip}}:81\n balance roundrobin\n server s1 {{ip}}:9001 weight 30\n server s2 {{ip}}:9002 weight 10\n server s3 {{ip}}:9003 weight 0\n\
         listen source\n bind {{ip}}:82\n balance source\n {servers}\
         listen static\n bind {{ip}}:83\n balance static-rr\n server s1 {{ip}}:9001 weight 2\n server s2 {{ip}}:9002 weight 1\n\
         listen stick\n bind {{ip}}:84\n balance roundrobin\n stick-table type ip size 1k expire 30s\n stick on src\n {servers}\
         listen leastconn\n bind {{ip}}:85\n balance leastconn\n {servers}\
         listen first\n bind {{ip}}:86\n balance first\n {servers}\
         listen uri\n bind {{ip}}:87\n balance uri\n {servers}"
    ));
    let many = |name, port| {
        let mut case = case(name).port(port).logs(7);
        for _ in 0..7 {
            case = case.send(get("")).reply();
        }
        case
    };
    let cases = vec![
        many("roundrobin", 80),
        many("weights", 81),
        many("source", 82),
        many("source, loopback", 82).loopback(),
        many("static-rr", 83),
        many("stick on src", 84),
        many("stick on src, another", 84).loopback(),
        many("leastconn", 85),
        many("first", 86),
        case("uri")
            .port(87)
            .send(path("/a"))
            .reply()
            .send(path("/b"))
            .reply()
            .send(path("/c?x"))
            .reply()
            .send(path("/a"))
            .reply()
            .logs(4),
    ];
    group("balance", configuration, cases)
}
