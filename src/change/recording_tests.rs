//! What each NFS operation notes.

use super::*;
use crate::change::dirty::{Content, Entry};
use crate::host::object::KeyKind;
use crate::vfs::Wcc;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

fn key(n: u64) -> ObjectKey {
    ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&n.to_be_bytes()) }
}

fn entry(dir: u64, name: &str) -> Entry {
    Entry { dir: key(dir), name: name.as_bytes().into() }
}

/// Answers every mutation with one prepared result; objects that it makes have key 77.
#[derive(Default)]
struct Canned {
    fault: Mutex<Option<VfsError>>,
    before: Mutex<Option<u64>>,
    /// Tickets seen open during the operation.
    during: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Canned {
    fn answer<T>(&self, value: T) -> Mutation<T> {
        if let Some(during) = self.during.lock().as_ref() {
            during();
        }
        let before = self.before.lock().map(|size| (size, Timestamp::default(), Timestamp::default()));
        let result = self.fault.lock().map_or(Ok(value), Err);
        Mutation { result, wcc: Wcc { before, after: None } }
    }

    fn node(&self) -> Mutation<Node> {
        self.answer(Node { key: key(77), attributes: None })
    }
}

impl Vfs for Canned {
    fn root(&self) -> ObjectKey {
        key(1)
    }
    fn getattr(&self, _: &Caller, _: &ObjectKey) -> Result<Attributes, VfsError> {
        Err(VfsError::Io)
    }
    fn setattr(&self, _: &Caller, _: &ObjectKey, _: &SetAttributes, _: Option<Timestamp>) -> Mutation<()> {
        self.answer(())
    }
    fn set_acls(&self, _: &Caller, _: &ObjectKey, _: &SetAcls) -> Mutation<()> {
        self.answer(())
    }
    fn lookup(&self, _: &Caller, _: &ObjectKey, _: &[u8]) -> (Result<Node, VfsError>, Option<Attributes>) {
        (Err(VfsError::NoEnt), None)
    }
    fn parent(&self, _: &Caller, _: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        (Err(VfsError::NoEnt), None)
    }
    fn access(&self, _: &Caller, _: &ObjectKey, wanted: u32) -> Result<(u32, Option<Attributes>), VfsError> {
        Ok((wanted, None))
    }
    fn readlink(&self, _: &Caller, _: &ObjectKey) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        (Err(VfsError::Inval), None)
    }
    fn read(&self, _: &Caller, _: &ObjectKey, _: u64, _: u32, _: &mut Vec<u8>) -> Result<ReadDone, VfsError> {
        Err(VfsError::Io)
    }
    fn write(
        &self,
        _: &Caller,
        _: &ObjectKey,
        _: u64,
        data: &[u8],
        committed: Stability,
    ) -> Mutation<WriteDone> {
        self.answer(WriteDone { count: u32::try_from(data.len()).unwrap(), committed })
    }
    fn create(&self, _: &Caller, _: &ObjectKey, _: &[u8], _: CreateHow) -> Mutation<Node> {
        self.node()
    }
    fn mkdir(&self, _: &Caller, _: &ObjectKey, _: &[u8], _: &SetAttributes) -> Mutation<Node> {
        self.node()
    }
    fn symlink(&self, _: &Caller, _: &ObjectKey, _: &[u8], _: &[u8], _: &SetAttributes) -> Mutation<Node> {
        self.node()
    }
    fn mknod(
        &self,
        _: &Caller,
        _: &ObjectKey,
        _: &[u8],
        _: Kind,
        _: (u32, u32),
        _: &SetAttributes,
    ) -> Mutation<Node> {
        self.node()
    }
    fn remove(&self, _: &Caller, _: &ObjectKey, _: &[u8]) -> Mutation<()> {
        self.answer(())
    }
    fn rmdir(&self, _: &Caller, _: &ObjectKey, _: &[u8]) -> Mutation<()> {
        self.answer(())
    }
    fn rename(&self, _: &Caller, _: (&ObjectKey, &[u8]), _: (&ObjectKey, &[u8])) -> RenameDone {
        let done = self.answer(());
        RenameDone { result: done.result, from: done.wcc, to: done.wcc }
    }
    fn link(&self, _: &Caller, _: &ObjectKey, _: &ObjectKey, _: &[u8]) -> (Mutation<()>, Option<Attributes>) {
        (self.answer(()), None)
    }
    fn readdir(
        &self,
        _: &Caller,
        _: &ObjectKey,
        _: u64,
        _: bool,
        _: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        Ok(true)
    }
    fn fsstat(&self, _: &Caller, _: &ObjectKey) -> Result<FsStat, VfsError> {
        Err(VfsError::Io)
    }
    fn limits(&self) -> Limits {
        Limits { link_max: 1, name_max: 255, max_file_size: 1, time_granularity_ns: 1 }
    }
    fn commit(&self, _: &Caller, _: &ObjectKey, _: u64, _: u32) -> Mutation<()> {
        self.answer(())
    }
    fn write_verifier(&self) -> [u8; 8] {
        [7; 8]
    }
}

