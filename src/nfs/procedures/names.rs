//! LOOKUP, READLINK, REMOVE, RMDIR, RENAME, LINK.

use super::super::convert;
use super::super::handle::Handles;
use super::super::names::{Purpose, check};
use super::{Context, Outcome, answer};
use crate::host::ObjectKey;
use crate::vfs::{Attributes, Caller, Node, VfsError};
use ehpc_proto::codec::Encoder;
use ehpc_proto::nfs3::arguments::{self, DirOp};
use ehpc_proto::nfs3::{access, nfs_fh3, nfsstat3, post_op_attr, results, wcc_data};
use ehpc_proto::replication::Kind;
use ehpc_proto::xdr::Opaque;
use smallvec::SmallVec;

/// Highest climb to the export's root.
const MAX_CLIMB: usize = 4096;

impl Context<'_> {
    pub(super) fn lookup(&self, args: &DirOp<'_>) -> results::Lookup {
        let dir = self.object_or_void(&args.dir)?;
        let name = args.name.0;
        check(name, Purpose::Lookup).map_err(|status| (status, self.post_op(&dir)))?;
        if let Some(entered) = self.enter(&dir, name) {
            return Ok(entered);
        }
        let (found, dir_attributes) = match name {
            b"." => self.lookup_itself(&dir),
            b".." => self.lookup_above(&dir),
            _ => self.vfs.lookup(self.caller, &dir, name),
        };
        let dir_attributes = self.post_op_or(dir_attributes, &dir);
        match found {
            Ok(node) => Ok(results::LookupOk {
                object: self.handles.encode(&node.key),
                attributes: convert::post_op(node.attributes),
                dir_attributes,
            }),
            Err(error) => Err((convert::status(error), dir_attributes)),
        }
    }

    /// "." in a directory: the directory, for those who may search it.
    fn lookup_itself(&self, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        let attributes = match self.vfs.getattr(self.caller, dir) {
            Ok(attributes) => attributes,
            Err(error) => return (Err(error), None),
        };
        let found = if attributes.kind == Kind::Directory {
            match self.vfs.access(self.caller, dir, access::LOOKUP) {
                Ok((access::LOOKUP, _)) => Ok(Node { key: dir.clone(), attributes: Some(attributes) }),
                Ok(_) => Err(VfsError::Access),
                Err(error) => Err(error),
            }
        } else {
            Err(VfsError::NotDir)
        };
        (found, Some(attributes))
    }

    /// The root of another export, where `name` is a mount point that may be crossed: by `crossmnt` of this export
    /// or `nohide` of the other, for a client whom the other admits.
    fn enter(&self, dir: &ObjectKey, name: &[u8]) -> Option<results::LookupOk> {
        let inner = self.request.exports.get(self.export.crossing(dir, name)?)?;
        let grant = self.request.exports.admit(inner, &self.request.who).ok()?;
        if grant.hide && !self.grant.crossmnt {
            return None;
        }
        let (may_search, dir_attributes) = self.vfs.access(self.caller, dir, access::LOOKUP).ok()?;
        if may_search & access::LOOKUP == 0 {
            return None;
        }
        let attributes = inner.vfs.getattr(&grant.caller, &inner.root).ok()?;
        Some(results::LookupOk {
            object: Handles::new(self.request.key, inner.id).encode(&inner.root),
            attributes: convert::post_op(Some(attributes)),
            dir_attributes: convert::post_op(dir_attributes),
        })
    }

    /// ".." in a directory: the one above, but never what is above the export.
    fn lookup_above(&self, dir: &ObjectKey) -> (Result<Node, VfsError>, Option<Attributes>) {
        if dir == self.root {
            return self.lookup_itself(dir);
        }
        let (found, attributes) = self.vfs.parent(self.caller, dir);
        let found = found.and_then(|above| {
            self.is_inside(&above.key)?;
            Ok(above)
        });
        (found, attributes)
    }

    /// Is this directory the export's root or below it? One that was moved out must not lead upwards.
    fn is_inside(&self, dir: &ObjectKey) -> Result<(), VfsError> {
        let top = self.vfs.root();
        // Where the whole file system is exported, it has seen to that itself.
        if *self.root == top {
            return Ok(());
        }
        let server = Caller { uid: 0, gid: 0, groups: SmallVec::new() };
        let mut at = dir.clone();
        for _ in 0..MAX_CLIMB {
            if at == *self.root {
                return Ok(());
            }
            if at == top {
                break;
            }
            at = self.vfs.parent(&server, &at).0?.key;
        }
        Err(VfsError::Stale)
    }

    pub(super) fn readlink(&self, object: &nfs_fh3, out: &mut Encoder) -> Outcome {
        let object = match self.object_or_void(object) {
            Ok(object) => object,
            Err(failure) => return answer::<(), _>(Err(failure), out),
        };
        let (target, attributes) = self.vfs.readlink(self.caller, &object);
        let attributes = self.post_op_or(attributes, &object);
        match &target {
            Ok(target) => {
                let ok = results::ReadlinkOk { attributes, target: Opaque(target) };
                answer::<_, post_op_attr>(Ok(ok), out)
            }
            Err(error) => answer::<(), _>(Err((convert::status(*error), attributes)), out),
        }
    }

    pub(super) fn remove(&self, args: &DirOp<'_>) -> results::Changed {
        let dir = self.place(args, Purpose::Remove)?;
        self.wcc_only(&self.vfs.remove(self.caller, &dir, args.name.0), &dir)
    }

    pub(super) fn rmdir(&self, args: &DirOp<'_>) -> results::Changed {
        let dir = self.place(args, Purpose::RemoveDirectory)?;
        self.wcc_only(&self.vfs.rmdir(self.caller, &dir, args.name.0), &dir)
    }

    pub(super) fn rename(&self, args: &arguments::Rename<'_>) -> results::Rename {
        let from = self.place(&args.from, Purpose::Rename);
        let to = match self.same_export(&args.to.dir) {
            Ok(()) => self.place(&args.to, Purpose::Rename),
            Err(status) => Err((status, wcc_data::default())),
        };
        let (from, to) = match (from, to) {
            (Ok(from), Ok(to)) => (from, to),
            (from, to) => return Err(self.rename_refused(from, to)),
        };
        let done = self.vfs.rename(self.caller, (&from, args.from.name.0), (&to, args.to.name.0));
        let wcc = results::RenameWcc { from: self.wcc(&done.from, &from), to: self.wcc(&done.to, &to) };
        match done.result {
            Ok(()) => Ok(wcc),
            Err(error) => Err((convert::status(error), wcc)),
        }
    }

    /// At least one of the two places is refused: the first fault counts, both directories are shown.
    fn rename_refused(
        &self,
        from: Result<ObjectKey, (nfsstat3, wcc_data)>,
        to: Result<ObjectKey, (nfsstat3, wcc_data)>,
    ) -> (nfsstat3, results::RenameWcc) {
        let split = |place: Result<ObjectKey, (nfsstat3, wcc_data)>| match place {
            Ok(dir) => (None, self.untouched(&dir)),
            Err((status, wcc)) => (Some(status), wcc),
        };
        let ((from_status, from), (to_status, to)) = (split(from), split(to));
        let status = from_status.or(to_status).unwrap_or(nfsstat3::NFS3ERR_SERVERFAULT);
        (status, results::RenameWcc { from, to })
    }

    pub(super) fn link(&self, args: &arguments::Link<'_>) -> results::Link {
        let object = match self.object(&args.file) {
            Ok(object) => object,
            Err(status) => {
                let dir = self.object(&args.place.dir);
                let dir_wcc = dir.map_or_else(|_| wcc_data::default(), |dir| self.untouched(&dir));
                return Err((status, results::LinkWcc { attributes: post_op_attr::Void, dir_wcc }));
            }
        };
        let place = match self.same_export(&args.place.dir) {
            Ok(()) => self.place(&args.place, Purpose::Create),
            Err(status) => Err((status, wcc_data::default())),
        };
        let dir = match place {
            Ok(dir) => dir,
            Err((status, dir_wcc)) => {
                let attributes = self.post_op(&object);
                return Err((status, results::LinkWcc { attributes, dir_wcc }));
            }
        };
        let (done, attributes) = self.vfs.link(self.caller, &object, &dir, args.place.name.0);
        let wcc = results::LinkWcc {
            attributes: self.post_op_or(attributes, &object),
            dir_wcc: self.wcc(&done.wcc, &dir),
        };
        match done.result {
            Ok(()) => Ok(wcc),
            Err(error) => Err((convert::content_status(error), wcc)),
        }
    }
}
