//! `ehpc-store backup`: the node that keeps the history and the live replica.

use super::Verdict;
use super::assemble::Launch;
use super::daemon::{self, DaemonOptions};
use super::locate::Where;
use crate::settings::environment::Roles;
use crate::settings::{Backup as Settings, Cluster, Site};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Receive every change of the share: keep its history and a live replica
///
/// With --cluster FILE everything comes from the file; without, from --dir and the other options.
/// It accepts only the nfs1 that it is paired with: `ehpc-store pair` prints the one-time code.
#[derive(Args)]
pub(super) struct Backup {
    /// Cluster file that describes this node, such as config/cluster.toml
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    cluster: Option<PathBuf>,
    /// Which host of the cluster file this machine is [default: the machine's host name]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    host: Option<String>,
    /// Directory for packs, catalog, live replica, keys and control socket
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Replication listens here; port 0 chooses a free one [default: 127.0.0.1:12090]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "cluster")]
    listen: Option<SocketAddr>,
    /// Status page, metrics and health listen here [default: 127.0.0.1:8900]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "cluster")]
    dashboard: Option<SocketAddr>,
    /// Keep the history only, no live replica: half the space
    #[arg(long, conflicts_with = "cluster")]
    no_mirror: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
}

const ONLY_BACKUP: Roles = Roles { nfs1: false, backup: true, front: false };

impl Backup {
    pub(super) fn run(self) -> Result<Verdict> {
        let at = Where { cluster: self.cluster.clone(), host: self.host.clone(), ..Where::default() };
        let cluster = match daemon::from_file(&at)? {
            Some((cluster, roles)) if roles.backup => cluster,
            Some((cluster, _)) => {
                let host = cluster.backup.map_or("no host".to_owned(), |backup| backup.host);
                bail!("backup runs on {host} in the cluster file; run this there, or say --host");
            }
            None => self.of_options()?,
        };
        daemon::run(Launch::new(cluster, ONLY_BACKUP), &self.daemon)
    }

    fn of_options(&self) -> Result<Cluster> {
        let directory = self
            .dir
            .clone()
            .context("--dir DIR is needed without --cluster FILE; see `ehpc-store backup --help`")?;
        let mut cluster = Cluster::local(&PathBuf::new(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let dashboard = cluster.nfs1.take().and_then(|nfs1| nfs1.dashboard);
        let defaults = cluster.backup.take().context("the defaults have backup")?;
        cluster.backup = Some(Settings {
            directory: std::path::absolute(directory)?,
            listen: self.listen.unwrap_or(defaults.listen),
            dashboard: self.dashboard.or(dashboard),
            mirror: !self.no_mirror,
            pack_size: defaults.pack_size,
            host: defaults.host,
        });
        for (key, flag) in [
            ("backup.listen", "--listen"),
            ("backup.dashboard", "--dashboard"),
            ("backup.directory", "--dir"),
        ] {
            cluster.sites.insert(key.to_owned(), Site::Flag(flag));
        }
        cluster.consistent()?;
        Ok(cluster)
    }
}
