//! READDIR and READDIRPLUS.

use super::{BorrowedFd, Caller, DirEntry, Kind, LocalVfs, Node, ObjectKey, Stat, VfsError, file, statx};
use crate::host::directory::{self, Listed};
use rustix::fs::OFlags;
use std::os::fd::AsFd;

impl LocalVfs {
    pub(super) fn list(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        if cookie > i64::MAX as u64 {
            return Err(VfsError::BadCookie);
        }
        let dir = self.directory(key)?;
        self.as_caller(caller)?;
        // A descriptor of its own: the position in the directory belongs to it.
        let open = file::reopen(dir.fd.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let is_root = key == self.tree.root_key();
        let end = directory::read(open.as_fd(), cookie, &mut |listed| {
            let Some((fileid, node)) = self.entry(dir.fd.as_fd(), key, &dir.stat, is_root, &listed, plus)
            else {
                return true;
            };
            each(DirEntry { fileid, name: listed.name.to_bytes(), cookie: listed.next, node })
        });
        match end {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && cookie != 0 => {
                Err(VfsError::BadCookie)
            }
            other => Ok(other?),
        }
    }

    /// File id and node of one entry; `None` hides a mount point.
    fn entry(
        &self,
        dir: BorrowedFd<'_>,
        dir_key: &ObjectKey,
        dir_stat: &Stat,
        is_root: bool,
        listed: &Listed<'_>,
        plus: bool,
    ) -> Option<(u64, Option<Node>)> {
        let name = listed.name.to_bytes();
        if name == b"." {
            let node = plus.then(|| self.node(dir_key.clone(), dir_stat));
            return Some((dir_stat.ino, node));
        }
        if name == b".." {
            // What is above the export's root is nobody's business.
            return Some((if is_root { dir_stat.ino } else { listed.ino }, None));
        }
        if plus {
            return match self.tree.lookup(dir, name) {
                Ok(Some(found)) if found.stat.mount_root => {
                    self.options.show_mount_points.then_some((listed.ino, None))
                }
                Ok(Some(found)) => Some((found.stat.ino, Some(self.node(found.key, &found.stat)))),
                // Removed meanwhile, or no search permission: the name alone.
                Ok(None) | Err(_) => Some((listed.ino, None)),
            };
        }
        if self.options.show_mount_points {
            return Some((listed.ino, None));
        }
        // Mount points are directories, but for file mounts, which LOOKUP refuses.
        let hidden = matches!(listed.kind, Some(Kind::Directory) | None)
            && statx::at(dir, listed.name).is_ok_and(|stat| self.tree.is_foreign(&stat));
        (!hidden).then_some((listed.ino, None))
    }
}
