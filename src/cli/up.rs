//! `ehpc-store up`: every role of this host, or the whole main job on one machine.

use super::Verdict;
use super::assemble::Launch;
use super::daemon::{self, DaemonOptions};
use super::locate::DEFAULT_DATA;
use super::locate::Where;
use crate::host::{self, name_service};
use crate::settings::environment::Roles;
use crate::settings::{Cluster, Database};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Run everything: nfs1 and backup on this machine, or this host's roles of a cluster file
///
/// Without --cluster, both roles run in one process below one directory: the share is DIR/share (exported as
/// /share on port 12049), the backup DIR/backup with the live replica in DIR/backup/mirror, the status page is on
/// port 8900. With --database a MariaDB server (its package must be installed) runs in DIR/database, and its commits
/// stream to DIR/backup/database. When everything is up, one line starting with `ready` is printed, and then what to try.
#[derive(Args)]
pub(super) struct Up {
    /// Where everything is kept [default: ./ehpc-data]
    #[arg(long, value_name = "DIR", conflicts_with = "cluster")]
    data: Option<PathBuf>,
    /// Address that every port is opened on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", conflicts_with = "cluster")]
    listen: Option<IpAddr>,
    /// Run this host's roles of a cluster file, such as config/cluster.toml
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Which host of the cluster file this machine is [default: the machine's host name]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    host: Option<String>,
    /// Choose free ports instead of 12049, 12090 and 8900
    #[arg(long, conflicts_with = "cluster")]
    any_ports: bool,
    /// Only the share and its backup: neither the proxy on 8080 nor the web nodes on 8081 and 8082
    #[arg(long, conflicts_with = "cluster")]
    no_web: bool,
    /// Run a MariaDB server of its own too, in DIR/database, and back it up: every commit is on the backup
    #[arg(long, conflicts_with = "cluster")]
    database: bool,
    /// Serve an export whose root directory is not the one that was recorded (its disk was replaced on purpose)
    #[arg(long)]
    accept_new_export: bool,
    /// Let the first scan remove more than half of the objects
    #[arg(long)]
    accept_removal: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
}

impl Up {
    pub(super) fn run(self) -> Result<Verdict> {
        let at = Where { cluster: self.cluster.clone(), host: self.host.clone(), ..Where::default() };
        let mut launch = match daemon::from_file(&at)? {
            Some((cluster, roles)) => {
                if roles.is_empty() {
                    bail!("this host has no role in the cluster file: there is nothing to run");
                }
                Launch::new(cluster, roles)
            }
            None => self.local()?,
        };
        // Two roles of one process need no code.
        launch.pair_here = launch.roles.nfs1 && launch.roles.backup;
        launch.accept_new_export = self.accept_new_export;
        launch.accept_removal = self.accept_removal;
        daemon::run(launch, &self.daemon)
    }

    fn local(&self) -> Result<Launch> {
        let data = self.data.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
        fs::create_dir_all(&data)
            .with_context(|| format!("creating {}: name another with --data", data.display()))?;
        let data = data.canonicalize().with_context(|| format!("opening {}", data.display()))?;
        let share = data.join("share");
        fs::create_dir_all(&share).with_context(|| format!("creating {}", share.display()))?;
        let mut cluster = Cluster::local(&data, self.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if self.database {
            let backup = data.join("backup");
            // The account that the socket proves.
            let name = name_service::user_name(host::privileges().euid).ok().flatten();
            let database = Database::local(&data, &backup, IpAddr::V4(Ipv4Addr::LOCALHOST));
            cluster.database = Some(Database { user: name.unwrap_or(database.user), ..database });
        }
        if self.any_ports {
            cluster.any_ports();
        }
        if self.no_web {
            cluster.keep_front_of("");
        }
        Ok(Launch::new(cluster, Roles { nfs1: true, backup: true, front: !self.no_web }))
    }
}
