//! READDIR and READDIRPLUS: from what is kept of the directory, or from the kernel.

use super::listings::{Entry, Listing, Part};
use super::{
    Attributes, BorrowedFd, Caller, DirEntry, Kind, LocalVfs, Node, Object, ObjectKey, Stat, Timestamp,
    VfsError, file, statx,
};
use crate::host::coarse_now;
use crate::host::directory::{self, Listed};
use crate::vfs::Memo;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

/// Who takes the entries of a listing, until he returns false.
type Each<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> bool;

/// What an entry leads to.
#[derive(Default)]
struct Target {
    node: Option<Node>,
    born: Option<Timestamp>,
}

/// How far the telling of kept entries came.
enum Told {
    /// He who takes them has enough.
    Enough,
    /// To the directory's end.
    All,
    /// To the entry of this cookie; what comes after it is not known.
    UpTo(u64),
}

impl LocalVfs {
    pub(super) fn list(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: Each<'_>,
    ) -> Result<bool, VfsError> {
        if cookie > i64::MAX as u64 {
            return Err(VfsError::BadCookie);
        }
        // Before anything is looked at: what changes later makes the listing void.
        let (stamp, read) = (self.listings.now(), Instant::now());
        let dir = self.directory(key)?;
        let mut cookie = cookie;
        if let Some(listing) = self.kept(caller, key, &dir, plus) {
            let mut listing = listing.lock();
            match self.tell(&dir, key, (&mut listing, cookie), plus, true, each) {
                Told::Enough => return Ok(false),
                Told::All => return Ok(true),
                Told::UpTo(last) => cookie = last,
            }
        }
        let end = self.read_listing(caller, key, &dir, (cookie, plus, stamp, read), each);
        self.listings.accessed(key);
        end
    }

    /// From what is kept alone, without a wait for the disk or for another thread; `None`: that is not possible, and
    /// what was told does not count.
    pub(super) fn list_kept(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: Each<'_>,
    ) -> Option<Result<bool, VfsError>> {
        let dir = match self.directory(key) {
            Ok(dir) => dir,
            Err(error) => return Some(Err(error)),
        };
        let listing = self.kept(caller, key, &dir, plus)?;
        let mut listing = listing.try_lock()?;
        match self.tell(&dir, key, (&mut listing, cookie), plus, false, each) {
            Told::Enough => Some(Ok(false)),
            Told::All => Some(Ok(true)),
            Told::UpTo(_) => None,
        }
    }

    /// What is kept of a directory, if this caller may read it.
    fn kept(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        dir: &Object,
        plus: bool,
    ) -> Option<Arc<Mutex<Listing>>> {
        let listing = self.listings.get(key, &dir.stat, Instant::now())?;
        self.as_caller(caller).ok()?;
        // Attributes want the right to search.
        let permitted = file::permits(dir.fd.as_fd(), if plus { 5 } else { 4 }).ok()?;
        permitted.then_some(listing)
    }

    /// Tells entries that are kept. What may have changed is looked at again if `renew`.
    fn tell(
        &self,
        dir: &Object,
        key: &ObjectKey,
        (listing, cookie): (&mut Listing, u64),
        plus: bool,
        renew: bool,
        each: Each<'_>,
    ) -> Told {
        let Some(from) = listing.after(cookie) else { return Told::UpTo(cookie) };
        let now = Instant::now();
        let mut last = cookie;
        for at in from..listing.entries.len() {
            let Some(entry) = listing.entries.get_mut(at) else { break };
            let itself = &*entry.name == b".";
            if plus && !itself && !self.listings.is_fresh(entry, now) {
                if !renew {
                    return Told::UpTo(last);
                }
                if !self.renew(dir.fd.as_fd(), entry) {
                    listing.cut(at); // the name is gone: the rest is read anew
                    return Told::UpTo(last);
                }
            }
            let own = match &entry.node {
                _ if !plus => None,
                _ if itself => Some(self.node(key.clone(), &dir.stat)),
                Some(node) => self.reshown(node),
                None => None,
            };
            let (node, memo) = match &own {
                Some(node) => (Some(node), None),
                None if plus => (entry.node.as_ref(), Some(&entry.memo)),
                None => (None, None),
            };
            let shown =
                DirEntry { fileid: entry.fileid, name: &entry.name, cookie: entry.cookie, node, memo };
            if !each(shown) {
                return Told::Enough;
            }
            last = entry.cookie;
        }
        if listing.complete { Told::All } else { Told::UpTo(last) }
    }

    /// The node as this view of the file system shows it, if another view has read it.
    fn reshown(&self, node: &Node) -> Option<Node> {
        let attributes = node.attributes.filter(|attributes| attributes.fsid != self.fsid)?;
        Some(Node { key: node.key.clone(), attributes: Some(Attributes { fsid: self.fsid, ..attributes }) })
    }

