//! The deployment guide as it stands: its line of /etc/exports, its host names, and a mount without any option by
//! Debian's own mount.nfs. Who is not in the line gets nothing.

use super::{Cluster, Guest, Lan, debian, finish};
use crate::scratch;
use std::path::Path;

/// The guide's line, with its trailing space.
const EXPORTS: &str = "# web1 and web2 read and write\n\
    /home/share   web1(rw,sync,no_root_squash) web2(rw,sync,no_root_squash) \n";

/// What nfs1's own host has: /home/share, names in /etc/hosts, and no rpcbind. In a mount namespace of the daemon's,
/// over whatever /home has here.
fn stage(directory: &Path) -> String {
    format!(
        r#"set -eu
mkdir -p {directory}/home; mount --rbind /home {directory}/home; mount -t tmpfs home /home
for entry in {directory}/home/*/; do
  [ -d "$entry" ] || continue
  entry=${{entry%/}}; mkdir "/home/${{entry##*/}}"; mount --rbind "$entry" "/home/${{entry##*/}}"
done
mkdir -p /home/share; mount --bind {directory}/share /home/share
mount --bind {directory}/hosts /etc/hosts
mount -t tmpfs run /run
"#,
        directory = directory.display()
    )
}

const WEB1: &str = r#"
mkdir -p /home/haproxy/share
mount.nfs nfs1:/home/share /home/haproxy/share
grep 'nfs1:/home/share /home/haproxy/share nfs ' /proc/mounts
cd /home/haproxy/share
echo hello > by-root; chown 1234:5678 by-root
[ "$(stat -c %u:%g by-root)" = 1234:5678 ]
mkdir uploads; tar cf - /etc | tar xf - -C uploads
cd /
rpcinfo -p nfs1
echo EXPORTS; showmount --no-headers -e nfs1
echo CLIENTS; showmount --no-headers -a nfs1
echo DIRECTORIES; showmount --no-headers -d nfs1
umount.nfs /home/haproxy/share
echo UNMOUNTED; showmount --no-headers -a nfs1
echo END
"#;

const WEB3: &str = r#"
mkdir -p /home/haproxy/share
if mount.nfs nfs1:/home/share /home/haproxy/share; then exit 20; fi
"#;

#[test]
fn the_guide_as_it_stands() {
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let at = directory.path();
    std::fs::write(at.join("exports"), EXPORTS).unwrap();
    std::fs::write(at.join("hosts"), "127.0.0.1 localhost\n192.0.2.11 web1\n192.0.2.12 web2\n").unwrap();
    let mut cluster = Cluster::new(at).unwrap();
    cluster.stage = Some(stage(at));
    cluster.export = Some("/home/share".into());
    cluster.nfs1_arguments = vec!["--exports".to_owned(), at.join("exports").display().to_string()];
    cluster.start_on(&lan).unwrap();
    let boot = |host: &str, number, script: &str| {
        let mut spec = debian(script);
        for name in ["mount.nfs", "umount.nfs", "showmount", "rpcinfo"] {
            spec = spec.program(&format!("/bin/{name}"), &Path::new("/usr/sbin").join(name)).unwrap();
        }
        Guest::boot(&spec.on(&lan.port(host, number).unwrap())).unwrap()
    };
    let (web1, web3) = (boot("web1", 11, WEB1), boot("web3", 13, WEB3));

    let output = finish(web1, &cluster).output.replace('\r', "");
    let between = |start: &str, end: &str| {
        let (_, rest) = output.split_once(&format!("{start}\n")).unwrap();
        rest.split_once(&format!("{end}\n")).unwrap().0.trim().to_owned()
    };
    assert!(output.contains("vers=3"), "{output}");
    assert!(!output.contains("nolock"), "{output}");
    assert_eq!(between("EXPORTS", "CLIENTS"), "/home/share web1,web2", "{output}");
    assert_eq!(between("CLIENTS", "DIRECTORIES"), "192.0.2.11:/home/share", "{output}");
    assert_eq!(between("DIRECTORIES", "UNMOUNTED"), "/home/share", "{output}");
    assert_eq!(between("UNMOUNTED", "END"), "", "{output}");
    assert_eq!(std::fs::read(cluster.share().join("by-root")).unwrap(), b"hello\n");

    let refused = finish(web3, &cluster).output;
    assert!(refused.contains("access denied by server"), "{refused}");
    scratch::assert_equal(&cluster);
}
