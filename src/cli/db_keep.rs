//! The database's directory on the backup: archive, base snapshots, marks. Opened by the backup daemon.

use crate::database::archive::{self, Archive};
use crate::database::base::BaseStore;
use crate::database::mark::Marks;
use crate::observe::status::DatabaseBasesStatus;
use crate::observe::words;
use crate::settings::Database;
use anyhow::{Context, Result};
use ehpc_proto::replication::Timestamp;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::RwLock;

/// Everything that is kept.
#[derive(Clone)]
pub(super) struct Keep {
    pub(super) settings: Database,
    pub(super) archive: Arc<Archive>,
    pub(super) bases: Arc<BaseStore>,
    pub(super) marks: Arc<Marks>,
    /// Read-locked by restores, drills and whatever builds a standby: what they read must not be pruned.
    pub(super) in_use: Arc<RwLock<()>>,
}

impl Keep {
    /// Opens it, and makes what is not there. Blocks.
    pub(super) fn open(settings: &Database) -> Result<Keep> {
        let directory = &settings.directory;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        // Such a server may still be ending: what is left goes at the next start.
        if let Err(error) = remove_scratch(directory) {
            tracing::warn!("removing scratch servers in {}: {error}", directory.display());
        }
        let (archive, recovered) = Archive::open(directory, archive::Options::default())?;
        tracing::info!(cut = ?recovered.cut, "the archive of the database is open");
        for file in &recovered.damage {
            tracing::error!("the archive of the database is damaged: {file}");
        }
        let bases = BaseStore::open(&directory.join("base"), settings.base_keep)?;
        let (marks, torn) = Marks::open(&directory.join("marks"))?;
        if torn > 0 {
            tracing::warn!(torn, "a torn mark was cut");
        }
        let (bases, marks) = (Arc::new(bases), Arc::new(marks));
        Ok(Keep { settings: settings.clone(), archive, bases, marks, in_use: Arc::default() })
    }

    /// For `status`.
    pub(super) fn bases_status(&self) -> DatabaseBasesStatus {
        let bases = self.bases.list();
        let newest = bases.last();
        let stored = self.bases.store().stats();
        DatabaseBasesStatus {
            count: bases.len() as u64,
            newest: newest.map(|base| base.number),
            newest_ms: newest.and_then(|base| u64::try_from(base.taken_at.seconds).ok()).map(|s| s * 1000),
            newest_bytes: newest.map_or(0, |base| base.bytes),
            stored_bytes: stored.as_ref().map_or(0, |stats| stats.meta_bytes + stats.chunk_bytes),
            every_ms: u64::try_from(self.settings.base_every.0.as_millis()).unwrap_or(u64::MAX),
            error: stored.err().map(|error| error.to_string()),
        }
    }

    /// Password of the account that replicas log in with; made at the first start.
    pub(super) fn replica_password(&self) -> Result<String> {
        let path = self.settings.directory.join("replica.password");
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => write_password(&path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_password(&path),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
}

/// Scratch servers of restores that a kill has left behind.
fn remove_scratch(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"scratch-") && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Account of replicas on the binlog server.
pub(super) const REPLICA: &str = "ehpc_replica";

fn write_password(path: &Path) -> Result<String> {
    let password: String = rand::random::<[u8; 18]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = path.with_extension("partial");
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(format!("{password}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    Ok(password)
}

/// "2026-11-23 10:00:00 UTC".
pub(super) fn moment(time: Timestamp) -> String {
    words::utc(u64::try_from(time.seconds).unwrap_or(0) * 1000)
}
