//! A call to be answered: on the connection's own thread if that is quick, else by a worker.

use super::dispatch::seal;
use super::mount::MountContext;
use super::procedures::{Context, Outcome};
use super::reply_cache::CallKey;
use super::server::Shared;
use crate::vfs::{Caller, Settled, Stability, Work};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::arguments::{self, CreateHow};
use ehpc_proto::nfs3::{Procedure, StableHow};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::{Decode, Encode};
use ehpc_proto::{mount, nfs3, nfsacl};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A procedure of one of the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Nfs(nfs3::Procedure),
    Mount(mount::Procedure),
    Acl(nfsacl::Procedure),
}

impl Target {
    pub(super) fn name(self) -> &'static str {
        match self {
            Target::Nfs(procedure) => procedure.name(),
            Target::Mount(procedure) => procedure.name(),
            Target::Acl(procedure) => procedure.name(),
        }
    }

    /// NULL: answered whatever comes with it.
    pub(super) fn is_null(self) -> bool {
        matches!(
            self,
            Target::Nfs(nfs3::Procedure::Null)
                | Target::Mount(mount::Procedure::Null)
                | Target::Acl(nfsacl::Procedure::Null)
        )
    }

    /// Words of the result of a failed change that has no attributes to tell.
    fn absent_words(self) -> usize {
        match self {
            // Two wcc_data.
            Target::Nfs(nfs3::Procedure::Rename) => 4,
            // post_op_attr and wcc_data.
            Target::Nfs(nfs3::Procedure::Link) => 3,
            Target::Acl(_) => 1,
            Target::Nfs(_) | Target::Mount(_) => 2,
        }
    }

    /// Must not be done twice when a call is sent again. Of MOUNT none is: doing one twice changes nothing more.
    pub(super) fn is_replayed(self) -> bool {
        match self {
            Target::Nfs(procedure) => procedure.is_replayed(),
            Target::Acl(procedure) => procedure == nfsacl::Procedure::Setacl,
            Target::Mount(_) => false,
        }
    }
}

/// A call to be done.
pub(super) struct Job {
    /// Where in its record the arguments start.
    pub(super) arguments: usize,
    pub(super) xid: u32,
    pub(super) target: Target,
    pub(super) caller: Caller,
    /// Set if the reply is kept for copies of this call.
    pub(super) replay: Option<CallKey>,
    pub(super) peer: SocketAddr,
    /// Bytes that record and reply hold at most.
    pub(super) cost: usize,
    /// Bytes that the reply holds at most.
    pub(super) reply_bound: usize,
}

/// On which thread a call is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Serves many connections and must not wait for a disk.
    Engine,
    /// May wait.
    Worker,
}

/// What came of a call.
pub(super) enum Ran {
    /// The reply is written, as a whole record; it may be sent when this has resolved.
    Done(Option<Settled>),
    /// Nothing was done or written: it takes a worker.
    Blocks,
}

impl Job {
    /// Does the call, on the calling thread, and appends the reply to `out`. Never panics: a fault below is answered
    /// with SYSTEM_ERR.
    pub(super) fn run(&self, shared: &Shared, record: &[u8], out: &mut Encoder, place: Place) -> Ran {
        let arguments = record.get(self.arguments..).unwrap_or_default();
        if place == Place::Engine && !self.is_quick(shared, arguments) {
            return Ran::Blocks;
        }
        let start = out.len();
        out.u32(0);
        let done = catch_unwind(AssertUnwindSafe(|| {
            Reply::Success.encode(self.xid, out);
            let outcome = self.perform(shared, arguments, out, place)?;
            let settled = if outcome.changed { shared.export.vfs.settled() } else { None };
            Ok::<_, DecodeError>((outcome, settled))
        }));
        let (failed, settled) = match done {
            Ok(Ok((Outcome { blocks: true, .. }, _))) => {
                out.truncate(start);
                return Ran::Blocks;
            }
            Ok(Ok((outcome, settled))) => (outcome.failed, settled),
            Ok(Err(error)) => {
                shared.bad_request(|held_back| {
                    tracing::warn!(client = %self.peer, procedure = self.target.name(), %error, held_back,
                        "an RPC call with arguments that cannot be decoded");
                });
                self.refuse(Reply::GarbageArguments, out, start);
                (true, None)
            }
            Err(_) => {
                tracing::error!(client = %self.peer, procedure = self.target.name(),
                    "a fault in the server while it did an NFS call; the client gets an error, the server goes on");
                self.refuse(Reply::SystemError, out, start);
                (true, None)
            }
        };
        shared.answered(failed);
        seal(out, start);
        Ran::Done(settled)
    }

