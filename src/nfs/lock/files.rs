//! From a handle in a lock request to the file it means.

use super::table::FileKey;
use crate::host::ObjectKey;
use crate::nfs::handle::Handles;
use crate::vfs::{Caller, Vfs, VfsError, access};
use ehpc_proto::nfs3::{nfs_fh3, nfsstat3};
use ehpc_proto::nlm::Status;
use ehpc_proto::replication::Kind;

/// The files that one call may mean.
pub(in crate::nfs) struct Files<'a> {
    pub(in crate::nfs) vfs: &'a dyn Vfs,
    pub(in crate::nfs) caller: &'a Caller,
    pub(in crate::nfs) handles: &'a Handles,
}

impl Files<'_> {
    /// The file of a handle, whoever asks: to give a lock back takes no permission.
    pub(super) fn any(&self, handle: &[u8]) -> Result<FileKey, Status> {
        Ok(key(&self.object(handle)?))
    }

    /// The file of a handle, if this caller may lock it: who may read or write it, or owns it, as in knfsd.
    pub(super) fn lockable(&self, handle: &[u8]) -> Result<FileKey, Status> {
        let object = self.object(handle)?;
        may_lock(self.vfs, self.caller, &object)?;
        Ok(key(&object))
    }

    fn object(&self, handle: &[u8]) -> Result<ObjectKey, Status> {
        let handle = nfs_fh3 { data: handle.to_vec() };
        self.handles.decode(&handle).map_err(|status| match status {
            nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE => Status::StaleHandle,
            _ => Status::Failed,
        })
    }
}

/// The same file has the same key in every export that it can be reached through.
fn key(object: &ObjectKey) -> FileKey {
    FileKey::from(&object.to_bytes()[..])
}

fn may_lock(vfs: &dyn Vfs, caller: &Caller, object: &ObjectKey) -> Result<(), Status> {
    let refused = |error: VfsError| match error {
        VfsError::Stale | VfsError::NoEnt => Status::StaleHandle,
        VfsError::Access | VfsError::Perm => Status::Denied,
        _ => Status::Failed,
    };
    let attributes = vfs.getattr(caller, object).map_err(refused)?;
    if attributes.kind != Kind::File {
        return Err(Status::Failed);
    }
    if attributes.uid == caller.uid {
        return Ok(());
    }
    let wanted = access::READ | access::MODIFY;
    let (granted, _) = vfs.access(caller, object, wanted).map_err(refused)?;
    if granted & wanted == 0 { Err(Status::Denied) } else { Ok(()) }
}
