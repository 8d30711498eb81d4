//! FSSTAT, FSINFO, PATHCONF.

use super::super::convert;
use super::Context;
use crate::host::ObjectKey;
use crate::vfs::Attributes;
use ehpc_proto::nfs3::{
    FSF_CANSETTIME, FSF_HOMOGENEOUS, FSF_LINK, FSF_SYMLINK, MAX_IO, fsinfo3, nfs_fh3, nfsstat3, nfstime3,
    post_op_attr, results,
};

/// What READ and WRITE sizes should be a multiple of.
const MULTIPLE: u32 = 4096;
/// What READDIR should ask for.
const PREFERRED_LISTING: u32 = 64 * 1024;

impl Context<'_> {
    pub(super) fn fsstat(&self, object: &nfs_fh3) -> results::Fsstat {
        let object = self.object_or_void(object)?;
        let stat = self.vfs.fsstat(self.caller, &object);
        let attributes = self.post_op(&object);
        match stat {
            Ok(stat) => Ok(results::FsstatOk {
                attributes,
                total_bytes: stat.total_bytes,
                free_bytes: stat.free_bytes,
                available_bytes: stat.available_bytes,
                total_files: stat.total_files,
                free_files: stat.free_files,
                available_files: stat.available_files,
                invariant_seconds: 0,
            }),
            Err(error) => Err((convert::status(error), attributes)),
        }
    }

    pub(super) fn fsinfo(&self, object: &nfs_fh3) -> results::Fsinfo {
        let (_, attributes) = self.existing(object)?;
        let limits = self.vfs.limits();
        Ok(fsinfo3 {
            obj_attributes: convert::post_op(Some(attributes)),
            rtmax: MAX_IO as u32,
            rtpref: MAX_IO as u32,
            rtmult: MULTIPLE,
            wtmax: MAX_IO as u32,
            wtpref: MAX_IO as u32,
            wtmult: MULTIPLE,
            dtpref: PREFERRED_LISTING,
            maxfilesize: limits.max_file_size.min(i64::MAX as u64),
            time_delta: nfstime3 {
                seconds: limits.time_granularity_ns / 1_000_000_000,
                nseconds: limits.time_granularity_ns % 1_000_000_000,
            },
            properties: FSF_LINK | FSF_SYMLINK | FSF_HOMOGENEOUS | FSF_CANSETTIME,
        })
    }

    pub(super) fn pathconf(&self, object: &nfs_fh3) -> results::Pathconf {
        let (_, attributes) = self.existing(object)?;
        let limits = self.vfs.limits();
        Ok(results::PathconfOk {
            attributes: convert::post_op(Some(attributes)),
            link_max: limits.link_max,
            name_max: limits.name_max,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        })
    }

    fn existing(&self, object: &nfs_fh3) -> Result<(ObjectKey, Attributes), (nfsstat3, post_op_attr)> {
        let object = self.object_or_void(object)?;
        match self.vfs.getattr(self.caller, &object) {
            Ok(attributes) => Ok((object, attributes)),
            Err(error) => Err((convert::status(error), post_op_attr::Void)),
        }
    }
}
