//! The scan: the real tree against the shadow, noting what differs.
//!
//! It walks the directories that the shadow knows, from the root. A name that the shadow does not know
//! is noted and left to the sender, which registers and lists new directories by itself. A name that is
//! missing is noted only at the end, when it is clear that not most of the tree is gone.

use super::directories::DirectorySet;
use super::dirty::{Change, DirtySet, Source, Touch};
use super::scans::{ScanOutcome, ScanProgress, ScanReport};
use super::shadow::{Row, ShadowError, ShadowReader};
use crate::host::{ObjectKey, Stat, Tree};
use ehpc_proto::replication::{Kind, ObjectId, Timestamp};
use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A directory with more unknown or missing names is noted as a whole listing.
const MAX_NAMES: usize = 256;
/// A tree with fewer objects may lose them all without a question.
const FEW_OBJECTS: u64 = 1000;
/// Missing objects that are remembered one by one; more are counted without looking whether they moved.
const MAX_MISSING: usize = 200_000;

/// Faults that end a scan.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScanError {
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error(
        "{path} is not the directory that the backup holds ({what} differs): is its disk mounted? If this is a new or restored disk, start with --accept-new-export"
    )]
    ForeignRoot { path: String, what: &'static str },
    #[error("cannot read the export's root {path}: {source}")]
    Root { path: String, source: io::Error },
    #[error("the scan was stopped")]
    Stopped,
}

/// How to scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScanOptions {
    /// The recorded root or file system may be another.
    pub accept_new_export: bool,
    /// Most of the tree may be gone.
    pub accept_removal: bool,
    /// After an unclean boot: what changed at or after this may not be on the disk as it was read.
    pub suspicious_since: Option<Timestamp>,
}

/// One scan.
pub(super) struct Scan<'a> {
    pub(super) tree: &'a Tree,
    pub(super) shadow: &'a ShadowReader,
    pub(super) dirty: &'a DirtySet,
    pub(super) directories: &'a DirectorySet,
    pub(super) options: ScanOptions,
    pub(super) progress: &'a ScanProgress,
    pub(super) stop: &'a AtomicBool,
}

/// A known object whose name is gone.
struct Missing {
    key: ObjectKey,
    id: ObjectId,
    directory: bool,
}

/// What the end of the scan decides about.
#[derive(Default)]
struct Findings {
    report: ScanReport,
    /// Noted only if removals are few or meant.
    deferred: Vec<Change>,
    missing: Vec<Missing>,
    /// Missing beyond those in `missing`.
    missing_more: u64,
    /// Known objects that were found under names that the shadow does not know.
    moved: HashSet<ObjectKey>,
}

/// Is this export the one that the shadow was made of?
pub(super) fn check_root(tree: &Tree, shadow: &ShadowReader) -> Result<(), ScanError> {
    let meta = shadow.meta()?;
    let foreign = |what| ScanError::ForeignRoot { path: tree.root_path().display().to_string(), what };
    if meta.root_key.as_ref().is_some_and(|key| key != tree.root_key()) {
        return Err(foreign("its root directory"));
    }
    if !meta.filesystem_id.is_empty() && meta.filesystem_id != tree.filesystem_id() {
        return Err(foreign("its file system"));
    }
    match shadow.by_id(ObjectId::ROOT)? {
        Some(row) if row.key != *tree.root_key() => Err(foreign("its root directory")),
        _ => Ok(()),
    }
}