fn recording(durability: Durability) -> Recording<Canned> {
    Recording::new(Canned::default(), DirtySet::new(), durability)
}

fn caller() -> Caller {
    Caller { uid: 0, gid: 0, groups: SmallVec::new() }
}

fn noted(vfs: &Recording<Canned>) -> Vec<Change> {
    vfs.dirty.take(usize::MAX).changes
}

const SET: SetAttributes = SetAttributes {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    atime: crate::vfs::SetTime::Keep,
    mtime: crate::vfs::SetTime::Keep,
};

#[test]
fn a_write_notes_its_bytes_even_when_it_failed() {
    let vfs = recording(Durability::Local);
    let write = |offset| vfs.write(&caller(), &key(5), offset, &[0; 10], Stability::Unstable);
    assert!(write(100).result.is_ok());
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::range(100..110))]);
    *vfs.inner.before.lock() = Some(40);
    assert!(write(100).result.is_ok());
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::range(40..110))], "the hole before it too");
    *vfs.inner.fault.lock() = Some(VfsError::NoSpc);
    assert!(write(10).result.is_err());
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::range(10..20))]);
    *vfs.inner.fault.lock() = Some(VfsError::Rofs);
    assert!(write(10).result.is_err());
    assert_eq!(noted(&vfs), []);
}

#[test]
fn attributes_and_sizes() {
    let vfs = recording(Durability::Local);
    let done = vfs.setattr(&caller(), &key(5), &SetAttributes { mode: Some(0o600), ..SET }, None);
    assert!(done.result.is_ok());
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::attributes_only())]);
    *vfs.inner.before.lock() = Some(1000);
    vfs.setattr(&caller(), &key(5), &SetAttributes { size: Some(64), ..SET }, None).result.unwrap();
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::range(64..u64::MAX))]);
    vfs.setattr(&caller(), &key(5), &SetAttributes { size: Some(5000), ..SET }, None).result.unwrap();
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::range(1000..u64::MAX))], "grown from 1000");
    *vfs.inner.fault.lock() = Some(VfsError::Perm);
    assert!(vfs.setattr(&caller(), &key(5), &SET, None).result.is_err());
    assert_eq!(noted(&vfs).len(), 1, "it may have stopped half way");
    *vfs.inner.fault.lock() = Some(VfsError::NotSync);
    assert!(vfs.setattr(&caller(), &key(5), &SET, None).result.is_err());
    assert_eq!(noted(&vfs), []);
}

#[test]
fn acls_are_attributes() {
    let vfs = recording(Durability::Local);
    assert!(vfs.set_acls(&caller(), &key(5), &SetAcls::default()).result.is_ok());
    assert_eq!(noted(&vfs), [Change::Object(key(5), Touch::attributes_only())]);
    *vfs.inner.fault.lock() = Some(VfsError::Io);
    assert!(vfs.set_acls(&caller(), &key(5), &SetAcls::default()).result.is_err());
    assert_eq!(noted(&vfs).len(), 1, "the first of two may have been set");
    *vfs.inner.fault.lock() = Some(VfsError::NotSupp);
    assert!(vfs.set_acls(&caller(), &key(5), &SetAcls::default()).result.is_err());
    assert_eq!(noted(&vfs), []);
}

