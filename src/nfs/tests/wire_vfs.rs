//! A served file system as a `Vfs`: every operation is a call over TCP. What a reply must hold in any case is
//! checked on the way.

use super::table::WORDS;
use super::wire::{Call, Outcome, Rest, Seen, ask, view};
use crate::host::{KeyKind, ObjectKey};
use crate::vfs::{
    Acls, Attributes, Caller, CreateHow, DirEntry, FsStat, Limits, Mutation, Node, ReadDone, RenameDone,
    SetAcls, SetAttributes, SetTime, Stability, Vfs, VfsError, Wcc, WriteDone,
};
use ehpc_proto::nfs3::arguments::{self, NodeKind};
use ehpc_proto::nfs3::{
    Procedure, StableHow, fattr3, ftype3, nfs_fh3, nfsstat3, nfstime3, post_op_attr, sattr3, set_atime,
    set_gid3, set_mode3, set_mtime, set_size3, set_uid3, specdata3,
};
use ehpc_proto::nfsacl::{self, Getacl, GetaclArgs, List, SecAttr, Setacl, SetaclArgs, mask};
use ehpc_proto::posix_acl::Acl;
use ehpc_proto::replication::{Kind, Timestamp};
use ehpc_tools::nfs_client::{Client, Handle};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a page of a listing may have, in turn.
const PAGES: [u32; 4] = [400, 1100, 5000, 64 * 1024];

pub(super) struct WireVfs {
    client: Mutex<Client>,
    root: Handle,
    pages: AtomicUsize,
    verifier: Mutex<Option<[u8; 8]>>,
}

impl WireVfs {
    pub(super) fn new(mut client: Client, path: &str) -> WireVfs {
        let root = client.mount(path).unwrap();
        WireVfs { client: Mutex::new(client), root, pages: AtomicUsize::new(0), verifier: Mutex::default() }
    }

    /// One call, as this caller. Attributes in the reply are those that GETATTR then tells.
    fn ask(&self, caller: &Caller, call: &Call) -> Outcome {
        let mut client = self.client.lock();
        client.act_as(caller.uid, caller.gid, &caller.groups);
        let outcome = ask(&mut client, call);
        let objects = outcome.object.iter().chain(&call.handles);
        for (seen, handle) in outcome.seen.iter().zip(objects) {
            let now = client.getattr(handle).ok();
            let (told, now) = (seen.after.as_ref().map(view), now.as_ref().map(view));
            assert_eq!(told, now, "{:?} answered {}: attributes", call.procedure, outcome.status);
        }
        outcome
    }

    fn changed<T>(&self, caller: &Caller, call: &Call, take: impl FnOnce(&Outcome) -> T) -> Mutation<T> {
        let outcome = self.ask(caller, call);
        let wcc = outcome.seen.last().map(wcc).unwrap_or_default();
        Mutation { result: result(&outcome).map(|()| take(&outcome)), wcc }
    }

    /// The same in every WRITE and COMMIT: another one makes clients write everything again.
    fn check_verifier(&self, told: [u8; 8]) {
        assert_eq!(*self.verifier.lock().get_or_insert(told), told, "the write verifier");
    }

    fn made(&self, caller: &Caller, call: &Call) -> Mutation<Node> {
        self.changed(caller, call, node)
    }

    fn found(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        let outcome = self.ask(caller, &Call::name(Procedure::Lookup, &handle(dir), name));
        (result(&outcome).map(|()| node(&outcome)), outcome.seen.last().and_then(attributes_of))
    }
}

fn key(handle: &Handle) -> ObjectKey {
    ObjectKey { kind: KeyKind::Handle, handle_type: 0, bytes: SmallVec::from_slice(&handle.data) }
}

fn handle(key: &ObjectKey) -> Handle {
    nfs_fh3 { data: key.bytes.to_vec() }
}

fn result(outcome: &Outcome) -> Result<(), VfsError> {
    if outcome.status == 0 {
        return Ok(());
    }
    Err(word(outcome.status))
}

/// What the file system said.
fn word(status: u32) -> VfsError {
    let word = WORDS.iter().find(|(_, word)| *word as u32 == status);
    word.unwrap_or_else(|| panic!("status {status} is no word of a file system")).0
}

fn post_op(attributes: post_op_attr) -> Option<Attributes> {
    match attributes {
        post_op_attr::attributes(told) => Some(self::attributes(&told)),
        post_op_attr::Void => None,
    }
}

fn node(outcome: &Outcome) -> Node {
    let object = outcome.object.as_ref().expect("a handle");
    Node { key: key(object), attributes: outcome.seen.first().and_then(attributes_of) }
}

fn timestamp(time: nfstime3) -> Timestamp {
    Timestamp { seconds: i64::from(time.seconds), nanos: time.nseconds }
}

