//! The database on the host of nfs1: its binary log streams to the backup, base snapshots are taken when they are due,
//! moments are marked that files and database have in common, and the server is looked at.

use super::database_bases::Bases;
use super::database_link::DatabaseDial;
use super::database_marks::{self, Running};
use super::database_preflight::Preflight;
use crate::change::{DirtySet, Fence};
use crate::database::base::BaseRecord;
use crate::database::dsn::Dsn;
use crate::database::source::{Source, SourceOptions};
use crate::observe::control::Progress;
use crate::observe::status::{DatabaseSourceStatus, DatabaseStatus, VerifyStatus};
use crate::replication::channel::DialOptions;
use crate::replication::sender::SenderControl;
use crate::settings::Database;
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::Place;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the database's side of nfs1 is made of.
pub(super) struct SourceParts {
    pub(super) settings: Database,
    pub(super) dial: DialOptions,
    pub(super) fence: Fence,
    pub(super) sender: SenderControl,
    pub(super) dirty: Arc<DirtySet>,
}

/// The running side.
pub(super) struct DatabaseSource {
    settings: Database,
    source: Arc<Source>,
    bases: Arc<Bases>,
    sides: Arc<Running>,
    preflight: Arc<Preflight>,
    /// What the last verification found.
    pub(super) verified: Mutex<VerifyStatus>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl DatabaseSource {
    /// Starts it; whether the server answers is seen later, in `status`.
    pub(super) fn start(parts: SourceParts) -> DatabaseSource {
        let SourceParts { settings, dial, fence, sender, dirty } = parts;
        let to_archive = Arc::new(DatabaseDial::new(dial.clone()));
        let source = Source::start(&Handle::current(), SourceOptions::of(&settings, to_archive));
        let (source, stop) = (Arc::new(source), CancellationToken::new());
        let bases = Arc::new(Bases::new(settings.clone(), dial, Arc::clone(&source), stop.clone()));
        let preflight = Arc::new(Preflight::new(settings.clone(), Arc::clone(&source)));
        let sides = Arc::new(Running { source: Arc::clone(&source), fence, sender });
        let (looks, end_of_looks) = (Arc::clone(&preflight), stop.clone());
        let (marks, end_of_marks, every) = (Arc::clone(&sides), stop.clone(), settings.mark_every.0);
        let streamed = Arc::clone(&source);
        let moved = move || Some((streamed.end()?, dirty.current()));
        let tasks = vec![
            tokio::spawn(Arc::clone(&bases).take_when_due()),
            // Neither leaves anything half done, wherever it is ended.
            tokio::spawn(async move {
                let marking = database_marks::now_and_then(&*marks, every, moved);
                end_of_marks.run_until_cancelled(marking).await;
            }),
            tokio::spawn(async move {
                end_of_looks.run_until_cancelled(looks.run()).await;
            }),
        ];
        let (verified, tasks) = (Mutex::default(), Mutex::new(tasks));
        DatabaseSource { settings, source, bases, sides, preflight, verified, stop, tasks }
    }

    /// For `status`.
    pub(super) fn status(&self) -> DatabaseStatus {
        let findings = self.preflight.found();
        DatabaseStatus {
            source: Some(DatabaseSourceStatus { findings, ..self.source.status() }),
            snapshot: Some(self.bases.status()),
            verify: Some(self.verified.lock().clone()),
            ..DatabaseStatus::default()
        }
    }

    /// For questions to the archive.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// What the settings say of it.
    pub(super) fn settings(&self) -> &Database {
        &self.settings
    }

    /// The server that is streamed: of several addresses another may answer, too, and not be the one.
    pub(super) fn server(&self) -> Result<Dsn, String> {
        let server = self.source.server();
        server.ok_or_else(|| "the database does not stream now; `ehpc-store db status` says why".to_owned())
    }

    /// Waits until everything that was committed before the call is on the backup.
    pub(super) async fn fence(&self) -> Result<(), String> {
        database_marks::fence(&*self.sides).await
    }

    /// Where the database is now; before the files' fence begins.
    pub(super) async fn fence_begins(&self) -> Result<(Place, Timestamp), String> {
        database_marks::fence_begins(&*self.sides).await
    }

    /// The files are on the backup: waits until that place is too, and marks the moment.
    pub(super) async fn fence_ends(&self, begun: (Place, Timestamp), cut: u64) -> Result<(), String> {
        database_marks::fence_ends(&*self.sides, begun, cut).await
    }

    /// Takes a base snapshot now, for as long as `asker` is there.
    pub(super) async fn snapshot(
        &self,
        label: Option<String>,
        asker: Progress,
    ) -> Result<BaseRecord, String> {
        self.bases.snapshot(label, asker).await
    }

    /// Ends it; what was read is on its way.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            let _ = task.await; // it is over, or it panicked and said so
        }
        self.bases.ended().await;
        self.source.stop().await;
    }
}
