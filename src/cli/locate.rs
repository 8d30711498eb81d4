//! Which node a command is about: `--data DIR`, `--state DIR`, or `--cluster FILE` with `--host NAME`.

use super::client::Client;
use super::state_directory;
use crate::settings::Cluster;
use crate::settings::environment::Roles;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Directory that `up` uses when none is named.
pub(crate) const DEFAULT_DATA: &str = "./ehpc-data";

/// A role that a command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Nfs1,
    Backup,
    Front,
}

impl Role {
    /// Its name in messages and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Nfs1 => "nfs1",
            Role::Backup => "backup",
            Role::Front => "up",
        }
    }
}

/// Options that say which node.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// Data directory of a node that was started with `up` [default: ./ehpc-data]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cluster", "state"])]
    pub(crate) data: Option<PathBuf>,
    /// Cluster file that describes the node, such as config/cluster.toml
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub(crate) cluster: Option<PathBuf>,
    /// Which host of the cluster file this machine is [default: the machine's host name]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(crate) host: Option<String>,
    /// State directory of a node that was started with `nfs1 --state` or `backup --dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// A place where a node may run; `None` = its role is not known from the outside.
type Candidate = (Option<Role>, PathBuf);

impl Where {
    fn candidates(&self) -> Result<Vec<Candidate>> {
        if let Some(state) = &self.state {
            return Ok(vec![(None, state.clone())]);
        }
        if let Some(file) = &self.cluster {
            let cluster = Cluster::load(file)?;
            let host = this_host(&cluster, file, self.host.as_deref())?;
            let nfs1 =
                cluster.nfs1.filter(|nfs1| nfs1.host == host).map(|nfs1| (Some(Role::Nfs1), nfs1.state));
            let backup = cluster
                .backup
                .filter(|backup| backup.host == host)
                .map(|backup| (Some(Role::Backup), backup.directory));
            let proxies =
                cluster.proxies.into_iter().filter(|proxy| proxy.host == host).map(|proxy| proxy.state);
            let web = cluster.web.into_iter().filter(|node| node.host == host).map(|node| node.state);
            let front = proxies.chain(web).map(|state| (Some(Role::Front), state));
            let all: Vec<Candidate> = nfs1.into_iter().chain(backup).chain(front).collect();
            if all.is_empty() {
                bail!("{} gives host {host} no role: run this on a host that has one", file.display());
            }
            return Ok(all);
        }
        let data = self.data.as_deref().unwrap_or(Path::new(DEFAULT_DATA));
        Ok(vec![(Some(Role::Nfs1), data.join("nfs1")), (Some(Role::Backup), data.join("backup"))])
    }

    /// Directory where `role` keeps its state.
    pub(crate) fn directory_of(&self, role: Role) -> Result<PathBuf> {
        let found = self.candidates()?.into_iter().find(|(r, _)| r.is_none_or(|r| r == role));
        found.map(|(_, path)| path).with_context(|| format!("this host does not run {}", role.name()))
    }

    /// Every node that runs there, at least one.
    pub(crate) fn nodes(&self) -> Result<Vec<Client>> {
        let candidates = self.candidates()?;
        let nodes: Vec<Client> = candidates.iter().filter_map(|(_, path)| Client::find(path)).collect();
        match nodes.is_empty() {
            true => Err(self.nobody(&candidates)),
            false => Ok(nodes),
        }
    }

    /// The node with this role.
    pub(crate) fn node(&self, role: Role) -> Result<Client> {
        let mut candidates = self.candidates()?;
        candidates.retain(|(r, _)| r.is_none_or(|r| r == role));
        if candidates.is_empty() {
            bail!("this host does not run {}: run the command on the host that does", role.name());
        }
        candidates.iter().find_map(|(_, path)| Client::find(path)).ok_or_else(|| self.nobody(&candidates))
    }

