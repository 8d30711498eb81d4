//! A directory of this machine as a `Vfs`.
//!
//! Objects are opened O_PATH under the process's own ids, then every operation is done under the caller's
//! ids (`host::credentials`), so that permissions are the kernel's own decisions. A thread keeps the last
//! caller's ids until its next operation: threads that run these operations do nothing else with files and
//! start no threads.

mod acl;
mod attributes;
mod data;
mod descriptors;
mod directory;
mod durability;
mod entries;
mod group_commit;
mod listings;
mod locks;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;

use super::{
    Acls, Attributes, Caller, CreateHow, DirEntry, FsStat, Limits, Mutation, Node, ReadDone, RenameDone,
    SetAcls, SetAttributes, Settled, Stability, Vfs, VfsError, Wcc, Work, WriteDone, access,
};
use crate::host::{self, ObjectKey, Stat, Tree, credentials, file, statx};
use descriptors::{Descriptors, Use};
use ehpc_proto::replication::{Kind, Timestamp};
use group_commit::GroupCommit;
use listings::Listings;
use locks::Locks;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How an export is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalOptions {
    /// Every modifying reply is durable (exports(5) `sync`). Stable writes and COMMIT are in any case; an
    /// UNSTABLE write is what the client asked for and waits for its COMMIT.
    pub sync: bool,
    /// Nothing is changed.
    pub read_only: bool,
    /// The number of the file system that clients see, instead of its own (exports(5) `fsid=`).
    pub fsid: Option<u64>,
    /// Listings name what is mounted below: whoever serves this finds the way there by himself.
    pub show_mount_points: bool,
}

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions { sync: true, read_only: false, fsid: None, show_mount_points: false }
    }
}

/// See the module.
pub struct LocalVfs {
    tree: Arc<Tree>,
    options: LocalOptions,
    /// Acts under the caller's ids (root), else under its own for everybody.
    assumes: bool,
    descriptors: Arc<Descriptors>,
    locks: Arc<Locks>,
    verifier: Arc<AtomicU64>,
    commits: Arc<GroupCommit>,
    listings: Arc<Listings>,
    fsid: u64,
    limits: Limits,
    /// Ends the sweeper when it goes.
    _sweeper: Option<crossbeam_channel::Sender<()>>,
}

/// An object that was opened for an operation.
struct Object {
    fd: Arc<OwnedFd>,
    stat: Stat,
}

impl LocalVfs {
    /// Serves `tree`. Sets the process's umask to 0 (modes are exactly what clients ask
    /// for) and raises its limit of descriptors.
    pub fn new(tree: Arc<Tree>, options: LocalOptions) -> LocalVfs {
        credentials::own();
        host::set_umask_zero();
        let descriptors = Arc::new(Descriptors::new(host::raise_descriptor_limit()));
        // Without handles a kept descriptor also saves the walk by name, and is the owner's way to a file
        // whose mode forbids it; so it is kept longer.
        let idle = Duration::from_secs(if tree.opens_by_handle() { 4 } else { 60 });
        let verifier = Arc::new(AtomicU64::new(rand::random()));
        LocalVfs {
            commits: durability::commits(&tree, &verifier),
            assumes: host::privileges().assumes_identities(),
            fsid: options.fsid.unwrap_or(u64::from_be_bytes(tree.filesystem_id())),
            limits: limits_of(&tree),
            _sweeper: start_sweeper(Arc::downgrade(&descriptors), idle),
            tree,
            options,
            descriptors,
            locks: Arc::new(Locks::new()),
            verifier,
            listings: Arc::new(Listings::new()),
        }
    }

    /// The same objects served with other options: locks, descriptors and write verifier are shared, so that
    /// two exports of one file system do not contradict one another.
    pub fn view(&self, options: LocalOptions) -> LocalVfs {
        LocalVfs {
            tree: Arc::clone(&self.tree),
            options,
            assumes: self.assumes,
            descriptors: Arc::clone(&self.descriptors),
            locks: Arc::clone(&self.locks),
            verifier: Arc::clone(&self.verifier),
            commits: Arc::clone(&self.commits),
            listings: Arc::clone(&self.listings),
            limits: self.limits,
            fsid: options.fsid.unwrap_or(u64::from_be_bytes(self.tree.filesystem_id())),
            _sweeper: self._sweeper.clone(),
        }
    }

