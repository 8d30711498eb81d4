//! Results of the procedures, but for directory listings.

use super::arguments::{Data, Path};
use super::{Reply, StableHow, fattr3, fsinfo3, nfs_fh3, post_op_attr, post_op_fh3, wcc_data};
use crate::xdr::xdr_struct;

/// GETATTR.
pub type Getattr = Reply<fattr3, ()>;
/// SETATTR, REMOVE, RMDIR.
pub type Changed = Reply<wcc_data, wcc_data>;
/// LOOKUP.
pub type Lookup = Reply<LookupOk, post_op_attr>;
/// ACCESS.
pub type Access = Reply<AccessOk, post_op_attr>;
/// READLINK.
pub type Readlink<'a> = Reply<ReadlinkOk<'a>, post_op_attr>;
/// READ.
pub type Read<'a> = Reply<ReadOk<'a>, post_op_attr>;
/// WRITE.
pub type Write = Reply<WriteOk, wcc_data>;
/// CREATE, MKDIR, SYMLINK, MKNOD.
pub type Created = Reply<CreatedOk, wcc_data>;
/// RENAME.
pub type Rename = Reply<RenameWcc, RenameWcc>;
/// LINK.
pub type Link = Reply<LinkWcc, LinkWcc>;
/// FSSTAT.
pub type Fsstat = Reply<FsstatOk, post_op_attr>;
/// FSINFO.
pub type Fsinfo = Reply<fsinfo3, post_op_attr>;
/// PATHCONF.
pub type Pathconf = Reply<PathconfOk, post_op_attr>;
/// COMMIT.
pub type Commit = Reply<CommitOk, wcc_data>;

xdr_struct! {
    /// LOOKUP found it.
    LookupOk {
        /// Its handle.
        object: nfs_fh3,
        /// Its attributes.
        attributes: post_op_attr,
        /// The directory's attributes.
        dir_attributes: post_op_attr,
    }
}

xdr_struct! {
    /// ACCESS answered.
    AccessOk {
        /// The object's attributes.
        attributes: post_op_attr,
        /// Bits granted.
        access: u32,
    }
}

xdr_struct! {
    /// READLINK answered.
    ReadlinkOk<'a> {
        /// The symlink's attributes.
        attributes: post_op_attr,
        /// Its target.
        target: Path<'a>,
    }
}

xdr_struct! {
    /// READ answered.
    ReadOk<'a> {
        /// The file's attributes.
        attributes: post_op_attr,
        /// Bytes read.
        count: u32,
        /// The end was reached.
        eof: bool,
        /// The bytes.
        data: Data<'a>,
    }
}

xdr_struct! {
    /// WRITE answered.
    WriteOk {
        /// The file, before and after.
        wcc: wcc_data,
        /// Bytes written.
        count: u32,
        /// What is on disk.
        committed: StableHow,
        /// Changes when unstable data may have been lost.
        verifier: [u8; 8],
    }
}

xdr_struct! {
    /// An object was made.
    CreatedOk {
        /// Its handle.
        object: post_op_fh3,
        /// Its attributes.
        attributes: post_op_attr,
        /// The directory, before and after.
        dir_wcc: wcc_data,
    }
}

xdr_struct! {
    /// RENAME's two directories.
    RenameWcc {
        /// Of the old name.
        from: wcc_data,
        /// Of the new name.
        to: wcc_data,
    }
}

xdr_struct! {
    /// LINK's object and directory.
    LinkWcc {
        /// The object's attributes.
        attributes: post_op_attr,
        /// The directory, before and after.
        dir_wcc: wcc_data,
    }
}

xdr_struct! {
    /// FSSTAT answered.
    FsstatOk {
        /// The object's attributes.
        attributes: post_op_attr,
        /// Bytes of the file system.
        total_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes free to the caller.
        available_bytes: u64,
        /// Files the file system can hold.
        total_files: u64,
        /// Files that can still be made.
        free_files: u64,
        /// Files that the caller can still make.
        available_files: u64,
        /// Seconds for which this will not change; 0 = unknown.
        invariant_seconds: u32,
    }
}

xdr_struct! {
    /// PATHCONF answered.
    PathconfOk {
        /// The object's attributes.
        attributes: post_op_attr,
        /// Most hard links.
        link_max: u32,
        /// Longest name.
        name_max: u32,
        /// A longer name is refused, not cut.
        no_trunc: bool,
        /// Only the superuser may give files away.
        chown_restricted: bool,
        /// Names that differ in case only are equal.
        case_insensitive: bool,
        /// Case is kept.
        case_preserving: bool,
    }
}

