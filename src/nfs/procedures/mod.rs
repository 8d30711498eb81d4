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
mod work;

use super::access::Grant;
use super::convert;
use super::exports::{Export, Table, Who};
use super::handle::{self, HandleKey, Handles};
use super::job::Place;
use super::names::{Purpose, check};
use crate::host::ObjectKey;
use crate::vfs::{Attributes, Caller, Mutation, Node, Settled, Vfs, Wcc, Work};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::{
    Procedure, Reply, arguments, nfs_fh3, nfsstat3, post_op_attr, post_op_fh3, results, wcc_data,
};
use ehpc_proto::nfsacl;
use ehpc_proto::xdr::{Decode, Encode, HANDLE_MAX, Opaque};
use std::sync::Arc;

/// What a procedure works with: one export, as this caller may use it.
struct Context<'a> {
    vfs: &'a dyn Vfs,
    /// The exported directory.
    root: &'a ObjectKey,
    caller: &'a Caller,
    handles: Handles<'a>,
    grant: &'a Grant,
    export: &'a Export,
    request: &'a Request<'a>,
    /// Whether it may wait for a disk.
    place: Place,
}

/// Who calls, and what there is to call for.
pub(super) struct Request<'a> {
    pub(super) exports: &'a Table,
    pub(super) key: &'a HandleKey,
    pub(super) who: Who<'a>,
    /// Where it is done.
    pub(super) place: Place,
}

/// What a procedure did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Outcome {
    /// Answered with a status other than NFS3_OK.
    failed: bool,
    /// Something was changed for good: ask the file system when it is settled.
    changed: bool,
    /// Not done, for it would have had to wait: what was written of a result is void.
    blocks: bool,
    /// Bytes of the file that were read.
    read: u32,
    /// Bytes of the file that were written.
    written: u32,
}

/// Writes a result.
fn answer<O: Encode, F: Encode>(reply: Reply<O, F>, out: &mut Encoder) -> Outcome {
    reply.encode(out);
    Outcome { failed: reply.is_err(), ..Outcome::default() }
}

/// Writes the result of a change.
fn changed<O: Encode, F: Encode>(reply: Reply<O, F>, out: &mut Encoder) -> Outcome {
    reply.encode(out);
    Outcome { failed: reply.is_err(), changed: reply.is_ok(), ..Outcome::default() }
}

