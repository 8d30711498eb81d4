//! What is left over in limbo goes.

use super::disk::{self, Disk, Target};
use super::view::SourceError;
use super::{Mirror, MirrorError};
use ehpc_proto::replication::{Kind, ObjectId};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Depth from which nested directories are moved up instead of being entered.
const DEEPEST: usize = 64;

/// Removes from limbo all but `<id>` for which `keep` says so.
pub(super) fn sweep(
    mirror: &mut Mirror,
    keep: &dyn Fn(ObjectId) -> Result<bool, SourceError>,
) -> Result<(), MirrorError> {
    let limbo = mirror.limbo.clone();
    let fault = |source| MirrorError::Io { what: "clean", path: "limbo".to_owned(), source };
    loop {
        let mut moved_up = false;
        for name in disk::list(limbo.as_fd()).map_err(fault)? {
            if let Some(id) = parse(&name)
                && keep(id).map_err(MirrorError::View)?
            {
                continue;
            }
            let mut removal = Removal { mirror, moved_up: false };
            removal.remove(limbo.as_fd(), &name, 0).map_err(fault)?;
            moved_up |= removal.moved_up;
        }
        if !moved_up {
            return Ok(());
        }
    }
}

/// `<id>` of an object in limbo.
pub(super) fn parse(name: &[u8]) -> Option<ObjectId> {
    std::str::from_utf8(name).ok()?.parse().ok().map(ObjectId)
}

struct Removal<'a> {
    mirror: &'a mut Mirror,
    moved_up: bool,
}

impl Removal<'_> {
    fn disk(&mut self) -> &mut Disk {
        &mut self.mirror.disk
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
        let Some(stat) = disk::stat_at(dir, name)? else { return Ok(()) };
        if stat.kind != Kind::Directory {
            return self.disk().unlink(dir, name);
        }
        if depth >= DEEPEST {
            let limbo = self.mirror.limbo.clone();
            let up = self.mirror.trash_name();
            self.disk().rename((dir, name), (limbo.as_fd(), &up))?;
            self.moved_up = true;
            return Ok(());
        }
        if stat.mode & 0o700 != 0o700 {
            self.disk().chmod(Target::Named(dir, name), 0o700)?;
        }
        match self.disk().rmdir(dir, name) {
            Err(error) if error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => {}
            result => return result,
        }
        let inner = disk::open_dir(dir, name)?;
        for child in disk::list(inner.as_fd())? {
            self.remove(inner.as_fd(), &child, depth + 1)?;
        }
        self.disk().rmdir(dir, name)
    }
}
