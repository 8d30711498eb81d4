//! A local network of a test's own: a network namespace with a bridge, for servers that run in it and micro
//! virtual machines on its taps. Unlike QEMU's user networking it carries calls in both directions (NLM's GRANTED,
//! NSM's NOTIFY), and several servers may hold ports 111 and 2049, each in its own.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The bridge's address: where the servers of the namespace are reached (network of RFC 5737, nowhere routed).
pub const SERVER: &str = "192.0.2.1";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The namespace; dropping it removes it with its bridge and taps. End its processes before.
pub struct Lan {
    name: String,
}

/// A guest's place on the network. It survives the guest, so that the guest can be booted again.
#[derive(Clone, Debug)]
pub struct Port {
    pub(crate) namespace: PathBuf,
    pub(crate) tap: String,
    pub(crate) mac: String,
    /// The guest's address.
    pub address: String,
    /// The guest's host name.
    pub host: String,
}

impl Lan {
    /// Makes namespace, loopback and bridge; removes what killed tests left.
    pub fn new() -> Result<Lan> {
        remove_orphans();
        let name = format!("ehpc-lan-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let lan = Lan { name };
        lan.ip(&["link", "set", "lo", "up"])?;
        lan.ip(&["link", "add", "br0", "type", "bridge"])?;
        lan.ip(&["addr", "add", &format!("{SERVER}/24"), "dev", "br0"])?;
        lan.ip(&["link", "set", "br0", "up"])?;
        Ok(lan)
    }

    /// Path of the namespace, for `nsenter --net=`.
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that runs `program` in the namespace (network only: files are the host's).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.namespace(), program)
    }

    /// A tap on the bridge for the guest called `host`, whose address ends in `number`.
    pub fn port(&self, host: &str, number: u8) -> Result<Port> {
        let tap = format!("tap{number}");
        self.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", "br0", "up"])?;
        Ok(Port {
            namespace: self.namespace(),
            tap,
            mac: format!("52:54:00:00:02:{number:02x}"),
            address: format!("192.0.2.{number}"),
            host: host.to_owned(),
        })
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

impl Port {
    /// What the guest's init runs to configure its interface and names.
    pub(crate) fn configuration(&self) -> String {
        let Port { address, host, .. } = self;
        format!(
            "hostname {host}\nip addr add {address}/24 dev eth0\nip link set eth0 up\n\
             printf '127.0.0.1 localhost\\n{address} {host}\\n{SERVER} nfs1\\n' > /etc/hosts\n"
        )
    }
}

/// A command that runs `program` in the network namespace at `namespace`.
pub fn inside(namespace: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("ip does not start (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Namespaces of tests that no longer run (the number in the name is their process).
fn remove_orphans() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let process = name.strip_prefix("ehpc-lan-").and_then(|rest| rest.split('-').next());
        if process.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}
