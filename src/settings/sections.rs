//! Sections of `cluster.toml`, key by key: hosts, log, backup, nfs1.

use super::cluster::{
    Backup, DASHBOARD_PORT, DEFAULT_GRACE, DEFAULT_PACK_SIZE, DEFAULT_SCAN_INTERVAL, Durability, Export,
    Host, Log, LogFormat, LogLevel, NFS_PORT, Nfs1, PortmapMode, REPLICATION_PORT, WatcherChoice,
    check_export_name,
};
use super::document::{Document, Section};
use super::limits::read_limits;
use super::problem::nearest;
use super::units::{Bytes, HostPort};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Scans more often than this would never end on a large tree.
const SCAN_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(30 * 86_400);
/// Smaller ones make many files, larger ones are clumsy to copy.
const PACK_SIZE: std::ops::RangeInclusive<Bytes> = Bytes(8 << 20)..=Bytes(4 << 30);
/// Without any a client loses its locks to others; everybody waits for the end of a long one.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

pub(super) fn read_hosts<'t>(document: &mut Document<'t>, top: &Section<'_, 't>) -> Vec<Host> {
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

pub(super) fn read_log<'t>(document: &mut Document<'t>, top: &Section<'_, 't>) -> Log {
    let mut log = Log { level: LogLevel::Info, format: LogFormat::Text };
    if let Some(section) = document.section(top, "log", &["level", "format"]) {
        log.level = document.get(&section, "level").unwrap_or(log.level);
        log.format = document.get(&section, "format").unwrap_or(log.format);
    }
    log
}

/// The `host` key of a role: must be one of [hosts].
pub(super) fn read_host<'t>(
    document: &mut Document<'t>,
    section: &Section<'_, 't>,
    hosts: &[Host],
) -> Option<Host> {
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

pub(super) fn or_all<'t>(
    document: &mut Document<'t>,
    section: &Section<'_, 't>,
    key: &str,
    port: u16,
) -> SocketAddr {
    document.get(section, key).unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

const BACKUP_KEYS: &[&str] = &["host", "directory", "listen", "dashboard", "mirror", "pack_size"];

pub(super) fn read_backup<'t>(
    document: &mut Document<'t>,
    top: &Section<'_, 't>,
    hosts: &[Host],
) -> Option<Backup> {
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

pub(super) fn read_nfs1<'t>(
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
