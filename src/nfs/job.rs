//! A call to be answered: on the connection's own thread if that is quick, else by a worker.

use super::access::Claim;
use super::dispatch::seal;
use super::exports::Who;
use super::lock::{self, Files, LockContext};
use super::meters::{FAULT, GARBAGE, Traffic};
use super::mount::MountContext;
use super::procedures::{self, Promise, Request};
use super::reply_cache::CallKey;
use super::server::Shared;
use crate::observe::metrics;
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::Procedure;
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::HANDLE_MAX;
use ehpc_proto::{mount, nfs3, nfsacl, nlm, nsm};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A worker waits so long for the name service before the client is told to come again (NFS3ERR_JUKEBOX).
const PATIENCE: Duration = Duration::from_millis(200);
/// MNT has no such answer.
const MOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// A procedure of one of the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Nfs(nfs3::Procedure),
    Mount(mount::Procedure),
    Acl(nfsacl::Procedure),
    /// Of this version.
    Nlm(u32, nlm::Procedure),
    Nsm(nsm::Procedure),
}

impl Target {
    pub(super) fn name(self) -> &'static str {
        match self {
            Target::Nfs(procedure) => procedure.name(),
            Target::Mount(procedure) => procedure.name(),
            Target::Acl(procedure) => procedure.name(),
            Target::Nlm(_, procedure) => procedure.name(),
            Target::Nsm(procedure) => procedure.name(),
        }
    }

    /// Its name, and its program's if that is not NFS.
    pub(super) fn full_name(self) -> String {
        match self {
            Target::Nfs(procedure) => procedure.name().to_owned(),
            Target::Mount(procedure) => format!("mount_{}", procedure.name()),
            Target::Acl(procedure) => format!("acl_{}", procedure.name()),
            Target::Nlm(_, procedure) => format!("nlm_{}", procedure.name()),
            Target::Nsm(procedure) => format!("nsm_{}", procedure.name()),
        }
    }

    /// NULL: answered whatever comes with it.
    pub(super) fn is_null(self) -> bool {
        matches!(
            self,
            Target::Nfs(nfs3::Procedure::Null)
                | Target::Mount(mount::Procedure::Null)
                | Target::Acl(nfsacl::Procedure::Null)
                | Target::Nlm(_, nlm::Procedure::Null)
                | Target::Nsm(nsm::Procedure::Null)
        )
    }

    /// A procedure of NLM or NSM, or the header that says why none; `None`: another program.
    pub(super) fn of_locks(program: u32, version: u32, procedure: u32) -> Option<Result<Target, Reply>> {
        let none = Reply::ProcedureUnavailable;
        match program {
            nlm::PROGRAM if !nlm::VERSIONS.contains(&version) => {
                Some(Err(Reply::ProgramMismatch { low: 1, high: 4 }))
            }
            nlm::PROGRAM => {
                let found = nlm::Procedure::from_number(version, procedure);
                Some(found.map(|procedure| Target::Nlm(version, procedure)).ok_or(none))
            }
            nsm::PROGRAM if version != nsm::VERSION => {
                Some(Err(Reply::ProgramMismatch { low: nsm::VERSION, high: nsm::VERSION }))
            }
            nsm::PROGRAM => Some(nsm::Procedure::from_number(procedure).map(Target::Nsm).ok_or(none)),
            _ => None,
        }
    }

    /// Never done on a thread that must not wait: MNT looks up a path of any length, and who takes locks is remembered
    /// on the disk.
    fn always_waits(self) -> bool {
        matches!(self, Target::Mount(mount::Procedure::Mnt) | Target::Nlm(..) | Target::Nsm(_))
    }

    /// Must not be done twice when a call is sent again. Of MOUNT none is: doing one twice changes nothing more.
    pub(super) fn is_replayed(self) -> bool {
        match self {
            Target::Nfs(procedure) => procedure.is_replayed(),
            Target::Acl(procedure) => procedure == nfsacl::Procedure::Setacl,
            // Doing one twice changes nothing more: a lock that is held is granted again.
            Target::Mount(_) | Target::Nlm(..) | Target::Nsm(_) => false,
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
    /// The handle that its arguments begin with.
    pub(super) object: SmallVec<[u8; HANDLE_MAX]>,
    /// When its record was complete.
    pub(super) received: Instant,
    /// What is known of it once it ran.
    pub(super) measured: Measured,
    /// Counts it among those in flight.
    pub(super) _in_flight: InFlight,
}

/// What a call did, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    /// 0, or the status of the protocol's error.
    pub(super) status: u32,
    /// Bytes of a file that were read.
    pub(super) read: u32,
    /// Bytes of a file that were written.
    pub(super) written: u32,
    /// When it began to be done, and when that ended.
    pub(super) done: Option<(Instant, Instant)>,
    /// When what its reply promises was kept; `None`: it promises nothing.
    pub(super) settled: Option<Instant>,
}

/// A call that is not answered yet.
#[derive(Debug)]
pub(super) struct InFlight(());

