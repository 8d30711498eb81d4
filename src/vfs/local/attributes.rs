//! SETATTR, and the attributes that objects are made with.

use super::{
    BorrowedFd, Caller, Kind, LocalVfs, Mutation, Object, ObjectKey, SetAttributes, Stat, Timestamp, Use,
    VfsError, Wcc, credentials, failed, file, group_commit, statx, wcc_before,
};
use crate::vfs::SetTime;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub(super) const SET_ID_BITS: u16 = 0o6000;

impl LocalVfs {
    pub(super) fn set_attributes(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        group_commit::begin();
        if let Err(error) = self.writable() {
            return failed(error);
        }
        let object = match self.object(key) {
            Ok(object) => object,
            Err(error) => return failed(error),
        };
        // Opened before the lock is taken; the guard and the change come under it.
        let content = match set.size {
            Some(_) => self.content(caller, key, Use::Write).map(Some),
            None => Ok(None),
        };
        let (result, wcc) = {
            let _lock = self.locks.one(key);
            let done = self.change_under_lock(caller, &object, content, set, guard);
            self.listings.changed(key);
            done
        };
        let result = match result {
            Ok(()) if self.options.sync => self.owe_object(key, object.fd.as_fd(), object.stat.kind),
            other => other,
        };
        Mutation { result, wcc }
    }

    fn change_under_lock(
        &self,
        caller: &Caller,
        object: &Object,
        content: Result<Option<Arc<OwnedFd>>, VfsError>,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> (Result<(), VfsError>, Wcc) {
        let fd = object.fd.as_fd();
        let before = match statx::of(fd) {
            Ok(stat) => stat,
            Err(error) => return (Err(error.into()), Wcc::default()),
        };
        let result = if guard.is_some_and(|ctime| ctime != before.ctime) {
            Err(VfsError::NotSync)
        } else {
            content.and_then(|content| self.change(caller, fd, &before, content.as_deref(), set))
        };
        let wcc = Wcc { before: wcc_before(&before), after: self.attributes_of(fd) };
        (result, wcc)
    }

    fn change(
        &self,
        caller: &Caller,
        fd: BorrowedFd<'_>,
        before: &Stat,
        content: Option<&OwnedFd>,
        set: &SetAttributes,
    ) -> Result<(), VfsError> {
        self.as_caller(caller)?;
        let mut set = *set;
        if let (Some(size), Some(content)) = (set.size, content) {
            truncate(content.as_fd(), size)?;
            // ftruncate has set this; alone it would need the owner, where truncating needs a writer.
            if set.mtime == SetTime::ServerTime {
                set.mtime = SetTime::Keep;
            }
        }
        change_owner(fd, set.uid, set.gid)?;
        if let Some(mode) = set.mode {
            if before.kind == Kind::Symlink {
                return Err(VfsError::NotSupp); // not what every kernel says
            }
            file::chmod(fd, mode)?;
        }
        self.change_times(fd, set.atime, set.mtime)
    }

    /// Under the caller's ids; a single "now" by a writer who is not the owner is what RFC 1813 and knfsd allow
    /// and utimensat does not, so the kernel is asked whether he may write, and it is done for him.
    fn change_times(&self, fd: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> Result<(), VfsError> {
        let single_now = matches!(
            (atime, mtime),
            (SetTime::Keep, SetTime::ServerTime) | (SetTime::ServerTime, SetTime::Keep)
        );
        match change_times(fd, atime, mtime) {
            Err(rustix::io::Errno::PERM) if single_now => {
                if !file::permits(fd, 2)? {
                    return Err(VfsError::Access);
                }
                self.as_self()?;
                Ok(change_times(fd, atime, mtime)?)
            }
            other => Ok(other?),
        }
    }

    /// Refuses what no object can be made with, before one is: a failure leaves nothing behind.
    pub(super) fn can_be_set(&self, set: &SetAttributes, kind: Kind) -> Result<(), VfsError> {
        owner_can_be_set(set.uid, set.gid)?;
        let size = set.size.filter(|&size| size > 0 && kind == Kind::File);
        if size.is_some_and(|size| size > file::max_size(self.tree.root_fd())) {
            return Err(VfsError::FBig);
        }
        Ok(())
    }

    /// Attributes of an object just made by this caller, its mode being part of the making.
    pub(super) fn finish_new(
        &self,
        fd: BorrowedFd<'_>,
        content: Option<BorrowedFd<'_>>,
        set: &SetAttributes,
    ) -> Result<Stat, VfsError> {
        if let (Some(size), Some(content)) = (set.size.filter(|&size| size > 0), content) {
            truncate(content, size)?;
        }
        // Who may not give files away makes them as his own: that is no reason to refuse the file.
        match change_owner(fd, set.uid, set.gid) {
            Ok(()) | Err(VfsError::Perm) => {}
            Err(error) => return Err(error),
        }
        let stat = statx::of(fd)?;
        let set_ids = set.mode.unwrap_or(0) & SET_ID_BITS & !stat.mode;
        let late_mode = set_ids != 0 && stat.kind != Kind::Symlink;
        if late_mode {
            // mkdir ignores these bits and chown clears them. The rest of the mode stays as made: a default
            // ACL may have had its say.
            file::chmod(fd, stat.mode | set_ids)?;
        }
        let times = (set.atime, set.mtime) != (SetTime::Keep, SetTime::Keep);
        if times {
            change_times(fd, set.atime, set.mtime)?;
        }
        if late_mode || times { Ok(statx::of(fd)?) } else { Ok(stat) }
    }
}

pub(super) fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<(), VfsError> {
    if size > i64::MAX as u64 {
        return Err(VfsError::FBig);
    }
    Ok(rustix::fs::ftruncate(fd, size)?)
}

fn change_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), VfsError> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    owner_can_be_set(uid, gid)?;
    Ok(rustix::fs::chownat(fd, c"", credentials::uid(uid), credentials::gid(gid), AtFlags::EMPTY_PATH)?)
}

/// All ones means "leave it" to the system call, and is nobody's id.
fn owner_can_be_set(uid: Option<u32>, gid: Option<u32>) -> Result<(), VfsError> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) { Err(VfsError::Inval) } else { Ok(()) }
}

pub(super) fn change_times(fd: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> rustix::io::Result<()> {
    if (atime, mtime) == (SetTime::Keep, SetTime::Keep) {
        return Ok(());
    }
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)
}

fn timespec(time: SetTime) -> Timespec {
    match time {
        SetTime::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        SetTime::ServerTime => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        SetTime::To(time) => {
            Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos.min(999_999_999)) }
        }
    }
}
