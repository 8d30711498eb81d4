//! The proxies that are compared, each a process pinned to its own processors, with the guide's configuration.

use crate::process;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A proxy under test.
pub(super) struct Proxy {
    /// What it is called in tables.
    pub(super) name: &'static str,
    /// The guide's front end: `option http-server-close`.
    pub(super) closing: SocketAddr,
    /// The same with `option http-keep-alive`.
    pub(super) keeping: SocketAddr,
    child: Child,
}

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Program {
    /// Debian's.
    Haproxy,
    /// Ours, called by HAProxy's name.
    Ours,
}

/// How it is started.
pub(super) struct Place<'a> {
    /// For configuration and messages.
    pub(super) directory: &'a Path,
    /// `taskset`'s list of processors.
    pub(super) processors: &'a str,
    /// `nbthread`.
    pub(super) threads: usize,
    /// The log socket.
    pub(super) log: &'a Path,
    /// The web servers.
    pub(super) servers: &'a [SocketAddr],
}

/// The guide's file in today's spelling, with a second front end that keeps server connections.
fn configuration(place: &Place, ports: (u16, u16)) -> String {
    let back_end = |name: &str, option: &str| {
        let servers: String = place
            .servers
            .iter()
            .zip(["A", "B"])
            .map(|(address, cookie)| {
                format!(
                    "    server web{cookie} {address} inter 3000 rise 2 fall 3 check maxconn 10000 cookie {cookie}\n"
                )
            })
            .collect();
        format!(
            "backend {name}\n    balance roundrobin\n    {option}\n    cookie SESSION_ID insert indirect nocache\n{servers}"
        )
    };
    let (log, threads) = (place.log.display(), place.threads);
    format!(
        "global\n    log {log} local0\n    log {log} local1 notice\n    maxconn 20000\n    no strict-limits\n    nbthread {threads}\n\
         defaults\n    log global\n    mode http\n    option httplog\n    option dontlognull\n    option forwardfor except 127.0.0.0/8\n    \
         option redispatch\n    retries 3\n    timeout http-keep-alive 60s\n    timeout check 10s\n    timeout connect 5000\n    \
         timeout client 50000\n    timeout server 50000\n\
         frontend proxy\n    bind 127.0.0.1:{}\n    maxconn 20000\n    option http-server-close\n    default_backend dynamic\n{}\
         frontend keep\n    bind 127.0.0.1:{}\n    maxconn 20000\n    option http-keep-alive\n    default_backend keeping\n{}",
        ports.0,
        back_end("dynamic", "option http-server-close"),
        ports.1,
        back_end("keeping", "option http-keep-alive"),
    )
}

impl Proxy {
    /// Starts it and waits until it listens.
    pub(super) fn start(name: &'static str, program: Program, place: &Place) -> Result<Proxy> {
        let home = place.directory.join(name.replace(' ', "-"));
        fs::create_dir_all(&home)?;
        let ports = (free_port()?, free_port()?);
        let file = home.join("haproxy.cfg");
        fs::write(&file, configuration(place, ports))?;
        let called: PathBuf = match program {
            Program::Haproxy => "/usr/sbin/haproxy".into(),
            Program::Ours => {
                let link = home.join("haproxy");
                let _ = fs::remove_file(&link);
                symlink(process::executable().canonicalize()?, &link)?;
                link
            }
        };
        let messages = home.join("messages");
        let output = fs::File::create(&messages)?;
        let mut child = Command::new("taskset")
            .args(["-c", place.processors])
            .arg(called)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("taskset (util-linux) and haproxy")?;
        let [closing, keeping] =
            [ports.0, ports.1].map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let ready = process::wait_until("the proxy listens", Duration::from_secs(10), || {
            [closing, keeping].iter().all(|address| TcpStream::connect(address).is_ok())
        });
        if let Err(error) = ready {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{name}: {error}; it says:\n{}", fs::read_to_string(messages).unwrap_or_default());
        }
        Ok(Proxy { name, closing, keeping, child })
    }

    /// CPU seconds so far of all its processes and threads.
    pub(super) fn cpu(&self) -> Result<f64> {
        let mut sum = 0.0;
        let mut processes = vec![self.child.id()];
        while let Some(pid) = processes.pop() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).context("the proxy has ended")? {
                let task = task?.path();
                let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
                let nanos: f64 = text.split_whitespace().next().context("no schedstat")?.parse()?;
                sum += nanos / 1e9;
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                processes.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            }
        }
        Ok(sum)
    }

    /// Resident MiB now.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
