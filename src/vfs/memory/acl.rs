//! POSIX ACLs of the model, as linux/fs/posix_acl.c has them.

use super::state::{Inode, State, in_group};
use crate::vfs::{Acls, Caller, SetAcls, VfsError};
use ehpc_proto::posix_acl::{Acl, Entry, Tag};
use ehpc_proto::replication::Kind;

/// posix_acl_permission: may this caller, who is not root, do all of `rwx`?
pub(super) fn permits(acl: &Acl, inode: &Inode, caller: &Caller, rwx: u8) -> bool {
    let has = |entry: &Entry| entry.permissions & rwx == rwx;
    if inode.uid == caller.uid {
        return acl.find(Tag::UserObj).is_some_and(has);
    }
    let masked = acl.find(Tag::Mask).is_none_or(has);
    let user = |entry: &&Entry| entry.tag == Tag::User && entry.id == caller.uid;
    if let Some(named) = acl.0.iter().find(user) {
        return masked && has(named);
    }
    let mut groups = acl
        .0
        .iter()
        .filter(|entry| match entry.tag {
            Tag::GroupObj => in_group(caller, inode.gid),
            Tag::Group => in_group(caller, entry.id),
            _ => false,
        })
        .peekable();
    if groups.peek().is_some() {
        return masked && groups.any(has);
    }
    acl.find(Tag::Other).is_some_and(has)
}

/// posix_acl_chmod: the list follows the mode.
pub(super) fn chmod(acl: &mut Acl, mode: u16) {
    let masked = acl.find(Tag::Mask).is_some();
    for entry in &mut acl.0 {
        let shift = match entry.tag {
            Tag::UserObj => 6,
            Tag::GroupObj if !masked => 3,
            Tag::Mask => 3,
            Tag::Other => 0,
            _ => continue,
        };
        entry.permissions = (mode >> shift & 7) as u8;
    }
}

/// posix_acl_create: what a new object gets from its directory, and its mode.
pub(super) fn inherit(default: &Acl, inode: Inode) -> Inode {
    if inode.kind == Kind::Symlink {
        return inode;
    }
    let mut acl = default.clone();
    let masked = acl.find(Tag::Mask).is_some();
    for entry in &mut acl.0 {
        let shift = match entry.tag {
            Tag::UserObj => 6,
            Tag::GroupObj if !masked => 3,
            Tag::Mask => 3,
            Tag::Other => 0,
            _ => continue,
        };
        entry.permissions &= (inode.mode >> shift & 7) as u8;
    }
    Inode {
        mode: inode.mode & !0o777 | acl.mode(),
        default: (inode.kind == Kind::Directory).then(|| default.clone()),
        access: (!acl.is_minimal()).then_some(acl),
        ..inode
    }
}

impl State {
    pub(super) fn acls(&self, id: u64) -> Result<Acls, VfsError> {
        let found = self.get(id)?;
        Ok(Acls { access: found.access.clone(), default: found.default.clone() })
    }

    pub(super) fn set_acls(&mut self, caller: &Caller, id: u64, set: &SetAcls) -> Result<(), VfsError> {
        let found = self.get(id)?;
        let (kind, owner) = (found.kind, found.is_owner(caller));
        if [&set.access, &set.default].into_iter().flatten().any(|acl| !acl.is_empty() && !acl.is_valid()) {
            return Err(VfsError::Inval);
        }
        if kind != Kind::Directory && set.default.as_ref().is_some_and(|acl| !acl.is_empty()) {
            return Err(VfsError::Access);
        }
        let default = set.default.as_ref().filter(|_| kind == Kind::Directory);
        if kind == Kind::Symlink && set.access.is_some() {
            return Err(VfsError::NotSupp);
        }
        if (set.access.is_some() || default.is_some()) && !owner {
            return Err(VfsError::Perm);
        }
        let now = self.now();
        let found = self.get_mut(id)?;
        if let Some(acl) = &set.access {
            if !acl.is_empty() {
                found.mode = found.mode & !0o777 | acl.mode();
            }
            found.access = Some(acl.clone()).filter(|acl| !acl.is_minimal());
            found.ctime = now;
        }
        if let Some(acl) = default {
            found.default = Some(acl.clone()).filter(|acl| !acl.is_empty());
            found.ctime = now;
        }
        Ok(())
    }
}
