//! Names and attributes of one object in the mirror against the catalog.

use super::Findings;
use crate::replication::mirror::disk::{self, Stat, Target};
use crate::replication::mirror::plan::Place;
use crate::replication::mirror::run::{Located, Run};
use crate::replication::mirror::view::{ContentSource, LiveView, Spot};
use crate::replication::mirror::{Mirror, MirrorError};
use ehpc_proto::replication::{Kind, ObjectId, ObjectState, Xattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;

/// What a mirror that is not written as root does not keep; counted, and said once in the end.
#[derive(Default)]
pub(super) struct Unkept {
    owners: u64,
    devices: u64,
    modes: u64,
    xattrs: u64,
}

impl Unkept {
    pub(super) fn report(&self, findings: &mut Findings) {
        let parts = [
            (self.owners, "owners"),
            (self.devices, "devices"),
            (self.modes, "set-id bits"),
            (self.xattrs, "privileged extended attributes"),
        ];
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            let reason =
                format!("mirror: {what} of {count} objects are in the packs only: it is not written as root");
            findings.not_checked(ObjectId::ROOT, b"", reason);
        }
    }
}

/// Names of a directory that are fetched from the catalog at a time.
const LISTING: usize = 1000;

pub(super) struct Object<'a> {
    run: Run<'a>,
    findings: &'a mut Findings,
    unkept: &'a mut Unkept,
}

