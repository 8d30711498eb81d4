//! Changes, compared with the lines that HAProxy 2.6.12 logged for the same events.

use super::super::backend::tests::{policy, server};
use super::super::{Method, Policy};
use super::*;
use crate::proxy::config::model::{self, ServerCheck};
use std::time::Duration;

fn checked(name: &str, change: impl FnOnce(&mut model::Server)) -> model::Server {
    server(name, |server| {
        let inter = Duration::from_millis(300);
        let (fastinter, downinter) = (None, None);
        server.check =
            Some(ServerCheck { inter, fastinter, downinter, rise: 2, fall: 3, port: None, address: None });
        change(server);
    })
}

fn backend(servers: &[model::Server], log_checks: bool) -> Arc<Backend> {
    Backend::build(servers, Policy { log_checks, ..policy(Method::RoundRobin) })
}

/// What was told since the last call: the severity's number, then the line.
fn told(backend: &Backend) -> Vec<String> {
    let shown = |happening| match happening {
        Happening::Line(_, severity, line) => format!("{} {line}", severity as u8),
        Happening::ShutSessions(_, server) => format!("shut {server}"),
    };
    backend.news.take().into_iter().map(shown).collect()
}

fn ok() -> CheckReport {
    CheckReport::new(CheckStatus::Layer7Ok).with_code(200)
}

fn refused() -> CheckReport {
    CheckReport::new(CheckStatus::Layer4Connection).with_info("Connection refused")
}

fn missing() -> CheckReport {
    CheckReport::new(CheckStatus::Layer7Conditional).with_code(404)
}

#[test]
fn checks_bring_down_and_up_with_their_reason() {
    let backend = backend(&[checked("h", |_| {}), checked("t", |_| {})], false);
    backend.report(0, ok());
    backend.report(0, refused());
    backend.report(0, refused());
    assert!(told(&backend).is_empty());
    backend.report(0, refused());
    assert_eq!(
        told(&backend),
        [
            "1 Server b/h is DOWN, reason: Layer4 connection problem, info: \"Connection refused\", check duration: \
          0ms. 1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."
        ]
    );
    assert_eq!((backend.usable(), backend.servers[0].operation()), ((1, 0), Operation::Stopped));
    backend.report(1, refused());
    let lines = told(&backend);
    assert_eq!(lines[1..], ["0 backend b has no server available!"]);
    backend.report(0, ok());
    assert!(told(&backend).is_empty());
    backend.report(0, ok());
    assert_eq!(
        told(&backend),
        [
            "5 Server b/h is UP, reason: Layer7 check passed, code: 200, check duration: 0ms. 1 active and 0 backup \
          servers online. 0 sessions requeued, 0 total in queue."
        ]
    );
    let counters = &backend.servers[0].counters;
    assert_eq!((counters.failed_checks.get(), counters.downs.get(), backend.counters.downs.get()), (3, 1, 1));
}

#[test]
fn every_change_of_a_check_is_told_when_asked_for() {
    let backend = backend(&[checked("t", |_| {}), server("bk", |s| s.backup = true)], true);
    backend.report(0, ok());
    backend.report(0, ok());
    for _ in 0..4 {
        backend.report(0, CheckReport::new(CheckStatus::Layer7Status).with_code(500).with_info("X"));
    }
    let failed = "failed, reason: Layer7 wrong status, code: 500, info: \"X\", check duration: 0ms, status:";
    assert_eq!(
        told(&backend),
        [
            "5 Health check for server b/t succeeded, reason: Layer7 check passed, code: 200, check duration: 0ms, \
             status: 3/3 UP."
                .to_owned(),
            format!("5 Health check for server b/t {failed} 2/3 UP."),
            format!("5 Health check for server b/t {failed} 1/3 UP."),
            format!("5 Health check for server b/t {failed} 0/2 DOWN."),
            "1 Server b/t is DOWN. 0 active and 1 backup servers left. Running on backup. 0 sessions active, 0 \
             requeued, 0 remaining in queue."
                .to_owned(),
        ]
    );
}

