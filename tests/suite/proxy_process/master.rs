//! `-W`: reloads, refusals, ends.

use super::load::{Load, echo};
use super::process::{Place, Proxy, children, listening, send, until, wait_listening};
use super::reload::{FRONT, relay};
use crate::proxy::inside::inside;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

fn only_child(master: &Proxy) -> i32 {
    until("one worker is left", || children(master.pid()).len() == 1);
    children(master.pid())[0]
}

#[test]
fn a_master_reloads_without_a_lost_connection() {
    inside("proxy_process::master::a_master_reloads_without_a_lost_connection", || {
        let server = echo();
        let place = Place::new(&relay("nbthread 2", server));
        let pidfile = place.path("pid").display().to_string();
        let mut master = place.start(&place.ours, &["-W", "-p", &pidfile]);
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        assert_eq!(std::fs::read_to_string(&pidfile).expect("written"), format!("{}\n", master.pid()));
        let load = Load::start(FRONT, 4, 4);
        let sockets = listening(FRONT);
        for round in 0..12 {
            place.configure(&relay(["nbthread 1", "nbthread 3", "nbthread 2"][round % 3], server));
            master.signal(if round % 2 == 0 { "USR2" } else { "HUP" });
            master.wait_until_said_times("Loading success.", round + 2);
            load.wait_for(200);
            assert_eq!(listening(FRONT), sockets, "the same sockets");
        }
        println!("{} connections over 12 reloads", load.end());
        only_child(&master);
        // Nothing is left open from reload to reload.
        let open = std::fs::read_dir(format!("/proc/{}/fd", master.pid())).expect("read").count();
        assert!(open < 15, "{open} descriptors");
        master.signal("TERM");
        assert_eq!(master.ended().code(), Some(0), "{}", master.said());
        assert!(listening(FRONT).is_empty());
    });
}

#[test]
fn a_master_survives_reloads_in_a_row() {
    inside("proxy_process::master::a_master_survives_reloads_in_a_row", || {
        let place = Place::new(&relay("nbthread 2", echo()));
        let mut master = place.start(&place.ours, &["-W"]);
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        let load = Load::start(FRONT, 4, 0);
        // Without waiting: signals come while it becomes itself anew.
        for _ in 0..60 {
            master.signal("USR2");
        }
        load.wait_for(300);
        load.end();
        only_child(&master);
        master.signal("USR1");
        assert_eq!(master.ended().code(), Some(0), "{}", master.said());
    });
}

#[test]
fn a_configuration_that_does_not_load_changes_nothing() {
    inside("proxy_process::master::a_configuration_that_does_not_load_changes_nothing", || {
        let server = echo();
        let place = Place::new(&relay("nbthread 2", server));
        let mut master = place.start(&place.ours, &["-W"]);
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        let worker = only_child(&master);
        let load = Load::start(FRONT, 2, 2);
        place.configure("global\n nonsense\n");
        for round in 1..=2 {
            master.signal("USR2");
            master.wait_until_said_times("Loading failure!", round);
            load.wait_for(100);
        }
        assert!(master.said().contains("haproxy.cfg:2:2"), "{}", master.said());
        assert_eq!(only_child(&master), worker);
        place.configure(&relay("nbthread 1", server));
        master.signal("USR2");
        master.wait_until_said_times("Loading success.", 2);
        load.wait_for(100);
        load.end();
        assert_ne!(only_child(&master), worker);
        master.signal("INT");
        assert_eq!(master.ended().code(), Some(130), "{}", master.said());
    });
}

#[test]
fn a_master_ends_as_haproxy_does_when_its_worker_dies() {
    inside("proxy_process::master::a_master_ends_as_haproxy_does_when_its_worker_dies", || {
        let place = Place::new(&relay("", echo()));
        let mut master = place.start(&place.ours, &["-W"]);
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        send("KILL", only_child(&master));
        assert_eq!(master.ended().code(), Some(137), "{}", master.said());
        assert!(master.said().contains("exited with code 137 (Killed)"), "{}", master.said());
        assert!(listening(FRONT).is_empty());
    });
}

#[test]
fn a_worker_does_not_outlive_its_master() {
    inside("proxy_process::master::a_worker_does_not_outlive_its_master", || {
        let place = Place::new(&relay("user nobody", echo()));
        let mut master = place.start(&place.ours, &["-W"]);
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        send("KILL", master.pid());
        master.ended();
        until("nobody listens", || listening(FRONT).is_empty());
    });
}

#[test]
fn the_service_manager_is_told() {
    inside("proxy_process::master::the_service_manager_is_told", || {
        let place = Place::new(&relay("", echo()));
        let path = place.path("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        manager.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let mut command = place.command(&place.ours, &["-Ws"]);
        command.env("NOTIFY_SOCKET", &path);
        let mut master = Proxy::new(command, &place.path("output"));
        let next = || {
            let mut bytes = [0; 500];
            let length = manager.recv(&mut bytes).expect("told in time");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let ready = format!("READY=1\nMAINPID={}\nSTATUS=Ready.\n", master.pid());
        assert_eq!(next(), ready);
        assert!(!listening(FRONT).is_empty(), "ready means that it listens");
        master.signal("USR2");
        assert_eq!(next(), "RELOADING=1\nSTATUS=Reloading Configuration.\n");
        assert_eq!(next(), ready);
        master.signal("TERM");
        assert_eq!(next(), "STOPPING=1\n");
        master.ended();
    });
}
