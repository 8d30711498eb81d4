//! Known objects: read again, or found to be gone.

use super::{Fault, HOT_FROM, MOST_HOT, Resolver, is_dead, is_gone};
use crate::change::shadow::Row;
use crate::change::touch::{Content, Entry, Touch};
use crate::host::{ObjectKey, Tree};
use crate::replication::link::Link;
use crate::replication::read::Subject;
use crate::replication::sender::queue::{TakeId, Work};
use crate::replication::sender::status::hot_file_pause;
use ehpc_proto::replication::{Kind, ObjectId};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

impl Resolver {
    pub(super) fn object(
        &mut self,
        take: TakeId,
        key: &ObjectKey,
        touch: &Touch,
        tries: u8,
        link: &mut dyn Link,
    ) -> Result<(), Fault> {
        let Some(row) = self.view.row_by_key(key)? else {
            // Its entry will be found, unless it was found before and could not be read.
            return match self.status.readable(key) {
                Some(entry) => self.entries(take, &[entry], 0, link),
                None => Ok(()),
            };
        };
        if touch.listing && row.kind == Kind::Directory && tries == 0 {
            self.queue.list(take, key.clone(), false);
        }
        let opened = self.open_object(key).and_then(|fd| Tree::stat(fd.as_fd()).map(|stat| (fd, stat)));
        let (fd, stat) = match opened {
            Ok((fd, stat)) if stat.nlink > 0 && stat.kind == row.kind => (fd, stat),
            Ok(_) => return self.vanished(take, &row, link),
            Err(error) if is_gone(&error) => {
                let elsewhere = !self.tree.opens_by_handle() && !is_dead(key) && row.id != ObjectId::ROOT;
                if elsewhere && self.view.names_of(row.id)?.is_empty() {
                    return Ok(()); // the end of a scan will tell
                }
                if elsewhere {
                    self.not_there(take, Work::Object(key.clone(), touch.clone()), tries);
                    return Ok(());
                }
                return self.vanished(take, &row, link);
            }
            Err(error) => {
                let path = self.view.path_of(row.id)?.unwrap_or_default();
                self.not_readable(key, self.an_entry(row.id)?.as_ref(), path, format!("cannot open it: {error}"));
                return Ok(());
            }
        };
        if stat.size >= HOT_FROM && touch.content == Content::All
            && let Some((ended, took)) = self.hot.get(key)
        {
            let due = *ended + hot_file_pause(*took);
            if due > Instant::now() {
                self.queue.defer(due, take, Work::Object(key.clone(), touch.clone()));
                return Ok(());
            }
        }
        self.read_known(take, fd.as_fd(), &row, touch, link)
    }

    /// One of an object's names.
    pub(super) fn an_entry(&self, id: ObjectId) -> Result<Option<Entry>, Fault> {
        let Some((parent, name)) = self.view.names_of(id)?.into_iter().next() else { return Ok(None) };
        Ok(self.view.row(parent)?.map(|dir| Entry { dir: dir.key.clone(), name }))
    }

    pub(super) fn read_known(
        &mut self,
        take: TakeId,
        fd: BorrowedFd<'_>,
        row: &Arc<Row>,
        touch: &Touch,
        link: &mut dyn Link,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let distrusted = self.distrusted.contains(&row.id);
        let old = if distrusted { None } else { Some(&**row) };
        let subject = Subject { fd, id: row.id, key: &row.key, old, touch };
        let is_large = row.kind == Kind::File && row.size >= HOT_FROM;
        let path = if is_large { self.view.path_of(row.id)? } else { None };
        let reading = match self.read(&subject, path, row.size, link) {
            Ok(reading) => reading,
            Err(error) => {
                let path = self.view.path_of(row.id)?.unwrap_or_default();
                let entry = self.an_entry(row.id)?;
                if self.read_failed(error, &row.key, entry.as_ref(), path)? {
                    self.vanished(take, row, link)?;
                }
                return Ok(());
            }
        };
        self.status.readable(&row.key);
        if reading.read_bytes >= HOT_FROM {
            if self.hot.len() >= MOST_HOT {
                self.hot.retain(|_, (ended, took)| ended.elapsed() < hot_file_pause(*took));
            }
            self.hot.insert(row.key.clone(), (Instant::now(), begun.elapsed()));
        }
        if distrusted || !row.equals_state(&reading.state) {
            if self.distrusted.remove(&row.id) {
                self.reshipped.push((self.view.open_number(), row.id));
            }
            self.ship(row.key.clone(), reading);
        } else if row.ctime != reading.ctime || row.racy != reading.racy {
            let noted = Row { ctime: reading.ctime, racy: reading.racy, ..Row::clone(row) };
            self.view.put_unshipped(noted)?;
        }
        Ok(())
    }

