//! A call that a worker thread answers.

use super::access::Claim;
use super::dispatch::seal;
use super::mount::MountContext;
use super::procedures::{self, Request};
use super::reply_cache::CallKey;
use super::server::Shared;
use crate::vfs::Settled;
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
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
    /// The record it came in.
    pub(super) record: Vec<u8>,
    /// Where in it the arguments start.
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
}

/// A reply, and what must have happened before it may be sent.
pub(super) struct Done {
    pub(super) reply: Vec<u8>,
    pub(super) settled: Option<Settled>,
}

impl Job {
    /// Does the call, on the calling thread. Never panics: a fault below is answered with SYSTEM_ERR.
    pub(super) fn run(&self, shared: &Shared) -> Done {
        let mut out = Encoder::with_capacity(512);
        out.u32(0);
        let done = catch_unwind(AssertUnwindSafe(|| {
            Reply::Success.encode(self.xid, &mut out);
            self.perform(shared, &mut out)
        }));
        let (failed, settled) = match done {
            Ok(Ok(done)) => (done.failed, done.settled),
            Ok(Err(error)) => {
                shared.bad_request(|held_back| {
                    tracing::warn!(client = %self.peer, procedure = self.target.name(), %error, held_back,
                        "an RPC call with arguments that cannot be decoded");
                });
                self.refuse(Reply::GarbageArguments, &mut out);
                (true, None)
            }
            Err(_) => {
                tracing::error!(client = %self.peer, procedure = self.target.name(),
                    "a fault in the server while it did an NFS call; the client gets an error, the server goes on");
                self.refuse(Reply::SystemError, &mut out);
                (true, None)
            }
        };
        shared.answered(failed);
        Done { reply: seal(out), settled }
    }

    fn refuse(&self, reply: Reply, out: &mut Encoder) {
        out.truncate(4);
        reply.encode(self.xid, out);
    }

    fn perform(&self, shared: &Shared, out: &mut Encoder) -> Result<procedures::Done, DecodeError> {
        let mut input = Decoder::new(self.record.get(self.arguments..).unwrap_or_default());
        let exports = shared.exports.snapshot();
        let key = &shared.options.handle_key;
        let request = Request { exports: &exports, key, peer: self.peer, claim: &self.claim };
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
                Ok(procedures::Done { failed, settled: None })
            }
        }
    }
}
