//! The mirror: the live replica as a plain directory, `<dir>/mirror`, with `<dir>/limbo` beside it on the same
//! file system for objects that have no name at the moment.
//!
//! [`plan`] says what to do for a batch (pure), [`run`] does it. [`redo`] is for batches that may have been
//! applied in part before, after an unclean stop or an error: it first clears every name that those batches
//! touch (known objects to limbo, unknown ones to trash), so that the plan starts from a tree that is certain.
//!
//! The inode that holds an object is recorded in the catalog's live row. Batches are applied in order; the
//! catalog's commit comes after a syncfs of the mirror (see `applier`), hence whatever an unclean stop took back
//! is in batches that will be redone.

mod attributes;
pub mod check;

mod content;
mod create;
mod directories;
pub(crate) mod disk;
mod evacuate;
pub mod plan;
mod redo;
mod run;
mod sweep;
pub mod view;
mod window;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod simulation;

pub use view::{ContentSource, Identity, Known, LiveView, RawPlace, SourceError, Spot};

use crate::store::manifest::ManifestError;
use directories::Directories;
use disk::Disk;
use ehpc_proto::replication::{Batch, Hash, ObjectId};
use plan::PlanError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the mirror could not be brought along. Nothing is lost: the batch stays to be applied.
#[derive(thiserror::Error, Debug)]
pub enum MirrorError {
    /// A system call failed.
    #[error("mirror: cannot {what} {path}: {source}")]
    Io {
        /// The attempt.
        what: &'static str,
        /// On what.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something in the mirror is not what the catalog recorded: it was changed from outside or by a batch that
    /// was applied in part. [`Mirror::redo`] repairs it.
    #[error("mirror: {path} is not what was put there ({reason}); it will be put in order")]
    Unexpected {
        /// Where.
        path: String,
        /// What is there.
        reason: &'static str,
    },
    /// The live rows cannot be read.
    #[error("mirror: the catalog cannot be read: {0}")]
    View(SourceError),
    /// A chunk is missing or damaged in the packs.
    #[error(
        "mirror: chunk {hash} of object {object:?} cannot be read from the packs: {source}; run `ehpc-store verify --read-data`"
    )]
    Chunk {
        /// Whose content.
        object: ObjectId,
        /// Which chunk.
        hash: Hash,
        /// What the store says.
        source: SourceError,
    },
    /// A manifest page is missing or damaged in the packs.
    #[error("mirror: {0}")]
    Manifest(#[from] ManifestError),
    /// The batch cannot be.
    #[error("mirror: {0}")]
    Plan(#[from] PlanError),
}

impl MirrorError {
    /// The tree differs from what the catalog says: [`Mirror::redo`] of the same batch helps.
    pub fn is_disorder(&self) -> bool {
        match self {
            MirrorError::Unexpected { .. } => true,
            MirrorError::Io { source, .. } => source.raw_os_error().is_some_and(|code| {
                [
                    Errno::NOENT,
                    Errno::EXIST,
                    Errno::NOTEMPTY,
                    Errno::NOTDIR,
                    Errno::ISDIR,
                    Errno::LOOP,
                    Errno::INVAL,
                    Errno::STALE,
                ]
                .iter()
                .any(|errno| errno.raw_os_error() == code)
            }),
            _ => false,
        }
    }
}

/// What this mirror could not keep, for want of privilege or of the file system; the packs have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MirrorNotes {
    /// Objects whose owner or group could not be set.
    pub owners: u64,
    /// Devices that stand as empty files of mode 0.
    pub devices: u64,
    /// Extended attributes that could not be set.
    pub attributes: u64,
    /// Modes that could not be set in full.
    pub modes: u64,
}

impl fmt::Display for MirrorNotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.owners, "owners"),
            (self.devices, "devices"),
            (self.attributes, "extended attributes"),
            (self.modes, "modes"),
        ];
        let mut first = true;
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{}{count} {what}", if first { "" } else { ", " })?;
            first = false;
        }
        if first {
            write!(f, "everything is kept")
        } else {
            write!(f, " are in the packs only, not in the mirror")
        }
    }
}

/// What applying has done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inodes made: to be recorded in the live rows.
    pub identities: Vec<(ObjectId, Identity)>,
    /// Bytes of content written.
    pub bytes: u64,
    /// Directories that were gone from the mirror and now stand empty: to be filled with [`Mirror::rebuild`]
    /// once `identities` are recorded and the batches are in the live rows.
    pub rebuild: Vec<ObjectId>,
}

/// The directories on disk, opened.
pub struct Mirror {
    path: PathBuf,
    root: Arc<OwnedFd>,
    limbo: Arc<OwnedFd>,
    directories: Directories,
    disk: Disk,
    notes: MirrorNotes,
    trash_serial: u64,
}

fn open_directory(path: &Path) -> Result<OwnedFd, MirrorError> {
    let fault = |what, source| MirrorError::Io { what, path: path.display().to_string(), source };
    std::fs::create_dir_all(path).map_err(|source| fault("create", source))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| fault("open", errno.into()))
}

impl Mirror {
    /// Names of a directory that [`Mirror::rebuild`] looks at at a time.
    pub const REBUILD_SLICE: usize = 1000;

