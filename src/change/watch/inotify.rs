//! The watcher for those who are not root: `notify`, one inotify watch a directory.
//!
//! `notify` speaks of paths, and its recursive mode loses what happens in a new directory before its
//! watch is there. So every directory of the [`DirectorySet`] gets a watch of its own when it is
//! inserted there, which is before it is listed; and because a directory's path changes when it or one
//! above it is renamed, each watch is placed through an alias, a symlink with a number that is never
//! used twice. Events then name the alias, and the alias stands for the directory's key.

use super::{
    Change, DirectorySet, Markers, ObjectKey, Path, PathBuf, Sink, Touch, Tree, WatchError, Written,
};
use crate::change::directories::DirectoryObserver;
use crate::change::dirty::Entry;
use crate::host::coarse_now;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ehpc_proto::replication::Timestamp;
use notify::event::{AccessKind, AccessMode, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the first half of a rename waits for the second.
const RENAME_PATIENCE: Duration = Duration::from_millis(10);
/// Events that are looked at together, so that many writes of one file cost one look-up.
const TOGETHER: usize = 1024;
/// Older than anything in the kernel's queue, generously.
const QUEUE_SECONDS: i64 = 60;
/// The alias of the fence directory.
const FENCE: u64 = 0;

/// A directory's alias and, but for the directory itself, a name in it.
type Spot = (u64, Option<Box<[u8]>>);

enum Seen {
    Entry(Spot),
    From(usize, Spot),
    To(usize, Spot),
    Both(usize, Spot, Spot),
    Touched(Spot, u8),
    Gone(u64),
    Overflow,
    Stop,
}

const MODIFIED: u8 = 1;
const CLOSED: u8 = 2;
const ATTRIBUTES: u8 = 4;

pub(super) struct InotifyWatch {
    registry: Arc<Registry>,
    directories: Arc<DirectorySet>,
    stop: Sender<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl InotifyWatch {
    pub(super) fn start(
        tree: &Arc<Tree>,
        sink: &Arc<Sink>,
        fence: &Path,
        aliases: &Path,
    ) -> Result<InotifyWatch, WatchError> {
        let at_aliases = |source| WatchError::Aliases { path: aliases.to_owned(), source };
        std::fs::create_dir_all(aliases).map_err(at_aliases)?;
        let aliases = aliases.canonicalize().map_err(at_aliases)?;
        let (sender, receiver) = unbounded();
        let translator = Translator { aliases: aliases.clone(), sender: sender.clone() };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = INotifyWatcher::new(translator, config).map_err(WatchError::InotifyStart)?;
        let registry = Arc::new(Registry {
            tree: Arc::clone(tree),
            aliases,
            watcher: Mutex::new(Some(watcher)),
            names: RwLock::default(),
            failures: Mutex::default(),
        });
        registry.watch_fence(fence)?;
        let taker = Taker {
            registry: Arc::clone(&registry),
            sink: Arc::clone(sink),
            held: None,
            touched: HashMap::new(),
            written: Written::default(),
        };
        let thread = std::thread::Builder::new()
            .name("inotify".to_owned())
            .spawn(move || taker.run(&receiver))
            .map_err(WatchError::Thread)?;
        sink.directories.observe(Arc::clone(&registry) as Arc<dyn DirectoryObserver>);
        let directories = Arc::clone(&sink.directories);
        Ok(InotifyWatch { registry, directories, stop: sender, thread: Some(thread) })
    }

    /// Tries again to watch what could not be watched.
    pub(super) fn retry(&self) {
        let failed: Vec<ObjectKey> = self.registry.failures.lock().keys.iter().cloned().collect();
        for key in failed {
            self.registry.inserted(&key);
            if self.registry.failures.lock().keys.contains(&key) {
                return;
            }
        }
        self.registry.failures.lock().why = None;
    }

    /// Directories without a watch, and why.
    pub(super) fn unwatched(&self) -> (u64, Option<String>) {
        let failures = self.registry.failures.lock();
        (failures.keys.len() as u64, failures.why.clone())
    }
}

impl Drop for InotifyWatch {
    fn drop(&mut self) {
        self.directories.unobserve();
        // Ends notify's thread, which owns the other sender.
        drop(self.registry.watcher.lock().take());
        if let (Ok(()), Some(thread)) = (self.stop.send(Seen::Stop), self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Runs on notify's thread, between the kernel's queue and ours: it only translates.
struct Translator {
    aliases: PathBuf,
    sender: Sender<Seen>,
}

impl Translator {
    fn spot(&self, path: &Path) -> Option<Spot> {
        let below = path.strip_prefix(&self.aliases).ok()?;
        let mut parts = below.iter();
        let alias = parts.next()?.to_str()?.parse().ok()?;
        Some((alias, parts.next().map(|name| name.as_bytes().into())))
    }

    fn translate(&self, event: &Event) -> Option<Seen> {
        if event.need_rescan() {
            return Some(Seen::Overflow);
        }
        let mut spots = event.paths.iter().filter_map(|path| self.spot(path));
        let spot = spots.next()?;
        let tracker = event.tracker();
        Some(match event.kind {
            EventKind::Create(_) => Seen::Entry(spot),
            EventKind::Remove(kind) => match &spot.1 {
                Some(_) => Seen::Entry(spot),
                None if kind == RemoveKind::File => return None,
                None => Seen::Gone(spot.0),
            },
            EventKind::Modify(ModifyKind::Name(mode)) => match (mode, tracker) {
                (RenameMode::From, Some(tracker)) => Seen::From(tracker, spot),
                (RenameMode::To, Some(tracker)) => Seen::To(tracker, spot),
                (RenameMode::Both, Some(tracker)) => Seen::Both(tracker, spot, spots.next()?),
                // The directory itself was moved: those that it was moved between say so.
                _ => return None,
            },
            EventKind::Modify(ModifyKind::Metadata(_)) => Seen::Touched(spot, ATTRIBUTES),
            EventKind::Modify(_) => Seen::Touched(spot, MODIFIED),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Seen::Touched(spot, CLOSED),
            // Opened or read, by our own sender most of all.
            EventKind::Access(_) => return None,
            EventKind::Any | EventKind::Other => return None,
        })
    }
}

impl notify::EventHandler for Translator {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let seen = match event {
            Ok(event) => self.translate(&event),
            Err(_) => Some(Seen::Overflow),
        };
        if let Some(seen) = seen {
            // The receiver is gone only when all of this ends.
            let _ = self.sender.send(seen);
        }
    }
}

#[derive(Default)]
struct Names {
    last: u64,
    key_of: HashMap<u64, ObjectKey>,
    alias_of: HashMap<ObjectKey, u64>,
}

#[derive(Default)]
struct Failures {
    keys: HashSet<ObjectKey>,
    why: Option<String>,
}

/// Aliases and the watches behind them.
struct Registry {
    tree: Arc<Tree>,
    aliases: PathBuf,
    /// `None` once it was stopped.
    watcher: Mutex<Option<INotifyWatcher>>,
    names: RwLock<Names>,
    failures: Mutex<Failures>,
}

impl Registry {
    fn alias_path(&self, alias: u64) -> PathBuf {
        self.aliases.join(alias.to_string())
    }

    fn watch_fence(&self, fence: &Path) -> Result<(), WatchError> {
        let at = |source| WatchError::Fence { path: fence.to_owned(), source };
        let target = fence.canonicalize().map_err(at)?;
        self.watch(FENCE, &target)
            .map_err(|source| WatchError::InotifyWatch { path: fence.to_owned(), source })
    }

    /// Watches `target` under the name of `alias`.
    fn watch(&self, alias: u64, target: &Path) -> Result<(), notify::Error> {
        let mut watcher = self.watcher.lock();
        let Some(watcher) = watcher.as_mut() else { return Ok(()) };
        let path = self.alias_path(alias);
        // Left behind by a process that was killed in between.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(notify::Error::io(error));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(target, &path).map_err(notify::Error::io)?;
        let watched = watcher.watch(&path, RecursiveMode::NonRecursive);
        let removed = std::fs::remove_file(&path);
        watched.and(removed.map_err(notify::Error::io))
    }

    fn key(&self, alias: u64) -> Option<ObjectKey> {
        self.names.read().key_of.get(&alias).cloned()
    }

    fn forget(&self, alias: u64) -> Option<ObjectKey> {
        let mut names = self.names.write();
        let key = names.key_of.remove(&alias)?;
        if names.alias_of.get(&key) == Some(&alias) {
            names.alias_of.remove(&key);
        }
        Some(key)
    }

    fn failed(&self, key: &ObjectKey, why: String) {
        let mut failures = self.failures.lock();
        if failures.why.is_none() {
            tracing::warn!(%why, "some directories are looked at by scans only");
        }
        failures.keys.insert(key.clone());
        failures.why = Some(why);
    }

    /// Records what became of a watch.
    fn placed(&self, key: &ObjectKey, alias: u64, result: Result<(), notify::Error>) {
        let Err(error) = result else {
            self.failures.lock().keys.remove(key);
            return;
        };
        self.forget(alias);
        match error.kind {
            // It is gone already; whoever lists it finds that out too.
            ErrorKind::PathNotFound => {}
            ErrorKind::Io(error) if matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => {}
            ErrorKind::MaxFilesWatch => {
                self.failed(
                    key,
                    "the limit fs.inotify.max_user_watches is reached; raise it with sysctl".to_owned(),
                );
            }
            other => self.failed(key, format!("a directory cannot be watched: {other:?}")),
        }
    }
}

impl DirectoryObserver for Registry {
    fn inserted(&self, key: &ObjectKey) {
        let alias = {
            let mut names = self.names.write();
            names.last += 1;
            let alias = names.last;
            names.key_of.insert(alias, key.clone());
            names.alias_of.insert(key.clone(), alias);
            alias
        };
        let result = match self.tree.open_path(key) {
            Ok(fd) => self.watch(alias, Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd()))),
            Err(error) => Err(notify::Error::io(error)),
        };
        self.placed(key, alias, result);
    }

    fn removed(&self, key: &ObjectKey) {
        self.failures.lock().keys.remove(key);
        let Some(alias) = self.names.read().alias_of.get(key).copied() else { return };
        self.forget(alias);
        if let Some(watcher) = self.watcher.lock().as_mut() {
            // Of a directory that was deleted, notify has dropped the watch by itself.
            let _ = watcher.unwatch(&self.alias_path(alias));
        }
    }
}

/// Turns what was seen into changes, on a thread of its own so that the kernel's queue is emptied fast.
struct Taker {
    registry: Arc<Registry>,
    sink: Arc<Sink>,
    /// The first half of a rename.
    held: Option<(usize, Spot)>,
    /// Objects touched since the last flush, by name, with what happened to them.
    touched: HashMap<Spot, u8>,
    written: Written,
}

impl Taker {
    fn run(mut self, receiver: &Receiver<Seen>) {
        loop {
            let first = if self.held.is_some() {
                receiver.recv_timeout(RENAME_PATIENCE)
            } else {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let mut next = match first {
                Ok(seen) => Some(seen),
                Err(RecvTimeoutError::Timeout) => {
                    self.release();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut count = 0;
            while let Some(seen) = next {
                count += 1;
                if matches!(seen, Seen::Stop) {
                    return;
                }
                self.take(seen);
                next = if count < TOGETHER { receiver.try_recv().ok() } else { None };
            }
            self.flush();
            self.sink.count(count as u64);
        }
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Entry((FENCE, Some(name))) => {
                // Everything before the marker is noted before the fence hears of it.
                self.release();
                self.flush();
                self.markers().delivered(&name);
            }
            Seen::Entry(spot) => self.entry(&spot),
            Seen::From(tracker, spot) => {
                self.release();
                self.held = Some((tracker, spot));
            }
            Seen::To(tracker, spot) => {
                // With its other half known, `Both` follows at once.
                if self.held.as_ref().is_none_or(|(held, _)| *held != tracker) {
                    self.entry(&spot);
                }
            }
            Seen::Both(tracker, from, to) => {
                if self.held.as_ref().is_some_and(|(held, _)| *held == tracker) {
                    self.held = None;
                }
                match (self.named(&from), self.named(&to)) {
                    (Some(from), Some(to)) => {
                        self.sink.note(Change::Entries([from, to].into_iter().collect()));
                    }
                    (Some(one), None) | (None, Some(one)) => {
                        self.sink.note(Change::Entries([one].into_iter().collect()));
                    }
                    (None, None) => {}
                }
            }
            Seen::Touched(spot, what) => *self.touched.entry(spot).or_default() |= what,
            Seen::Gone(alias) => {
                if let Some(key) = self.registry.forget(alias) {
                    self.sink.directories.remove(&key);
                    self.sink.object(key, Touch::ATTRIBUTES);
                }
            }
            Seen::Overflow => self.overflow(),
            Seen::Stop => {}
        }
    }

    fn overflow(&self) {
        // notify empties the kernel's queue all the time: what it held is younger than this.
        let now = coarse_now();
        self.sink.overflow(Timestamp { seconds: now.seconds - QUEUE_SECONDS, ..now });
    }

    fn markers(&self) -> &Markers {
        &self.sink.markers
    }

    fn named(&self, (alias, name): &Spot) -> Option<Entry> {
        Some(Entry { dir: self.registry.key(*alias)?, name: name.clone()? })
    }

    fn entry(&self, spot: &Spot) {
        if let Some(entry) = self.named(spot) {
            self.sink.note(Change::Entries([entry].into_iter().collect()));
        }
    }

    /// The held half of a rename stays alone: the other end is outside.
    fn release(&mut self) {
        if let Some((_, spot)) = self.held.take() {
            self.entry(&spot);
        }
    }

    /// Looks up the touched names' objects and notes them.
    fn flush(&mut self) {
        // Open directories only while they are used: a descriptor keeps a deleted directory alive.
        let mut open: HashMap<u64, std::io::Result<OwnedFd>> = HashMap::new();
        for ((alias, name), what) in std::mem::take(&mut self.touched) {
            let Some(dir) = self.registry.key(alias) else { continue };
            let Some(name) = name else {
                self.sink.object(dir, Touch::ATTRIBUTES);
                continue;
            };
            if open.len() > 64 {
                open.clear();
            }
            let fd = open.entry(alias).or_insert_with(|| self.registry.tree.open_path(&dir));
            let found = match fd {
                Ok(fd) => self.registry.tree.lookup(fd.as_fd(), &name),
                Err(error) => {
                    Err(std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
                }
            };
            match found {
                Ok(Some(found)) if found.stat.mount_root => {}
                Ok(Some(found)) => {
                    let touch = touch(&mut self.written, what, &found.key);
                    self.sink.object(found.key, touch);
                }
                // Gone or out of reach: whoever reads the entry finds out.
                Ok(None) => self.sink.note(Change::entry(&dir, &name)),
                Err(error) if is_lasting(&error) => self.sink.note(Change::entry(&dir, &name)),
                // Which object it was cannot be told now (out of descriptors or memory).
                Err(_) => self.overflow(),
            }
        }
    }
}

fn is_lasting(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ESTALE | libc::ENOENT | libc::EACCES | libc::EPERM | libc::ENOTDIR)
    )
}

fn touch(written: &mut Written, what: u8, key: &ObjectKey) -> Touch {
    let mut touch = Touch::ATTRIBUTES;
    if what & MODIFIED != 0 {
        touch.merge(written.modified(key));
    }
    if what & CLOSED != 0 {
        touch.merge(written.closed(key));
    }
    touch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::scans::Scans;
    use crate::change::{DirectorySet, DirtySet};

    #[test]
    fn a_directory_without_a_watch_is_counted_explained_and_tried_again() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["export", "fence"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        let tree = Arc::new(Tree::open(&root.path().join("export")).unwrap());
        let sink = Sink::new(DirtySet::new(), DirectorySet::new(), Scans::new());
        let (fence, aliases) = (root.path().join("fence"), root.path().join("aliases"));
        let watch = InotifyWatch::start(&tree, &sink, &fence, &aliases).unwrap();
        let registry = &watch.registry;
        // As the kernel answers when fs.inotify.max_user_watches is used up.
        registry.placed(tree.root_key(), 7, Err(notify::Error::new(ErrorKind::MaxFilesWatch)));
        let (unwatched, why) = watch.unwatched();
        assert_eq!(unwatched, 1);
        assert!(why.unwrap().contains("fs.inotify.max_user_watches"));
        watch.retry();
        assert_eq!(watch.unwatched(), (0, None));
        // One that is gone by then is no failure.
        let gone = notify::Error::io(std::io::Error::from_raw_os_error(libc::ESTALE));
        registry.placed(tree.root_key(), 8, Err(gone));
        assert_eq!(watch.unwatched(), (0, None));
        assert!(std::fs::read_dir(&aliases).unwrap().next().is_none(), "no alias stays behind");
    }
}