#[test]
fn names_come_and_go() {
    let vfs = recording(Durability::Local);
    let caller = caller();
    let one = |name: &str| Change::entry(&key(1), name.as_bytes());
    vfs.create(&caller, &key(1), b"a", CreateHow::Guarded(SET)).result.unwrap();
    vfs.create(&caller, &key(1), b"b", CreateHow::Exclusive([0; 8])).result.unwrap();
    vfs.mkdir(&caller, &key(1), b"c", &SET).result.unwrap();
    vfs.symlink(&caller, &key(1), b"d", b"target", &SET).result.unwrap();
    vfs.mknod(&caller, &key(1), b"e", Kind::Fifo, (0, 0), &SET).result.unwrap();
    vfs.remove(&caller, &key(1), b"f").result.unwrap();
    vfs.rmdir(&caller, &key(1), b"g").result.unwrap();
    assert_eq!(noted(&vfs), ["a", "b", "c", "d", "e", "f", "g"].map(one));
    let truncating = SetAttributes { size: Some(0), ..SET };
    vfs.create(&caller, &key(1), b"h", CreateHow::Unchecked(truncating)).result.unwrap();
    assert_eq!(noted(&vfs), [one("h"), Change::Object(key(77), Touch::range(0..u64::MAX))]);
    vfs.link(&caller, &key(9), &key(1), b"i").0.result.unwrap();
    assert_eq!(noted(&vfs), [Change::Object(key(9), Touch::attributes_only()), one("i")]);
    let here = key(1);
    let there = key(2);
    vfs.rename(&caller, (&here, b"a"), (&there, b"b")).result.unwrap();
    assert_eq!(noted(&vfs), [Change::Entries(smallvec![entry(1, "a"), entry(2, "b")])]);
    vfs.rename(&caller, (&here, b"a"), (&here, b"a")).result.unwrap();
    assert_eq!(noted(&vfs), []);
    *vfs.inner.fault.lock() = Some(VfsError::Exist);
    assert!(vfs.create(&caller, &key(1), b"a", CreateHow::Guarded(SET)).result.is_err());
    assert_eq!(noted(&vfs), []);
}

#[test]
fn content_ranges_of_several_writes_merge() {
    let vfs = recording(Durability::Local);
    for n in 0..4u64 {
        vfs.write(&caller(), &key(5), n * 10, &[0; 10], Stability::Unstable).result.unwrap();
    }
    match &noted(&vfs)[..] {
        [Change::Object(_, Touch { content: Content::Ranges(ranges), .. })] => {
            assert_eq!((ranges.len(), ranges[0].clone()), (1, 0..40))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_is_open_during_the_operation() {
    let vfs = recording(Durability::Local);
    let dirty = Arc::clone(&vfs.dirty);
    *vfs.inner.during.lock() = Some(Box::new(move || {
        let mut fence = std::pin::pin!(dirty.tickets_closed());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(fence.as_mut().poll(&mut context).is_pending());
    }));
    let caller = caller();
    vfs.setattr(&caller, &key(5), &SET, None).result.unwrap();
    vfs.set_acls(&caller, &key(5), &SetAcls::default()).result.unwrap();
    vfs.write(&caller, &key(5), 0, b"x", Stability::FileSync).result.unwrap();
    vfs.create(&caller, &key(1), b"a", CreateHow::Guarded(SET)).result.unwrap();
    vfs.mkdir(&caller, &key(1), b"c", &SET).result.unwrap();
    vfs.symlink(&caller, &key(1), b"d", b"target", &SET).result.unwrap();
    vfs.mknod(&caller, &key(1), b"e", Kind::Fifo, (0, 0), &SET).result.unwrap();
    vfs.remove(&caller, &key(1), b"f").result.unwrap();
    vfs.rmdir(&caller, &key(1), b"g").result.unwrap();
    vfs.rename(&caller, (&key(1), b"a"), (&key(1), b"b")).result.unwrap();
    vfs.link(&caller, &key(5), &key(1), b"l").0.result.unwrap();
    vfs.dirty.tickets_closed().await;
}

#[tokio::test]
async fn remote_durability_waits_for_the_acknowledgement() {
    let vfs = recording(Durability::Remote);
    vfs.write(&caller(), &key(5), 0, b"x", Stability::FileSync).result.unwrap();
    let mut settled = vfs.settled().expect("the backup has nothing yet");
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(settled.as_mut().poll(&mut context).is_pending());
    vfs.dirty.acknowledge(1);
    settled.await.unwrap();
    assert!(vfs.settled().is_none(), "acknowledged already");
    // A commit on one thread promises the writes of all others.
    std::thread::scope(|scope| {
        scope.spawn(|| vfs.write(&caller(), &key(6), 0, b"y", Stability::Unstable).result.unwrap());
    });
    vfs.commit(&caller(), &key(6), 0, 0).result.unwrap();
    let settled = vfs.settled().expect("the other thread's write is not acknowledged");
    vfs.dirty.acknowledge(2);
    settled.await.unwrap();
    let local = recording(Durability::Local);
    local.write(&caller(), &key(5), 0, b"x", Stability::FileSync).result.unwrap();
    assert!(local.settled().is_none());
}
