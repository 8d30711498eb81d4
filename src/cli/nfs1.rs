//! `ehpc-store nfs1`: the node that holds the share.

use super::assemble::Launch;
use super::daemon::{self, DaemonOptions};
use super::locate::{Role, Where};
use super::{Verdict, say};
use crate::settings::cluster::check_export_name;
use crate::settings::environment::Roles;
use crate::settings::{
    Bytes, Cluster, Durability, Export, HostPort, Nfs1 as Settings, NfsLimits, PortmapMode, Problem,
    Problems, Seconds, Site, WatcherChoice,
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Serve the share over NFSv3 and send every change of it to the backup
///
/// With --cluster FILE everything comes from the file; without, from --export, --state and the other options.
/// Pair it with its backup once: `ehpc-store pair --help`. Until then the share is served and changes wait.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Nfs1 {
    /// Cluster file that describes this node, such as config/cluster.toml
    #[arg(long, value_name = "FILE", conflicts_with_all = ["export", "state"])]
    cluster: Option<PathBuf>,
    /// Which host of the cluster file this machine is [default: the machine's host name]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    host: Option<String>,
    /// Directory to share
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Path that clients mount
    #[arg(long, value_name = "PATH", default_value = "/share", conflicts_with = "cluster")]
    export_name: String,
    /// Who may use which directory, in the form of exports(5), such as /etc/exports (and /etc/exports.d beside it)
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    exports: Option<PathBuf>,
    /// Take the groups of callers from this machine's user database (for users with more than 16)
    #[arg(long, conflicts_with = "cluster")]
    manage_gids: bool,
    /// Directory for index, keys and control socket; not inside the share
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// NFS and MOUNT listen here; port 0 chooses a free one [default: 127.0.0.1:12049]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "cluster")]
    listen: Option<SocketAddr>,
    /// Where the backup listens
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "cluster")]
    backup: Option<HostPort>,
    /// Status page, metrics and health listen here [default: 127.0.0.1:8900]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "cluster")]
    dashboard: Option<SocketAddr>,
    /// Whose disk a stable reply promises: local or remote [default: local]
    #[arg(long, value_name = "WHOSE", conflicts_with = "cluster")]
    durability: Option<Durability>,
    /// Do not make every modifying reply durable, only what NFS itself promises; as `async` in exports(5)
    #[arg(long = "async", conflicts_with = "cluster")]
    asynchronous: bool,
    /// What watches for changes by local processes: auto, fanotify or notify [default: auto]
    #[arg(long, value_name = "WHICH", conflicts_with = "cluster")]
    watcher: Option<WatcherChoice>,
    /// Time between full comparisons with the index [default: 6h]
    #[arg(long, value_name = "TIME", conflicts_with = "cluster")]
    scan_interval: Option<Seconds>,
    /// How clients find the ports: auto (rpcbind or else port 111 here), register, serve or off [default: auto if
    /// NFS listens on port 2049, else off]
    #[arg(long, value_name = "HOW", conflicts_with = "cluster")]
    portmap: Option<PortmapMode>,
    /// Time after a restart in which clients take their locks back, and nobody gets new ones [default: 45s]
    #[arg(long, value_name = "TIME", conflicts_with = "cluster")]
    grace: Option<Seconds>,
    /// NFS connections open at once, 1 to 65536 [default: 16384]
    #[arg(long, value_name = "N", conflicts_with = "cluster")]
    connections: Option<usize>,
    /// Requests of one connection that may be unanswered, 1 to 16384 [default: 128]
    #[arg(long, value_name = "N", conflicts_with = "cluster")]
    in_flight: Option<usize>,
    /// Memory for requests and replies of all connections, "16 MiB" to "64 GiB" [default: 64 MiB]
    #[arg(long, value_name = "SIZE", conflicts_with = "cluster")]
    memory: Option<Bytes>,
    /// Log a request that takes longer than this; 0s: none [default: 1s]
    #[arg(long, value_name = "TIME", conflicts_with = "cluster")]
    slow_request: Option<Seconds>,
    /// Serve an export whose root directory is not the one that was recorded (its disk was replaced on purpose)
    #[arg(long)]
    accept_new_export: bool,
    /// Let the first scan remove more than half of the objects
    #[arg(long)]
    accept_removal: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Read the exports file of the running nfs1 again, without a restart (as SIGHUP does)
    ///
    /// Exports are added, changed and removed at once, while clients work. If anything in the file is wrong, it
    /// is said, and nothing changes. Exit status: 0 reloaded, 2 the exports stay as they were.
    Reload(Reload),
}

