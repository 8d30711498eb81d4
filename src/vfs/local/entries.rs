//! Operations on names: look up, make, remove, rename, link.

use super::attributes::{SET_ID_BITS, change_times, truncate};
use super::group_commit::Debt;
use super::{
    Attributes, BorrowedFd, Caller, CreateHow, Kind, LocalVfs, Mutation, Node, Object, ObjectKey, RenameDone,
    SetAttributes, Stat, Use, VfsError, Wcc, failed, file, group_commit, statx, wcc_before,
};
use crate::host::file::c_name;
use crate::vfs::{SetTime, made_with, verifier_times};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Modes of objects whose maker says none.
const FILE_MODE: u16 = 0o644;
const DIRECTORY_MODE: u16 = 0o755;
/// An exclusively made file gets its attributes by the SETATTR that follows.
const EXCLUSIVE_MODE: u16 = 0o600;
/// How often a name that others keep making and removing is tried.
const TRIES: usize = 16;
/// Highest climb to the export's root.
const MAX_CLIMB: usize = 4096;

/// An object just made, with the descriptor that fsync takes (files).
struct Made {
    key: ObjectKey,
    stat: Stat,
    file: Option<Arc<OwnedFd>>,
}

fn mode(set: &SetAttributes, default: u16) -> Mode {
    Mode::from_raw_mode(u32::from(set.mode.unwrap_or(default) & 0o7777))
}

impl LocalVfs {
    pub(super) fn find(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        let object = match self.directory(dir) {
            Ok(object) => object,
            Err(error) => return (Err(error), None),
        };
        let result = self.as_caller(caller).and_then(|()| {
            let found = self.tree.lookup(object.fd.as_fd(), name)?.ok_or(VfsError::NoEnt)?;
            if found.stat.mount_root {
                return Err(VfsError::Access);
            }
            Ok(self.node(found.key, &found.stat))
        });
        (result, Some(self.attributes(&object.stat)))
    }

    pub(super) fn find_parent(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        let object = match self.directory(dir) {
            Ok(object) => object,
            Err(error) => return (Err(error), None),
        };
        let attributes = Some(self.attributes(&object.stat));
        if dir == self.tree.root_key() {
            return (Ok(Node { key: dir.clone(), attributes }), attributes);
        }
        let result = self.as_caller(caller).and_then(|()| {
            let above = open_above(object.fd.as_fd())?;
            // The search permission has been asked; the rest of the climb is our own affair.
            self.as_self()?;
            self.is_inside(above.as_fd())?;
            let stat = statx::of(above.as_fd())?;
            Ok(self.node(self.tree.key_of(above.as_fd())?, &stat))
        });
        (result, attributes)
    }

    /// Is this directory the root or below it? One that was moved out of the export must not lead upwards.
    fn is_inside(&self, dir: BorrowedFd<'_>) -> Result<(), VfsError> {
        let root = statx::of(self.tree.root_fd())?;
        let mut at = dir.try_clone_to_owned().map_err(VfsError::from)?;
        for _ in 0..MAX_CLIMB {
            let stat = statx::of(at.as_fd())?;
            if (stat.dev, stat.ino) == (root.dev, root.ino) {
                return Ok(());
            }
            if stat.dev != root.dev {
                break;
            }
            let above = open_above(at.as_fd())?;
            let next = statx::of(above.as_fd())?;
            if (next.dev, next.ino) == (stat.dev, stat.ino) {
                break;
            }
            at = above;
        }
        Err(VfsError::Stale)
    }