xdr_struct! {
    /// COMMIT answered.
    CommitOk {
        /// The file, before and after.
        wcc: wcc_data,
        /// Equals WRITE's if nothing was lost in between.
        verifier: [u8; 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, Encoder};
    use crate::nfs3::{nfsstat3, nfstime3, pre_op_attr, wcc_attr};
    use crate::xdr::{Decode, Encode, Opaque};

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn golden<'a, T: Encode + Decode<'a>>(value: &T, expected: &'a [u8]) {
        assert_eq!(encoded(value), expected);
        let mut input = Decoder::new(expected);
        let back = T::decode(&mut input).expect("decodes");
        assert!(input.rest().is_empty());
        assert_eq!(encoded(&back), expected);
    }

    fn attributes() -> fattr3 {
        let time = |seconds| nfstime3 { seconds, nseconds: 1 };
        fattr3 {
            mode: 0o640,
            nlink: 1,
            uid: 2,
            gid: 3,
            size: 4,
            used: 5,
            fsid: 6,
            fileid: 7,
            atime: time(10),
            mtime: time(11),
            ctime: time(12),
            ..fattr3::default()
        }
    }

    const ATTRIBUTES: [u32; 21] = [1, 0o640, 1, 2, 3, 0, 4, 0, 5, 0, 0, 0, 6, 0, 7, 10, 1, 11, 1, 12, 1];

    #[test]
    fn attributes_and_weak_cache_consistency() {
        golden::<Getattr>(&Ok(attributes()), &words(&[&[0][..], &ATTRIBUTES].concat()));
        golden::<Getattr>(&Err((nfsstat3::NFS3ERR_STALE, ())), &words(&[70]));
        let time = nfstime3 { seconds: 11, nseconds: 1 };
        let wcc = wcc_data {
            before: pre_op_attr::attributes(wcc_attr { size: 4, mtime: time, ctime: time }),
            after: post_op_attr::attributes(attributes()),
        };
        let body = [&[1, 0, 4, 11, 1, 11, 1, 1][..], &ATTRIBUTES].concat();
        golden::<Changed>(&Ok(wcc), &words(&[&[0][..], &body].concat()));
        golden::<Changed>(&Err((nfsstat3::NFS3ERR_NOT_SYNC, wcc)), &words(&[&[10_002][..], &body].concat()));
        golden::<Commit>(
            &Ok(CommitOk { wcc: wcc_data::default(), verifier: [0, 0, 0, 1, 0, 0, 0, 2] }),
            &words(&[0, 0, 0, 1, 2]),
        );
    }

    #[test]
    fn io_results() {
        let read: Read<'_> =
            Ok(ReadOk { attributes: post_op_attr::Void, count: 2, eof: true, data: Opaque(b"ab") });
        golden(&read, &words(&[0, 0, 2, 1, 2, 0x6162_0000]));
        let write = WriteOk {
            wcc: wcc_data::default(),
            count: 7,
            committed: StableHow::DataSync,
            verifier: [0, 0, 0, 1, 0, 0, 0, 2],
        };
        golden::<Write>(&Ok(write), &words(&[0, 0, 0, 7, 1, 1, 2]));
        let link: Readlink<'_> = Ok(ReadlinkOk { attributes: post_op_attr::Void, target: Opaque(b"ab") });
        golden(&link, &words(&[0, 0, 2, 0x6162_0000]));
    }

    #[test]
    fn name_results() {
        let void = post_op_attr::Void;
        let object = nfs_fh3 { data: vec![1, 2, 3, 4] };
        let lookup = LookupOk { object: object.clone(), attributes: void, dir_attributes: void };
        golden::<Lookup>(&Ok(lookup), &words(&[0, 4, 0x0102_0304, 0, 0]));
        golden::<Lookup>(&Err((nfsstat3::NFS3ERR_NOENT, void)), &words(&[2, 0]));
        let created =
            CreatedOk { object: post_op_fh3::handle(object), attributes: void, dir_wcc: wcc_data::default() };
        golden::<Created>(&Ok(created), &words(&[0, 1, 4, 0x0102_0304, 0, 0, 0]));
        let rename = RenameWcc { from: wcc_data::default(), to: wcc_data::default() };
        golden::<Rename>(&Err((nfsstat3::NFS3ERR_EXIST, rename)), &words(&[17, 0, 0, 0, 0]));
        let link = LinkWcc { attributes: void, dir_wcc: wcc_data::default() };
        golden::<Link>(&Ok(link), &words(&[0, 0, 0, 0]));
        golden::<Access>(&Ok(AccessOk { attributes: void, access: 0x1f }), &words(&[0, 0, 0x1f]));
    }

    #[test]
    fn file_system_results() {
        let attributes = post_op_attr::Void;
        golden::<Fsstat>(
            &Ok(FsstatOk {
                attributes,
                total_bytes: 1,
                free_bytes: 2,
                available_bytes: 3,
                total_files: 4,
                free_files: 5,
                available_files: 6,
                invariant_seconds: 0,
            }),
            &words(&[0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]),
        );
        golden::<Pathconf>(
            &Ok(PathconfOk {
                attributes,
                link_max: 65000,
                name_max: 255,
                no_trunc: true,
                chown_restricted: true,
                case_insensitive: false,
                case_preserving: true,
            }),
            &words(&[0, 0, 65000, 255, 1, 1, 0, 1]),
        );
        let info = fsinfo3 { rtmax: 1, maxfilesize: 2, properties: 0x1b, ..fsinfo3::default() };
        golden::<Fsinfo>(&Ok(info), &words(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x1b]));
    }
}
