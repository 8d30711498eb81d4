//! READ, WRITE, COMMIT.

use super::group_commit::Debt;
use super::{
    BorrowedFd, Caller, Kind, LocalVfs, Mutation, ObjectKey, ReadDone, Stability, Stat, Use, VfsError, Wcc,
    WriteDone, failed, file, group_commit, statx, wcc_before,
};
use crate::host::{pread_append, pread_cached};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Largest offset the kernel knows.
const MAX_OFFSET: u64 = i64::MAX as u64;

impl LocalVfs {
    /// A descriptor on the content that this caller may use so; the thread then acts as the caller.
    pub(super) fn content(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        how: Use,
    ) -> Result<Arc<OwnedFd>, VfsError> {
        if let Some(fd) = self.descriptors.get(key, how) {
            self.as_caller(caller)?;
            let allowed = file::permits(fd.as_fd(), if how == Use::Write { 2 } else { 4 })?
                || self.exception(caller, fd.as_fd(), &statx::of(fd.as_fd())?, how)?;
            return if allowed { Ok(fd) } else { Err(VfsError::Access) };
        }
        let object = self.object(key)?;
        match object.stat.kind {
            Kind::File => {}
            Kind::Directory => return Err(VfsError::IsDir),
            _ => return Err(VfsError::Inval),
        }
        let fd = Arc::new(self.open_content(caller, object.fd.as_fd(), &object.stat, how)?);
        self.descriptors.keep(key, how, &fd);
        self.as_caller(caller)?;
        Ok(fd)
    }

