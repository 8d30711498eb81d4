//! States of servers as text, for the process after a reload (`load-server-state-from-file` in the manual; `show servers state`
//! of 9.3 of the management manual): HAProxy's version 1, written and read.
//!
//! Servers are found by the names of backend and server. What the file says now wins over what was said before it was changed.

use super::change::Restored;
use super::server::{Administration, Operation, Server};
use super::{Backend, Running};
use crate::proxy::config::Config;
use crate::proxy::config::model::{self, LoadState, Proxy, ProxyIndex, ServerAddress};
use crate::proxy::health::{CheckReport, CheckStatus};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The two lines before those of the servers.
const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                      srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
                      srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
                      srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";

/// Bits of `srv_admin_state`.
const FORCED_MAINTENANCE: u8 = 0x01;
const CONFIGURED_MAINTENANCE: u8 = 0x04;
const FORCED_DRAIN: u8 = 0x08;

/// Bits of `srv_check_state`: configured, enabled, paused.
const CHECK_CONFIGURED: u8 = 0x02;
const CHECK_ENABLED: u8 = 0x04;
const CHECK_PAUSED: u8 = 0x08;

/// Most servers that are read from one text.
const MOST_LINES: usize = 1_000_000;

/// States of all servers, or of those of one section. `now`: seconds since 1970.
pub fn save(running: &Running, only: Option<ProxyIndex>, now: u64) -> String {
    let mut out = HEADER.to_owned();
    for (index, (proxy, state)) in running.config.proxies.iter().zip(&running.proxies).enumerate() {
        let Some(backend) = &state.backend else { continue };
        if proxy.disabled || only.is_some_and(|only| only != index) {
            continue;
        }
        for (written, server) in proxy.servers.iter().zip(&backend.servers) {
            write_line(&mut out, proxy, written, server, now);
        }
    }
    out
}

fn write_line(out: &mut String, proxy: &Proxy, written: &model::Server, server: &Server, now: u64) {
    let (address, port) = match &*server.address.read() {
        ServerAddress::Tcp { at, .. } => (at.ip().to_string(), at.port()),
        ServerAddress::Unix(_) | ServerAddress::Abstract(_) => ("-".to_owned(), 0),
    };
    let name = match &written.address {
        ServerAddress::Tcp { host: Some(host), .. } => host.as_str(),
        _ => "-",
    };
    let (status, result, points, check) = match server.checked() {
        None => {
            let paused = if written.disabled { CHECK_PAUSED } else { 0 };
            (CheckStatus::Initializing as u8, 0, if server.is_up() { 2 } else { 0 }, paused)
        }
        Some(checked) => {
            let enabled = if checked.enabled { CHECK_ENABLED } else { 0 };
            let paused = if server.is_in_maintenance() { CHECK_PAUSED } else { 0 };
            let result = checked.last.status.result() as u8;
            let state = CHECK_CONFIGURED | enabled | paused;
            let points = if server.is_in_maintenance() { 0 } else { checked.health.points() };
            (checked.last.status as u8, result, points, state)
        }
    };
    let bits = server.administration();
    let bit = |wanted: u8, shown: u8| if bits & wanted != 0 { shown } else { 0 };
    // Who was disabled by the file shows that, whatever was said since.
    let administration = bit(Administration::ANY_MAINTENANCE, FORCED_MAINTENANCE)
        | bit(Administration::DRAIN, FORCED_DRAIN)
        | if written.disabled { CONFIGURED_MAINTENANCE } else { 0 };
    let operation = if server.is_in_maintenance() { Operation::Stopped } else { server.operation() };
    let timing = written.check.as_ref();
    // Writing into memory does not fail.
    let _ = writeln!(
        out,
        "{} {} {} {} {address} {} {administration} {} {} {} {status} {result} {points} {check} 0 0 0 {name} {port} - \
         0 {} {} - 0",
        proxy.id,
        proxy.name,
        written.id,
        written.name,
        operation as u8,
        server.weight.load(Ordering::SeqCst),
        written.weight,
        now.saturating_sub(server.last_change.load(Ordering::Relaxed)),
        timing.and_then(|timing| timing.port).unwrap_or(0),
        timing.and_then(|timing| timing.address).map_or("-".to_owned(), |address| address.to_string()),
    );
}

/// One line, as far as it is used.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Saved<'t> {
    backend: &'t str,
    server: &'t str,
    operation: u8,
    administration: u8,
    weight: u32,
    /// Weight in the file at that time.
    written_weight: u32,
    since: u64,
    status: u8,
    points: u32,
    check: u8,
}

