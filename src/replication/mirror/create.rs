//! New objects.

use super::MirrorError;
use super::attributes::{self, Before};
use super::content::{Patch, Writer};
use super::disk::{self, Stat, Target};
use super::plan::Place;
use super::run::{Located, Run};
use ehpc_proto::replication::{Kind, ObjectState};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

impl Run<'_> {
    /// Makes the object with all that belongs to it (a directory: bare, its attributes come last).
    /// Over an existing name, and in a directory whose default ACL it would get, it is made in limbo and renamed.
    pub(super) fn create(
        &mut self,
        state: &ObjectState,
        to: &Place,
        replaces: bool,
    ) -> Result<(), MirrorError> {
        let mut place = to.clone();
        let mut at = self.locate(state.id, to)?;
        if replaces || at.directory.bequeaths {
            place = Place::Limbo;
            at = self.locate(state.id, &place)?;
        }
        let identity = match state.kind {
            Kind::Directory => self.create_directory(state, &at)?,
            Kind::File => self.create_file(state, &at)?,
            _ => self.create_special(state, &at)?,
        };
        self.made.insert(state.id, identity.identity);
        if place != *to {
            self.rename(state.id, &place, to, "rename")?;
        }
        if state.kind == Kind::Directory {
            self.set_place(state.id, to.clone());
        }
        Ok(())
    }

    fn create_directory(&mut self, state: &ObjectState, at: &Located) -> Result<Stat, MirrorError> {
        self.attempt("make directory", &[at], |disk| disk.mkdir(at.at().0, at.at().1, state.mode | 0o700))?;
        self.stat(at)
    }

    fn create_file(&mut self, state: &ObjectState, at: &Located) -> Result<Stat, MirrorError> {
        // Attributes of the user name space need write permission of the mode, which comes last.
        let mode = if state.xattrs.is_empty() { state.mode & 0o777 } else { (state.mode & 0o777) | 0o600 };
        let fd = self.attempt("create", &[at], |disk| disk.create(at.at().0, at.at().1, mode))?;
        let now = disk::stat_fd(fd.as_fd()).map_err(|source| self.fault("look at", at, source))?;
        if state.size > 0 {
            let mut writer = Writer::new(&mut self.mirror.disk, self.content, state.id, fd.as_fd());
            writer.write(&state.content, &Patch::Fresh, 0, state.size)?;
            self.outcome.bytes += writer.written;
        }
        let (disk, notes) = (&mut self.mirror.disk, &mut self.mirror.notes);
        let result = attributes::set(disk, notes, Target::Open(fd.as_fd()), state, &now, &Before::Known(&[]));
        result.map_err(|source| self.fault("set attributes of", at, source))?;
        Ok(now)
    }

    fn create_special(&mut self, state: &ObjectState, at: &Located) -> Result<Stat, MirrorError> {
        let (dir, name) = at.at();
        if state.kind == Kind::Symlink {
            self.attempt("make symlink", &[at], |disk| disk.symlink(&state.target, dir, name))?;
        } else if !self.make_node(state, at)? {
            return self.stat(at);
        }
        let now = self.stat(at)?;
        let (disk, notes) = (&mut self.mirror.disk, &mut self.mirror.notes);
        let result = attributes::set(disk, notes, Target::Named(dir, name), state, &now, &Before::Known(&[]));
        result.map_err(|source| self.fault("set attributes of", at, source))?;
        Ok(now)
    }

    /// `false`: not allowed; an empty file of mode 0 holds the place, so that links and renames work alike.
    fn make_node(&mut self, state: &ObjectState, at: &Located) -> Result<bool, MirrorError> {
        let (dir, name) = at.at();
        let file_type = match state.kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let result = self.attempt("make special file", &[at], |disk| {
            match disk.mknod(dir, name, file_type, state.mode & 0o777, state.rdev) {
                Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(false),
                Err(error) => Err(error),
                Ok(()) => Ok(true),
            }
        })?;
        if !result {
            self.mirror.notes.devices += 1;
            self.attempt("create", &[at], |disk| disk.create(dir, name, 0).map(drop))?;
        }
        Ok(result)
    }

    fn stat(&mut self, at: &Located) -> Result<Stat, MirrorError> {
        let stat = self.stat_at(at)?;
        stat.ok_or_else(|| self.fault("look at", at, io::ErrorKind::NotFound.into()))
    }
}
