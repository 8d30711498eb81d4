//! Builds a node from its roles.

use super::panics;
use super::role_backup::BackupRole;
use super::role_front::FrontRole;
use super::role_mariadb::{self, MariaDbRole};
use super::role_nfs1::Nfs1Role;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{ProcessStatus, resident_bytes};
use crate::observe::{Control, NodeStatus, Refusal, words};
use crate::replication::pairing;
use crate::settings::Cluster;
use crate::settings::environment::Roles;
use anyhow::Result;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// What is to be started.
pub(super) struct Launch {
    /// Settings of both roles.
    pub(super) cluster: Cluster,
    /// Which of them run here.
    pub(super) roles: Roles,
    /// The export's root may be another than the recorded one.
    pub(super) accept_new_export: bool,
    /// The first scan may remove most of the tree.
    pub(super) accept_removal: bool,
    /// Both roles are in this process: pair them without a code.
    pub(super) pair_here: bool,
}

impl Launch {
    /// Nothing accepted, nothing paired.
    pub(super) fn new(cluster: Cluster, roles: Roles) -> Launch {
        Launch { cluster, roles, accept_new_export: false, accept_removal: false, pair_here: false }
    }

    /// State directories to lock, in a fixed order.
    pub(super) fn state_directories(&self) -> Vec<PathBuf> {
        let nfs1 = self.cluster.nfs1.as_ref().filter(|_| self.roles.nfs1).map(|nfs1| nfs1.state.clone());
        let backup =
            self.cluster.backup.as_ref().filter(|_| self.roles.backup).map(|backup| backup.directory.clone());
        let front = self.roles.front.then_some(&self.cluster);
        let proxies =
            front.into_iter().flat_map(|cluster| cluster.proxies.iter().map(|proxy| proxy.state.clone()));
        let web = front.into_iter().flat_map(|cluster| cluster.web.iter().map(|node| node.state.clone()));
        nfs1.into_iter().chain(backup).chain(proxies).chain(web).collect()
    }

    /// Where the status page is to be served.
    pub(super) fn dashboards(&self) -> Vec<(&'static str, SocketAddr)> {
        let nfs1 = self.cluster.nfs1.as_ref().filter(|_| self.roles.nfs1).and_then(|nfs1| nfs1.dashboard);
        let backup =
            self.cluster.backup.as_ref().filter(|_| self.roles.backup).and_then(|backup| backup.dashboard);
        let proxies = self.cluster.proxies.iter().filter(|_| self.roles.front);
        let proxies = proxies.filter_map(|proxy| Some(("proxy.HOST", proxy.dashboard?)));
        let nfs1 = nfs1.map(|address| ("nfs1.dashboard", address));
        nfs1.into_iter().chain(backup.map(|address| ("backup.dashboard", address))).chain(proxies).collect()
    }
}

/// One role of a running node.
pub(super) trait Role: Control {
    /// Ends it gracefully, within a bounded time.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Where it is told that a role cannot go on.
pub(super) type Faults = mpsc::Sender<anyhow::Error>;

/// A running node.
pub(super) struct Node {
    started: Instant,
    names: Vec<String>,
    roles: Vec<Arc<dyn Role>>,
    listening: Vec<(String, String)>,
    faults: Mutex<mpsc::Receiver<anyhow::Error>>,
    try_next: Vec<String>,
}

impl Node {
    /// Starts the backup first, so that nfs1 finds it.
    pub(super) async fn start(mut launch: Launch, stop: CancellationToken) -> Result<Node> {
        let (fault, faults) = mpsc::channel(4);
        panics::report_to(fault);
        let mut node = Node {
            started: Instant::now(),
            names: Vec::new(),
            roles: Vec::new(),
            listening: Vec::new(),
            faults: Mutex::new(faults),
            try_next: Vec::new(),
        };
        if launch.pair_here {
            pair_here(&launch)?;
        }
        if launch.roles.nfs1 {
            node.names.push("nfs1".to_owned());
        }
        if launch.roles.backup {
            node.names.push("backup".to_owned());
            let backup = BackupRole::start(&launch).await?;
            node.listening("replication", backup.address());
            if let Some(address) = backup.binlog_address() {
                node.listening("binlog", address);
            }
            if let Some(nfs1) = &mut launch.cluster.nfs1
                && launch.roles.nfs1
            {
                // The same process: reach it where it really listens (the port may have been chosen by the kernel).
                nfs1.backup = Some(backup.address().into());
            }
            node.roles.push(Arc::new(backup));
        }
        let mut nfs = None;
        if launch.roles.nfs1
            && let Some(server) = MariaDbRole::start(&launch).await?
        {
            node.names.push("mariadbd".to_owned());
            node.listening.push(("database".to_owned(), server.socket().display().to_string()));
            node.roles.push(Arc::new(server));
        }
        if launch.roles.nfs1 {
            let nfs1 = Nfs1Role::start(&launch, stop).await?;
            nfs = Some(nfs1.address());
            node.listening("nfs", nfs1.address());
            node.roles.push(Arc::new(nfs1));
        }
        if launch.roles.front {
            let front = FrontRole::start(&launch, nfs).await?;
            node.names.extend(launch.cluster.web.iter().map(|node| node.name.clone()));
            node.names.extend(launch.cluster.proxies.iter().map(|_| "proxy".to_owned()));
            for (what, address) in front.listening() {
                node.listening(what, *address);
            }
            node.roles.push(Arc::new(front));
        }
        node.try_next = advice(&launch, &node.listening);
        Ok(node)
    }

