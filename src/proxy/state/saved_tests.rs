//! States that are written, read again, and read from HAProxy's own text.

use super::super::Happening;
use super::*;
use crate::proxy::config::{Environment, Surroundings, load_bytes};

const TEXT: &str = "defaults
 mode http
 timeout connect 1s
 timeout client 1s
 timeout server 1s
backend dead
 server x 127.0.0.1:36485 check rise 2 fall 3
backend http
 server h 127.0.0.1:44777 check rise 2 fall 3
 server t 127.0.0.1:43531 check rise 2 fall 3
 server bk 127.0.0.1:38755 backup
 server off 127.0.0.1:1 disabled
";

/// What HAProxy 2.6.12 answered to `show servers state` (with `off` added).
const HAPROXYS: &str = "1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 dead 1 x 127.0.0.1 0 0 1 1 23 8 2 0 6 0 0 0 - 36485 - 0 0 - - 0
4 http 1 h 127.0.0.1 3 0 1 1 17 16 4 4 6 0 0 0 - 44777 - 0 0 - - 0
4 http 2 t 127.0.0.1 2 8 50 1 2 8 2 3 6 0 0 0 - 43531 - 0 0 - - 0
4 http 3 bk 127.0.0.1 0 1 1 1 23 1 0 0 0 0 0 0 - 38755 - 0 0 - - 0
4 http 4 off 127.0.0.1 2 4 7 1 5 1 0 2 8 0 0 0 - 1 - 0 0 - - 0
9 gone 1 x 127.0.0.1 0 0 1 1 23 8 2 0 6 0 0 0 - 1 - 0 0 - - 0
";

fn running(text: &str) -> Arc<Running> {
    let config = load_bytes("test.cfg", text.as_bytes(), Environment::new([]), &Surroundings::none());
    Running::new(Arc::new(config.unwrap()), 100)
}

/// The words of each server's line that are the same in every process.
fn lines(running: &Running, now: u64) -> Vec<String> {
    let words = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        [&words[1..2], &words[3..15]].concat().join(" ")
    };
    save(running, None, now).lines().skip(2).map(words).collect()
}

#[test]
fn haproxys_states_are_taken_over() {
    let running = running(TEXT);
    assert_eq!(restore(&running, HAPROXYS, 1_000_000), 5);
    let expected: Vec<String> = HAPROXYS
        .lines()
        .skip(2)
        .filter(|line| !line.contains("gone"))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            [&words[1..2], &words[3..15]].concat().join(" ")
        })
        .collect();
    assert_eq!(lines(&running, 1_000_000), expected);
    let backend = running.proxies[1].backend.as_ref().unwrap();
    assert_eq!(backend.usable(), (1, 0), "h is stopping, t drains, bk is in maintenance, off was enabled");
    assert_eq!(running.proxies[0].backend.as_ref().unwrap().usable(), (0, 0));
    assert!(running.news.take().is_empty(), "nothing has happened");
}

#[test]
fn what_was_saved_is_restored() {
    let before = running(TEXT);
    restore(&before, HAPROXYS, 1_000_000);
    let after = running(TEXT);
    assert_eq!(restore(&after, &save(&before, None, 1_000_010), 1_000_010), 5);
    assert_eq!(lines(&after, 1_000_020), lines(&before, 1_000_020));
}

