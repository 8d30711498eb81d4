//! Cookies, compared case by case with what HAProxy 2.6.12 did (`tests/data/proxy/cookies.jsonl`, made by
//! `tools/record/proxy-cookies`: each case is one request through it to a server that answers as written there).

use super::*;
use serde_json::Value;

const OBSERVED: &str = include_str!("../../tests/data/proxy/cookies.jsonl");

/// Servers of the recorded backend: name, cookie, up.
const SERVERS: [(&str, &str, bool); 4] =
    [("a", "A", true), ("c", "C", false), ("d", "A", true), ("b", "B", true)];

fn policy(name: &str) -> CookiePolicy {
    let minutes = |count: u64| Some(Duration::from_secs(60 * count));
    let mut policy = CookiePolicy {
        name: b"SID".to_vec(),
        kind: CookieKind::Insert,
        indirect: true,
        nocache: false,
        postonly: false,
        preserve: false,
        httponly: false,
        secure: false,
        domains: Vec::new(),
        maxidle: None,
        maxlife: None,
        attributes: Vec::new(),
    };
    match name {
        "plain" => policy.indirect = false,
        "indirect" => policy.nocache = true,
        "postonly" => (policy.nocache, policy.postonly) = (true, true),
        "preserve" => policy.preserve = true,
        "secure" => {
            (policy.httponly, policy.secure) = (true, true);
            policy.domains = vec![b".a.com".to_vec(), b"b.org".to_vec()];
            policy.attributes = vec![b"SameSite=Lax".to_vec(), b"Priority=High".to_vec()];
        }
        "idle" => policy.maxidle = minutes(30),
        "life" => policy.maxlife = minutes(120),
        "both" => (policy.nocache, policy.maxidle, policy.maxlife) = (true, minutes(30), minutes(120)),
        "rewrite" => (policy.kind, policy.indirect) = (CookieKind::Rewrite, false),
        "prefix" => (policy.kind, policy.indirect) = (CookieKind::Prefix, false),
        "passive" => (policy.kind, policy.indirect) = (CookieKind::Passive, false),
        other => panic!("unknown policy {other}"),
    }
    policy
}

fn cookies(name: &str) -> Cookies {
    Cookies::new(
        policy(name),
        SERVERS.iter().map(|(_, cookie, _)| Some(cookie.as_bytes().to_vec())).collect(),
    )
}

fn strings(case: &Value, key: &str) -> Vec<String> {
    let values = case[key].as_array().unwrap().iter();
    values.map(|value| value.as_str().unwrap().to_owned()).collect()
}

fn values(fields: &Fields, names: &[&str]) -> Vec<String> {
    let wanted = fields.iter().filter(|(name, _)| names.iter().any(|wanted| wanted.as_bytes() == *name));
    wanted
        .map(|(name, value)| format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
        .collect()
}

/// What ours does with a case: the cookies that the server sees, the fields that the client gets, the log's two letters.
fn ours(case: &Value) -> (Vec<String>, Vec<String>, String) {
    let cookies = cookies(case["policy"].as_str().unwrap());
    let now = case["now"].as_u64().unwrap();
    let mut request = Fields::default();
    for line in strings(case, "request") {
        request.push(b"cookie", line.as_bytes());
    }
    let standing = |server: ServerIndex| if SERVERS[server].2 { Standing::Up } else { Standing::Down };
    let found = cookies.request(&mut request, now, standing);
    let mut answer = Fields::default();
    for line in strings(case, "answer") {
        let (name, value) = line.split_once(": ").unwrap();
        answer.push(name.as_bytes(), value.as_bytes());
    }
    let by = case["server"].as_str().unwrap();
    let server = SERVERS.iter().position(|(name, ..)| *name == by).unwrap();
    if let Some(wanted) = found.server {
        assert_eq!(wanted, server, "another server: {case}");
    }
    let method = Method::new(case["method"].as_str().unwrap().as_bytes());
    let status = case["status"].as_u64().unwrap() as u16;
    let letter = cookies.answer(&mut answer, Answer { found, server, method: &method, status, now });
    let upstream =
        values(&request, &["cookie"]).iter().map(|line| line["cookie: ".len()..].to_owned()).collect();
    let letters = [found.letter, letter].map(char::from).iter().collect();
    (upstream, values(&answer, &["set-cookie", "cache-control"]), letters)
}

#[test]
fn every_observed_case_is_answered_as_haproxy_answered_it() {
    let mut different = Vec::new();
    let mut count = 0;
    for line in OBSERVED.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        count += 1;
        let letters = case["letters"].as_str().unwrap().to_owned();
        let observed = (strings(&case, "upstream"), strings(&case, "sent"), letters);
        let ours = ours(&case);
        if ours != observed {
            different.push(format!("{case}\n   ours {ours:?}\nhaproxy {observed:?}"));
        }
    }
    assert!(count > 500, "{count} cases");
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
}

#[test]
fn a_redispatched_client_gets_a_new_cookie() {
    let cookies = cookies("indirect");
    let mut request = Fields::default();
    request.push(b"cookie", b"SID=A");
    let mut found = cookies.request(&mut request, 1_800_000_000, |_| Standing::Up);
    assert_eq!((found.server, found.letter), (Some(0), b'V'));
    found.redispatched();
    let mut answer = Fields::default();
    let told = Answer { found, server: 3, method: &Method::Get, status: 200, now: 1_800_000_000 };
    assert_eq!(cookies.answer(&mut answer, told), b'I');
    assert_eq!((found.letter, answer.get(b"set-cookie")), (b'D', Some(&b"SID=B; path=/"[..])));
}

#[test]
fn a_server_without_cookie_takes_the_clients_away() {
    let cookies = Cookies::new(policy("indirect"), vec![None]);
    let mut answer = Fields::default();
    let told = Answer { found: Found::default(), server: 0, method: &Method::Get, status: 200, now: 9 };
    assert_eq!(cookies.answer(&mut answer, told), b'I');
    assert_eq!(answer.get(b"set-cookie"), Some(&b"SID=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/"[..]));
}

#[test]
fn a_persistent_backend_keeps_the_clients_of_a_server_that_is_down() {
    let cookies = cookies("indirect");
    let mut request = Fields::default();
    request.push(b"cookie", b"SID=C");
    let found = cookies.request(&mut request, 9, |_| Standing::DownButKept);
    assert_eq!((found.server, found.letter), (Some(1), b'D'));
}

#[test]
fn dates_are_five_digits_of_four_seconds() {
    assert_eq!(&digits(0), b"AAAAA");
    assert_eq!(date(b"AAAAB"), Some(4));
    assert_eq!(date(b"AAAAA"), None);
    assert_eq!(date(b"AAA"), None);
    assert_eq!(date(b"AAA!A"), None);
    for now in [4_u64, 1_795_776_016, 4 << 29] {
        assert_eq!(date(&digits(now >> 2)), Some(now));
    }
}
