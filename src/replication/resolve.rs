//! From "look here" to states: what the disk says now, compared with what the backup has.
//!
//! An entry is looked up in its directory; an object that nothing is known of is added (a directory: first to the set
//! that the watcher asks, then it is listed, in slices); a known one is compared with its row. Whatever belongs
//! together (both ends of a rename, names that a directory or a single link lost) is settled within one batch.

use super::build::{Closed, Draft};
use super::link::{Link, LinkDown};
use super::overlay::{View, ViewError};
use super::read::{ObjectReader, ReadError, Reading, SinkError, Subject};
use super::sender::acks::Acks;
use super::sender::outlet::Outlet;
use super::sender::queue::{Listing, Queue, TakeId, Work};
use super::sender::sink::{Progress, Sink};
use super::sender::status::{SenderStatus, Unreadable, hot_file_pause, shown};
use crate::change::directories::DirectorySet;
use crate::change::shadow::{Row, ShadowError};
use crate::change::touch::{Content, Entry, Touch};
use crate::host::{Found, ObjectKey, Stat, Tree};
use ehpc_proto::replication::{Kind, ObjectId, Position};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch is not held open longer than this for more work.
const OPEN_FOR: Duration = Duration::from_millis(250);
/// Readings that are remembered for the pause of files that change all the time.
const MOST_HOT: usize = 4_096;
/// Files from this size on are left alone for a while after they were read whole.
const HOT_FROM: u64 = 1024 * 1024;

/// What stops the work on a batch.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum Fault {
    #[error(transparent)]
    Link(#[from] LinkDown),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<ShadowError> for Fault {
    fn from(error: ShadowError) -> Fault {
        Fault::View(error.into())
    }
}

impl From<SinkError> for Fault {
    fn from(error: SinkError) -> Fault {
        match error {
            SinkError::Link(down) => Fault::Link(down),
            SinkError::Shadow(error) => error.into(),
            SinkError::Manifest(error) => Fault::View(error.into()),
        }
    }
}

/// Turns work into the next batch.
pub(crate) struct Resolver {
    pub tree: Arc<Tree>,
    pub directories: Arc<DirectorySet>,
    pub status: Arc<SenderStatus>,
    pub view: View,
    pub queue: Queue,
    pub outlet: Outlet,
    pub acks: Acks,
    draft: Draft,
    reader: ObjectReader,
    /// Directories whose times must be looked at before the batch is closed.
    restat: BTreeSet<ObjectId>,
    /// Objects that lost a name, and known ones that got another, in what is being settled.
    losers: Vec<ObjectId>,
    placed: Vec<(ObjectId, u32)>,
    /// The directory that was opened last.
    last_dir: Option<(ObjectKey, Arc<OwnedFd>)>,
    /// Large files read whole: when that ended, and how long it took.
    hot: HashMap<ObjectKey, (Instant, Duration)>,
    opened: Option<Instant>,
    /// Objects that are shipped when they are next read, even if nothing differs.
    distrusted: HashSet<ObjectId>,
}

/// Was this key made unusable by `Shadow::kill_keys`?
fn is_dead(key: &ObjectKey) -> bool {
    key.handle_type == -1
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT | libc::ENOTDIR))
}

impl Resolver {
    pub(crate) fn new(
        tree: Arc<Tree>,
        directories: Arc<DirectorySet>,
        status: Arc<SenderStatus>,
        view: View,
        acks: Acks,
    ) -> Resolver {
        Resolver {
            tree,
            directories,
            status,
            view,
            queue: Queue::default(),
            outlet: Outlet::default(),
            acks,
            draft: Draft::default(),
            reader: ObjectReader::default(),
            restat: BTreeSet::new(),
            losers: Vec::new(),
            placed: Vec::new(),
            last_dir: None,
            hot: HashMap::new(),
            opened: None,
            distrusted: HashSet::new(),
        }
    }

