//! How stock tools find the ports: through Debian's rpcbind, or through a port mapper of our own.

use crate::executable::EXECUTABLE;
use crate::namespace::Namespace;
use ehpc_tools::process::Daemon;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An nfs1 in a namespace, on NFS's own port.
struct Node {
    scratch: TempDir,
}

impl Node {
    fn new() -> Node {
        let scratch = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(scratch.path().join("share")).expect("made");
        Node { scratch }
    }

    fn start(&self, inside: &Namespace, port: u16, portmap: &[&str]) -> Result<Daemon, String> {
        let path = |name: &str| self.scratch.path().join(name).to_str().expect("text").to_owned();
        let mut command = inside.command(EXECUTABLE);
        command.args(["nfs1", "--export", &path("share"), "--state", &path("state")]);
        command.args(["--export-name", "/home/share", "--backup", "127.0.0.1:12090"]);
        command.args(["--listen", &format!("0.0.0.0:{port}"), "--dashboard", "127.0.0.1:0"]).args(portmap);
        let log = self.scratch.path().join("log");
        Daemon::spawn(&mut command, &log).map_err(|error| format!("{error:#}\n{}", read(&log)))
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// (program, version, protocol, port) of `rpcinfo -p`, without the port mapper's own.
fn registered(inside: &Namespace) -> BTreeSet<(u32, u32, String, u16)> {
    let table = inside.ok("rpcinfo -p 127.0.0.1");
    let rows = table.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<u32>().expect("a number");
        (number(0), number(1), fields[2].to_owned(), u16::try_from(number(3)).expect("a port"))
    });
    rows.filter(|(program, ..)| *program != 100_000).collect()
}

fn expected() -> BTreeSet<(u32, u32, String, u16)> {
    let row = |program, version, protocol: &str| (program, version, protocol.to_owned(), 2049);
    let mut all = BTreeSet::from([row(100_003, 3, "tcp")]);
    for protocol in ["tcp", "udp"] {
        all.extend([row(100_005, 3, protocol), row(100_024, 1, protocol)]);
        all.extend([1, 3, 4].map(|version| row(100_021, version, protocol)));
    }
    all
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "not within a minute: {what}");
    }
}

/// What a stock client does before it mounts: the same, whoever answers on port 111.
fn stock_tools_find_everything(inside: &Namespace) {
    assert_eq!(registered(inside), expected());
    assert!(inside.ok("rpcinfo -t 127.0.0.1 nfs 3").contains("program 100003 version 3 ready and waiting"));
    assert!(inside.ok("rpcinfo -t 127.0.0.1 mountd 3").contains("ready and waiting"));
    assert!(inside.ok("rpcinfo -u 127.0.0.1 mountd 3").contains("ready and waiting"));
    for version in [1, 3, 4] {
        assert!(inside.ok(&format!("rpcinfo -u 127.0.0.1 nlockmgr {version}")).contains("ready and waiting"));
        assert!(inside.ok(&format!("rpcinfo -t 127.0.0.1 nlockmgr {version}")).contains("ready and waiting"));
    }
    assert!(inside.ok("rpcinfo -u 127.0.0.1 status 1").contains("ready and waiting"));
    let listing = inside.ok("rpcinfo -s 127.0.0.1");
    assert!(listing.contains("100003"), "{listing}");
    let newer = inside.run("rpcinfo -t 127.0.0.1 nfs 4");
    assert!(
        !newer.status.success()
            && String::from_utf8_lossy(&newer.stderr).contains("low version = 3, high version = 3")
    );
    assert!(inside.ok("showmount -e 127.0.0.1").contains("\n/home/share "));
    inside.ok("showmount -a 127.0.0.1");
    inside.ok("showmount -d 127.0.0.1");
}

#[test]
fn services_are_registered_with_the_systems_rpcbind_while_we_run() {
    let mut inside = Namespace::new();
    let rpcbind = inside.rpcbind();
    let node = Node::new();
    let running = node.start(&inside, 2049, &[]).expect("starts");
    stock_tools_find_everything(&inside);
    let second = Node::new().start(&inside, 2050, &["--portmap", "register"]).err().expect("refused");
    assert!(second.contains("is served by another process on port 2049"), "{second}");
    assert_eq!(registered(&inside), expected(), "the first one is still found");
    drop(running); // killed: its registrations stay, and the next start replaces them
    assert_eq!(registered(&inside), expected());
    let running = node.start(&inside, 2049, &["--portmap", "register"]).expect("starts again");
    stock_tools_find_everything(&inside);
    // rpcbind forgets everything when it is restarted.
    inside.kill(rpcbind);
    inside.rpcbind();
    assert_eq!(registered(&inside), BTreeSet::new());
    wait("registered again with the new rpcbind", || registered(&inside) == expected());
    assert_eq!(running.terminate().expect("ends"), 0);
    assert_eq!(registered(&inside), BTreeSet::new(), "a stop takes everything back");
}

#[test]
fn without_rpcbind_port_111_is_answered_here() {
    let inside = Namespace::new();
    let node = Node::new();
    let error = node.start(&inside, 2049, &["--portmap", "register"]).err().expect("no rpcbind");
    assert!(error.contains("no rpcbind answers") && error.contains("systemctl start rpcbind"), "{error}");
    let running = node.start(&inside, 2049, &[]).expect("starts");
    stock_tools_find_everything(&inside);
    assert_eq!(running.terminate().expect("ends"), 0);
    assert!(!inside.run("rpcinfo -p 127.0.0.1").status.success(), "nobody answers any more");
    let quiet = node.start(&inside, 2049, &["--portmap", "off"]).expect("starts");
    assert!(!inside.run("rpcinfo -p 127.0.0.1").status.success(), "off is off");
    drop(quiet);
}
