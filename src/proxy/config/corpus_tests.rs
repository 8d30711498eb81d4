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

/// A file with the line, and the line's number in it.
fn file(case: &Case, number: usize) -> (String, usize) {
    let defaults = "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n";
    let line = &case.line;
    let (bind, line, server) = match case.place.as_str() {
        "global" => return (format!("global\n {line}\n{defaults}listen x\n bind 127.0.0.1:1\n"), 2),
        "bind" => (format!(" bind {line}"), String::new(), String::new()),
        "server" => (" bind 127.0.0.1:1".to_owned(), String::new(), format!(" server a {line}")),
        _ => (" bind 127.0.0.1:1".to_owned(), format!(" {line}"), " server a 127.0.0.1:1".to_owned()),
    };
    let at = if case.place == "bind" {
        7
    } else if case.place == "server" {
        9
    } else {
        8
    };
    (format!("{defaults}listen x{number}\n{bind}\n{line}\n{server}\n"), at)
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

/// All cases of one kind of verdict in as few runs of HAProxy as it takes: what it accepts in one file, what it
/// refuses one by one, two at a time.
#[test]
fn lines_are_accepted_and_refused_as_by_haproxy() {
    let cases = cases();
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (text, at) = file(case, number);
        let ours = load_bytes("x.cfg", text.as_bytes(), Environment::default(), &Surroundings::here());
        if ours.is_ok() != case.expected.ours {
            let why = ours.err().map(|problems| problems.to_string()).unwrap_or_default();
            faults.push(format!(
                "[{}] {}: ours accepts: {}\n{why}",
                case.place, case.line, !case.expected.ours
            ));
        } else if let Err(problems) = ours {
            let right =
                problems.0.iter().all(|problem| matches!(problem.site, Site::At { line, .. } if line == at));
            if !right {
                faults.push(format!("[{}] {}: not at its line {at}: {problems}", case.place, case.line));
            }
        }
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let judge = || {
        let mut faults = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let (text, _) = file(case, 0);
            let (accepted, why) = haproxy(&text);
            if accepted != case.expected.haproxys {
                faults.push(format!("[{}] {}: haproxy accepts: {accepted}\n{why}", case.place, case.line));
            }
        }
        faults
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(judge);
        faults.extend(judge());
        faults.extend(second.join().expect("no panic"));
    });
    let places: BTreeSet<&str> = cases.iter().map(|case| case.place.as_str()).collect();
    assert_eq!(places.into_iter().collect::<Vec<_>>(), ["bind", "global", "listen", "server"]);
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
        let defaults = "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n";
        let text = text.replace("DEFAULTS\n", defaults) + "\n";
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
