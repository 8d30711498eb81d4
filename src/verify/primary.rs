//! An object as the primary's disk has it now.

use super::content::{self, ContentError};
use super::{Verify, VerifyError};
use crate::change::shadow::Row;
use crate::host::tree::Stat;
use crate::host::{ObjectKey, Tree};
use ehpc_proto::replication::digest::{listing_digest, object_digest};
use ehpc_proto::replication::{Hash, Kind, Manifest, ObjectId, ObjectState};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// What was read.
pub(super) enum Seen {
    /// It exists.
    Object(Box<SeenObject>),
    /// No such object any more.
    Absent,
    /// It could not be read, and why.
    Unreadable(String),
}

/// An object's state on the disk.
pub(super) struct SeenObject {
    /// `content` is the shadow's manifest where the bytes match it.
    pub(super) state: ObjectState,
    /// First byte that does not match the shadow's manifest.
    pub(super) content_differs_at: Option<u64>,
    /// A directory's listing, sorted by name.
    pub(super) listing: Option<Vec<(Vec<u8>, ObjectId)>>,
    /// Names in a directory whose objects have no number yet.
    pub(super) unknown: Vec<(Vec<u8>, ObjectKey)>,
    /// Subdirectories and their keys, for the walk; other children are visited through it too.
    pub(super) children: Vec<(Vec<u8>, ObjectKey, ObjectId)>,
    /// Names at which another file system is mounted.
    pub(super) mounts: Vec<Vec<u8>>,
    /// It moved between the first and the last look.
    pub(super) moved: bool,
    /// At the last look.
    pub(super) stat: Stat,
}

impl SeenObject {
    /// What the backup's digest of it must be; `None` when no recorded state can match.
    pub(super) fn digest(&self) -> Option<Hash> {
        if self.content_differs_at.is_some() || !self.unknown.is_empty() {
            return None;
        }
        let listing = self
            .listing
            .as_ref()
            .map(|entries| listing_digest(entries.iter().map(|(name, child)| (name.as_slice(), *child))));
        Some(object_digest(self.state.digest(), listing))
    }
}

impl Verify<'_> {
    /// Reads an object that the shadow knows. `bytes` counts content read.
    pub(super) fn see(&self, row: &Row, bytes: &mut u64) -> Result<Seen, VerifyError> {
        match self.try_see(row, bytes) {
            Ok(seen) => Ok(Seen::Object(Box::new(seen))),
            Err(SeeError::Io(error)) => Ok(match error.raw_os_error() {
                Some(libc::ESTALE | libc::ENOENT | libc::ELOOP | libc::ENOTDIR) => Seen::Absent,
                _ => Seen::Unreadable(error.to_string()),
            }),
            Err(SeeError::Unreadable(reason)) => Ok(Seen::Unreadable(reason)),
            Err(SeeError::Verify(error)) => Err(error),
        }
    }

    fn try_see(&self, row: &Row, bytes: &mut u64) -> Result<SeenObject, SeeError> {
        let path = self.tree.open_path(&row.key)?;
        let before = Tree::stat(path.as_fd())?;
        let mut state = self.attributes(row, &path, &before)?;
        let mut seen = SeenParts::default();
        match before.kind {
            Kind::File => {
                let file = self.tree.open_read(&row.key)?;
                let mut fetch = |hash: &Hash| self.page(hash);
                let at = content::first_difference(&file, before.size, &row.manifest, &mut fetch, bytes);
                match at {
                    Ok(at) => seen.content_differs_at = at,
                    Err(ContentError::Read(error)) => return Err(error.into()),
                    Err(error) => return Err(SeeError::Unreadable(error.to_string())),
                }
                state.content = row.manifest.clone();
            }
            Kind::Directory => self.list(&self.tree.open_read(&row.key)?, &mut seen)?,
            _ => {}
        }
        let stat = Tree::stat(path.as_fd())?;
        let moved = (stat.ctime, stat.mtime, stat.size) != (before.ctime, before.mtime, before.size);
        Ok(SeenObject {
            state,
            content_differs_at: seen.content_differs_at,
            listing: (before.kind == Kind::Directory).then_some(seen.listing),
            unknown: seen.unknown,
            children: seen.children,
            mounts: seen.mounts,
            moved,
            stat,
        })
    }

    fn attributes(
        &self,
        row: &Row,
        path: &std::os::fd::OwnedFd,
        stat: &Stat,
    ) -> Result<ObjectState, SeeError> {
        Ok(ObjectState {
            id: row.id,
            key: Vec::new(),
            kind: stat.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: if stat.kind == Kind::File { stat.size } else { 0 },
            mtime: stat.mtime,
            rdev: stat.rdev,
            target: if stat.kind == Kind::Symlink { self.tree.read_link(path.as_fd())? } else { Vec::new() },
            xattrs: self.tree.xattrs(path.as_fd(), stat.kind)?,
            content: Manifest::EMPTY,
            fuzzy: false,
        })
    }

    fn list(&self, directory: &File, seen: &mut SeenParts) -> Result<(), SeeError> {
        let mut names = Vec::new();
        self.tree.list(directory.as_fd(), &mut |name, _, _| {
            names.push(name.to_vec());
            true
        })?;
        names.sort_unstable();
        for name in names {
            let found = match self.tree.lookup(directory.as_fd(), &name) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => return Err(error.into()),
            };
            if found.stat.mount_root {
                seen.mounts.push(name);
                continue;
            }
            match self.shadow.id_of(&found.key).map_err(VerifyError::from)? {
                Some(id) => {
                    seen.listing.push((name.clone(), id));
                    seen.children.push((name, found.key, id));
                }
                None => seen.unknown.push((name, found.key)),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct SeenParts {
    content_differs_at: Option<u64>,
    listing: Vec<(Vec<u8>, ObjectId)>,
    unknown: Vec<(Vec<u8>, ObjectKey)>,
    children: Vec<(Vec<u8>, ObjectKey, ObjectId)>,
    mounts: Vec<Vec<u8>>,
}

enum SeeError {
    Io(io::Error),
    Unreadable(String),
    Verify(VerifyError),
}

impl From<io::Error> for SeeError {
    fn from(error: io::Error) -> SeeError {
        SeeError::Io(error)
    }
}

impl From<VerifyError> for SeeError {
    fn from(error: VerifyError) -> SeeError {
        SeeError::Verify(error)
    }
}
