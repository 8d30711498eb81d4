//! Remembers, on the disk, that a comparison has stopped the replication of a standby that nobody else here looks after:
//! whatever dies before it starts it again, it is known that it must be.

use crate::host;
use parking_lot::Mutex;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Chooses one of a MariaDB's connections.
const CHOICE: &str = "SET SESSION default_master_connection";
/// Longest note that is read, bytes.
const MAX_NOTE: usize = 4096;

/// The note and its file.
pub(super) struct Halted(Arc<Kept>);

struct Kept {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    noted: bool,
    /// The statement that chooses the connection which was stopped.
    choice: Option<String>,
}

impl Halted {
    /// What an earlier process left in `path` counts.
    pub(super) fn new(path: PathBuf) -> Halted {
        let found = std::fs::read_to_string(&path);
        let choice = found.as_deref().ok().filter(|text| text.starts_with(CHOICE) && text.len() <= MAX_NOTE);
        let state = State { noted: found.is_ok(), choice: choice.map(|text| text.trim().to_owned()) };
        Halted(Arc::new(Kept { path, state: Mutex::new(state) }))
    }

    /// Whether replication is stopped, as far as is known here.
    pub(super) fn is_noted(&self) -> bool {
        self.0.state.lock().noted
    }

    /// What is run before it is started.
    pub(super) fn choice(&self) -> Option<String> {
        self.0.state.lock().choice.clone()
    }

    /// Called before a statement is run: one that stops replication is noted first.
    pub(super) async fn before(&self, statement: &str) -> io::Result<()> {
        if statement.starts_with(CHOICE) {
            self.0.state.lock().choice = Some(statement.to_owned());
        }
        if !stops(statement) || self.is_noted() {
            return Ok(());
        }
        let text = self.choice().unwrap_or_default();
        self.on_disk(move |path| write(path, &text)).await?;
        self.0.state.lock().noted = true;
        Ok(())
    }

    /// Called when a statement has been run: one that starts replication ends what was noted.
    pub(super) async fn after(&self, statement: &str) {
        if !starts(statement) || !self.is_noted() {
            return;
        }
        if let Err(error) = self.on_disk(remove).await {
            // At worst a standby is started once more that runs.
            tracing::warn!("removing {}: {error}", self.0.path.display());
        }
        self.0.state.lock().noted = false;
    }

    async fn on_disk(&self, work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let kept = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&kept.path)).await.map_err(io::Error::other)?
    }
}

fn stops(statement: &str) -> bool {
    statement.starts_with("STOP ") || (statement.starts_with("START ") && statement.contains(" UNTIL "))
}

fn starts(statement: &str) -> bool {
    matches!(statement, "START SLAVE" | "START REPLICA")
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    host::fsync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
