//! Clears every name that a window of batches touches, whatever part of them is on disk already.
//!
//! What is on disk at a touched name is told by its inode: a known object goes to `limbo/<id>`, from where the plan
//! will place it; anything else (an object of the window itself, made before the stop and not yet recorded; a
//! stranger) goes to trash, known objects inside it being saved first. Every place that a known object can have had
//! since the recorded batch is a touched name, an untouched old name, or limbo, so these are looked at first;
//! one walk over everything is for objects that somebody moved away, and what is then not found is made anew.

use super::directories::Directory;
use super::disk::{self, Stat, Target};
use super::view::{Identity, LiveView, Spot};
use super::window::{ByIdentity, Window};
use super::{Mirror, MirrorError, limbo_name, sweep};
use ehpc_proto::replication::{Kind, ObjectId};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What evacuating found.
pub(super) struct Found {
    pub(super) missing: HashSet<ObjectId>,
    pub(super) in_limbo: HashSet<ObjectId>,
    /// Directories made accessible on the way.
    pub(super) relaxed: Vec<ObjectId>,
    /// Live directories that are missing: made empty by the plan, to be filled from the catalog.
    pub(super) rebuild: Vec<ObjectId>,
}

/// A known object that the window names.
struct Subject {
    identity: Option<Identity>,
    entries: Vec<Spot>,
}

enum Opened {
    Here(Directory),
    /// Cannot be reached before this directory is found.
    Behind(ObjectId),
    /// Does not exist on disk as something known.
    Never,
}

/// Is an object at a name that it should have?
enum Presence {
    Here,
    Elsewhere,
    /// Not to be said before this directory is found.
    Behind(ObjectId),
}

pub(super) struct Evacuation<'a> {
    mirror: &'a mut Mirror,
    view: &'a dyn LiveView,
    window: &'a mut Window,
    /// Walk the whole tree for what is not found.
    thorough: bool,
    subjects: HashMap<ObjectId, Subject>,
    by_identity: ByIdentity,
    pending: Vec<Spot>,
    found: Found,
}

fn fault(what: &'static str, path: &str) -> impl Fn(io::Error) -> MirrorError {
    move |source| MirrorError::Io { what, path: path.to_owned(), source }
}

