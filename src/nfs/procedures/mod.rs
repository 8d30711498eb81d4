//! The 22 procedures of NFSv3 and those of NFSACL, each from decoded arguments to an encoded result.

// The protocol gives failures a body too (wcc_data): they are results, written at once and not passed on.
#![allow(clippy::result_large_err)]

mod acl;
mod attributes;
mod create;
mod directory;
mod file_system;
mod io;
mod names;

use super::convert;
use super::handle::Handles;
use super::names::{Purpose, check};
use crate::host::ObjectKey;
use crate::vfs::{Attributes, Caller, Mutation, Node, Vfs, Wcc};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::{
    Procedure, Reply, arguments, nfs_fh3, nfsstat3, post_op_attr, post_op_fh3, results, wcc_data,
};
use ehpc_proto::xdr::{Decode, Encode};

/// What a procedure works with.
pub(super) struct Context<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) caller: &'a Caller,
    pub(super) handles: &'a Handles,
    pub(super) read_only: bool,
}

/// What became of a call, for counters and durability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcome {
    /// Answered with a status other than NFS3_OK.
    pub(super) failed: bool,
    /// Something was changed for good: ask the file system when it is settled.
    pub(super) changed: bool,
}

/// Writes a result.
fn answer<O: Encode, F: Encode>(reply: Reply<O, F>, out: &mut Encoder) -> Outcome {
    reply.encode(out);
    Outcome { failed: reply.is_err(), changed: false }
}

/// Writes the result of a change.
fn changed<O: Encode, F: Encode>(reply: Reply<O, F>, out: &mut Encoder) -> Outcome {
    reply.encode(out);
    Outcome { failed: reply.is_err(), changed: reply.is_ok() }
}

impl Context<'_> {
    /// Does `procedure`: reads its arguments, writes its result.
    pub(super) fn run(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<Outcome, DecodeError> {
        Ok(match procedure {
            Procedure::Null => Outcome::default(),
            Procedure::Getattr => answer(self.getattr(&Decode::decode(input)?), out),
            Procedure::Setattr => changed(self.setattr(&Decode::decode(input)?), out),
            Procedure::Lookup => answer(self.lookup(&Decode::decode(input)?), out),
            Procedure::Access => answer(self.access(&Decode::decode(input)?), out),
            Procedure::Readlink => self.readlink(&Decode::decode(input)?, out),
            Procedure::Read => self.read(&Decode::decode(input)?, out),
            Procedure::Write => self.write(&Decode::decode(input)?, out),
            Procedure::Create => changed(self.create(&Decode::decode(input)?), out),
            Procedure::Mkdir => changed(self.mkdir(&Decode::decode(input)?), out),
            Procedure::Symlink => changed(self.symlink(&Decode::decode(input)?), out),
            Procedure::Mknod => changed(self.mknod(&Decode::decode(input)?), out),
            Procedure::Remove => changed(self.remove(&Decode::decode(input)?), out),
            Procedure::Rmdir => changed(self.rmdir(&Decode::decode(input)?), out),
            Procedure::Rename => changed(self.rename(&Decode::decode(input)?), out),
            Procedure::Link => changed(self.link(&Decode::decode(input)?), out),
            Procedure::Readdir => self.readdir(&Decode::decode(input)?, out),
            Procedure::Readdirplus => self.readdirplus(&Decode::decode(input)?, out),
            Procedure::Fsstat => answer(self.fsstat(&Decode::decode(input)?), out),
            Procedure::Fsinfo => answer(self.fsinfo(&Decode::decode(input)?), out),
            Procedure::Pathconf => answer(self.pathconf(&Decode::decode(input)?), out),
            Procedure::Commit => changed(self.commit(&Decode::decode(input)?), out),
        })
    }

    /// The object of a handle.
    fn object(&self, handle: &nfs_fh3) -> Result<ObjectKey, nfsstat3> {
        self.handles.decode(handle)
    }

    /// The object of a handle, for procedures whose failure carries its attributes.
    fn object_or_void(&self, handle: &nfs_fh3) -> Result<ObjectKey, (nfsstat3, post_op_attr)> {
        self.object(handle).map_err(|status| (status, post_op_attr::Void))
    }

    /// An object's attributes, if they can be had.
    fn post_op(&self, object: &ObjectKey) -> post_op_attr {
        convert::post_op(self.vfs.getattr(self.caller, object).ok())
    }

    /// wcc_data of an object that was not touched.
    fn untouched(&self, object: &ObjectKey) -> wcc_data {
        convert::wcc(&Wcc { before: None, after: self.vfs.getattr(self.caller, object).ok() })
    }

    /// wcc_data as the file system tells it; where it failed before it looked, the object as it is.
    fn wcc(&self, told: &Wcc, object: &ObjectKey) -> wcc_data {
        if told.after.is_some() { convert::wcc(told) } else { self.untouched(object) }
    }

    /// The same for attributes alone.
    fn post_op_or(&self, told: Option<Attributes>, object: &ObjectKey) -> post_op_attr {
        if told.is_some() { convert::post_op(told) } else { self.post_op(object) }
    }

    /// The object of a handle that is about to be changed.
    fn changeable(&self, handle: &nfs_fh3) -> Result<ObjectKey, (nfsstat3, wcc_data)> {
        let object = self.object(handle).map_err(|status| (status, wcc_data::default()))?;
        if self.read_only {
            return Err((nfsstat3::NFS3ERR_ROFS, self.untouched(&object)));
        }
        Ok(object)
    }

    /// The directory of a name that is about to be changed.
    fn place(
        &self,
        place: &arguments::DirOp<'_>,
        purpose: Purpose,
    ) -> Result<ObjectKey, (nfsstat3, wcc_data)> {
        let dir = self.changeable(&place.dir)?;
        match check(place.name.0, purpose) {
            Ok(()) => Ok(dir),
            Err(status) => Err((status, self.untouched(&dir))),
        }
    }

    /// The result of CREATE, MKDIR, SYMLINK and MKNOD.
    fn created(&self, done: Mutation<Node>, dir: &ObjectKey) -> results::Created {
        let dir_wcc = self.wcc(&done.wcc, dir);
        match done.result {
            Ok(node) => Ok(results::CreatedOk {
                object: post_op_fh3::handle(self.handles.encode(&node.key)),
                attributes: convert::post_op(node.attributes),
                dir_wcc,
            }),
            Err(error) => Err((convert::status(error), dir_wcc)),
        }
    }

    /// The result of a change that returns wcc data alone.
    fn wcc_only(&self, done: &Mutation<()>, object: &ObjectKey) -> results::Changed {
        let wcc = self.wcc(&done.wcc, object);
        match done.result {
            Ok(()) => Ok(wcc),
            Err(error) => Err((convert::status(error), wcc)),
        }
    }
}
