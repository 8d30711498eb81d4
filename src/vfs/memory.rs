//! A `Vfs` in memory: the model that tests compare others with, and a fast one for the protocol's own tests.
//!
//! It answers as a POSIX file system with the classic permission bits does (owner, group, others, root;
//! no set-id or sticky bits) and POSIX ACLs, error for error. Time is a counter.

mod acl;
mod content;
mod state;

use super::{
    Acls, Attributes, Caller, CreateHow, DirEntry, FsStat, Limits, Mutation, Node, ReadDone, RenameDone,
    SetAcls, SetAttributes, SetTime, Stability, Vfs, VfsError, Wcc, WriteDone, access, made_with,
    verifier_times,
};
use crate::host::ObjectKey;
use ehpc_proto::replication::{Kind, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use state::{Inode, ROOT, State, id_of, key_of};

/// See the module.
pub struct MemoryVfs {
    state: Mutex<State>,
    /// fs.protected_hardlinks: only who owns a file, or may read and write it, makes links to it.
    protected_hardlinks: bool,
}

impl Default for MemoryVfs {
    fn default() -> MemoryVfs {
        MemoryVfs::new((0, 0, 0o755), true)
    }
}

impl MemoryVfs {
    /// An empty tree whose root has this owner, group and mode.
    pub fn new((uid, gid, mode): (u32, u32, u16), protected_hardlinks: bool) -> MemoryVfs {
        MemoryVfs { state: Mutex::new(State::new(uid, gid, mode)), protected_hardlinks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The frame of operations that change one directory.
    fn in_directory<T>(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        act: impl FnOnce(&mut State, u64) -> Result<T, VfsError>,
    ) -> Mutation<T> {
        let mut state = self.state();
        let id = id_of(dir);
        let before = match state.directory(id) {
            Ok(found) => found.before(),
            Err(error) => return Mutation { result: Err(error), wcc: Wcc::default() },
        };
        let result = state.searchable(caller, id, name).and_then(|()| act(&mut state, id));
        let after = state.inodes.get(&id).map(|found| found.attributes(id));
        Mutation { result, wcc: Wcc { before: Some(before), after } }
    }

    /// Refused for its attributes, whatever the name and the permissions.
    fn refused<T>(&self, caller: &Caller, dir: &ObjectKey, error: VfsError) -> Mutation<T> {
        let mut done = self.in_directory(caller, dir, b"", |_, _| Err(error));
        if done.wcc.before.is_some() {
            done.result = Err(error);
        }
        done
    }

    fn make(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        set: &SetAttributes,
        inode: Inode,
    ) -> Mutation<Node> {
        if let Err(error) = state::owner_can_be_set(set) {
            return self.refused(caller, dir, error);
        }
        self.in_directory(caller, dir, name, |state, dir| {
            let id = state.make(caller, dir, name, inode)?;
            state.finish_new(caller, id, set)?;
            state.node(id)
        })
    }
}

impl Vfs for MemoryVfs {
    fn root(&self) -> ObjectKey {
        key_of(ROOT)
    }

    fn getattr(&self, _caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError> {
        let id = id_of(object);
        Ok(self.state().get(id)?.attributes(id))
    }

    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        let mut state = self.state();
        let id = id_of(object);
        let before = match state.get(id) {
            Ok(found) => found.before(),
            Err(error) => return Mutation { result: Err(error), wcc: Wcc::default() },
        };
        let result = if guard.is_some_and(|ctime| ctime != before.2) {
            Err(VfsError::NotSync)
        } else {
            state.change(caller, id, set)
        };
        let after = state.inodes.get(&id).map(|found| found.attributes(id));
        Mutation { result, wcc: Wcc { before: Some(before), after } }
    }

    fn acls(&self, _caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        let state = self.state();
        let id = id_of(object);
        Ok((state.acls(id)?, state.get(id)?.attributes(id)))
    }

    fn set_acls(&self, caller: &Caller, object: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        let mut state = self.state();
        let id = id_of(object);
        let before = match state.get(id) {
            Ok(found) => found.before(),
            Err(error) => return Mutation { result: Err(error), wcc: Wcc::default() },
        };
        let result = state.set_acls(caller, id, set);
        let after = state.inodes.get(&id).map(|found| found.attributes(id));
        Mutation { result, wcc: Wcc { before: Some(before), after } }
    }

    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        let state = self.state();
        let id = id_of(dir);
        let attributes = match state.directory(id) {
            Ok(found) => found.attributes(id),
            Err(error) => return (Err(error), None),
        };
        let result = state.searchable(caller, id, name).and_then(|()| state.node(state.child(id, name)?));
        (result, Some(attributes))
    }

    fn parent(&self, caller: &Caller, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        let state = self.state();
        let id = id_of(dir);
        match state.directory(id) {
            Ok(found) => {
                let (above, attributes) = (found.parent, found.attributes(id));
                let result = state.searchable(caller, id, b"..").and_then(|()| state.node(above));
                let result = if id == ROOT { state.node(ROOT) } else { result };
                (result, Some(attributes))
            }
            Err(error) => (Err(error), None),
        }
    }

    fn access(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        wanted: u32,
    ) -> Result<(u32, Option<Attributes>), VfsError> {
        let state = self.state();
        let id = id_of(object);
        let found = state.get(id)?;
        let rwx = [4u16, 2, 1].into_iter().filter(|&bit| found.permits(caller, bit)).map(u32::from).sum();
        let granted = access::granted(found.kind == Kind::Directory, rwx);
        Ok((granted & wanted, Some(found.attributes(id))))
    }

    fn readlink(
        &self,
        _caller: &Caller,
        object: &ObjectKey,
    ) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        let state = self.state();
        let id = id_of(object);
        match state.get(id) {
            Ok(found) if found.kind == Kind::Symlink => {
                (Ok(found.target.clone()), Some(found.attributes(id)))
            }
            Ok(found) => (Err(VfsError::Inval), Some(found.attributes(id))),
            Err(error) => (Err(error), None),
        }
    }

    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        let mut state = self.state();
        let id = id_of(object);
        state.content(caller, id, false)?;
        if count > 0 {
            state.note_read(id)?;
        }
        let found = state.get(id)?;
        let bytes = found.content.read(offset, count as usize, into);
        let eof = offset.saturating_add(bytes as u64) >= found.size();
        Ok(ReadDone { bytes, eof, attributes: Some(found.attributes(id)) })
    }

    fn write(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone> {
        let mut state = self.state();
        let id = id_of(object);
        let before = match state.get(id) {
            Ok(found) => found.before(),
            Err(error) => return Mutation { result: Err(error), wcc: Wcc::default() },
        };
        let result = state.content(caller, id, true).map(|_| ()).and_then(|()| state.write(id, offset, data));
        let after = state.inodes.get(&id).map(|found| found.attributes(id));
        let result = result.map(|count| WriteDone { count, committed: stable });
        Mutation { result, wcc: Wcc { before: Some(before), after } }
    }

    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node> {
        let set = match how {
            CreateHow::Unchecked(set) | CreateHow::Guarded(set) => set,
            CreateHow::Exclusive(_) => SetAttributes { mode: Some(0o600), ..SetAttributes::default() },
        };
        let too_large = set.size.is_some_and(|size| size > state::MAX_SIZE);
        let refused = state::owner_can_be_set(&set).and(if too_large { Err(VfsError::FBig) } else { Ok(()) });
        if let Err(error) = refused {
            return self.refused(caller, dir, error);
        }
        self.in_directory(caller, dir, name, |state, dir| {
            let new = Inode::new(Kind::File, set.mode.unwrap_or(0o644));
            let id = match (state.make(caller, dir, name, new), how) {
                (Ok(id), CreateHow::Exclusive(verifier)) => {
                    let (atime, mtime) = verifier_times(verifier);
                    let times = SetAttributes {
                        atime: SetTime::To(atime),
                        mtime: SetTime::To(mtime),
                        ..SetAttributes::default()
                    };
                    state.finish_new(caller, id, &times)?;
                    id
                }
                (Ok(id), _) => {
                    state.finish_new(caller, id, &set)?;
                    id
                }
                (Err(VfsError::Exist), CreateHow::Unchecked(_)) => {
                    let id = state.child(dir, name)?;
                    if state.get(id)?.kind != Kind::File {
                        return Err(VfsError::Exist);
                    }
                    if let Some(size) = set.size {
                        state.content(caller, id, true)?;
                        state.truncate(id, size)?;
                    }
                    id
                }
                (Err(VfsError::Exist), CreateHow::Exclusive(verifier)) => {
                    let id = state.child(dir, name)?;
                    let found = state.get(id)?;
                    if found.kind != Kind::File || !made_with(verifier, found.atime, found.mtime) {
                        return Err(VfsError::Exist);
                    }
                    id
                }
                (Err(error), _) => return Err(error),
            };
            state.node(id)
        })
    }

    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node> {
        let inode = Inode::new(Kind::Directory, set.mode.unwrap_or(0o755));
        self.make(caller, dir, name, set, inode)
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        if target.is_empty() {
            return self.in_directory(caller, dir, name, |_, _| Err(VfsError::Inval));
        }
        let inode = Inode { target: target.to_vec(), ..Inode::new(Kind::Symlink, 0o777) };
        let set = SetAttributes { mode: None, size: None, ..*set };
        self.make(caller, dir, name, &set, inode)
    }

    fn mknod(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        kind: Kind,
        rdev: (u32, u32),
        set: &SetAttributes,
    ) -> Mutation<Node> {
        if matches!(kind, Kind::File | Kind::Directory | Kind::Symlink) {
            return self.in_directory(caller, dir, name, |_, _| Err(VfsError::Inval));
        }
        if let Err(error) = state::owner_can_be_set(set) {
            return self.refused(caller, dir, error);
        }
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        if device && caller.uid != 0 {
            return self.in_directory(caller, dir, name, |state, dir| {
                state.may_make(caller, dir, name)?;
                Err(VfsError::Perm)
            });
        }
        let rdev = if device { rdev } else { (0, 0) };
        let inode = Inode { rdev, ..Inode::new(kind, set.mode.unwrap_or(0o644)) };
        let set = SetAttributes { size: None, ..*set };
        self.make(caller, dir, name, &set, inode)
    }

    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.in_directory(caller, dir, name, |state, dir| state.remove(caller, dir, name, false))
    }

    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.in_directory(caller, dir, name, |state, dir| state.remove(caller, dir, name, true))
    }

    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone {
        let mut state = self.state();
        let (source, target) = (id_of(from.0), id_of(to.0));
        let before = |state: &State, id| state.directory(id).ok().map(Inode::before);
        let (from_before, to_before) = (before(&state, source), before(&state, target));
        let result = state.rename(caller, (source, from.1), (target, to.1));
        let after = |state: &State, id| state.directory(id).ok().map(|found| found.attributes(id));
        RenameDone {
            result,
            from: Wcc { before: from_before, after: after(&state, source) },
            to: Wcc { before: to_before, after: after(&state, target) },
        }
    }

    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        let id = id_of(object);
        let refused = match self.state().get(id) {
            Err(error) => Some(error),
            Ok(found) if found.kind == Kind::Directory => Some(VfsError::IsDir),
            Ok(_) => None,
        };
        let done = match refused {
            Some(error) => Mutation { result: Err(error), wcc: Wcc::default() },
            None => self.in_directory(caller, dir, name, |state, dir| {
                state.link(caller, id, dir, name, self.protected_hardlinks)
            }),
        };
        (done, self.state().inodes.get(&id).map(|found| found.attributes(id)))
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        let state = self.state();
        let id = id_of(dir);
        let found = state.directory(id)?;
        if !found.permits(caller, 4) {
            return Err(VfsError::Access);
        }
        let searchable = found.permits(caller, 1);
        let mut listed: Vec<(u64, u64, &[u8])> = vec![(1, id, b"."), (2, found.parent, b"..")];
        listed.extend(found.entries.iter().map(|(name, (child, at))| (*at, *child, name.as_slice())));
        listed.sort_unstable();
        for (at, child, name) in listed.into_iter().filter(|(at, ..)| *at > cookie) {
            let node = if plus && (searchable || name == b".") && name != b".." {
                state.node(child).ok()
            } else {
                None
            };
            if !each(DirEntry { fileid: child, name, cookie: at, node: node.as_ref(), memo: None }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fsstat(&self, _caller: &Caller, object: &ObjectKey) -> Result<FsStat, VfsError> {
        self.state().get(id_of(object))?;
        let (bytes, files) = (1 << 40, 1 << 20);
        Ok(FsStat {
            total_bytes: bytes,
            free_bytes: bytes,
            available_bytes: bytes,
            total_files: files,
            free_files: files,
            available_files: files,
        })
    }

    fn limits(&self) -> Limits {
        Limits { link_max: 65_000, name_max: 255, max_file_size: state::MAX_SIZE, time_granularity_ns: 1 }
    }

    fn commit(&self, _caller: &Caller, object: &ObjectKey, _offset: u64, _count: u32) -> Mutation<()> {
        let state = self.state();
        let id = id_of(object);
        match state.get(id) {
            Err(error) => Mutation { result: Err(error), wcc: Wcc::default() },
            Ok(found) => Mutation {
                result: if found.kind == Kind::File { Ok(()) } else { Err(VfsError::Inval) },
                wcc: Wcc { before: Some(found.before()), after: Some(found.attributes(id)) },
            },
        }
    }

    fn write_verifier(&self) -> [u8; 8] {
        *b"inmemory"
    }
}
