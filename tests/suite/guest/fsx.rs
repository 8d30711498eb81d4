//! fsx over the mount: random operations on four files at once, from two guests; 100,000 of them in
//! `tools/test --full`, 8,000 in the normal run.

use super::{Cluster, Guest, Lan, full, mounted, tool};
use crate::scratch;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of each of the four processes.
fn operations() -> u32 {
    if full() { 25_000 } else { 2_000 }
}

/// Every kind of operation that NFSv3 has; files of up to 1 MiB, so that one transfer does not hold a whole file.
const CONFIGURATION: &str = "flen = 1048576\n[opsize]\nmax = 131072\n[weights]\nclose_open = 2.0\ninvalidate = 2.0\n\
    mapread = 5.0\nmapwrite = 5.0\nread = 10.0\nwrite = 10.0\ntruncate = 5.0\nfsync = 1.0\nfdatasync = 1.0\n\
    sendfile = 3.0\nposix_fadvise = 1.0\ncopy_file_range = 3.0\n";

/// Two files a guest. What the guest has cached is dropped all the time, so that reads are the server's answers.
fn script(files: [&str; 2], seed: u64) -> String {
    let [first, second] = files;
    format!(
        r#"
mkdir /tmp/{first} /tmp/{second}
while sleep 0.3; do echo 3 > /proc/sys/vm/drop_caches; done &
/fsx -f /fsx.toml -N {operations} -S {seed} -P /tmp/{first} /mnt/{first} > /tmp/{first}.log 2>&1 & a=$!
/fsx -f /fsx.toml -N {operations} -S {next} -P /tmp/{second} /mnt/{second} > /tmp/{second}.log 2>&1 & b=$!
s=0
wait $a || {{ s=1; echo {first} FAILED; tail -n 40 /tmp/{first}.log; }}
wait $b || {{ s=1; echo {second} FAILED; tail -n 40 /tmp/{second}.log; }}
[ $s = 0 ] || exit 1
sync
echo DONE
read -r go <&3
cd /mnt; sha256sum fsx.*
"#,
        operations = operations(),
        next = seed + 1,
    )
}

/// `sha256sum` of the four files, as the server's directory has them.
fn sums(share: &Path) -> String {
    let output = Command::new("sh").args(["-c", "sha256sum fsx.*"]).current_dir(share).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn fsx_on_four_files_from_two_guests() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let cluster = Cluster::started_on(&lan, directory.path()).unwrap();
    let file = directory.path().join("fsx.toml");
    std::fs::write(&file, CONFIGURATION).unwrap();
    let boot = |host: &str, number, files, seed| {
        let mut spec = mounted(&script(files, seed)).file("/fsx", tool("fsx")).file("/fsx.toml", &file);
        spec.deadline = Duration::from_secs(3600);
        Guest::boot(&spec.on(&lan.port(host, number).unwrap())).unwrap()
    };
    let mut guests =
        [boot("web1", 11, ["fsx.1", "fsx.2"], seed), boot("web2", 12, ["fsx.3", "fsx.4"], seed + 2)];
    for guest in &mut guests {
        guest.wait_for("DONE").unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }
    let expected = sums(&cluster.share());
    assert_eq!(expected.lines().count(), 4, "{expected}");
    for mut guest in guests {
        guest.tell("go").unwrap();
        let output = super::finish(guest, &cluster).output;
        assert!(output.contains(&expected), "the server has\n{expected}the guest read\n{output}");
    }
    scratch::assert_equal(&cluster);
}
