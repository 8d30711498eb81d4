//! `cluster.toml`: which hosts there are, and what each of them does.

use super::database::{Database, read_database};
use super::document::{Document, words};
use super::front::{ProxyRole, WebNode, read_proxies, read_web};
use super::limits::NfsLimits;
use super::problem::{Problem, Problems, Site};
use super::sections::{read_backup, read_hosts, read_log, read_nfs1};
use super::units::{Bytes, HostPort, Seconds};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports of `up` and of a file that names none.
pub const NFS_PORT: u16 = 12049;
/// The port that clients try when they are told none.
pub const STANDARD_NFS_PORT: u16 = 2049;
/// Replication link.
pub const REPLICATION_PORT: u16 = 12090;
/// Dashboard, metrics, health, status.
pub const DASHBOARD_PORT: u16 = 8900;
/// The proxy of `up`.
pub const PROXY_PORT: u16 = 8080;
/// Longest MNT path (RFC 1813).
const MAX_EXPORT_NAME: usize = 1024;
pub(super) const DEFAULT_PACK_SIZE: Bytes = Bytes(256 << 20);
/// As Linux has it, halved: clients are told at once, and ask again within seconds.
pub(super) const DEFAULT_GRACE: Seconds = Seconds(Duration::from_secs(45));
pub(super) const DEFAULT_SCAN_INTERVAL: Seconds = Seconds(Duration::from_secs(6 * 3600));

words! {
    /// Whose disk a stable reply to an NFS client promises.
    Durability {
        /// The primary's.
        Local = "local",
        /// The backup's too.
        Remote = "remote",
    }
}

words! {
    /// What watches the export for changes by local processes.
    WatcherChoice {
        /// fanotify where permitted, else notify.
        Auto = "auto",
        /// The whole file system in one kernel queue; needs root.
        Fanotify = "fanotify",
        /// One inotify watch a directory.
        Notify = "notify",
    }
}

words! {
    /// How clients find the ports of NFS, MOUNT and locks.
    PortmapMode {
        /// The system's rpcbind if there is one, else a port mapper of our own.
        Auto = "auto",
        /// The system's rpcbind.
        Register = "register",
        /// A port mapper of our own, on port 111.
        Serve = "serve",
        /// Not at all: they are told in mount options.
        Off = "off",
    }
}

impl PortmapMode {
    /// What holds where nobody said: clients look for the port mapper of a server on NFS's own port.
    pub fn default_for(nfs_port: u16) -> PortmapMode {
        if nfs_port == STANDARD_NFS_PORT { PortmapMode::Auto } else { PortmapMode::Off }
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Least severe log lines that are written.
    LogLevel {
        /// Only what failed.
        Error = "error",
        /// And what may fail soon.
        Warn = "warn",
        /// And what the operator should know.
        Info = "info",
        /// And what a developer should know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// A machine of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Host {
    pub name: String,
    pub address: IpAddr,
}

/// What nfs1 shares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// Directory on this machine.
    pub path: PathBuf,
    /// Path that clients mount.
    pub name: String,
    /// Whose disk a stable reply promises.
    pub durability: Durability,
    /// Every modifying reply is durable, as exports(5) `sync` says.
    pub sync: bool,
}

/// The nfs1 role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nfs1 {
    /// Name of its host.
    pub host: String,
    /// Directory for shadow index, keys and control socket.
    pub state: PathBuf,
    /// NFS and MOUNT.
    pub listen: SocketAddr,
    /// Dashboard, metrics, health, status.
    pub dashboard: Option<SocketAddr>,
    /// The share.
    pub export: Export,
    /// exports(5): who may use which directory; without it the share is for everybody.
    pub exports: Option<PathBuf>,
    /// Groups of callers are those of this machine's user database.
    pub manage_gids: bool,
    /// What watches it.
    pub watcher: WatcherChoice,
    /// Time between reconcile scans.
    pub scan_interval: Seconds,
    /// What clients may make the server hold.
    pub limits: NfsLimits,
    /// Where the backup listens.
    pub backup: Option<HostPort>,
    /// How clients find the ports.
    pub portmap: PortmapMode,
    /// After a restart only locks that were held before are granted for this long.
    pub grace: Seconds,
}

