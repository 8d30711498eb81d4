//! Outages under running I/O on `hard` mounts: the server ends, is killed, and its directories are renamed, while
//! applications on two guests work. No error reaches them, and what they wrote is there.

use super::{Cluster, Guest, Lan, full, mounted, tool};
use crate::scratch;
use ehpc_tools::process::wait_until;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `ehpc-guest work` in a directory of the guest's own; then the sums of its model of what it wrote. What the guest
/// has cached is dropped all the time, so that its reads are the server's answers.
fn script(host: &str, seed: u64) -> String {
    format!(
        r#"
mkdir -p /tmp/model /mnt/hall/{host}
while sleep 0.5; do echo 3 > /proc/sys/vm/drop_caches; done &
/ehpc-guest work /mnt/hall/{host} /tmp/model {seed} <&3
cd /tmp/model
echo SUMS
find . -type f | sort | xargs sha256sum
"#
    )
}

/// The same sums of the server's directory.
fn sums(directory: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", "find . -type f | LC_ALL=C sort | xargs sha256sum"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The last `STEPS n` of a guest's worker.
fn steps(guest: &mut Guest) -> u64 {
    let output = guest.output();
    assert!(!output.contains("ERROR"), "{output}");
    let last = output.rsplit_once("STEPS ").map_or("0", |(_, rest)| rest);
    // The number may not have arrived whole: take what ends in a line end only.
    last.split_once(['\r', '\n']).map_or(0, |(number, _)| number.parse().unwrap())
}

/// Waits until every guest's application has made 40 more steps.
fn advance(what: &str, guests: &mut [Guest], cluster: &Cluster) {
    for guest in guests {
        let before = steps(guest);
        let moved = wait_until(what, Duration::from_secs(120), || steps(guest) >= before + 40);
        moved.unwrap_or_else(|error| {
            panic!("{error:#}; at step {before}\n{}\n{}", guest.console(), cluster.logs())
        });
    }
}

fn tell(guests: &mut [Guest], command: &str, answer: &str) {
    for guest in guests {
        guest.tell(command).unwrap();
        guest.wait_for(answer).unwrap();
    }
}

/// Renames the guests' directories and the one that they stand in, without end; leaves the names as they were.
fn storm(share: &Path, stop: &AtomicBool) -> u64 {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let hall = share.join("hall");
        for host in ["web1", "web2"] {
            std::fs::rename(hall.join(host), share.join("attic").join(host)).unwrap();
        }
        std::fs::rename(&hall, share.join("corridor")).unwrap();
        std::fs::rename(share.join("attic"), &hall).unwrap();
        std::fs::rename(share.join("corridor"), share.join("attic")).unwrap();
        rounds += 1;
    }
    rounds
}

#[test]
fn no_outage_reaches_the_application() {
    let outages = if full() { 15 } else { 3 };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let mut cluster = Cluster::started_on(&lan, directory.path()).unwrap();
    std::fs::create_dir(cluster.share().join("attic")).unwrap();
    let mut guests = [("web1", 11), ("web2", 12)].map(|(host, number)| {
        let spec = mounted(&script(host, seed + u64::from(number))).file("/ehpc-guest", tool("ehpc-guest"));
        Guest::boot(&spec.on(&lan.port(host, number).unwrap())).unwrap()
    });
    advance("the guests work", &mut guests, &cluster);

    for _ in 0..outages {
        cluster.stop_nfs1().unwrap();
        cluster.start_nfs1().unwrap();
        advance("work goes on after a restart", &mut guests, &cluster);
    }

    let stop = AtomicBool::new(false);
    let share = cluster.share();
    let rounds = std::thread::scope(|scope| {
        let storm = scope.spawn(|| storm(&share, &stop));
        for _ in 0..outages {
            advance("work goes on while directories are renamed", &mut guests, &cluster);
        }
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap()
    });
    assert!(rounds > 100, "hardly a storm: {rounds} rounds");

    // Killed between doing and answering, an NFSv3 server is asked again and cannot know that it did it: a rename,
    // an unlink, a mkdir would fail rightly. Everything else may run on.
    tell(&mut guests, "safe", "SAFE at");
    for _ in 0..outages {
        cluster.kill_nfs1().unwrap();
        cluster.start_nfs1().unwrap();
        advance("work goes on after kill -9", &mut guests, &cluster);
    }
    tell(&mut guests, "all", "ALL at");
    advance("everything goes on", &mut guests, &cluster);
    tell(&mut guests, "stop", "STOP at");

    for (host, guest) in ["web1", "web2"].into_iter().zip(guests) {
        let output = super::finish(guest, &cluster).output;
        let (_, written) = output.split_once("SUMS").unwrap();
        let written = written.trim().replace('\r', "");
        let there = sums(&share.join("hall").join(host));
        assert!(written.lines().count() > 10, "{host} hardly worked: {written}");
        assert_eq!(
            there.trim(),
            written,
            "{host}: the server's directory and what was written (seed {seed})"
        );
    }
    scratch::assert_equal(&cluster);
}