impl Request<'_> {
    /// Does `procedure`: reads its arguments, writes its result. Every procedure but NULL names its object
    /// first: the export of that handle is what the caller is admitted to, or not.
    pub(super) fn run(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<Done, DecodeError> {
        if procedure == Procedure::Null {
            return Ok(Done::default());
        }
        let (left_out, second) = (left_out(procedure), second_handle(procedure, input.rest()));
        let run = |context: &Context<'_>, input: &mut Decoder<'_>, out: &mut Encoder| {
            context.run(procedure, input, out)
        };
        let work = work::of(procedure, input.rest());
        self.in_export(input, out, (second, left_out), work, run)
    }

    /// As [`Request::run`], for NFSACL.
    pub(super) fn run_acl(
        &self,
        procedure: nfsacl::Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<Done, DecodeError> {
        if procedure == nfsacl::Procedure::Null {
            return Ok(Done::default());
        }
        let work = if procedure == nfsacl::Procedure::Setacl { Work::Change } else { Work::Look };
        let run = |context: &Context<'_>, input: &mut Decoder<'_>, out: &mut Encoder| {
            context.run_acl(procedure, input, out)
        };
        self.in_export(input, out, (None, 1), Some(work), run)
    }

    /// Does what `act` does in the export of the handle that comes next in `input`, if the caller may use it.
    /// If not, the failure has `left_out` words that say "nothing" after its status. If that handle is dead and
    /// there is a `second` one, what the failure tells is about the second one's export.
    fn in_export<'i>(
        &self,
        input: &mut Decoder<'i>,
        out: &mut Encoder,
        (second, left_out): (Option<Opaque<'_, HANDLE_MAX>>, usize),
        work: Option<Work>,
        act: impl FnOnce(&Context<'_>, &mut Decoder<'i>, &mut Encoder) -> Result<Outcome, DecodeError>,
    ) -> Result<Done, DecodeError> {
        let first = <Opaque<'_, HANDLE_MAX>>::decode(&mut Decoder::new(input.rest()))?;
        let (export, grant) = match self.admit_to_one(first, second) {
            Ok(admitted) => admitted,
            // A worker may wait for the name service.
            Err(nfsstat3::NFS3ERR_JUKEBOX) if self.place == Place::Engine => {
                return Ok(Done { blocks: true, ..Done::default() });
            }
            Err(status) => {
                status.encode(out);
                (0..left_out).for_each(|_| out.u32(0));
                return Ok(Done { failed: true, ..Done::default() });
            }
        };
        // Arguments that are none are refused at once.
        if self.place == Place::Engine && work.is_some_and(|work| !export.vfs.quick(work)) {
            return Ok(Done { blocks: true, ..Done::default() });
        }
        let context = Context {
            vfs: &*export.vfs,
            root: &export.root,
            caller: &grant.caller,
            handles: Handles::new(self.key, export.id),
            grant: &grant,
            export,
            request: self,
            place: self.place,
        };
        let outcome = act(&context, input, out)?;
        let settled = if outcome.changed { export.vfs.settled() } else { None };
        if let Some(traffic) = self.exports.traffic(export.id).filter(|_| !outcome.blocks) {
            traffic.answered(outcome.read, outcome.written);
        }
        let promise = settled.map(|settled| Promise { settled, vfs: Arc::clone(&export.vfs), left_out });
        let Outcome { failed, blocks, read, written, .. } = outcome;
        Ok(Done { failed, promise, blocks, read, written })
    }

    fn admit_to_one(
        &self,
        first: Opaque<'_, HANDLE_MAX>,
        second: Option<Opaque<'_, HANDLE_MAX>>,
    ) -> Result<(&Export, Grant), nfsstat3> {
        use nfsstat3::{NFS3ERR_BADHANDLE, NFS3ERR_STALE};
        self.admit(first.0).or_else(|status| match (status, second) {
            (NFS3ERR_BADHANDLE | NFS3ERR_STALE, Some(second)) => self.admit(second.0).map_err(|_| status),
            _ => Err(status),
        })
    }

    /// The export that a handle claims to be of, if this caller may use it. Whether the claim is true is
    /// found when the handle is decoded.
    fn admit(&self, handle: &[u8]) -> Result<(&Export, Grant), nfsstat3> {
        let id = handle::claimed_export(handle).ok_or(nfsstat3::NFS3ERR_BADHANDLE)?;
        let Some(export) = self.exports.get(id) else {
            // Ours once, or never.
            let handle = nfs_fh3 { data: handle.to_vec() };
            return Err(Handles::new(self.key, id).decode(&handle).err().unwrap_or(nfsstat3::NFS3ERR_STALE));
        };
        match self.exports.admit(export, &self.who) {
            Ok(grant) => Ok((export, grant)),
            Err(refusal) => Err(refusal.status()),
        }
    }
}

/// What became of a call.
#[derive(Default)]
pub(super) struct Done {
    /// Answered with a status other than NFS3_OK.
    pub(super) failed: bool,
    /// What the reply waits for.
    pub(super) promise: Option<Promise>,
    /// Not done, for it would have had to wait: what was written of a result is void.
    pub(super) blocks: bool,
    /// Bytes of the file that were read.
    pub(super) read: u32,
    /// Bytes of the file that were written.
    pub(super) written: u32,
}

/// What a reply promises: it must have come true before the reply leaves.
pub(super) struct Promise {
    settled: Settled,
    vfs: Arc<dyn Vfs>,
    left_out: usize,
}

impl Promise {
    /// Waits for it. What could not be made durable is a failure, whose result is written to `out`.
    pub(super) async fn kept(self, out: &mut Encoder) -> Result<Arc<dyn Vfs>, ()> {
        match self.settled.await {
            Ok(()) => Ok(self.vfs),
            Err(error) => {
                convert::status(error).encode(out);
                (0..self.left_out).for_each(|_| out.u32(0));
                Err(())
            }
        }
    }
}

/// The second handle in the arguments of RENAME and LINK.
fn second_handle<'a>(procedure: Procedure, arguments: &'a [u8]) -> Option<Opaque<'a, HANDLE_MAX>> {
    let mut input = Decoder::new(arguments);
    match procedure {
        Procedure::Rename => drop(arguments::DirOp::decode(&mut input).ok()?),
        Procedure::Link => drop(nfs_fh3::decode(&mut input).ok()?),
        _ => return None,
    }
    Decode::decode(&mut input).ok()
}

/// How many optional parts (attributes; before and after of wcc data) a failure has, each left out by one word.
fn left_out(procedure: Procedure) -> usize {
    use Procedure::*;
    match procedure {
        Null | Getattr => 0,
        Lookup | Access | Readlink | Read | Readdir | Readdirplus | Fsstat | Fsinfo | Pathconf => 1,
        // wcc_data: before and after.
        Setattr | Write | Create | Mkdir | Symlink | Mknod | Remove | Rmdir | Commit => 2,
        Link => 3,
        Rename => 4,
    }
}

impl Context<'_> {
    /// Does `procedure`: reads its arguments, writes its result.
    fn run(
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

    /// Fails if the second handle of RENAME or LINK is of another export than the first.
    fn same_export(&self, second: &nfs_fh3) -> Result<(), nfsstat3> {
        let own = self.handles.export();
        match handle::claimed_export(&second.data) {
            Some(other) if other != own && self.request.exports.get(other).is_some() => {
                Err(nfsstat3::NFS3ERR_XDEV)
            }
            _ => Ok(()),
        }
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
        if self.grant.read_only {
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