#[test]
fn a_missing_page_stops_a_server_slowly() {
    let backend = backend(&[checked("h", |_| {}), server("bk", |s| s.backup = true)], false);
    backend.report(0, ok());
    backend.report(0, missing());
    assert_eq!(
        told(&backend),
        [
            "5 Server b/h is stopping, reason: Layer7 check conditionally passed, code: 404, check duration: 0ms. 0 \
          active and 1 backup servers online. Running on backup. 0 sessions requeued, 0 total in queue."
        ]
    );
    assert!(backend.servers[0].is_up() && !backend.servers[0].takes_new());
    backend.report(0, ok());
    assert_eq!(
        told(&backend),
        [
            "5 Server b/h is UP, reason: Layer7 check passed, code: 200, check duration: 0ms. 1 active and 1 backup \
          servers online. 0 sessions requeued, 0 total in queue."
        ]
    );
    backend.report(0, missing());
    told(&backend);
    (0..3).for_each(|_| backend.report(0, refused()));
    let lines = told(&backend);
    assert!(lines[0].starts_with("5 Server b/h is DOWN, "), "who was stopping is no alert: {lines:?}");
    backend.report(0, missing());
    let last = backend.servers[0].checked().unwrap().last;
    assert_eq!(last.status, CheckStatus::Layer7Status, "it does not bring up who is down");
}

#[test]
fn the_operator_is_told_what_the_operator_did() {
    let servers = [checked("h", |_| {}), checked("t", |_| {}), server("bk", |s| s.backup = true)];
    let backend = backend(&servers, false);
    let (maint, drain) = (Administration::MAINTENANCE, Administration::DRAIN);
    let left = "0 sessions active, 0 requeued, 0 remaining in queue.";
    let steps: [(usize, u8, u8, &[&str]); 12] = [
        (
            0,
            drain,
            0,
            &["5 Server b/h enters drain state. 1 active and 1 backup servers online. 0 sessions \
                         requeued, 0 total in queue."],
        ),
        (0, 0, drain | maint, &["5 Server b/h is UP (leaving forced drain)."]),
        (
            1,
            maint,
            0,
            &["1 Server b/t is going DOWN for maintenance. 1 active and 1 backup servers left. LEFT"],
        ),
        (
            1,
            drain,
            maint,
            &[
                "5 Server b/t is UP/DRAIN (leaving forced maintenance).",
                "5 Server b/t remains in forced drain mode.",
            ],
        ),
        (1, 0, drain | maint, &["5 Server b/t is UP (leaving forced drain)."]),
        (
            0,
            maint,
            0,
            &["1 Server b/h is going DOWN for maintenance. 1 active and 1 backup servers left. LEFT"],
        ),
        (
            1,
            maint,
            0,
            &["1 Server b/t is going DOWN for maintenance. 0 active and 1 backup servers left. Running \
                         on backup. LEFT"],
        ),
        (
            2,
            maint,
            0,
            &[
                "1 Backup Server b/bk is going DOWN for maintenance. 0 active and 0 backup servers left. LEFT",
                "0 backend b has no server available!",
            ],
        ),
        (0, 0, drain | maint, &["5 Server b/h is UP/READY (leaving forced maintenance)."]),
        (2, 0, drain | maint, &["5 Backup Server b/bk is UP/READY (leaving forced maintenance)."]),
        (
            2,
            drain,
            0,
            &["5 Backup Server b/bk enters drain state. 1 active and 0 backup servers online. 0 \
                         sessions requeued, 0 total in queue."],
        ),
        (2, drain, 0, &[]),
    ];
    for (number, (server, set, clear, lines)) in steps.into_iter().enumerate() {
        backend.set_administration(server, set, clear);
        let expected: Vec<String> = lines.iter().map(|line| line.replace("LEFT", left)).collect();
        assert_eq!(told(&backend), expected, "step {number}");
    }
}

