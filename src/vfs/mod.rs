//! The seam between NFS and whatever holds the files.
//!
//! Calls block (they are made on worker threads, but for those that the file system calls quick) and carry the
//! caller's identity. Errors are the file system's own words; `nfs` maps them one to one to nfsstat3.

mod fault;
pub mod local;
pub mod memory;
#[cfg(test)]
pub(crate) mod twins;

pub use local::{LocalOptions, LocalVfs};
pub use memory::MemoryVfs;

use crate::host::ObjectKey;
use ehpc_proto::posix_acl::Acl;
use ehpc_proto::replication::{Kind, Timestamp};
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;

/// Who asks (AUTH_SYS after the export's squashing).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, at most 16 from the wire.
    pub groups: SmallVec<[u32; 16]>,
}

/// What can go wrong; names as in RFC 1813 nfsstat3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VfsError {
    #[error("not owner")]
    Perm,
    #[error("no such file or directory")]
    NoEnt,
    #[error("input or output error")]
    Io,
    #[error("no such device")]
    Nxio,
    #[error("permission denied")]
    Access,
    #[error("file exists")]
    Exist,
    #[error("cross-device operation")]
    XDev,
    #[error("not a directory")]
    NotDir,
    #[error("is a directory")]
    IsDir,
    #[error("invalid argument")]
    Inval,
    #[error("file too large")]
    FBig,
    #[error("no space left on device")]
    NoSpc,
    #[error("read-only file system")]
    Rofs,
    #[error("too many hard links")]
    MLink,
    #[error("file name too long")]
    NameTooLong,
    #[error("directory not empty")]
    NotEmpty,
    #[error("quota exceeded")]
    DQuot,
    #[error("stale file handle")]
    Stale,
    #[error("update synchronization mismatch (guard)")]
    NotSync,
    #[error("stale directory cookie")]
    BadCookie,
    #[error("operation not supported")]
    NotSupp,
    #[error("try again later")]
    Jukebox,
    #[error("server fault")]
    ServerFault,
}

/// Attributes of an object (fattr3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Attributes {
    pub kind: Kind,
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub rdev: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

/// wcc_data: size, mtime and ctime before (taken under the object's lock, or left out), attributes after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Wcc {
    pub before: Option<(u64, Timestamp, Timestamp)>,
    pub after: Option<Attributes>,
}

/// A mutation's outcome: wcc data comes with success and failure alike.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Mutation<T> {
    pub result: Result<T, VfsError>,
    pub wcc: Wcc,
}

/// An object just found or made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Node {
    pub key: ObjectKey,
    pub attributes: Option<Attributes>,
}

/// New value of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum SetTime {
    #[default]
    Keep,
    ServerTime,
    To(Timestamp),
}

/// sattr3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct SetAttributes {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// An object's POSIX ACLs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Acls {
    /// `None`: the mode says all.
    pub access: Option<Acl>,
    /// What objects made in this directory get; `None`: their mode says all.
    pub default: Option<Acl>,
}

/// New POSIX ACLs: `None` leaves one as it is, an empty list removes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct SetAcls {
    pub access: Option<Acl>,
    pub default: Option<Acl>,
}

/// createhow3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CreateHow {
    Unchecked(SetAttributes),
    Guarded(SetAttributes),
    /// All 8 verifier bytes survive a restart (kept in atime and mtime, fsync'd).
    Exclusive([u8; 8]),
}

/// stable_how.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Stability {
    Unstable,
    DataSync,
    FileSync,
}

/// What READ returns.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ReadDone {
    pub bytes: usize,
    pub eof: bool,
    pub attributes: Option<Attributes>,
}

/// What WRITE returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct WriteDone {
    pub count: u32,
    pub committed: Stability,
}

/// One directory entry. `node` only when READDIRPLUS asked for it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct DirEntry<'a> {
    pub fileid: u64,
    pub name: &'a [u8],
    /// Resume after this entry.
    pub cookie: u64,
    pub node: Option<&'a Node>,
    /// Where the reader may keep what it makes of this entry: it is there again while the entry is the same.
    pub memo: Option<&'a Memo>,
}

/// See [`DirEntry::memo`]. Who else may read it is the reader's business.
pub type Memo = std::sync::OnceLock<Box<[u8]>>;