#[derive(Args)]
struct Reload {
    #[command(flatten)]
    at: Where,
    /// What has changed as JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    fn run(&self) -> Result<Verdict> {
        let result = self.at.node(Role::Nfs1)?.act("reload", json!({}), &mut |_| ())?;
        match result["text"].as_str().filter(|_| !self.json) {
            Some(text) => say(text)?,
            None => say(&result["reloaded"].to_string())?,
        }
        Ok(Verdict::Good)
    }
}

const ONLY_NFS1: Roles = Roles { nfs1: true, backup: false, front: false };

impl Nfs1 {
    pub(super) fn run(self) -> Result<Verdict> {
        if let Some(Action::Reload(reload)) = &self.action {
            return reload.run();
        }
        let at = Where { cluster: self.cluster.clone(), host: self.host.clone(), ..Where::default() };
        let cluster = match daemon::from_file(&at)? {
            Some((cluster, roles)) if roles.nfs1 => cluster,
            Some((cluster, _)) => {
                let host = cluster.nfs1.map_or("no host".to_owned(), |nfs1| nfs1.host);
                bail!("nfs1 runs on {host} in the cluster file; run this there, or say --host");
            }
            None => self.of_options()?,
        };
        let mut launch = Launch::new(cluster, ONLY_NFS1);
        launch.accept_new_export = self.accept_new_export;
        launch.accept_removal = self.accept_removal;
        daemon::run(launch, &self.daemon)
    }

    fn limits(&self, defaults: NfsLimits) -> Result<NfsLimits> {
        let limits = NfsLimits {
            connections: self.connections.unwrap_or(defaults.connections),
            in_flight: self.in_flight.unwrap_or(defaults.in_flight),
            memory: self.memory.unwrap_or(defaults.memory),
            slow_request: self.slow_request.unwrap_or(defaults.slow_request),
        };
        limits.check(|key| {
            Site::Flag(match key {
                "connections" => "--connections",
                "in_flight" => "--in-flight",
                "memory" => "--memory",
                _ => "--slow-request",
            })
        })?;
        Ok(limits)
    }

    fn of_options(&self) -> Result<Cluster> {
        let without = "needed without --cluster FILE; see `ehpc-store nfs1 --help`";
        let export = self.export.clone().with_context(|| format!("--export DIR is {without}"))?;
        let state = self.state.clone().with_context(|| format!("--state DIR is {without}"))?;
        let backup = self.backup.clone().with_context(|| format!("--backup ADDR:PORT is {without}"))?;
        let mut cluster = Cluster::local(&PathBuf::new(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        cluster.backup = None;
        let defaults = cluster.nfs1.take().context("the defaults have nfs1")?;
        let path = std::path::absolute(export)?;
        check_export_name(&self.export_name).map_err(|what| {
            let expected = "the path that clients mount, such as \"/share\"".to_owned();
            Problems(vec![Problem { site: Site::Flag("--export-name"), what, expected, next: String::new() }])
        })?;
        let listen = self.listen.unwrap_or(defaults.listen);
        cluster.nfs1 = Some(Settings {
            state: std::path::absolute(state)?,
            listen,
            grace: self.grace.unwrap_or(defaults.grace),
            portmap: self.portmap.unwrap_or(PortmapMode::default_for(listen.port())),
            dashboard: self.dashboard.or(defaults.dashboard),
            export: Export {
                path,
                name: self.export_name.clone(),
                durability: self.durability.unwrap_or(defaults.export.durability),
                sync: !self.asynchronous,
            },
            exports: self.exports.as_ref().map(std::path::absolute).transpose()?,
            manage_gids: self.manage_gids,
            watcher: self.watcher.unwrap_or(defaults.watcher),
            scan_interval: self.scan_interval.unwrap_or(defaults.scan_interval),
            limits: self.limits(defaults.limits)?,
            backup: Some(backup),
            host: defaults.host,
        });
        for (key, flag) in [
            ("nfs1.listen", "--listen"),
            ("nfs1.dashboard", "--dashboard"),
            ("nfs1.state", "--state"),
            ("nfs1.export.path", "--export"),
        ] {
            cluster.sites.insert(key.to_owned(), Site::Flag(flag));
        }
        cluster.consistent()?;
        Ok(cluster)
    }
}
