//! POSIX ACLs through the mount: stock setfacl and getfacl in the guest, the server's own getfacl as the judge.

use super::{Cluster, Guest, Lan, finish, mounted};
use crate::scratch;
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = r#"
cd /mnt
umask 022
echo secret > file; chmod 600 file
su -s /bin/sh tests -c 'cat /mnt/file' 2>/dev/null && exit 11
setfacl -m u:tests:r,g:nobody:rw file
su -s /bin/sh tests -c 'cat /mnt/file' > /dev/null
su -s /bin/sh tests -c 'echo no >> /mnt/file' 2>/dev/null && exit 12
su -s /bin/sh nobody -c 'echo yes >> /mnt/file'
# Only the owner may say who may.
su -s /bin/sh nobody -c 'setfacl -m u:nobody:rwx /mnt/file' 2>/dev/null && exit 13
# What is made in a directory inherits its default.
mkdir directory; chmod 700 directory
setfacl -m u:tests:rwx -d -m u:tests:rwx,g::-,o::- directory
su -s /bin/sh tests -c 'umask 0; echo x > /mnt/directory/new; mkdir /mnt/directory/below'
# An ACL that says no more than the mode is the mode.
echo plain > plain; setfacl -m u:tests:rw plain; setfacl -b plain
touch wide; for id in $(seq 2000 2200); do echo u:$id:r; done > /tmp/many; setfacl -M /tmp/many wide
echo ACLS
getfacl -nR . | grep -v '^# file: \.$'
"#;

#[test]
fn access_lists_through_the_mount() {
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let cluster = Cluster::started_on(&lan, directory.path()).unwrap();
    let mut spec = mounted(SCRIPT);
    for program in ["getfacl", "setfacl"] {
        spec = spec.program(&format!("/bin/{program}"), &Path::new("/usr/bin").join(program)).unwrap();
    }
    let output = finish(Guest::boot(&spec.on(&lan.port("web1", 11).unwrap())).unwrap(), &cluster).output;
    let (_, seen) = output.split_once("ACLS").unwrap();
    let judge = Command::new("sh")
        .args(["-c", "getfacl -nR . | grep -v '^# file: \\.$'"])
        .current_dir(cluster.share())
        .output()
        .unwrap();
    let judge = String::from_utf8(judge.stdout).unwrap();
    let sections = |text: &str| -> Vec<String> {
        let mut found: Vec<String> = text.trim().split("\n\n").map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(sections(&seen.replace('\r', "")), sections(&judge), "{output}");
    for expected in ["user:1001:r--", "group:65534:rw-", "default:user:1001:rwx", "user:2200:r--"] {
        assert!(judge.contains(expected), "no {expected} in\n{judge}");
    }
    scratch::assert_equal(&cluster);
}
