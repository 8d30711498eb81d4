//! `ehpc-store ctl`: acts on a running node.

use super::locate::{Role, Where};
use super::{Verdict, say};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

/// Act on the running nfs1: scan now, wait until the backup has everything, accept a large removal
#[derive(Args)]
pub(super) struct Ctl {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Wait until everything that happened before now is on the backup's disk
    #[command(visible_alias = "sync")]
    Fence(Target),
    /// Compare the whole export with the index now
    Rescan(Target),
    /// Go on although a scan would remove more than half of the objects
    AcceptRemoval(Target),
}

#[derive(Args)]
struct Target {
    #[command(flatten)]
    at: Where,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

impl Ctl {
    pub(super) fn run(self) -> Result<Verdict> {
        let (name, target) = match self.action {
            Action::Fence(target) => ("fence", target),
            Action::Rescan(target) => ("rescan", target),
            Action::AcceptRemoval(target) => ("accept-removal", target),
        };
        let result = target.at.node(Role::Nfs1)?.act(name, json!({}), &mut |_| ())?;
        if target.json {
            say(&result.to_string())?;
            return Ok(Verdict::Good);
        }
        match (result.as_str(), result["ms"].as_u64()) {
            (Some(text), _) => say(text)?,
            (None, Some(ms)) => {
                say(&format!("everything that happened before is on the backup's disk ({ms} ms)"))?
            }
            (None, None) => say(&result.to_string())?,
        }
        Ok(Verdict::Good)
    }
}
