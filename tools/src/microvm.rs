//! A micro virtual machine: Debian's kernel under QEMU's software emulation, a busybox userland, and a
//! script to run. Its Linux NFS client is the real peer of the NFS tests; with a disk and the product
//! inside, killing it is a power cut.
//!
//! Needs the packages that `tools/test` installs: qemu-system-x86, linux-image-cloud-amd64, busybox-static, kmod.

use crate::cpio;
use crate::lan::{self, Port};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// The host's loopback as the guest sees it.
pub const HOST: &str = "10.0.2.2";

/// What to boot.
pub struct Spec {
    /// Shell script (busybox sh, `set -eu` unless it says otherwise); its exit status is the guest's.
    pub script: String,
    /// Files to place in the guest: (absolute path in the guest, host file).
    pub files: Vec<(String, PathBuf)>,
    /// MiB of memory.
    pub memory_mib: u32,
    /// Raw ext4 images, /dev/vda, /dev/vdb, ...
    pub disks: Vec<PathBuf>,
    /// Disks behind an NBD server (`nbd:unix:SOCKET`), numbered after `disks`.
    pub disk_uris: Vec<String>,
    /// Where it is plugged in; QEMU's user networking when `None` (the host is [`HOST`], nobody can call the guest).
    pub port: Option<Port>,
    /// Give up (and say what the guest printed) after this.
    pub deadline: Duration,
}

impl Spec {
    /// A guest with 1 GiB, no disk, five minutes.
    pub fn new(script: impl Into<String>) -> Spec {
        Spec {
            script: script.into(),
            files: Vec::new(),
            memory_mib: 1024,
            disks: Vec::new(),
            disk_uris: Vec::new(),
            port: None,
            deadline: Duration::from_secs(300),
        }
    }

    /// Plugs it into a network.
    pub fn on(mut self, port: &Port) -> Spec {
        self.port = Some(port.clone());
        self
    }

    /// Adds a host file.
    pub fn file(mut self, guest: &str, host: impl Into<PathBuf>) -> Spec {
        self.files.push((guest.to_owned(), host.into()));
        self
    }

    /// Adds the program `host` with the shared libraries it needs.
    pub fn program(mut self, guest: &str, host: &Path) -> Result<Spec> {
        let listing = Command::new("ldd").arg(host).output().context("ldd")?;
        for line in String::from_utf8_lossy(&listing.stdout).lines() {
            let path = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(path) = path
                && !self.files.iter().any(|(guest, _)| guest == path)
            {
                self = self.file(path, path);
            }
        }
        Ok(self.file(guest, host))
    }
}

/// The mount command for an export of the host, to be used in scripts.
pub fn mount_command(port: u16, export: &str, dir: &str) -> String {
    mount_from(HOST, port, export, dir)
}

/// The mount command for an export of the server at `address`, without locks.
pub fn mount_from(address: &str, port: u16, export: &str, dir: &str) -> String {
    format!(
        "mkdir -p {dir}; mount -t nfs -o vers=3,tcp,port={port},mountport={port},addr={address},\
         mountaddr={address},mountproto=tcp,mountvers=3,nolock,hard,timeo=600,retrans=2 {address}:{export} {dir}"
    )
}

/// What the guest's script did.
#[derive(Debug)]
pub struct Outcome {
    /// Everything it printed.
    pub output: String,
    /// Its exit status.
    pub status: i32,
}

/// A running guest. Dropping it kills it, which is a power cut.
pub struct Guest {
    qemu: Child,
    directory: PathBuf,
    lines: mpsc::Receiver<String>,
    seen: String,
    until: Instant,
}

