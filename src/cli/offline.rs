//! Restores without a backup daemon: after a disaster the backup's disk alone must do.

use super::db_keep::Keep;
use super::locate::{Role, Where};
use super::restoring::Restoring;
use super::say_aside;
use super::state_directory::StateDirectory;
use crate::replication::applier::{Applier, ApplierOptions};
use crate::settings::{Cluster, Database};
use crate::store::{self, Store};
use anyhow::{Context, Error, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::runtime::Handle;

/// What a kill has left is little.
const APPLIED_WITHIN: Duration = Duration::from_secs(600);

/// Does `action` ("db-restore" or "restore") on the disk itself. `nobody`: why no daemon was asked; given back where there
/// is nothing to restore from.
pub(super) fn run(at: &Where, action: &str, request: &Value, nobody: Error) -> Result<Value> {
    let Ok(directory) = at.directory_of(Role::Backup) else { return Err(nobody) };
    let settings = settings(at, &directory)?;
    if !settings.directory.is_dir() {
        return Err(nobody);
    }
    // A daemon that is starting or stopping has it: then this is an error that says so.
    let _lock = StateDirectory::open(&directory)?;
    say_aside(&format!("no backup daemon runs: reading {} itself", settings.directory.display()));
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let keep = Keep::open(&settings)?;
    let store = match action {
        "restore" => Some(Store::open(&directory, store::Options::default())?.0),
        _ => None,
    };
    if let Some(store) = &store {
        bring_along(store, &directory, runtime.handle())?;
    }
    let handle = runtime.handle().clone();
    let stop = AtomicBool::new(false);
    let step = |text: String| say_aside(&text);
    let restoring =
        Restoring { keep: &keep, store: store.as_ref(), runtime: &handle, stop: &stop, step: &step };
    let done = match action {
        "db-restore" if request["keep_running"].as_bool() == Some(true) => {
            bail!(
                "--keep-running needs the backup daemon, whose child the server is; start a server on the directory"
            )
        }
        "db-restore" => restoring.database(request),
        _ => restoring.all(request),
    };
    keep.archive.stop();
    done.map_err(Error::msg)
}

/// The catalog knows all batches: what a kill has left is applied, as at a start of the daemon.
fn bring_along(store: &Arc<Store>, directory: &Path, runtime: &Handle) -> Result<()> {
    let last = store.position().map_or(0, |position| position.number);
    let mirror = directory.join("mirror").is_dir();
    let options = ApplierOptions { directory: mirror.then(|| directory.to_owned()) };
    let applier = Applier::start(Arc::clone(store), options)?;
    let mut applied = applier.applied();
    let reached = runtime.block_on(async {
        tokio::time::timeout(APPLIED_WITHIN, applied.wait_for(|applied| *applied >= last)).await.is_ok()
    });
    applier.stop();
    if !reached {
        bail!("batch {last} of the share could not be brought into the catalog: {}", applier.status().state);
    }
    Ok(())
}

fn settings(at: &Where, backup: &Path) -> Result<Database> {
    match &at.cluster {
        Some(file) => {
            Cluster::load(file)?.database.with_context(|| format!("{} has no [database]", file.display()))
        }
        None => Ok(Database::at(Vec::new(), backup)),
    }
}
