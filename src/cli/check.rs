//! `ehpc-store check`: everything wrong with the settings and this machine, at once; starts nothing.

use super::database_preflight;
use super::locate::{DEFAULT_DATA, roles_of, this_host};
use super::shares::is_mount;
use super::{Verdict, say, state_directory};
use crate::database::dialect::{Dialect, Version};
use crate::database::preflight::{self, Finding, Severity};
use crate::proxy;
use crate::settings::environment::{self, Roles};
use crate::settings::exports::{self, Exported};
use crate::settings::{Cluster, Database, Problem, Problems};
use anyhow::Result;
use clap::Args;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Check the settings, directories and ports; start nothing
///
/// The whole file is checked; directories and ports are looked at for the roles of this host. Ports that this
/// host's own running node holds are fine. On the host of nfs1 the database server is asked whether it is as a backup
/// needs it; what is missing is said with the statement or the line that repairs it. Exit status: 0 no problem, 1 problems, 2 could not look.
#[derive(Args)]
pub(super) struct Check {
    /// Data directory of `up` [default: ./ehpc-data]
    #[arg(long, value_name = "DIR", conflicts_with = "cluster")]
    data: Option<PathBuf>,
    /// Address that `up` opens every port on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", conflicts_with = "cluster")]
    listen: Option<IpAddr>,
    /// Cluster file, such as config/cluster.toml
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Which host of the cluster file this machine is [default: the machine's host name]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    host: Option<String>,
}

impl Check {
    pub(super) fn run(self) -> Result<Verdict> {
        let (checked, remark, findings) = match &self.cluster {
            Some(file) => {
                // A file that cannot be read at all is no finding about it.
                fs::metadata(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
                check_file(file, self.host.as_deref())?
            }
            None => (self.check_local(), "the defaults of `up` can run here".to_owned(), Vec::new()),
        };
        for finding in &findings {
            say(&format!("database: {finding}"))?;
        }
        match checked {
            Ok(()) if findings.iter().any(|finding| finding.severity == Severity::Error) => Ok(Verdict::Bad),
            Ok(()) => {
                say(&format!("no problem: {remark}"))?;
                Ok(Verdict::Good)
            }
            Err(problems) => {
                say(&problems.to_string())?;
                Ok(Verdict::Bad)
            }
        }
    }

    fn check_local(&self) -> Result<(), Problems> {
        let data = self.data.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
        let mut cluster = Cluster::local(&data, self.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if let Some(nfs1) = &mut cluster.nfs1
            && !nfs1.export.path.exists()
        {
            // `up` creates it; whether it can, is what the check of the state directory beside it says.
            nfs1.export.path = PathBuf::from("/");
        }
        check_here(&cluster, Roles { nfs1: true, backup: true, front: true })
    }
}

/// What the settings and this machine came to, what was looked at, and what was found of the database.
type Checked = (Result<(), Problems>, String, Vec<Finding>);

/// An unknown `--host` is an error.
fn check_file(file: &Path, host: Option<&str>) -> Result<Checked> {
    let mut cluster = match Cluster::load(file) {
        Ok(cluster) => cluster,
        Err(problems) => return Ok((Err(problems), String::new(), Vec::new())),
    };
    match this_host(&cluster, file, host) {
        Ok(host) => {
            let roles = roles_of(&cluster, &host);
            cluster.keep_front_of(&host);
            let named = [(roles.nfs1, "nfs1"), (roles.backup, "backup")];
            let mut names: Vec<&str> =
                named.iter().filter(|(here, _)| *here).map(|(_, name)| *name).collect();
            names.extend(cluster.web.iter().map(|node| node.name.as_str()));
            names.extend(cluster.proxies.iter().map(|_| "proxy"));
            let remark = match names.is_empty() {
                true => format!("the file is right; host {host} has no role in it"),
                false => format!("host {host} can run {}", names.join(" and ")),
            };
            let mut checked = check_here(&cluster, roles);
            let mut findings = Vec::new();
            if let Some(database) = cluster.database.as_ref().filter(|_| roles.nfs1) {
                match ask_database(database)? {
                    Ok(found) => findings = found,
                    Err(why) => {
                        let mut problems = checked.err().unwrap_or_default();
                        problems.0.push(unreachable(&cluster, why));
                        checked = Err(problems);
                    }
                }
            }
            Ok((checked, remark, findings))
        }
        Err(error) if host.is_some() => Err(error),
        Err(error) => {
            let remark =
                format!("the file is right; directories, ports and database were not looked at: {error}");
            Ok((Ok(()), remark, Vec::new()))
        }
    }
}

/// What the preflight finds; why the server cannot be asked.
fn ask_database(database: &Database) -> Result<Result<Vec<Finding>, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(database_preflight::ask(database)))
}

fn unreachable(cluster: &Cluster, why: String) -> Problem {
    let statements = cluster
        .database
        .iter()
        .flat_map(|database| preflight::account_sql(Dialect::MariaDb(Version::new(10, 11, 0)), database));
    let statements: Vec<String> = statements.map(|statement| format!("{statement};")).collect();
    Problem {
        site: cluster.site("database.address"),
        what: format!("the database server cannot be asked: {why}"),
        expected: "a server that runs, and an account on it".to_owned(),
        next: format!("start it; if it refuses the account, run on it: {}", statements.join(" ")),
    }
}

fn check_here(cluster: &Cluster, roles: Roles) -> Result<(), Problems> {
    let states = cluster.nfs1.iter().map(|nfs1| &nfs1.state);
    let states = states.chain(cluster.backup.iter().map(|backup| &backup.directory));
    let states = states.chain(cluster.proxies.iter().map(|proxy| &proxy.state));
    let states = states.chain(cluster.web.iter().map(|node| &node.state));
    let own: Vec<u32> = states.filter_map(|state| state_directory::holder(state)).collect();
    let mut problems = Problems::default();
    if let Err(found) = environment::check(cluster, roles, &own) {
        problems.0.extend(found.0);
    }
    if let Some(file) = cluster.nfs1.as_ref().and_then(|nfs1| nfs1.exports.as_ref()).filter(|_| roles.nfs1)
        && let Ok(exports) = exports::load(file)
    {
        problems.0.extend(exports.exported.iter().filter_map(not_servable));
        problems.0.extend(exports.warnings);
    }
    // What `up` writes itself is not there yet.
    for proxy in cluster.proxies.iter().filter(|proxy| roles.front && proxy.written_for.is_none()) {
        let environment = proxy::config::Environment::of_process();
        if let Err(found) = proxy::config::load(std::slice::from_ref(&proxy.config), environment) {
            problems.0.extend(found.0);
        }
    }
    problems.into_result()
}

/// An export that nfs1 would start without, and serve as soon as it can.
fn not_servable(export: &Exported) -> Option<Problem> {
    let path = &export.path;
    let (site, what, next) = match fs::metadata(path) {
        Err(error) => (&export.site, error.to_string(), "create it or mount its disk"),
        Ok(found) if !found.is_dir() => {
            (&export.site, "is not a directory".to_owned(), "name the directory that it lies in")
        }
        Ok(_) => {
            let rule = export.rules.iter().find(|rule| rule.options.subtree_check && !is_mount(path))?;
            let what = "subtree_check can be had for the root of a file system only";
            (&rule.site, what.to_owned(), "write no_subtree_check")
        }
    };
    Some(Problem {
        site: site.clone(),
        what: format!("{} is not exported: {what}", path.display()),
        expected: "an existing directory".to_owned(),
        next: next.to_owned(),
    })
}
