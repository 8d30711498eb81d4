//! Does this machine have what the settings name? Looked at before anything starts.

use super::cluster::Cluster;
use super::exports;
use super::ports;
use super::problem::{Problem, Problems};
use rustix::fs::Access;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Which roles of a cluster this process is about to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Roles {
    pub nfs1: bool,
    pub backup: bool,
    /// The proxies and web nodes that the cluster names: all that are left in it run here.
    pub front: bool,
}

impl Roles {
    /// Nothing to run.
    pub fn is_empty(self) -> bool {
        self == Roles::default()
    }

    /// Whether what this key sets up runs here.
    fn have(self, key: &str) -> bool {
        match key.split('.').next() {
            Some("nfs1") => self.nfs1,
            Some("backup" | "database") => self.backup,
            _ => self.front,
        }
    }
}

/// Directories and ports of the roles. `own_pids` may hold the ports: the running nodes that the settings describe.
pub fn check(cluster: &Cluster, roles: Roles, own_pids: &[u32]) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for (key, _, path) in cluster.directories() {
        let found = match key.as_str() {
            key if !roles.have(key) => None,
            "nfs1.export.path" => check_export(path),
            _ => check_state(path),
        };
        problems.0.extend(found.map(|(what, next)| Problem {
            site: cluster.site(&key),
            what: format!("{}: {what}", path.display()),
            expected: match key.as_str() {
                "nfs1.export.path" => "an existing directory that this user can read".to_owned(),
                _ => "a directory that this user can write, or a place to create it".to_owned(),
            },
            next,
        }));
    }
    if let Some(file) = cluster.nfs1.as_ref().and_then(|nfs1| nfs1.exports.as_ref()).filter(|_| roles.nfs1)
        && let Err(found) = exports::load(file)
    {
        problems.0.extend(found.0);
    }
    for (key, _, address) in cluster.listeners() {
        if roles.have(&key) {
            problems.0.extend(check_port(address, own_pids).map(|(what, next)| Problem {
                site: cluster.site(&key),
                what: format!("cannot listen on {address}: {what}"),
                expected: "a free port of this machine".to_owned(),
                next,
            }));
        }
    }
    problems.into_result()
}

type Fault = Option<(String, String)>;

fn check_export(path: &Path) -> Fault {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
            "no such directory".to_owned(),
            format!("create it (mkdir -p {}) or mount its disk", path.display()),
        )),
        Err(error) => Some((error.to_string(), "make it reachable for this user".to_owned())),
        Ok(metadata) if !metadata.is_dir() => {
            Some(("is not a directory".to_owned(), "name the directory to share".to_owned()))
        }
        Ok(_) => match rustix::fs::access(path, Access::READ_OK | Access::EXEC_OK) {
            Ok(()) => None,
            Err(error) => Some((
                io::Error::from(error).to_string(),
                "run as a user who can read it, or as root".to_owned(),
            )),
        },
    }
}

fn check_state(path: &Path) -> Fault {
    // Created at start: look at the nearest part that exists.
    let existing = path.ancestors().find(|part| part.symlink_metadata().is_ok());
    let existing = existing.unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    match std::fs::metadata(existing) {
        Err(error) => {
            Some((format!("{}: {error}", existing.display()), "make it reachable for this user".to_owned()))
        }
        Ok(metadata) if !metadata.is_dir() => Some((
            format!("{} is not a directory", existing.display()),
            "name another directory, or move the file away".to_owned(),
        )),
        Ok(_) => rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).err().map(|error| {
            let what = format!("cannot write in {}: {}", existing.display(), io::Error::from(error));
            (what, "change its owner, name another directory, or run as root".to_owned())
        }),
    }
}

fn check_port(address: SocketAddr, own_pids: &[u32]) -> Fault {
    let error = TcpListener::bind(address).err()?;
    port_fault(address, &error, own_pids)
}

/// What a failed bind means, and what next; `None` if one of `own_pids` holds the port.
pub fn port_fault(address: SocketAddr, error: &io::Error, own_pids: &[u32]) -> Fault {
    Some(match error.kind() {
        io::ErrorKind::AddrInUse => match ports::holder(address) {
            Some(holder) if own_pids.contains(&holder.pid) => return None,
            Some(holder) => {
                (format!("in use by {holder}"), format!("stop pid {} or choose another port", holder.pid))
            }
            None => (
                "in use by a process that this user cannot see".to_owned(),
                format!("find it as root with `ss -ltnp sport = {}`, or choose another port", address.port()),
            ),
        },
        io::ErrorKind::AddrNotAvailable => (
            format!("{} is not an address of this machine", address.ip()),
            "use 0.0.0.0, or run this on the host that has the address".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => {
            (error.to_string(), "ports below 1024 need root: run as root or choose a higher port".to_owned())
        }
        _ => (error.to_string(), "choose another address".to_owned()),
    })
}
