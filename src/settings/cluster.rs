//! `cluster.toml`: which hosts there are, and what each of them does.

use super::document::{Document, Section, words};
use super::limits::{NfsLimits, read_limits};
use super::problem::{Problem, Problems, Site, nearest};
use super::units::{Bytes, HostPort, Seconds};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
/// Longest MNT path (RFC 1813).
const MAX_EXPORT_NAME: usize = 1024;
/// Scans more often than this would never end on a large tree.
const SCAN_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(30 * 86_400);
const DEFAULT_PACK_SIZE: Bytes = Bytes(256 << 20);
/// Smaller ones make many files, larger ones are clumsy to copy.
const PACK_SIZE: std::ops::RangeInclusive<Bytes> = Bytes(8 << 20)..=Bytes(4 << 30);
/// As Linux has it, halved: clients are told at once, and ask again within seconds.
const DEFAULT_GRACE: Seconds = Seconds(Duration::from_secs(45));
/// Without any a client loses its locks to others; everybody waits for the end of a long one.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const DEFAULT_SCAN_INTERVAL: Seconds = Seconds(Duration::from_secs(6 * 3600));

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
        let top = document.top(&table, &["hosts", "nfs1", "backup", "log"]);
        let hosts = read_hosts(&mut document, &top);
        let log = read_log(&mut document, &top);
        let backup = read_backup(&mut document, &top, &hosts);
        let nfs1 = read_nfs1(&mut document, &top, &hosts, backup.as_ref());
        if top.has("nfs1") && !top.has("backup") {
            let what = "[nfs1] has no backup".to_owned();
            let next = "add [backup] with its `host` and `directory`; it may be the same host";
            document.report(document.site_of("nfs1"), what, "a section [backup]", next);
        }
        if !top.has("nfs1") && !top.has("backup") {
            let site = Site::Whole(file.to_path_buf());
            let what = "no host has a role".to_owned();
            document.report(
                site,
                what,
                "a section [nfs1], [backup] or both",
                "see config/cluster.toml of the source tree",
            );
        }
        let mut cluster = Cluster { hosts, nfs1, backup, log, sites: std::mem::take(&mut document.sites) };
        document.problems.0.extend(cluster.conflicts());
        document.problems.into_result()?;
        cluster.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cluster)
    }

    /// Where a key was written; its default if nowhere.
    pub fn site(&self, key: &'static str) -> Site {
        self.sites.get(key).cloned().unwrap_or(Site::Default(key))
    }

    /// Name of the host with this address, for people.
    pub fn host_named(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        self.hosts.iter().find(|host| host.address == address).map(|host| host.name.as_str())
    }

    /// For settings that come from options: two listeners on one port, directories inside each other.
    pub fn consistent(&self) -> Result<(), Problems> {
        Problems(self.conflicts()).into_result()
    }

    /// What contradicts itself: two listeners on one port of one host, directories inside each other.
    fn conflicts(&self) -> Vec<Problem> {
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
    pub(crate) fn listeners(&self) -> Vec<(&'static str, &str, SocketAddr)> {
        let mut all = Vec::new();
        if let Some(nfs1) = &self.nfs1 {
            all.push(("nfs1.listen", nfs1.host.as_str(), nfs1.listen));
            all.extend(nfs1.dashboard.map(|address| ("nfs1.dashboard", nfs1.host.as_str(), address)));
        }
        if let Some(backup) = &self.backup {
            all.push(("backup.listen", backup.host.as_str(), backup.listen));
            all.extend(backup.dashboard.map(|address| ("backup.dashboard", backup.host.as_str(), address)));
        }
        all.retain(|(_, _, address)| address.port() != 0);
        all
    }

    /// Every directory: key, host, path.
    pub(crate) fn directories(&self) -> Vec<(&'static str, &str, &Path)> {
        let mut all = Vec::new();
        if let Some(nfs1) = &self.nfs1 {
            all.push(("nfs1.export.path", nfs1.host.as_str(), nfs1.export.path.as_path()));
            all.push(("nfs1.state", nfs1.host.as_str(), nfs1.state.as_path()));
        }
        if let Some(backup) = &self.backup {
            all.push(("backup.directory", backup.host.as_str(), backup.directory.as_path()));
        }
        all
    }
}

fn read_hosts<'t>(document: &mut Document<'t>, top: &Section<'_, 't>) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for (name, section) in document.named_sections(top, "hosts", &["address"]) {
        let Some(address) = document.require::<IpAddr>(&section, "address") else {
            // Its name is still good for the `host` keys, so that one slip is one problem.
            hosts.push(Host { name, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) });
            continue;
        };
        if let Some(other) = hosts.iter().find(|host| host.address == address) {
            let site = document.site_of(&section.path("address"));
            let what = format!("hosts {} and {name} have the same address {address}", other.name);
            document.report(site, what, "one host an address", "correct one of the two");
        }
        hosts.push(Host { name, address });
    }
    hosts
}

fn read_log<'t>(document: &mut Document<'t>, top: &Section<'_, 't>) -> Log {
    let mut log = Log { level: LogLevel::Info, format: LogFormat::Text };
    if let Some(section) = document.section(top, "log", &["level", "format"]) {
        log.level = document.get(&section, "level").unwrap_or(log.level);
        log.format = document.get(&section, "format").unwrap_or(log.format);
    }
    log
}

