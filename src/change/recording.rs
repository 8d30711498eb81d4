//! `Recording<V>`: a file system that notes what each operation touched.
//!
//! NFS mutations are known exactly here, byte ranges included, and before any watcher could tell. A
//! ticket is opened before the operation and closed after its change was noted, so that a fence knows
//! whether something is still on its way. This is the request path: a note costs one lock and one hash
//! look-up, and no operation makes a system call that it would not have made.

use super::dirty::{Change, DirtySet, Source, Touch};
use crate::host::ObjectKey;
use crate::vfs::{
    Acls, Attributes, Caller, CreateHow, DirEntry, FsStat, Limits, Mutation, Node, ReadDone, RenameDone,
    SetAcls, SetAttributes, Settled, Stability, Vfs, VfsError, Work, WriteDone,
};
use ehpc_proto::replication::{Kind, Timestamp};
use std::cell::Cell;
use std::sync::Arc;

/// When a stable reply may be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// On the primary's disk.
    #[default]
    Local,
    /// On the backup's disk too.
    Remote,
}

thread_local! {
    /// Number of the change that this thread's last operation must see acknowledged.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// See the module's text.
pub struct Recording<V> {
    inner: V,
    dirty: Arc<DirtySet>,
    durability: Durability,
}

impl<V> Recording<V> {
    /// Notes what happens to `inner` in `dirty`.
    pub fn new(inner: V, dirty: Arc<DirtySet>, durability: Durability) -> Recording<V> {
        Recording { inner, dirty, durability }
    }

    /// What is recorded.
    pub fn inner(&self) -> &V {
        &self.inner
    }

    fn note(&self, change: Change) {
        let number = self.dirty.note_from(Source::Nfs, change);
        LAST.set(number);
    }

    fn entry(&self, dir: &ObjectKey, name: &[u8]) {
        self.note(Change::entry(dir, name));
    }

    fn object(&self, object: &ObjectKey, touch: Touch) {
        self.note(Change::Object(object.clone(), touch));
    }
}

/// Could the operation have changed something, though it may have failed? These errors come from the
/// first step of every operation; anything else may have stopped half way.
fn may_have_changed<T>(result: &Result<T, VfsError>) -> bool {
    !matches!(
        result,
        Err(VfsError::NoEnt
            | VfsError::Exist
            | VfsError::NotDir
            | VfsError::IsDir
            | VfsError::NotEmpty
            | VfsError::NameTooLong
            | VfsError::NotSync
            | VfsError::Rofs
            | VfsError::XDev
            | VfsError::NotSupp
            | VfsError::MLink)
    )
}

/// The bytes that differ when a file is cut or grown to `size`: all from the shorter of both lengths on.
fn resized(before: Option<(u64, Timestamp, Timestamp)>, size: u64) -> Touch {
    Touch::range(before.map_or(size, |(old, ..)| old.min(size))..u64::MAX)
}

impl<V: Vfs> Vfs for Recording<V> {
    fn root(&self) -> ObjectKey {
        self.inner.root()
    }

    fn getattr(&self, caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError> {
        self.inner.getattr(caller, object)
    }

    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.setattr(caller, object, set, guard);
        if may_have_changed(&done.result) {
            let touch = match set.size {
                Some(size) => resized(done.wcc.before, size),
                None => Touch::attributes_only(),
            };
            self.object(object, touch);
        }
        done
    }

    fn acls(&self, caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        self.inner.acls(caller, object)
    }

    fn set_acls(&self, caller: &Caller, object: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.set_acls(caller, object, set);
        if may_have_changed(&done.result) {
            self.object(object, Touch::attributes_only());
        }
        done
    }

    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.inner.lookup(caller, dir, name)
    }

    fn parent(&self, caller: &Caller, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.inner.parent(caller, dir)
    }

    fn access(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        wanted: u32,
    ) -> Result<(u32, Option<Attributes>), VfsError> {
        self.inner.access(caller, object, wanted)
    }

    fn readlink(
        &self,
        caller: &Caller,
        object: &ObjectKey,
    ) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        self.inner.readlink(caller, object)
    }

    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        self.inner.read(caller, object, offset, count, into)
    }

    fn write(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.write(caller, object, offset, data, stable);
        if may_have_changed(&done.result) && !data.is_empty() {
            // A write beyond the end makes a hole of what lies between.
            let start = done.wcc.before.map_or(offset, |(old, ..)| old.min(offset));
            self.object(object, Touch::range(start..offset.saturating_add(data.len() as u64)));
        }
        done
    }

    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.create(caller, dir, name, how);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
            // The file may have existed: then its entry says nothing about its content and mode.
            if let (CreateHow::Unchecked(set), Ok(node)) = (how, &done.result) {
                let touch = set.size.map_or_else(Touch::attributes_only, |size| resized(None, size));
                self.object(&node.key, touch);
            }
        }
        done
    }

    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.mkdir(caller, dir, name, set);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
        }
        done
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.symlink(caller, dir, name, target, set);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
        }
        done
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
        let _ticket = self.dirty.ticket();
        let done = self.inner.mknod(caller, dir, name, kind, rdev, set);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
        }
        done
    }

    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        // What the name meant is in the shadow: whoever reads the entry asks for that object too.
        let _ticket = self.dirty.ticket();
        let done = self.inner.remove(caller, dir, name);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
        }
        done
    }

    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        let _ticket = self.dirty.ticket();
        let done = self.inner.rmdir(caller, dir, name);
        if may_have_changed(&done.result) {
            self.entry(dir, name);
        }
        done
    }

    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone {
        let _ticket = self.dirty.ticket();
        let done = self.inner.rename(caller, from, to);
        if may_have_changed(&done.result) && from != to {
            self.note(Change::pair(from, to));
        }
        done
    }

    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        let _ticket = self.dirty.ticket();
        let done = self.inner.link(caller, object, dir, name);
        if may_have_changed(&done.0.result) {
            self.object(object, Touch::attributes_only());
            self.entry(dir, name);
        }
        done
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        self.inner.readdir(caller, dir, cookie, plus, each)
    }

    fn fsstat(&self, caller: &Caller, object: &ObjectKey) -> Result<FsStat, VfsError> {
        self.inner.fsstat(caller, object)
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn commit(&self, caller: &Caller, object: &ObjectKey, offset: u64, count: u32) -> Mutation<()> {
        let done = self.inner.commit(caller, object, offset, count);
        // The writes that it promises were noted by other threads: all that is noted now covers them.
        LAST.set(self.dirty.current());
        done
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.inner.write_verifier()
    }

    fn describe(&self, object: &ObjectKey) -> Option<String> {
        self.inner.describe(object)
    }

    fn quick(&self, work: Work) -> bool {
        self.inner.quick(work)
    }

    fn read_quickly(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Option<Result<ReadDone, VfsError>> {
        self.inner.read_quickly(caller, object, offset, count, into)
    }

    fn readdir_quickly(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Option<Result<bool, VfsError>> {
        self.inner.readdir_quickly(caller, dir, cookie, plus, each)
    }

    fn settled(&self) -> Option<Settled> {
        let inner = self.inner.settled();
        if self.durability == Durability::Local {
            return inner;
        }
        let number = LAST.get();
        let mut acknowledged = self.dirty.acknowledged();
        if *acknowledged.borrow() >= number {
            return inner;
        }
        Some(Box::pin(async move {
            if let Some(inner) = inner {
                inner.await?;
            }
            // An error says that the set is gone, with the server: no reply leaves any more.
            if acknowledged.wait_for(|&acknowledged| acknowledged >= number).await.is_err() {
                std::future::pending::<()>().await;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
