//! Carries out the operations of a plan.

use super::attributes::{self, Before};
use super::content::{Patch, Writer, changed_ranges};
use super::directories::Directory;
use super::disk::{self, Disk, Stat, Target};
use super::plan::{Op, Place};
use super::view::{ContentSource, Identity, Known, LiveView, Spot};
use super::window::Window;
use super::{Mirror, MirrorError, Outcome, limbo_name};
use ehpc_proto::replication::{Kind, Manifest, ObjectId, ObjectState};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Where a name is on disk: an open directory and the name in it.
pub(super) struct Located {
    pub(super) directory: Directory,
    pub(super) name: Vec<u8>,
    /// `None` for limbo.
    pub(super) parent: Option<ObjectId>,
}

impl Located {
    pub(super) fn at(&self) -> (rustix::fd::BorrowedFd<'_>, &[u8]) {
        (self.directory.fd.as_fd(), &self.name)
    }
    fn target(&self) -> Target<'_> {
        Target::Named(self.directory.fd.as_fd(), &self.name)
    }
}

/// One batch (or one window of batches) under way.
pub(super) struct Run<'a> {
    pub(super) mirror: &'a mut Mirror,
    pub(super) view: &'a dyn LiveView,
    pub(super) content: &'a dyn ContentSource,
    /// Set when batches are redone: what is on disk is then not trusted beyond what `view` promises.
    window: Option<&'a Window>,
    /// Where directories are that this run made or moved.
    placed: HashMap<ObjectId, Place>,
    /// Directories that were opened up because their mode forbade us to work in them.
    pub(super) relaxed: Vec<ObjectId>,
    /// Modes that this run gave to directories.
    modes: HashMap<ObjectId, u16>,
    pub(super) made: HashMap<ObjectId, Identity>,
    pub(super) outcome: Outcome,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        mirror: &'a mut Mirror,
        view: &'a dyn LiveView,
        content: &'a dyn ContentSource,
        window: Option<&'a Window>,
    ) -> Run<'a> {
        Run {
            mirror,
            view,
            content,
            window,
            placed: HashMap::new(),
            relaxed: Vec::new(),
            modes: HashMap::new(),
            made: HashMap::new(),
            outcome: Outcome::default(),
        }
    }

    pub(super) fn execute(mut self, ops: &[Op<'_>]) -> Result<Outcome, MirrorError> {
        for op in ops {
            self.step(op)?;
        }
        self.restore_modes()?;
        self.outcome.identities.extend(self.made);
        Ok(self.outcome)
    }

    fn step(&mut self, op: &Op<'_>) -> Result<(), MirrorError> {
        match op {
            Op::Vacate { id, from } => {
                self.rename(*id, &Place::At(from.clone()), &Place::Limbo, "move to limbo")?;
                self.placed.insert(*id, Place::Limbo);
            }
            Op::Keep { id, from } => self.link(*id, &Place::At(from.clone()), &Place::Limbo)?,
            Op::Unlink { at } => {
                let at = self.locate(ObjectId(0), &Place::At(at.clone()))?;
                self.attempt("remove", &[&at], |disk| disk.unlink(at.at().0, at.at().1))?;
            }
            Op::Create { state, to, replaces } => self.create(state, to, *replaces)?,
            Op::Move { id, from, to, directory } => {
                let to = Place::At(to.clone());
                self.rename(*id, from, &to, "rename")?;
                if *directory {
                    self.placed.insert(*id, to);
                }
            }
            Op::Link { id, from, to } => self.link(*id, from, &Place::At(to.clone()))?,
            Op::Update { state, at } => self.update(state, at)?,
            Op::Discard { id } => {
                let at = self.locate(*id, &Place::Limbo)?;
                self.attempt("remove", &[&at], |disk| disk.unlink(at.at().0, at.at().1))?;
            }
            Op::RemoveDirectory { id, at } => {
                let at = self.locate(*id, at)?;
                self.mirror.directories.forget(*id);
                self.attempt("remove directory", &[&at], |disk| disk.rmdir(at.at().0, at.at().1))?;
            }
            Op::Finish { id, state } => self.finish(*id, *state)?,
        }
        Ok(())
    }

    /// Where `place` of object `id` is on disk now.
    pub(super) fn locate(&mut self, id: ObjectId, place: &Place) -> Result<Located, MirrorError> {
        match place {
            Place::Limbo => Ok(Located { directory: self.limbo(), name: limbo_name(id), parent: None }),
            Place::At(spot) => Ok(Located {
                directory: self.directory(spot.parent)?,
                name: spot.name.clone(),
                parent: Some(spot.parent),
            }),
        }
    }

    fn limbo(&self) -> Directory {
        Directory { fd: self.mirror.limbo.clone(), bequeaths: false }
    }

    /// Where a directory is: as this run put it, else as the live rows say.
    fn place_of(&self, id: ObjectId) -> Result<Place, MirrorError> {
        if let Some(place) = self.placed.get(&id) {
            return Ok(place.clone());
        }
        let entries = self.view.entries_of(id).map_err(MirrorError::View)?;
        Ok(entries.into_iter().next().map_or(Place::Limbo, Place::At))
    }

    pub(super) fn set_place(&mut self, id: ObjectId, place: Place) {
        self.placed.insert(id, place);
    }

    /// Opens a directory, from the nearest one that is open, name by name.
    pub(super) fn directory(&mut self, id: ObjectId) -> Result<Directory, MirrorError> {
        if let Some(directory) = self.mirror.directories.get(id) {
            return Ok(directory);
        }
        let mut chain: Vec<(ObjectId, Option<ObjectId>, Vec<u8>)> = Vec::new();
        let mut at = id;
        let mut base = loop {
            if let Some(directory) = self.mirror.directories.get(at) {
                break directory;
            }
            if at == ObjectId::ROOT {
                let directory = self.opened(at, self.mirror.root.clone())?;
                self.mirror.directories.insert(at, directory.clone());
                break directory;
            }
            match self.place_of(at)? {
                Place::Limbo => {
                    chain.push((at, None, limbo_name(at)));
                    break self.limbo();
                }
                Place::At(spot) => {
                    chain.push((at, Some(spot.parent), spot.name));
                    at = spot.parent;
                }
            }
            if chain.len() > 100_000 {
                return Err(MirrorError::Unexpected {
                    path: self.describe(id),
                    reason: "it is below itself",
                });
            }
        };
        while let Some((id, parent, name)) = chain.pop() {
            let at = Located { directory: base, name, parent };
            let fd = self.open_directory(id, &at)?;
            base = self.opened(id, Arc::new(fd))?;
            self.mirror.directories.insert(id, base.clone());
        }
        Ok(base)
    }

    fn open_directory(&mut self, id: ObjectId, at: &Located) -> Result<OwnedFd, MirrorError> {
        let open = |at: &Located| disk::open_dir(at.at().0, at.at().1);
        match open(at) {
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                self.relax(at)?;
                let stat = disk::stat_at(at.at().0, at.at().1);
                if let Some(stat) = stat.map_err(|source| self.fault("look at", at, source))? {
                    let result = self.mirror.disk.chmod(at.target(), stat.mode | 0o700);
                    result.map_err(|source| self.fault("enter", at, source))?;
                    self.relaxed.push(id);
                }
                open(at).map_err(|source| self.fault("enter", at, source))
            }
            result => result.map_err(|source| self.fault("enter", at, source)),
        }
    }

    /// Checks that an opened directory is the one meant.
    fn opened(&self, id: ObjectId, fd: Arc<OwnedFd>) -> Result<Directory, MirrorError> {
        let fault = |source| MirrorError::Io { what: "look at", path: format!("directory {}", id.0), source };
        let expected = match self.made.get(&id) {
            Some(identity) => Some(*identity),
            None => self.known(id)?.and_then(|known| known.identity),
        };
        if let Some(expected) = expected
            && disk::stat_fd(fd.as_fd()).map_err(fault)?.identity != expected
        {
            return Err(MirrorError::Unexpected {
                path: self.describe(id),
                reason: "another directory is there",
            });
        }
        let bequeaths = Target::Open(fd.as_fd()).xattr(b"system.posix_acl_default").map_err(fault)?.is_some();
        Ok(Directory { fd, bequeaths })
    }

    pub(super) fn known(&self, id: ObjectId) -> Result<Option<Known>, MirrorError> {
        self.view.object(id).map_err(MirrorError::View)
    }

    /// Gives us every right on the directory that holds `at`, until the end of the run.
    fn relax(&mut self, at: &Located) -> Result<(), MirrorError> {
        match at.parent {
            Some(parent) => self.open_up(parent, &at.directory),
            None => Ok(()),
        }
    }

    /// Not root: gives us every right on an open directory, until the end of the run.
    pub(super) fn open_up(&mut self, id: ObjectId, directory: &Directory) -> Result<(), MirrorError> {
        let fd = directory.fd.as_fd();
        let fault =
            |source| MirrorError::Io { what: "get access to", path: format!("directory {}", id.0), source };
        let stat = disk::stat_fd(fd).map_err(fault)?;
        if stat.mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
            self.mirror.disk.chmod(Target::Open(fd), stat.mode | 0o700).map_err(fault)?;
            self.relaxed.push(id);
        }
        Ok(())
    }

    /// Does `op`, a second time with the directories of `places` opened up if access was refused.
    pub(super) fn attempt<T>(
        &mut self,
        what: &'static str,
        places: &[&Located],
        mut op: impl FnMut(&mut Disk) -> io::Result<T>,
    ) -> Result<T, MirrorError> {
        let mut result = op(&mut self.mirror.disk);
        if let Err(error) = &result
            && error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())
        {
            for at in places {
                self.relax(at)?;
            }
            result = op(&mut self.mirror.disk);
        }
        result.map_err(|source| match places.last() {
            Some(at) => self.fault(what, at, source),
            None => MirrorError::Io { what, path: String::new(), source },
        })
    }

    pub(super) fn rename(
        &mut self,
        id: ObjectId,
        from: &Place,
        to: &Place,
        what: &'static str,
    ) -> Result<(), MirrorError> {
        let (from, to) = (self.locate(id, from)?, self.locate(id, to)?);
        let result = self.attempt(what, &[&from, &to], |disk| disk.rename(from.at(), to.at()));
        match result {
            // Not root: a directory that its owner may not write cannot change its parent.
            Err(MirrorError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) =>
            {
                let mode = disk::stat_at(from.at().0, from.at().1).ok().flatten().map_or(0, |stat| stat.mode);
                self.attempt(what, &[&from], |disk| disk.chmod(from.target(), mode | 0o700))?;
                self.relaxed.push(id);
                self.attempt(what, &[&from, &to], |disk| disk.rename(from.at(), to.at()))
            }
            result => result,
        }
    }

    pub(super) fn stat_at(&mut self, at: &Located) -> Result<Option<Stat>, MirrorError> {
        self.attempt("look at", &[at], |_| disk::stat_at(at.at().0, at.at().1))
    }

    fn link(&mut self, id: ObjectId, from: &Place, to: &Place) -> Result<(), MirrorError> {
        let (from, to) = (self.locate(id, from)?, self.locate(id, to)?);
        self.attempt("link", &[&from, &to], |disk| disk.link(from.at(), to.at()))
    }

    /// An existing object that is no directory.
    fn update(&mut self, state: &ObjectState, at: &Place) -> Result<(), MirrorError> {
        let located = self.locate(state.id, at)?;
        let now = self.stat_at(&located)?;
        let unexpected = |path, reason| Err(MirrorError::Unexpected { path, reason });
        let Some(known) = self.known(state.id)? else {
            return unexpected(self.describe_at(&located), "it is not in the catalog");
        };
        let Some(now) = now else { return unexpected(self.describe_at(&located), "it is gone") };
        if now.identity != known.identity.unwrap_or(now.identity) {
            return unexpected(self.describe_at(&located), "something else is there");
        }
        if state.kind != known.state.kind
            || state.target != known.state.target
            || state.rdev != known.state.rdev
        {
            // What cannot be changed is made anew over it.
            return self.create(state, at, true);
        }
        let before = match self.window {
            Some(_) => Before::Ask,
            None => Before::Known(&known.state.xattrs),
        };
        if state.kind == Kind::File && now.kind == Kind::File {
            let patch = self.patch(state, &known, &now)?;
            if !matches!(patch, Patch::Nothing) || now.size != state.size {
                return self.write_existing(state, &located, now, &patch, &before);
            }
        }
        let placeholder = now.kind != state.kind; // a device that could not be made
        if placeholder {
            return Ok(());
        }
        let (disk, notes) = (&mut self.mirror.disk, &mut self.mirror.notes);
        let result = attributes::set(disk, notes, located.target(), state, &now, &before);
        result.map_err(|source| self.fault("set attributes of", &located, source))
    }

    fn patch<'k>(&self, state: &ObjectState, known: &'k Known, now: &Stat) -> Result<Patch<'k>, MirrorError> {
        let before: &Manifest = &known.state.content;
        if let Some(window) = self.window {
            let versions = window.versions(state.id, before);
            let same = versions.iter().all(|version| *version == before);
            if same && known.state.digest() == state.digest() {
                return Ok(Patch::All);
            }
            return Ok(Patch::Ranges(changed_ranges(&versions, self.content)?));
        }
        if now.size != known.state.size {
            return Ok(Patch::All);
        }
        if *before != state.content {
            return Ok(Patch::From(before));
        }
        // A state that says nothing new asks to make sure.
        Ok(if known.state.digest() == state.digest() { Patch::All } else { Patch::Nothing })
    }

    fn write_existing(
        &mut self,
        state: &ObjectState,
        located: &Located,
        mut now: Stat,
        patch: &Patch<'_>,
        before: &Before<'_>,
    ) -> Result<(), MirrorError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(located.at().0, located.at().1, flags, Mode::empty());
        let fd = match open() {
            Err(Errno::ACCESS) => {
                self.relax(located)?;
                self.attempt("get access to", &[located], |disk| {
                    disk.chmod(located.target(), now.mode | 0o600)
                })?;
                now.mode |= 0o600;
                open()
            }
            result => result,
        };
        let fd = fd.map_err(|errno| self.fault("open", located, errno.into()))?;
        let mut writer = Writer::new(&mut self.mirror.disk, self.content, state.id, fd.as_fd());
        writer.write(&state.content, patch, now.size, state.size)?;
        self.outcome.bytes += writer.written;
        if state.mode & 0o6000 != 0 {
            now.mode = u16::MAX; // writing may have cleared the set-id bits
        }
        let (disk, notes) = (&mut self.mirror.disk, &mut self.mirror.notes);
        let result = attributes::set(disk, notes, Target::Open(fd.as_fd()), state, &now, before);
        result.map_err(|source| self.fault("set attributes of", located, source))
    }

    /// Attributes and times of a directory, after its listing is right.
    fn finish(&mut self, id: ObjectId, state: Option<&ObjectState>) -> Result<(), MirrorError> {
        let directory = self.directory(id)?;
        let known = self.known(id)?;
        let Some(state) = state.or(known.as_ref().map(|known| &known.state)) else { return Ok(()) };
        let fault = |source| MirrorError::Io {
            what: "set attributes of",
            path: format!("directory {}", id.0),
            source,
        };
        let fd = directory.fd.as_fd();
        let now = disk::stat_fd(fd).map_err(fault)?;
        let before = match &known {
            Some(known) if self.window.is_none() && !self.made.contains_key(&id) => {
                Before::Known(&known.state.xattrs)
            }
            _ => Before::Ask,
        };
        let (disk, notes) = (&mut self.mirror.disk, &mut self.mirror.notes);
        attributes::set(disk, notes, Target::Open(fd), state, &now, &before).map_err(fault)?;
        self.modes.insert(id, state.mode);
        let bequeaths = state.xattrs.iter().any(|xattr| xattr.name == b"system.posix_acl_default");
        if bequeaths != directory.bequeaths {
            self.mirror.directories.insert(id, Directory { bequeaths, ..directory });
        }
        if id == ObjectId::ROOT {
            self.made.insert(id, now.identity);
        }
        Ok(())
    }

    /// Directories that had to be opened up get their modes back.
    pub(super) fn restore_modes(&mut self) -> Result<(), MirrorError> {
        let mut rounds = 0;
        while let Some(id) = self.relaxed.pop() {
            rounds += 1;
            if rounds > 1_000_000 {
                break;
            }
            if self.mirror.directories.get(id).is_none()
                && self.known(id)?.is_none()
                && !self.made.contains_key(&id)
            {
                continue; // removed meanwhile
            }
            let mode = match self.modes.get(&id) {
                Some(mode) => Some(*mode),
                None => self.known(id)?.map(|known| known.state.mode),
            };
            let (Some(mode), Ok(directory)) = (mode, self.directory(id)) else { continue };
            let result = self.mirror.disk.chmod(Target::Open(directory.fd.as_fd()), mode);
            let path = || format!("directory {}", id.0);
            result.map_err(|source| MirrorError::Io { what: "set the mode of", path: path(), source })?;
        }
        Ok(())
    }

    pub(super) fn fault(&self, what: &'static str, at: &Located, source: io::Error) -> MirrorError {
        MirrorError::Io { what, path: self.describe_at(at), source }
    }

    fn describe_at(&self, at: &Located) -> String {
        let name = String::from_utf8_lossy(&at.name);
        match at.parent {
            Some(parent) => format!("{}/{name}", self.describe(parent)),
            None => format!("limbo/{name}"),
        }
    }

    /// Path of a directory, for a person.
    fn describe(&self, id: ObjectId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT && names.len() < 200 {
            match self.place_of(at) {
                Ok(Place::At(Spot { parent, name })) => {
                    names.push(String::from_utf8_lossy(&name).into_owned());
                    at = parent;
                }
                _ => {
                    names.push(format!("limbo/{}", at.0));
                    break;
                }
            }
        }
        names.push(self.mirror.path.display().to_string());
        names.reverse();
        names.join("/")
    }
}
