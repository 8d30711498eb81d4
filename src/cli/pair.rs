//! `ehpc-store pair`: makes nfs1 and its backup known to each other.

use super::locate::{Role, Where, host_name};
use super::{Verdict, say};
use crate::replication::identity::{Identity, Peers};
use crate::replication::pairing;
use crate::settings::{Cluster, HostPort};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Pair nfs1 with its backup: a one-time code, shown on the backup, is typed on nfs1
///
/// On the backup, while `ehpc-store backup` runs: `ehpc-store pair` prints the code; it is good for ten minutes.
/// On nfs1, running or not: `ehpc-store pair --code CODE`. Each side then records the other's key, and from then on
/// accepts nobody else. (`ehpc-store up` without a cluster file pairs its two roles by itself.)
#[derive(Args)]
pub(super) struct Pair {
    #[command(flatten)]
    at: Where,
    /// On nfs1: the code that the backup shows
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// On nfs1: where the backup listens [default: as the cluster file says]
    #[arg(long, value_name = "ADDR:PORT", requires = "code")]
    backup: Option<HostPort>,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

impl Pair {
    pub(super) fn run(self) -> Result<Verdict> {
        match &self.code {
            None => self.offer(),
            Some(code) => self.take(code),
        }
    }

    fn offer(&self) -> Result<Verdict> {
        let offer = self.at.node(Role::Backup)?.act("pair", json!({}), &mut |_| ())?;
        if self.json {
            say(&offer.to_string())?;
            return Ok(Verdict::Good);
        }
        let code = offer["code"].as_str().context("the backup gave no code")?;
        let address = offer["address"].as_str().unwrap_or("ADDR:PORT");
        let minutes = pairing::CODE_LIFETIME.as_secs() / 60;
        let option = match &self.at.cluster {
            Some(file) => format!("--cluster {}", file.display()),
            None => format!("--state DIR --backup {address}"),
        };
        say(&format!(
            "code: {code}\n\
             It can be used once, within {minutes} minutes. On nfs1:\n  ehpc-store pair {option} --code {code}"
        ))?;
        Ok(Verdict::Good)
    }

    fn take(&self, code: &str) -> Result<Verdict> {
        let state = self.at.directory_of(Role::Nfs1)?;
        let (name, configured) = self.configured()?;
        let backup = self
            .backup
            .clone()
            .or(configured)
            .context("where is the backup? Say --backup ADDR:PORT, or name the cluster file")?;
        make_private(&state)?;
        let identity = Identity::load_or_create(&state, &name)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let paired =
            runtime.block_on(pairing::pair(&backup.to_string(), code, &identity, &Peers::of(&state)));
        let peer = paired?;
        let text = match self.json {
            true => json!({ "paired": peer.name, "fingerprint": peer.fingerprint.to_string() }).to_string(),
            false => format!("paired with {} at {backup}, key {}", peer.name, peer.fingerprint),
        };
        say(&text)?;
        Ok(Verdict::Good)
    }

    /// Name of this host, and where the cluster file says that the backup listens.
    fn configured(&self) -> Result<(String, Option<HostPort>)> {
        let Some(file) = &self.at.cluster else { return Ok((host_name(), None)) };
        let nfs1 = Cluster::load(file)?.nfs1.with_context(|| format!("{} has no [nfs1]", file.display()))?;
        Ok((nfs1.host, nfs1.backup))
    }
}

fn make_private(state: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.with_context(|| format!("creating the state directory {}", state.display()))
}