    /// The backup may not have what the shadow says it has of this object: it is shipped when it is next read, with
    /// every chunk that the backup then says it lacks. Gives its key; `None` = there is no such object.
    pub(crate) fn distrust(&mut self, id: ObjectId) -> Result<Option<ObjectKey>, Fault> {
        let Some(row) = self.view.row(id)? else { return Ok(None) };
        self.distrusted.insert(id);
        self.outlet.forget_sent();
        Ok(Some(row.key.clone()))
    }

    /// Opens an object; keys of a former file system lead nowhere.
    fn open_object(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        if is_dead(key) {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        self.tree.open_path(key)
    }

    /// The root, known under another key or not at all.
    pub(crate) fn add_root(&mut self, known: Option<Arc<Row>>, link: &mut dyn Link) -> Result<(), Fault> {
        let key = self.tree.root_key().clone();
        self.directories.insert(&key);
        let fd = match self.tree.open_path(&key) {
            Ok(fd) => fd,
            Err(error) => return self.no_root(&key, &error),
        };
        let touch = Touch::ATTRIBUTES;
        let subject = Subject { fd: fd.as_fd(), id: ObjectId::ROOT, key: &key, old: known.as_deref(), touch: &touch };
        match self.read(&subject, None, 0, link) {
            Ok(reading) => {
                if let Some(old) = &known {
                    self.view.forget_key(&old.key);
                }
                self.ship(key.clone(), reading);
                let filesystem_id = self.tree.filesystem_id();
                self.view.shadow().set_export(&key, &filesystem_id)?;
                self.queue.list(0, key, false);
                Ok(())
            }
            Err(ReadError::Sink(error)) => Err(error.into()),
            Err(error) => self.no_root(&key, &io::Error::other(error.to_string())),
        }
    }

    fn no_root(&self, key: &ObjectKey, error: &io::Error) -> Result<(), Fault> {
        self.not_readable(key, None, Vec::new(), error.to_string());
        let reason = format!("the export's root cannot be read: {error}");
        Err(Fault::Link(LinkDown::Refused { reason }))
    }

    /// Should the batch be closed?
    pub(crate) fn wants_closing(&self) -> bool {
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.draft.is_full(&self.view) || self.opened.is_some_and(|opened| opened.elapsed() >= OPEN_FOR)
    }

    /// Works until the batch is full or nothing is left to do. After a fault the batch must be abandoned.
    pub(crate) fn work(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        self.opened = Some(Instant::now());
        while !self.is_full() {
            if let Some((take, work)) = self.queue.next() {
                let done = match &work {
                    Work::Object(key, touch) => self.object(take, key, touch, link).map(|()| true),
                    Work::Entries(entries) => self.entries(take, entries, link).map(|()| true),
                    Work::Destroy(id) => self.destroy_slowly(take, *id, link),
                };
                match done {
                    Ok(true) => self.queue.done(take),
                    Ok(false) => self.queue.put_back(take, work),
                    Err(fault) => {
                        self.queue.put_back(take, work);
                        return Err(fault);
                    }
                }
            } else if let Some(listing) = self.queue.next_listing() {
                self.listing(listing, link)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Closes the batch after `last`; `None` when there is nothing to ship.
    pub(crate) fn close(&mut self, last: Position, link: &mut dyn Link) -> Result<Option<Closed>, Fault> {
        while let Some(id) = self.restat.pop_first() {
            if let Err(fault) = self.look_at_times(id, link) {
                self.restat.insert(id);
                return Err(fault);
            }
        }
        self.last_dir = None;
        self.opened = None;
        let cut = self.queue.reached();
        Ok(self.draft.close(&mut self.view, last, cut, crate::host::now())?)
    }

    /// Work that must be done again because batches from `first` on will never be; the cut goes back to `reached`.
    pub(crate) fn abandon(&mut self, first: u64, reached: u64) -> Result<(), Fault> {
        let mut work = Vec::new();
        for id in std::mem::take(&mut self.restat) {
            if let Some(row) = self.view.row(id)? {
                work.push(Work::Object(row.key.clone(), Touch::ATTRIBUTES));
            }
        }
        let abandoned = self.view.abandon(first)?;
        let names = abandoned.names.into_iter();
        work.extend(names.map(|(dir, name)| Work::Entries([Entry { dir, name }].into_iter().collect())));
        work.extend(abandoned.keys.into_iter().map(|key| Work::Object(key, Touch::CONTENT)));
        self.draft.clear();
        self.losers.clear();
        self.placed.clear();
        self.last_dir = None;
        self.queue.redo(reached, work);
        Ok(())
    }

    /// Forgets the batch under construction (everything is to be found anew).
    pub(crate) fn forget_draft(&mut self) {
        self.draft.clear();
        self.restat.clear();
        self.losers.clear();
        self.placed.clear();
        self.last_dir = None;
    }

    // Entries.

    fn entries(&mut self, take: TakeId, entries: &[Entry], link: &mut dyn Link) -> Result<(), Fault> {
        for entry in entries {
            if !self.queue.will_be_listed(&entry.dir) {
                self.entry(take, entry, false, link)?;
            }
        }
        self.settle(take, link)
    }

    fn open_dir(&mut self, key: &ObjectKey) -> io::Result<Arc<OwnedFd>> {
        if let Some((held, fd)) = &self.last_dir
            && held == key
        {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(self.open_object(key)?);
        self.last_dir = Some((key.clone(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Looks a name up and notes where it leads. `deep`: also look into what is known already.
    fn entry(&mut self, take: TakeId, entry: &Entry, deep: bool, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(dir) = self.view.row_by_key(&entry.dir)? else { return Ok(()) };
        if dir.kind != Kind::Directory {
            return Ok(());
        }
        let found = match self.open_dir(&entry.dir) {
            Ok(fd) => self.tree.lookup_open(fd.as_fd(), &entry.name),
            Err(error) if is_gone(&error) => {
                // What was in it goes with it, once it is sure that it is gone.
                self.queue.spawn(take, Work::Object(entry.dir.clone(), Touch::ATTRIBUTES));
                return Ok(());
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
                return Ok(());
            }
        };
        let found = found.filter(|(_, found)| self.is_ours(dir.id, &entry.name, &found.stat));
        let child = match found {
            Some((fd, found)) => self.found(take, entry, &dir, fd, found, deep, link)?,
            None => None,
        };
        let old = self.view.entry(dir.id, &entry.name)?;
        if old != child {
            self.view.set_entry(dir.id, &entry.name, child);
            self.losers.extend(old);
        }
        Ok(())
    }

    /// Not another mount.
    fn is_ours(&self, dir: ObjectId, name: &[u8], stat: &Stat) -> bool {
        let path = if stat.mount_root { self.path_in(dir, name) } else { return true };
        self.status.mount_point(path);
        false
    }

    fn path_in(&self, dir: ObjectId, name: &[u8]) -> Vec<u8> {
        let mut path = self.view.path_of(dir).ok().flatten().unwrap_or_else(|| b"?".to_vec());
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The object that a name leads to; `None` when it cannot be told or is gone again.
    #[allow(clippy::too_many_arguments)] // one step of `entry`
    fn found(
        &mut self,
        take: TakeId,
        entry: &Entry,
        dir: &Row,
        fd: OwnedFd,
        found: Found,
        deep: bool,
        link: &mut dyn Link,
    ) -> Result<Option<ObjectId>, Fault> {
        let Some(row) = self.view.row_by_key(&found.key)? else {
            return self.add(take, entry, dir, &fd, &found, link);
        };
        if row.kind != found.stat.kind {
            // The key of a former object, used anew.
            self.destroy(take, &row)?;
            return self.add(take, entry, dir, &fd, &found, link);
        }
        let is_new_name = self.view.entry(dir.id, &entry.name)? != Some(row.id);
        let was_lost = is_new_name && row.id != ObjectId::ROOT && self.view.names_of(row.id)?.is_empty();
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
        fd: &OwnedFd,
        found: &Found,
        link: &mut dyn Link,
    ) -> Result<Option<ObjectId>, Fault> {
        let is_dir = found.stat.kind == Kind::Directory;
        // From here on the watcher cares for it; what happened before, the reading sees.
        if is_dir {
            self.directories.insert(&found.key);
        } else {
            self.directories.insert_object(&found.key);
        }
        let id = self.view.new_id();
        let subject =
            Subject { fd: fd.as_fd(), id, key: &found.key, old: None, touch: &Touch::CONTENT };
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
                let path = self.path_in(dir.id, &entry.name);
                self.read_failed(error, &found.key, Some(entry), path)?;
                Ok(None)
            }
        }
    }

    fn ship(&mut self, key: ObjectKey, reading: Reading) {
        let Reading { state, ctime, racy, .. } = reading;
        if state.fuzzy {
            self.status.update(|report| report.fuzzy_files += 1);
        }
        self.view.put(Row::of_state(&state, key, ctime, racy));
        self.draft.put(state);
    }

    fn read(
        &mut self,
        subject: &Subject<'_>,
        path: Option<Vec<u8>>,
        size: u64,
        link: &mut dyn Link,
    ) -> Result<Reading, ReadError> {
        let progress = path.map(|path| Progress::new(&self.status, shown(&path), size));
        let mut sink =
            Sink { link, outlet: &mut self.outlet, view: &mut self.view, acks: &mut self.acks, progress };
        let reading = self.reader.read(&self.tree, subject, &mut sink)?;
        if reading.read_bytes > 0 {
            self.status.update(|report| report.read_bytes += reading.read_bytes);
        }
        Ok(reading)
    }

    /// A failed reading is the status's business, unless the link or the shadow failed. True if the object is gone.
    fn read_failed(
        &mut self,
        error: ReadError,
        key: &ObjectKey,
        entry: Option<&Entry>,
        path: Vec<u8>,
    ) -> Result<bool, Fault> {
        match error {
            ReadError::Sink(error) => Err(error.into()),
            ReadError::Gone => {
                self.status.readable(key);
                Ok(true)
            }
            ReadError::Io { .. } | ReadError::Manifest(_) => {
                self.not_readable(key, entry, path, error.to_string());
                Ok(false)
            }
        }
    }

    fn not_readable(&self, key: &ObjectKey, entry: Option<&Entry>, path: Vec<u8>, reason: String) {
        self.status.unreadable(key, entry.cloned(), Unreadable { path: shown(&path), reason });
    }

    /// Everything that must share the batch: names that moved objects still have elsewhere, objects without a name.
    fn settle(&mut self, take: TakeId, link: &mut dyn Link) -> Result<(), Fault> {
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

    fn look_again(&mut self, take: TakeId, parent: ObjectId, name: &[u8], link: &mut dyn Link) -> Result<(), Fault> {
        match self.view.row(parent)? {
            Some(dir) => self.entry(take, &Entry { dir: dir.key.clone(), name: name.into() }, false, link),
            None => Ok(()),
        }
    }

    /// A known object has a new name: a directory has no other, anything else at most as many as it has links.
    fn drop_stale_names(&mut self, take: TakeId, id: ObjectId, nlink: u32, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row(id)? else { return Ok(()) };
        let allowed = if row.kind == Kind::Directory { 1 } else { nlink as usize };
        for _ in 0..3 {
            let names = self.view.names_of(id)?;
            if names.len() <= allowed {
                return Ok(());
            }
            for (parent, name) in names {
                self.look_again(take, parent, &name, link)?;
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

    fn later(&mut self, take: TakeId, parent: ObjectId, name: &[u8]) -> Result<(), Fault> {
        if let Some(dir) = self.view.row(parent)? {
            let entry = Entry { dir: dir.key.clone(), name: name.into() };
            self.queue.spawn(take, Work::Entries([entry].into_iter().collect()));
        }
        Ok(())
    }

    /// The entries from `id` up to itself, if it is under itself.
    fn cycle_of(&self, id: ObjectId) -> Result<Option<Vec<(ObjectId, Box<[u8]>)>>, Fault> {
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
    fn break_cycle(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
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
    fn look_for(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
        if id == ObjectId::ROOT || !self.tree.opens_by_handle() || !self.view.names_of(id)?.is_empty() {
            return Ok(());
        }
        let Some(row) = self.view.row(id)? else { return Ok(()) };
        let stat = self.open_object(&row.key).and_then(|fd| Tree::stat(fd.as_fd()));
        match stat {
            Ok(stat) if stat.nlink > 0 && stat.kind == row.kind => match self.locate(&row.key) {
                Some(entry) => self.entry(take, &entry, false, link),
                None => Ok(()),
            },
            Ok(_) => self.destroy(take, &row),
            Err(error) if is_gone(&error) => self.destroy(take, &row),
            Err(_) => Ok(()),
        }
    }

    /// The name that an object has now, as far as the kernel knows one within the export.
    fn locate(&self, key: &ObjectKey) -> Option<Entry> {
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

    // Objects.

    fn object(&mut self, take: TakeId, key: &ObjectKey, touch: &Touch, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row_by_key(key)? else {
            // Its entry will be found, unless it was found before and could not be read.
            return match self.status.readable(key) {
                Some(entry) => self.entries(take, &[entry], link),
                None => Ok(()),
            };
        };
        if touch.listing && row.kind == Kind::Directory && !self.queue.will_be_listed(key) {
            self.queue.list(take, key.clone(), false);
        }
        let opened = self.open_object(key).and_then(|fd| Tree::stat(fd.as_fd()).map(|stat| (fd, stat)));
        let (fd, stat) = match opened {
            Ok((fd, stat)) if stat.nlink > 0 && stat.kind == row.kind => (fd, stat),
            Ok(_) => return self.vanished(take, &row, link),
            Err(error) if is_gone(&error) => return self.vanished(take, &row, link),
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
                self.queue.defer(due, take, key.clone(), touch.clone());
                return Ok(());
            }
        }
        self.read_known(take, fd.as_fd(), &row, touch, link)
    }

    /// One of an object's names.
    fn an_entry(&self, id: ObjectId) -> Result<Option<Entry>, Fault> {
        let Some((parent, name)) = self.view.names_of(id)?.into_iter().next() else { return Ok(None) };
        Ok(self.view.row(parent)?.map(|dir| Entry { dir: dir.key.clone(), name }))
    }

    fn read_known(
        &mut self,
        take: TakeId,
        fd: std::os::fd::BorrowedFd<'_>,
        row: &Arc<Row>,
        touch: &Touch,
        link: &mut dyn Link,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let distrusted = self.distrusted.remove(&row.id);
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
            self.ship(row.key.clone(), reading);
        } else if row.ctime != reading.ctime || row.racy != reading.racy {
            let noted = Row { ctime: reading.ctime, racy: reading.racy, ..Row::clone(row) };
            self.view.put_unshipped(noted)?;
        }
        Ok(())
    }

    /// A directory in which names were looked at: do its own times differ?
    fn look_at_times(&mut self, id: ObjectId, link: &mut dyn Link) -> Result<(), Fault> {
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
    fn vanished(&mut self, take: TakeId, row: &Arc<Row>, link: &mut dyn Link) -> Result<(), Fault> {
        for (parent, name) in self.view.names_of(row.id)? {
            self.look_again(take, parent, &name, link)?;
        }
        if row.id != ObjectId::ROOT && self.tree.opens_by_handle() {
            self.destroy(take, row)?;
        }
        self.settle(take, link)
    }

    /// The object is gone for good. A directory goes after everything that is still under it.
    fn destroy(&mut self, take: TakeId, row: &Row) -> Result<(), Fault> {
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
    fn destroy_slowly(&mut self, take: TakeId, id: ObjectId, link: &mut dyn Link) -> Result<bool, Fault> {
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
                Some(entry) => self.entry(0, &entry, true, link)?,
                None => self.destroy(0, &row)?,
            }
            self.settle(0, link)?;
        }
        Ok(last)
    }

    // Listings.

    fn listing(&mut self, mut listing: Listing, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row_by_key(&listing.dir)? else {
            self.queue.done(listing.take);
            return Ok(());
        };
        if listing.names.is_none() {
            match self.names_in(&row, &mut listing) {
                Ok(names) => listing.names = Some(names?),
                Err(error) => {
                    self.listing_failed(&row, &listing, &error)?;
                    self.queue.done(listing.take);
                    return Ok(());
                }
            }
        }
        while let Some(name) = listing.names.as_mut().and_then(Vec::pop) {
            let entry = Entry { dir: listing.dir.clone(), name };
            let result = self
                .entry(listing.take, &entry, listing.deep, link)
                .and_then(|()| self.settle(listing.take, link));
            if let Err(fault) = result {
                listing.names.get_or_insert_default().push(entry.name);
                self.queue.put_listing_back(listing);
                return Err(fault);
            }
            if self.is_full() {
                self.queue.put_listing_back(listing);
                return Ok(());
            }
        }
        listing.share += 1;
        if listing.share < listing.shares {
            listing.names = None;
            self.queue.put_listing_back(listing);
        } else {
            self.status.readable(&listing.dir);
            self.restat.insert(row.id);
            self.queue.done(listing.take);
        }
        Ok(())
    }

    fn listing_failed(&mut self, row: &Arc<Row>, listing: &Listing, error: &io::Error) -> Result<(), Fault> {
        if is_gone(error) {
            self.queue.spawn(listing.take, Work::Object(row.key.clone(), Touch::ATTRIBUTES));
            return Ok(());
        }
        let path = self.view.path_of(row.id)?.unwrap_or_default();
        let entry = self.an_entry(row.id)?;
        self.not_readable(&row.key, entry.as_ref(), path, format!("cannot list it: {error}"));
        Ok(())
    }

    /// The names of the share that is due, on the disk or known, in order of inode from the end (which is how they
    /// lie on a disk).
    #[allow(clippy::type_complexity)] // the outer error is the directory's, the inner one the shadow's
    fn names_in(&mut self, row: &Row, listing: &mut Listing) -> io::Result<Result<Vec<Box<[u8]>>, Fault>> {
        let fd = self.open_dir(&row.key)?;
        let (share, mut shares) = (listing.share, listing.shares);
        let mut found: Vec<(u64, Box<[u8]>)> = Vec::new();
        self.tree.list(fd.as_fd(), &mut |name, inode, _| {
            if share_of(name, shares) == share {
                found.push((inode, name.into()));
            }
            if found.len() > SHARE_NAMES && share == 0 {
                shares *= 2;
                found.retain(|(_, name)| share_of(name, shares) == 0);
            }
            true
        })?;
        listing.shares = shares;
        let known = match self.view.entries(row.id) {
            Ok(known) => known,
            Err(error) => return Ok(Err(error.into())),
        };
        if !known.is_empty() {
            let listed: std::collections::HashSet<Box<[u8]>> = found.iter().map(|(_, name)| name.clone()).collect();
            let gone = known.into_iter().map(|(name, _)| name.into_boxed_slice());
            found.extend(gone.filter(|name| share_of(name, shares) == share && !listed.contains(name)).map(|name| (0, name)));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Ok(found.into_iter().map(|(_, name)| name).collect()))
    }
}

/// Names that are held at once.
const SHARE_NAMES: usize = 100_000;

/// Which of `shares` (a power of two) a name belongs to.
fn share_of(name: &[u8], shares: u32) -> u32 {
    if shares == 1 {
        return 0;
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in name {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    (hash ^ (hash >> 16)) & (shares - 1)
}
