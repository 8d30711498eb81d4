//! A file system with hooks: calls that wait, faults, and durability that takes its time.

use crate::host::ObjectKey;
use crate::vfs::{
    Acls, Attributes, Caller, CreateHow, DirEntry, FsStat, Limits, Mutation, Node, ReadDone, RenameDone,
    SetAcls, SetAttributes, Settled, Stability, Vfs, VfsError, Wcc, Work, WriteDone,
};
use ehpc_proto::replication::{Kind, Timestamp};
use std::sync::Arc;

type Before = Box<dyn Fn(&str, &[u8]) + Send + Sync>;
type Settle = Box<dyn Fn() -> Option<Settled> + Send + Sync>;
type Fault = Box<dyn Fn(&str) -> Option<VfsError> + Send + Sync>;

/// Calls `before` with an operation's name (and the name in its arguments, if any), then the inner file system;
/// unless `fault` has an error for the operation, which is then its answer.
pub(super) struct Hooked {
    pub(super) inner: Arc<dyn Vfs>,
    pub(super) before: Before,
    pub(super) settle: Settle,
    pub(super) quick: fn(Work) -> bool,
    pub(super) fault: Fault,
}

impl Hooked {
    pub(super) fn before(
        inner: Arc<dyn Vfs>,
        before: impl Fn(&str, &[u8]) + Send + Sync + 'static,
    ) -> Arc<dyn Vfs> {
        Arc::new(Hooked::new(inner, before, || None))
    }

    /// All of it is left to the workers.
    pub(super) fn new(
        inner: Arc<dyn Vfs>,
        before: impl Fn(&str, &[u8]) + Send + Sync + 'static,
        settle: impl Fn() -> Option<Settled> + Send + Sync + 'static,
    ) -> Hooked {
        Hooked {
            inner,
            before: Box::new(before),
            settle: Box::new(settle),
            quick: |_| false,
            fault: Box::new(|_| None),
        }
    }

    pub(super) fn failing(
        inner: Arc<dyn Vfs>,
        fault: impl Fn(&str) -> Option<VfsError> + Send + Sync + 'static,
    ) -> Arc<dyn Vfs> {
        Arc::new(Hooked { fault: Box::new(fault), ..Hooked::new(inner, |_, _| {}, || None) })
    }

    fn check(&self, operation: &str) -> Result<(), VfsError> {
        (self.fault)(operation).map_or(Ok(()), Err)
    }

    /// What a change reports that failed before it changed anything.
    fn unchanged(&self, caller: &Caller, object: &ObjectKey) -> Wcc {
        let after = self.inner.getattr(caller, object).ok();
        Wcc { before: after.map(|now| (now.size, now.mtime, now.ctime)), after }
    }

    fn change<T>(
        &self,
        operation: &str,
        caller: &Caller,
        object: &ObjectKey,
        act: impl FnOnce() -> Mutation<T>,
    ) -> Mutation<T> {
        match self.check(operation) {
            Ok(()) => act(),
            Err(error) => Mutation { result: Err(error), wcc: self.unchanged(caller, object) },
        }
    }
}

impl Vfs for Hooked {
    fn root(&self) -> ObjectKey {
        self.inner.root()
    }
    fn getattr(&self, caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError> {
        (self.before)("getattr", b"");
        self.check("getattr")?;
        self.inner.getattr(caller, object)
    }
    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        (self.before)("setattr", b"");
        self.change("setattr", caller, object, || self.inner.setattr(caller, object, set, guard))
    }
    fn acls(&self, caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        (self.before)("acls", b"");
        self.check("acls")?;
        self.inner.acls(caller, object)
    }
    fn set_acls(&self, caller: &Caller, object: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        (self.before)("set_acls", b"");
        self.change("set_acls", caller, object, || self.inner.set_acls(caller, object, set))
    }
    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        (self.before)("lookup", name);
        match self.check("lookup") {
            Ok(()) => self.inner.lookup(caller, dir, name),
            Err(error) => (Err(error), self.inner.getattr(caller, dir).ok()),
        }
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
        self.check("access")?;
        self.inner.access(caller, object, wanted)
    }
    fn readlink(
        &self,
        caller: &Caller,
        object: &ObjectKey,
    ) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        match self.check("readlink") {
            Ok(()) => self.inner.readlink(caller, object),
            Err(error) => (Err(error), self.inner.getattr(caller, object).ok()),
        }
    }
    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        (self.before)("read", b"");
        self.check("read")?;
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
        (self.before)("write", b"");
        self.change("write", caller, object, || self.inner.write(caller, object, offset, data, stable))
    }
    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node> {
        (self.before)("create", name);
        self.change("create", caller, dir, || self.inner.create(caller, dir, name, how))
    }
    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node> {
        (self.before)("mkdir", name);
        self.change("mkdir", caller, dir, || self.inner.mkdir(caller, dir, name, set))
    }
    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        self.change("symlink", caller, dir, || self.inner.symlink(caller, dir, name, target, set))
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
        self.change("mknod", caller, dir, || self.inner.mknod(caller, dir, name, kind, rdev, set))
    }
    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        (self.before)("remove", name);
        self.change("remove", caller, dir, || self.inner.remove(caller, dir, name))
    }
    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.change("rmdir", caller, dir, || self.inner.rmdir(caller, dir, name))
    }
    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone {
        match self.check("rename") {
            Ok(()) => self.inner.rename(caller, from, to),
            Err(error) => RenameDone {
                result: Err(error),
                from: self.unchanged(caller, from.0),
                to: self.unchanged(caller, to.0),
            },
        }
    }
    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        match self.check("link") {
            Ok(()) => self.inner.link(caller, object, dir, name),
            Err(error) => {
                let done = Mutation { result: Err(error), wcc: self.unchanged(caller, dir) };
                (done, self.inner.getattr(caller, object).ok())
            }
        }
    }
    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        self.check("readdir")?;
        self.inner.readdir(caller, dir, cookie, plus, each)
    }
    fn fsstat(&self, caller: &Caller, object: &ObjectKey) -> Result<FsStat, VfsError> {
        self.check("fsstat")?;
        self.inner.fsstat(caller, object)
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn commit(&self, caller: &Caller, object: &ObjectKey, offset: u64, count: u32) -> Mutation<()> {
        self.change("commit", caller, object, || self.inner.commit(caller, object, offset, count))
    }
    fn write_verifier(&self) -> [u8; 8] {
        self.inner.write_verifier()
    }
    fn describe(&self, object: &ObjectKey) -> Option<String> {
        self.inner.describe(object)
    }
    fn quick(&self, work: Work) -> bool {
        (self.quick)(work)
    }
    fn settled(&self) -> Option<Settled> {
        (self.settle)()
    }
}
