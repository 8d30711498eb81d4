//! Objects of a tree that cannot open by handle: found by name, and counted only if the key is the one asked for.

use super::file::{c_name, open_name};
use super::names::MAX_DEPTH;
use super::{ObjectKey, Tree, statx};
use ehpc_proto::replication::Kind;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most entries that one search for a lost object looks at.
const WALK_ENTRIES: usize = 2_000_000;
/// Longest that one search for a lost object takes.
const WALK_TIME: Duration = Duration::from_secs(10);

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

impl Tree {
    /// As [`Tree::open_path`], but where that would have to search the tree the object counts as stale.
    pub fn open_known(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        if self.opens_by_handle() || key == self.root_key() {
            return self.open_path(key);
        }
        self.follow_places(key).or_else(|| self.follow_hints(key, 0)).ok_or_else(stale)
    }

    pub(super) fn find_by_name(&self, key: &ObjectKey) -> io::Result<OwnedFd> {
        if key.kind != self.key_kind() {
            return Err(stale());
        }
        if let Some(fd) = self.follow_places(key) {
            return Ok(fd);
        }
        if let Some(fd) = self.follow_hints(key, 0) {
            return Ok(fd);
        }
        if self.places.lock().is_missing(key) {
            return Err(stale());
        }
        let _one_at_a_time = self.search.lock();
        if let Some(fd) = self.follow_places(key) {
            return Ok(fd);
        }
        if self.places.lock().is_missing(key) {
            return Err(stale());
        }
        match self.walk_for(key)? {
            Some(fd) => Ok(fd),
            // A rename that overtook the walk has remembered the new place by now.
            None => self.follow_places(key).ok_or_else(|| {
                self.places.lock().note_missing(key);
                stale()
            }),
        }
    }

    fn follow_places(&self, key: &ObjectKey) -> Option<OwnedFd> {
        let path = self.places.lock().path(key, self.root_key())?;
        let mut at: Option<OwnedFd> = None;
        for place in &path {
            let dir = at.as_ref().map_or(self.root_fd(), AsFd::as_fd);
            at = Some(open_name(dir, &c_name(&place.name).ok()?).ok()?);
        }
        self.confirmed(at?, key)
    }

    /// `fd` if it is `key` and on this file system.
    fn confirmed(&self, fd: OwnedFd, key: &ObjectKey) -> Option<OwnedFd> {
        let stat = statx::of(fd.as_fd()).ok()?;
        let same = !self.is_foreign(&stat) && self.key_of(fd.as_fd()).ok()? == *key;
        same.then_some(fd)
    }

    fn follow_hints(&self, key: &ObjectKey, depth: usize) -> Option<OwnedFd> {
        if depth > MAX_DEPTH / 8 {
            return None; // each step holds a descriptor and a stack frame
        }
        let hints = self.hints.read().clone()?;
        for (dir_key, name) in hints.entries_of(key) {
            let dir = if dir_key == *self.root_key() {
                self.open_path(&dir_key).ok()
            } else {
                self.follow_places(&dir_key).or_else(|| self.follow_hints(&dir_key, depth + 1))
            };
            let Some(dir) = dir else { continue };
            let Ok(c_name) = c_name(&name) else { continue };
            let Ok(fd) = open_name(dir.as_fd(), &c_name) else { continue };
            if let Some(fd) = self.confirmed(fd, key) {
                self.places.lock().remember(key.clone(), dir_key, &name);
                return Some(fd);
            }
        }
        None
    }

    /// One walk of the tree, breadth first, remembering what it sees. Bounded in entries and time.
    fn walk_for(&self, key: &ObjectKey) -> io::Result<Option<OwnedFd>> {
        let until = Instant::now() + WALK_TIME;
        let mut left = WALK_ENTRIES;
        let mut queue = std::collections::VecDeque::from([Vec::new()]);
        while let Some(path) = queue.pop_front() {
            let Some(dir) = self.descend(&path) else { continue };
            let mut names: Vec<(Box<[u8]>, Option<Kind>)> = Vec::new();
            // What may not be listed under our ids hides nothing that could be opened.
            let _ = self.list(dir.as_fd(), &mut |name, _, kind| {
                names.push((name.into(), kind));
                left = left.saturating_sub(1);
                left > 0
            });
            for (name, kind) in names {
                let Ok(Some((fd, found))) = self.lookup_open(dir.as_fd(), &name) else { continue };
                if found.stat.mount_root {
                    continue;
                }
                if found.key == *key {
                    // The memory is bounded: the names that lead here are made sure of.
                    let _ = self.descend(&path);
                    return Ok(Some(fd));
                }
                if kind.unwrap_or(found.stat.kind) == Kind::Directory {
                    let mut below = path.clone();
                    below.push(name);
                    queue.push_back(below);
                }
            }
            if left == 0 || Instant::now() > until {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
        }
        Ok(None)
    }

    /// The directory at `path`, each step remembered.
    fn descend(&self, path: &[Box<[u8]>]) -> Option<OwnedFd> {
        let mut at = self.open_path(self.root_key()).ok()?;
        for name in path {
            let (fd, found) = self.lookup_open(at.as_fd(), name).ok()??;
            if found.stat.mount_root {
                return None;
            }
            at = fd;
        }
        Some(at)
    }
}
