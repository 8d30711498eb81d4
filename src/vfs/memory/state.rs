//! Inodes, entries and the permission rules of the model.

use super::acl;
use super::content::Content;
use crate::host::{KeyKind, ObjectKey};
use crate::vfs::{Attributes, Caller, Node, SetAttributes, SetTime, VfsError};
use ehpc_proto::posix_acl::Acl;
use ehpc_proto::replication::{Kind, Timestamp};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};

pub(super) const ROOT: u64 = 1;
/// Largest file: the largest offset of Linux.
pub(super) const MAX_SIZE: u64 = i64::MAX as u64;
/// Cookies of entries; "." and ".." have 1 and 2.
const FIRST_COOKIE: u64 = 3;

pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a file.
    pub(super) content: Content,
    /// Of a symlink.
    pub(super) target: Vec<u8>,
    /// Name to child and cookie.
    pub(super) entries: BTreeMap<Vec<u8>, (u64, u64)>,
    pub(super) parent: u64,
    pub(super) rdev: (u32, u32),
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    /// What the mode cannot say.
    pub(super) access: Option<Acl>,
    /// What new objects in this directory get.
    pub(super) default: Option<Acl>,
}

impl Inode {
    pub(super) fn new(kind: Kind, mode: u16) -> Inode {
        let never = Timestamp::default();
        Inode {
            kind,
            mode: mode & 0o7777,
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            content: Content::default(),
            target: Vec::new(),
            entries: BTreeMap::new(),
            parent: ROOT,
            rdev: (0, 0),
            atime: never,
            mtime: never,
            ctime: never,
            access: None,
            default: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        if self.kind == Kind::Symlink { self.target.len() as u64 } else { self.content.size() }
    }

    pub(super) fn attributes(&self, id: u64) -> Attributes {
        Attributes {
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            size: self.size(),
            used: self.content.used(),
            rdev: self.rdev,
            fsid: 1,
            fileid: id,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    pub(super) fn before(&self) -> (u64, Timestamp, Timestamp) {
        (self.size(), self.mtime, self.ctime)
    }

    /// r 4, w 2, x 1; all that are asked.
    pub(super) fn permits(&self, caller: &Caller, rwx: u16) -> bool {
        if caller.uid == 0 {
            return rwx & 1 == 0 || self.kind == Kind::Directory || self.mode & 0o111 != 0;
        }
        // The kernel looks at the list only if the mode shows the group, which is the mask, anything at all.
        if let Some(acl) = self.access.as_ref().filter(|_| self.uid == caller.uid || self.mode & 0o070 != 0) {
            return acl::permits(acl, self, caller, rwx as u8);
        }
        let shift = if self.uid == caller.uid {
            6
        } else if in_group(caller, self.gid) {
            3
        } else {
            0
        };
        (self.mode >> shift) & rwx == rwx
    }

    pub(super) fn is_owner(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.uid
    }
}

/// All ones is nobody's id.
pub(super) fn owner_can_be_set(set: &SetAttributes) -> Result<(), VfsError> {
    if set.uid == Some(u32::MAX) || set.gid == Some(u32::MAX) { Err(VfsError::Inval) } else { Ok(()) }
}

pub(super) fn in_group(caller: &Caller, gid: u32) -> bool {
    caller.gid == gid || caller.groups.contains(&gid)
}

pub(super) fn key_of(id: u64) -> ObjectKey {
    ObjectKey { kind: KeyKind::Inode, handle_type: 0, bytes: SmallVec::from_slice(&id.to_be_bytes()) }
}

/// 0, which no object has, for a key that is not ours.
pub(super) fn id_of(key: &ObjectKey) -> u64 {
    key.bytes.as_slice().try_into().map(u64::from_be_bytes).unwrap_or(0)
}

pub(super) struct State {
    pub(super) inodes: HashMap<u64, Inode>,
    next_id: u64,
    next_cookie: u64,
    clock: i64,
}

impl State {
    pub(super) fn new(uid: u32, gid: u32, mode: u16) -> State {
        let root = Inode { uid, gid, ..Inode::new(Kind::Directory, mode) };
        State {
            inodes: HashMap::from([(ROOT, root)]),
            next_id: ROOT + 1,
            next_cookie: FIRST_COOKIE,
            clock: 1,
        }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { seconds: self.clock, nanos: 0 }
    }

    pub(super) fn get(&self, id: u64) -> Result<&Inode, VfsError> {
        self.inodes.get(&id).ok_or(VfsError::Stale)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Result<&mut Inode, VfsError> {
        self.inodes.get_mut(&id).ok_or(VfsError::Stale)
    }

    pub(super) fn directory(&self, id: u64) -> Result<&Inode, VfsError> {
        let found = self.get(id)?;
        if found.kind == Kind::Directory { Ok(found) } else { Err(VfsError::NotDir) }
    }

    pub(super) fn node(&self, id: u64) -> Result<Node, VfsError> {
        Ok(Node { key: key_of(id), attributes: Some(self.get(id)?.attributes(id)) })
    }

    /// Search permission, then the name's length: the order of the kernel's path walk.
    pub(super) fn searchable(&self, caller: &Caller, dir: u64, name: &[u8]) -> Result<(), VfsError> {
        if !self.directory(dir)?.permits(caller, 1) {
            return Err(VfsError::Access);
        }
        if name.len() > 255 { Err(VfsError::NameTooLong) } else { Ok(()) }
    }

    pub(super) fn child(&self, dir: u64, name: &[u8]) -> Result<u64, VfsError> {
        self.directory(dir)?.entries.get(name).map(|(id, _)| *id).ok_or(VfsError::NoEnt)
    }

    /// Content access with the exceptions of an NFS server: the owner always, execute permits reading.
    pub(super) fn content(&self, caller: &Caller, id: u64, write: bool) -> Result<&Inode, VfsError> {
        let found = self.get(id)?;
        match found.kind {
            Kind::File => {}
            Kind::Directory => return Err(VfsError::IsDir),
            _ => return Err(VfsError::Inval),
        }
        let allowed = found.permits(caller, if write { 2 } else { 4 })
            || found.uid == caller.uid
            || (!write && found.permits(caller, 1));
        if allowed { Ok(found) } else { Err(VfsError::Access) }
    }

    pub(super) fn note_read(&mut self, id: u64) -> Result<(), VfsError> {
        let now = self.now();
        self.get_mut(id)?.atime = now;
        Ok(())
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, data: &[u8]) -> Result<u32, VfsError> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > MAX_SIZE) {
            return Err(VfsError::FBig);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let now = self.now();
        let found = self.get_mut(id)?;
        found.content.write(offset, data);
        (found.mtime, found.ctime) = (now, now);
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn truncate(&mut self, id: u64, size: u64) -> Result<(), VfsError> {
        if size > MAX_SIZE {
            return Err(VfsError::FBig);
        }
        let now = self.now();
        let found = self.get_mut(id)?;
        found.content.resize(size);
        (found.mtime, found.ctime) = (now, now);
        Ok(())
    }

    pub(super) fn change(&mut self, caller: &Caller, id: u64, set: &SetAttributes) -> Result<(), VfsError> {
        let mut set = *set;
        if let Some(size) = set.size {
            self.content(caller, id, true)?;
            self.truncate(id, size)?;
            if set.mtime == SetTime::ServerTime {
                set.mtime = SetTime::Keep;
            }
        }
        self.change_owner(caller, id, &set)?;
        if let Some(mode) = set.mode {
            let now = self.now();
            let found = self.get_mut(id)?;
            if found.kind == Kind::Symlink {
                return Err(VfsError::NotSupp);
            }
            if !found.is_owner(caller) {
                return Err(VfsError::Perm);
            }
            found.mode = mode & 0o7777;
            if let Some(acl) = &mut found.access {
                acl::chmod(acl, mode);
            }
            found.ctime = now;
        }
        self.change_times(caller, id, &set)
    }

    fn change_owner(&mut self, caller: &Caller, id: u64, set: &SetAttributes) -> Result<(), VfsError> {
        if set.uid.is_none() && set.gid.is_none() {
            return Ok(());
        }
        owner_can_be_set(set)?;
        let now = self.now();
        let found = self.get_mut(id)?;
        if caller.uid != 0 {
            let owner = caller.uid == found.uid;
            let uid_ok = set.uid.is_none_or(|uid| owner && uid == found.uid);
            let gid_ok = set.gid.is_none_or(|gid| owner && (gid == found.gid || in_group(caller, gid)));
            if !uid_ok || !gid_ok {
                return Err(VfsError::Perm);
            }
        }
        found.uid = set.uid.unwrap_or(found.uid);
        found.gid = set.gid.unwrap_or(found.gid);
        found.ctime = now;
        Ok(())
    }

    fn change_times(&mut self, caller: &Caller, id: u64, set: &SetAttributes) -> Result<(), VfsError> {
        if (set.atime, set.mtime) == (SetTime::Keep, SetTime::Keep) {
            return Ok(());
        }
        let now = self.now();
        let found = self.get_mut(id)?;
        if !found.is_owner(caller) {
            let exact = matches!(set.atime, SetTime::To(_)) || matches!(set.mtime, SetTime::To(_));
            if exact {
                return Err(VfsError::Perm);
            }
            if !found.permits(caller, 2) {
                return Err(VfsError::Access);
            }
        }
        let pick = |set, old| match set {
            SetTime::Keep => old,
            SetTime::ServerTime => now,
            SetTime::To(time) => time,
        };
        found.atime = pick(set.atime, found.atime);
        found.mtime = pick(set.mtime, found.mtime);
        found.ctime = now;
        Ok(())
    }

    pub(super) fn may_make(&self, caller: &Caller, dir: u64, name: &[u8]) -> Result<(), VfsError> {
        if self.directory(dir)?.entries.contains_key(name) {
            return Err(VfsError::Exist);
        }
        if self.directory(dir)?.permits(caller, 3) { Ok(()) } else { Err(VfsError::Access) }
    }

    pub(super) fn make(
        &mut self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        inode: Inode,
    ) -> Result<u64, VfsError> {
        self.may_make(caller, dir, name)?;
        let (now, id) = (self.now(), self.next_id);
        self.next_id += 1;
        let inode = match &self.directory(dir)?.default {
            Some(default) => acl::inherit(default, inode),
            None => inode,
        };
        let inode = Inode {
            uid: caller.uid,
            gid: caller.gid,
            parent: dir,
            atime: now,
            mtime: now,
            ctime: now,
            ..inode
        };
        self.inodes.insert(id, inode);
        self.place(dir, name, id)?;
        Ok(id)
    }

    pub(super) fn finish_new(
        &mut self,
        caller: &Caller,
        id: u64,
        set: &SetAttributes,
    ) -> Result<(), VfsError> {
        if let Some(size) = set.size.filter(|&size| size > 0)
            && self.get(id)?.kind == Kind::File
        {
            self.truncate(id, size)?;
        }
        match self.change_owner(caller, id, set) {
            Ok(()) | Err(VfsError::Perm) => {}
            Err(error) => return Err(error),
        }
        self.change_times(caller, id, set)
    }

    /// Puts a name into a directory; counts links of directories.
    fn place(&mut self, dir: u64, name: &[u8], id: u64) -> Result<(), VfsError> {
        let now = self.now();
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let is_dir = self.get(id)?.kind == Kind::Directory;
        let parent = self.get_mut(dir)?;
        parent.entries.insert(name.to_vec(), (id, cookie));
        (parent.mtime, parent.ctime) = (now, now);
        parent.nlink += u32::from(is_dir);
        let child = self.get_mut(id)?;
        child.ctime = now;
        if is_dir {
            child.parent = dir;
        }
        Ok(())
    }

    /// Takes a name out of a directory; the object stays.
    fn vacate(&mut self, dir: u64, name: &[u8]) -> Result<u64, VfsError> {
        let now = self.now();
        let parent = self.get_mut(dir)?;
        let (id, _) = parent.entries.remove(name).ok_or(VfsError::NoEnt)?;
        (parent.mtime, parent.ctime) = (now, now);
        let child = self.get_mut(id)?;
        child.ctime = now;
        let is_dir = child.kind == Kind::Directory;
        self.get_mut(dir)?.nlink -= u32::from(is_dir);
        Ok(id)
    }

    /// One name less; the last takes the object with it.
    fn release(&mut self, id: u64) -> Result<(), VfsError> {
        let found = self.get_mut(id)?;
        found.nlink = if found.kind == Kind::Directory { 0 } else { found.nlink - 1 };
        if found.nlink == 0 {
            self.inodes.remove(&id);
        }
        Ok(())
    }

    fn may_remove(&self, caller: &Caller, dir: u64, id: u64, directory: bool) -> Result<(), VfsError> {
        if !self.directory(dir)?.permits(caller, 3) {
            return Err(VfsError::Access);
        }
        match (directory, self.get(id)?.kind == Kind::Directory) {
            (true, false) => Err(VfsError::NotDir),
            (false, true) => Err(VfsError::IsDir),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(
        &mut self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        directory: bool,
    ) -> Result<(), VfsError> {
        let id = self.child(dir, name)?;
        self.may_remove(caller, dir, id, directory)?;
        if directory && !self.get(id)?.entries.is_empty() {
            return Err(VfsError::NotEmpty);
        }
        self.vacate(dir, name)?;
        self.release(id)
    }

    pub(super) fn link(
        &mut self,
        caller: &Caller,
        id: u64,
        dir: u64,
        name: &[u8],
        protected: bool,
    ) -> Result<(), VfsError> {
        if self.directory(dir)?.entries.contains_key(name) {
            return Err(VfsError::Exist);
        }
        let found = self.get(id)?;
        let safe = found.is_owner(caller) || (found.kind == Kind::File && found.permits(caller, 6));
        if protected && !safe {
            return Err(VfsError::Perm);
        }
        self.may_make(caller, dir, name)?;
        self.place(dir, name, id)?;
        self.get_mut(id)?.nlink += 1;
        Ok(())
    }

    /// Is `id` the directory `below` or above it?
    fn is_above(&self, id: u64, below: u64) -> bool {
        let mut at = below;
        loop {
            if at == id {
                return true;
            }
            match self.inodes.get(&at) {
                Some(found) if at != ROOT => at = found.parent,
                _ => return false,
            }
        }
    }

    pub(super) fn rename(
        &mut self,
        caller: &Caller,
        (source, name): (u64, &[u8]),
        (target, new_name): (u64, &[u8]),
    ) -> Result<(), VfsError> {
        self.directory(source)?;
        self.directory(target)?;
        self.searchable(caller, source, b"")?;
        self.searchable(caller, target, b"")?;
        self.searchable(caller, source, name)?;
        let id = self.child(source, name)?;
        self.searchable(caller, target, new_name)?;
        let replaced = self.child(target, new_name).ok();
        let is_dir = self.get(id)?.kind == Kind::Directory;
        if is_dir && self.is_above(id, target) {
            return Err(VfsError::Inval);
        }
        if replaced.is_some_and(|old| old != id && self.is_above(old, source)) {
            return Err(VfsError::NotEmpty);
        }
        if replaced == Some(id) {
            return Ok(());
        }
        self.may_remove(caller, source, id, is_dir)?;
        match replaced {
            Some(old) => self.may_remove(caller, target, old, is_dir)?,
            None => self.may_make(caller, target, new_name)?,
        }
        if is_dir && source != target && !self.get(id)?.permits(caller, 2) {
            return Err(VfsError::Access);
        }
        if let Some(old) = replaced {
            if !self.get(old)?.entries.is_empty() {
                return Err(VfsError::NotEmpty);
            }
            self.vacate(target, new_name)?;
            self.release(old)?;
        }
        self.vacate(source, name)?;
        self.place(target, new_name, id)
    }
}