impl<'a> Object<'a> {
    pub(super) fn new(
        mirror: &'a mut Mirror,
        view: &'a dyn LiveView,
        content: &'a dyn ContentSource,
        findings: &'a mut Findings,
        unkept: &'a mut Unkept,
    ) -> Object<'a> {
        Object { run: Run::new(mirror, view, content, None), findings, unkept }
    }

    /// Compares all but content. A file whose content is to be compared is returned open.
    pub(super) fn compare(&mut self, state: &ObjectState, path: &[u8]) -> Result<Option<File>, MirrorError> {
        let file = if state.id == ObjectId::ROOT {
            let root = self.run.mirror.root.clone();
            if let Ok(stat) = disk::stat_fd(root.as_fd()) {
                self.attributes(state, path, &stat, Target::Open(root.as_fd()));
            }
            self.listing(state, path)?;
            None
        } else {
            match self.find(state.id, path)? {
                Some((stat, located)) => self.compare_found(state, path, &stat, &located)?,
                None => None,
            }
        };
        // Not root: looking may have needed rights that the modes of directories do not give.
        self.run.restore_modes()?;
        Ok(file)
    }

    /// The object at its names; every name must lead to the same.
    fn find(&mut self, id: ObjectId, path: &[u8]) -> Result<Option<(Stat, Located)>, MirrorError> {
        let entries = self.run.view.entries_of(id).map_err(MirrorError::View)?;
        let mut places: Vec<Place> = entries.into_iter().map(Place::At).collect();
        if places.is_empty() {
            places.push(Place::Limbo);
        }
        let mut first: Option<(Stat, Located)> = None;
        for place in places {
            let looked = self.run.locate(id, &place).and_then(|at| Ok((self.run.stat_at(&at)?, at)));
            let (stat, located) = match looked {
                Ok(found) => found,
                Err(MirrorError::View(source)) => return Err(MirrorError::View(source)),
                Err(error) => {
                    self.findings.wrong(id, path, error.to_string());
                    continue;
                }
            };
            match (stat, &first) {
                (None, _) => self.findings.wrong(id, path, "mirror: it is missing"),
                (Some(stat), None) => first = Some((stat, located)),
                (Some(stat), Some((known, _))) if stat.identity != known.identity => {
                    let name = String::from_utf8_lossy(&located.name).into_owned();
                    self.findings.wrong(id, path, format!("mirror: its other name {name:?} is another file"));
                }
                _ => {}
            }
        }
        Ok(first)
    }

    fn compare_found(
        &mut self,
        state: &ObjectState,
        path: &[u8],
        stat: &Stat,
        located: &Located,
    ) -> Result<Option<File>, MirrorError> {
        let id = state.id;
        if stat.kind != state.kind {
            self.other_kind(state, path, stat);
            return Ok(None);
        }
        let (dir, name) = located.at();
        self.attributes(state, path, stat, Target::Named(dir, name));
        match state.kind {
            Kind::Directory => self.listing(state, path)?,
            Kind::File if stat.size == state.size => return Ok(self.open(state, path, stat, located)),
            Kind::File => {
                let reason = format!("mirror: {} bytes instead of {}", stat.size, state.size);
                self.findings.wrong(id, path, reason);
            }
            Kind::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) if target.to_bytes() == state.target => {}
                Ok(_) => self.findings.wrong(id, path, "mirror: the symlink's target differs"),
                Err(error) => {
                    self.findings.wrong(id, path, format!("mirror: the symlink cannot be read: {error}"));
                }
            },
            _ if stat.rdev != state.rdev => {
                self.findings.wrong(id, path, "mirror: the device number differs");
            }
            _ => {}
        }
        Ok(None)
    }

    fn other_kind(&mut self, state: &ObjectState, path: &[u8], stat: &Stat) {
        let device = matches!(state.kind, Kind::CharDevice | Kind::BlockDevice);
        if device && stat.kind == Kind::File && stat.size == 0 && stat.mode == 0 {
            self.unkept.devices += 1;
        } else {
            let reason = format!("mirror: it is a {:?} instead of a {:?}", stat.kind, state.kind);
            self.findings.wrong(state.id, path, reason);
        }
    }

    fn open(&mut self, state: &ObjectState, path: &[u8], stat: &Stat, located: &Located) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (dir, name) = located.at();
        let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
        let mut opened = open();
        if opened.as_ref().is_err_and(|error| *error == Errno::ACCESS) {
            // Not root, and the mode forbids even the owner to read.
            let disk = &mut self.run.mirror.disk;
            if disk.chmod(Target::Named(dir, name), stat.mode | 0o400).is_ok() {
                opened = open();
                if let Err(error) = disk.chmod(Target::Named(dir, name), stat.mode) {
                    self.findings.wrong(
                        state.id,
                        path,
                        format!("mirror: its mode cannot be set back: {error}"),
                    );
                }
            }
        }
        match opened {
            Ok(fd) => Some(File::from(fd)),
            Err(error) => {
                self.findings.not_checked(state.id, path, format!("mirror: it cannot be opened: {error}"));
                None
            }
        }
    }

    fn attributes(&mut self, state: &ObjectState, path: &[u8], stat: &Stat, target: Target<'_>) {
        let root = rustix::process::geteuid().is_root();
        let mut differing = Vec::new();
        if state.kind != Kind::Symlink && stat.mode != state.mode {
            if !root && stat.mode & 0o1777 == state.mode & 0o1777 {
                self.unkept.modes += 1;
            } else {
                differing.push(format!("mode {:o} instead of {:o}", stat.mode, state.mode));
            }
        }
        if (stat.uid, stat.gid) != (state.uid, state.gid) {
            if root {
                let (uid, gid) = (state.uid, state.gid);
                differing.push(format!("owner {}:{} instead of {uid}:{gid}", stat.uid, stat.gid));
            } else {
                self.unkept.owners += 1;
            }
        }
        if stat.mtime != state.mtime {
            let (now, then) = (stat.mtime, state.mtime);
            differing.push(format!(
                "mtime {}.{:09} instead of {}.{:09}",
                now.seconds, now.nanos, then.seconds, then.nanos
            ));
        }
        match target.xattrs() {
            Ok(there) if there == state.xattrs => {}
            Ok(there) if !root && unprivileged(&there) == unprivileged(&state.xattrs) => {
                self.unkept.xattrs += 1
            }
            Ok(_) => differing.push("extended attributes differ".to_owned()),
            Err(error) => differing.push(format!("extended attributes cannot be read: {error}")),
        }
        if !differing.is_empty() {
            self.findings.wrong(state.id, path, format!("mirror: {}", differing.join(", ")));
        }
    }

    /// Names that should not be there. (Those that should are found by their objects.)
    fn listing(&mut self, state: &ObjectState, path: &[u8]) -> Result<(), MirrorError> {
        let names = match self.run.directory(state.id) {
            Ok(directory) => {
                self.run.open_up(state.id, &directory)?;
                disk::list(directory.fd.as_fd()).map_err(|error| error.to_string())
            }
            Err(MirrorError::View(source)) => return Err(MirrorError::View(source)),
            Err(error) => Err(error.to_string()),
        };
        let mut names = match names {
            Ok(names) => names,
            Err(reason) => {
                self.findings.wrong(state.id, path, format!("mirror: it cannot be listed: {reason}"));
                return Ok(());
            }
        };
        names.sort_unstable();
        let mut names = names.into_iter().peekable();
        let mut after: Option<Vec<u8>> = None;
        let mut extra = Vec::new();
        loop {
            let children =
                self.run.view.children(state.id, after.as_deref(), LISTING).map_err(MirrorError::View)?;
            for (child, _) in &children {
                while let Some(name) = names.next_if(|name| name < child) {
                    extra.push(name);
                }
                names.next_if(|name| name == child);
            }
            match children.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        extra.extend(names);
        for name in extra {
            let Spot { parent, name } = Spot::new(state.id, name);
            let shown = String::from_utf8_lossy(&name);
            self.findings.wrong(
                parent,
                path,
                format!("mirror: the name {shown:?} in it should not be there"),
            );
        }
        Ok(())
    }
}

fn unprivileged(xattrs: &[Xattr]) -> Vec<&Xattr> {
    let privileged = |name: &[u8]| name.starts_with(b"trusted.") || name.starts_with(b"security.");
    xattrs.iter().filter(|xattr| !privileged(&xattr.name)).collect()
}
