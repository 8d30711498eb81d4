//! `ehpc-store db`: looks at what the backup keeps of the database, takes a snapshot, builds the standby, restores.

use super::client::Client;
use super::locate::{Role, Where};
use super::{Verdict, say};
use crate::observe::words;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// The database beside the share: snapshots, binary logs, standby, and any moment back
#[derive(Args)]
pub(super) struct Db {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Status(Status),
    Snapshot(Snapshot),
    Bases(Bases),
    Log(Log),
    Standby(Standby),
    Restore(Box<super::db_restore::Restore>),
    Prune(Prune),
    AcceptLoss(AcceptLoss),
}

/// How the database and its backup are. Exit status: 0 well, 1 something needs a person, 2 could not ask
#[derive(Args)]
struct Status {
    #[command(flatten)]
    at: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Take a base snapshot now, on the host of nfs1
///
/// Writers are not blocked. The dump goes to the backup in pieces; what an earlier snapshot has is not sent again.
#[derive(Args)]
struct Snapshot {
    #[command(flatten)]
    at: Where,
    /// A name to find it by; a snapshot with one is kept until it is removed by hand
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

/// The base snapshots that the backup keeps
#[derive(Args)]
struct Bases {
    #[command(flatten)]
    at: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The binary logs that the backup keeps, and the moments that can be restored
#[derive(Args)]
struct Log {
    #[command(flatten)]
    at: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The standby: a server on the backup that follows. Without an option: how it is
#[derive(Args)]
struct Standby {
    #[command(flatten)]
    at: Where,
    /// Build it from the newest base snapshot, and start it
    #[arg(long, conflicts_with_all = ["start", "stop", "print_sql"])]
    init: bool,
    /// With --init: give up the data directory that is there
    #[arg(long, requires = "init")]
    force: bool,
    /// Start it (again), and replication
    #[arg(long, conflicts_with_all = ["stop", "print_sql"])]
    start: bool,
    /// Stop it; it stays stopped until --start
    #[arg(long, conflicts_with = "print_sql")]
    stop: bool,
    /// The statements with which a server of your own follows the backup
    #[arg(long)]
    print_sql: bool,
    /// Exit status 1 if it is further behind than this
    #[arg(long, value_name = "TIME", default_value = "1m")]
    max_lag: crate::settings::Seconds,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Remove binary logs that the settings no longer keep (done by itself, too, once a minute)
#[derive(Args)]
struct Prune {
    #[command(flatten)]
    at: Where,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Go on although the server has lost commits that the backup has (after a crash with sync_binlog = 0)
///
/// The archive keeps them; a new lineage begins, with a new base snapshot.
#[derive(Args)]
struct AcceptLoss {
    #[command(flatten)]
    at: Where,
}

impl Db {
    pub(super) fn run(self) -> Result<Verdict> {
        match self.action {
            Action::Status(status) => status.run(),
            Action::Snapshot(snapshot) => snapshot.run(),
            Action::Bases(bases) => bases.run(),
            Action::Log(log) => log.run(),
            Action::Standby(standby) => standby.run(),
            Action::Restore(restore) => restore.run(),
            Action::Prune(prune) => {
                let result = prune.at.node(Role::Backup)?.act(
                    "db-prune",
                    json!({ "dry_run": prune.dry_run }),
                    &mut |_| (),
                )?;
                print(&result, prune.json)
            }
            Action::AcceptLoss(accept) => {
                let result = accept.at.node(Role::Nfs1)?.act("db-accept-loss", json!({}), &mut |_| ())?;
                print(&result, false)
            }
        }
    }
}

/// `{"text": ...}` for people, everything for programs.
pub(super) fn print(result: &Value, json: bool) -> Result<Verdict> {
    match result["text"].as_str().filter(|_| !json) {
        Some(text) => say(text)?,
        None => say(&result.to_string())?,
    }
    Ok(Verdict::Good)
}

impl Status {
    fn run(self) -> Result<Verdict> {
        let (mut sections, mut well, mut screen) = (Vec::new(), true, String::new());
        for node in self.at.nodes()? {
            let mut status = node.status()?;
            let Some(database) = status.database.take() else { continue };
            let about = crate::observe::NodeStatus {
                process: status.process,
                database: Some(database),
                ..crate::observe::NodeStatus::default()
            };
            let reasons = about.unhealthy();
            well &= reasons.is_empty();
            // Two roles of one process say the same twice.
            if sections.iter().all(|(pid, _)| *pid != about.process.pid) {
                screen.push_str(&about.render());
                reasons.iter().for_each(|reason| screen.push_str(&format!("ATTENTION     {reason}\n")));
                sections.push((about.process.pid, serde_json::to_value(&about.database)?));
            }
        }
        if sections.is_empty() {
            bail!("this node has no database: add [database] to the cluster file, or start `up --database`");
        }
        if self.json {
            let sections: Vec<Value> = sections.into_iter().map(|(_, section)| section).collect();
            say(&serde_json::to_string_pretty(&json!({ "well": well, "nodes": sections }))?)?;
        } else {
            say(&screen)?;
        }
        Ok(if well { Verdict::Good } else { Verdict::Bad })
    }
}

impl Snapshot {
    fn run(self) -> Result<Verdict> {
        let node = self.at.node(Role::Nfs1)?;
        let result = with_progress(&node, "db-snapshot", json!({ "label": self.label }))?;
        print(&result, self.json)
    }
}

impl Bases {
    fn run(self) -> Result<Verdict> {
        let result = self.at.node(Role::Backup)?.act("db-bases", json!({}), &mut |_| ())?;
        print(&result, self.json)
    }
}

impl Log {
    fn run(self) -> Result<Verdict> {
        let result = self.at.node(Role::Backup)?.act("db-log", json!({}), &mut |_| ())?;
        print(&result, self.json)
    }
}

impl Standby {
    fn run(self) -> Result<Verdict> {
        let node = self.at.node(Role::Backup)?;
        let what = match (self.init, self.start, self.stop, self.print_sql) {
            (true, ..) => "init",
            (_, true, ..) => "start",
            (_, _, true, _) => "stop",
            (_, _, _, true) => "sql",
            _ => return self.show(&node),
        };
        let result = with_progress(&node, "db-standby", json!({ "what": what, "force": self.force }))?;
        print(&result, self.json)
    }

    fn show(&self, node: &Client) -> Result<Verdict> {
        let standby = node.status()?.database.and_then(|database| database.standby);
        let standby = standby.context("there is no standby: add [database.standby] to the cluster file")?;
        if self.json {
            say(&serde_json::to_string_pretty(&standby)?)?;
        } else {
            let lag = words::duration(Duration::from_millis(standby.lag_ms));
            let error = standby.error.as_ref().map_or(String::new(), |error| format!("\n{error}"));
            say(&format!(
                "{} {}, {lag} behind, GTID {}{error}",
                standby.address, standby.state, standby.gtid
            ))?;
        }
        let late = Duration::from_millis(standby.lag_ms) > self.max_lag.0;
        Ok(if standby.well && !late { Verdict::Good } else { Verdict::Bad })
    }
}

/// Has the node do something long; what it says of its progress stands in one line, where a person looks.
pub(super) fn with_progress(node: &Client, action: &str, arguments: Value) -> Result<Value> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    });
    let result = node.act(action, arguments, &mut |step| {
        if let (Some(bar), Some(text)) = (&bar, step["text"].as_str()) {
            bar.set_message(text.to_owned());
        }
    });
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    result
}

/// An absolute path, so that the node finds the same one.
pub(super) fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}", path.display()))
}
