//! What is kept of a managed standby beside its data directory: that it is whole, and whether it is to run.

use super::error::StandbyError;
use crate::host;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Written when a standby has been built; without it, what is in the data directory is not one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The base snapshot that it was built from.
    pub(super) base: u64,
    /// A person stopped it: it does not run until it is started by one.
    pub(super) stopped: bool,
    /// Its server runs; true at a start: it was killed.
    #[serde(default)]
    pub(super) running: bool,
    /// Where it could not apply what comes next: GTID state.
    #[serde(default)]
    pub(super) failed_at: Option<String>,
}

fn path(datadir: &Path) -> PathBuf {
    let mut name = datadir.file_name().unwrap_or_default().to_owned();
    name.push(".json");
    datadir.with_file_name(name)
}

impl Record {
    /// That of the standby in `datadir`.
    pub(super) fn load(datadir: &Path) -> Result<Option<Record>, StandbyError> {
        let path = path(datadir);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| StandbyError::Record { path, reason: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StandbyError::File { what: "cannot read", path, source }),
        }
    }

    /// Keeps it, durably.
    pub(super) fn store(&self, datadir: &Path) -> Result<(), StandbyError> {
        let path = path(datadir);
        let fresh = path.with_extension("json.new");
        let fault = |source| StandbyError::File { what: "cannot write", path: path.clone(), source };
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| StandbyError::Record { path: path.clone(), reason: error.to_string() })?;
        let write = || {
            let mut file = std::fs::File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            host::fsync_dir(path.parent().unwrap_or(Path::new(".")))
        };
        write().map_err(fault)
    }

    /// What is in `datadir` is no standby (any more).
    pub(super) fn remove(datadir: &Path) -> Result<(), StandbyError> {
        let path = path(datadir);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StandbyError::File { what: "cannot remove", path, source })
            }
            _ => Ok(()),
        }
    }
}
