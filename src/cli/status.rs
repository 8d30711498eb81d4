//! `ehpc-store status`: one screen.

use super::locate::Where;
use super::{Verdict, say};
use anyhow::Result;
use clap::Args;

/// Show what the node on this host does: clients, watcher, lag, last acknowledged batch, last verify
///
/// Exit status: 0 healthy, 1 not healthy (the screen says why), 2 no node answers.
#[derive(Args)]
pub(super) struct Status {
    #[command(flatten)]
    at: Where,
    /// The same as JSON, one line a node
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<Verdict> {
        let mut verdict = Verdict::Good;
        let mut seen = Vec::new();
        for node in self.at.nodes()? {
            let status = node.status()?;
            // `up` answers for both roles at either socket.
            if seen.contains(&status.process.pid) {
                continue;
            }
            seen.push(status.process.pid);
            let reasons = status.unhealthy();
            if !reasons.is_empty() {
                verdict = Verdict::Bad;
            }
            if self.json {
                say(&serde_json::to_string(&status)?)?;
                continue;
            }
            let gap = if seen.len() > 1 { "\n" } else { "" };
            say(&format!("{gap}{}", status.render()))?;
            for reason in reasons.iter().filter(|reason| !status.attention.contains(reason)) {
                say(&format!("{:<14}{reason}", "not healthy"))?;
            }
        }
        Ok(verdict)
    }
}