    /// A directory in which names were looked at: do its own times differ?
    pub(super) fn look_at_times(&mut self, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row(id)? else { return Ok(()) };
        let opened = self.open_object(&row.key).and_then(|fd| Tree::stat(fd.as_fd()).map(|stat| (fd, stat)));
        match opened {
            Ok((fd, stat)) if stat.ctime != row.ctime || stat.mtime != row.mtime => {
                // Take 0 counts nothing: what this may lead to is noted by those who changed it.
                self.read_known(0, fd.as_fd(), &row, &Touch::ATTRIBUTES, link)
            }
            _ => Ok(()),
        }
    }

    /// A known object cannot be opened any more.
    pub(super) fn vanished(&mut self, take: TakeId, row: &Arc<Row>, link: &mut dyn Link) -> Result<(), Fault> {
        for (parent, name) in self.view.names_of(row.id)? {
            self.look_again(take, parent, &name, link)?;
        }
        if row.id != ObjectId::ROOT && self.tree.opens_by_handle() {
            self.destroy(take, row)?;
        }
        self.settle(take, link)
    }

    /// The object is gone for good. A directory goes after everything that is still under it.
    pub(super) fn destroy(&mut self, take: TakeId, row: &Row) -> Result<(), Fault> {
        for (parent, name) in self.view.names_of(row.id)? {
            self.view.set_entry(parent, &name, None);
            self.restat.insert(parent);
        }
        self.status.readable(&row.key);
        if row.kind == Kind::Directory {
            self.directories.remove(&row.key);
            self.queue.spawn(take, Work::Destroy(row.id));
        } else {
            self.view.destroy(row);
            self.draft.forget(row.id);
        }
        Ok(())
    }

    /// Empties a directory that is gone, as far as this batch has room; true when it is done.
    pub(super) fn destroy_slowly(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<bool, Fault> {
        let Some(row) = self.view.row(id)? else { return Ok(true) };
        if !self.view.names_of(id)?.is_empty() {
            return Ok(true); // it is back
        }
        for (name, child) in self.view.entries(id)? {
            if self.is_full() {
                return Ok(false);
            }
            self.view.set_entry(id, &name, None);
            if self.tree.opens_by_handle() {
                self.losers.push(child);
                self.settle(take, link)?;
            } else if self.view.names_of(child)?.is_empty()
                && let Some(row) = self.view.row(child)?
            {
                self.destroy(take, &row)?;
            }
        }
        self.restat.remove(&id);
        self.view.destroy(&row);
        self.draft.forget(id);
        Ok(true)
    }

    /// After a scan: objects without any name are not in the export. The last of those looked at; `None` = no more.
    pub(crate) fn drop_orphans(&mut self, after: ObjectId, link: &mut dyn Link) -> Result<Option<ObjectId>, Fault> {
        let orphans = self.view.shadow().orphans(after, 256)?;
        let last = orphans.last().copied();
        for id in orphans {
            let Some(row) = self.view.row(id)? else { continue };
            if !self.view.names_of(id)?.is_empty() {
                continue;
            }
            match self.locate(&row.key).filter(|_| self.tree.opens_by_handle()) {
                Some(entry) => {
                    self.entry(0, &entry, true, link)?;
                }
                None => self.destroy(0, &row)?,
            }
            self.settle(0, link)?;
        }
        Ok(last)
    }
}