    /// Remembers an address for `status` and the ready line.
    pub(super) fn listening(&mut self, what: &str, address: SocketAddr) {
        self.listening.push((what.to_owned(), address.to_string()));
    }

    /// The line that says so, then what to try.
    pub(super) fn ready(&self) -> String {
        let addresses: Vec<String> = self.listening.iter().map(|(what, at)| format!("{what}={at}")).collect();
        let mut text = format!("ready {}\n", addresses.join(" "));
        for line in &self.try_next {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Resolves when a role cannot go on any more.
    pub(super) async fn failed(&self) -> anyhow::Error {
        match self.faults.lock().await.recv().await {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }

    /// Ends the roles, nfs1 before the backup that it still sends to.
    pub(super) async fn stop(&self) {
        for role in self.roles.iter().rev() {
            role.stop().await;
        }
    }
}

impl Control for Node {
    fn describe(&self, status: &mut NodeStatus) {
        status.process = ProcessStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: self.names.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            rss_bytes: resident_bytes(),
            now_ms: words::now_ms(),
            listening: self.listening.clone(),
        };
        self.roles.iter().for_each(|role| role.describe(status));
    }

    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async move {
            let mut text = String::new();
            for role in &self.roles {
                text.push_str(&role.metrics().await);
            }
            text
        })
    }

    fn actions(&self) -> Vec<Action> {
        self.roles.iter().flat_map(|role| role.actions()).collect()
    }

    fn act(&self, action: &str, arguments: Value, progress: Progress) -> Outcome {
        let able = self.roles.iter().find(|role| role.actions().iter().any(|known| known.name == action));
        if let Some(role) = able {
            return role.act(action, arguments, progress);
        }
        let refusal = Refusal::Unknown {
            action: action.to_owned(),
            known: self.actions().iter().map(|known| known.name).collect(),
        };
        Box::pin(async move { Err(refusal) })
    }
}

/// Both roles are this process's own: they learn each other's keys without a code.
fn pair_here(launch: &Launch) -> Result<()> {
    if let (Some(nfs1), Some(backup)) = (&launch.cluster.nfs1, &launch.cluster.backup) {
        pairing::pair_locally(&nfs1.state, &nfs1.host, &backup.directory, &backup.host)?;
    }
    Ok(())
}

/// What to try, for the person who has just started a node.
fn advice(launch: &Launch, listening: &[(String, String)]) -> Vec<String> {
    let mut lines = Vec::new();
    let port = |what: &str| {
        let address = listening.iter().find(|(name, _)| name == what)?.1.parse::<SocketAddr>().ok()?;
        Some(address.port())
    };
    if let (Some(nfs1), Some(port)) =
        (launch.cluster.nfs1.as_ref().filter(|_| launch.roles.nfs1), port("nfs"))
    {
        let host =
            if nfs1.listen.ip().is_unspecified() { nfs1.host.clone() } else { nfs1.listen.ip().to_string() };
        lines.push(format!("  the share     {}", nfs1.export.path.display()));
        lines.push(format!(
            "  mount it      mount -t nfs -o vers=3,tcp,nolock,port={port},mountport={port} {host}:{} /mnt",
            nfs1.export.name
        ));
    }
    if let Some(backup) = launch.cluster.backup.as_ref().filter(|_| launch.roles.backup) {
        match backup.mirror {
            true => lines.push(format!("  live replica  {}", backup.directory.join("mirror").display())),
            false => lines.push(format!("  history       {}", backup.directory.join("packs").display())),
        }
    }
    lines.extend(launch.cluster.database.as_ref().and_then(role_mariadb::advice));
    let listens = |what: &str| listening.iter().find(|(name, _)| name == what).map(|(_, at)| at.as_str());
    if let Some(proxy) = listens("proxy") {
        lines.push(format!(
            "  open it       http://{proxy}/ (upload a file; each page says which web node answered)"
        ));
    }
    let at = match launch.state_directories().as_slice() {
        [one] => format!("--state {}", one.display()),
        [one, ..] => one.parent().map_or(String::new(), |data| format!("--data {}", data.display())),
        [] => String::new(),
    };
    lines.push(format!("  look at it    ehpc-store status {at}"));
    if launch.roles.nfs1 {
        lines.push(format!("  prove it      ehpc-store verify --read-data {at}"));
    } else {
        lines.push(format!("  pair it       ehpc-store pair {at}"));
    }
    lines
}
