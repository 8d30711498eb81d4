//! Names: looked up in their directory, and compared with where the view says they lead.

use super::{Fault, HOT_FROM, Resolver, is_dead, is_gone};
use crate::change::shadow::Row;
use crate::change::touch::{Entry, Touch};
use crate::host::{Found, ObjectKey, Stat, coarse_now};
use crate::replication::link::Link;
use crate::replication::read::Subject;
use crate::replication::sender::queue::{TakeId, Work};
use ehpc_proto::replication::{Kind, ObjectId, Timestamp};
use smallvec::SmallVec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A name that was looked up.
struct Seen {
    /// Before it was.
    looked: Timestamp,
    /// O_PATH.
    fd: OwnedFd,
    found: Found,
}

impl Resolver {
    pub(super) fn entries(
        &mut self,
        take: TakeId,
        entries: &[Entry],
        tries: u8,
        link: &mut dyn Link,
    ) -> Result<(), Fault> {
        let mut not_there = SmallVec::new();
        for entry in entries {
            if !self.queue.will_be_listed(take, &entry.dir) && !self.entry(take, entry, false, link)? {
                not_there.push(entry.clone());
            }
        }
        if !not_there.is_empty() {
            self.not_there(take, Work::Entries(not_there), tries);
        }
        self.settle(take, link)
    }

    pub(super) fn open_dir(&mut self, key: &ObjectKey) -> io::Result<Arc<OwnedFd>> {
        if let Some((held, fd)) = &self.last_dir
            && held == key
        {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(self.open_object(key)?);
        self.last_dir = Some((key.clone(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Looks a name up and notes where it leads. `deep`: also look into what is known already. False: its directory is
    /// not where it was, which without handles may mean that it was moved.
    pub(super) fn entry(
        &mut self,
        take: TakeId,
        entry: &Entry,
        deep: bool,
        link: &mut dyn Link,
    ) -> Result<bool, Fault> {
        let Some(dir) = self.view.row_by_key(&entry.dir)? else { return Ok(true) };
        if dir.kind != Kind::Directory {
            return Ok(true);
        }
        let looked = coarse_now();
        let found = match self.open_dir(&entry.dir) {
            Ok(fd) => self.tree.lookup_open(fd.as_fd(), &entry.name),
            Err(error) if is_gone(&error) => {
                if !self.tree.opens_by_handle() && !is_dead(&entry.dir) {
                    return Ok(false);
                }
                // What was in it goes with it, once it is sure that it is gone.
                self.queue.spawn(take, Work::Object(entry.dir.clone(), Touch::ATTRIBUTES));
                return Ok(true);
            }
            Err(error) => Err(error),
        };
        self.restat.insert(dir.id);
        let found = match found {
            Ok(found) => found,
            Err(error) if is_gone(&error) => None,
            Err(error) => {
                let path = self.path_in(dir.id, &entry.name);
                self.not_readable(&entry.dir, Some(entry), path, format!("cannot look the name up: {error}"));
                return Ok(true);
            }
        };
        let found = found.filter(|(_, found)| self.is_ours(dir.id, &entry.name, &found.stat));
        let child = match found {
            Some((fd, found)) => self.found(take, entry, &dir, &Seen { looked, fd, found }, deep, link)?,
            None => None,
        };
        let old = self.view.entry(dir.id, &entry.name)?;
        if old != child {
            self.view.set_entry(dir.id, &entry.name, child);
            self.losers.extend(old);
        }
        Ok(true)
    }

    /// Not another mount.
    pub(super) fn is_ours(&self, dir: ObjectId, name: &[u8], stat: &Stat) -> bool {
        let path = if stat.mount_root { self.path_in(dir, name) } else { return true };
        self.status.mount_point(path);
        false
    }

    pub(super) fn path_in(&self, dir: ObjectId, name: &[u8]) -> Vec<u8> {
        let mut path = self.view.path_of(dir).ok().flatten().unwrap_or_else(|| b"?".to_vec());
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The object that a name leads to; `None` when it cannot be told or is gone again.
    fn found(
        &mut self,
        take: TakeId,
        entry: &Entry,
        dir: &Row,
        seen: &Seen,
        deep: bool,
        link: &mut dyn Link,
    ) -> Result<Option<ObjectId>, Fault> {
        let Seen { fd, found, .. } = seen;
        let Some(row) = self.view.row_by_key(&found.key)? else {
            return self.add(take, entry, dir, seen, link);
        };
        if row.kind != found.stat.kind {
            // The key of a former object, used anew.
            self.destroy(take, &row)?;
            return self.add(take, entry, dir, seen, link);
        }
        let is_new_name = self.view.entry(dir.id, &entry.name)? != Some(row.id);
        // Without a name until now; the first end of a rename that is being read took no time to miss anything.
        let was_lost = is_new_name
            && row.id != ObjectId::ROOT
            && !self.losers.contains(&row.id)
            && self.view.names_of(row.id)?.is_empty();
        if is_new_name {
            self.placed.push((row.id, found.stat.nlink));
        }
        let was_unreadable = self.status.readable(&found.key).is_some();
        let moved = found.stat.ctime != row.ctime;
        let same_content = found.stat.size == row.size && found.stat.mtime == row.mtime;
        if row.kind == Kind::Directory {
            if deep || was_lost || was_unreadable {
                self.queue.list(take, row.key.clone(), deep || was_lost);
            }
            if moved {
                self.read_known(take, fd.as_fd(), &row, &Touch::ATTRIBUTES, link)?;
            }
        } else if was_unreadable || (moved && (deep || was_lost)) {
            self.read_known(take, fd.as_fd(), &row, &Touch::CONTENT, link)?;
        } else if moved && (same_content || row.kind != Kind::File) {
            // Content that differs has a change of its own, which may know where.
            self.read_known(take, fd.as_fd(), &row, &Touch::ATTRIBUTES, link)?;
        }
        Ok(Some(row.id))
    }

    /// An object that nothing is known of.
    fn add(
        &mut self,
        take: TakeId,
        entry: &Entry,
        dir: &Row,
        seen: &Seen,
        link: &mut dyn Link,
    ) -> Result<Option<ObjectId>, Fault> {
        let Seen { looked, fd, found } = seen;
        let is_dir = found.stat.kind == Kind::Directory;
        // From here on the watcher cares for it; what happened before, the reading sees.
        self.watch(&found.key, is_dir);
        let id = self.view.new_id();
        let subject = Subject {
            fd: fd.as_fd(),
            id,
            key: &found.key,
            old: None,
            touch: &Touch::CONTENT,
            seen: Some((*looked, found.stat)),
        };
        let path = (found.stat.size >= HOT_FROM).then(|| self.path_in(dir.id, &entry.name));
        match self.read(&subject, path, found.stat.size, link) {
            Ok(reading) => {
                self.status.readable(&found.key);
                self.ship(found.key.clone(), reading);
                if is_dir {
                    self.queue.list(take, found.key.clone(), false);
                }
                Ok(Some(id))
            }
            Err(error) => {
                self.view.waste_id(id);
                let path = self.path_in(dir.id, &entry.name);
                self.read_failed(error, &found.key, Some(entry), path)?;
                Ok(None)
            }
        }
    }
}
