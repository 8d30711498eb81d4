//! Reading an object's state from the primary's disk: attributes, and for a file its content in chunks.
//!
//! A state is read between two looks at ctime, size and mtime; if the object moved it is read again, and after
//! [`ATTEMPTS`] tries or [`PATIENCE`] it is taken as it is, marked `fuzzy`. Content goes to a [`ContentSink`] chunk
//! by chunk, so that no file is ever held in memory.

use super::link::LinkDown;
use super::read_content;
use crate::change::shadow::{Row, ShadowError};
use crate::change::touch::{Content, Touch};
use crate::host::file::reopen;
use crate::host::{ObjectKey, Stat, Tree, coarse_now, sync_file_range};
use crate::store::manifest::{BoxError, ManifestError};
use bytes::Bytes;
use ehpc_proto::replication::{Hash, Kind, Manifest, ObjectId, ObjectState, Timestamp, Xattr};
use rustix::fs::OFlags;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Unstable readings before the content is taken as it is.
const ATTEMPTS: u32 = 3;
/// Time after which it is taken as it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest tick of the clock that file times are taken from (CONFIG_HZ=100).
const TICK_NS: u32 = 10_000_000;
/// Files up to this size are read whole whatever is known of the ranges.
const READ_WHOLE: u64 = 64 * 1024;
/// Ranges that are longer than this together are read like a whole file, in bounded memory.
const MOST_RANGES: u64 = 4 << 30;

/// Why the sink takes no more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum SinkError {
    #[error(transparent)]
    Link(#[from] LinkDown),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Takes content as it is read.
pub(crate) trait ContentSink {
    /// A chunk. `of_large`: of a file so large that asking whether the backup lacks it pays.
    fn chunk(&mut self, hash: Hash, bytes: Bytes, of_large: bool) -> Result<(), SinkError>;
    /// A manifest page or root, of a length that a message may have.
    fn page(&mut self, hash: Hash, bytes: Vec<u8>) -> Result<(), SinkError>;
    /// A page that was given before, now or in an earlier reading.
    fn fetch(&mut self, hash: &Hash) -> Result<Vec<u8>, BoxError>;
    /// So many bytes of the file are done.
    fn progress(&mut self, done: u64) -> Result<(), SinkError>;
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum ReadError {
    /// The object exists no more.
    #[error("the object is gone")]
    Gone,
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("it is too large: the list of its manifest pages does not fit a message")]
    TooLarge,
}

/// `result`, or what failed; a vanished object is told apart.
pub(crate) fn io<T>(what: &'static str, result: io::Result<T>) -> Result<T, ReadError> {
    result.map_err(|source| match source.raw_os_error() {
        Some(libc::ESTALE | libc::ENOENT) => ReadError::Gone,
        _ => ReadError::Io { what, source },
    })
}

/// A state as read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What the backup shall have.
    pub state: ObjectState,
    /// ctime that belongs to it.
    pub ctime: Timestamp,
    /// A later store may leave all times as they are.
    pub racy: bool,
    /// Content that was read from the disk, bytes.
    pub read_bytes: u64,
}

/// An object to read.
pub(crate) struct Subject<'a> {
    /// O_PATH descriptor.
    pub fd: BorrowedFd<'a>,
    pub id: ObjectId,
    pub key: &'a ObjectKey,
    /// What is known of it.
    pub old: Option<&'a Row>,
    pub touch: &'a Touch,
    /// What it looked like a moment ago, and the time before that.
    pub seen: Option<(Timestamp, Stat)>,
}

/// What is to be done about the content.
enum Plan {
    Keep(Manifest),
    Whole,
    Ranges(Vec<Range<u64>>),
}

/// Reads objects; holds the buffer.
#[derive(Default)]
pub(crate) struct ObjectReader {}

impl ObjectReader {
    /// Reads `subject` as it is now.
    pub(crate) fn read(
        &mut self,
        tree: &Tree,
        subject: &Subject<'_>,
        sink: &mut dyn ContentSink,
    ) -> Result<Reading, ReadError> {
        let begun = Instant::now();
        let mut file: Option<OwnedFd> = None;
        let mut attempt = 1;
        let mut read_bytes = 0;
        loop {
            let (started, mut before) = match subject.seen.filter(|_| attempt == 1) {
                Some(seen) => seen,
                None => (coarse_now(), io("stat it", Tree::stat(subject.fd))?),
            };
            if before.kind == Kind::File
                && before.size > 0
                && file.is_none()
                && wants_content(&before, subject)
            {
                file = Some(open_content(subject.fd)?);
                if subject.touch.settle_pages
                    && let Some(file) = &file
                {
                    io("write out its pages", sync_file_range(file.as_fd()))?;
                    before = io("stat it", Tree::stat(subject.fd))?;
                }
            }
            // Cheaper than O_PATH, where there is one.
            let any_fd = file.as_ref().map_or(subject.fd, AsFd::as_fd);
            let target = match before.kind {
                Kind::Symlink => io("read its target", tree.read_link(subject.fd))?,
                _ => Vec::new(),
            };
            let xattrs = io("read its extended attributes", tree.xattrs(any_fd, before.kind))?;
            let plan = plan(&before, subject);
            let kept = matches!(plan, Plan::Keep(_));
            let partly = matches!(plan, Plan::Keep(_) | Plan::Ranges(_));
            let (content, size) = self.content(plan, &before, subject, file.as_ref(), sink)?;
            if !kept {
                read_bytes += size;
            }
            let after = io("stat it", Tree::stat(any_fd))?;
            let moved =
                before.ctime != after.ctime || before.mtime != after.mtime || size != after_size(&after);
            if moved && attempt < ATTEMPTS && begun.elapsed() < PATIENCE {
                attempt += 1;
                continue;
            }
            let fuzzy = before.kind == Kind::File
                && if kept { subject.old.is_some_and(|old| old.fuzzy) } else { moved };
            let state = assemble(subject, &after, size, target, xattrs, content, fuzzy);
            // What was not read now is as racy as it was.
            let content_was_racy = partly && subject.old.is_some_and(|old| old.racy);
            let racy = moved || content_was_racy || is_racy(after.ctime, started);
            return Ok(Reading { state, ctime: after.ctime, racy, read_bytes });
        }
    }

