//! The proxy with its real peer: HAProxy 2.6 and ours side by side, each with the same configuration, scripted servers
//! and a log of its own; the same raw bytes through both.

mod allowed;
mod backend;
mod borders;
mod case;
mod cases;
mod client;
mod compare;
mod crowd;
mod failover;
pub(crate) mod inside;
mod load;
mod message;
mod running;
pub(crate) mod side;
mod syslog;
mod web;
mod whole_guide;

use case::{Case, Group};
use compare::Difference;
use side::Side;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

/// Groups that run at the same time.
const AT_ONCE: usize = 6;

/// A moment that a script asks for.
pub(crate) fn pause(milliseconds: u64) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(milliseconds));
}

/// Debian's.
fn haproxy() -> PathBuf {
    PathBuf::from("/usr/sbin/haproxy")
}

/// The harness itself is deterministic: HAProxy never differs from HAProxy, and every case shows what it claims.
#[test]
fn haproxy_does_not_differ_from_haproxy() {
    inside::inside("proxy::haproxy_does_not_differ_from_haproxy", || side_by_side(&haproxy(), false));
}

/// Ours, called `haproxy`, does what HAProxy does, but for what `allowed` lists.
#[test]
fn does_what_haproxy_does() {
    inside::inside("proxy::does_what_haproxy_does", || {
        side_by_side(&ehpc_tools::process::executable(), true)
    });
}

/// Runs every group with HAProxy and with `program`. `EHPC_PEERS_ONLY` chooses groups and cases by a part of `group/case`.
fn side_by_side(program: &Path, with_allowed: bool) {
    let only = std::env::var("EHPC_PEERS_ONLY").unwrap_or_default();
    let mut groups = cases::all();
    for group in &mut groups {
        let name = group.name;
        group.cases.retain(|case| format!("{name}/{}", case.name).contains(&only));
    }
    groups.retain(|group| !group.cases.is_empty());
    let count: usize = groups.iter().map(|group| group.cases.len()).sum();
    let (queue, faults) = (Mutex::new(groups.iter().enumerate()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no thread panics").next();
                    let Some((number, group)) = next else { return };
                    let found = compare_group(program, group, number, with_allowed);
                    faults.lock().expect("no thread panics").extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no thread panics");
    println!("{count} cases in {} groups, {} differ", groups.len(), faults.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn compare_group(program: &Path, group: &Group, number: usize, with_allowed: bool) -> Vec<String> {
    let name = group.name;
    let mut reference = match Side::start(&haproxy(), group, number, 2) {
        Ok(side) => side,
        Err(error) => return vec![format!("{name}: HAProxy {error}")],
    };
    let mut ours = match Side::start(program, group, number, 3) {
        Ok(side) => side,
        Err(error) => return vec![format!("{name} ({} cases): ours {error}", group.cases.len())],
    };
    let mut faults = Vec::new();
    for case in &group.cases {
        let full = format!("{name}/{}", case.name);
        // What differs in times alone may be this machine's: it has to differ again.
        for attempt in 1..=3 {
            let (found, only_times) = compare_case(&mut reference, &mut ours, case, &full, with_allowed);
            if found.is_empty() {
                break;
            }
            if !only_times || attempt == 3 {
                faults.extend(found);
                break;
            }
            println!("{full}: differs in times, once more");
        }
        if faults.last().is_some_and(|fault| fault.contains("THE PROXY ENDED")) {
            return faults;
        }
    }
    faults
}

/// Runs a case at both: the faults, and whether they are about times only.
fn compare_case(
    reference: &mut Side,
    ours: &mut Side,
    case: &Case,
    full: &str,
    with_allowed: bool,
) -> (Vec<String>, bool) {
    let (theirs, mine) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| reference.run(case));
        let mine = ours.run(case);
        (theirs.join().expect("no panic"), mine)
    });
    if std::env::var_os("EHPC_PEERS_SHOW").is_some() {
        println!("==== {full}\n{theirs}");
    }
    let mut faults = Vec::new();
    for text in case.shows.iter().filter(|text| !theirs.contains(**text)) {
        faults.push(format!("{full}: HAProxy's transcript lacks {text:?}:\n{theirs}"));
    }
    if theirs.contains("TIMEOUT: ") {
        faults.push(format!("{full}: HAProxy kept the case waiting:\n{theirs}"));
    }
    let timeless = judge(full, compare::without_times(&theirs), &compare::without_times(&mine), with_allowed);
    let only_times = faults.is_empty() && timeless.is_none();
    faults.extend(judge(full, theirs, &mine, with_allowed));
    (faults, only_times)
}

/// What differs and may not.
fn judge(case: &str, mut theirs: String, mine: &str, with_allowed: bool) -> Option<String> {
    let allowed = allowed::LIST.iter().filter(|allowed| with_allowed && allowed.case == case);
    for allowed in allowed {
        match allowed.what {
            Difference::Text(reference, ours) if theirs.contains(reference) => {
                theirs = theirs.replace(reference, ours);
            }
            Difference::Text(reference, _) => {
                return Some(format!(
                    "{case}: {reference:?} is allowed to differ ({}) and is not there",
                    allowed.reason
                ));
            }
            Difference::Ours(texts) => {
                let missing: Vec<_> = texts.iter().filter(|text| !mine.contains(**text)).collect();
                if theirs == mine {
                    return Some(format!("{case}: allowed to differ ({}) and does not", allowed.reason));
                }
                return (!missing.is_empty()).then(|| {
                    format!(
                        "{case}: allowed to differ ({}), but ours lacks {missing:?}:\n{mine}",
                        allowed.reason
                    )
                });
            }
        }
    }
    compare::difference(&theirs, mine).map(|text| format!("{case} differs (- HAProxy, + ours):\n{text}"))
}
