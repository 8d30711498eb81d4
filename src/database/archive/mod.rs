//! The archive: binary logs on the backup, byte for byte, as the server writes them.
//!
//! ```text
//! DIR/lock                     against a second process
//! DIR/0001/lineage.json        which server; a lineage is one server's unbroken sequence of files
//! DIR/0001/files               names of its files, in order
//! DIR/0001/bin.000001          byte for byte, IN_USE = 0; the server's own tools read it
//! DIR/0001/bin.000001.index    derived: one record a group
//! DIR/0001/bin.000001.sealed   length and BLAKE3 once the file is complete
//! DIR/0001/bin.000001.damaged  it was found damaged, why, and is not yet whole again
//! DIR/0001/bin.000000.pruned   empty: up to here files were removed because nobody needs them
//! ```
//!
//! What may be relied on: a place that was published as durable is on the disk, with everything before it; a start finds
//! it again whatever happened; what was not published may be there or not, and then whole, sound events only.

mod append;
mod catalog;
mod check;
mod desk;
mod disk;
mod error;
mod index;
mod lineage;
mod lookup;
mod mending;
mod prune;
mod read;
mod recover;
mod refetch;
mod seal;
pub mod session;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use append::{Append, End};
pub use check::{Damage, DamagedFile};
pub use desk::{ArchiveDesk, Others};
pub use error::{ArchiveError, Fault};
pub use index::{Entry, IndexedKind};
pub use lineage::LineageRecord;
pub use lookup::Target;
pub use prune::Pruned;
pub use read::FileReader;
pub use recover::Recovered;

use crate::observe::status::DatabaseArchiveStatus;
use append::Appender;
use catalog::LineageEntry;
use check::Damages;
use disk::ArchiveDisk;
use ehpc_proto::binlog::GtidState;
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{ArchivedFile, Place};
use parking_lot::{Mutex, RwLock};
use refetch::Refetches;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::watch;
use writer::{Work, Writer};

/// How an archive is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes that are written before a sync at the latest. (It comes earlier whenever nothing waits to be written.)
    pub sync_every: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { sync_every: 8 * 1024 * 1024 }
    }
}

/// How far the archive goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Durable {
    /// The end of the last whole event that is on the disk; lineage 0: nothing is.
    pub place: Place,
    /// GTID state there.
    pub gtid: Option<GtidState>,
    /// Time of the newest group there.
    pub arrived: Timestamp,
    /// Offset in its file up to which no group is begun and not ended.
    pub settled: u64,
}

/// Where a restore stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// End of the last group that counts.
    pub place: Place,
    /// GTID state there.
    pub gtid: GtidState,
    /// That group's time; zero before the first group.
    pub at: Timestamp,
    /// Name of the file.
    pub file: String,
}

/// What everybody sees.
struct Shared {
    lineages: RwLock<Vec<LineageEntry>>,
    durable: watch::Sender<Durable>,
    /// Why nothing is taken now.
    error: Mutex<Option<String>>,
    damages: Damages,
    /// Number of the connection that stands; 0: none.
    connected: AtomicU64,
    /// Held by whoever writes into a complete file or its index, or removes them.
    mending: Mutex<()>,
    /// Ranges that were written anew. Changed by whoever holds `mending`.
    replaced: AtomicU64,
}

impl Shared {
    fn file(&self, lineage: u32, ordinal: u32) -> Option<ArchivedFile> {
        let lineages = self.lineages.read();
        let entry = lineages.iter().find(|entry| entry.record.lineage.number == lineage)?;
        entry.archived().find(|file| file.ordinal == ordinal)
    }

    /// As [`Shared::file`]; one that is lost is found, too, and has no bytes.
    fn listed(&self, lineage: u32, ordinal: u32) -> Option<ArchivedFile> {
        let lineages = self.lineages.read();
        let entry = lineages.iter().find(|entry| entry.record.lineage.number == lineage)?;
        entry.listed().find(|file| file.ordinal == ordinal)
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock() = error;
    }
}

/// An open archive.
pub struct Archive {
    directory: PathBuf,
    disk: Arc<dyn ArchiveDisk>,
    shared: Arc<Shared>,
    work: crossbeam_channel::Sender<Work>,
    writing: Mutex<Option<JoinHandle<()>>>,
    next_party: AtomicU64,
    /// The file whose index was looked at last.
    looked_at: Mutex<(u32, u32)>,
}

impl Archive {
    /// Opens (and makes) the archive in `directory`, and brings it in order after whatever happened. Blocks: a file that
    /// was not complete is read from its last indexed group on.
    ///
    /// # Errors
    ///
    /// Another process has it; the disk; `lineage.json` of a lineage with files cannot be read.
    pub fn open(directory: &Path, options: Options) -> Result<(Arc<Archive>, Recovered), ArchiveError> {
        let disk: Arc<dyn ArchiveDisk> = Arc::new(disk::open(directory)?);
        let (archive, writer, queue, recovered) = Archive::over(directory, disk, options)?;
        let thread = std::thread::Builder::new().name("archive-write".to_owned());
        let running = thread.spawn(move || writer.run(&queue)).map_err(|source| ArchiveError::Io {
            action: "start the writing thread of",
            path: directory.to_owned(),
            source,
        })?;
        *archive.writing.lock() = Some(running);
        Ok((archive, recovered))
    }