    /// The frame of every operation that changes one directory.
    fn in_directory<T>(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        act: impl FnOnce(BorrowedFd<'_>) -> Result<T, VfsError>,
    ) -> Mutation<T> {
        group_commit::begin();
        if let Err(error) = self.writable() {
            return failed(error);
        }
        let object = match self.directory(dir) {
            Ok(object) => object,
            Err(error) => return failed(error),
        };
        let fd = object.fd.as_fd();
        let (result, wcc) = {
            let _lock = self.locks.one(dir);
            let before = statx::of(fd).ok();
            let result = self.as_caller(caller).and_then(|()| act(fd));
            self.listings.changed(dir);
            let after = statx::of(fd).ok();
            (self.judged(dir, result, after.as_ref()), self.wcc(before.as_ref(), after.as_ref()))
        };
        let result = match result {
            Ok(value) if self.options.sync => self.owe_object(dir, fd, Kind::Directory).map(|()| value),
            other => other,
        };
        Mutation { result, wcc }
    }

    fn wcc(&self, before: Option<&Stat>, after: Option<&Stat>) -> Wcc {
        Wcc { before: before.and_then(wcc_before), after: after.map(|stat| self.attributes(stat)) }
    }

    /// In a directory that was removed meanwhile nothing is "not found": the handle is stale.
    fn judged<T>(
        &self,
        dir: &ObjectKey,
        result: Result<T, VfsError>,
        after: Option<&Stat>,
    ) -> Result<T, VfsError> {
        match result {
            Err(VfsError::NoEnt) if after.is_none_or(|stat| stat.nlink == 0) => {
                self.descriptors.drop_object(dir);
                Err(VfsError::Stale)
            }
            other => other,
        }
    }

    pub(super) fn make_file(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        how: CreateHow,
    ) -> Mutation<Node> {
        self.in_directory(caller, dir, |fd| {
            if let CreateHow::Guarded(set) | CreateHow::Unchecked(set) = &how {
                self.can_be_set(set, Kind::File)?;
            }
            let made = match how {
                CreateHow::Guarded(set) => self
                    .create_new(dir, fd, name, mode(&set, FILE_MODE))
                    .and_then(|made| self.finish_file(made, &set)),
                CreateHow::Unchecked(set) => self.create_or_open(caller, dir, fd, name, &set),
                CreateHow::Exclusive(verifier) => self.create_exclusive(dir, fd, name, verifier),
            }?;
            if let Some(file) = made.file.filter(|_| self.options.sync) {
                group_commit::owe(Debt::Object(made.key.clone(), file));
            }
            Ok(self.node(made.key, &made.stat))
        })
    }

    /// O_EXCL; the descriptor is kept for the writes that follow.
    fn create_new(
        &self,
        dir_key: &ObjectKey,
        dir: BorrowedFd<'_>,
        name: &[u8],
        mode: Mode,
    ) -> Result<(ObjectKey, Arc<OwnedFd>), VfsError> {
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = Arc::new(rustix::fs::openat(dir, c_name(name)?.as_c_str(), flags, mode)?);
        let key = self.tree.key_of(file.as_fd())?;
        self.tree.remember(&key, dir_key, name);
        self.descriptors.keep(&key, Use::Read, &file);
        self.descriptors.keep(&key, Use::Write, &file);
        Ok((key, file))
    }

    fn finish_file(
        &self,
        (key, file): (ObjectKey, Arc<OwnedFd>),
        set: &SetAttributes,
    ) -> Result<Made, VfsError> {
        let stat = self.finish_new(file.as_fd(), Some(file.as_fd()), set);
        self.listings.changed(&key);
        let stat = stat?;
        // The file is made in the same transaction as its name, which the directory's fsync makes durable; what was
        // done to it after that is its own affair.
        let as_made =
            SetAttributes { mode: set.mode, size: set.size.filter(|&size| size == 0), ..Default::default() };
        let touched = *set != as_made || set.mode.is_some_and(|mode| mode & SET_ID_BITS != 0);
        Ok(Made { key, stat, file: touched.then_some(file) })
    }

    fn create_or_open(
        &self,
        caller: &Caller,
        dir_key: &ObjectKey,
        dir: BorrowedFd<'_>,
        name: &[u8],
        set: &SetAttributes,
    ) -> Result<Made, VfsError> {
        for _ in 0..TRIES {
            match self.create_new(dir_key, dir, name, mode(set, FILE_MODE)) {
                Err(VfsError::Exist) => {}
                other => return other.and_then(|made| self.finish_file(made, set)),
            }
            let Some((fd, found)) = self.tree.lookup_open(dir, name)? else { continue };
            if found.stat.mount_root {
                return Err(VfsError::Access);
            }
            if found.stat.kind != Kind::File {
                return Err(VfsError::Exist);
            }
            // Of an existing file only the size is set: that is open(O_TRUNC).
            let Some(size) = set.size else {
                return Ok(Made { key: found.key, stat: found.stat, file: None });
            };
            let content = Arc::new(self.open_content(caller, fd.as_fd(), &found.stat, Use::Write)?);
            self.as_caller(caller)?;
            let cut = truncate(content.as_fd(), size);
            self.listings.changed(&found.key);
            cut?;
            self.descriptors.keep(&found.key, Use::Write, &content);
            let stat = statx::of(content.as_fd())?;
            return Ok(Made { key: found.key, stat, file: Some(content) });
        }
        Err(VfsError::Jukebox)
    }

    fn create_exclusive(
        &self,
        dir_key: &ObjectKey,
        dir: BorrowedFd<'_>,
        name: &[u8],
        verifier: [u8; 8],
    ) -> Result<Made, VfsError> {
        match self.create_new(dir_key, dir, name, Mode::from_raw_mode(u32::from(EXCLUSIVE_MODE))) {
            Ok((key, file)) => {
                let (atime, mtime) = verifier_times(verifier);
                let changed = change_times(file.as_fd(), SetTime::To(atime), SetTime::To(mtime));
                self.listings.changed(&key);
                changed?;
                let stat = statx::of(file.as_fd())?;
                // Always, for the verifier must survive what the client's retry survives.
                group_commit::owe(Debt::Object(key.clone(), file));
                self.owe_entries(dir_key, dir)?;
                Ok(Made { key, stat, file: None })
            }
            Err(VfsError::Exist) => {
                let found = self.tree.lookup(dir, name)?.ok_or(VfsError::Jukebox)?;
                let same = found.stat.kind == Kind::File
                    && !found.stat.mount_root
                    && made_with(verifier, found.stat.atime, found.stat.mtime);
                if !same {
                    return Err(VfsError::Exist);
                }
                self.owe_entries(dir_key, dir)?;
                Ok(Made { key: found.key, stat: found.stat, file: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The directory's own fsync where a mutation is durable in any case.
    fn owe_entries(&self, dir_key: &ObjectKey, dir: BorrowedFd<'_>) -> Result<(), VfsError> {
        if self.options.sync {
            return Ok(()); // comes with the end of the operation
        }
        self.owe_object(dir_key, dir, Kind::Directory)
    }

    /// What mkdir, symlink and mknod have in common: `make`, then open what was made and finish it.
    fn make(
        &self,
        caller: &Caller,
        (dir, name): (&ObjectKey, &[u8]),
        (kind, set): (Kind, &SetAttributes),
        make: impl FnOnce(BorrowedFd<'_>, &CStr) -> rustix::io::Result<()>,
    ) -> Mutation<Node> {
        self.in_directory(caller, dir, |fd| {
            self.can_be_set(set, kind)?;
            make(fd, &c_name(name)?)?;
            let (made, found) = self.tree.lookup_open(fd, name)?.ok_or(VfsError::Jukebox)?;
            let stat = self.finish_new(made.as_fd(), None, set);
            self.listings.changed(&found.key);
            let stat = stat?;
            Ok(self.node(found.key, &stat))
        })
    }

    pub(super) fn make_directory(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        self.make(caller, (dir, name), (Kind::Directory, set), |fd, c_name| {
            rustix::fs::mkdirat(fd, c_name, mode(set, DIRECTORY_MODE))
        })
    }

    pub(super) fn make_symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        let set = SetAttributes { mode: None, size: None, ..*set };
        self.make(caller, (dir, name), (Kind::Symlink, &set), |fd, c_name| {
            if target.is_empty() {
                return Err(Errno::INVAL); // symlinkat says ENOENT, which would be about the directory
            }
            rustix::fs::symlinkat(target, fd, c_name)
        })
    }

    pub(super) fn make_special(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        (kind, rdev): (Kind, (u32, u32)),
        set: &SetAttributes,
    ) -> Mutation<Node> {
        let file_type = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::File | Kind::Directory | Kind::Symlink => {
                return Mutation { result: Err(VfsError::Inval), wcc: self.wcc_now(dir) };
            }
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => rustix::fs::makedev(rdev.0, rdev.1),
            _ => 0,
        };
        self.make(caller, (dir, name), (kind, set), |fd, c_name| {
            rustix::fs::mknodat(fd, c_name, file_type, mode(set, FILE_MODE), device)
        })
    }

    pub(super) fn unlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        directory: bool,
    ) -> Mutation<()> {
        self.in_directory(caller, dir, |fd| {
            let c_name = c_name(name)?;
            let victim = self.victim(fd, &c_name);
            let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(fd, c_name.as_c_str(), flags)?;
            if let Some((key, _)) = &victim {
                self.listings.changed(key);
            }
            self.forget(victim);
            Ok(())
        })
    }

    /// What a removal would take the last name from: its key, and whether it is the last.
    fn victim(&self, dir: BorrowedFd<'_>, name: &CStr) -> Option<(ObjectKey, bool)> {
        let key = self.tree.key_at(dir, name).ok()?;
        let last = !self.tree.opens_by_handle()
            && statx::at(dir, name).is_ok_and(|stat| stat.nlink <= 1 || stat.kind == Kind::Directory);
        Some((key, last))
    }

    fn forget(&self, victim: Option<(ObjectKey, bool)>) {
        if let Some((key, last)) = victim {
            self.descriptors.drop_object(&key);
            if last {
                self.tree.forget(&key);
            }
        }
    }

    pub(super) fn move_entry(
        &self,
        caller: &Caller,
        from: (&ObjectKey, &[u8]),
        to: (&ObjectKey, &[u8]),
    ) -> RenameDone {
        group_commit::begin();
        let refused = |error| RenameDone { result: Err(error), from: Wcc::default(), to: Wcc::default() };
        if let Err(error) = self.writable() {
            return refused(error);
        }
        let (source, target) = match (self.directory(from.0), self.directory(to.0)) {
            (Ok(source), Ok(target)) => (source, target),
            (source, target) => {
                // What is known of the directory that is there.
                let known = |place: &Result<Object, VfsError>| match place {
                    Ok(there) => self.wcc(Some(&there.stat), Some(&there.stat)),
                    Err(_) => Wcc::default(),
                };
                let (from, to) = (known(&source), known(&target));
                let error = source.err().or(target.err()).unwrap_or(VfsError::ServerFault);
                return RenameDone { result: Err(error), from, to };
            }
        };
        let (result, from_wcc, to_wcc) = {
            let _locks = self.locks.two(from.0, to.0);
            let before = (statx::of(source.fd.as_fd()).ok(), statx::of(target.fd.as_fd()).ok());
            let result = self.rename_now(caller, (&source, from.1), (&target, to.0, to.1));
            self.listings.changed(from.0);
            self.listings.changed(to.0);
            let after = (statx::of(source.fd.as_fd()).ok(), statx::of(target.fd.as_fd()).ok());
            let result = self.judged(from.0, result, after.0.as_ref());
            let result = self.judged(to.0, result, after.1.as_ref());
            (
                result,
                self.wcc(before.0.as_ref(), after.0.as_ref()),
                self.wcc(before.1.as_ref(), after.1.as_ref()),
            )
        };
        let result = result.and_then(|()| {
            if self.options.sync {
                // The new name first: a crash in between leaves two names rather than none.
                self.owe_object(to.0, target.fd.as_fd(), Kind::Directory)?;
                if from.0 != to.0 {
                    self.owe_object(from.0, source.fd.as_fd(), Kind::Directory)?;
                }
            }
            Ok(())
        });
        RenameDone { result, from: from_wcc, to: to_wcc }
    }

    fn rename_now(
        &self,
        caller: &Caller,
        (source, name): (&Object, &[u8]),
        (target, target_key, new_name): (&Object, &ObjectKey, &[u8]),
    ) -> Result<(), VfsError> {
        self.as_caller(caller)?;
        let (old, new) = (c_name(name)?, c_name(new_name)?);
        let moved = self.victim(source.fd.as_fd(), &old);
        let replaced = self.victim(target.fd.as_fd(), &new);
        rustix::fs::renameat(&*source.fd, old.as_c_str(), &*target.fd, new.as_c_str())?;
        for (key, _) in moved.iter().chain(&replaced) {
            self.listings.changed(key);
        }
        let same = matches!((&moved, &replaced), (Some((a, _)), Some((b, _))) if a == b);
        if !same {
            self.forget(replaced);
            if let Some((key, _)) = &moved {
                self.tree.remember(key, target_key, new_name);
            }
        }
        Ok(())
    }

    pub(super) fn hard_link(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        let object = match self.object(key) {
            Ok(object) => object,
            Err(error) => return (Mutation { result: Err(error), wcc: self.wcc_now(dir) }, None),
        };
        if object.stat.kind == Kind::Directory {
            let attributes = Some(self.attributes(&object.stat));
            return (Mutation { result: Err(VfsError::IsDir), wcc: self.wcc_now(dir) }, attributes);
        }
        let done = self.in_directory(caller, dir, |fd| {
            file::link(object.fd.as_fd(), fd, &c_name(name)?).map_err(VfsError::from)?;
            self.listings.changed(key);
            self.tree.remember(key, dir, name);
            Ok(())
        });
        (done, self.attributes_of(object.fd.as_fd()))
    }
}

fn open_above(dir: BorrowedFd<'_>) -> Result<OwnedFd, VfsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, c"..", flags, Mode::empty())?)
}
