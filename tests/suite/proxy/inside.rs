//! A test that runs in a network of its own: the test binary calls itself again under `unshare --net`, so that the
//! test's own sockets and those of the daemons it starts share a loopback with any address and any port free.

use std::process::{Command, Stdio};

/// Names the test that runs inside.
const MARK: &str = "EHPC_SUITE_INSIDE";

/// Addresses 10.0.0.0/8 are local, ports are many, and packets to 10.99.0.1 are never answered.
const PREPARE: &str = "ip link set lo up && ip addr add 10.1.0.1/16 dev lo \
    && ip link add void0 type veth peer name void1 && ip link set void0 up && ip link set void1 up \
    && ip addr add 10.99.0.2/24 dev void0 && ip neigh add 10.99.0.1 lladdr 02:00:00:00:00:63 dev void0 \
    && sysctl -q -w net.ipv4.ip_local_port_range='10000 65000' net.core.somaxconn=65535 \
    net.ipv4.tcp_max_syn_backlog=65535 net.unix.max_dgram_qlen=4096 && exec \"$@\"";

/// A /dev of its own, so that /dev/log is the test's; likewise HAProxy's usual chroot.
const DEVICES: &str = "new=$(mktemp -d) && mount -t tmpfs none $new \
    && for name in null zero full random urandom tty; do touch $new/$name && mount --bind /dev/$name $new/$name; done \
    && mkdir $new/shm && mount -t tmpfs none $new/shm && mount --move $new /dev && rmdir $new \
    && mkdir -p /var/lib/haproxy && mount -t tmpfs none /var/lib/haproxy && mkdir /var/lib/haproxy/dev && ";

/// Runs `body` inside; `test` is the test's full name (`proxy::...`). Fails when the test fails there.
pub(crate) fn inside(test: &str, body: impl FnOnce()) {
    run(test, &["--net"], PREPARE, body);
}

/// The same with a /dev and a /var/lib/haproxy of its own.
pub(crate) fn inside_with_devices(test: &str, body: impl FnOnce()) {
    run(test, &["--net", "--mount"], &format!("{DEVICES}{PREPARE}"), body);
}

fn run(test: &str, what: &[&str], prepare: &str, body: impl FnOnce()) {
    if std::env::var(MARK).is_ok_and(|name| name == test) {
        body();
        return;
    }
    let status = Command::new("unshare")
        .args(what)
        .args(["sh", "-c", prepare, "sh"])
        .arg(std::env::current_exe().expect("the test binary has a path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(MARK, test)
        .stdin(Stdio::null())
        .status()
        .expect("unshare runs (as root)");
    assert!(status.success(), "{test} failed in its network ({status}); its output is above");
}