impl Scan<'_> {
    pub(super) fn run(&self) -> Result<ScanOutcome, ScanError> {
        let root = self.tree.root_key();
        match check_root(self.tree, self.shadow) {
            Err(ScanError::ForeignRoot { .. }) if self.options.accept_new_export => {}
            other => other?,
        }
        let mut findings = Findings::default();
        if self.shadow.by_key(root)?.is_none() {
            // Nothing to compare with: all of it is new.
            self.directories.insert(root);
            self.note(Change::Object(root.clone(), Touch::LISTING));
            return Ok(self.finished(findings));
        }
        let mut stack = vec![root.clone()];
        while let Some(key) = stack.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ScanError::Stopped);
            }
            self.directory(&key, &mut stack, &mut findings)?;
        }
        if !self.options.accept_removal {
            let known = self.shadow.object_count()?;
            if known > FEW_OBJECTS {
                let would_remove = self.removed(&findings, known)?;
                if would_remove > known / 2 {
                    return Ok(ScanOutcome::NeedsConsent { would_remove, known });
                }
            }
        }
        std::mem::take(&mut findings.deferred).into_iter().for_each(|change| self.note(change));
        Ok(self.finished(findings))
    }

    fn finished(&self, mut findings: Findings) -> ScanOutcome {
        findings.report.counts = self.progress.counts();
        ScanOutcome::Finished(findings.report)
    }

    fn note(&self, change: Change) {
        self.progress.changes.fetch_add(1, Ordering::Relaxed);
        self.dirty.note_from(Source::Scan, change);
    }

    fn directory(
        &self,
        key: &ObjectKey,
        stack: &mut Vec<ObjectKey>,
        findings: &mut Findings,
    ) -> Result<(), ScanError> {
        // A member before it is listed: the watcher tells of everything that the listing does not see.
        self.directories.insert(key);
        let Some(row) = self.shadow.by_key(key)? else { return Ok(()) };
        let opened = self.tree.open_read(key).and_then(|dir| {
            let stat = Tree::stat(dir.as_fd())?;
            let hashing = RandomState::new();
            let mut names = HashSet::new();
            self.tree.list(dir.as_fd(), &mut |name, _, _| {
                names.insert(hashing.hash_one(name));
                true
            })?;
            Ok((dir, stat, hashing, names))
        });
        let (dir, stat, hashing, mut names) = match opened {
            Ok(opened) => opened,
            Err(source) => return self.unreadable(&row, source, findings),
        };
        self.progress.directories.fetch_add(1, Ordering::Relaxed);
        if let Some(touch) = self.compare(&row, &stat) {
            self.note(Change::Object(key.clone(), touch));
        }
        let mut missing = 0usize;
        let mut lost_names = Vec::new();
        self.shadow.each_child(row.id, &mut |name, child| {
            names.remove(&hashing.hash_one(name));
            if self.known_name(&dir, key, name, &child, stack, findings) {
                return !self.stop.load(Ordering::Relaxed);
            }
            missing += 1;
            if lost_names.len() <= MAX_NAMES {
                lost_names.push(Change::entry(key, name));
            }
            if findings.missing.len() < MAX_MISSING {
                let directory = child.kind == Kind::Directory;
                findings.missing.push(Missing { key: child.key, id: child.id, directory });
            } else {
                findings.missing_more += 1;
            }
            !self.stop.load(Ordering::Relaxed)
        })?;
        if missing > MAX_NAMES {
            findings.deferred.push(Change::Object(key.clone(), Touch::LISTING));
        } else {
            findings.deferred.append(&mut lost_names);
        }
        if !names.is_empty() {
            let unknown = |name: &[u8]| names.contains(&hashing.hash_one(name));
            self.unknown_names(&dir, key, &unknown, missing > 0, findings)?;
        }
        Ok(())
    }

    fn unreadable(&self, row: &Row, source: io::Error, findings: &mut Findings) -> Result<(), ScanError> {
        if row.id == ObjectId::ROOT {
            let path = self.tree.root_path().display().to_string();
            return Err(ScanError::Root { path, source });
        }
        match source.raw_os_error() {
            // It went while we walked.
            Some(libc::ESTALE | libc::ENOENT) => {
                self.note(Change::Object(row.key.clone(), Touch::ATTRIBUTES));
            }
            _ => {
                findings.report.unreadable += 1;
                if findings.report.first_unreadable.is_none() {
                    let path = self.shadow.path_of(row.id)?.unwrap_or_default();
                    let path = String::from_utf8_lossy(&path).into_owned();
                    findings.report.first_unreadable = Some(format!("{path}: {source}"));
                }
            }
        }
        Ok(())
    }

    /// Compares a name that the shadow knows with what it is now. False: it is missing.
    fn known_name(
        &self,
        dir: &File,
        dir_key: &ObjectKey,
        name: &[u8],
        row: &Row,
        stack: &mut Vec<ObjectKey>,
        findings: &mut Findings,
    ) -> bool {
        self.progress.objects.fetch_add(1, Ordering::Relaxed);
        // Known before it is looked at, like a directory before it is listed.
        if row.kind == Kind::Directory {
            self.directories.insert(&row.key);
        } else {
            self.directories.insert_object(&row.key);
        }
        match self.tree.lookup(dir.as_fd(), name) {
            Ok(Some(found)) if found.stat.mount_root => {
                findings.report.mount_points.push(self.name_for_people(dir_key, name));
                true
            }
            Ok(Some(found)) if found.key == row.key => {
                if row.kind == Kind::Directory {
                    stack.push(found.key);
                } else if let Some(touch) = self.compare(row, &found.stat) {
                    self.note(Change::Object(found.key, touch));
                }
                true
            }
            Ok(None) => false,
            // Another object has the name now; or the sender meets the same error and reports it.
            Ok(Some(_)) | Err(_) => {
                self.note(Change::entry(dir_key, name));
                true
            }
        }
    }

    fn unknown_names(
        &self,
        dir: &File,
        key: &ObjectKey,
        unknown: &dyn Fn(&[u8]) -> bool,
        some_missing: bool,
        findings: &mut Findings,
    ) -> Result<(), ScanError> {
        let mut found: Vec<Box<[u8]>> = Vec::new();
        let listed = self.tree.list(dir.as_fd(), &mut |name, _, _| {
            if unknown(name) {
                found.push(name.into());
            }
            found.len() <= MAX_NAMES || some_missing
        });
        if listed.is_err() || found.len() > MAX_NAMES {
            let whole = Change::Object(key.clone(), Touch::LISTING);
            // The sender's listing would find the missing names too: they are decided about first.
            if some_missing { findings.deferred.push(whole) } else { self.note(whole) }
        }
        for name in found.iter().take(if some_missing { usize::MAX } else { MAX_NAMES }) {
            let known = match self.tree.lookup(dir.as_fd(), name) {
                Ok(Some(object)) if object.stat.mount_root => {
                    findings.report.mount_points.push(self.name_for_people(key, name));
                    continue;
                }
                Ok(Some(object)) if self.shadow.id_of(&object.key)?.is_some() => Some(object.key),
                _ => None,
            };
            if let Some(known) = known {
                findings.moved.insert(known);
            }
            if found.len() <= MAX_NAMES {
                self.note(Change::entry(key, name));
            }
        }
        Ok(())
    }

    fn name_for_people(&self, dir: &ObjectKey, name: &[u8]) -> String {
        let mut path = self.tree.path_of(dir).unwrap_or_default();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        String::from_utf8_lossy(&path).into_owned()
    }

    /// What to look at, if anything.
    fn compare(&self, row: &Row, stat: &Stat) -> Option<Touch> {
        let owner = (row.mode, row.uid, row.gid) == (stat.mode, stat.uid, stat.gid);
        let times = (row.mtime, row.ctime) == (stat.mtime, stat.ctime);
        let suspicious = self.options.suspicious_since.is_some_and(|since| row.ctime >= since);
        if row.kind == Kind::File {
            // Equal sizes and mtimes say nothing once ctime differs: mtime can be set.
            if row.size != stat.size || !times || row.racy || row.fuzzy || suspicious {
                return Some(Touch::SETTLED_CONTENT);
            }
        } else if !times || suspicious {
            return Some(Touch::ATTRIBUTES);
        }
        (!owner).then_some(Touch::ATTRIBUTES)
    }

    /// Known objects that the missing names would take along.
    fn removed(&self, findings: &Findings, known: u64) -> Result<u64, ScanError> {
        let weigh = |missing: &Missing| -> Result<u64, ScanError> {
            let below = if missing.directory { self.shadow.descendants_count(missing.id)? } else { 0 };
            Ok(below + 1)
        };
        let mut removed = findings.missing_more;
        for missing in &findings.missing {
            if !findings.moved.contains(&missing.key) {
                removed += weigh(missing)?;
            }
        }
        if removed <= known / 2 || !self.tree.opens_by_handle() {
            return Ok(removed.min(known));
        }
        // Alarm: what was moved into a directory that is new itself is not gone.
        for missing in &findings.missing {
            if !findings.moved.contains(&missing.key) && self.still_inside(missing) {
                removed = removed.saturating_sub(weigh(missing)?);
            }
        }
        Ok(removed.min(known))
    }

    fn still_inside(&self, missing: &Missing) -> bool {
        let Ok(fd) = self.tree.open_path(&missing.key) else { return false };
        if !missing.directory {
            // A file that was opened by handle has no path that could be asked for.
            return Tree::stat(fd.as_fd()).is_ok_and(|stat| stat.nlink > 0);
        }
        use std::os::fd::AsRawFd;
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).is_ok_and(|path| {
            use std::os::unix::ffi::OsStrExt;
            path.starts_with(self.tree.root_path()) && !path.as_os_str().as_bytes().ends_with(b" (deleted)")
        })
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
pub(super) mod tests;