    #[allow(clippy::type_complexity)] // the parts, for one caller and the tests
    fn over(
        directory: &Path,
        disk: Arc<dyn ArchiveDisk>,
        options: Options,
    ) -> Result<(Arc<Archive>, Writer, crossbeam_channel::Receiver<Work>, Recovered), ArchiveError> {
        let mut recovered = Recovered::default();
        let mut lineages = recover::load(&*disk, &mut recovered)?;
        recover::mend(&*disk, &lineages, &mut recovered)?;
        let tail = recover::settle(&*disk, &mut lineages, None, &mut recovered)?;
        let shared = Arc::new(Shared {
            lineages: RwLock::new(lineages),
            durable: watch::Sender::new(Durable::default()),
            error: Mutex::new(None),
            damages: Damages::of(disk.clone(), &recovered.damage),
            connected: AtomicU64::new(0),
            mending: Mutex::new(()),
            replaced: AtomicU64::new(0),
        });
        // One that is lost is seen again by the next start; what is damaged may not be.
        let is_there = |file: &&DamagedFile| shared.file(file.lineage, file.ordinal).is_some();
        recovered.damage.iter().filter(is_there).for_each(|file| shared.damages.keep(file.clone()));
        let appender = Appender::new(disk.clone(), shared.clone(), tail);
        let refetches = Refetches::new(disk.clone(), shared.clone());
        let writer = Writer {
            appender,
            refetches,
            sync_every: options.sync_every,
            party: None,
            replacing: Vec::new(),
        };
        let (work, queue) = crossbeam_channel::unbounded();
        let archive = Archive {
            directory: directory.to_owned(),
            disk,
            shared,
            work,
            writing: Mutex::new(None),
            next_party: AtomicU64::new(1),
            looked_at: Mutex::new((0, 0)),
        };
        Ok((Arc::new(archive), writer, queue, recovered))
    }

    /// Makes everything durable and ends the writing thread. Blocks.
    pub fn stop(&self) {
        // The thread may have ended before.
        let _ = self.work.send(Work::Stop);
        let running = self.writing.lock().take();
        if running.is_some_and(|running| running.join().is_err()) {
            tracing::error!("the archive's writing thread ended with a panic");
        }
    }

    /// How far it goes, now and from now on.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.shared.durable.subscribe()
    }

    /// Its lineages, oldest first.
    pub fn lineages(&self) -> Vec<LineageRecord> {
        self.shared.lineages.read().iter().map(|entry| entry.record.clone()).collect()
    }

    /// Its files, oldest first, with their durable lengths.
    pub fn files(&self) -> Vec<ArchivedFile> {
        self.shared.lineages.read().iter().flat_map(LineageEntry::archived).collect()
    }

    /// The same, and those that are lost: they have no bytes.
    pub fn listed(&self) -> Vec<ArchivedFile> {
        self.shared.lineages.read().iter().flat_map(LineageEntry::listed).collect()
    }

    /// One file.
    ///
    /// # Errors
    ///
    /// It is not in the archive.
    pub fn file(&self, lineage: u32, ordinal: u32) -> Result<ArchivedFile, ArchiveError> {
        self.shared.file(lineage, ordinal).ok_or(ArchiveError::NoFile { lineage, file: ordinal })
    }

    /// Where a file is, for tools. The last one may have bytes past its durable length.
    ///
    /// # Errors
    ///
    /// It is not in the archive.
    pub fn path(&self, lineage: u32, ordinal: u32) -> Result<PathBuf, ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        Ok(self.disk.path(&tail::file_name(lineage, &file.name)))
    }

    /// For `status`.
    pub fn status(&self) -> DatabaseArchiveStatus {
        let files = self.files();
        let durable = self.shared.durable.borrow().clone();
        let newest = durable.arrived;
        let millis = newest.seconds.saturating_mul(1000).saturating_add(i64::from(newest.nanos / 1_000_000));
        DatabaseArchiveStatus {
            directory: self.directory.display().to_string(),
            connected: self.shared.connected.load(Ordering::Relaxed) > 0,
            lineages: self.shared.lineages.read().len() as u32,
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.len).sum(),
            file: files.last().map(|file| file.name.clone()).unwrap_or_default(),
            offset: durable.place.offset,
            gtid: durable.gtid.map(|gtid| gtid.to_string()).unwrap_or_default(),
            newest_ms: u64::try_from(millis).ok().filter(|&millis| millis > 0),
            error: self.shared.error.lock().clone().or_else(|| self.shared.damages.text()),
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.stop();
    }
}
