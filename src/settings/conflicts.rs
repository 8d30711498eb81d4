//! What contradicts itself in a cluster.

use super::cluster::Cluster;
use super::problem::{Problem, Problems};
use std::net::SocketAddr;
use std::path::Path;

impl Cluster {
    /// For settings that come from options: two listeners on one port, directories inside each other.
    pub fn consistent(&self) -> Result<(), Problems> {
        Problems(self.conflicts()).into_result()
    }

    /// What contradicts itself: two listeners on one port of one host, directories inside each other.
    pub(super) fn conflicts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let listeners = self.listeners();
        for (at, (key, host, address)) in listeners.iter().enumerate() {
            let clash = listeners[..at].iter().find(|(_, other_host, other)| {
                let same_ip = address.ip() == other.ip()
                    || address.ip().is_unspecified()
                    || other.ip().is_unspecified();
                other_host == host && other.port() == address.port() && same_ip
            });
            if let Some((other, ..)) = clash {
                problems.push(Problem {
                    site: self.site(key),
                    what: format!("`{key}` uses port {} of host {host}, as does `{other}`", address.port()),
                    expected: "a port of its own for each listener of a host".to_owned(),
                    next: "change one of the two".to_owned(),
                });
            }
        }
        let directories = self.directories();
        for (key, host, path) in &directories {
            for (other, other_host, outer) in &directories {
                if key != other
                    && host == other_host
                    && path.starts_with(outer)
                    && (path != outer || key > other)
                {
                    problems.push(Problem {
                        site: self.site(key),
                        what: format!("`{key}` is inside `{other}` ({})", outer.display()),
                        expected: "directories that do not contain each other".to_owned(),
                        next: "move one of the two".to_owned(),
                    });
                }
            }
        }
        problems
    }

    /// Every listener: key, host, address.
    pub(crate) fn listeners(&self) -> Vec<(String, &str, SocketAddr)> {
        let mut all = Vec::new();
        if let Some(nfs1) = &self.nfs1 {
            all.push(("nfs1.listen".to_owned(), nfs1.host.as_str(), nfs1.listen));
            all.extend(
                nfs1.dashboard.map(|address| ("nfs1.dashboard".to_owned(), nfs1.host.as_str(), address)),
            );
        }
        if let Some(backup) = &self.backup {
            all.push(("backup.listen".to_owned(), backup.host.as_str(), backup.listen));
            all.extend(
                backup
                    .dashboard
                    .map(|address| ("backup.dashboard".to_owned(), backup.host.as_str(), address)),
            );
        }
        if let (Some(database), Some(backup)) = (&self.database, &self.backup) {
            all.push(("database.listen".to_owned(), backup.host.as_str(), database.listen));
        }
        for node in &self.web {
            all.push((format!("web.{}.listen", node.name), node.host.as_str(), node.listen));
        }
        for proxy in &self.proxies {
            let dashboard = proxy
                .dashboard
                .map(|at| (format!("proxy.{}.dashboard", proxy.host), proxy.host.as_str(), at));
            all.extend(dashboard);
            all.extend(proxy.written_for.map(|address| ("proxy".to_owned(), proxy.host.as_str(), address)));
        }
        all.retain(|(_, _, address)| address.port() != 0);
        all
    }

    /// Every directory: key, host, path.
    pub(crate) fn directories(&self) -> Vec<(String, &str, &Path)> {
        let mut all = Vec::new();
        if let Some(nfs1) = &self.nfs1 {
            all.push(("nfs1.export.path".to_owned(), nfs1.host.as_str(), nfs1.export.path.as_path()));
            all.push(("nfs1.state".to_owned(), nfs1.host.as_str(), nfs1.state.as_path()));
        }
        if let (Some(nfs1), Some(private)) =
            (&self.nfs1, self.database.as_ref().and_then(|d| d.private.as_ref()))
        {
            all.push(("nfs1.database".to_owned(), nfs1.host.as_str(), private.as_path()));
        }
        if let Some(backup) = &self.backup {
            all.push(("backup.directory".to_owned(), backup.host.as_str(), backup.directory.as_path()));
        }
        for proxy in &self.proxies {
            all.push((format!("proxy.{}.state", proxy.host), proxy.host.as_str(), proxy.state.as_path()));
        }
        for node in &self.web {
            all.push((format!("web.{}.state", node.name), node.host.as_str(), node.state.as_path()));
        }
        all
    }
}
