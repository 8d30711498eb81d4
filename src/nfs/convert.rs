//! Between the words of the file system and those of the protocol.

use crate::vfs::{Attributes, SetAttributes, SetTime, VfsError, Wcc};
use ehpc_proto::nfs3::{
    fattr3, ftype3, nfsstat3, nfstime3, post_op_attr, pre_op_attr, sattr3, set_atime, set_gid3, set_mode3,
    set_mtime, set_size3, set_uid3, specdata3, wcc_attr, wcc_data,
};
use ehpc_proto::replication::{Kind, Timestamp};

pub(super) fn status(error: VfsError) -> nfsstat3 {
    match error {
        VfsError::Perm => nfsstat3::NFS3ERR_PERM,
        VfsError::NoEnt => nfsstat3::NFS3ERR_NOENT,
        VfsError::Io => nfsstat3::NFS3ERR_IO,
        VfsError::Nxio => nfsstat3::NFS3ERR_NXIO,
        VfsError::Access => nfsstat3::NFS3ERR_ACCES,
        VfsError::Exist => nfsstat3::NFS3ERR_EXIST,
        VfsError::XDev => nfsstat3::NFS3ERR_XDEV,
        VfsError::NotDir => nfsstat3::NFS3ERR_NOTDIR,
        VfsError::IsDir => nfsstat3::NFS3ERR_ISDIR,
        VfsError::Inval => nfsstat3::NFS3ERR_INVAL,
        VfsError::FBig => nfsstat3::NFS3ERR_FBIG,
        VfsError::NoSpc => nfsstat3::NFS3ERR_NOSPC,
        VfsError::Rofs => nfsstat3::NFS3ERR_ROFS,
        VfsError::MLink => nfsstat3::NFS3ERR_MLINK,
        VfsError::NameTooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
        VfsError::NotEmpty => nfsstat3::NFS3ERR_NOTEMPTY,
        VfsError::DQuot => nfsstat3::NFS3ERR_DQUOT,
        VfsError::Stale => nfsstat3::NFS3ERR_STALE,
        VfsError::NotSync => nfsstat3::NFS3ERR_NOT_SYNC,
        VfsError::BadCookie => nfsstat3::NFS3ERR_BAD_COOKIE,
        VfsError::NotSupp => nfsstat3::NFS3ERR_NOTSUPP,
        VfsError::Jukebox => nfsstat3::NFS3ERR_JUKEBOX,
        VfsError::ServerFault => nfsstat3::NFS3ERR_SERVERFAULT,
    }
}

/// For READ, WRITE, SETATTR and LINK: INVAL is the RFC's word for whatever is no regular file, directories
/// included (RFC 1813 sections 3.3.6 and 3.3.7); ISDIR is on none of their lists.
pub(super) fn content_status(error: VfsError) -> nfsstat3 {
    match error {
        VfsError::IsDir => nfsstat3::NFS3ERR_INVAL,
        other => status(other),
    }
}

fn kind(kind: Kind) -> ftype3 {
    match kind {
        Kind::File => ftype3::NF3REG,
        Kind::Directory => ftype3::NF3DIR,
        Kind::Symlink => ftype3::NF3LNK,
        Kind::Fifo => ftype3::NF3FIFO,
        Kind::Socket => ftype3::NF3SOCK,
        Kind::CharDevice => ftype3::NF3CHR,
        Kind::BlockDevice => ftype3::NF3BLK,
    }
}

/// NFSv3 times are unsigned 32-bit seconds: what lies outside 1970 to 2106 is shown as the nearest end.
pub(super) fn time(time: Timestamp) -> nfstime3 {
    let seconds = time.seconds.clamp(0, i64::from(u32::MAX)) as u32;
    nfstime3 { seconds, nseconds: time.nanos }
}

fn timestamp(time: nfstime3) -> Result<Timestamp, nfsstat3> {
    if time.nseconds > 999_999_999 {
        return Err(nfsstat3::NFS3ERR_INVAL);
    }
    Ok(Timestamp { seconds: i64::from(time.seconds), nanos: time.nseconds })
}

pub(super) fn guard(time: Option<nfstime3>) -> Result<Option<Timestamp>, nfsstat3> {
    time.map(timestamp).transpose()
}

pub(super) fn attributes(from: &Attributes) -> fattr3 {
    fattr3 {
        ftype: kind(from.kind),
        mode: u32::from(from.mode & 0o7777),
        nlink: from.nlink,
        uid: from.uid,
        gid: from.gid,
        size: from.size,
        used: from.used,
        rdev: specdata3 { specdata1: from.rdev.0, specdata2: from.rdev.1 },
        fsid: from.fsid,
        fileid: from.fileid,
        atime: time(from.atime),
        mtime: time(from.mtime),
        ctime: time(from.ctime),
    }
}

pub(super) fn post_op(from: Option<Attributes>) -> post_op_attr {
    match from {
        Some(from) => post_op_attr::attributes(attributes(&from)),
        None => post_op_attr::Void,
    }
}

pub(super) fn wcc(from: &Wcc) -> wcc_data {
    let before = match from.before {
        Some((size, mtime, ctime)) => {
            pre_op_attr::attributes(wcc_attr { size, mtime: time(mtime), ctime: time(ctime) })
        }
        None => pre_op_attr::Void,
    };
    wcc_data { before, after: post_op(from.after) }
}

pub(super) fn set_attributes(from: &sattr3) -> Result<SetAttributes, nfsstat3> {
    Ok(SetAttributes {
        mode: match from.mode {
            set_mode3::mode(mode) => Some((mode & 0o7777) as u16),
            set_mode3::Void => None,
        },
        uid: match from.uid {
            set_uid3::uid(uid) => Some(uid),
            set_uid3::Void => None,
        },
        gid: match from.gid {
            set_gid3::gid(gid) => Some(gid),
            set_gid3::Void => None,
        },
        size: match from.size {
            set_size3::size(size) => Some(size),
            set_size3::Void => None,
        },
        atime: match from.atime {
            set_atime::DONT_CHANGE => SetTime::Keep,
            set_atime::SET_TO_SERVER_TIME => SetTime::ServerTime,
            set_atime::SET_TO_CLIENT_TIME(time) => SetTime::To(timestamp(time)?),
        },
        mtime: match from.mtime {
            set_mtime::DONT_CHANGE => SetTime::Keep,
            set_mtime::SET_TO_SERVER_TIME => SetTime::ServerTime,
            set_mtime::SET_TO_CLIENT_TIME(time) => SetTime::To(timestamp(time)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_the_protocol_are_shown_as_its_ends() {
        let at = |seconds| time(Timestamp { seconds, nanos: 5 }).seconds;
        assert_eq!([at(-1), at(7), at(1 << 32)], [0, 7, u32::MAX]);
    }

    #[test]
    fn impossible_times_are_invalid() {
        let bad = nfstime3 { seconds: 1, nseconds: 1_000_000_000 };
        let set = sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(bad), ..sattr3::default() };
        assert!(matches!(set_attributes(&set), Err(nfsstat3::NFS3ERR_INVAL)));
        assert!(guard(Some(bad)).is_err());
    }

    #[test]
    fn type_bits_are_not_part_of_a_mode() {
        let set = sattr3 { mode: set_mode3::mode(0o100_4755), ..sattr3::default() };
        assert_eq!(set_attributes(&set).unwrap().mode, Some(0o4755));
    }
}
