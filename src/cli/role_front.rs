//! What stands before nfs1 on this host: demonstration web nodes and the proxy, as child processes.

use super::assemble::{Launch, Role};
use super::children::{Child, Plan, Ready};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::{Control, NodeStatus, Refusal};
use crate::settings::{HostPort, ProxyRole, WebNode};
use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Most bytes of one proxy's metrics.
const MOST_METRICS: u64 = 64 << 20;
/// A proxy that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// First line of a configuration that `up` may write anew.
const OURS: &str =
    "# Written by `ehpc-store up` at each start. Remove this line to keep changes of your own.";

/// The running children.
pub(super) struct FrontRole {
    /// Web nodes, then proxies: ended in the reverse order.
    children: Vec<Child>,
    listening: Vec<(String, SocketAddr)>,
    /// Sockets of the proxies that answer `show metrics`.
    metrics: Vec<PathBuf>,
}

impl FrontRole {
    /// Starts the web nodes, then the proxy before them. `nfs1` is where this process's own NFS server listens.
    pub(super) async fn start(launch: &Launch, nfs1: Option<SocketAddr>) -> Result<FrontRole> {
        let mut role = FrontRole { children: Vec::new(), listening: Vec::new(), metrics: Vec::new() };
        let mut nodes = Vec::new();
        for node in &launch.cluster.web {
            let child = Child::start(web_plan(launch, node, nfs1)?).await?;
            if let Some(address) = child.address {
                role.listening.push((node.name.clone(), address));
                nodes.push((node.name.clone(), address));
            }
            role.children.push(child);
        }
        for proxy in &launch.cluster.proxies {
            let address = proxy.written_for.map(settle).transpose()?;
            if let Some(address) = address {
                write_configuration(proxy, address, &nodes)?;
            }
            fs::create_dir_all(&proxy.state)
                .with_context(|| format!("creating {}", proxy.state.display()))?;
            let metrics = proxy.state.join("metrics.sock");
            let child = Child::start(proxy_plan(proxy, address, &metrics)?).await?;
            role.metrics.push(metrics);
            if let Some(address) = address {
                role.listening.push(("proxy".to_owned(), address));
            }
            role.children.push(child);
        }
        Ok(role)
    }

    /// Names and addresses of what listens, as far as they are known.
    pub(super) fn listening(&self) -> &[(String, SocketAddr)] {
        &self.listening
    }
}

fn web_plan(launch: &Launch, node: &WebNode, nfs1: Option<SocketAddr>) -> Result<Plan> {
    let nfs = node.nfs.clone().or_else(|| nfs1.map(|address| HostPort::from(reachable(address))));
    let nfs = nfs.with_context(|| format!("web node {} has no NFS server: give it `nfs`", node.name))?;
    let log = launch.cluster.log;
    let (listen, name, export) = (node.listen, node.name.clone(), node.export.clone());
    let arguments = move |before: Option<SocketAddr>| -> Vec<OsString> {
        let listen = before.unwrap_or(listen).to_string();
        let nfs = nfs.to_string();
        let words = [
            "demo-web",
            "--name",
            &name,
            "--listen",
            &listen,
            "--nfs",
            &nfs,
            "--export",
            &export,
            "--log-level",
            log.level.word(),
            "--log-format",
            log.format.word(),
        ];
        words.map(OsString::from).into()
    };
    Ok(Plan {
        name: node.name.clone(),
        arguments: Box::new(arguments),
        ready: Ready::Line,
        stop_signal: Signal::TERM,
    })
}

/// The proxy of `proxy.config`, with one more socket: the one this process asks it for its metrics.
fn proxy_plan(proxy: &ProxyRole, address: Option<SocketAddr>, metrics: &Path) -> Result<Plan> {
    let config = proxy.config.clone();
    let ours = proxy.state.join("metrics.cfg");
    let text = format!(
        "# Written by `ehpc-store up`: where it asks the proxy for its metrics.\nglobal\n    stats socket \"{}\" mode 600 level user\n",
        metrics.display()
    );
    fs::write(&ours, text).with_context(|| format!("writing {}", ours.display()))?;
    let arguments = move |_: Option<SocketAddr>| -> Vec<OsString> {
        let (config, ours) = (config.clone().into_os_string(), ours.clone().into_os_string());
        vec!["proxy".into(), "-db".into(), "-f".into(), config, "-f".into(), ours]
    };
    Ok(Plan {
        name: "proxy".to_owned(),
        arguments: Box::new(arguments),
        ready: address.map_or(Ready::Running, |address| Ready::Port(reachable(address))),
        // Soft: requests under way are finished.
        stop_signal: Signal::USR1,
    })
}