    fn nobody(&self, candidates: &[Candidate]) -> anyhow::Error {
        let places: Vec<String> = candidates.iter().map(|(_, path)| path.display().to_string()).collect();
        let places = places.join(" or ");
        if let Some(pid) = candidates.iter().find_map(|(_, path)| state_directory::holder(path)) {
            return anyhow::anyhow!(
                "pid {pid} runs with its state in {places}, but does not answer: it is starting, stopping, or another user's"
            );
        }
        let start = match (&self.cluster, &self.data, candidates) {
            (Some(file), _, [(Some(role), _), ..]) => {
                format!("ehpc-store {} --cluster {}", role.name(), file.display())
            }
            (None, Some(data), _) => format!("ehpc-store up --data {}", data.display()),
            (None, None, [(None, path)]) => {
                format!(
                    "ehpc-store nfs1 --state {0} ...` or `ehpc-store backup --dir {0} ...",
                    path.display()
                )
            }
            _ => "ehpc-store up".to_owned(),
        };
        anyhow::anyhow!("no ehpc-store runs with its state in {places}; start it with `{start}`")
    }
}

/// Which host of the file this machine is.
pub(crate) fn this_host(cluster: &Cluster, file: &Path, asked: Option<&str>) -> Result<String> {
    let known = || cluster.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    let is_known = |name: &str| cluster.hosts.iter().any(|host| host.name == name);
    if let Some(name) = asked {
        if !is_known(name) {
            bail!("--host {name}: {} has no such host; it has {}", file.display(), known());
        }
        return Ok(name.to_owned());
    }
    let name = host_name();
    // "nfs1.example.org" is nfs1.
    let short = name.split('.').next().unwrap_or_default();
    match [name.as_str(), short].into_iter().find(|name| is_known(name)) {
        Some(name) => Ok(name.to_owned()),
        None => bail!(
            "this machine is called {name}, which is no host of {}; say with --host which of {} it is",
            file.display(),
            known()
        ),
    }
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which roles `host` has.
pub(crate) fn roles_of(cluster: &Cluster, host: &str) -> Roles {
    Roles {
        nfs1: cluster.nfs1.as_ref().is_some_and(|nfs1| nfs1.host == host),
        backup: cluster.backup.as_ref().is_some_and(|backup| backup.host == host),
        front: cluster.proxies.iter().any(|proxy| proxy.host == host)
            || cluster.web.iter().any(|node| node.host == host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_says_how_to_start() {
        let scratch = tempfile::tempdir().expect("a directory");
        let data = scratch.path().to_path_buf();
        let at = Where { data: Some(data.clone()), ..Where::default() };
        let error = at.nodes().err().expect("nobody").to_string();
        assert_eq!(
            error,
            format!(
                "no ehpc-store runs with its state in {0}/nfs1 or {0}/backup; start it with `ehpc-store up --data {0}`",
                data.display()
            )
        );
        let at = Where { state: Some(data.clone()), ..Where::default() };
        let error = at.node(Role::Nfs1).err().expect("nobody").to_string();
        assert!(error.contains("`ehpc-store nfs1 --state"), "{error}");
        assert_eq!(at.directory_of(Role::Backup).expect("that one"), data);
    }

    #[test]
    fn the_host_is_found_in_the_file() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cluster.toml");
        let cluster = Cluster::load(&file).expect("the sample");
        assert_eq!(this_host(&cluster, &file, Some("backup")).expect("known"), "backup");
        let error = this_host(&cluster, &file, Some("web9")).expect_err("unknown").to_string();
        assert!(error.ends_with("has no such host; it has backup, ha1, nfs1, web1, web2"), "{error}");
        assert_eq!(roles_of(&cluster, "nfs1"), Roles { nfs1: true, ..Roles::default() });
        let at = |host: &str| Where {
            cluster: Some(file.clone()),
            host: Some(host.to_owned()),
            ..Where::default()
        };
        assert_eq!(
            at("backup").directory_of(Role::Backup).expect("there"),
            Path::new("/var/lib/ehpc-store/backup")
        );
        assert!(at("backup").node(Role::Nfs1).is_err());
        let error = at("web1").nodes().err().expect("no role").to_string();
        assert!(error.contains("gives host web1 no role"), "{error}");
    }
}
