//! From "look here" to states: what the disk says now, compared with what the backup has.
//!
//! An entry is looked up in its directory; an object that nothing is known of is added (a directory: first to the set
//! that the watcher asks, then it is listed, in slices); a known one is compared with its row. Whatever belongs
//! together (both ends of a rename, names that a directory or a single link lost) is settled within one batch.

mod entries;
mod listing;
mod objects;
mod settle;

use super::build::{Closed, Draft};
use super::link::{Link, LinkDown};
use super::overlay::{View, ViewError};
use super::read::{ObjectReader, ReadError, Reading, SinkError, Subject};
use super::sender::acks::Acks;
use super::sender::outlet::Outlet;
use super::sender::queue::{Queue, TakeId, Work};
use super::sender::sink::{Progress, Sink};
use super::sender::status::{SenderStatus, Unreadable, shown};
use crate::change::directories::DirectorySet;
use crate::change::shadow::{Row, ShadowError};
use crate::change::touch::{Entry, Touch};
use crate::host::ahead::Ahead;
use crate::host::{ObjectKey, Tree};
use ehpc_proto::replication::{Kind, ObjectId, Position};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
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

/// How long to wait before an object that is not where it was is looked for again; the first time only until all other
/// work is done.
const NOT_THERE_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1)];
/// Extended attributes of one object that fit a batch, bytes.
const MOST_XATTR_BYTES: usize = 1024 * 1024;

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
    ahead: Ahead,
    /// Directories whose times must be looked at before the batch is closed.
    restat: BTreeSet<ObjectId>,
    /// Objects that lost a name, and known ones that got another, in what is being settled.
    losers: Vec<ObjectId>,
    placed: Vec<(ObjectId, u32)>,
    /// Objects that exist and have no name here (yet): looked at again and again.
    limbo: VecDeque<ObjectId>,
    /// The directory that was opened last.
    last_dir: Option<(ObjectKey, Arc<OwnedFd>)>,
    /// Large files read whole: when that ended, and how long it took.
    hot: HashMap<ObjectKey, (Instant, Duration)>,
    opened: Option<Instant>,
    /// Objects that are shipped when they are next read, even if nothing differs.
    distrusted: HashSet<ObjectId>,
    /// Those that were, and the batch that holds them.
    reshipped: Vec<(u64, ObjectId)>,
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
            ahead: Ahead::default(),
            restat: BTreeSet::new(),
            losers: Vec::new(),
            placed: Vec::new(),
            limbo: VecDeque::new(),
            last_dir: None,
            hot: HashMap::new(),
            opened: None,
            distrusted: HashSet::new(),
            reshipped: Vec::new(),
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

    /// Opens an object where it was last seen; keys of a former file system lead nowhere.
    fn open_object(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        if is_dead(key) {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        self.tree.open_known(key)
    }

    /// Without handles an object is where a rename put it only after that was looked at: `work` is tried again then.
    fn not_there(&mut self, take: TakeId, work: Work, tries: u8) {
        match NOT_THERE_PAUSES.get(usize::from(tries)) {
            Some(pause) if pause.is_zero() => self.queue.spawn(take, Work::Again(Box::new(work), tries + 1)),
            Some(pause) => {
                self.queue.defer(Instant::now() + *pause, take, Work::Again(Box::new(work), tries + 1));
            }
            // It is gone, or a scan will find where it is.
            None => {}
        }
    }

    fn again(&mut self, take: TakeId, work: &Work, tries: u8, link: &mut dyn Link) -> Result<(), Fault> {
        match work {
            Work::Object(key, touch) => self.object(take, key, touch, tries, link),
            Work::Entries(entries) => self.entries(take, entries, tries, link),
            Work::Destroy(_) | Work::Again(..) => Ok(()),
        }
    }

    /// The watcher reports changes of this object from now on.
    fn watch(&self, key: &ObjectKey, is_dir: bool) {
        if is_dir {
            self.directories.insert(key);
        } else {
            self.directories.insert_object(key);
        }
    }

    /// An object that was learnt of from the backup.
    pub(crate) fn know(&self, row: &Row) {
        self.watch(&row.key, row.kind == Kind::Directory);
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
        let subject = Subject {
            fd: fd.as_fd(),
            id: ObjectId::ROOT,
            key: &key,
            old: known.as_deref(),
            touch: &touch,
            seen: None,
        };
        match self.read(&subject, None, 0, link) {
            Ok(reading) => {
                if let Some(old) = &known {
                    self.view.forget_key(&old.key);
                }
                self.ship(key.clone(), reading);
                let filesystem_id = self.tree.filesystem_id();
                Ok(self.view.shadow().set_export(&key, &filesystem_id)?)
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
        if self.queue.is_idle() {
            return Ok(());
        }
        self.view.shadow().hold()?;
        self.opened = Some(Instant::now());
        while !self.is_full() {
            if let Some((take, work)) = self.queue.next() {
                let done = match &work {
                    Work::Object(key, touch) => self.object(take, key, touch, 0, link).map(|()| true),
                    Work::Entries(entries) => self.entries(take, entries, 0, link).map(|()| true),
                    Work::Destroy(id) => self.destroy_slowly(take, *id, link),
                    Work::Again(work, tries) => self.again(take, work, *tries, link).map(|()| true),
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
        self.look_into_limbo(link)?;
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
        let reshipped = std::mem::take(&mut self.reshipped).into_iter();
        self.distrusted.extend(reshipped.filter(|(batch, _)| *batch >= first).map(|(_, id)| id));
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

    fn ship(&mut self, key: ObjectKey, reading: Reading) {
        let Reading { state, ctime, racy, .. } = reading;
        if state.fuzzy {
            self.status.update(|report| report.fuzzy_states += 1);
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
        let mut sink = Sink {
            link,
            outlet: &mut self.outlet,
            view: &mut self.view,
            acks: &mut self.acks,
            anew: subject.old.is_none(),
            progress: path.map(|path| Progress::new(&self.status, shown(&path), size)),
        };
        let reading = self.reader.read(&self.tree, subject, &mut sink)?;
        let xattr_bytes: usize =
            reading.state.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        if xattr_bytes > MOST_XATTR_BYTES {
            let source =
                io::Error::other(format!("{xattr_bytes} bytes, at most {MOST_XATTR_BYTES} are carried"));
            return Err(ReadError::Io { what: "ship its extended attributes", source });
        }
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
            ReadError::Io { .. } | ReadError::Manifest(_) | ReadError::TooLarge => {
                self.not_readable(key, entry, path, error.to_string());
                Ok(false)
            }
        }
    }

    fn not_readable(&self, key: &ObjectKey, entry: Option<&Entry>, path: Vec<u8>, reason: String) {
        self.status.unreadable(key, entry.cloned(), Unreadable { path: shown(&path), reason });
    }
}
