//! Whole configurations.

use super::model::*;
use super::*;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// A machine where every file is a small error page and `webN` has an address.
fn machine() -> Surroundings {
    Surroundings {
        resolve: |name| match name {
            "web1" => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
            "localhost" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        },
        read: |path, _| match path.extension() {
            _ if path.as_os_str() == "/dev/null" => Ok(Vec::new()),
            Some(_) => Ok(b"HTTP/1.0 503 Service Unavailable\r\n\r\nsorry".to_vec()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        },
        ..Surroundings::none()
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    load_bytes("t.cfg", text.as_bytes(), Environment::default(), &machine())
}

/// `line:column: what` of each problem.
fn problems(text: &str) -> Vec<String> {
    let shown = |problem: &crate::settings::Problem| match &problem.site {
        Site::At { line, column, .. } => format!("{line}:{column}: {}", problem.what),
        other => format!("{other}: {}", problem.what),
    };
    parse(text).expect_err(text).0.iter().map(shown).collect()
}

#[test]
fn the_guides_file_loads_byte_for_byte_and_every_line_counts() {
    let config = parse(include_str!("../../../config/haproxy.cfg")).expect("the guide's file");
    let global = &config.global;
    assert_eq!((global.maxconn, global.daemon), (Some(20_000), true));
    assert_eq!(global.chroot.as_deref(), Some("/var/lib/haproxy".as_ref()));
    let levels: Vec<_> = global.logs.iter().map(|log| (log.facility, log.level, log.min_level)).collect();
    assert_eq!(levels, [(16, 7, 0), (17, 5, 0)]);
    assert!(global.logs.iter().all(|log| log.address == LogAddress::Unix("/dev/log".into())));
    assert_eq!(config.proxies.len(), 2);

    let front = &config.proxies[0];
    assert_eq!(
        (front.name.as_str(), front.front, front.back, front.mode),
        ("proxy", true, false, Mode::Http)
    );
    assert_eq!(front.binds.len(), 1);
    assert_eq!(front.binds[0].address, BindAddress::Tcp("0.0.0.0:80".parse().expect("an address")));
    assert_eq!(front.default_backend, Some(1));
    assert_eq!(front.connection, ConnectionMode::ServerClose);
    assert!(front.options.dontlognull);
    let forward = front.forward_for.as_ref().expect("forwardfor");
    assert_eq!(forward.except, Some((IpAddr::from([127, 0, 0, 0]), 8)));
    assert_eq!(front.logs.len(), 2);
    assert_eq!(front.error_files.keys().copied().collect::<Vec<_>>(), [400, 403, 408, 500, 502, 503, 504]);

    let back = &config.proxies[1];
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(back.timeouts.connect, seconds(5));
    assert_eq!((back.timeouts.client, back.timeouts.server), (seconds(50), seconds(50)));
    assert_eq!((back.timeouts.http_keep_alive, back.timeouts.check), (seconds(10), seconds(10)));
    assert_eq!((back.retries, back.redispatch), (3, -1));
    assert!(matches!(back.balance, Balance::RoundRobin));
    let cookie = back.cookie.as_ref().expect("cookie");
    assert_eq!(cookie.name, b"SESSION_ID");
    assert_eq!((cookie.kind, cookie.indirect, cookie.nocache), (CookieKind::Insert, true, true));
    assert_eq!(back.servers.len(), 2);
    for (server, (name, address, cookie)) in
        back.servers.iter().zip([("web1", "10.182.15.51:80", b"A"), ("web2", "10.182.15.52:80", b"B")])
    {
        assert_eq!((server.name.as_str(), server.maxconn, server.weight), (name, Some(10_000), 1));
        let ServerAddress::Tcp { at, host: None, port: ServerPort::Fixed } = &server.address else {
            panic!()
        };
        assert_eq!(at.to_string(), address);
        assert_eq!(server.cookie.as_deref(), Some(&cookie[..]));
        let check = server.check.as_ref().expect("check");
        assert_eq!((check.inter, check.rise, check.fall), (Duration::from_secs(3), 2, 3));
    }
    assert!(config.without_meaning.is_empty() && config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn debians_default_file_loads() {
    let config = parse(include_str!("../../../tests/data/haproxy/debian-12.cfg")).expect("Debian's file");
    assert_eq!(config.global.user, Some(Identity::Name("haproxy".to_owned())));
    let socket = &config.global.stats_sockets[0];
    assert_eq!((socket.unix_mode, socket.level), (Some(0o660), Level::Admin));
    assert_eq!(config.global.stats_timeout, Duration::from_secs(30));
    assert!(!config.has_listeners());
    let notice = config.without_meaning_notice().expect("TLS words");
    for word in ["ca-base", "crt-base", "ssl-default-bind-ciphers", "ssl-default-bind-options"] {
        assert!(notice.contains(word), "{notice}");
    }
}

#[test]
fn centos_7s_default_file_loads() {
    let config = parse(include_str!("../../../tests/data/haproxy/centos-7.cfg")).expect("CentOS's file");
    let names: Vec<_> = config.proxies.iter().map(|proxy| proxy.name.as_str()).collect();
    assert_eq!(names, ["main", "static", "app"]);
    let main = &config.proxies[0];
    assert_eq!(main.binds[0].address, BindAddress::Tcp("0.0.0.0:5000".parse().expect("an address")));
    assert_eq!((main.maxconn, main.default_backend), (Some(3000), Some(2)));
    let [rule] = &main.use_backend[..] else { panic!() };
    assert!(matches!(rule.target, BackendName::Fixed(1)) && rule.condition.is_some());
    assert_eq!(config.proxies[2].servers.len(), 4);
    assert_eq!(config.global.stats_sockets[0].level, Level::Operator);
}

#[test]
fn the_empty_configuration_is_fine() {
    let config = parse("").expect("nothing is wrong");
    assert!(!config.has_listeners());
}

#[test]
fn problems_are_all_found_and_say_what_is_near() {
    let text = "globl\n\
                global\n  maxcon 5\n\
                frontend f\n  bind :x\n  defaultbackend b\n  timeout clint 5\n  default_backend bb\n\
                backend b\n  server s 1.1.1.1 chek\n  otpion httpchk\n  reqadd X\n  server s2 1.1.1.1 ssl\n";
    let found = parse(text).expect_err("problems");
    let found: Vec<String> = found.0.iter().map(ToString::to_string).collect();
    for (problem, (place, what, next)) in found.iter().zip([
        ("t.cfg:1:1", "outside of every section", "did you mean `global`?"),
        ("t.cfg:3:3", "unknown word `maxcon`", "did you mean `maxconn`?"),
        ("t.cfg:5:8", "not a port", ""),
        ("t.cfg:6:3", "unknown word `defaultbackend`", "did you mean `default_backend`?"),
        ("t.cfg:7:11", "unknown word `timeout clint`", "did you mean `timeout client`?"),
        ("t.cfg:8:19", "there is no backend `bb`", "did you mean `b`?"),
        ("t.cfg:10:20", "unknown word `chek`", "did you mean `check`?"),
        ("t.cfg:11:3", "unknown word `otpion`", "did you mean `option httpchk`?"),
        ("t.cfg:12:3", "`reqadd` is refused", "http-request add-header"),
        ("t.cfg:13:21", "TLS is not supported yet", ""),
    ]) {
        assert!(problem.starts_with(place), "{problem}: {place}");
        assert!(problem.contains(what) && problem.contains(next), "{problem}: {what}, {next}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}

#[test]
fn defaults_are_inherited_as_named() {
    let config = parse(
        "defaults one\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n option dontlognull\n\
         defaults two from one\n timeout client 2s\n no option dontlognull\n\
         frontend a\n bind :1\n option dontlog-normal\n\
         frontend b from one\n bind :2\n default option dontlognull\n maxconn 7\n\
         listen c from two\n bind :3,:4-5 name x\n server s web1:80\n",
    )
    .expect("fine");
    let client: Vec<_> =
        config.proxies.iter().map(|proxy| proxy.timeouts.client.map(|t| t.as_secs())).collect();
    assert_eq!(client, [Some(2), Some(1), Some(2)]);
    let null: Vec<_> = config.proxies.iter().map(|proxy| proxy.options.dontlognull).collect();
    assert_eq!(null, [false, false, false]);
    assert_eq!(config.proxies[1].maxconn, Some(7));
    let binds: Vec<_> = config.proxies[2].binds.iter().map(|bind| bind.id).collect();
    assert_eq!(binds, [1, 2, 3]);
    let ServerAddress::Tcp { host, at, .. } = &config.proxies[2].servers[0].address else { panic!() };
    assert_eq!((host.as_deref(), at.to_string()), (Some("web1"), "10.0.0.1:80".to_owned()));
}

#[test]
fn default_server_is_applied_to_the_servers_that_follow() {
    let config = parse(
        "defaults\n timeout connect 1s\n timeout server 1s\n default-server inter 7s weight 9\n\
         backend b\n server a 1.1.1.1:1 check\n default-server fall 5 backup check\n server b 1.1.1.1:2 weight 3\n \
         server c 1.1.1.1:3 no-check no-backup\n\
         backend c\n server d 1.1.1.1:4 check\n",
    )
    .expect("fine");
    let [a, b, c] = &config.proxies[0].servers[..] else { panic!() };
    let check = a.check.as_ref().expect("check");
    assert_eq!((check.inter, check.fall, a.weight, a.backup), (Duration::from_secs(7), 3, 9, false));
    let check = b.check.as_ref().expect("check");
    assert_eq!((check.inter, check.fall, b.weight, b.backup), (Duration::from_secs(7), 5, 3, true));
    assert_eq!((c.check.is_none(), c.backup), (true, false));
    let d = &config.proxies[1].servers[0];
    assert_eq!((d.weight, d.backup, d.check.as_ref().map(|check| check.fall)), (9, false, Some(3)));
}

#[test]
fn variables_and_blocks_decide_what_counts() {
    let config = parse(
        "global\n setenv PORT 81\n presetenv PORT 82\n\
         .if defined(PORT) && !streq(\"$PORT\",80)\n\
         frontend a\n bind \":${PORT}\"\n timeout client 1s\n\
         .elif 1\n nonsense here\n.else\n more nonsense 'unclosed\n.endif\n\
         .if 0\n.if 1\n x\n.else\n y\n.endif\n.endif\n",
    )
    .expect("fine");
    assert_eq!(
        config.proxies[0].binds[0].address,
        BindAddress::Tcp("0.0.0.0:81".parse().expect("an address"))
    );
    assert_eq!(problems(".if 1\n"), ["1:1: `.if` without `.endif`"]);
    assert_eq!(problems(".endif\n"), ["1:1: `.endif` cannot stand here: it has no `.if`"]);
    assert_eq!(
        problems("global\n daemon"),
        ["2:1: the last line has no line feed; the file may have been cut off"]
    );
}

/// The same file was given to HAProxy 2.6.12, whose `show stat` said these numbers.
#[test]
fn numbers_are_those_of_haproxy() {
    let config = parse(
        "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n\
         frontend f\n bind :1,:2 name x\n default_backend b\n\
         backend b\n server s1 127.0.0.1:1\n server s2 127.0.0.1:1 id 1\n server s3 127.0.0.1:1\n\
         listen l\n bind :3\n id 3\n\
         backend z\n",
    )
    .expect("fine");
    let numbers: Vec<u32> = config.proxies.iter().map(|proxy| proxy.id).collect();
    assert_eq!(numbers, [2, 4, 3, 6]);
    let numbers: Vec<u32> = config.proxies[1].servers.iter().map(|server| server.id).collect();
    assert_eq!(numbers, [2, 1, 4]);
    let numbers: Vec<u32> = config.proxies[0].binds.iter().map(|bind| bind.id).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn a_large_file_of_a_web_cluster_loads() {
    let config = parse(include_str!("../../../tests/data/haproxy/web-cluster.cfg")).expect("the file");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let www = &config.proxies[0];
    assert_eq!(www.binds.len(), 3);
    assert_eq!((www.captures.request.len(), www.captures.response.len()), (2, 1));
    assert_eq!(www.captures.cookie, Some((b"SESSION".to_vec(), false, 40)));
    assert_eq!((www.request_rules.len(), www.response_rules.len(), www.use_backend.len()), (8, 3, 3));
    let app = &config.proxies[1];
    let Check::Http(check) = &app.check else { panic!() };
    assert_eq!((&check.method[..], &check.uri[..]), (&b"GET"[..], &b"/health"[..]));
    assert_eq!(check.headers, [(b"Host".to_vec(), b"www.example.com".to_vec())]);
    assert_eq!(app.servers[4].maxqueue, Some(200));
    assert_eq!(app.redispatch, 1);
    let forward = app.forward_for.as_ref().expect("forwardfor");
    assert!(forward.if_none && app.original_to.as_ref().is_some_and(|to| to.header == b"x-asked"));
    assert_eq!(config.proxies[3].redispatch, 0);
    assert!(matches!(config.proxies[2].balance, Balance::Hash(_)));
    let [stick] = &config.proxies[4].stick_rules[..] else { panic!() };
    assert_eq!((stick.matches, stick.stores, stick.table), (true, true, 4));
    let stats = config.proxies[5].stats.as_ref().expect("a page");
    assert_eq!(stats.scope, ["www", "app", "statistics"]);
    assert_eq!(stats.users[1], ("reader".to_owned(), "pass word".to_owned()));
    assert_eq!((stats.realm.as_str(), stats.admin.len()), ("Proxy statistics", 1));
    assert_eq!(config.userlists[0].users.len(), 3);
}

#[test]
fn an_old_file_of_databases_loads() {
    let config = parse(include_str!("../../../tests/data/haproxy/database.cfg")).expect("the file");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.global.user, Some(Identity::Id(99)));
    let read = &config.proxies[1];
    assert_eq!(read.binds.len(), 2);
    let weights: Vec<_> = read.servers.iter().map(|server| server.weight).collect();
    assert_eq!(weights, [1, 10, 10]);
    assert!(
        matches!(&read.check, Check::Mysql { user: Some(user), post_41: true } if user == b"haproxy_check")
    );
    let ServerAddress::Tcp { port: ServerPort::Mapped(0), .. } = read.servers[1].address else { panic!() };
    assert_eq!(config.proxies[2].connection, ConnectionMode::Close);
}

#[test]
fn files_and_directories_are_read_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("b.cfg", "frontend b from x\n bind :2\n");
    write("a.cfg", "defaults x\n timeout client 5s\nfrontend a\n bind :1\n");
    write(".hidden.cfg", "nonsense\n");
    write("notes.txt", "nonsense\n");
    let last = directory.path().join("last");
    std::fs::write(&last, "frontend c\n bind :3\n").expect("a file");
    let config = load(&[directory.path().to_owned(), last.clone()], Environment::default()).expect("fine");
    let names: Vec<_> = config.proxies.iter().map(|proxy| proxy.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);

    // A section ends with its file.
    std::fs::write(&last, " maxconn 3\n").expect("a file");
    let found = load(&[directory.path().to_owned(), last], Environment::default()).expect_err("no section");
    assert!(found.0[0].what.contains("outside of every section"), "{found}");
    let found = load(&["/nonexistent".into()], Environment::default()).expect_err("no file");
    assert_eq!(found.0[0].site, Site::Whole("/nonexistent".into()));
}

#[test]
fn unix_sockets_get_what_unix_bind_says() {
    let config = parse(
        "global\n stats socket /early\n unix-bind prefix /run mode 600 uid 5\n stats socket /late mode 666\n\
         frontend f\n timeout client 1s\n bind /x,:80 group g\n bind abns@y\n",
    )
    .expect("fine");
    let shown = |bind: &Bind| (bind.address.clone(), bind.unix_mode, bind.unix_user.clone());
    let unix = |path: &str| BindAddress::Unix(path.into());
    let sockets: Vec<_> = config.global.stats_sockets.iter().map(shown).collect();
    let five = Some(Identity::Id(5));
    assert_eq!(sockets, [(unix("/early"), None, None), (unix("/run/late"), Some(0o666), five.clone())]);
    let binds: Vec<_> = config.proxies[0].binds.iter().map(shown).collect();
    assert_eq!(binds[0], (unix("/run/x"), Some(0o600), five));
    assert_eq!((binds[1].1, binds[2].0.clone()), (None, BindAddress::Abstract(b"y".to_vec())));
}

#[test]
fn a_check_is_what_both_its_lines_say_in_any_order() {
    let check = |lines: &str| {
        let text =
            format!("backend b\n timeout connect 1s\n timeout server 1s\n{lines} server s 1.1.1.1:1 check\n");
        let config = parse(&text).expect("fine");
        let Check::Http(check) = config.proxies[0].check.clone() else { panic!() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<String> =
            check.headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
        format!("{} {} {:?} {}", text(&check.method), text(&check.uri), check.version, headers.join(", "))
    };
    let option = " option httpchk GET /a HTTP/1.1\\r\\nHost:\\ one\n";
    let send = " http-check send uri /b hdr X-Y two\n";
    assert_eq!(check(" option httpchk\n"), "OPTIONS / Http10 ");
    assert_eq!(check(option), "GET /a Http11 Host: one");
    let both = "GET /b Http11 Host: one, X-Y: two";
    assert_eq!(check(&format!("{option}{send}")), both);
    assert_eq!(check(&format!("{send}{option}")), both);
}

#[test]
fn stick_lines_match_or_store() {
    let config = parse(
        "backend b\n timeout connect 1s\n timeout server 1s\n stick-table type ip size 10\n stick on src\n \
         stick match src\n stick store-request src\n stick store-response src\n server s 1.1.1.1:1\n",
    )
    .expect("fine");
    let rules = &config.proxies[0].stick_rules;
    let kinds: Vec<_> = rules.iter().map(|rule| (rule.matches, rule.stores, rule.of_response)).collect();
    assert_eq!(kinds, [(true, true, false), (true, false, false), (false, true, false), (false, true, true)]);
}

/// A word must never be read and then ignored: whatever the model holds is looked at by somebody outside of here.
/// What HAProxy 2.6.12 refuses when it loads an error file, and what it takes.
#[test]
fn an_error_file_is_a_whole_answer() {
    let fault = super::error_words::fault;
    for (taken, content) in [
        (true, ""),
        (true, "HTTP/1.0 403 No\r\n\r\nhello"),
        (true, "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nhello"),
        (true, "HTTP/1.1 403 No\nContent-Length: 5\n\nhello"),
        (true, "HTTP/1.1 403 No\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        (true, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        (true, "HTTP/1.1 503 No\r\n\r\nhello"),
        (true, "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"),
        (false, "HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhello"),
        (false, "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nhello"),
        (false, "HTTP/1.1 403 No\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        (false, "HTTP/1.1 403 No\r\nContent-Length: x\r\n\r\nhello"),
        (false, "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (false, "HTTP/1.1 403 No\r\nContent-Length: 5\r\n"),
        (false, "HTTP/1.1 403 No\r\nA b: 3\r\n\r\nhello"),
        (false, "HTTP/1.1 204 No\r\n\r\nhello"),
        (false, "HTTP/1.1 304 No\r\n\r\nhello"),
        (false, "HTTP/1.1 100 No\r\n\r\n"),
        (false, "hello"),
    ] {
        let found = fault(content.as_bytes());
        assert_eq!(found.is_none(), taken, "{content:?}: {found:?}");
    }
    // Where, and what.
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("403.http");
    std::fs::write(&file, "HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhello").expect("a file");
    let file = file.display();
    for (line, column) in [("errorfile 403", 15), ("http-request deny errorfile", 29)] {
        let main = directory.path().join("haproxy.cfg");
        std::fs::write(&main, format!("defaults\n mode http\nfrontend f\n {line} {file}\n")).expect("a file");
        let told = crate::proxy::config::load(&[main], crate::proxy::config::Environment::new([]));
        let told = format!("{:?}", told.err().map(|told| told.to_string()));
        let place = format!("haproxy.cfg:4:{}", column + 1);
        assert!(told.contains(&place) && told.contains("is 9, but its body has 5 bytes"), "{told}");
    }
}

#[test]
fn every_field_of_the_model_is_used() {
    fn sources(under: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(under).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().expect("a name");
            if path.is_dir() && name != "config" && !name.contains("test") {
                sources(&path, text);
            } else if name.ends_with(".rs") && !name.contains("test") {
                let source = std::fs::read_to_string(&path).expect("a file");
                // What is only spoken of, or tested, is not used.
                let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines();
                let code = code.map(|line| line.split("//").next().unwrap_or(line));
                code.for_each(|line| {
                    text.push_str(line);
                    text.push('\n');
                });
            }
        }
    }
    // The folder of this crate's sources, wherever the tests are built.
    let proxy = std::path::Path::new(file!()).parent().and_then(|here| here.parent()).expect("src/proxy");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join(proxy), &mut text);
    let words: std::collections::BTreeSet<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let mut model = String::new();
    sources(&root.join(proxy).join("config/model"), &mut model);
    let fields = model.lines().filter_map(|line| line.trim().strip_prefix("pub "));
    let fields = fields.filter_map(|line| line.split_once(": ")).map(|(name, _)| name);
    let fields: Vec<&str> = fields.filter(|name| !name.contains(' ')).collect();
    assert!(fields.len() > 150, "{}", fields.len());
    // The parser itself obeys these.
    let elsewhere = ["zero_warning", "cookielen"];
    let used = |name: &&&str| words.contains(**name) || elsewhere.contains(*name);
    let unused: Vec<&&str> = fields.iter().filter(|name| !used(name)).collect();
    assert!(unused.is_empty(), "read from a file and used by nobody: {unused:?}");
}