    /// The tree that is served.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// What an operator should know about how this export is served.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.assumes {
            notes.push(format!(
                "not root: every client acts as uid {}, whatever its own uid is; run as root to apply permissions per user",
                credentials::own().uid
            ));
        }
        if !self.tree.opens_by_handle() {
            notes.push(
                "objects are found by name (no CAP_DAC_READ_SEARCH, or a file system without handles): \
                 after a restart the first use of an old handle may search the tree"
                    .to_owned(),
            );
        }
        notes
    }

    /// File systems mounted below the export's root (paths within it): refused and hidden, each may be an
    /// export of its own.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        self.tree.mount_points()
    }

    /// This thread acts as the process itself.
    fn as_self(&self) -> Result<(), VfsError> {
        if self.assumes {
            credentials::resume().map_err(|_| VfsError::ServerFault)?;
        }
        Ok(())
    }

    /// This thread acts as the caller. Ids that the kernel does not accept get no access.
    fn as_caller(&self, caller: &Caller) -> Result<(), VfsError> {
        if self.assumes {
            credentials::assume(caller.uid, caller.gid, &caller.groups).map_err(|_| VfsError::Access)?;
        }
        Ok(())
    }

    /// The uid under which this caller's operations are done.
    fn acting_uid(&self, caller: &Caller) -> u32 {
        if self.assumes { caller.uid } else { credentials::own().uid }
    }

    /// The object, with its state now. Stale if it has no name any more.
    fn object(&self, key: &ObjectKey) -> Result<Object, VfsError> {
        let kept = self.descriptors.any(key);
        let fd = match &kept {
            Some(fd) => fd.clone(),
            None => {
                self.as_self()?;
                Arc::new(self.tree.open_path(key)?)
            }
        };
        let stat = statx::of(fd.as_fd())?;
        if stat.nlink == 0 {
            self.descriptors.drop_object(key);
            return Err(VfsError::Stale);
        }
        // It pins a deleted file's blocks, though not for long: removal drops it, and so does the sweeper.
        if kept.is_none() {
            self.descriptors.keep(key, Use::Path, &fd);
        }
        Ok(Object { fd, stat })
    }

    fn directory(&self, key: &ObjectKey) -> Result<Object, VfsError> {
        let object = self.object(key)?;
        if object.stat.kind == Kind::Directory { Ok(object) } else { Err(VfsError::NotDir) }
    }

    /// Attributes as NFS tells them.
    fn attributes(&self, stat: &Stat) -> Attributes {
        Attributes {
            kind: stat.kind,
            mode: stat.mode,
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            used: stat.used,
            rdev: stat.rdev,
            fsid: self.fsid,
            fileid: stat.ino,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }

    fn attributes_of(&self, fd: BorrowedFd<'_>) -> Option<Attributes> {
        statx::of(fd).ok().map(|stat| self.attributes(&stat))
    }

    fn node(&self, key: ObjectKey, stat: &Stat) -> Node {
        Node { key, attributes: Some(self.attributes(stat)) }
    }

    fn writable(&self) -> Result<(), VfsError> {
        if self.options.read_only { Err(VfsError::Rofs) } else { Ok(()) }
    }
}

/// Closes idle descriptors until the `LocalVfs` is gone.
fn start_sweeper(descriptors: Weak<Descriptors>, idle: Duration) -> Option<crossbeam_channel::Sender<()>> {
    let (alive, gone) = crossbeam_channel::bounded::<()>(0);
    let run = move || {
        while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = gone.recv_timeout(idle / 2) {
            let Some(descriptors) = descriptors.upgrade() else { return };
            descriptors.sweep(idle);
        }
    };
    match std::thread::Builder::new().name("vfs-sweep".to_owned()).spawn(run) {
        Ok(_) => Some(alive),
        Err(error) => {
            tracing::warn!(%error, "no thread to close idle descriptors; deleted files may keep their space for a while");
            None
        }
    }
}

/// What the file system allows; it does not change while it is mounted.
fn limits_of(tree: &Tree) -> Limits {
    let root = tree.root_fd();
    let name_max = rustix::fs::fstatvfs(root).map_or(255, |stat| stat.f_namemax);
    Limits {
        link_max: host::link_max(root),
        name_max: u32::try_from(name_max).unwrap_or(255),
        max_file_size: file::max_size(root),
        time_granularity_ns: 1,
    }
}

fn wcc_before(stat: &Stat) -> Option<(u64, Timestamp, Timestamp)> {
    Some((stat.size, stat.mtime, stat.ctime))
}

