//! `ehpc-store restore`: the share and the database as they were at one moment.

use super::Verdict;
use super::db::{absolute, print, with_progress};
use super::locate::{Role, Where};
use super::offline;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Restore the share and the database of one moment: what a transaction refers to is there
///
/// DIR/share is the tree, DIR/database a data directory that a server can be started on. The moment is that of the
/// newest mark at or before the one asked for: one at which files and database are known to belong together.
#[derive(Args)]
pub(super) struct Restore {
    #[command(flatten)]
    at: Where,
    /// Both, which is what there is (one table or the database alone: `ehpc-store db restore`)
    #[arg(long, required = true)]
    all: bool,
    /// "2026-11-23T10:00:00Z", "2026-11-23 10:00:00" (local time), "-5m" or "latest"
    #[arg(
        long = "at",
        id = "at_moment",
        value_name = "MOMENT",
        allow_hyphen_values = true,
        default_value = "latest"
    )]
    moment: String,
    /// A directory that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Refuse any other moment than that of a mark
    #[arg(long)]
    exact: bool,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(super) fn run(self) -> Result<Verdict> {
        let request = json!({ "at": self.moment, "to": absolute(&self.to)?, "exact": self.exact });
        let result = match self.at.node(Role::Backup) {
            Ok(node) => with_progress(&node, "restore", request)?,
            Err(nobody) => offline::run(&self.at, "restore", &request, nobody)?,
        };
        print(&result, self.json)?;
        Ok(if result["equal"].as_bool() == Some(false) { Verdict::Bad } else { Verdict::Good })
    }
}