    /// Opens (makes) `<dir>/mirror` and `<dir>/limbo`.
    pub fn open(dir: &Path) -> Result<Mirror, MirrorError> {
        let path = dir.join("mirror");
        let root = open_directory(&path)?;
        let limbo_path = dir.join("limbo");
        let limbo = open_directory(&limbo_path)?;
        // What passes through is nobody else's business.
        rustix::fs::fchmod(&limbo, Mode::RWXU).map_err(|errno| MirrorError::Io {
            what: "set the mode of",
            path: limbo_path.display().to_string(),
            source: errno.into(),
        })?;
        let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev).ok();
        if device(&root) != device(&limbo) {
            let source = io::Error::other(format!(
                "{} is on another file system than {}; both must be on one, so that a rename can move between them",
                limbo_path.display(),
                path.display()
            ));
            return Err(MirrorError::Io { what: "use", path: path.display().to_string(), source });
        }
        Ok(Mirror {
            path,
            root: Arc::new(root),
            limbo: Arc::new(limbo),
            directories: Directories::default(),
            disk: Disk::default(),
            notes: MirrorNotes::default(),
            trash_serial: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it could not keep, since it was opened.
    pub fn notes(&self) -> MirrorNotes {
        self.notes
    }

    /// The root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Inode of the root directory as it is on disk.
    pub fn root_identity(&self) -> Result<Identity, MirrorError> {
        let stat = disk::stat_fd(self.root.as_fd());
        stat.map(|stat| stat.identity).map_err(|source| self.fault("look at", &self.path, source))
    }

    /// Applies a batch to a mirror that is as `view` says. On an error the same batch (and, if the catalog was
    /// rolled back, those before it) must be given to [`Mirror::redo`].
    pub fn apply(
        &mut self,
        batch: &Batch,
        view: &dyn LiveView,
        content: &dyn ContentSource,
    ) -> Result<Outcome, MirrorError> {
        let ops = plan::plan(view, batch)?;
        run::Run::new(self, view, content, None).execute(&ops)
    }

    /// Applies batches that follow on `view` and of which any part may be in the mirror already, in any order.
    pub fn redo(
        &mut self,
        batches: &[Batch],
        view: &dyn LiveView,
        content: &dyn ContentSource,
    ) -> Result<Outcome, MirrorError> {
        redo::redo(self, batches, view, content)
    }

    /// Makes a directory's listing that of the catalog, a slice of names from after `after` on; `None` = it is
    /// complete. Else the place to go on from, and what to record before the next slice.
    pub fn rebuild(
        &mut self,
        directory: ObjectId,
        after: Option<&[u8]>,
        view: &dyn LiveView,
        content: &dyn ContentSource,
    ) -> Result<Option<(Vec<u8>, Outcome)>, MirrorError> {
        redo::rebuild_slice(self, directory, after, view, content)
    }

    /// Writes a live object anew from the packs: its names, attributes and content (not a directory's listing).
    pub fn repair(
        &mut self,
        id: ObjectId,
        view: &dyn LiveView,
        content: &dyn ContentSource,
    ) -> Result<Outcome, MirrorError> {
        redo::repair(self, id, view, content)
    }

    /// Moves everything out of the mirror, which is then empty.
    pub fn clear(&mut self) -> Result<(), MirrorError> {
        self.directories.clear();
        let names = disk::list(self.root.as_fd()).map_err(|source| self.fault("list", &self.path, source))?;
        for name in names {
            let trash = self.trash_name();
            let (root, limbo) = (self.root.clone(), self.limbo.clone());
            let result = self.disk.rename((root.as_fd(), &name), (limbo.as_fd(), &trash));
            result.map_err(|source| self.fault("empty", &self.path, source))?;
        }
        sweep::sweep(self, &|_| Ok(false))
    }

    /// Removes what lies in limbo and is not a live object without a name: left-overs of an unclean stop.
    pub fn sweep(&mut self, view: &dyn LiveView) -> Result<(), MirrorError> {
        sweep::sweep(self, &|id| {
            Ok(view.object(id)?.is_some_and(|known| known.identity.is_some())
                && view.entries_of(id)?.is_empty())
        })
    }

    /// Everything applied so far is on the disk when this returns.
    pub fn sync(&self) -> Result<(), MirrorError> {
        rustix::fs::syncfs(&self.root).map_err(|errno| self.fault("sync", &self.path, errno.into()))
    }

    /// What the next system calls meet; see [`disk::Verdict`].
    #[cfg(test)]
    pub(crate) fn set_gate(&mut self, gate: Option<Box<dyn FnMut(disk::Step) -> disk::Verdict + Send>>) {
        self.disk.gate = gate;
    }

    fn trash_name(&mut self) -> Vec<u8> {
        loop {
            self.trash_serial += 1;
            let name = format!("trash-{}", self.trash_serial).into_bytes();
            if !matches!(disk::stat_at(self.limbo.as_fd(), &name), Ok(Some(_))) {
                return name;
            }
        }
    }

    fn fault(&self, what: &'static str, path: &Path, source: io::Error) -> MirrorError {
        MirrorError::Io { what, path: path.display().to_string(), source }
    }
}

/// Name of an object in limbo.
fn limbo_name(id: ObjectId) -> Vec<u8> {
    id.0.to_string().into_bytes()
}