fn read_line(line: &str) -> Option<Saved<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (_, backend) = (words.next()?, words.next()?);
    let (_, server) = (words.next()?, words.next()?);
    let _address = words.next()?;
    let operation = words.next()?.parse().ok()?;
    let administration = words.next()?.parse().ok()?;
    let weight = words.next()?.parse().ok()?;
    let written_weight = words.next()?.parse().ok()?;
    let since = words.next()?.parse().ok()?;
    let status = words.next()?.parse().ok()?;
    let _result = words.next()?;
    let points = words.next()?.parse().ok()?;
    let check = words.next()?.parse().ok()?;
    Some(Saved {
        backend,
        server,
        operation,
        administration,
        weight,
        written_weight,
        since,
        status,
        points,
        check,
    })
}

/// Takes states over from a text of [`save`], or of HAProxy's. Lines that say nothing to this configuration, or cannot be read,
/// change nothing. How many servers were found. `now`: seconds since 1970. To be called before anything runs.
pub fn restore(running: &Running, text: &str, now: u64) -> usize {
    if text.lines().next().map(str::trim) != Some("1") {
        return 0;
    }
    let mut backends = std::collections::HashMap::new();
    for (proxy, state) in running.config.proxies.iter().zip(&running.proxies) {
        if let Some(backend) = &state.backend {
            let servers = proxy.servers.iter().zip(&backend.servers).enumerate();
            let servers = servers.map(|(index, (written, _))| (written.name.as_str(), (index, written)));
            let servers: std::collections::HashMap<_, _> = servers.collect();
            backends.insert(proxy.name.as_str(), (backend, servers));
        }
    }
    let lines = text.lines().skip(1).filter(|line| !line.starts_with('#')).take(MOST_LINES);
    let mut found = 0;
    for saved in lines.filter_map(read_line) {
        let Some((backend, servers)) = backends.get(saved.backend) else { continue };
        let Some((index, written)) = servers.get(saved.server) else { continue };
        found += 1;
        take_over(backend, *index, written, &saved, now);
    }
    found
}

/// Reads the files that `load-server-state-from-file` names, before chroot: a text for [`restore`], and warnings of what cannot be
/// read. A file that is not there yet is none: HAProxy's users write it at a reload.
pub fn read_states(config: &Config, read: impl Fn(&Path) -> io::Result<String>) -> (String, Vec<String>) {
    let (mut text, mut warnings) = ("1\n".to_owned(), Vec::new());
    let global = &config.global;
    for proxy in config.proxies.iter().filter(|proxy| proxy.back && !proxy.disabled) {
        let name = match proxy.load_state {
            LoadState::None => continue,
            LoadState::Global => global.server_state_file.clone(),
            LoadState::Local => {
                Some(proxy.state_file_name.clone().unwrap_or_else(|| PathBuf::from(&proxy.name)))
            }
        };
        let Some(name) = name else {
            warnings.push(format!(
                "{}: backend `{}`: load-server-state-from-file global, but there is no server-state-file in section \
                 global",
                proxy.site, proxy.name
            ));
            continue;
        };
        let path = global.server_state_base.as_deref().map_or(name.clone(), |base| base.join(&name));
        let found = match read(&path) {
            Ok(found) if found.lines().next().map(str::trim) == Some("1") => found,
            Ok(_) => {
                warnings.push(format!("{}: not a file of server states of version 1", path.display()));
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                warnings.push(format!("{}: cannot read server states: {error}", path.display()));
                continue;
            }
        };
        let own =
            found.lines().filter(|line| read_line(line).is_some_and(|saved| saved.backend == proxy.name));
        own.for_each(|line| text.extend([line, "\n"]));
    }
    (text, warnings)
}

fn take_over(backend: &Arc<Backend>, index: usize, written: &model::Server, saved: &Saved<'_>, now: u64) {
    let maintenance = saved.administration & FORCED_MAINTENANCE != 0;
    let was_disabled = saved.administration & CONFIGURED_MAINTENANCE != 0;
    // The file's `disabled` counts when it is new or was never lifted; when it was taken out of the file, it is gone.
    let administration = match (written.disabled, was_disabled) {
        (true, true) if maintenance => Administration::CONFIGURED_MAINTENANCE,
        (true, true) => 0,
        (true, false) => Administration::CONFIGURED_MAINTENANCE,
        (false, true) => 0,
        (false, false) if maintenance => Administration::MAINTENANCE,
        (false, false) => 0,
    };
    let drain = if saved.administration & FORCED_DRAIN != 0 { Administration::DRAIN } else { 0 };
    let checked = written.check.is_some() && saved.check & CHECK_CONFIGURED != 0;
    let operation = match saved.operation {
        _ if !checked || maintenance => None,
        0 => Some(Operation::Stopped),
        3 => Some(Operation::Stopping),
        _ => Some(Operation::Running),
    };
    backend.restore(
        index,
        Restored {
            administration: administration | drain,
            weight: (saved.written_weight == written.weight).then_some(saved.weight),
            operation,
            check: checked.then(|| {
                let report = CheckReport::new(CheckStatus::from_number(saved.status));
                (report, saved.points, saved.check & CHECK_ENABLED != 0)
            }),
            last_change: now.saturating_sub(saved.since),
        },
    );
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
