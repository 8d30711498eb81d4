//! What stands before nfs1: the proxy of a host, and demonstration web nodes.

use super::cluster::{DASHBOARD_PORT, Host, Nfs1};
use super::document::{Document, Section};
use super::problem::nearest;
use super::sections::{or_all, read_host};
use super::units::HostPort;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A host's proxy: `[proxy.HOST]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyRole {
    /// Name of its host.
    pub host: String,
    /// haproxy.cfg.
    pub config: PathBuf,
    /// Directory for its control socket.
    pub state: PathBuf,
    /// Dashboard, metrics, health, status; where the host has another role, that one's serves the proxy too.
    pub dashboard: Option<SocketAddr>,
    /// `up` without a cluster file writes the configuration itself, for this address.
    pub written_for: Option<SocketAddr>,
}

/// A demonstration web node: `[web.NAME]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebNode {
    /// Its name, on its pages.
    pub name: String,
    /// Name of its host.
    pub host: String,
    /// Where browsers or the proxy connect.
    pub listen: SocketAddr,
    /// The NFS server; absent: nfs1 of the same process.
    pub nfs: Option<HostPort>,
    /// Path that the server exports.
    pub export: String,
    /// Directory for its control socket.
    pub state: PathBuf,
}

impl ProxyRole {
    /// The proxy of `up`.
    pub(super) fn local(data: &Path, listen: SocketAddr) -> ProxyRole {
        ProxyRole {
            host: "proxy".to_owned(),
            config: data.join("haproxy.cfg"),
            state: data.join("proxy"),
            dashboard: None,
            written_for: Some(listen),
        }
    }
}

impl WebNode {
    /// A node of `up`.
    pub(super) fn local(name: &str, data: &Path, listen: SocketAddr) -> WebNode {
        WebNode {
            name: name.to_owned(),
            host: name.to_owned(),
            listen,
            nfs: None,
            export: "/share".to_owned(),
            state: data.join(name),
        }
    }
}

pub(super) fn read_proxies<'t>(
    document: &mut Document<'t>,
    top: &Section<'_, 't>,
    hosts: &[Host],
    others: &[&str],
) -> Vec<ProxyRole> {
    let mut proxies = Vec::new();
    for (host, section) in document.named_sections(top, "proxy", &["config", "state", "dashboard"]) {
        let config: PathBuf =
            document.get(&section, "config").unwrap_or_else(|| PathBuf::from("/etc/haproxy/haproxy.cfg"));
        let state =
            document.get(&section, "state").unwrap_or_else(|| PathBuf::from("/var/lib/ehpc-store/proxy"));
        let dashboard = match others.contains(&host.as_str()) {
            true => document.get(&section, "dashboard"),
            false => Some(or_all(document, &section, "dashboard", DASHBOARD_PORT)),
        };
        if !hosts.iter().any(|known| known.name == host) {
            let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
            let next = match nearest(&host, names.iter().copied()) {
                Some(near) => format!("write [proxy.{near}]"),
                None => format!("add a section [hosts.{host}] with its address"),
            };
            document.report(
                section.site.clone(),
                format!("[proxy.{host}]: there is no host `{host}`"),
                "the name of a host: [proxy.HOST]",
                next,
            );
        }
        proxies.push(ProxyRole { host, config, state, dashboard, written_for: None });
    }
    proxies
}

pub(super) fn read_web<'t>(
    document: &mut Document<'t>,
    top: &Section<'_, 't>,
    hosts: &[Host],
    nfs1: Option<&Nfs1>,
) -> Vec<WebNode> {
    let mut web = Vec::new();
    let server = nfs1.and_then(|nfs1| {
        let host = hosts.iter().find(|host| host.name == nfs1.host)?;
        Some(HostPort { host: host.address.to_string(), port: nfs1.listen.port() })
    });
    for (name, section) in document.named_sections(top, "web", &["host", "listen", "nfs", "export", "state"])
    {
        let host = read_host(document, &section, hosts);
        let listen = or_all(document, &section, "listen", 80);
        let nfs: Option<HostPort> = document.get(&section, "nfs").or_else(|| server.clone());
        let export = document.get(&section, "export").or_else(|| nfs1.map(|nfs1| nfs1.export.name.clone()));
        let state: Option<PathBuf> = document.get(&section, "state");
        let state = state.unwrap_or_else(|| PathBuf::from(format!("/var/lib/ehpc-store/web-{name}")));
        if nfs.is_none() {
            let what = format!("[web.{name}] has no NFS server");
            document.report(
                section.site.clone(),
                what,
                "the address of one, or a section [nfs1]",
                "add `nfs = \"HOST:PORT\"`",
            );
        }
        let Some(host) = host else { continue };
        let export = export.unwrap_or_else(|| "/share".to_owned());
        web.push(WebNode { name, host: host.name, listen, nfs, export, state });
    }
    web
}
