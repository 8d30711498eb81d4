//! Random texts as expressions, conditions and formats, random requests as input: nothing may panic, and what compiles
//! must evaluate.

#![allow(clippy::unwrap_used)] // how a test fails

use super::*;
use crate::proxy::config::Config;
use crate::proxy::config::model::{Captures, Userlist};
use crate::proxy::config::words::{Line, Word, Words};
use crate::proxy::exchange::{Endpoint, Exchange, Session, Side};
use crate::proxy::state::Running;
use ehpc_proto::http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::path::Path;
use std::time::{Instant, SystemTime};

/// Pieces that expressions are made of, apart from the names of the tables.
const PIECES: &[&str] = &[
    "(",
    ")",
    ",",
    "\"",
    "'",
    "\\",
    " ",
    "1",
    "-1",
    "0",
    "9223372036854775807",
    "-9223372036854775808",
    "host",
    "txn.a",
    "sess.b",
    "proc.x",
    "_",
    "/",
    ".",
    "%",
    "[",
    "]",
    "{",
    "}",
    "%[",
    "%{+Q}",
    "%{+X,-E}o",
    "%ci",
    "%hr",
    "a b",
    "^(.*)$",
    "\\1",
    "\\x4",
    "(a",
    "[a",
    "*",
    "\u{e9}",
    "ffff::/64",
    "24",
    "255.0.0.0",
    "%Y%q",
    "utf8s",
    "map(file)",
    "-m",
    "-i",
    "-f",
    "--",
    "reg",
    "str",
    "beg",
    "len",
    "ip",
    "or",
    "||",
    "!",
    "if",
    "unless",
    "TRUE",
    "10:20",
    "gt",
    "1.2.3.4/33",
    "",
];

fn line(random: &mut StdRng, names: &[&str]) -> Line {
    let mut words = Vec::new();
    for _ in 0..random.random_range(1..6) {
        let mut text = String::new();
        for _ in 0..random.random_range(0..6) {
            match random.random_range(0..3) {
                0 => text.push_str(names.choose(random).unwrap()),
                1 => text.push_str(PIECES.choose(random).unwrap()),
                _ => {
                    let name = names.choose(random).unwrap();
                    let argument = PIECES.choose(random).unwrap();
                    let other = PIECES.choose(random).unwrap();
                    text.push_str(&format!("{name}({argument},{other}),"));
                }
            }
        }
        words.push(Word { text, column: 1, quoted: random.random_bool(0.3) });
    }
    Line { file: Path::new("fuzz").into(), number: 1, words }
}

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(0..40);
    (0..length).map(|_| *b"aB0 ,;=\"\\/?&%:.-_[]\xff\x00\x7f~#+".choose(random).unwrap()).collect()
}

fn exchange(random: &mut StdRng) -> Exchange {
    let session = Session {
        client: Endpoint::Unix,
        local: Endpoint::Tcp("[2001:db8::1]:80".parse().unwrap()),
        frontend: random.random_range(0..3),
        bind: random.random_range(0..3),
        accepted: SystemTime::now(),
        accepted_at: Instant::now(),
        number: 0,
        variables: Variables::default(),
    };
    let mut exchange = Exchange::new(session, SystemTime::now(), Instant::now());
    exchange.request.method = Method::new(&bytes(random));
    exchange.request.target = bytes(random);
    exchange.request_line = bytes(random);
    for name in ["host", "cookie", "set-cookie", "authorization", "x-forwarded-for", "accept-language"] {
        let value =
            if name == "authorization" { [b"Basic ", &bytes(random)[..]].concat() } else { bytes(random) };
        exchange.request.fields.push(name.as_bytes(), &value);
        exchange.response.fields.push(name.as_bytes(), &bytes(random));
    }
    exchange.side = if random.random_bool(0.5) { Side::Request } else { Side::Response };
    exchange
}

#[test]
fn nothing_panics_whatever_stands_in_a_file_or_a_request() {
    let names: Vec<&str> =
        fetches().chain(converters()).map(|entry| entry.name).chain(["path_beg", "hdr_dom"]).collect();
    let running = Running::new(std::sync::Arc::new(Config::default()), 10);
    let variables = RefCell::new(VariableNames::default());
    let people = Userlist { name: "host".into(), ..Userlist::default() };
    let all = Names { proxies: vec![SectionName::default()], userlists: vec![people.into()] };
    let scope = Scope {
        proxy: Some(0),
        names: &all,
        acls: &Acls::default(),
        captures: &Captures::default(),
        variables: &variables,
        moment: Moment::Any,
        read: &|_| Ok(b"a b\n^(c) \\1\n1 2\n".to_vec()),
    };
    let mut compiled = 0;
    for seed in 0..6_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let line = line(&mut random, &names);
        let exchange = exchange(&mut random);
        let context = Context { exchange: &exchange, running: &running };
        if let Ok(expression) = Expression::parse(&mut Words::new(&line), &scope) {
            compiled += 1;
            expression.evaluate(&context);
            expression.any(&context, |_| false);
        }
        if let Ok(format) = LogFormat::parse_text(&mut Words::new(&line), &scope) {
            compiled += 1;
            format.render(&context, &mut Vec::new());
        }
        let mut words = Words::new(&line);
        if let Ok(acl) = Acl::parse(&mut words, &scope) {
            drop(acl);
        }
        let mut with_if = line.clone();
        with_if.words.insert(0, Word { text: "if".into(), column: 1, quoted: false });
        if let Ok(condition) = Condition::parse(&mut Words::new(&with_if), &scope) {
            compiled += 1;
            condition.holds(&context);
        }
    }
    assert!(compiled > 600, "only {compiled} of the random texts mean anything");
}

#[test]
fn every_name_stands_once_and_has_help() {
    let mut seen = std::collections::BTreeSet::new();
    for entry in fetches() {
        assert!(seen.insert(("fetch", entry.name)) && !entry.help.is_empty(), "{}", entry.name);
    }
    for entry in converters() {
        assert!(seen.insert(("converter", entry.name)) && !entry.help.is_empty(), "{}", entry.name);
    }
}

/// Prints how long a line takes; no bar, as machines differ (`cargo test --release -- --ignored`).
#[test]
#[ignore = "a measurement, not a check"]
fn how_long_a_log_line_takes() {
    let running = Running::new(std::sync::Arc::new(Config::default()), 10);
    let mut random = StdRng::seed_from_u64(1);
    let mut exchange = exchange(&mut random);
    exchange.session.client = Endpoint::Tcp("192.168.100.200:54321".parse().unwrap());
    exchange.request_line = b"GET /some/path/of/usual/length?with=query HTTP/1.1".to_vec();
    exchange.response.status = 200;
    let format = LogFormat::httplog();
    let context = Context { exchange: &exchange, running: &running };
    let mut out = Vec::new();
    // Of this thread, so that others on the machine do not count.
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanoseconds = |at: rustix::time::Timespec| at.tv_sec * 1_000_000_000 + at.tv_nsec;
    let start = nanoseconds(clock());
    let lines = 1_000_000;
    for _ in 0..lines {
        out.clear();
        format.render(&context, &mut out);
    }
    let each = (nanoseconds(clock()) - start) / lines;
    println!("{each} ns a line: {}", String::from_utf8_lossy(&out));
}