impl InFlight {
    pub(super) fn new() -> InFlight {
        metrics::NFS_IN_FLIGHT.add(1);
        InFlight(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::NFS_IN_FLIGHT.sub(1);
    }
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
    pub(super) fn run(&mut self, shared: &Shared, record: &[u8], out: &mut Encoder, place: Place) -> Ran {
        let arguments = record.get(self.arguments..).unwrap_or_default();
        if place == Place::Engine && self.target.always_waits() {
            return Ran::Blocks;
        }
        // On its connection's own thread it is done as soon as it is received.
        let started = if place == Place::Engine { self.received } else { Instant::now() };
        let start = out.len();
        out.u32(0);
        let done = catch_unwind(AssertUnwindSafe(|| {
            Reply::Success.encode(self.xid, out);
            let body = out.len();
            let done = self.perform(shared, arguments, out, place)?;
            Ok::<_, DecodeError>((done, body))
        }));
        let mut measured = Measured::default();
        let promise = match done {
            Ok(Ok((procedures::Done { blocks: true, .. }, _))) => {
                out.truncate(start);
                return Ran::Blocks;
            }
            Ok(Ok((done, body))) => {
                measured.status = match self.target {
                    _ if !done.failed => 0,
                    // A cookie comes first, and their statuses are of another kind.
                    Target::Nlm(..) | Target::Nsm(_) => u32::MAX,
                    _ => status_in(out.as_slice(), body),
                };
                (measured.read, measured.written) = (done.read, done.written);
                done.promise
            }
            Ok(Err(error)) => {
                shared.bad_request(|held_back| {
                    tracing::warn!(client = %self.peer, procedure = self.target.name(), %error, held_back,
                        "an RPC call with arguments that cannot be decoded");
                });
                self.refuse(Reply::GarbageArguments, out, start);
                measured.status = GARBAGE;
                None
            }
            Err(_) => {
                tracing::error!(client = %self.peer, procedure = self.target.name(),
                    "a fault in the server while it did an NFS call; the client gets an error, the server goes on");
                self.refuse(Reply::SystemError, out, start);
                measured.status = FAULT;
                None
            }
        };
        shared.answered(measured.status != 0);
        measured.done = Some((started, Instant::now()));
        self.measured = measured;
        seal(out, start);
        Ran::Done(promise)
    }

    /// The reply, as a whole record, is about to be sent: it is kept for copies of the call, and the call is counted.
    pub(super) fn finish(&self, shared: &Shared, traffic: &Traffic, reply: &[u8]) {
        if let Some(call) = self.replay {
            shared.cache.lock(&call).finish(call, self.peer.port(), reply, shared.now());
        }
        let measured = &self.measured;
        let done = measured.done.map_or(self.received, |(_, done)| done);
        let ready = measured.settled.unwrap_or(done);
        let took = ready.saturating_duration_since(self.received);
        shared.counters.meters.answered(self.target, measured.status, took);
        traffic.moved(measured.read, measured.written);
        let limit = shared.options.slow_request;
        if !limit.is_zero() && took >= limit {
            super::slow::tell(self, shared, ready);
        }
    }

    /// Waits until the reply may be sent; returns what is to be sent. What could not be made durable is answered with
    /// NFS3ERR_IO, whatever was written before.
    pub(super) async fn settle(&mut self, shared: &Shared, promise: Promise, mut reply: Vec<u8>) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u32(0);
        Reply::Success.encode(self.xid, &mut out);
        let body = out.len();
        let kept = promise.kept(&mut out).await;
        self.measured.settled = Some(Instant::now());
        match kept {
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
                self.measured.status = status_in(out.as_slice(), body);
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
        let who = Who {
            peer: self.peer,
            claim: &self.claim,
            lookups: &shared.lookups,
            manage_gids: shared.options.manage_gids,
            patience: match (place, self.target) {
                (Place::Engine, _) => None,
                (Place::Worker, Target::Mount(_)) => Some(MOUNT_PATIENCE),
                (Place::Worker, _) => Some(PATIENCE),
            },
        };
        let request = Request { exports: &exports, key, who, place };
        match self.target {
            Target::Nfs(procedure) => request.run(procedure, &mut input, out),
            Target::Acl(procedure) => request.run_acl(procedure, &mut input, out),
            Target::Mount(procedure) => {
                let context = MountContext { exports: &exports, key, mounts: &shared.mounts, who };
                let failed = context.run(procedure, &mut input, out)?;
                Ok(procedures::Done { failed, ..procedures::Done::default() })
            }
            Target::Nlm(..) | Target::Nsm(_) => {
                let failed = match &shared.locks {
                    Some(service) => self.perform_lock(service, &request, &mut input, out)?,
                    // They are not dispatched then.
                    None => true,
                };
                Ok(procedures::Done { failed, ..procedures::Done::default() })
            }
        }
    }

    fn perform_lock(
        &self,
        service: &Arc<lock::Service>,
        request: &Request<'_>,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<bool, DecodeError> {
        let from = self.peer.ip();
        match self.target {
            Target::Nlm(version, procedure) => {
                let files = Files { exports: request.exports, key: request.key, who: request.who };
                LockContext { service, files, from, version }.run(procedure, input, out)
            }
            Target::Nsm(procedure) => service.status_monitor(procedure, from, input, out),
            Target::Nfs(_) | Target::Mount(_) | Target::Acl(_) => Ok(true),
        }
    }
}

/// The status word at the start of a result; never 0.
fn status_in(reply: &[u8], body: usize) -> u32 {
    let word = reply.get(body..).and_then(|result| result.first_chunk::<4>());
    word.map_or(u32::MAX, |word| u32::from_be_bytes(*word).max(1))
}