/// The backup role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// Name of its host.
    pub host: String,
    /// Directory for packs, catalog, mirror, keys and control socket.
    pub directory: PathBuf,
    /// Replication.
    pub listen: SocketAddr,
    /// Dashboard, metrics, health, status.
    pub dashboard: Option<SocketAddr>,
    /// Keep the plain copy beside the packs.
    pub mirror: bool,
    /// A pack takes no further record once it is this long.
    pub pack_size: Bytes,
}

/// Log output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// The whole file, or what flags and defaults say in its stead.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Cluster {
    pub hosts: Vec<Host>,
    pub nfs1: Option<Nfs1>,
    pub backup: Option<Backup>,
    /// Read by nfs1, kept by the backup.
    pub database: Option<Database>,
    /// One a host.
    pub proxies: Vec<ProxyRole>,
    /// Demonstration web nodes.
    pub web: Vec<WebNode>,
    pub log: Log,
    /// Where each key was written ("nfs1.listen"), for problems found later.
    pub sites: BTreeMap<String, Site>,
}

impl Cluster {
    /// Embedded defaults of `up`: both roles on one machine, below `data`.
    pub fn local(data: &Path, listen: IpAddr) -> Cluster {
        let on = |port| SocketAddr::new(listen, port);
        let backup_at = SocketAddr::new(listen, REPLICATION_PORT);
        Cluster {
            hosts: Vec::new(),
            nfs1: Some(Nfs1 {
                host: "nfs1".to_owned(),
                state: data.join("nfs1"),
                listen: on(NFS_PORT),
                dashboard: Some(on(DASHBOARD_PORT)),
                export: Export {
                    path: data.join("share"),
                    name: "/share".to_owned(),
                    durability: Durability::Local,
                    sync: true,
                },
                exports: None,
                manage_gids: false,
                watcher: WatcherChoice::Auto,
                scan_interval: DEFAULT_SCAN_INTERVAL,
                limits: NfsLimits::default(),
                backup: Some(HostPort::from(backup_at)),
                portmap: PortmapMode::Off,
                grace: DEFAULT_GRACE,
            }),
            backup: Some(Backup {
                host: "backup".to_owned(),
                directory: data.join("backup"),
                listen: on(REPLICATION_PORT),
                dashboard: None,
                mirror: true,
                pack_size: DEFAULT_PACK_SIZE,
            }),
            database: None,
            proxies: vec![ProxyRole::local(data, on(PROXY_PORT))],
            web: [("web1", 8081), ("web2", 8082)]
                .map(|(name, port)| WebNode::local(name, data, on(port)))
                .into(),
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
            sites: BTreeMap::new(),
        }
    }

    /// Lets the kernel choose every port.
    pub fn any_ports(&mut self) {
        if let Some(nfs1) = &mut self.nfs1 {
            nfs1.listen.set_port(0);
            nfs1.dashboard.iter_mut().for_each(|address| address.set_port(0));
        }
        if let Some(backup) = &mut self.backup {
            backup.listen.set_port(0);
            backup.dashboard.iter_mut().for_each(|address| address.set_port(0));
        }
        self.database.iter_mut().for_each(|database| database.listen.set_port(0));
        self.web.iter_mut().for_each(|node| node.listen.set_port(0));
        let written = self.proxies.iter_mut().filter_map(|proxy| proxy.written_for.as_mut());
        written.for_each(|address| address.set_port(0));
    }

    /// Leaves only what runs on `host`.
    pub fn keep_front_of(&mut self, host: &str) {
        self.web.retain(|node| node.host == host);
        self.proxies.retain(|proxy| proxy.host == host);
    }