fn attributes(from: &fattr3) -> Attributes {
    Attributes {
        kind: match from.ftype {
            ftype3::NF3REG => Kind::File,
            ftype3::NF3DIR => Kind::Directory,
            ftype3::NF3BLK => Kind::BlockDevice,
            ftype3::NF3CHR => Kind::CharDevice,
            ftype3::NF3LNK => Kind::Symlink,
            ftype3::NF3SOCK => Kind::Socket,
            ftype3::NF3FIFO => Kind::Fifo,
        },
        mode: from.mode as u16,
        nlink: from.nlink,
        uid: from.uid,
        gid: from.gid,
        size: from.size,
        used: from.used,
        rdev: (from.rdev.specdata1, from.rdev.specdata2),
        fsid: from.fsid,
        fileid: from.fileid,
        atime: timestamp(from.atime),
        mtime: timestamp(from.mtime),
        ctime: timestamp(from.ctime),
    }
}

fn attributes_of(seen: &Seen) -> Option<Attributes> {
    seen.after.as_ref().map(attributes)
}

fn wcc(seen: &Seen) -> Wcc {
    let before = seen.before.map(|was| (was.size, timestamp(was.mtime), timestamp(was.ctime)));
    Wcc { before, after: attributes_of(seen) }
}

fn time(of: Timestamp) -> nfstime3 {
    nfstime3 { seconds: of.seconds as u32, nseconds: of.nanos }
}

fn sattr(set: &SetAttributes) -> sattr3 {
    sattr3 {
        mode: set.mode.map_or(set_mode3::Void, |mode| set_mode3::mode(u32::from(mode))),
        uid: set.uid.map_or(set_uid3::Void, set_uid3::uid),
        gid: set.gid.map_or(set_gid3::Void, set_gid3::gid),
        size: set.size.map_or(set_size3::Void, set_size3::size),
        atime: match set.atime {
            SetTime::Keep => set_atime::DONT_CHANGE,
            SetTime::ServerTime => set_atime::SET_TO_SERVER_TIME,
            SetTime::To(at) => set_atime::SET_TO_CLIENT_TIME(time(at)),
        },
        mtime: match set.mtime {
            SetTime::Keep => set_mtime::DONT_CHANGE,
            SetTime::ServerTime => set_mtime::SET_TO_SERVER_TIME,
            SetTime::To(at) => set_mtime::SET_TO_CLIENT_TIME(time(at)),
        },
    }
}

fn stable_how(of: Stability) -> StableHow {
    match of {
        Stability::Unstable => StableHow::Unstable,
        Stability::DataSync => StableHow::DataSync,
        Stability::FileSync => StableHow::FileSync,
    }
}

impl Vfs for WireVfs {
    fn root(&self) -> ObjectKey {
        key(&self.root)
    }

    fn getattr(&self, caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError> {
        let outcome = self.ask(caller, &Call::of(Procedure::Getattr, &handle(object)));
        result(&outcome)?;
        Ok(outcome.seen.first().and_then(attributes_of).expect("attributes"))
    }

    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()> {
        self.changed(caller, &Call::setattr(&handle(object), sattr(set), guard.map(time)), |_| ())
    }

    fn acls(&self, caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        let mut client = self.client.lock();
        client.act_as(caller.uid, caller.gid, &caller.groups);
        let args = GetaclArgs { object: handle(object), mask: mask::ACL | mask::DEFAULT };
        let answer = client.call(nfsacl::PROGRAM, nfsacl::VERSION, nfsacl::Procedure::Getacl as u32, &args);
        let told = answer.unwrap().result::<Getacl>().unwrap().map_err(|(status, _)| word(status as u32))?;
        let list = |list: &List| Some(list.to_posix().unwrap()).filter(|acl| !acl.is_empty());
        let acls = Acls { access: list(&told.acls.access), default: list(&told.acls.default) };
        Ok((acls, post_op(told.attributes).expect("attributes")))
    }

    fn set_acls(&self, caller: &Caller, object: &ObjectKey, set: &SetAcls) -> Mutation<()> {
        let mut client = self.client.lock();
        client.act_as(caller.uid, caller.gid, &caller.groups);
        let bit = |of: &Option<Acl>, bit| if of.is_some() { bit } else { 0 };
        let list =
            |acl: &Option<Acl>, default| List::from_posix(acl.as_ref(), (0, 0), default, true).unwrap();
        let acls = SecAttr {
            mask: bit(&set.access, mask::ACL) | bit(&set.default, mask::DEFAULT),
            access: list(&set.access, false),
            default: list(&set.default, true),
        };
        let args = SetaclArgs { object: handle(object), acls };
        let answer = client.call(nfsacl::PROGRAM, nfsacl::VERSION, nfsacl::Procedure::Setacl as u32, &args);
        let (result, after) = match answer.unwrap().result::<Setacl>().unwrap() {
            Ok(after) => (Ok(()), after),
            Err((status, after)) => (Err(word(status as u32)), after),
        };
        Mutation { result, wcc: Wcc { before: None, after: post_op(after) } }
    }

    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.found(caller, dir, name)
    }

    fn parent(&self, caller: &Caller, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        self.found(caller, dir, b"..")
    }

    fn access(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        wanted: u32,
    ) -> Result<(u32, Option<Attributes>), VfsError> {
        let outcome = self.ask(caller, &Call::access(&handle(object), wanted));
        result(&outcome)?;
        let Rest::Access(granted) = outcome.rest else { panic!("no access bits") };
        Ok((granted, outcome.seen.first().and_then(attributes_of)))
    }