    /// Looks at an entry again; false: the name is gone or leads elsewhere.
    fn renew(&self, dir: BorrowedFd<'_>, entry: &mut Entry) -> bool {
        if &*entry.name == b".." {
            entry.read = Instant::now();
            return true;
        }
        let (stamp, read) = (self.listings.now(), Instant::now());
        let Ok(name) = file::c_name(&entry.name) else { return false };
        let Ok(stat) = statx::at(dir, &name) else { return false };
        if self.tree.is_foreign(&stat) {
            return false;
        }
        // The same inode, born at the same time, is the same object.
        let same = stat.ino == entry.fileid && stat.btime.is_some() && stat.btime == entry.born;
        match &mut entry.node {
            Some(node) if same => node.attributes = Some(self.attributes(&stat)),
            _ => match self.tree.lookup(dir, &entry.name) {
                Ok(Some(found)) if !found.stat.mount_root => {
                    (entry.fileid, entry.born) = (found.stat.ino, found.stat.btime);
                    entry.node = Some(self.node(found.key, &found.stat));
                }
                _ => return false,
            },
        }
        entry.memo = Memo::new();
        (entry.stamp, entry.read) = (stamp, read);
        true
    }

    /// Reads the directory, and keeps what READDIRPLUS reads.
    fn read_listing(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        dir: &Object,
        (cookie, plus, stamp, read): (u64, bool, u64, Instant),
        each: Each<'_>,
    ) -> Result<bool, VfsError> {
        self.as_caller(caller)?;
        // A descriptor of its own: the position in the directory belongs to it.
        let open = file::reopen(dir.fd.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let is_root = key == self.tree.root_key();
        let mut entries = Vec::new();
        // An object that could not be looked at may be there for another caller.
        let mut known = plus;
        let now = coarse_now();
        let end = directory::read(open.as_fd(), cookie, &mut |listed| {
            let (stamp, read) = (self.listings.now(), Instant::now());
            let found = self.entry(dir.fd.as_fd(), (key, &dir.stat), is_root, &listed, plus);
            let Some((fileid, target)) = found else { return true };
            let name = listed.name.to_bytes();
            let node = target.node.as_ref();
            let taken = each(DirEntry { fileid, name, cookie: listed.next, node, memo: None });
            known = known && (target.node.is_some() || name == b"..");
            if taken && known {
                let Target { node, born } = target;
                let (name, cookie) = (name.into(), listed.next);
                entries.push(Entry { fileid, name, cookie, node, born, memo: Memo::new(), stamp, read });
            }
            taken
        });
        let complete = match end {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && cookie != 0 => {
                return Err(VfsError::BadCookie);
            }
            other => other?,
        };
        if plus {
            let directory = dir.stat;
            let complete = complete && known;
            self.listings.keep(key, Part { from: cookie, directory, stamp, read, now, entries, complete });
        }
        Ok(complete)
    }

    /// File id and target of one entry; `None` hides a mount point.
    fn entry(
        &self,
        dir: BorrowedFd<'_>,
        (dir_key, dir_stat): (&ObjectKey, &Stat),
        is_root: bool,
        listed: &Listed<'_>,
        plus: bool,
    ) -> Option<(u64, Target)> {
        let name = listed.name.to_bytes();
        if name == b"." {
            let node = plus.then(|| self.node(dir_key.clone(), dir_stat));
            return Some((dir_stat.ino, Target { node, born: dir_stat.btime }));
        }
        if name == b".." {
            // What is above the export's root is nobody's business.
            return Some((if is_root { dir_stat.ino } else { listed.ino }, Target::default()));
        }
        if plus {
            return match self.tree.lookup(dir, name) {
                Ok(Some(found)) if found.stat.mount_root => {
                    self.options.show_mount_points.then(|| (listed.ino, Target::default()))
                }
                Ok(Some(found)) => {
                    let node = Some(self.node(found.key, &found.stat));
                    Some((found.stat.ino, Target { node, born: found.stat.btime }))
                }
                // Removed meanwhile, or no search permission: the name alone.
                Ok(None) | Err(_) => Some((listed.ino, Target::default())),
            };
        }
        if self.options.show_mount_points {
            return Some((listed.ino, Target::default()));
        }
        // Mount points are directories, but for file mounts, which LOOKUP refuses.
        let hidden = matches!(listed.kind, Some(Kind::Directory) | None)
            && statx::at(dir, listed.name).is_ok_and(|stat| self.tree.is_foreign(&stat));
        (!hidden).then_some((listed.ino, Target::default()))
    }
}