#[test]
fn what_the_file_says_now_wins() {
    let changed = TEXT
        .replace("server t 127.0.0.1:43531", "server t 127.0.0.1:43531 weight 9")
        .replace("server bk 127.0.0.1:38755 backup", "server bk 127.0.0.1:38755")
        .replace("server off 127.0.0.1:1 disabled", "server off 127.0.0.1:1")
        .replace("server h 127.0.0.1:44777 check rise 2 fall 3", "server h 127.0.0.1:44777 disabled")
        .replace("36485 check", "36485");
    let running = running(&changed);
    let text = HAPROXYS.replace("off 127.0.0.1 2 4", "off 127.0.0.1 0 5");
    restore(&running, &text, 1_000_000);
    let backend = running.proxies[1].backend.as_ref().unwrap();
    let [h, t, bk, off] = &backend.servers[..] else { panic!() };
    assert!(h.is_in_maintenance(), "newly disabled");
    assert_eq!(t.weight.load(Ordering::SeqCst), 9, "a new weight");
    assert!(bk.is_in_maintenance(), "the operator's maintenance stays");
    assert!(off.takes_new(), "no longer disabled by the file");
    assert!(running.proxies[0].backend.as_ref().unwrap().servers[0].takes_new(), "no longer checked: up");
}

#[test]
fn a_server_that_was_down_needs_as_many_good_checks_as_ever() {
    let running = running(TEXT);
    restore(&running, HAPROXYS, 1_000_000);
    let backend = running.proxies[0].backend.as_ref().unwrap();
    backend.report(0, CheckReport::new(CheckStatus::Layer4Ok));
    assert!(!backend.servers[0].is_up());
    backend.report(0, CheckReport::new(CheckStatus::Layer4Ok));
    assert!(backend.servers[0].is_up());
    let told = running.news.take();
    assert!(
        matches!(&told[..], [Happening::Line(0, _, line)] if line.starts_with("Server dead/x is UP")),
        "{told:?}"
    );
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let running = running(TEXT);
    let untouched = lines(&running, 5);
    let mut number = 0_usize;
    for text in
        ["", "1", "2\n4 http 1 h 127.0.0.1 0 1 1", "1\n4 http 1 h", "1\n4 http 1 h - x y z 1 1 1 1 1 1 1"]
    {
        assert_eq!(restore(&running, text, 5), 0);
    }
    while number < HAPROXYS.len() {
        // Cut anywhere: never a panic.
        restore(&self::running(TEXT), &HAPROXYS[..number], 5);
        number += 37;
    }
    assert_eq!(lines(&running, 5), untouched);
}

#[test]
fn a_checked_server_in_maintenance_has_no_points() {
    let running = running(TEXT);
    let backend = running.proxies[1].backend.as_ref().unwrap();
    backend.set_administration(0, Administration::MAINTENANCE, 0);
    assert_eq!(lines(&running, super::super::seconds())[1], "http h 127.0.0.1 0 1 1 1 0 1 0 0 14 0");
}

#[test]
fn states_are_read_from_the_files_that_are_named() {
    let text = format!("global\n server-state-file all\n server-state-base /states\n{TEXT}")
        .replace("backend dead\n", "backend dead\n load-server-state-from-file global\n")
        .replace("backend http\n", "backend http\n load-server-state-from-file local\n");
    let running = running(&text);
    let read = |path: &Path| match path.to_str() {
        Some("/states/all") => Ok(HAPROXYS.to_owned()),
        Some("/states/http") => Ok("2\nother".to_owned()),
        other => panic!("{other:?}"),
    };
    let (states, warnings) = read_states(&running.config, read);
    assert_eq!(warnings, ["/states/http: not a file of server states of version 1"]);
    assert_eq!(
        restore(&running, &states, 1_000_000),
        1,
        "of the file of all, only who asks for it: {states}"
    );
    assert_eq!(running.proxies[0].backend.as_ref().unwrap().usable(), (0, 0));
    let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    assert_eq!(read_states(&running.config, missing), ("1\n".to_owned(), Vec::new()));
}

#[test]
fn what_the_process_before_says_counts_more_than_a_file() {
    let running = running(TEXT);
    let later =
        HAPROXYS.replace("dead 1 x 127.0.0.1 0 0 1 1 23 8 2 0 6", "dead 1 x 127.0.0.1 2 0 1 1 23 6 3 4 6");
    restore(&running, &(HAPROXYS.to_owned() + &later), 1_000_000);
    assert_eq!(running.proxies[0].backend.as_ref().unwrap().usable(), (1, 0));
}