impl Guest {
    /// Boots; returns as soon as QEMU runs.
    pub fn boot(spec: &Spec) -> Result<Guest> {
        let version = kernel_version()?;
        let base = base_image(&version)?;
        let directory = std::env::temp_dir().join(format!(
            "ehpc-microvm-{}-{:x}",
            std::process::id(),
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos()
        ));
        fs::create_dir_all(&directory)?;
        fs::copy(&base, directory.join("initrd"))?;
        append_files(spec, &directory.join("initrd"))?;
        // A pipe chardev wants a pair PATH.in / PATH.out.
        let pipe = directory.join("output.out");
        mkfifo(&pipe)?;
        mkfifo(&directory.join("output.in"))?;
        let qemu = command(spec, &version, &directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .context("qemu-system-x86_64 does not start; tools/test installs it (package qemu-system-x86)")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let Ok(mut pipe) = fs::File::open(pipe) else { return };
            let mut buffer = [0; 65536];
            while let Ok(n) = pipe.read(&mut buffer) {
                if n == 0 || send.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Guest { qemu, directory, lines, seen: String::new(), until: Instant::now() + spec.deadline })
    }

    /// Sends a line to the script, which reads it from descriptor 3. Wait first for something that it printed:
    /// what arrives before the guest's init runs is lost.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let mut pipe = fs::OpenOptions::new().write(true).open(self.directory.join("output.in"))?;
        pipe.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Waits until the script has printed `text`.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        while !self.seen.contains(text) {
            let left = self.until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(more) => self.seen.push_str(&more),
                Err(_) => {
                    bail!("the guest did not print {text:?}; it printed:\n{}\n{}", self.seen, self.console())
                }
            }
        }
        Ok(())
    }

    /// What the script has printed so far.
    pub fn output(&mut self) -> &str {
        while let Ok(more) = self.lines.try_recv() {
            self.seen.push_str(&more);
        }
        &self.seen
    }

    /// Pulls the plug: everything the guest had not flushed to its disks is gone.
    pub fn power_cut(mut self) -> Result<String> {
        self.qemu.kill()?;
        self.qemu.wait()?;
        Ok(self.output().to_owned())
    }

    /// Waits for the script's end.
    pub fn finish(mut self) -> Result<Outcome> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(more) => self.seen.push_str(&more),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the guest did not finish in time; it printed:\n{}\n{}", self.seen, self.console())
                }
            }
        }
        self.qemu.wait()?;
        let status = fs::read_to_string(self.directory.join("status"))?;
        let status = status.trim().parse().with_context(|| {
            format!("the guest left no exit status; it printed:\n{}\n{}", self.seen, self.console())
        })?;
        Ok(Outcome { output: std::mem::take(&mut self.seen), status })
    }

    /// What the guest's kernel printed.
    pub fn console(&self) -> String {
        let console = fs::read(self.directory.join("console")).unwrap_or_default();
        format!("console:\n{}", String::from_utf8_lossy(&console))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Boots, runs the script, returns what it did.
pub fn run(spec: &Spec) -> Result<Outcome> {
    Guest::boot(spec)?.finish()
}

/// QEMU's command line.
fn command(spec: &Spec, version: &str, directory: &Path) -> Command {
    let mut command = match &spec.port {
        None => Command::new("qemu-system-x86_64"),
        Some(port) => lan::inside(&port.namespace, "qemu-system-x86_64"),
    };
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-m", &spec.memory_mib.to_string()])
        .args(["-kernel", &format!("/boot/vmlinuz-{version}"), "-initrd"])
        .arg(directory.join("initrd"))
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet mitigations=off nokaslr random.trust_cpu=on no_timer_check",
        ]);
    let (backend, card) = match &spec.port {
        None => ("user,id=n0,ipv6=off".to_owned(), "virtio-net-pci,netdev=n0,romfile=".to_owned()),
        Some(port) => (
            format!("tap,id=n0,ifname={},script=no,downscript=no", port.tap),
            format!("virtio-net-pci,netdev=n0,romfile=,mac={}", port.mac),
        ),
    };
    command
        .args(["-netdev", &backend, "-device", &card])
        .args(["-serial", &format!("file:{}", directory.join("console").display())])
        .args(["-chardev", &format!("pipe,id=out,path={}", directory.join("output").display())])
        .args(["-serial", "chardev:out"])
        .args(["-serial", &format!("file:{}", directory.join("status").display())]);
    let files = spec.disks.iter().map(|disk| disk.display().to_string());
    for (index, disk) in files.chain(spec.disk_uris.iter().cloned()).enumerate() {
        command.args([
            "-drive",
            &format!("file={disk},if=none,id=d{index},format=raw,cache=writeback"),
            "-device",
            &format!("virtio-blk-pci,drive=d{index}"),
        ]);
    }
    command
}

/// The run's own files, behind the base image.
fn append_files(spec: &Spec, initrd: &Path) -> Result<()> {
    let mut archive = cpio::Archive::append(initrd)?;
    archive.file("run.sh", spec.script.as_bytes(), 0o755)?;
    if let Some(port) = &spec.port {
        archive.file("network", port.configuration().as_bytes(), 0o644)?;
    }
    for (guest, host) in &spec.files {
        archive.host_file(guest.trim_start_matches('/'), host)?;
    }
    archive.finish()
}

fn mkfifo(path: &Path) -> Result<()> {
    let status = Command::new("mkfifo").arg(path).status()?;
    if !status.success() {
        bail!("mkfifo {} failed", path.display());
    }
    Ok(())
}

fn kernel_version() -> Result<String> {
    let mut versions: Vec<String> = fs::read_dir("/boot")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
        .filter(|version| version.contains("cloud"))
        .collect();
    versions.sort();
    versions
        .pop()
        .context("no cloud kernel in /boot; tools/test installs it (package linux-image-cloud-amd64)")
}

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /mnt /etc
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs tmp /tmp; chmod 1777 /tmp
for module in $(cat /modules); do insmod "$module"; done
ip link set lo up
if [ -e /network ]; then
  . /network
else
  ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2
fi
for user in root:0 nobody:65534 tests:1001 _rpc:101 statd:102; do
  echo "${user%:*}:x:${user#*:}:${user#*:}::/:/bin/sh" >> /etc/passwd
  echo "${user%:*}:x:${user#*:}:" >> /etc/group
done
stty -F /dev/ttyS1 raw -echo
sh -eu /run.sh > /dev/ttyS1 2>&1 < /dev/null 3< /dev/ttyS1
echo $? > /dev/ttyS2
sync
reboot -f
"#;

/// The part of the initramfs that does not change: busybox, kernel modules, init. Made once per kernel.
fn base_image(version: &str) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let path = std::env::temp_dir().join(format!("ehpc-microvm-base-{version}-5.cpio"));
    if path.exists() {
        return Ok(path);
    }
    let mut modules: Vec<String> = Vec::new();
    for name in ["virtio_pci", "virtio_net", "virtio_blk", "nfsv3", "nfsv4"] {
        let output = Command::new("modprobe").args(["-S", version, "--show-depends", name]).output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(module) = line.split_whitespace().nth(1)
                && !modules.iter().any(|known| known == module)
            {
                modules.push(module.to_owned());
            }
        }
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::File::create(&partial)?;
    let mut archive = cpio::Archive::append(&partial)?;
    archive.file("init", INIT.as_bytes(), 0o755)?;
    archive.host_file("bin/busybox", Path::new("/bin/busybox"))?;
    for module in &modules {
        archive.host_file(module.trim_start_matches('/'), Path::new(module))?;
    }
    archive.file("modules", modules.join("\n").as_bytes(), 0o644)?;
    archive.finish()?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644))?;
    fs::rename(&partial, &path)?;
    Ok(path)
}
