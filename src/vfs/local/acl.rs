//! POSIX ACLs: the kernel's own, as the extended attributes that stand for them. The kernel decides who may
//! set them, keeps the mode in step, and drops a list that says no more than the mode does.

use super::{
    Acls, Attributes, BorrowedFd, Caller, Kind, LocalVfs, Mutation, ObjectKey, SetAcls, VfsError, Wcc,
    failed, statx, wcc_before,
};
use crate::host::xattr::{self, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT};
use ehpc_proto::posix_acl::Acl;
use std::ffi::CStr;
use std::os::fd::AsFd;

impl LocalVfs {
    pub(super) fn read_acls(&self, caller: &Caller, key: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        let object = self.object(key)?;
        self.as_caller(caller)?;
        let fd = object.fd.as_fd();
        // An ACL and a mode that belong together.
        let _lock = self.locks.one(key);
        let stat = statx::of(fd)?;
        let default = if stat.kind == Kind::Directory { read(fd, POSIX_ACL_DEFAULT)? } else { None };
        Ok((Acls { access: read(fd, POSIX_ACL_ACCESS)?, default }, self.attributes(&stat)))
    }

    pub(super) fn write_acls(&self, caller: &Caller, key: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        super::group_commit::begin();
        if let Err(error) = self.writable() {
            return failed(error);
        }
        let object = match self.object(key) {
            Ok(object) => object,
            Err(error) => return failed(error),
        };
        let fd = object.fd.as_fd();
        let (result, wcc) = {
            let _lock = self.locks.one(key);
            let before = match statx::of(fd) {
                Ok(stat) => stat,
                Err(error) => return failed(error.into()),
            };
            let result = self.as_caller(caller).and_then(|()| write_both(fd, before.kind, set));
            self.listings.changed(key);
            (result, Wcc { before: wcc_before(&before), after: self.attributes_of(fd) })
        };
        let result = match result {
            Ok(()) if self.options.sync => self.owe_object(key, object.fd.as_fd(), object.stat.kind),
            other => other,
        };
        Mutation { result, wcc }
    }
}

/// `None` too where the file system has no ACLs: the mode says all.
fn read(fd: BorrowedFd<'_>, name: &CStr) -> Result<Option<Acl>, VfsError> {
    let Some(value) = xattr::get(fd, name)? else { return Ok(None) };
    let acl = Acl::decode(&value).map_err(|error| {
        tracing::error!(%error, name = %name.to_string_lossy(), "the kernel returned a POSIX ACL that cannot be read");
        VfsError::Io
    })?;
    Ok(Some(acl))
}

/// Both are looked at before one is set: nothing is done by halves.
fn write_both(fd: BorrowedFd<'_>, kind: Kind, set: &SetAcls) -> Result<(), VfsError> {
    if [&set.access, &set.default].into_iter().flatten().any(|acl| !acl.is_empty() && !acl.is_valid()) {
        return Err(VfsError::Inval);
    }
    if kind != Kind::Directory && set.default.as_ref().is_some_and(|acl| !acl.is_empty()) {
        return Err(VfsError::Access);
    }
    if let Some(access) = &set.access {
        write(fd, POSIX_ACL_ACCESS, access)?;
    }
    if let Some(default) = set.default.as_ref().filter(|_| kind == Kind::Directory) {
        write(fd, POSIX_ACL_DEFAULT, default)?;
    }
    Ok(())
}

fn write(fd: BorrowedFd<'_>, name: &CStr, acl: &Acl) -> Result<(), VfsError> {
    if acl.is_empty() {
        return Ok(xattr::remove(fd, name)?);
    }
    Ok(xattr::set(fd, name, &acl.encode())?)
}