impl<'a> Evacuation<'a> {
    pub(super) fn new(
        mirror: &'a mut Mirror,
        view: &'a dyn LiveView,
        window: &'a mut Window,
        thorough: bool,
    ) -> Evacuation<'a> {
        let found = Found {
            missing: HashSet::new(),
            in_limbo: HashSet::new(),
            relaxed: Vec::new(),
            rebuild: Vec::new(),
        };
        Evacuation {
            mirror,
            view,
            window,
            thorough,
            subjects: HashMap::new(),
            by_identity: HashMap::new(),
            pending: Vec::new(),
            found,
        }
    }

    pub(super) fn run(mut self) -> Result<Found, MirrorError> {
        self.collect()?;
        self.sort_limbo()?;
        loop {
            self.scan_pending()?;
            if !self.account()? {
                break;
            }
        }
        Ok(self.found)
    }

    /// The known objects that the window names, and the names it touches.
    fn collect(&mut self) -> Result<(), MirrorError> {
        let mut ids: Vec<ObjectId> = self.window.batch.objects.iter().map(|state| state.id).collect();
        ids.extend(self.window.destroyed.iter().copied());
        for entry in &self.window.batch.entries {
            let spot = Spot::new(entry.parent, entry.name.clone());
            ids.extend(self.view.child(&spot).map_err(MirrorError::View)?);
            ids.extend(entry.child);
            self.pending.push(spot);
        }
        for id in ids {
            self.subject(id)?;
        }
        Ok(())
    }

    fn subject(&mut self, id: ObjectId) -> Result<(), MirrorError> {
        if id == ObjectId::ROOT || self.subjects.contains_key(&id) {
            return Ok(());
        }
        let Some(known) = self.view.object(id).map_err(MirrorError::View)? else { return Ok(()) };
        let entries = self.view.entries_of(id).map_err(MirrorError::View)?;
        if let Some(identity) = known.identity {
            self.by_identity.insert(identity, id);
        }
        self.subjects.insert(id, Subject { identity: known.identity, entries });
        Ok(())
    }

    /// Limbo: what is known stays, the rest becomes trash (first, so that every `<id>` is free for its object).
    fn sort_limbo(&mut self) -> Result<(), MirrorError> {
        let limbo = self.mirror.limbo.clone();
        let mut astray = Vec::new();
        for name in disk::list(limbo.as_fd()).map_err(fault("list", "limbo"))? {
            let Some(stat) = disk::stat_at(limbo.as_fd(), &name).map_err(fault("look at", "limbo"))? else {
                continue;
            };
            let id = sweep::parse(&name);
            if let Some(&known) = self.by_identity.get(&stat.identity) {
                if id == Some(known) {
                    self.found.in_limbo.insert(known);
                } else {
                    astray.push((name, known));
                }
            } else if let Some(id) = id
                && self.at_rest(id, &stat)?
            {
                self.subject(id)?;
                self.touch(id)?;
                self.found.in_limbo.insert(id);
            } else {
                self.put_in_trash(limbo.as_fd(), &name, &stat)?;
            }
        }
        for (name, known) in astray {
            self.put_in_limbo(limbo.as_fd(), &name, known)?;
            // It was taken for trash once, and may have been emptied in part.
            let state = self.view.object(known).map_err(MirrorError::View)?.map(|known| known.state);
            if state.is_some_and(|state| state.kind == Kind::Directory)
                && !self.window.destroyed.contains(&known)
            {
                self.found.rebuild.push(known);
            }
        }
        Ok(())
    }

    /// A live object that the window does not mention: without a name, or moved here by a later batch.
    fn at_rest(&self, id: ObjectId, stat: &Stat) -> Result<bool, MirrorError> {
        let known = self.view.object(id).map_err(MirrorError::View)?;
        Ok(known.is_some_and(|known| known.identity == Some(stat.identity)))
    }

    fn put_in_limbo(&mut self, dir: BorrowedFd<'_>, name: &[u8], id: ObjectId) -> Result<(), MirrorError> {
        let limbo = self.mirror.limbo.clone();
        if self.found.in_limbo.contains(&id) {
            // A second name of the same file.
            return self.mirror.disk.unlink(dir, name).map_err(fault("remove", "a name"));
        }
        let kept = limbo_name(id);
        let to = (limbo.as_fd(), kept.as_slice());
        let shown = String::from_utf8_lossy(name);
        let mut result = self.mirror.disk.rename((dir, name), to);
        if result.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())) {
            // Not root: a directory that its owner may not write cannot change its parent. (Its mode is set again in
            // the end, as that of everything in limbo.)
            let mode = disk::stat_at(dir, name).ok().flatten().map_or(0, |stat| stat.mode);
            let opened = self.mirror.disk.chmod(Target::Named(dir, name), mode | 0o700);
            opened.map_err(fault("get access to", &shown))?;
            result = self.mirror.disk.rename((dir, name), to);
        }
        result.map_err(fault("move to limbo", &shown))?;
        self.found.in_limbo.insert(id);
        Ok(())
    }

    /// Something unknown: what is known inside it is saved, the rest is removed in the end.
    fn put_in_trash(&mut self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), MirrorError> {
        if stat.kind != Kind::Directory {
            return self
                .mirror
                .disk
                .unlink(dir, name)
                .map_err(fault("remove", &String::from_utf8_lossy(name)));
        }
        let limbo = self.mirror.limbo.clone();
        if stat.mode & 0o700 != 0o700 {
            let result = self.mirror.disk.chmod(Target::Named(dir, name), 0o700);
            result.map_err(fault("get access to", &String::from_utf8_lossy(name)))?;
        }
        let trash = self.mirror.trash_name();
        let result = self.mirror.disk.rename((dir, name), (limbo.as_fd(), &trash));
        result.map_err(fault("move to limbo", &String::from_utf8_lossy(name)))?;
        let mut open = vec![trash];
        while let Some(name) = open.pop() {
            let inner = disk::open_dir(limbo.as_fd(), &name).map_err(fault("open", "limbo/trash"))?;
            for child in disk::list(inner.as_fd()).map_err(fault("list", "limbo/trash"))? {
                let stat = disk::stat_at(inner.as_fd(), &child).map_err(fault("look at", "limbo/trash"))?;
                let Some(stat) = stat else { continue };
                if let Some(&id) = self.by_identity.get(&stat.identity) {
                    self.put_in_limbo(inner.as_fd(), &child, id)?;
                } else if stat.kind == Kind::Directory {
                    if stat.mode & 0o700 != 0o700 {
                        let result = self.mirror.disk.chmod(Target::Named(inner.as_fd(), &child), 0o700);
                        result.map_err(fault("get access to", "limbo/trash"))?;
                    }
                    let up = self.mirror.trash_name();
                    let result = self.mirror.disk.rename((inner.as_fd(), &child), (limbo.as_fd(), &up));
                    result.map_err(fault("move to limbo", "a directory"))?;
                    open.push(up);
                }
            }
        }
        Ok(())
    }

    fn scan_pending(&mut self) -> Result<(), MirrorError> {
        while !self.pending.is_empty() {
            let mut progress = false;
            let mut behind = HashSet::new();
            for spot in std::mem::take(&mut self.pending) {
                match self.open(spot.parent)? {
                    Opened::Here(directory) => {
                        self.clear(directory.fd.as_fd(), &spot.name)?;
                        progress = true;
                    }
                    Opened::Never => progress = true,
                    Opened::Behind(blocker) => {
                        behind.insert(blocker);
                        self.pending.push(spot);
                    }
                }
            }
            if !progress {
                self.settle(behind)?;
            }
        }
        Ok(())
    }

    fn clear(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), MirrorError> {
        let stat = disk::stat_at(dir, name).map_err(fault("look at", &String::from_utf8_lossy(name)))?;
        let Some(stat) = stat else { return Ok(()) };
        match self.by_identity.get(&stat.identity) {
            Some(&id) => self.put_in_limbo(dir, name, id),
            None => self.put_in_trash(dir, name, &stat),
        }
    }

    /// Is every object of the window in limbo, missing, or at an untouched old name? True if there is more to do.
    fn account(&mut self) -> Result<bool, MirrorError> {
        let mut lost = HashSet::new();
        let mut ids: Vec<ObjectId> = self.subjects.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if self.found.missing.contains(&id) {
                continue;
            }
            let Some(subject) = self.subjects.get(&id) else { continue };
            let identity = subject.identity;
            let untouched: Vec<Spot> =
                subject.entries.iter().filter(|spot| !self.window.touches(spot)).cloned().collect();
            if untouched.is_empty() && !self.found.in_limbo.contains(&id) {
                lost.insert(id);
            }
            for spot in &untouched {
                match self.is_at(spot, identity)? {
                    Presence::Here => {}
                    Presence::Elsewhere => self.touch(id)?,
                    // Says nothing about the object: it may well be in that directory.
                    Presence::Behind(blocker) => {
                        lost.insert(blocker);
                    }
                }
            }
        }
        if self.pending.is_empty() && !lost.is_empty() {
            self.settle(lost)?;
            return Ok(true);
        }
        Ok(!self.pending.is_empty())
    }

    fn is_at(&mut self, spot: &Spot, identity: Option<Identity>) -> Result<Presence, MirrorError> {
        let directory = match self.open(spot.parent)? {
            Opened::Here(directory) => directory,
            Opened::Behind(blocker) => return Ok(Presence::Behind(blocker)),
            Opened::Never => return Ok(Presence::Elsewhere),
        };
        let stat = disk::stat_at(directory.fd.as_fd(), &spot.name);
        let stat = stat.map_err(fault("look at", &String::from_utf8_lossy(&spot.name)))?;
        let right = identity.is_some() && stat.map(|stat| stat.identity) == identity;
        Ok(if right { Presence::Here } else { Presence::Elsewhere })
    }

    /// The object is not where it should be: all its names are to be cleared and made anew.
    fn touch(&mut self, id: ObjectId) -> Result<(), MirrorError> {
        self.subject(id)?;
        let entries = self.subjects.get(&id).map(|subject| subject.entries.clone()).unwrap_or_default();
        for spot in entries {
            if !self.window.touches(&spot) {
                self.window.touch(spot.clone(), Some(id));
                self.pending.push(spot);
            }
        }
        Ok(())
    }

    /// These were not found at any likely place.
    fn settle(&mut self, mut lost: HashSet<ObjectId>) -> Result<(), MirrorError> {
        for &id in &lost {
            self.subject(id)?;
        }
        if self.thorough {
            self.walk(&mut lost)?;
        }
        let mut lost: Vec<ObjectId> = lost.into_iter().collect();
        lost.sort_unstable();
        for id in lost {
            self.touch(id)?;
            self.found.missing.insert(id);
            if self.window.destroyed.contains(&id) {
                continue;
            }
            if let Some(known) = self.view.object(id).map_err(MirrorError::View)? {
                self.window.ensure_state(&known.state);
                if known.state.kind == Kind::Directory {
                    self.found.rebuild.push(id);
                }
            }
        }
        Ok(())
    }

    /// Looks everywhere in the mirror; what is found goes to limbo and is taken out of `lost`.
    fn walk(&mut self, lost: &mut HashSet<ObjectId>) -> Result<(), MirrorError> {
        let mut wanted: HashMap<Identity, ObjectId> = lost
            .iter()
            .filter_map(|id| {
                self.subjects.get(id).and_then(|subject| subject.identity).map(|inode| (inode, *id))
            })
            .collect();
        let root = rustix::process::geteuid().is_root();
        let mut modes: Vec<(Vec<Vec<u8>>, u16)> = Vec::new();
        let mut open: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
        while let Some(path) = open.pop() {
            if wanted.is_empty() {
                break;
            }
            let Ok(directory) = self.descend(&path) else { continue };
            if !root {
                modes.extend(self.enter(&directory)?.map(|mode| (path.clone(), mode)));
            }
            for name in disk::list(directory.as_fd()).map_err(fault("list", "the mirror"))? {
                let Ok(Some(stat)) = disk::stat_at(directory.as_fd(), &name) else { continue };
                if let Some(id) = wanted.remove(&stat.identity) {
                    self.put_in_limbo(directory.as_fd(), &name, id)?;
                    self.touch(id)?;
                    lost.remove(&id);
                } else if stat.kind == Kind::Directory {
                    if !root && stat.mode & 0o400 == 0 {
                        let opened = self
                            .mirror
                            .disk
                            .chmod(Target::Named(directory.as_fd(), &name), stat.mode | 0o700);
                        opened.map_err(fault("get access to", &String::from_utf8_lossy(&name)))?;
                        modes.push(([path.as_slice(), std::slice::from_ref(&name)].concat(), stat.mode));
                    }
                    open.push([path.as_slice(), &[name]].concat());
                }
            }
        }
        // Children before parents.
        for (path, mode) in modes.into_iter().rev() {
            if let Ok(directory) = self.descend(&path) {
                let back = self.mirror.disk.chmod(Target::Open(directory.as_fd()), mode);
                back.map_err(fault("set the mode of", "a directory"))?;
            }
        }
        Ok(())
    }

    /// Not root: every right on a directory; what its mode was, if it had to be changed.
    fn enter(&mut self, directory: &OwnedFd) -> Result<Option<u16>, MirrorError> {
        let stat = disk::stat_fd(directory.as_fd()).map_err(fault("look at", "a directory"))?;
        if stat.mode & 0o700 == 0o700 {
            return Ok(None);
        }
        let opened = self.mirror.disk.chmod(Target::Open(directory.as_fd()), stat.mode | 0o700);
        opened.map_err(fault("get access to", "a directory"))?;
        Ok(Some(stat.mode))
    }

    fn descend(&self, path: &[Vec<u8>]) -> io::Result<Arc<OwnedFd>> {
        let mut at = self.mirror.root.clone();
        for name in path {
            at = Arc::new(disk::open_dir(at.as_fd(), name)?);
        }
        Ok(at)
    }

    /// Opens a directory where the live rows or this evacuation put it.
    fn open(&mut self, id: ObjectId) -> Result<Opened, MirrorError> {
        if self.found.missing.contains(&id) {
            return Ok(Opened::Never);
        }
        if let Some(directory) = self.mirror.directories.get(id) {
            return Ok(Opened::Here(directory));
        }
        if id == ObjectId::ROOT {
            let root = self.mirror.root.clone();
            return self.opened(id, root).map(Opened::Here);
        }
        let Some(known) = self.view.object(id).map_err(MirrorError::View)? else { return Ok(Opened::Never) };
        let limbo = self.mirror.limbo.clone();
        let (dir, name, parent) = if self.found.in_limbo.contains(&id) {
            (limbo, limbo_name(id), None)
        } else {
            let entries = self.view.entries_of(id).map_err(MirrorError::View)?;
            let Some(spot) = entries.into_iter().next() else { return Ok(Opened::Behind(id)) };
            if self.window.touches(&spot) {
                return Ok(Opened::Behind(id));
            }
            match self.open(spot.parent)? {
                Opened::Here(directory) => (directory.fd, spot.name, Some(spot.parent)),
                Opened::Behind(blocker) => return Ok(Opened::Behind(blocker)),
                Opened::Never => {
                    self.touch(id)?;
                    return Ok(Opened::Behind(id));
                }
            }
        };
        let stat =
            disk::stat_at(dir.as_fd(), &name).map_err(fault("look at", &String::from_utf8_lossy(&name)))?;
        let right = stat.filter(|stat| stat.kind == Kind::Directory && Some(stat.identity) == known.identity);
        let Some(stat) = right else {
            if parent.is_some() {
                self.touch(id)?;
            }
            return Ok(Opened::Behind(id));
        };
        if stat.mode & 0o400 == 0 && !rustix::process::geteuid().is_root() {
            let result = self.mirror.disk.chmod(Target::Named(dir.as_fd(), &name), stat.mode | 0o700);
            result.map_err(fault("get access to", &String::from_utf8_lossy(&name)))?;
        }
        match disk::open_dir(dir.as_fd(), &name) {
            Ok(fd) => self.opened(id, Arc::new(fd)).map(Opened::Here),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(Opened::Behind(id)),
            Err(error) => Err(fault("open", &String::from_utf8_lossy(&name))(error)),
        }
    }

    fn opened(&mut self, id: ObjectId, fd: Arc<OwnedFd>) -> Result<Directory, MirrorError> {
        if !rustix::process::geteuid().is_root() {
            self.open_up(id, &fd)?;
        }
        let acl = Target::Open(fd.as_fd()).xattr(b"system.posix_acl_default");
        let directory = Directory { fd, bequeaths: acl.map_err(fault("look at", "a directory"))?.is_some() };
        self.mirror.directories.insert(id, directory.clone());
        Ok(directory)
    }

    /// Not root: gives us every right on the directory. A stopped run may have done so before and not taken it back,
    /// so the mode that it should have decides whether it is set again in the end.
    fn open_up(&mut self, id: ObjectId, fd: &OwnedFd) -> Result<(), MirrorError> {
        self.enter(fd)?;
        let known = self.view.object(id).map_err(MirrorError::View)?;
        if known.is_some_and(|known| known.state.mode & 0o700 != 0o700) {
            self.found.relaxed.push(id);
        }
        Ok(())
    }
}