    /// The manifest of the content as it is now, and its length.
    fn content(
        &mut self,
        plan: Plan,
        stat: &Stat,
        subject: &Subject<'_>,
        file: Option<&OwnedFd>,
        sink: &mut dyn ContentSink,
    ) -> Result<(Manifest, u64), ReadError> {
        let size = after_size(stat);
        let old = subject.old.map(|row| &row.manifest);
        let Some(file) = file else {
            return Ok(match plan {
                Plan::Keep(manifest) => (manifest, size),
                _ => (Manifest::EMPTY, 0),
            });
        };
        let dense = stat.used >= size;
        match plan {
            Plan::Keep(manifest) => Ok((manifest, size)),
            Plan::Ranges(ranges) => {
                let empty = Manifest::EMPTY;
                let old = old.unwrap_or(&empty);
                match read_content::ranges(file.as_fd(), size, old, &ranges, sink)? {
                    Some(manifest) => Ok((manifest, size)),
                    // The file is not what its manifest was made from, or ended early.
                    None => read_content::whole(file.as_fd(), size, dense, None, sink),
                }
            }
            Plan::Whole => read_content::whole(file.as_fd(), size, dense, old, sink),
        }
    }
}

/// Only files have a size on the backup.
fn after_size(stat: &Stat) -> u64 {
    if stat.kind == Kind::File { stat.size } else { 0 }
}

fn open_content(fd: BorrowedFd<'_>) -> Result<OwnedFd, ReadError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    io(
        "open it for reading",
        match reopen(fd, flags | OFlags::NOATIME) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => reopen(fd, flags),
            other => other,
        },
    )
}

fn wants_content(stat: &Stat, subject: &Subject<'_>) -> bool {
    !matches!(plan(stat, subject), Plan::Keep(_))
}

fn plan(stat: &Stat, subject: &Subject<'_>) -> Plan {
    if stat.kind != Kind::File {
        return Plan::Keep(Manifest::EMPTY);
    }
    let Some(old) = subject.old else { return Plan::Whole };
    let same_times = stat.size == old.size && stat.mtime == old.mtime && old.ctime != Row::UNREAD;
    match &subject.touch.content {
        Content::Keep if same_times => Plan::Keep(old.manifest.clone()),
        Content::Ranges(ranges) if stat.size > READ_WHOLE && old.ctime != Row::UNREAD => {
            let ranges = merge_ranges(ranges, old.size, stat.size);
            let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            if ranges.is_empty() {
                Plan::Keep(old.manifest.clone())
            } else if total > (stat.size / 2).max(READ_WHOLE) || total > MOST_RANGES {
                Plan::Whole
            } else {
                Plan::Ranges(ranges)
            }
        }
        _ => Plan::Whole,
    }
}

/// Sorted and apart, within the longer of both sizes; a change of size is a range too.
fn merge_ranges(ranges: &[Range<u64>], old_size: u64, new_size: u64) -> Vec<Range<u64>> {
    let longest = old_size.max(new_size);
    let resized = old_size.min(new_size)..longest;
    let mut all: Vec<Range<u64>> = ranges
        .iter()
        .cloned()
        .chain([resized])
        .map(|range| range.start..range.end.min(longest))
        .filter(|range| range.start < range.end)
        .collect();
    all.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn assemble(
    subject: &Subject<'_>,
    stat: &Stat,
    size: u64,
    target: Vec<u8>,
    xattrs: Vec<Xattr>,
    content: Manifest,
    fuzzy: bool,
) -> ObjectState {
    let device = matches!(stat.kind, Kind::CharDevice | Kind::BlockDevice);
    ObjectState {
        id: subject.id,
        key: subject.key.to_bytes().to_vec(),
        kind: stat.kind,
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        size,
        mtime: stat.mtime,
        rdev: if device { stat.rdev } else { (0, 0) },
        target,
        xattrs,
        content,
        fuzzy,
    }
}

/// Could a store after `started` leave this ctime?
fn is_racy(ctime: Timestamp, started: Timestamp) -> bool {
    let earlier = match started.nanos.checked_sub(TICK_NS) {
        Some(nanos) => Timestamp { nanos, ..started },
        None => Timestamp { seconds: started.seconds - 1, nanos: started.nanos + 1_000_000_000 - TICK_NS },
    };
    ctime >= earlier
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
