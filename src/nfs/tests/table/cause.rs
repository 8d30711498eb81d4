//! The table itself: procedure x status -> how it is provoked, or why it cannot happen.

use super::super::wire::Call;
use super::world::World;
use crate::vfs::VfsError;
use ehpc_proto::nfs3::Procedure::{self, *};
use ehpc_proto::nfs3::arguments::{CreateHow, NodeKind};
use ehpc_proto::nfs3::nfsstat3::{self, *};
use ehpc_proto::nfs3::{StableHow, ftype3, nfstime3, sattr3, set_mtime, set_size3, specdata3};
use ehpc_tools::nfs_client::mode;

/// How a status comes about.
#[derive(Clone, Copy, Debug)]
pub(in crate::nfs::tests) enum Cause {
    /// The call as it should be.
    Plain,
    /// Each handle in turn is that of an object which was removed.
    Dead,
    /// Each handle in turn is one that was never given.
    Forged,
    /// The same call on an export that is read-only.
    ReadOnly,
    /// Each directory in turn is a file.
    NoDirectory,
    /// Each name in turn has 256 bytes.
    LongName,
    /// The name is not there.
    NoSuchName,
    /// The new name is there already.
    Taken,
    /// A caller whom the modes do not let in.
    Stranger,
    /// A tmpfs without a free inode or block.
    FullDisk,
    /// Something of its own.
    By(fn(&mut World) -> Call),
    /// The file system's own answer, injected, because a real cause cannot be had in a test: why.
    Fault(VfsError, &'static str),
    /// This server never gives this answer: why.
    Never(&'static str),
}

use Cause::*;

const NO_DISK_BREAKS: &str = "no disk of a test machine fails on demand";
const NO_BUG: &str = "stands for a fault of the server itself";
const NO_QUOTA: &str = "quotas need a file system made for them";
const OLD_FILE_SYSTEM: &str = "only file systems without this kind of object or call say so";

/// The row for a status that the RFC lists.
pub(super) fn cause(procedure: Procedure, status: nfsstat3) -> Option<Cause> {
    Some(match (status, procedure) {
        (NFS3ERR_STALE, _) => Dead,
        (NFS3ERR_BADHANDLE, _) => Forged,
        (NFS3ERR_ROFS, _) => ReadOnly,
        (NFS3ERR_NAMETOOLONG, _) => LongName,
        (NFS3ERR_NOENT, _) => NoSuchName,
        (NFS3ERR_IO, _) => Fault(VfsError::Io, NO_DISK_BREAKS),
        (NFS3ERR_SERVERFAULT, _) => Fault(VfsError::ServerFault, NO_BUG),
        (NFS3ERR_DQUOT, _) => Fault(VfsError::DQuot, NO_QUOTA),
        (NFS3ERR_NOTSUPP, _) => Fault(VfsError::NotSupp, OLD_FILE_SYSTEM),
        (NFS3ERR_NXIO, Read) => {
            Fault(VfsError::Nxio, "only devices vanish, and they are not read through here")
        }
        (NFS3ERR_ACCES, Readlink) => {
            Never("who has a symlink's handle may read it: the kernel asks for nothing")
        }
        (NFS3ERR_ACCES, _) => Stranger,
        (NFS3ERR_NOTDIR, Rmdir) => By(|w| Call::name(Rmdir, &w.dir, b"file")),
        (NFS3ERR_NOTDIR, _) => NoDirectory,
        (NFS3ERR_NOSPC, Setattr) => {
            Fault(VfsError::NoSpc, "a grown file is a hole; old file systems fill it")
        }
        (NFS3ERR_NOSPC, Rename) => Fault(VfsError::NoSpc, "a directory block would have to be the last one"),
        (NFS3ERR_NOSPC, _) => FullDisk,
        (NFS3ERR_EXIST, Rmdir) => By(|w| Call::name(Rmdir, &w.dir, b"..")),
        (NFS3ERR_EXIST, Rename) => {
            Fault(VfsError::Exist, "ext4 and xfs say NOTEMPTY of a directory in the way")
        }
        (NFS3ERR_EXIST, _) => Taken,
        (NFS3ERR_XDEV, _) => {
            Fault(VfsError::XDev, "one export is one file system: handles of others are refused")
        }
        (NFS3ERR_MLINK, _) => Fault(VfsError::MLink, "a file with 65,000 names takes long to make"),
        (NFS3ERR_PERM, Setattr) => By(|w| {
            w.act_as_stranger();
            Call::setattr(&w.file, mode(0o777), None)
        }),
        (NFS3ERR_NOT_SYNC, Setattr) => {
            By(|w| Call::setattr(&w.file, mode(0o600), Some(nfstime3 { seconds: 1, nseconds: 2 })))
        }
        (NFS3ERR_FBIG, Write) => By(|w| Call::write(&w.file, i64::MAX as u64, b"x", StableHow::Unstable)),
        (NFS3ERR_BADTYPE, Mknod) => By(|w| Call::mknod(&w.dir, b"new", NodeKind::Other(ftype3::NF3REG))),
        (NFS3ERR_ISDIR, Rename) => By(|w| Call::rename((&w.dir, b"file"), (&w.dir, b"empty"))),
        (NFS3ERR_NOTEMPTY, Rename) => By(|w| Call::rename((&w.dir, b"empty"), (&w.dir, b"filled"))),
        (NFS3ERR_NOTEMPTY, Rmdir) => By(|w| Call::name(Rmdir, &w.dir, b"filled")),
        (NFS3ERR_INVAL, procedure) => By(invalid(procedure)?),
        (NFS3ERR_BAD_COOKIE, Readdir) => By(|w| Call::readdir_with(&w.dir, 1, [9; 8], 4096)),
        (NFS3ERR_BAD_COOKIE, Readdirplus) => By(|w| Call::readdirplus_with(&w.dir, 1, [9; 8], (4096, 4096))),
        (NFS3ERR_TOOSMALL, Readdir) => By(|w| Call::readdir(&w.dir, 0, 104)),
        (NFS3ERR_TOOSMALL, Readdirplus) => By(|w| Call::readdirplus(&w.dir, 0, 1024, 104)),
        _ => return None,
    })
}

/// What is invalid about a procedure's arguments.
fn invalid(procedure: Procedure) -> Option<fn(&mut World) -> Call> {
    Some(match procedure {
        Setattr => |w| {
            let time = nfstime3 { seconds: 1, nseconds: 1_000_000_000 };
            let set = sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(time), ..sattr3::default() };
            Call::setattr(&w.file, set, None)
        },
        Readlink => |w| Call::of(Readlink, &w.file),
        // 3.3.6 and 3.3.7: INVAL for whatever is no regular file, directories included.
        Read => |w| Call::read(&w.dir, 0, 10),
        Write => |w| Call::write(&w.dir, 0, b"x", StableHow::Unstable),
        Rmdir => |w| Call::name(Rmdir, &w.dir, b"."),
        Rename => |w| Call::rename((&w.dir, b"."), (&w.dir, b"new")),
        Link => |w| Call::link(&w.empty, &w.dir, b"new"),
        _ => return None,
    })
}

/// What the server answers although the procedure's list does not have it.
#[rustfmt::skip]
pub(super) const BEYOND: &[(Procedure, nfsstat3, Cause, &str)] = &[
    (Remove, NFS3ERR_ISDIR, By(|w| Call::name(Remove, &w.dir, b"empty")),
        "no listed status says that the name is a directory's; every server answers this"),
    (Remove, NFS3ERR_PERM, By(|w| { w.act_as_stranger(); Call::name(Remove, &w.sticky, b"theirs") }),
        "unlink(2) in a sticky directory fails with EPERM, and clients hand it to the application"),
    (Rename, NFS3ERR_PERM, By(|w| {
        w.act_as_stranger();
        Call::rename((&w.sticky, b"theirs"), (&w.sticky, b"new"))
    }), "rename(2) in a sticky directory fails with EPERM, and clients hand it to the application"),
    (Mknod, NFS3ERR_PERM, By(|w| {
        w.act_as_stranger();
        let device = specdata3 { specdata1: 1, specdata2: 3 };
        Call::mknod(&w.sticky, b"new", NodeKind::Device { block: false, attributes: mode(0o600), device })
    }), "mknod(2) of a device fails with EPERM for all but root"),
    (Setattr, NFS3ERR_FBIG, By(|w| {
        Call::setattr(&w.file, sattr3 { size: set_size3::size(u64::MAX), ..sattr3::default() }, None)
    }), "truncate(2) to more than the file system can hold fails with EFBIG"),
    (Setattr, NFS3ERR_NOTSUPP, By(|w| Call::setattr(&w.link, mode(0o600), None)),
        "a symlink has no mode on Linux; NOTSUPP says that, INVAL would blame the arguments"),
    (Commit, NFS3ERR_INVAL, By(|w| Call::commit(&w.dir, 0, 0)),
        "COMMIT is for regular files (3.3.21), and the list has nothing for others"),
    (Create, NFS3ERR_INVAL, By(|w| {
        let time = nfstime3 { seconds: 1, nseconds: 1_000_000_000 };
        let set = sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(time), ..sattr3::default() };
        Call::create(&w.dir, b"new", CreateHow::Guarded(set))
    }), "a time with a whole second of nanoseconds is none, as in SETATTR"),
    (Symlink, NFS3ERR_INVAL, By(|w| Call::symlink(&w.dir, b"new", b"a\0b", sattr3::default())),
        "a target with a NUL in it cannot be stored, and the list has nothing for it"),
    (Mknod, NFS3ERR_INVAL, By(|w| {
        let time = nfstime3 { seconds: 1, nseconds: 1_000_000_000 };
        let set = sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(time), ..sattr3::default() };
        Call::mknod(&w.dir, b"new", NodeKind::Special { socket: false, attributes: set })
    }), "a time with a whole second of nanoseconds is none, as in SETATTR"),
];