    /// Opens for the caller what an O_PATH descriptor names.
    pub(super) fn open_content(
        &self,
        caller: &Caller,
        path: BorrowedFd<'_>,
        stat: &Stat,
        how: Use,
    ) -> Result<OwnedFd, VfsError> {
        let flags = OFlags::NONBLOCK | if how == Use::Write { OFlags::WRONLY } else { OFlags::RDONLY };
        self.as_caller(caller)?;
        match file::reopen(path, flags) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                if !self.exception(caller, path, stat, how)? {
                    return Err(VfsError::Access);
                }
                self.as_self()?;
                Ok(file::reopen(path, flags)?)
            }
            other => Ok(other?),
        }
    }

    /// What the mode forbids and NFS must allow all the same: a client checks at open and then reads and
    /// writes for as long as it likes. The owner may do both whatever a later chmod says, and who may
    /// execute a file may read it, for that is how the client runs it.
    fn exception(
        &self,
        caller: &Caller,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        how: Use,
    ) -> Result<bool, VfsError> {
        if stat.kind != Kind::File {
            return Ok(false);
        }
        Ok(stat.uid == self.acting_uid(caller) || (how == Use::Read && file::permits(fd, 1)?))
    }

    pub(super) fn read_data(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        let fd = self.content(caller, key, Use::Read)?;
        let start = into.len();
        let bytes =
            if offset > MAX_OFFSET { 0 } else { pread_append(fd.as_fd(), offset, count as usize, into)? };
        self.read_done(key, fd.as_fd(), (offset, bytes), start, into)
    }

    /// From the page cache alone; `None` when that is not possible.
    pub(super) fn read_cached(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Option<Result<ReadDone, VfsError>> {
        if offset > MAX_OFFSET {
            return None;
        }
        let fd = match self.content(caller, key, Use::Read) {
            Ok(fd) => fd,
            Err(error) => return Some(Err(error)),
        };
        let start = into.len();
        // Whatever it is that went wrong: the waiting read will tell.
        let bytes = pread_cached(fd.as_fd(), offset, count as usize, into).ok().flatten()?;
        Some(self.read_done(key, fd.as_fd(), (offset, bytes), start, into))
    }

    fn read_done(
        &self,
        key: &ObjectKey,
        fd: BorrowedFd<'_>,
        (offset, bytes): (u64, usize),
        start: usize,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        let stat = statx::of(fd)?;
        if stat.nlink == 0 {
            self.descriptors.drop_object(key);
            into.truncate(start);
            return Err(VfsError::Stale);
        }
        // Reading moves the access time now and then (relatime).
        if crate::host::coarse_now().seconds - stat.atime.seconds < 2 {
            self.listings.accessed(key);
        }
        let eof = offset.saturating_add(bytes as u64) >= stat.size;
        Ok(ReadDone { bytes, eof, attributes: Some(self.attributes(&stat)) })
    }

    pub(super) fn write_data(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone> {
        group_commit::begin();
        if let Err(error) = self.writable() {
            return failed(error);
        }
        let (mut result, mut wcc) = self.write_once(caller, key, offset, data);
        if let Err(None) = result {
            // A kept descriptor that cannot write: opened anew, never "stale".
            self.descriptors.drop_object(key);
            (result, wcc) = self.write_once(caller, key, offset, data);
        }
        let (fd, count) = match result {
            Ok(written) => written,
            Err(error) => return Mutation { result: Err(error.unwrap_or(VfsError::Io)), wcc },
        };
        match stable {
            Stability::Unstable => {}
            Stability::DataSync => group_commit::owe(Debt::Data(key.clone(), fd)),
            Stability::FileSync => group_commit::owe(Debt::Object(key.clone(), fd)),
        }
        Mutation { result: Ok(WriteDone { count, committed: stable }), wcc }
    }

    fn write_once(&self, caller: &Caller, key: &ObjectKey, offset: u64, data: &[u8]) -> (Written, Wcc) {
        let fd = match self.content(caller, key, Use::Write) {
            Ok(fd) => fd,
            Err(error) => return (Err(Some(error)), self.wcc_now(key)),
        };
        let _lock = self.locks.one(key);
        let before = match statx::of(fd.as_fd()) {
            Ok(stat) => stat,
            Err(error) => return (Err(Some(error.into())), Wcc::default()),
        };
        if before.nlink == 0 {
            self.descriptors.drop_object(key);
            return (Err(Some(VfsError::Stale)), Wcc::default());
        }
        let result = write_all(fd.as_fd(), offset, data);
        self.listings.changed(key);
        let wcc = Wcc { before: wcc_before(&before), after: self.attributes_of(fd.as_fd()) };
        (result.map(|count| (fd, count)), wcc)
    }

    /// Attributes for the reply of an operation that changed nothing.
    pub(super) fn wcc_now(&self, key: &ObjectKey) -> Wcc {
        match self.object(key) {
            Ok(object) => {
                Wcc { before: wcc_before(&object.stat), after: Some(self.attributes(&object.stat)) }
            }
            Err(_) => Wcc::default(),
        }
    }

    pub(super) fn commit_data(&self, caller: &Caller, key: &ObjectKey) -> Mutation<()> {
        group_commit::begin();
        let object = match self.object(key) {
            Ok(object) => object,
            Err(error) => return failed(error),
        };
        let result = if object.stat.kind != Kind::File {
            Err(VfsError::Inval)
        } else {
            self.as_caller(caller).and_then(|()| self.owe_object(key, object.fd.as_fd(), object.stat.kind))
        };
        let _lock = self.locks.one(key);
        let after = self.attributes_of(object.fd.as_fd());
        // COMMIT changes no attribute: before is after.
        Mutation { result, wcc: Wcc { before: after.map(|now| (now.size, now.mtime, now.ctime)), after } }
    }
}

/// The descriptor and the bytes written; error `None`: the descriptor is not open for writing.
type Written = Result<(Arc<OwnedFd>, u32), Option<VfsError>>;

/// Bytes written; fewer than given when the disk filled up on the way.
fn write_all(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<u32, Option<VfsError>> {
    if offset.checked_add(data.len() as u64).is_none_or(|end| end > MAX_OFFSET) {
        return Err(Some(VfsError::FBig));
    }
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(fd, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(Errno::BADF) => return Err(None),
            Err(error) => return Err(Some(error.into())),
        }
    }
    Ok(u32::try_from(done).unwrap_or(u32::MAX))
}
