//! A running HAProxy is replaced under load without a failed connection, and replaces ours.

use super::load::{Load, echo};
use super::process::{HAPROXY, Place, listening, wait_listening};
use super::reload::{FRONT, relay};
use crate::proxy::inside::inside;
use std::path::Path;

#[test]
fn haproxy_is_taken_over_under_load() {
    inside("proxy_process::adoption::haproxy_is_taken_over_under_load", || {
        // Nothing in its file prepares it for this.
        let place = Place::new(&relay("nbthread 2", echo()));
        for master in [false, true] {
            let mut theirs = place.start(Path::new(HAPROXY), if master { &["-W", "-db"] } else { &["-db"] });
            wait_listening(FRONT, &mut theirs);
            let load = Load::start(FRONT, 4, 4);
            let sockets = listening(FRONT);
            let mut ours = place.start(&place.ours, &["-db", "-sf", &theirs.pid().to_string()]);
            theirs.wait_until_said("Proxy front stopped");
            load.wait_for(1000);
            assert_eq!(listening(FRONT), sockets, "the very same sockets");
            println!("{} connections (master: {master})", load.end());
            // It served its connections to their end.
            assert!(theirs.ended().success(), "{}", theirs.said());
            assert!(!ours.said().contains("WARNING"), "{}", ours.said());
            ours.signal("TERM");
            ours.ended();
        }
    });
}

#[test]
fn haproxy_takes_over_from_ours_and_gives_back() {
    inside("proxy_process::adoption::haproxy_takes_over_from_ours_and_gives_back", || {
        let admin = "stats socket {dir}/admin level admin expose-fd listeners\n nbthread";
        let server = echo();
        let place = Place::new(&relay(&format!("{admin} 2"), server));
        let socket = place.path("admin").display().to_string();
        let mut ours = place.start(&place.ours, &["-db"]);
        wait_listening(FRONT, &mut ours);
        for round in 0..3 {
            let load = Load::start(FRONT, 4, 4);
            let before = listening(FRONT);
            // Ours listens with a socket a thread, HAProxy takes one of them: nothing that waits in the others is lost.
            assert_eq!(before.len(), if round == 0 { 2 } else { 1 });
            let old = ours.pid().to_string();
            let mut theirs = place.start(Path::new(HAPROXY), &["-db", "-x", &socket, "-sf", &old]);
            ours.wait_until_said("Proxy front stopped");
            load.wait_for(500);
            let after = listening(FRONT);
            assert!(after.len() == 1 && before.contains(&after[0]), "{before:?}, then {after:?}");
            // And back through HAProxy's own socket: it may not be told by process id alone.
            let old = theirs.pid().to_string();
            let next = place.start(&place.ours, &["-db", "-x", &socket, "-sf", &old]);
            theirs.wait_until_said("Proxy front stopped");
            load.wait_for(500);
            assert_eq!(listening(FRONT), after);
            println!("{} connections", load.end());
            assert!(ours.ended().success(), "{}", ours.said());
            assert!(theirs.ended().success(), "{}", theirs.said());
            ours = next;
        }
        assert!(!ours.said().contains("WARNING"), "{}", ours.said());
    });
}

#[test]
fn haproxy_takes_over_without_being_given_anything() {
    inside("proxy_process::adoption::haproxy_takes_over_without_being_given_anything", || {
        // As `systemctl start haproxy` does: it listens beside ours, which is then told to go.
        for threads in ["nbthread 1", "nbthread 4"] {
            let place = Place::new(&relay(threads, echo()));
            let mut ours = place.start(&place.ours, &["-db"]);
            wait_listening(FRONT, &mut ours);
            let load = Load::start(FRONT, 4, 4);
            let before = listening(FRONT);
            let mut theirs = place.start(Path::new(HAPROXY), &["-db", "-sf", &ours.pid().to_string()]);
            ours.wait_until_said("Proxy front stopped");
            load.wait_for(500);
            let after = listening(FRONT);
            assert!(after.len() == 1 && !before.contains(&after[0]), "{before:?}, then {after:?}");
            println!("{} connections", load.end());
            assert!(ours.ended().success(), "{}", ours.said());
            theirs.signal("TERM");
            theirs.ended();
        }
    });
}

#[test]
fn the_old_process_is_told_only_when_the_new_one_serves() {
    inside("proxy_process::adoption::the_old_process_is_told_only_when_the_new_one_serves", || {
        let server = echo();
        let place = Place::new(&relay("", server));
        let mut theirs = place.start(Path::new(HAPROXY), &["-db"]);
        wait_listening(FRONT, &mut theirs);
        let old = theirs.pid().to_string();
        let load = Load::start(FRONT, 2, 1);
        for arguments in [&["-db", "-sf", &old][..], &["-D", "-sf", &old], &["-W", "-sf", &old]] {
            place.configure(&relay("chroot /no/such/directory", server));
            let mut ours = place.start(&place.ours, arguments);
            assert_eq!(ours.ended().code(), Some(1), "{}", ours.said());
            assert!(ours.said().contains("cannot chroot to /no/such/directory"), "{}", ours.said());
        }
        load.wait_for(100);
        assert!(theirs.child.try_wait().expect("waits").is_none(), "{}", theirs.said());
        // The same with a user that it may become.
        place.configure(&relay("user nobody", server));
        let mut ours = place.start(&place.ours, &["-db", "-sf", &old]);
        theirs.wait_until_said("Proxy front stopped");
        load.wait_for(100);
        load.end();
        assert!(theirs.ended().success(), "{}", theirs.said());
        ours.signal("TERM");
        ours.ended();
    });
}
