//! Lines and whole files given to this parser and to the real `haproxy -c`: who accepts what, each difference with its
//! reason (tests/data/haproxy).

use super::*;
use std::collections::BTreeSet;
use std::process::Command;

/// Who accepts a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Verdict {
    ours: bool,
    haproxys: bool,
}

struct Case {
    place: String,
    line: String,
    expected: Verdict,
}

/// Reads `lines.txt`.
fn cases() -> Vec<Case> {
    let mut place = String::new();
    let mut cases = Vec::new();
    for line in include_str!("../../../tests/data/haproxy/lines.txt").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            place = name.to_owned();
            continue;
        }
        let Some((verdict, rest)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else { continue };
        let (text, reason) = rest.split_once(" ## ").map_or((rest, ""), |(text, reason)| (text, reason));
        let (ours, haproxys) = match verdict {
            "both" => (true, true),
            "neither" => (false, false),
            "ours" => (true, false),
            "haproxy" => (false, true),
            other => panic!("{other}: {line}"),
        };
        assert_eq!(
            ours != haproxys,
            !reason.is_empty(),
            "a difference, and only a difference, has a reason: {line}"
        );
        cases.push(Case {
            place: place.clone(),
            line: text.to_owned(),
            expected: Verdict { ours, haproxys },
        });
    }
    assert!(cases.len() > 300);
    cases
}

const DEFAULTS: &str = "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n";

/// One file with these lines, each in a section of its own, and each line's number in it.
fn file(cases: &[&Case]) -> (String, Vec<usize>) {
    let mut text = String::from("global\n");
    let mut numbers = Vec::new();
    let add = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
        text.lines().count()
    };
    for case in cases.iter().filter(|case| case.place == "global") {
        numbers.push(add(&mut text, &format!(" {}", case.line)));
    }
    text.push_str(DEFAULTS);
    for (number, case) in cases.iter().enumerate().filter(|(_, case)| case.place != "global") {
        add(&mut text, &format!("listen l{number}"));
        let line = &case.line;
        let number = match case.place.as_str() {
            "bind" => add(&mut text, &format!(" bind {line}")),
            "server" => {
                add(&mut text, " bind 127.0.0.1:1");
                add(&mut text, &format!(" server a {line}"))
            }
            _ => {
                add(&mut text, " bind 127.0.0.1:1");
                let number = add(&mut text, &format!(" {line}"));
                add(&mut text, " server a 127.0.0.1:1");
                number
            }
        };
        numbers.push(number);
    }
    // What rules may name.
    text.push_str("frontend z\n bind 127.0.0.1:2\nbackend x0\n server a 127.0.0.1:1\n");
    text.push_str("backend y0\n stick-table type ip size 10\n");
    (text, numbers)
}

/// What HAProxy says of one file.
fn haproxy(text: &str) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.cfg");
    std::fs::write(&path, text).expect("the file");
    let output =
        Command::new("haproxy").args(["-c", "-f"]).arg(&path).output().expect("haproxy is installed");
    // 2: no error, but no listener either.
    (matches!(output.status.code(), Some(0 | 2)), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Those of `cases` that HAProxy judges otherwise. Most are judged together: a file of accepted lines is accepted,
/// and its complaints name the lines that it refuses. What is left is judged alone.
fn judged_otherwise(cases: &[&Case]) -> Vec<String> {
    let (accepted, refused): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.expected.haproxys);
    let mut alone = Vec::new();
    if !haproxy(&file(&accepted).0).0 {
        alone.extend(accepted);
    }
    let (text, numbers) = file(&refused);
    let (_, complaints) = haproxy(&text);
    let named = |number: &usize| complaints.contains(&format!("x.cfg:{number}]"));
    alone.extend(refused.iter().zip(&numbers).filter(|(_, number)| !named(number)).map(|(case, _)| *case));
    let mut faults = Vec::new();
    for case in alone {
        let (accepted, why) = haproxy(&file(&[case]).0);
        if accepted != case.expected.haproxys {
            faults.push(format!("[{}] {}: haproxy accepts: {accepted}\n{why}", case.place, case.line));
        }
    }
    faults
}

#[test]
fn lines_are_accepted_and_refused_as_by_haproxy() {
    let cases = cases();
    let mut faults = Vec::new();
    for case in &cases {
        let (text, numbers) = file(&[case]);
        let ours = load_bytes("x.cfg", text.as_bytes(), Environment::default(), &Surroundings::here());
        if ours.is_ok() != case.expected.ours {
            let why = ours.err().map(|problems| problems.to_string()).unwrap_or_default();
            faults.push(format!(
                "[{}] {}: ours accepts: {}\n{why}",
                case.place, case.line, !case.expected.ours
            ));
        } else if let Err(problems) = ours {
            let there = |site: &Site| matches!(site, Site::At { line, .. } if [*line] == numbers[..]);
            if !problems.0.iter().all(|problem| there(&problem.site)) {
                faults.push(format!("[{}] {}: not at its line: {problems}", case.place, case.line));
            }
        }
    }
    let places: BTreeSet<&str> = cases.iter().map(|case| case.place.as_str()).collect();
    assert_eq!(places.iter().copied().collect::<Vec<_>>(), ["bind", "global", "listen", "rules", "server"]);
    for place in places {
        let there: Vec<&Case> = cases.iter().filter(|case| case.place == place).collect();
        faults.extend(judged_otherwise(&there));
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// Whole files of tests/data/haproxy/files.txt.
#[test]
fn files_are_accepted_and_refused_as_by_haproxy() {
    let mut faults = Vec::new();
    let mut count = 0;
    for part in include_str!("../../../tests/data/haproxy/files.txt").split("\n==== ").skip(1) {
        let (head, text) = part.split_once('\n').expect("a head and a file");
        let (verdict, name) = head.split_once(' ').expect("a verdict and a name");
        let (name, reason) = name.split_once(" ## ").map_or((name, ""), |(name, reason)| (name, reason));
        let (ours, haproxys) = match verdict {
            "both" => (true, true),
            "neither" => (false, false),
            "ours" => (true, false),
            "haproxy" => (false, true),
            other => panic!("{other}: {name}"),
        };
        assert_eq!(ours != haproxys, !reason.is_empty(), "{name}");
        count += 1;
        let text = text.replace("DEFAULTS\n", DEFAULTS) + "\n";
        let found = load_bytes("x.cfg", text.as_bytes(), Environment::default(), &Surroundings::here());
        if found.is_ok() != ours {
            let why = found.err().map(|problems| problems.to_string()).unwrap_or_default();
            faults.push(format!("{name}: ours accepts: {}\n{why}", !ours));
        }
        let (accepted, why) = haproxy(&text);
        if accepted != haproxys {
            faults.push(format!("{name}: haproxy accepts: {accepted}\n{why}"));
        }
    }
    assert!(count > 50);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The larger files: HAProxy reads those in its modern spelling too.
#[test]
fn haproxy_reads_the_modern_files_too() {
    for text in [
        include_str!("../../../tests/data/haproxy/web-cluster.cfg"),
        include_str!("../../../tests/data/haproxy/debian-12.cfg"),
    ] {
        let (accepted, why) = haproxy(text);
        assert!(accepted, "{why}");
    }
}