    /// The reply, as a whole record, is about to be sent: it is kept for copies of the call.
    pub(super) fn finish(&self, shared: &Shared, reply: &[u8]) {
        if let Some(call) = self.replay {
            shared.cache.lock(&call).finish(call, self.peer.port(), reply, shared.now());
        }
    }

    /// Waits until the reply may be sent; returns what is to be sent. What could not be made durable is answered with
    /// NFS3ERR_IO, whatever was written before.
    pub(super) async fn settle(&self, shared: &Shared, settled: Settled, mut reply: Vec<u8>) -> Vec<u8> {
        match settled.await {
            Ok(()) if self.target == Target::Nfs(Procedure::Commit) => {
                // What was lost while this was waiting must not be covered by the verifier of before.
                let verifier = shared.export.vfs.write_verifier();
                if let Some(last) = reply.last_chunk_mut::<8>() {
                    *last = verifier;
                }
                reply
            }
            Ok(()) => reply,
            Err(error) => {
                shared.answered(true);
                let mut out = Encoder::new();
                out.u32(0);
                Reply::Success.encode(self.xid, &mut out);
                super::convert::status(error).encode(&mut out);
                (0..self.target.absent_words()).for_each(|_| out.u32(0));
                seal(&mut out, 0);
                out.finish()
            }
        }
    }

    fn refuse(&self, reply: Reply, out: &mut Encoder, start: usize) {
        out.truncate(start + 4);
        reply.encode(self.xid, out);
    }

    /// May it be done on a thread that must not wait? Arguments that are none are refused at once.
    fn is_quick(&self, shared: &Shared, arguments: &[u8]) -> bool {
        let work = match self.target {
            Target::Nfs(procedure) => work(procedure, arguments),
            Target::Mount(mount::Procedure::Mnt) => Some(Work::Look),
            Target::Acl(nfsacl::Procedure::Getacl) => Some(Work::Look),
            Target::Acl(nfsacl::Procedure::Setacl) => Some(Work::Change),
            Target::Mount(_) | Target::Acl(nfsacl::Procedure::Null) => None,
        };
        work.is_none_or(|work| shared.export.vfs.quick(work))
    }

    fn perform(
        &self,
        shared: &Shared,
        arguments: &[u8],
        out: &mut Encoder,
        place: Place,
    ) -> Result<Outcome, DecodeError> {
        let mut input = Decoder::new(arguments);
        let vfs = &*shared.export.vfs;
        let files = || Context {
            vfs,
            caller: &self.caller,
            handles: &shared.handles,
            read_only: shared.export.read_only,
            place,
        };
        match self.target {
            Target::Nfs(procedure) => files().run(procedure, &mut input, out),
            Target::Acl(procedure) => files().run_acl(procedure, &mut input, out),
            Target::Mount(procedure) => {
                let context = MountContext {
                    vfs,
                    caller: &self.caller,
                    handles: &shared.handles,
                    export: &shared.export.name,
                    mounts: &shared.mounts,
                    client: self.peer.ip(),
                };
                context.run(procedure, &mut input, out)
            }
        }
    }
}

/// What kind of work a call is.
fn work(procedure: Procedure, arguments: &[u8]) -> Option<Work> {
    let mut input = Decoder::new(arguments);
    Some(match procedure {
        Procedure::Null => return None,
        Procedure::Getattr
        | Procedure::Lookup
        | Procedure::Access
        | Procedure::Readlink
        | Procedure::Fsstat
        | Procedure::Fsinfo
        | Procedure::Pathconf => Work::Look,
        Procedure::Read => Work::Read,
        Procedure::Write => match arguments::Write::decode(&mut input).ok()?.stable {
            StableHow::Unstable => Work::Write(Stability::Unstable),
            StableHow::DataSync => Work::Write(Stability::DataSync),
            StableHow::FileSync => Work::Write(Stability::FileSync),
        },
        Procedure::Create => match arguments::Create::decode(&mut input).ok()?.how {
            CreateHow::Exclusive(_) => Work::Flush,
            CreateHow::Unchecked(_) | CreateHow::Guarded(_) => Work::Change,
        },
        Procedure::Setattr
        | Procedure::Mkdir
        | Procedure::Symlink
        | Procedure::Mknod
        | Procedure::Remove
        | Procedure::Rmdir
        | Procedure::Rename
        | Procedure::Link => Work::Change,
        Procedure::Readdir => Work::List { plus: false },
        Procedure::Readdirplus => Work::List { plus: true },
        Procedure::Commit => Work::Flush,
    })
}
