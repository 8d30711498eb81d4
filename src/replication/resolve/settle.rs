//! What must share a batch: names that a moved object still has elsewhere, cycles, objects that lost their name.

use super::{Fault, Resolver, is_dead, is_gone};
use crate::change::touch::Entry;
use crate::host::{ObjectKey, Tree};
use crate::replication::link::Link;
use crate::replication::sender::queue::{TakeId, Work};
use ehpc_proto::replication::{Kind, ObjectId};
use std::os::fd::AsFd;

/// Objects in limbo that are looked at with each batch.
const LIMBO_AT_ONCE: usize = 32;

impl Resolver {
    /// Everything that must share the batch: names that moved objects still have elsewhere, objects without a name.
    pub(super) fn settle(&mut self, take: TakeId, link: &mut dyn Link) -> Result<(), Fault> {
        loop {
            if let Some((id, nlink)) = self.placed.pop() {
                self.drop_stale_names(take, id, nlink, link)?;
                self.break_cycle(take, id, link)?;
            } else if let Some(id) = self.losers.pop() {
                self.look_for(take, id, link)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Looks at a name again; false as [`Resolver::entry`] says it.
    pub(super) fn look_again(
        &mut self,
        take: TakeId,
        parent: ObjectId,
        name: &[u8],
        link: &mut dyn Link,
    ) -> Result<bool, Fault> {
        match self.view.row(parent)? {
            Some(dir) => self.entry(take, &Entry { dir: dir.key.clone(), name: name.into() }, false, link),
            None => Ok(true),
        }
    }

    /// A known object has a new name: a directory has no other, anything else at most as many as it has links.
    pub(super) fn drop_stale_names(&mut self, take: TakeId, id: ObjectId, nlink: u32, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row(id)? else { return Ok(()) };
        let allowed = if row.kind == Kind::Directory { 1 } else { nlink as usize };
        for _ in 0..3 {
            let names = self.view.names_of(id)?;
            if names.len() <= allowed {
                return Ok(());
            }
            for (parent, name) in names {
                if !self.look_again(take, parent, &name, link)? {
                    // It was just seen under another name, and has no more of them than it may have.
                    self.view.set_entry(parent, &name, None);
                }
            }
        }
        if row.kind == Kind::Directory {
            // It moves faster than it can be looked at: it has one of its places, and all are looked at again.
            for (parent, name) in self.view.names_of(id)?.into_iter().skip(1) {
                self.later(take, parent, &name)?;
                self.view.set_entry(parent, &name, None);
            }
        }
        Ok(())
    }

    pub(super) fn later(&mut self, take: TakeId, parent: ObjectId, name: &[u8]) -> Result<(), Fault> {
        if let Some(dir) = self.view.row(parent)? {
            let entry = Entry { dir: dir.key.clone(), name: name.into() };
            self.queue.spawn(take, Work::Entries([entry].into_iter().collect()));
        }
        Ok(())
    }

    /// The entries from `id` up to itself, if it is under itself.
    pub(super) fn cycle_of(&self, id: ObjectId) -> Result<Option<Vec<(ObjectId, Box<[u8]>)>>, Fault> {
        let mut path = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT && path.len() < 4096 {
            let Some((parent, name)) = self.view.names_of(at)?.into_iter().next() else { return Ok(None) };
            path.push((parent, name));
            if parent == id {
                return Ok(Some(path));
            }
            at = parent;
        }
        Ok(None)
    }

    /// Entries read at different times may put a directory under itself: those on the way are read again.
    pub(super) fn break_cycle(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
        if self.view.row(id)?.is_none_or(|row| row.kind != Kind::Directory) {
            return Ok(());
        }
        for _ in 0..3 {
            let Some(path) = self.cycle_of(id)? else { return Ok(()) };
            for (parent, name) in path {
                self.look_again(take, parent, &name, link)?;
            }
        }
        if self.cycle_of(id)?.is_some() {
            for (parent, name) in self.view.names_of(id)? {
                self.later(take, parent, &name)?;
                self.view.set_entry(parent, &name, None);
            }
        }
        Ok(())
    }

    /// An object that lost a name: gone, or somewhere else? Without handles only the end of a scan can tell.
    pub(super) fn look_for(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
        if id == ObjectId::ROOT || !self.tree.opens_by_handle() || !self.view.names_of(id)?.is_empty() {
            return Ok(());
        }
        let Some(row) = self.view.row(id)? else { return Ok(()) };
        let stat = self.open_object(&row.key).and_then(|fd| Tree::stat(fd.as_fd()));
        match stat {
            Ok(stat) if stat.nlink > 0 && stat.kind == row.kind => match self.locate(&row.key) {
                Some(entry) => self.entry(take, &entry, false, link).map(|_| ()),
                None => {
                    self.limbo.push_back(id);
                    Ok(())
                }
            },
            Ok(_) => self.destroy(take, &row),
            Err(error) if is_gone(&error) => self.destroy(take, &row),
            Err(_) => {
                self.limbo.push_back(id);
                Ok(())
            }
        }
    }

    /// What lost its name and existed then may have got another since, or be gone.
    pub(super) fn look_into_limbo(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        for _ in 0..self.limbo.len().min(LIMBO_AT_ONCE) {
            if let Some(id) = self.limbo.pop_front()
                && let Err(fault) = self.look_for(0, id, link).and_then(|()| self.settle(0, link))
            {
                self.limbo.push_back(id);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// The name that an object has now, as far as the kernel knows one within the export.
    pub(super) fn locate(&self, key: &ObjectKey) -> Option<Entry> {
        let path = if is_dead(key) { None } else { self.tree.path_of(key) }?;
        let (dir_path, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (path.get(..at)?, path.get(at + 1..)?),
            None => (&[][..], path.as_slice()),
        };
        let mut dir = self.tree.open_path(self.tree.root_key()).ok()?;
        for part in dir_path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let (fd, found) = self.tree.lookup_open(dir.as_fd(), part).ok()??;
            if found.stat.mount_root {
                return None;
            }
            dir = fd;
        }
        let found = self.tree.lookup(dir.as_fd(), name).ok()??;
        (found.key == *key).then_some(())?;
        Some(Entry { dir: self.tree.key_of(dir.as_fd()).ok()?, name: name.into() })
    }
}
