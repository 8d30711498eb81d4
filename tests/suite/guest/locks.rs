//! Locks of two kernel clients against one another: byte ranges and whole files, waiting, a killed server, a killed
//! client. Each guest runs Debian's rpcbind and rpc.statd.

use super::{Cluster, Guest, Lan, debian, finish, tool};
use crate::scratch;
use ehpc_tools::lan::Port;
use ehpc_tools::microvm::Spec;
use ehpc_tools::process::wait_until;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A process in a guest that owns locks (`ehpc-guest lock`), and its guest.
struct Owner {
    guest: Guest,
    asked: u32,
}

impl Owner {
    /// Boots; returns when the process has the file open.
    fn boot(spec: &Spec) -> Owner {
        let mut owner = Owner { guest: Guest::boot(spec).unwrap(), asked: 0 };
        owner.guest.wait_for("MOUNTED").unwrap();
        assert_eq!(owner.ask("open /mnt/file"), "granted");
        owner
    }

    /// Gives a command; the token of its answer.
    fn send(&mut self, command: &str) -> String {
        self.asked += 1;
        let token = format!("T{}", self.asked);
        self.guest.tell(&format!("{token} {command}")).unwrap();
        token
    }

    /// The answer, if it has come.
    fn answered(&mut self, token: &str) -> Option<String> {
        let output = self.guest.output();
        let (_, rest) = output.split_once(&format!("{token} "))?;
        let (answer, _) = rest.split_once(['\r', '\n'])?;
        Some(answer.to_owned())
    }

    fn answer(&mut self, token: &str) -> String {
        self.answer_within(token, Duration::from_secs(120))
    }

    /// The answer to a lock that was waited for: the server must have called (GRANTED), because the Linux client asks
    /// again by itself only after 30 s (NLMCLNT_POLL_TIMEOUT).
    fn called(&mut self, token: &str) -> String {
        self.answer_within(token, Duration::from_secs(25))
    }

    fn answer_within(&mut self, token: &str, deadline: Duration) -> String {
        let what = format!("an answer to {token}");
        let come = wait_until(&what, deadline, || self.answered(token).is_some());
        let console = self.guest.console();
        come.unwrap_or_else(|error| panic!("{error:#}\n{}\n{console}", self.guest.output()));
        self.answered(token).unwrap()
    }

    fn ask(&mut self, command: &str) -> String {
        let token = self.send(command);
        self.answer(&token)
    }

    fn quit(mut self, cluster: &Cluster) {
        self.send("quit");
        finish(self.guest, cluster);
    }
}

/// A disk for what the guest's statd must still know after a crash.
fn disk(directory: &Path, host: &str) -> std::path::PathBuf {
    let image = directory.join(format!("{host}.img"));
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    assert!(Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap().success());
    image
}

fn spec(port: &Port, directory: &Path) -> Spec {
    let script = "
mount -t nfs -o vers=3,tcp,hard,addr=192.0.2.1,mountaddr=192.0.2.1,mountproto=tcp,mountvers=3 nfs1:/share /mnt
echo MOUNTED
/ehpc-guest lock <&3
";
    let mut spec = debian(script).file("/ehpc-guest", tool("ehpc-guest")).on(port);
    spec.disks.push(disk(directory, &port.host));
    spec
}

/// A cluster with ports told on 111 and a short grace period, and an owner on each of two guests.
fn two_owners(lan: &Lan, directory: &Path) -> (Cluster, [Spec; 2], [Owner; 2]) {
    let mut cluster = Cluster::new(directory).unwrap();
    cluster.nfs1_arguments = ["--portmap", "serve", "--grace", "10s"].map(str::to_owned).to_vec();
    cluster.start_on(lan).unwrap();
    let specs =
        [("web1", 11), ("web2", 12)].map(|(host, number)| spec(&lan.port(host, number).unwrap(), directory));
    let owners = [&specs[0], &specs[1]].map(Owner::boot);
    (cluster, specs, owners)
}

#[test]
fn locks_exclude_between_guests_and_outlive_the_server() {
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let (mut cluster, _specs, [mut first, mut second]) = two_owners(&lan, directory.path());

    // Byte ranges.
    assert_eq!(first.ask("fcntl write 0 100"), "granted");
    assert_eq!(second.ask("fcntl write 50 10"), "refused");
    assert_eq!(second.ask("test 50 10"), "held");
    assert_eq!(second.ask("test 100 10"), "free");
    assert_eq!(second.ask("fcntl read 100 10"), "granted");
    assert_eq!(first.ask("fcntl read 100 10"), "granted");
    assert_eq!(first.ask("fcntl write 100 10"), "refused");
    assert_eq!(second.ask("fcntl unlock 100 10"), "granted");
    assert_eq!(first.ask("fcntl write 100 10"), "granted");

    // Who waits gets it when the other unlocks.
    let waiting = second.send("fcntl-wait write 50 10");
    assert_eq!(first.ask("test 0 1"), "free", "one's own lock excludes nobody");
    assert_eq!(second.answered(&waiting), None, "granted over another's lock");
    assert_eq!(first.ask("fcntl unlock 0 100"), "granted");
    assert_eq!(second.called(&waiting), "granted");
    assert_eq!(first.ask("fcntl write 55 1"), "refused");
    assert_eq!(second.ask("fcntl unlock 0 0"), "granted");
    assert_eq!(first.ask("fcntl unlock 0 0"), "granted");

    // Whole files.
    assert_eq!(first.ask("flock exclusive"), "granted");
    assert_eq!(second.ask("flock shared"), "refused");
    let waiting = second.send("flock-wait shared");
    assert_eq!(first.ask("flock unlock"), "granted");
    assert_eq!(second.called(&waiting), "granted");
    assert_eq!(first.ask("flock shared"), "granted");
    assert_eq!(first.ask("flock unlock"), "granted");
    assert_eq!(second.ask("flock unlock"), "granted");

    // The server dies; who held a lock takes it back before anybody else can have it.
    assert_eq!(first.ask("fcntl write 0 100"), "granted");
    assert_eq!(second.ask("fcntl write 200 100"), "granted");
    for _ in 0..2 {
        cluster.kill_nfs1().unwrap();
        cluster.start_nfs1().unwrap();
        assert_eq!(second.ask("fcntl write 0 100"), "refused", "{}", cluster.logs());
        assert_eq!(first.ask("fcntl write 200 100"), "refused", "{}", cluster.logs());
    }
    assert_eq!(first.ask("fcntl unlock 0 100"), "granted");
    assert_eq!(second.ask("fcntl write 0 100"), "granted");
    first.quit(&cluster);
    second.quit(&cluster);
}

#[test]
fn locks_of_a_rebooted_guest_are_released() {
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let (cluster, specs, [mut first, mut second]) = two_owners(&lan, directory.path());
    assert_eq!(first.ask("fcntl write 0 100"), "granted");
    assert_eq!(second.ask("fcntl write 0 100"), "refused");
    first.guest.power_cut().unwrap();
    assert_eq!(second.ask("fcntl write 0 100"), "refused", "a client that is not heard of keeps its locks");
    let waiting = second.send("fcntl-wait write 0 100");
    let first = Owner::boot(&specs[0]);
    assert_eq!(second.answer(&waiting), "granted", "{}", cluster.logs());
    first.quit(&cluster);
    second.quit(&cluster);
}
