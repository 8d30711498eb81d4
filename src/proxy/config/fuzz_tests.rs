//! Mutated configurations: never a panic, always an end. Runs for EHPC_FUZZ_SECONDS (1 if unset) from a seed that is
//! printed (EHPC_FUZZ_SEED repeats one).

use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const SEEDS: [&str; 5] = [
    include_str!("../../../config/haproxy.cfg"),
    include_str!("../../../tests/data/haproxy/debian-12.cfg"),
    include_str!("../../../tests/data/haproxy/centos-7.cfg"),
    include_str!("../../../tests/data/haproxy/lines.txt"),
    include_str!("../../../tests/data/haproxy/files.txt"),
];

/// Texts that have broken parsers before.
const NASTY: [&str; 24] = [
    "\"",
    "'",
    "\\",
    "\\x",
    "${",
    "\"${A",
    "\"${A[*]}\"",
    "#",
    "(",
    ")",
    "%[",
    "%{+Q}r",
    ",",
    "-",
    "@",
    ":",
    "65536",
    "18446744073709551616",
    "-1",
    "",
    "三",
    "\u{0}",
    "\r",
    ".if defined(",
];

fn machine() -> Surroundings {
    Surroundings {
        resolve: |_| Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        read: |path, _| match path.as_os_str().len() % 2 {
            0 => Ok(b"HTTP/1.0 503 x\r\n\r\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        },
        ..Surroundings::none()
    }
}

fn from_environment(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Lines of the seeds and words of the tables.
fn dictionary() -> (Vec<String>, Vec<String>) {
    let lines = SEEDS.iter().flat_map(|seed| seed.lines());
    // In lines.txt a verdict stands before each line.
    let lines = lines.map(|line| line.trim_start_matches("both ").trim_start_matches("neither "));
    let lines: Vec<String> = lines.map(|line| line.split(" ## ").next().unwrap_or(line).to_owned()).collect();
    let mut words: Vec<String> =
        vocabulary::tables().iter().flat_map(|(_, rows)| *rows).map(|row| row.word.to_owned()).collect();
    words.extend(lines.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned));
    words.extend(NASTY.map(str::to_owned));
    (lines, words)
}

fn mutated(random: &mut StdRng, lines: &[String], words: &[String]) -> Vec<u8> {
    let mut text: Vec<String> = match random.random_range(0..4) {
        0 => SEEDS[random.random_range(0..3)].lines().map(str::to_owned).collect(),
        _ => {
            let heads = ["global", "defaults d", "frontend f", "backend b", "listen l", "userlist u"];
            let mut text = Vec::new();
            for _ in 0..random.random_range(1..4) {
                text.push((*heads.choose(random).expect("heads")).to_owned());
                text.extend((0..random.random_range(0..12)).filter_map(|_| lines.choose(random).cloned()));
            }
            text
        }
    };
    for _ in 0..random.random_range(0..8) {
        let at = random.random_range(0..text.len().max(1)).min(text.len().saturating_sub(1));
        let Some(line) = text.get_mut(at) else { break };
        let mut parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let word = random.random_range(0..parts.len());
        match random.random_range(0..7) {
            0 => parts[word].clone_from(words.choose(random).expect("words")),
            1 => parts.insert(word, words.choose(random).expect("words").clone()),
            2 => drop(parts.remove(word)),
            3 => parts[word].push_str(NASTY.choose(random).expect("nasty")),
            4 => parts[word] = parts[word].repeat(random.random_range(1..200)),
            5 => parts.extend(lines.choose(random).cloned()),
            _ => parts[word] = format!("\"{}\"", parts[word]),
        }
        *line = parts.join(" ");
    }
    let mut bytes = text.join("\n").into_bytes();
    bytes.push(b'\n');
    for _ in 0..random.random_range(0..3) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    bytes
}

/// Says what was read, should the test end here.
struct Reading<'r> {
    seed: u64,
    number: u64,
    bytes: &'r [u8],
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}, number {}:\n{}", self.seed, self.number, String::from_utf8_lossy(self.bytes));
        }
    }
}

#[test]
fn mutated_configurations_never_panic() {
    let seconds = from_environment("EHPC_FUZZ_SECONDS").unwrap_or(1);
    let seed = from_environment("EHPC_FUZZ_SEED").unwrap_or_else(rand::random);
    let (lines, words) = dictionary();
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut number, mut fine) = (0_u64, 0_u64);
    while Instant::now() < end {
        let bytes = mutated(&mut random, &lines, &words);
        let reading = Reading { seed, number, bytes: &bytes };
        match load_bytes("fuzz.cfg", &bytes, Environment::default(), &machine()) {
            Ok(config) => {
                fine += 1;
                drop((config.without_meaning_notice(), warnings(&config, 1)));
            }
            Err(problems) => {
                assert!(!problems.0.is_empty());
                drop(alerts(&problems, 1));
            }
        }
        drop(reading);
        number += 1;
    }
    println!("seed {seed}: {number} configurations, {fine} accepted");
    assert!(number > 0);
}

/// Sizes that would hurt something quadratic or recursive.
#[test]
fn huge_configurations_end() {
    let many = |text: &str| text.repeat(20_000);
    for text in [
        format!("global\n{}", many(" maxconn\n")),
        format!("frontend f\n bind {}:1\n", many(":1,")),
        format!("frontend f\n bind {}:1\n", ":1-65535,".repeat(50)),
        many("frontend f\n"),
        format!("listen l\n{}", many(" server s 1.1.1.1:1\n")),
        format!(".if {}1\n.endif\n", many("!")),
        format!(".if {}1\n.endif\n", many("(")),
        many(".if 1\n"),
        format!("global\n description {}\n", many("\"${A-x}\"")),
        format!("global\n description {}\n", many("a ")),
        format!("backend b\n timeout client {}\n", many("9")),
    ] {
        let result = load_bytes("huge.cfg", text.as_bytes(), Environment::default(), &machine());
        drop(result);
    }
}
