//! The servers that are compared: each serves a directory of its own on the same disk.

use crate::process::{self, Daemon};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where servers listen and where the generator comes from, unless a measurement says otherwise.
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server under test.
pub(super) struct Server {
    /// What it is called in tables.
    pub(super) name: &'static str,
    /// NFS.
    pub(super) address: SocketAddr,
    /// MOUNT.
    pub(super) mount_address: SocketAddr,
    /// The name that is mounted.
    pub(super) export: String,
    /// The directory behind it.
    pub(super) directory: PathBuf,
    process: Process,
}

enum Process {
    Ours(Daemon),
    Ganesha(Child, #[expect(dead_code, reason = "ends with it")] Portmapper),
}

impl Server {
    /// Our server of one export that is not replicated: it lies outside of the share. `durable`: exports(5) `sync`.
    pub(super) fn ours(scratch: &Path, durable: bool) -> Result<Server> {
        let name = if durable { "ours-sync" } else { "ours" };
        let home = scratch.join(name);
        let (directory, share) = (home.join("plain"), home.join("share"));
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&share)?;
        let export = directory.display().to_string();
        let exports = home.join("exports");
        let how = if durable { "sync" } else { "async" };
        fs::write(&exports, format!("{export} *(rw,{how},no_root_squash,insecure)\n"))?;
        let text = |path: &Path| path.display().to_string();
        let mut arguments = vec!["nfs1".to_owned(), "--export".to_owned(), text(&share)];
        arguments.extend(["--exports".to_owned(), text(&exports)]);
        arguments.extend(["--state".to_owned(), text(&home.join("state"))]);
        arguments.extend(["--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"].map(String::from));
        arguments.extend(["--backup", "127.0.0.1:9"].map(String::from));
        let daemon = Daemon::start(&arguments, &home.join("log"))?;
        let address = SocketAddr::new(LOOPBACK.into(), daemon.port("nfs")?);
        let process = Process::Ours(daemon);
        Ok(Server { name, address, mount_address: address, export, directory, process })
    }

    /// One that runs already, with this export.
    pub(super) fn running(name: &'static str, daemon: Daemon, directory: &Path) -> Result<Server> {
        let address = SocketAddr::new(LOOPBACK.into(), daemon.port("nfs")?);
        Ok(Server {
            name,
            address,
            mount_address: address,
            export: "/share".to_owned(),
            directory: directory.to_owned(),
            process: Process::Ours(daemon),
        })
    }

    /// nfs-ganesha with its VFS back end, NFSv3 over TCP alone.
    pub(super) fn ganesha(scratch: &Path) -> Result<Server> {
        let home = scratch.join("ganesha");
        let directory = home.join("share");
        fs::create_dir_all(&directory)?;
        fs::create_dir_all("/var/lib/nfs/ganesha")?;
        let portmapper = Portmapper::start()?;
        let (port, mount_port) = (free_port()?, free_port()?);
        let export = directory.display().to_string();
        let configuration = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; MNT_Port = {mount_port}; NFS_Protocols = 3; RPC_Max_Connections = 10000; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
             EXPORT_DEFAULTS {{ Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP; }}\n\
             EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /share; FSAL {{ Name = VFS; }} }}\n\
             LOG {{ Default_Log_Level = WARN; }}\n"
        );
        let file = home.join("ganesha.conf");
        fs::write(&file, configuration)?;
        let mut child = Command::new("ganesha.nfsd")
            .arg("-F")
            .arg("-L")
            .arg(home.join("log"))
            .arg("-f")
            .arg(&file)
            .arg("-p")
            .arg(home.join("pid"))
            .stdin(Stdio::null())
            .spawn()
            .context("ganesha.nfsd: apt-get install nfs-ganesha nfs-ganesha-vfs rpcbind")?;
        let address = SocketAddr::new(LOOPBACK.into(), port);
        let mount_address = SocketAddr::new(LOOPBACK.into(), mount_port);
        let listening = |address| std::net::TcpStream::connect(address).is_ok();
        let ready = process::wait_until("nfs-ganesha listens", Duration::from_secs(30), || {
            listening(address) && listening(mount_address)
        });
        if let Err(error) = ready {
            let _ = child.kill();
            let log = fs::read_to_string(home.join("log")).unwrap_or_default();
            bail!("{error}; its log:\n{log}");
        }
        let process = Process::Ganesha(child, portmapper);
        Ok(Server { name: "nfs-ganesha", address, mount_address, export, directory, process })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Ours(daemon) => daemon.pid(),
            Process::Ganesha(child, _) => child.id(),
        }
    }

    /// CPU seconds so far of the threads whose name begins with `prefix`.
    pub(super) fn cpu(&self, prefix: &str) -> Result<f64> {
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let task = task?.path();
            // Threads come and go.
            let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
            let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
            if name.starts_with(prefix) {
                let nanos: f64 = text.split_whitespace().next().context("no schedstat")?.parse()?;
                sum += nanos / 1e9;
            }
        }
        Ok(sum)
    }

    /// Resident MiB now.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Ganesha(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// nfs-ganesha does not start without one. In this process's network namespace.
struct Portmapper(Option<Child>);

impl Portmapper {
    fn start() -> Result<Portmapper> {
        let answers = || std::net::TcpStream::connect((LOOPBACK, 111)).is_ok();
        if answers() {
            return Ok(Portmapper(None));
        }
        let child =
            Command::new("rpcbind").args(["-f", "-w"]).stdin(Stdio::null()).spawn().context("rpcbind")?;
        process::wait_until("rpcbind listens", Duration::from_secs(10), answers)?;
        Ok(Portmapper(Some(child)))
    }
}

impl Drop for Portmapper {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port())
}
