//! The Linux kernel's NFS client, in micro virtual machines on a network of the test's own, as the server's peer.
//! `tools/test` runs these two at a time.

mod acl;
mod fsx;
mod guide;
mod locks;
mod outage;
mod posix;

use ehpc_tools::cluster::Cluster;
use ehpc_tools::lan::{Lan, SERVER};
use ehpc_tools::microvm::{self, Guest, Outcome, Spec};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program that `tools/test` built for the guests (static).
fn tool(name: &str) -> PathBuf {
    let tools =
        std::env::var("EHPC_TEST_TOOLS").expect("run through tools/test (EHPC_TEST_TOOLS is not set)");
    PathBuf::from(tools).join("bin").join(name)
}

/// `tools/test --full`?
fn full() -> bool {
    std::env::var("EHPC_TEST_FULL").is_ok_and(|full| !full.is_empty())
}

/// A guest's script that has /share mounted at /mnt, without locks.
fn mounted(script: &str) -> Spec {
    let mut spec = Spec::new(format!("{}\n{script}", microvm::mount_from(SERVER, 2049, "/share", "/mnt")));
    spec.deadline = Duration::from_secs(600);
    spec
}

/// A guest as Debian makes one that uses NFS: rpcbind and rpc.statd run (with their state on the disk, if it has one).
fn debian(script: &str) -> Spec {
    let start = r#"
mkdir -p /run /var/lib/nfs
[ ! -b /dev/vda ] || mount -t ext4 -o sync /dev/vda /var/lib/nfs
mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak
printf 'passwd: files
group: files
hosts: files
services: files
protocols: files
rpc: files
' > /etc/nsswitch.conf
/sbin/rpcbind
/sbin/rpc.statd
"#;
    let mut spec = Spec::new(format!(
        "{start}
{script}"
    ));
    for name in ["netconfig", "protocols", "services", "rpc"] {
        spec = spec.file(&format!("/etc/{name}"), Path::new("/etc").join(name));
    }
    for name in ["rpcbind", "rpc.statd", "sm-notify"] {
        // statd starts sm-notify as /usr/sbin/sm-notify; the others are where Debian has them, too.
        for directory in ["/sbin", "/usr/sbin"] {
            spec = spec.program(&format!("{directory}/{name}"), &Path::new("/usr/sbin").join(name)).unwrap();
        }
    }
    spec
}

/// Waits for the guest's end; fails unless its script was content.
fn finish(guest: Guest, cluster: &Cluster) -> Outcome {
    let outcome = guest.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    assert_eq!(outcome.status, 0, "{}\n{}", outcome.output, cluster.logs());
    outcome
}
