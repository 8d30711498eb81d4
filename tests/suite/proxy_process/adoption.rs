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