    /// Reads and validates a file as a whole; nothing on the machine is looked at but the file.
    pub fn load(file: &Path) -> Result<Cluster, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Problems(vec![Problem {
                site: Site::Whole(file.to_path_buf()),
                what: format!("cannot be read: {error}"),
                expected: "a TOML file such as config/cluster.toml of the source tree".to_owned(),
                next: "name the file with --cluster FILE, or use --data DIR".to_owned(),
            }])
        })?;
        Cluster::parse(file, &text)
    }

    /// Validates the text of a file; `file` is for messages.
    pub fn parse(file: &Path, text: &str) -> Result<Cluster, Problems> {
        let (mut document, table) = Document::parse(file, text);
        // What follows from a broken line would only hide it.
        std::mem::take(&mut document.problems).into_result()?;
        let top = document.top(&table, &["hosts", "nfs1", "backup", "database", "proxy", "web", "log"]);
        let hosts = read_hosts(&mut document, &top);
        let log = read_log(&mut document, &top);
        let backup = read_backup(&mut document, &top, &hosts);
        let nfs1 = read_nfs1(&mut document, &top, &hosts, backup.as_ref());
        let database = read_database(&mut document, &top, nfs1.as_ref(), backup.as_ref());
        let others: Vec<&str> = nfs1
            .iter()
            .map(|nfs1| nfs1.host.as_str())
            .chain(backup.iter().map(|backup| backup.host.as_str()))
            .collect();
        let proxies = read_proxies(&mut document, &top, &hosts, &others);
        let web = read_web(&mut document, &top, &hosts, nfs1.as_ref());
        if top.has("nfs1") && !top.has("backup") {
            let what = "[nfs1] has no backup".to_owned();
            let next = "add [backup] with its `host` and `directory`; it may be the same host";
            document.report(document.site_of("nfs1"), what, "a section [backup]", next);
        }
        if !["nfs1", "backup", "proxy", "web"].iter().any(|role| top.has(role)) {
            let site = Site::Whole(file.to_path_buf());
            let what = "no host has a role".to_owned();
            document.report(
                site,
                what,
                "a section [nfs1], [backup], [proxy.HOST] or [web.NAME]",
                "see config/cluster.toml of the source tree",
            );
        }
        let mut cluster = Cluster {
            hosts,
            nfs1,
            backup,
            database,
            proxies,
            web,
            log,
            sites: std::mem::take(&mut document.sites),
        };
        document.problems.0.extend(cluster.conflicts());
        document.problems.into_result()?;
        cluster.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cluster)
    }

    /// Where a key was written; its default if nowhere.
    pub fn site(&self, key: &str) -> Site {
        self.sites.get(key).cloned().unwrap_or(Site::Default(default_key(key)))
    }

    /// Name of the host with this address, for people.
    pub fn host_named(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        self.hosts.iter().find(|host| host.address == address).map(|host| host.name.as_str())
    }
}

/// The key as the documentation writes it.
fn default_key(key: &str) -> &'static str {
    const KEYS: [&str; 8] = [
        "nfs1.listen",
        "nfs1.dashboard",
        "nfs1.export.path",
        "nfs1.state",
        "backup.listen",
        "backup.dashboard",
        "backup.directory",
        "database.listen",
    ];
    match KEYS.iter().find(|known| **known == key) {
        Some(known) => known,
        None if key.starts_with("proxy") => "proxy.HOST",
        None => "web.NAME",
    }
}

/// A path that a client may mount: absolute, bounded, nothing hidden in it.
pub fn check_export_name(name: &str) -> Result<(), String> {
    if !name.starts_with('/') {
        return Err(format!("`{name}` does not start with /"));
    }
    if name.len() > MAX_EXPORT_NAME {
        return Err(format!("the name is longer than {MAX_EXPORT_NAME} bytes"));
    }
    if name.bytes().any(|b| b < b' ') || name.split('/').any(|part| part == "..") {
        return Err(format!("`{}` holds control characters or `..`", name.escape_debug()));
    }
    Ok(())
}
