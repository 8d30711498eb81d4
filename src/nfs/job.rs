//! A call to be answered: on the connection's own thread if that is quick, else by a worker.

use super::access::Claim;
use super::dispatch::seal;
use super::mount::MountContext;
use super::procedures::{self, Promise, Request};
use super::reply_cache::CallKey;
use super::server::Shared;
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::Procedure;
use ehpc_proto::rpc::Reply;
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
    /// Who it says that it is made for.
    pub(super) claim: Claim,
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
    Done(Option<Promise>),
    /// Nothing was done or written: it takes a worker.
    Blocks,
}

impl Job {
    /// Does the call, on the calling thread, and appends the reply to `out`. Never panics: a fault below is answered
    /// with SYSTEM_ERR.
    pub(super) fn run(&self, shared: &Shared, record: &[u8], out: &mut Encoder, place: Place) -> Ran {
        let arguments = record.get(self.arguments..).unwrap_or_default();
        if place == Place::Engine && self.target == Target::Mount(mount::Procedure::Mnt) {
            return Ran::Blocks; // a path of any length is looked up
        }
        let start = out.len();
        out.u32(0);
        let done = catch_unwind(AssertUnwindSafe(|| {
            Reply::Success.encode(self.xid, out);
            self.perform(shared, arguments, out, place)
        }));
        let (failed, promise) = match done {
            Ok(Ok(procedures::Done { blocks: true, .. })) => {
                out.truncate(start);
                return Ran::Blocks;
            }
            Ok(Ok(done)) => (done.failed, done.promise),
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
        Ran::Done(promise)
    }

    /// The reply, as a whole record, is about to be sent: it is kept for copies of the call.
    pub(super) fn finish(&self, shared: &Shared, reply: &[u8]) {
        if let Some(call) = self.replay {
            shared.cache.lock(&call).finish(call, self.peer.port(), reply, shared.now());
        }
    }

    /// Waits until the reply may be sent; returns what is to be sent. What could not be made durable is answered with
    /// NFS3ERR_IO, whatever was written before.
    pub(super) async fn settle(&self, shared: &Shared, promise: Promise, mut reply: Vec<u8>) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u32(0);
        Reply::Success.encode(self.xid, &mut out);
        match promise.kept(&mut out).await {
            Ok(vfs) => {
                if self.target == Target::Nfs(Procedure::Commit)
                    && let Some(last) = reply.last_chunk_mut::<8>()
                {
                    // What was lost while this was waiting must not be covered by the verifier of before.
                    *last = vfs.write_verifier();
                }
                reply
            }
            Err(()) => {
                shared.answered(true);
                seal(&mut out, 0);
                out.finish()
            }
        }
    }

    fn refuse(&self, reply: Reply, out: &mut Encoder, start: usize) {
        out.truncate(start + 4);
        reply.encode(self.xid, out);
    }

    fn perform(
        &self,
        shared: &Shared,
        arguments: &[u8],
        out: &mut Encoder,
        place: Place,
    ) -> Result<procedures::Done, DecodeError> {
        let mut input = Decoder::new(arguments);
        let exports = shared.exports.snapshot();
        let key = &shared.options.handle_key;
        let request = Request { exports: &exports, key, peer: self.peer, claim: &self.claim, place };
        match self.target {
            Target::Nfs(procedure) => request.run(procedure, &mut input, out),
            Target::Acl(procedure) => request.run_acl(procedure, &mut input, out),
            Target::Mount(procedure) => {
                let context = MountContext {
                    exports: &exports,
                    key,
                    mounts: &shared.mounts,
                    peer: self.peer,
                    claim: &self.claim,
                };
                let failed = context.run(procedure, &mut input, out)?;
                Ok(procedures::Done { failed, ..procedures::Done::default() })
            }
        }
    }
}