fn failed<T>(error: VfsError) -> Mutation<T> {
    Mutation { result: Err(error), wcc: Wcc::default() }
}

impl Vfs for LocalVfs {
    fn root(&self) -> ObjectKey {
        self.tree.root_key().clone()
    }

    fn getattr(&self, _caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError> {
        Ok(self.attributes(&self.object(object)?.stat))
    }

    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        self.set_attributes(caller, object, set, guard)
    }

    fn acls(&self, caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        self.read_acls(caller, object)
    }

    fn set_acls(&self, caller: &Caller, object: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        self.write_acls(caller, object, set)
    }

    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.find(caller, dir, name)
    }

    fn parent(&self, caller: &Caller, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.find_parent(caller, dir)
    }

    fn access(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        wanted: u32,
    ) -> Result<(u32, Option<Attributes>), VfsError> {
        let object = self.object(object)?;
        self.as_caller(caller)?;
        let fd = object.fd.as_fd();
        let mut rwx = 0;
        if file::permits(fd, 7)? {
            rwx = 7;
        } else {
            for bit in [4, 2, 1] {
                rwx |= if file::permits(fd, bit)? { bit } else { 0 };
            }
        }
        let mut granted = access::granted(object.stat.kind == Kind::Directory, rwx);
        if self.options.read_only {
            granted &= !(access::MODIFY | access::EXTEND | access::DELETE);
        }
        Ok((granted & wanted, Some(self.attributes(&object.stat))))
    }

    fn readlink(&self, caller: &Caller, key: &ObjectKey) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        let object = match self.object(key) {
            Ok(object) => object,
            Err(error) => return (Err(error), None),
        };
        let target = if object.stat.kind == Kind::Symlink {
            let target = self.as_caller(caller).and_then(|()| Ok(self.tree.read_link(object.fd.as_fd())?));
            self.listings.accessed(key);
            target
        } else {
            Err(VfsError::Inval)
        };
        (target, Some(self.attributes(&object.stat)))
    }

    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        self.read_data(caller, object, offset, count, into)
    }

    fn write(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone> {
        self.write_data(caller, object, offset, data, stable)
    }

    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node> {
        self.make_file(caller, dir, name, how)
    }

    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node> {
        self.make_directory(caller, dir, name, set)
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        self.make_symlink(caller, dir, name, target, set)
    }

    fn mknod(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        kind: Kind,
        rdev: (u32, u32),
        set: &SetAttributes,
    ) -> Mutation<Node> {
        self.make_special(caller, dir, name, (kind, rdev), set)
    }

    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.unlink(caller, dir, name, false)
    }

    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.unlink(caller, dir, name, true)
    }

    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone {
        self.move_entry(caller, from, to)
    }

    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        self.hard_link(caller, object, dir, name)
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        self.list(caller, dir, cookie, plus, each)
    }

    fn fsstat(&self, _caller: &Caller, object: &ObjectKey) -> Result<FsStat, VfsError> {
        self.object(object)?;
        let stat = rustix::fs::fstatvfs(self.tree.root_fd())?;
        Ok(FsStat {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_files: stat.f_files,
            free_files: stat.f_ffree,
            available_files: stat.f_favail,
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn commit(&self, caller: &Caller, object: &ObjectKey, _offset: u64, _count: u32) -> Mutation<()> {
        self.commit_data(caller, object)
    }

    fn describe(&self, object: &ObjectKey) -> Option<String> {
        let object = self.object(object).ok()?;
        let path = host::path_of(object.fd.as_fd()).ok()?;
        let inside = path.strip_prefix(self.tree.root_path()).unwrap_or(&path);
        Some(format!("{} (inode {})", inside.display(), object.stat.ino))
    }

    /// By handle all but the disk's own delays is quick; a walk by name may take its time. Durability is waited for in
    /// `settled`.
    fn quick(&self, work: Work) -> bool {
        if !self.tree.opens_by_handle() {
            return false;
        }
        match work {
            Work::Look | Work::Read | Work::Change | Work::Write(_) | Work::Flush | Work::List => true,
        }
    }

    fn read_quickly(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Option<Result<ReadDone, VfsError>> {
        self.read_cached(caller, object, offset, count, into)
    }

    fn readdir_quickly(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Option<Result<bool, VfsError>> {
        self.list_kept(caller, dir, cookie, plus, each)
    }

    fn settled(&self) -> Option<Settled> {
        GroupCommit::settled(&self.commits)
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.verifier.load(Ordering::Acquire).to_be_bytes()
    }
}
