//! Our own reloads lose nothing, however often, and with fewer or more threads.

use super::load::{Load, echo};
use super::process::{HAPROXY, Place, Proxy, listening, wait_listening};
use crate::proxy::inside::inside;
use std::net::SocketAddr;

/// Where the tests' proxies listen; the network is the test's own.
pub(crate) const FRONT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub(crate) fn relay(global: &str, server: SocketAddr) -> String {
    format!(
        "global\n maxconn 2000\n{global}\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         frontend front\n bind 127.0.0.1:8080\n default_backend back\nbackend back\n server s {server}\n"
    )
}

#[test]
fn reloads_without_a_master_lose_nothing() {
    inside("proxy_process::reload::reloads_without_a_master_lose_nothing", || {
        let server = echo();
        let place = Place::new(&relay("nbthread 2", server));
        let mut proxy = place.start(&place.ours, &["-db"]);
        wait_listening(FRONT, &mut proxy);
        assert_eq!(listening(FRONT).len(), 2, "one socket a thread");
        let load = Load::start(FRONT, 4, 4);
        let sockets = listening(FRONT);
        let mut gone = Vec::new();
        for round in 0..15 {
            place.configure(&relay(["nbthread 1", "nbthread 4", "nbthread 2"][round % 3], server));
            let next = place.start(&place.ours, &["-db", "-sf", &proxy.pid().to_string()]);
            gone.push(std::mem::replace(&mut proxy, next));
            let before = gone.last_mut().expect("pushed");
            before.wait_until_said("Proxy front stopped");
            load.wait_for(200);
            assert_eq!(listening(FRONT), sockets, "the same sockets, none more, none less");
        }
        println!("{} connections over 15 reloads", load.end());
        for process in &mut gone {
            assert!(process.ended().success(), "{}", process.said());
        }
        assert!(!proxy.said().contains("WARNING"), "{}", proxy.said());
    });
}

#[test]
fn reloads_in_the_background_lose_nothing() {
    inside("proxy_process::reload::reloads_in_the_background_lose_nothing", || {
        let place = Place::new(&relay("nbthread 2\n daemon\n pidfile {dir}/pid", echo()));
        let run = |more: &[&str]| {
            let mut starter = place.start(&place.ours, more);
            assert!(starter.ended().success(), "{}", starter.said());
            let pid = std::fs::read_to_string(place.path("pid")).expect("written");
            pid.trim().parse::<i32>().expect("a number")
        };
        let mut pid = run(&[]);
        let load = Load::start(FRONT, 4, 2);
        let mut pids = vec![pid];
        for _ in 0..8 {
            pid = run(&["-sf", &pid.to_string()]);
            pids.push(pid);
            load.wait_for(200);
        }
        println!("{} connections over 8 reloads", load.end());
        super::process::send("TERM", pid);
        for pid in pids {
            super::process::until("a process ends", || {
                !std::path::Path::new(&format!("/proc/{pid}")).exists()
            });
        }
    });
}