/// The `host` key of a role: must be one of [hosts].
fn read_host<'t>(document: &mut Document<'t>, section: &Section<'_, 't>, hosts: &[Host]) -> Option<Host> {
    let name: String = document.require(section, "host")?;
    let found = hosts.iter().find(|host| host.name == name).cloned();
    if found.is_none() {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        let next = match nearest(&name, names.iter().copied()) {
            Some(near) => format!("write \"{near}\""),
            None => format!("add a section [hosts.{name}] with its address"),
        };
        let expected = match names.as_slice() {
            [] => "a host that has a section [hosts.NAME]".to_owned(),
            names => format!("one of {}", names.join(", ")),
        };
        let site = document.site_of(&section.path("host"));
        document.report(site, format!("there is no host `{name}`"), expected, next);
    }
    found
}

fn or_all<'t>(document: &mut Document<'t>, section: &Section<'_, 't>, key: &str, port: u16) -> SocketAddr {
    document.get(section, key).unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

const BACKUP_KEYS: &[&str] = &["host", "directory", "listen", "dashboard", "mirror", "pack_size"];

fn read_backup<'t>(document: &mut Document<'t>, top: &Section<'_, 't>, hosts: &[Host]) -> Option<Backup> {
    let section = document.section(top, "backup", BACKUP_KEYS)?;
    let host = read_host(document, &section, hosts);
    let directory = document.require(&section, "directory");
    let listen = or_all(document, &section, "listen", REPLICATION_PORT);
    let dashboard = or_all(document, &section, "dashboard", DASHBOARD_PORT);
    let mirror = document.get(&section, "mirror").unwrap_or(true);
    let pack_size = document.get(&section, "pack_size").unwrap_or(DEFAULT_PACK_SIZE);
    if !PACK_SIZE.contains(&pack_size) {
        let site = document.site_of(&section.path("pack_size"));
        document.report(site, format!("packs of {pack_size}"), "from \"8 MiB\" to \"4 GiB\"", "");
    }
    let dashboard = Some(dashboard);
    Some(Backup { host: host?.name, directory: directory?, listen, dashboard, mirror, pack_size })
}

const NFS1_KEYS: &[&str] = &[
    "host",
    "state",
    "listen",
    "dashboard",
    "watcher",
    "scan_interval",
    "connections",
    "in_flight",
    "memory",
    "slow_request",
    "export",
    "exports",
    "manage_gids",
    "portmap",
    "grace",
];

fn read_nfs1<'t>(
    document: &mut Document<'t>,
    top: &Section<'_, 't>,
    hosts: &[Host],
    backup: Option<&Backup>,
) -> Option<Nfs1> {
    let section = document.section(top, "nfs1", NFS1_KEYS)?;
    let host = read_host(document, &section, hosts);
    let state = document.require(&section, "state");
    let listen = or_all(document, &section, "listen", NFS_PORT);
    let dashboard = or_all(document, &section, "dashboard", DASHBOARD_PORT);
    let watcher = document.get(&section, "watcher").unwrap_or(WatcherChoice::Auto);
    let scan_interval = document.get(&section, "scan_interval").unwrap_or(DEFAULT_SCAN_INTERVAL);
    if !SCAN_INTERVAL.contains(&scan_interval.0) {
        let site = document.site_of(&section.path("scan_interval"));
        document.report(site, format!("a scan every {scan_interval}"), "from \"10s\" to \"30d\"", "");
    }
    let portmap = document.get(&section, "portmap").unwrap_or(PortmapMode::default_for(listen.port()));
    let grace = document.get(&section, "grace").unwrap_or(DEFAULT_GRACE);
    if !GRACE.contains(&grace.0) {
        let site = document.site_of(&section.path("grace"));
        document.report(site, format!("a grace period of {grace}"), "from \"1s\" to \"10m\"", "");
    }
    let limits = read_limits(document, &section);
    let export = read_export(document, &section);
    let exports = document.get(&section, "exports");
    let manage_gids = document.get(&section, "manage_gids").unwrap_or(false);
    let backup = backup.and_then(|backup| {
        let host = hosts.iter().find(|host| host.name == backup.host)?;
        Some(HostPort { host: host.address.to_string(), port: backup.listen.port() })
    });
    Some(Nfs1 {
        host: host?.name,
        state: state?,
        listen,
        dashboard: Some(dashboard),
        export: export?,
        exports,
        manage_gids,
        watcher,
        scan_interval,
        limits,
        backup,
        portmap,
        grace,
    })
}

fn read_export<'t>(document: &mut Document<'t>, nfs1: &Section<'_, 't>) -> Option<Export> {
    if !nfs1.has("export") {
        let what = "[nfs1] has no section [nfs1.export]".to_owned();
        document.report(
            nfs1.site.clone(),
            what,
            "what to share",
            "add [nfs1.export] with `path = \"/home/share\"`",
        );
    }
    let section = document.section(nfs1, "export", &["path", "name", "durability", "sync"])?;
    let path: Option<PathBuf> = document.require(&section, "path");
    let name: Option<String> = document.get(&section, "name");
    if let Some(name) = &name
        && let Err(what) = check_export_name(name)
    {
        let site = document.site_of(&section.path("name"));
        document.report(site, what, "the path that clients mount, such as \"/share\"", "");
    }
    let durability = document.get(&section, "durability").unwrap_or(Durability::Local);
    let sync = document.get(&section, "sync").unwrap_or(true);
    let path = path?;
    let name = name.unwrap_or_else(|| path.display().to_string());
    Some(Export { path, name, durability, sync })
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