    fn readlink(
        &self,
        caller: &Caller,
        object: &ObjectKey,
    ) -> (Result<Vec<u8>, VfsError>, Option<Attributes>) {
        let outcome = self.ask(caller, &Call::of(Procedure::Readlink, &handle(object)));
        let attributes = outcome.seen.first().and_then(attributes_of);
        let target = result(&outcome).map(|()| match outcome.rest {
            Rest::Target(target) => target,
            _ => panic!("no target"),
        });
        (target, attributes)
    }

    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError> {
        let outcome = self.ask(caller, &Call::read(&handle(object), offset, count));
        result(&outcome)?;
        let attributes = outcome.seen.first().and_then(attributes_of);
        let Rest::Data { data, eof } = outcome.rest else { panic!("no data") };
        into.extend_from_slice(&data);
        Ok(ReadDone { bytes: data.len(), eof, attributes })
    }

    fn write(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone> {
        let call = Call::write(&handle(object), offset, data, stable_how(stable));
        self.changed(caller, &call, |outcome| {
            let Rest::Written { count, committed, verifier } = outcome.rest else {
                panic!("nothing written")
            };
            assert!(committed >= stable_how(stable), "less stable than asked");
            self.check_verifier(verifier);
            WriteDone { count, committed: stable }
        })
    }

    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node> {
        let how = match how {
            CreateHow::Unchecked(set) => arguments::CreateHow::Unchecked(sattr(&set)),
            CreateHow::Guarded(set) => arguments::CreateHow::Guarded(sattr(&set)),
            CreateHow::Exclusive(verifier) => arguments::CreateHow::Exclusive(verifier),
        };
        self.made(caller, &Call::create(&handle(dir), name, how))
    }

    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node> {
        self.made(caller, &Call::mkdir(&handle(dir), name, sattr(set)))
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node> {
        self.made(caller, &Call::symlink(&handle(dir), name, target, sattr(set)))
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
        let attributes = sattr(set);
        let device = specdata3 { specdata1: rdev.0, specdata2: rdev.1 };
        let what = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                NodeKind::Device { block: kind == Kind::BlockDevice, attributes, device }
            }
            _ => NodeKind::Special { socket: kind == Kind::Socket, attributes },
        };
        self.made(caller, &Call::mknod(&handle(dir), name, what))
    }

    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.changed(caller, &Call::name(Procedure::Remove, &handle(dir), name), |_| ())
    }

    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()> {
        self.changed(caller, &Call::name(Procedure::Rmdir, &handle(dir), name), |_| ())
    }

    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone {
        let call = Call::rename((&handle(from.0), from.1), (&handle(to.0), to.1));
        let outcome = self.ask(caller, &call);
        RenameDone { result: result(&outcome), from: wcc(&outcome.seen[0]), to: wcc(&outcome.seen[1]) }
    }

    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>) {
        let outcome = self.ask(caller, &Call::link(&handle(object), &handle(dir), name));
        let done = Mutation { result: result(&outcome), wcc: wcc(&outcome.seen[1]) };
        (done, attributes_of(&outcome.seen[0]))
    }

    /// In pages of several sizes.
    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        mut cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        loop {
            let count = PAGES[self.pages.fetch_add(1, Ordering::Relaxed) % PAGES.len()];
            let call = if plus {
                Call::readdirplus(&handle(dir), cookie, count / 2, count)
            } else {
                Call::readdir(&handle(dir), cookie, count)
            };
            let outcome = self.ask(caller, &call);
            if outcome.status == nfsstat3::NFS3ERR_TOOSMALL as u32 && count < 1100 {
                continue; // a long name: the next page is larger
            }
            result(&outcome)?;
            let Rest::Listing { entries, eof } = outcome.rest else { panic!("no listing") };
            assert!(eof || !entries.is_empty(), "no progress");
            for entry in entries {
                cookie = entry.cookie;
                let attributes = entry.attributes.as_ref().map(attributes);
                let node = entry.handle.map(|handle| Node { key: key(&handle), attributes });
                if !each(DirEntry {
                    fileid: entry.fileid,
                    name: &entry.name,
                    cookie,
                    node: node.as_ref(),
                    memo: None,
                }) {
                    return Ok(false);
                }
            }
            if eof {
                return Ok(true);
            }
        }
    }

    fn fsstat(&self, _: &Caller, _: &ObjectKey) -> Result<FsStat, VfsError> {
        Err(VfsError::NotSupp)
    }

    fn limits(&self) -> Limits {
        Limits { link_max: 0, name_max: 255, max_file_size: 0, time_granularity_ns: 1 }
    }

    fn commit(&self, caller: &Caller, object: &ObjectKey, offset: u64, count: u32) -> Mutation<()> {
        self.changed(caller, &Call::commit(&handle(object), offset, count), |outcome| {
            let Rest::Verifier(verifier) = outcome.rest else { panic!("no verifier") };
            self.check_verifier(verifier);
        })
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.verifier.lock().unwrap_or_default()
    }
}