/// One command of a `stats socket`.
fn command(socket: &std::path::Path, line: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connects");
    std::io::Write::write_all(&mut stream, format!("{line}\n").as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("answered");
    answer
}

/// (operation, administration, weight) of `show servers state`.
fn state(socket: &std::path::Path) -> (String, String, String) {
    let text = command(socket, "show servers state");
    let line = text
        .lines()
        .find(|line| line.contains(" back 1 s "))
        .unwrap_or_else(|| panic!("no server in {text}"));
    let words: Vec<&str> = line.split(' ').collect();
    (words[5].to_owned(), words[6].to_owned(), words[7].to_owned())
}

#[test]
fn what_was_said_of_servers_survives_a_reload() {
    inside("proxy_process::reload::what_was_said_of_servers_survives_a_reload", || {
        let server = echo();
        let text = relay("stats socket {dir}/admin level admin", server)
            .replace(&format!("s {server}"), &format!("s {server} weight 10"));
        let place = Place::new(&text);
        let admin = place.path("admin");
        let mut proxy = place.start(&place.ours, &["-W"]);
        proxy.wait_until_said("Loading success.");
        let told = |line| assert_eq!(command(&admin, line).trim(), "", "{line}");
        told("set server back/s weight 33");
        told("set server back/s state drain");
        let said = state(&admin);
        assert_eq!(said.2, "33");
        proxy.signal("USR2");
        proxy.wait_until_said_times("Loading success.", 2);
        assert_eq!(state(&admin), said, "with a master");
        proxy.signal("TERM");
        proxy.ended();
        let mut proxy = place.start(&place.ours, &["-db"]);
        wait_listening(FRONT, &mut proxy);
        told("set server back/s weight 44");
        told("set server back/s state maint");
        let said = state(&admin);
        let mut next = place.start(&place.ours, &["-db", "-sf", &proxy.pid().to_string()]);
        proxy.wait_until_said("Proxy front stopped");
        proxy.ended();
        assert_eq!(state(&admin), said, "without a master");
        // What was changed in the file wins; what was not, stays.
        place.configure(&text.replace("weight 10", "weight 20"));
        let last = place.start(&place.ours, &["-db", "-sf", &next.pid().to_string()]);
        next.ended();
        assert_eq!(state(&admin), (said.0, said.1, "20".to_owned()), "{}", last.said());
    });
}

#[test]
fn terminating_the_old_process_takes_its_connections_and_no_new_ones() {
    inside(
        "proxy_process::reload::terminating_the_old_process_takes_its_connections_and_no_new_ones",
        || {
            let place = Place::new(&relay("nbthread 2", echo()));
            let mut first = place.start(&place.ours, &["-db"]);
            wait_listening(FRONT, &mut first);
            let mut kept = std::net::TcpStream::connect(FRONT).expect("connects");
            std::io::Write::write_all(&mut kept, b"x").expect("sent");
            std::io::Read::read_exact(&mut kept, &mut [0]).expect("answered");
            let _second: Proxy = place.start(&place.ours, &["-db", "-st", &first.pid().to_string()]);
            let status = first.ended();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{}", first.said());
            let ended = std::io::Read::read(&mut kept, &mut [0]);
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            Load::start(FRONT, 2, 0).end();
        },
    );
}

/// `-st`: what the old process has is cut, at most once a client; nobody is turned away.
#[test]
fn terminating_the_old_process_under_load_cuts_only_what_it_had() {
    inside("proxy_process::reload::terminating_the_old_process_under_load_cuts_only_what_it_had", || {
        const CLIENTS: usize = 6;
        const ROUNDS: usize = 8;
        let place = Place::new(&relay("nbthread 2", echo()));
        let mut proxy = place.start(&place.ours, &["-db"]);
        wait_listening(FRONT, &mut proxy);
        let load = Load::start(FRONT, CLIENTS, 0);
        for _ in 0..ROUNDS {
            let next = place.start(&place.ours, &["-db", "-st", &proxy.pid().to_string()]);
            let mut old = std::mem::replace(&mut proxy, next);
            old.ended();
            load.wait_for(200);
        }
        load.end_excusing(CLIENTS * ROUNDS);
    });
}

/// As HAProxy: a warning, and `K` in the log of whoever was still there.
#[test]
fn a_soft_stop_that_lasts_too_long_becomes_a_hard_one() {
    inside("proxy_process::reload::a_soft_stop_that_lasts_too_long_becomes_a_hard_one", || {
        let text = relay("log {dir}/log local0\n hard-stop-after 1s\n nbthread 2", echo());
        let place = Place::new(&text.replace("mode tcp", "mode tcp\n log global\n option tcplog"));
        for program in [HAPROXY.as_ref(), place.ours.as_path()] {
            let log = place.path("log");
            let _ = std::fs::remove_file(&log);
            let log = super::start::receiver(&log);
            let mut proxy = place.start(program, &["-db"]);
            wait_listening(FRONT, &mut proxy);
            let mut kept = std::net::TcpStream::connect(FRONT).expect("connects");
            std::io::Write::write_all(&mut kept, b"x").expect("sent");
            std::io::Read::read_exact(&mut kept, &mut [0]).expect("answered");
            proxy.signal("USR1");
            assert!(proxy.ended().success(), "{}", proxy.said());
            assert_eq!(std::io::Read::read(&mut kept, &mut [0]).expect("closed"), 0);
            let said = proxy.said();
            let hard = "soft-stop running for too long, performing a hard-stop.";
            let left = "Proxy front hard-stopped (1 remaining conns will be closed).";
            assert!(said.contains(hard) && said.contains(left), "{}: {said}", program.display());
            let mut lines = Vec::new();
            while !lines.last().is_some_and(|line: &String| line.contains(" front back/s ")) {
                lines.push(super::start::line(&log));
            }
            assert!(lines.iter().any(|line| line.ends_with(&format!("{hard}\n"))), "{lines:#?}");
            assert!(lines.iter().any(|line| line.ends_with(&format!("{left}\n"))), "{lines:#?}");
            let line = lines.last().expect("there is one");
            assert!(line.contains(" 1 K- 1/1/0/0/0 0/0"), "{}: {line}", program.display());
        }
    });
}

/// Whichever thread has what is left: the limit, and signals, are obeyed.
#[test]
fn a_soft_stop_on_many_threads_still_obeys() {
    inside("proxy_process::reload::a_soft_stop_on_many_threads_still_obeys", || {
        let server = echo();
        let connect = || {
            let mut kept = std::net::TcpStream::connect(FRONT).expect("connects");
            std::io::Write::write_all(&mut kept, b"x").expect("sent");
            std::io::Read::read_exact(&mut kept, &mut [0]).expect("answered");
            kept
        };
        let place = Place::new("");
        for clients in [1, 1, 1, 6] {
            place.configure(&relay("hard-stop-after 1s\n nbthread 4", server));
            let mut proxy = place.start(&place.ours, &["-db"]);
            wait_listening(FRONT, &mut proxy);
            let kept: Vec<_> = (0..clients).map(|_| connect()).collect();
            proxy.signal("USR1");
            assert!(proxy.ended().success(), "{}", proxy.said());
            let left = format!("Proxy front hard-stopped ({clients} remaining conns will be closed).");
            assert!(proxy.said().contains(&left), "{}", proxy.said());
            drop(kept);
        }
        for (signal, number) in [("TERM", 15), ("INT", 2), ("TERM", 15), ("INT", 2)] {
            place.configure(&relay("nbthread 4", server));
            let mut proxy = place.start(&place.ours, &["-db"]);
            wait_listening(FRONT, &mut proxy);
            let _kept = connect();
            proxy.signal("USR1");
            proxy.wait_until_said("Proxy back stopped");
            proxy.signal(signal);
            let status = proxy.ended();
            let ended_by = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(ended_by, Some(number), "{}", proxy.said());
        }
        // A master ends with its workers.
        let mut master = place.start(&place.ours, &["-W"]);
        master.wait_until_said("Loading success.");
        let _kept = connect();
        master.signal("USR1");
        master.wait_until_said("Proxy back stopped");
        master.signal("TERM");
        master.ended();
    });
}