/// What a proxy says when it is asked for its metrics.
async fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"show metrics\n").await?;
    stream.shutdown().await?;
    let mut text = String::new();
    stream.take(MOST_METRICS).read_to_string(&mut text).await?;
    Ok(text)
}

/// An address of this machine at which something that listens on `address` can be reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// haproxy.cfg has no "any port": with port 0, one that is free now.
fn settle(address: SocketAddr) -> Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    let listener =
        TcpListener::bind(address).with_context(|| format!("looking for a free port of {address}"))?;
    Ok(listener.local_addr()?)
}

/// Writes haproxy.cfg unless the operator has taken it over.
fn write_configuration(proxy: &ProxyRole, listen: SocketAddr, nodes: &[(String, SocketAddr)]) -> Result<()> {
    let file = &proxy.config;
    match fs::read_to_string(file) {
        Ok(text) if !text.starts_with(OURS) => {
            tracing::info!(file = %file.display(), "the proxy's configuration is yours: not written");
            return Ok(());
        }
        _ => {}
    }
    let admin = proxy.state.join("admin.sock");
    let text = configuration(listen, nodes, &admin);
    let partial = file.with_extension("cfg.partial");
    fs::write(&partial, text).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("writing {}", file.display()))
}

/// The deployment guide's proxy, over these nodes.
fn configuration(listen: SocketAddr, nodes: &[(String, SocketAddr)], admin: &Path) -> String {
    let mut text = format!(
        "{OURS}\n\
         global\n    \
             log stderr format raw local0 notice      # servers that come and go; traffic is `info`\n    \
             stats socket {} mode 600 level admin\n\n\
         defaults\n    \
             log global\n    \
             mode http\n    \
             option httplog\n    \
             option dontlognull\n    \
             option http-server-close\n    \
             option forwardfor\n    \
             option redispatch\n    \
             retries 3\n    \
             timeout http-request 10s\n    \
             timeout http-keep-alive 10s\n    \
             timeout check 10s\n    \
             timeout connect 5s\n    \
             timeout client 50s\n    \
             timeout server 50s\n\n\
         frontend proxy\n    \
             bind {listen}\n    \
             default_backend dynamic\n\n\
         backend dynamic\n    \
             balance roundrobin\n    \
             cookie SESSION_ID insert indirect nocache      # a browser stays with its node\n",
        admin.display()
    );
    for (at, (name, address)) in nodes.iter().enumerate() {
        let cookie = char::from(b'A' + u8::try_from(at % 26).unwrap_or(0));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    server {name} {address} check inter 1s rise 2 fall 3 cookie {cookie}");
    }
    text
}

impl Control for FrontRole {
    fn describe(&self, status: &mut NodeStatus) {
        status.children.extend(self.children.iter().map(Child::status));
    }

    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async move {
            let mut text = String::new();
            for socket in &self.metrics {
                match timeout(PATIENCE, ask(socket)).await {
                    Ok(Ok(answer)) => text.push_str(&answer),
                    // It is starting again: its metrics are missing this time.
                    Ok(Err(error)) => tracing::debug!(%error, "the proxy gave no metrics"),
                    Err(_) => tracing::warn!("the proxy gave no metrics in time"),
                }
            }
            text
        })
    }

    fn actions(&self) -> Vec<Action> {
        Vec::new()
    }

    fn act(&self, action: &str, _: Value, _: Progress) -> Outcome {
        let refusal = Refusal::Unknown { action: action.to_owned(), known: Vec::new() };
        Box::pin(async move { Err(refusal) })
    }
}

impl Role for FrontRole {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            for child in self.children.iter().rev() {
                child.stop().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_ones_own_is_kept() {
        let scratch = tempfile::tempdir().expect("a directory");
        let proxy = ProxyRole {
            host: "proxy".to_owned(),
            config: scratch.path().join("haproxy.cfg"),
            state: scratch.path().join("proxy"),
            dashboard: None,
            written_for: None,
        };
        let listen: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
        let nodes = [("web1".to_owned(), listen), ("web2".to_owned(), listen)];
        write_configuration(&proxy, listen, &nodes).expect("written");
        let text = fs::read_to_string(&proxy.config).expect("there");
        assert!(
            text.contains("server web2 127.0.0.1:8080 check inter 1s rise 2 fall 3 cookie B\n"),
            "{text}"
        );
        write_configuration(&proxy, listen, &nodes[..1]).expect("written");
        let text = fs::read_to_string(&proxy.config).expect("there");
        assert!(!text.contains("web2"), "{text}");
        fs::write(&proxy.config, "# mine\n").expect("written");
        write_configuration(&proxy, listen, &nodes).expect("kept");
        assert_eq!(fs::read_to_string(&proxy.config).expect("there"), "# mine\n");
    }
}
