//! From a handle in a lock request to the file it means.

use super::table::FileKey;
use crate::host::ObjectKey;
use crate::nfs::exports::{Table, Who};
use crate::nfs::handle::{HandleKey, Handles, claimed_export};
use crate::vfs::{Caller, Vfs, VfsError, access};
use ehpc_proto::nfs3::nfs_fh3;
use ehpc_proto::nlm::Status;
use ehpc_proto::replication::Kind;

/// The files that one call may mean.
pub(in crate::nfs) struct Files<'a> {
    pub(in crate::nfs) exports: &'a Table,
    pub(in crate::nfs) key: &'a HandleKey,
    pub(in crate::nfs) who: Who<'a>,
}

impl Files<'_> {
    /// The file of a handle, whoever asks: to give a lock back takes no permission, and no export that is still there.
    pub(super) fn any(&self, handle: &[u8]) -> Result<FileKey, Status> {
        Ok(key(&self.object(handle)?.1))
    }

    /// The file of a handle, if this client may use the export, and this caller may lock the file: who may read or
    /// write it, or owns it, as in knfsd.
    pub(super) fn lockable(&self, handle: &[u8]) -> Result<FileKey, Status> {
        let (export, object) = self.object(handle)?;
        let export = self.exports.get(export).ok_or(Status::StaleHandle)?;
        let grant = self.exports.admit(export, &self.who).map_err(|_| Status::Denied)?;
        may_lock(&*export.vfs, &grant.caller, &object, grant.auth_nlm)?;
        Ok(key(&object))
    }

    fn object(&self, handle: &[u8]) -> Result<(u32, ObjectKey), Status> {
        // A handle of another length or kind was never ours.
        let export = claimed_export(handle).ok_or(Status::StaleHandle)?;
        let handle = nfs_fh3 { data: handle.to_vec() };
        let object = Handles::new(self.key, export).decode(&handle).map_err(|_| Status::StaleHandle)?;
        Ok((export, object))
    }
}

/// The same file has the same key in every export that it can be reached through.
fn key(object: &ObjectKey) -> FileKey {
    FileKey::from(&object.to_bytes()[..])
}

fn may_lock(vfs: &dyn Vfs, caller: &Caller, object: &ObjectKey, asked: bool) -> Result<(), Status> {
    let refused = |error: VfsError| match error {
        VfsError::Stale | VfsError::NoEnt => Status::StaleHandle,
        VfsError::Access | VfsError::Perm => Status::Denied,
        _ => Status::Failed,
    };
    let attributes = vfs.getattr(caller, object).map_err(refused)?;
    if attributes.kind != Kind::File {
        return Err(Status::Failed);
    }
    if !asked || attributes.uid == caller.uid {
        return Ok(());
    }
    let wanted = access::READ | access::MODIFY;
    let (granted, _) = vfs.access(caller, object, wanted).map_err(refused)?;
    if granted & wanted == 0 { Err(Status::Denied) } else { Ok(()) }
}
