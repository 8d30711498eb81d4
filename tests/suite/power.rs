//! A power cut of the host that holds nfs1 and its ext4 disk: what the shadow believed is read again.

use crate::scratch;
use ehpc_tools::cluster::Cluster;
use ehpc_tools::microvm::{Guest, HOST, Spec};
use ehpc_tools::process;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A disk whose write cache dies with it: what the guest did not flush is really gone.
struct CachedDisk {
    server: Child,
    socket: std::path::PathBuf,
}

impl CachedDisk {
    fn serve(image: &Path) -> CachedDisk {
        let socket = image.with_extension("socket");
        let _ = std::fs::remove_file(&socket);
        let server = Command::new("nbdkit")
            .args(["--foreground", "--filter=cache", "--unix"])
            .arg(&socket)
            .args(["file", &image.display().to_string(), "cache=writeback"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nbdkit (tools/test installs it)");
        process::wait_until("nbdkit listens", Duration::from_secs(10), || socket.exists()).unwrap();
        CachedDisk { server, socket }
    }

    fn uri(&self) -> String {
        format!("nbd:unix:{}", self.socket.display())
    }

    fn cut(mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn script(cluster: &Cluster, body: &str) -> String {
    format!(
        r#"
mkdir -p /disk
mount -t ext4 -o noatime /dev/vda /disk
mkdir -p /disk/share
/ehpc-store nfs1 --export /disk/share --export-name /share --state /disk/state --listen 127.0.0.1:0 --dashboard 127.0.0.1:0 --backup {HOST}:{port} > /tmp/out 2> /tmp/log &
e() {{ /ehpc-store "$@" --state /disk/state; }}
ready() {{ n=0; until grep -q ^ready /tmp/out; do n=$((n+1)); [ $n -lt 600 ] || {{ cat /tmp/log; exit 9; }}; sleep 0.1; done; }}
{body}
"#,
        port = cluster.backup_port()
    )
}

#[test]
fn what_the_shadow_believed_is_read_again() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    std::fs::create_dir_all(cluster.state()).unwrap();
    cluster.start_backup().unwrap();
    // The pairing made on this host moves into the guest with its state directory.
    let image = directory.path().join("disk.img");
    let disk_root = directory.path().join("disk-root");
    std::fs::create_dir_all(&disk_root).unwrap();
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(cluster.state())
            .arg(disk_root.join("state"))
            .status()
            .unwrap()
            .success()
    );
    std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    assert!(
        Command::new("mkfs.ext4")
            .args(["-q", "-d", &disk_root.display().to_string(), &image.display().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let spec = |script: String, uri: String| {
        let mut spec = Spec::new(script).program("/ehpc-store", &process::executable()).unwrap();
        spec.disk_uris.push(uri);
        spec.deadline = Duration::from_secs(300);
        spec
    };

    // First life: a synced base, then 8 MiB overwritten in place and many files, all on the backup, nothing flushed.
    let disk = CachedDisk::serve(&image);
    let first = script(
        &cluster,
        r#"
ready
cd /disk/share
dd if=/dev/urandom of=big bs=1M count=8 2>/dev/null
mkdir d; for i in $(seq 1 200); do echo "base $i" > d/f$i; done
e ctl fence
sync
echo BASE
dd if=/dev/urandom of=big bs=1M count=8 conv=notrunc 2>/dev/null
for i in $(seq 1 200); do echo "changed $i" > d/f$i; done
for i in $(seq 1 200); do echo "new $i" > d/n$i; done
mv d moved; mkdir d; echo x > d/x
e ctl fence
echo ON-THE-BACKUP
# A little of it reaches the disk: the journal commits metadata every 5 s, data is delayed.
sleep 7
echo CUT-ME
while :; do echo more >> moved/log; sleep 0.01; done
"#,
    );
    let mut guest = Guest::boot(&spec(first, disk.uri())).unwrap();
    guest.wait_for("CUT-ME").unwrap();
    let output = guest.power_cut().unwrap();
    disk.cut();
    assert!(output.contains("ON-THE-BACKUP"), "{output}");

    // Second life: whatever the disk has now is what the backup must have.
    let disk = CachedDisk::serve(&image);
    let second = script(
        &cluster,
        r#"
ready
e ctl fence || { cat /tmp/log; exit 8; }
e verify --read-data --json > /tmp/report; s=$?
cat /tmp/report
[ $s = 0 ] || { cat /tmp/log; exit 7; }
cd /disk/share; find . -type f | sort | xargs sha256sum | sha256sum
echo FILES $(find . -type f | wc -l)
e status
kill %1; wait %1
"#,
    );
    let second = second.replace("set -e", "set +e");
    let outcome = ehpc_tools::microvm::run(&spec(format!("set +e\n{second}"), disk.uri())).unwrap();
    disk.cut();
    assert_eq!(outcome.status, 0, "{}\n{}", outcome.output, cluster.logs());
    // An independent look at the replica: the same names and bytes as the guest's disk.
    let sums = Command::new("bash")
        .args(["-c", "LC_ALL=C; find . -type f | sort | xargs sha256sum | sha256sum"])
        .current_dir(cluster.mirror())
        .output()
        .unwrap();
    let sum = String::from_utf8_lossy(&sums.stdout).trim().to_owned();
    assert!(
        outcome.output.contains(&sum),
        "the replica's content {sum} is not the guest's:\n{}",
        outcome.output
    );
}
