//! Start order, privileges, exit codes, the log.

use super::load::{Load, echo};
use super::process::{HAPROXY, Place, children, until, wait_listening};
use super::reload::{FRONT, relay};
use crate::proxy::inside::inside;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

pub(crate) fn receiver(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("bound");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("set");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    socket
}

pub(crate) fn line(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 2000];
    let length = socket.recv(&mut bytes).expect("a line in time");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// The guide's way: chroot, user, group, log to a socket outside of the chroot.
#[test]
fn privileges_are_given_up_and_the_log_is_found_again() {
    inside("proxy_process::start::privileges_are_given_up_and_the_log_is_found_again", || {
        let global = "log {dir}/log local0\n chroot {dir}/root\n user nobody\n group nogroup\n nbthread 2";
        let text = relay(global, echo()).replace("mode tcp", "mode tcp\n log global\n option tcplog");
        let place = Place::new(&text);
        // Reachable for the user that it becomes.
        std::fs::set_permissions(place.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("set");
        let root = place.path("root");
        std::fs::create_dir(&root).expect("made");
        let log = place.path("log");
        let first = receiver(&log);
        let master = place.start(&place.ours, &["-W"]);
        let mut master = master;
        wait_listening(FRONT, &mut master);
        master.wait_until_said("Loading success.");
        let worker = children(master.pid())[0];
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).expect("read");
        assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
        assert!(status.contains("\nGid:\t65534\t65534\t65534\t65534\n"), "{status}");
        assert!(status.contains("\nGroups:\t \n") || status.contains("\nGroups:\t\n"), "{status}");
        assert_eq!(std::fs::read_link(format!("/proc/{worker}/root")).expect("read"), root);
        Load::start(FRONT, 1, 0).end();
        let start = "<134>";
        let text = line(&first);
        assert!(
            text.starts_with(start) && text.contains(&format!("haproxy[{worker}]: 127.0.0.1:")),
            "{text}"
        );
        // Syslog is restarted.
        drop(first);
        std::fs::remove_file(&log).expect("removed");
        Load::start(FRONT, 1, 0).end();
        let second = receiver(&log);
        second.set_nonblocking(true).expect("set");
        until("a line comes again", || {
            Load::start(FRONT, 1, 0).end();
            second.recv(&mut [0; 2000]).is_ok()
        });
        second.set_nonblocking(false).expect("set");
        let mut told = line(&second);
        while !told.contains("log lines were dropped before this one") {
            told = line(&second);
        }
        master.signal("TERM");
        master.ended();
    });
}

#[test]
fn ends_are_those_of_haproxy() {
    inside("proxy_process::start::ends_are_those_of_haproxy", || {
        let place = Place::new(&relay("", echo()));
        for (signal, how) in [("TERM", "signal: 15"), ("INT", "signal: 2"), ("USR1", "exit status: 0")] {
            for program in [HAPROXY.as_ref(), place.ours.as_path()] {
                let mut proxy = place.start(program, &["-db"]);
                wait_listening(FRONT, &mut proxy);
                // HAProxy is not ready for signals when it begins to listen.
                Load::start(FRONT, 1, 0).end();
                // What HAProxy does nothing at.
                proxy.signal("USR2");
                proxy.signal("TTOU");
                proxy.signal("TTIN");
                proxy.signal("HUP");
                if program == Path::new(HAPROXY) {
                    // It can miss a signal that comes while it tells of its servers.
                    proxy.wait_until_said("<HTTPCLIENT> has no server available");
                } else {
                    Load::start(FRONT, 1, 0).end();
                }
                proxy.signal(signal);
                let status = proxy.ended();
                assert!(
                    status.to_string().contains(how),
                    "{}: {signal}: {status}\n{}",
                    program.display(),
                    proxy.said()
                );
            }
        }
        for (arguments, configuration, code) in [
            (&["-c"][..], relay("", FRONT), 0),
            (&["-c"], "global\n nonsense\n".to_owned(), 1),
            (&["-c"], "global\n".to_owned(), 2),
            (&[], "global\n".to_owned(), 1),
            (&["-cc", "streq(a,a)"], String::new(), 0),
            (&["-cc", "streq(a,b)"], String::new(), 1),
            (&["-v"], String::new(), 0),
            (&["-Z"], String::new(), 1),
        ] {
            place.configure(&configuration);
            for program in [HAPROXY.as_ref(), place.ours.as_path()] {
                let output = place.command(program, arguments).output().expect("it runs");
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(code), "{} {arguments:?}: {said}", program.display());
            }
        }
    });
}

#[test]
fn a_port_in_use_names_its_line_and_its_holder() {
    inside("proxy_process::start::a_port_in_use_names_its_line_and_its_holder", || {
        let place = Place::new(&relay("", echo()));
        let mut first = place.start(Path::new(HAPROXY), &["-db"]);
        wait_listening(FRONT, &mut first);
        let output = place.command(&place.ours, &["-db"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let expected = format!(
            "haproxy.cfg:10:7: cannot listen on 127.0.0.1:8080: in use by pid {} (haproxy)",
            first.pid()
        );
        assert!(said.contains(&expected), "{said}");
    });
}