/// RENAME touches two directories.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct RenameDone {
    pub result: Result<(), VfsError>,
    pub from: Wcc,
    pub to: Wcc,
}

/// FSSTAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct FsStat {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub available_bytes: u64,
    pub total_files: u64,
    pub free_files: u64,
    pub available_files: u64,
}

/// What PATHCONF and FSINFO tell of the file system itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Limits {
    pub link_max: u32,
    pub name_max: u32,
    pub max_file_size: u64,
    pub time_granularity_ns: u32,
}

/// Resolves when everything done so far is durable where the export's durability wants it. An error: it is not, and
/// will not be (the disk refused it).
pub type Settled = Pin<Box<dyn Future<Output = Result<(), VfsError>> + Send>>;

/// Kinds of work, for the question where it may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Attributes, names, permissions of one object.
    Look,
    /// READ. If quick, [`Vfs::read_quickly`] is tried first.
    Read,
    /// A change of names or attributes.
    Change,
    /// WRITE.
    Write(Stability),
    /// COMMIT, and what is durable before it is answered in any case (exclusive CREATE).
    Flush,
    /// A listing. If quick, [`Vfs::readdir_quickly`] is tried first.
    List,
}

/// A file system that NFS can serve. Names are bytes, 1 to 255, without '/' and NUL; "." and ".." are
/// handled by the caller (`nfs`) for LOOKUP and refused for mutations before they get here.
#[allow(missing_docs)]
pub trait Vfs: Send + Sync + 'static {
    fn root(&self) -> ObjectKey;
    fn getattr(&self, caller: &Caller, object: &ObjectKey) -> Result<Attributes, VfsError>;
    /// `guard`: refuse with NotSync unless ctime equals it.
    fn setattr(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        set: &SetAttributes,
        guard: Option<Timestamp>,
    ) -> Mutation<()>;
    /// The object's ACLs and attributes, of one moment. What knows no ACLs has none.
    fn acls(&self, caller: &Caller, object: &ObjectKey) -> Result<(Acls, Attributes), VfsError> {
        Ok((Acls::default(), self.getattr(caller, object)?))
    }
    /// By the owner alone. Inval: not an ACL; Access: a default ACL for what is not a directory; NotSupp: no ACLs here.
    fn set_acls(&self, _caller: &Caller, _object: &ObjectKey, _set: &SetAcls) -> Mutation<()> {
        Mutation { result: Err(VfsError::NotSupp), wcc: Wcc::default() }
    }
    /// Also returns the directory's attributes.
    fn lookup(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Result<Node, VfsError>, Option<Attributes>);
    /// The directory above `dir`; the root's is the root.
    fn parent(&self, caller: &Caller, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>);
    /// ACCESS3 bits that are granted out of `wanted`.
    fn access(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        wanted: u32,
    ) -> Result<(u32, Option<Attributes>), VfsError>;
    fn readlink(
        &self,
        caller: &Caller,
        object: &ObjectKey,
    ) -> (Result<Vec<u8>, VfsError>, Option<Attributes>);
    /// Appends at most `count` bytes to `into`.
    fn read(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        count: u32,
        into: &mut Vec<u8>,
    ) -> Result<ReadDone, VfsError>;
    fn write(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Mutation<WriteDone>;
    fn create(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], how: CreateHow) -> Mutation<Node>;
    fn mkdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8], set: &SetAttributes) -> Mutation<Node>;
    fn symlink(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        target: &[u8],
        set: &SetAttributes,
    ) -> Mutation<Node>;
    /// Fifo, socket, character or block device.
    fn mknod(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        name: &[u8],
        kind: Kind,
        rdev: (u32, u32),
        set: &SetAttributes,
    ) -> Mutation<Node>;
    /// Anything but a directory.
    fn remove(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()>;
    fn rmdir(&self, caller: &Caller, dir: &ObjectKey, name: &[u8]) -> Mutation<()>;
    fn rename(&self, caller: &Caller, from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> RenameDone;
    /// Mutation's wcc is the directory's; second: the object's attributes after.
    fn link(
        &self,
        caller: &Caller,
        object: &ObjectKey,
        dir: &ObjectKey,
        name: &[u8],
    ) -> (Mutation<()>, Option<Attributes>);
    /// Calls `each` for entries after `cookie` (0 = from the start, "." and ".." included with their own cookies)
    /// until it returns false; true in the result = the end was reached. `plus`: with `node` (under the caller's ids).
    fn readdir(
        &self,
        caller: &Caller,
        dir: &ObjectKey,
        cookie: u64,
        plus: bool,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError>;
    fn fsstat(&self, caller: &Caller, object: &ObjectKey) -> Result<FsStat, VfsError>;
    fn limits(&self) -> Limits;
    /// `count` 0 = to the end of the file.
    fn commit(&self, caller: &Caller, object: &ObjectKey, offset: u64, count: u32) -> Mutation<()>;
    /// The write verifier now: changes when unstable data may have been lost.
    fn write_verifier(&self) -> [u8; 8];
    /// The object's path within the tree, or whatever else tells a person which one it is; never for a decision.
    fn describe(&self, _object: &ObjectKey) -> Option<String> {
        None
    }
    /// May this work be done on a thread that serves many clients and must not wait for a disk? Memory may be
    /// waited for, and the locks of other quick calls.
    fn quick(&self, _work: Work) -> bool {
        false
    }
    /// As [`Vfs::read`] if it can be done without waiting; `None` (and `into` as it was): it cannot.
    fn read_quickly(
        &self,
        _caller: &Caller,
        _object: &ObjectKey,
        _offset: u64,
        _count: u32,
        _into: &mut Vec<u8>,
    ) -> Option<Result<ReadDone, VfsError>> {
        None
    }
    /// As [`Vfs::readdir`] if it can be done without waiting; `None`: it cannot, and what `each` was told does not count.
    fn readdir_quickly(
        &self,
        _caller: &Caller,
        _dir: &ObjectKey,
        _cookie: u64,
        _plus: bool,
        _each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Option<Result<bool, VfsError>> {
        None
    }
    /// Asked right after a stable mutation on its thread; `None` = durable already. Awaited off the worker threads.
    fn settled(&self) -> Option<Settled> {
        None
    }
}

/// ACCESS3 bits.
pub mod access {
    /// Read data, or list a directory.
    pub const READ: u32 = 0x01;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x02;
    /// Rewrite data, or change the entries of a directory.
    pub const MODIFY: u32 = 0x04;
    /// Write new data, or add entries to a directory.
    pub const EXTEND: u32 = 0x08;
    /// Delete an entry of a directory: the directory's bit, never that of the object to be deleted.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;

    /// The bits of a directory or another object that the kernel's r (4), w (2) and x (1) stand for.
    pub(crate) fn granted(directory: bool, rwx: u32) -> u32 {
        let (r, w, x) = (rwx & 4 != 0, rwx & 2 != 0, rwx & 1 != 0);
        let mut bits = if r { READ } else { 0 };
        if directory {
            bits |= if x { LOOKUP } else { 0 };
            bits |= if w && x { MODIFY | EXTEND | DELETE } else { 0 };
        } else {
            bits |= if w { MODIFY | EXTEND } else { 0 };
            bits |= if x { EXECUTE } else { 0 };
        }
        bits
    }
}

/// The verifier of an exclusive CREATE as access and modification time: 31 bits of each half as seconds,
/// which every file system keeps, and the top bit in the nanoseconds (1 or 2: 0 says that they are not kept).
pub(crate) fn verifier_times(verifier: [u8; 8]) -> (Timestamp, Timestamp) {
    let half = |bytes: [u8; 4]| {
        let value = u32::from_be_bytes(bytes);
        Timestamp { seconds: i64::from(value & 0x7fff_ffff), nanos: 1 + (value >> 31) }
    };
    let [a, b, c, d, e, f, g, h] = verifier;
    (half([a, b, c, d]), half([e, f, g, h]))
}

/// Was the object with these times made by an exclusive CREATE with this verifier?
pub(crate) fn made_with(verifier: [u8; 8], atime: Timestamp, mtime: Timestamp) -> bool {
    let same = |want: Timestamp, is: Timestamp| {
        want.seconds == is.seconds && (want.nanos == is.nanos || is.nanos == 0)
    };
    let (want_atime, want_mtime) = verifier_times(verifier);
    same(want_atime, atime) && same(want_mtime, mtime)
}