#[test]
fn health_set_by_the_operator_and_weight_zero() {
    let backend = backend(&[checked("h", |_| {})], false);
    backend.set_weight(0, 0);
    assert_eq!(told(&backend), ["0 backend b has no server available!"]);
    backend.set_weight(0, 1);
    backend.set_operation(0, Operation::Stopped);
    backend.set_operation(0, Operation::Stopping);
    backend.set_operation(0, Operation::Running);
    backend.set_operation(0, Operation::Running);
    let online = "servers online. 0 sessions requeued, 0 total in queue.";
    assert_eq!(
        told(&backend),
        [
            "1 Server b/h is DOWN, changed from CLI. 0 active and 0 backup servers left. 0 sessions active, 0 \
             requeued, 0 remaining in queue."
                .to_owned(),
            "0 backend b has no server available!".to_owned(),
            format!("5 Server b/h is stopping, changed from CLI. 0 active and 0 backup {online}"),
            format!("5 Server b/h is UP, changed from CLI. 1 active and 0 backup {online}"),
        ]
    );
}

#[test]
fn a_server_that_is_down_enters_maintenance_quietly_and_leaves_it_up() {
    let backend = backend(&[checked("x", |_| {}), server("y", |_| {})], false);
    backend.report(0, refused());
    told(&backend);
    backend.set_administration(0, Administration::MAINTENANCE, 0);
    backend.report(0, refused());
    assert_eq!(told(&backend), ["5 Server b/x was DOWN and now enters maintenance."]);
    backend.make_ready(0);
    assert_eq!(told(&backend), ["5 Server b/x is UP/READY (leaving forced maintenance)."]);
    assert!(backend.servers[0].takes_new());
    backend.report(0, refused());
    assert!(
        told(&backend)[0].starts_with("1 Server b/x is DOWN, "),
        "and the first bad check brings it down"
    );
}

#[test]
fn sessions_are_shut_when_asked_for() {
    let servers = [
        checked("a", |s| s.shutdown_sessions_when_down = true),
        checked("b", |s| s.shutdown_backup_sessions_when_up = true),
        server("c", |s| s.backup = true),
    ];
    let backend = backend(&servers, false);
    backend.report(0, refused());
    assert_eq!(told(&backend)[1..], ["shut 0"]);
    backend.report(1, refused());
    told(&backend);
    backend.report(1, ok());
    backend.report(1, ok());
    assert_eq!(told(&backend)[1..], ["shut 2"]);
}

#[test]
fn a_server_with_slowstart_warms_up() {
    let backend =
        backend(&[checked("a", |s| s.slowstart = Some(Duration::from_secs(10))), server("b", |_| {})], false);
    let warmth = || backend.servers[0].warmth.load(Ordering::SeqCst);
    assert_eq!(warmth(), 100, "not at the start");
    backend.report(0, refused());
    backend.report(0, ok());
    backend.report(0, ok());
    assert_eq!((backend.servers[0].operation(), warmth()), (Operation::Starting, 6));
    let since = backend.servers[0].last_change.load(Ordering::SeqCst);
    backend.warm(since + 5);
    assert_eq!((backend.servers[0].operation(), warmth()), (Operation::Starting, 50));
    backend.warm(since + 10);
    assert_eq!((backend.servers[0].operation(), warmth()), (Operation::Running, 100));
}

#[test]
fn time_without_servers_is_counted() {
    let backend = backend(&[checked("a", |_| {})], false);
    backend.report(0, refused());
    let since = backend.servers[0].last_change.load(Ordering::SeqCst);
    assert_eq!((backend.servers[0].down_time(since + 7), backend.down_time(since + 7)), (7, 7));
    backend.servers[0].last_change.fetch_sub(5, Ordering::SeqCst);
    backend.report(0, ok());
    backend.report(0, ok());
    let (now, counted) = (super::super::seconds(), backend.servers[0].down_time(super::super::seconds()));
    assert!((5..=6).contains(&counted), "{counted}");
    assert_eq!(backend.servers[0].down_time(now + 100), counted, "no more while it is up");
}
