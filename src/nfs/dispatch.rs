//! From a record to what is to be done with it: the seam between connections and programs.

use super::access::Claim;
use super::job::{InFlight, Job, Measured, Target};
use super::meters::GARBAGE;
use super::reply_cache::{CallKey, Seen};
use super::server::Shared;
use crate::observe::metrics;
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfs3::{self, MAX_IO, arguments};
use ehpc_proto::rpc::{Call, CallError, Reply};
use ehpc_proto::xdr::{Decode, HANDLE_MAX, Opaque};
use ehpc_proto::{mount, nfsacl, nlm, record};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is to be done with a record.
#[allow(clippy::large_enum_variant)] // handed down a few frames, never stored: a box would be an allocation a call
pub(super) enum Action {
    /// The answer is written: a whole record.
    Answered,
    /// The file system is asked.
    Run(Job),
    /// A copy of a call that is being done: the first one will be answered.
    Ignore,
    /// No RPC call at all: the connection cannot be trusted.
    Close,
}

/// No call but WRITE has arguments of this size.
const LARGE_CALL: usize = 64 * 1024;
/// What the reply to anything but READ, listings and DUMP may hold.
const SMALL_REPLY: usize = 1024;

/// Reads a record from `peer`; what can be answered at once is appended to `out`.
pub(super) fn read(shared: &Shared, peer: SocketAddr, record: &[u8], out: &mut Encoder) -> Action {
    let mut input = Decoder::new(record);
    let call = match Call::decode(&mut input) {
        Ok(call) => call,
        Err(CallError::Malformed(error)) => {
            shared.bad_request(|held_back| {
                tracing::warn!(client = %peer, %error, held_back, "closing an NFS connection: not an RPC call");
            });
            return Action::Close;
        }
        Err(error @ CallError::Refused { xid, reply }) => {
            shared.bad_request(|held_back| {
                tracing::warn!(client = %peer, %error, held_back, "an RPC call is refused");
            });
            return header_only(shared, xid, reply, out);
        }
    };
    match target(shared, &call) {
        Ok(target) => call_to(shared, peer, (&call, target), (input.rest(), record.len()), out),
        Err(reply) => {
            // Every Linux client asks for NFSv4 or the ACL program once: no fault of anybody.
            shared.complaints.say(|held_back| {
                tracing::info!(client = %peer, program = call.program, version = call.version,
                    procedure = call.procedure, held_back, "an RPC call for what is not served here");
            });
            header_only(shared, call.xid, reply, out)
        }
    }
}

/// Which procedure of which program is called, or the header that says why none.
fn target(shared: &Shared, call: &Call<'_>) -> Result<Target, Reply> {
    if shared.locks.is_some()
        && let Some(found) = Target::of_locks(call.program, call.version, call.procedure)
    {
        return found;
    }
    let version = match call.program {
        nfs3::PROGRAM => nfs3::VERSION,
        mount::PROGRAM => mount::VERSION,
        nfsacl::PROGRAM => nfsacl::VERSION,
        _ => return Err(Reply::ProgramUnavailable),
    };
    if call.version != version {
        return Err(Reply::ProgramMismatch { low: version, high: version });
    }
    let target = match call.program {
        nfs3::PROGRAM => nfs3::Procedure::from_number(call.procedure).map(Target::Nfs),
        mount::PROGRAM => mount::Procedure::from_number(call.procedure).map(Target::Mount),
        _ => nfsacl::Procedure::from_number(call.procedure).map(Target::Acl),
    };
    target.ok_or(Reply::ProcedureUnavailable)
}

fn call_to(
    shared: &Shared,
    peer: SocketAddr,
    (call, target): (&Call<'_>, Target),
    (arguments, record_len): (&[u8], usize),
    out: &mut Encoder,
) -> Action {
    if target.is_null() {
        shared.counters.meters.answered(target, 0, Duration::ZERO);
        return header_only(shared, call.xid, Reply::Success, out);
    }
    let Some(reply_bound) = reply_bound(target, arguments, record_len) else {
        shared.bad_request(|held_back| {
            tracing::warn!(client = %peer, procedure = target.name(), held_back,
                "an RPC call with arguments that cannot be decoded");
        });
        shared.counters.meters.answered(target, GARBAGE, Duration::ZERO);
        return header_only(shared, call.xid, Reply::GarbageArguments, out);
    };
    let replay = if target.is_replayed() {
        let key = CallKey::new(peer.ip(), call.xid, (call.program, call.procedure), arguments);
        let seen = shared.cache.lock(&key).begin(key, peer.port(), shared.now());
        match seen {
            Seen::New => Some(key),
            Seen::InProgress => return Action::Ignore,
            Seen::Done(reply) => {
                shared.counters.replayed.add(1);
                metrics::NFS_REPLAYED.inc();
                out.bytes(&reply);
                return Action::Answered;
            }
        }
    } else {
        None
    };
    Action::Run(Job {
        arguments: record_len - arguments.len(),
        xid: call.xid,
        target,
        claim: Claim::of(&call.credential),
        replay,
        peer,
        cost: record_len + reply_bound,
        reply_bound,
        object: object(target, arguments),
        received: Instant::now(),
        measured: Measured::default(),
        _in_flight: InFlight::new(),
    })
}

/// The handle that the arguments begin with, for those who want to know what a slow call was about.
fn object(target: Target, arguments: &[u8]) -> SmallVec<[u8; HANDLE_MAX]> {
    if !matches!(target, Target::Nfs(_) | Target::Acl(_)) {
        return SmallVec::new();
    }
    let handle = <Opaque<'_, HANDLE_MAX>>::decode(&mut Decoder::new(arguments));
    handle.map_or_else(|_| SmallVec::new(), |handle| SmallVec::from_slice(handle.0))
}

/// Most bytes that the reply will hold; `None` if the arguments are certainly garbage.
fn reply_bound(target: Target, arguments: &[u8], record_len: usize) -> Option<usize> {
    let procedure = match target {
        Target::Nfs(procedure) => procedure,
        Target::Mount(mount::Procedure::Dump) => return Some(MAX_IO),
        Target::Mount(_) => return Some(SMALL_REPLY),
        Target::Nlm(..) | Target::Nsm(_) if record_len > LARGE_CALL => return None,
        // A cookie and the owner of a lock in the way.
        Target::Nlm(..) | Target::Nsm(_) => return Some(SMALL_REPLY + 2 * nlm::OBJECT_MAX),
        Target::Acl(_) if record_len > LARGE_CALL => return None,
        Target::Acl(_) => return Some(SMALL_REPLY + nfsacl::MAX_LISTS),
    };
    let mut input = Decoder::new(arguments);
    let data = match procedure {
        nfs3::Procedure::Write => 0,
        _ if record_len > LARGE_CALL => return None,
        nfs3::Procedure::Read => arguments::Read::decode(&mut input).ok()?.count,
        nfs3::Procedure::Readdir => arguments::Readdir::decode(&mut input).ok()?.count,
        nfs3::Procedure::Readdirplus => arguments::Readdirplus::decode(&mut input).ok()?.max_count,
        _ => 0,
    };
    Some(SMALL_REPLY + (data as usize).min(MAX_IO))
}

/// A reply that is only a header, as a record.
fn header_only(shared: &Shared, xid: u32, reply: Reply, out: &mut Encoder) -> Action {
    let start = out.len();
    out.u32(0);
    reply.encode(xid, out);
    shared.answered(reply != Reply::Success);
    seal(out, start);
    Action::Answered
}

/// Turns four bytes of room at `start` and the reply after them into a record.
pub(super) fn seal(out: &mut Encoder, start: usize) {
    let mark = record::mark(out.len().saturating_sub(start + 4));
    if let Some(room) = out.buffer().get_mut(start..start + 4) {
        room.copy_from_slice(&mark);
    }
}

impl Shared {
    /// Counts input that cannot be served, and logs it now and then.
    pub(super) fn bad_request(&self, log: impl FnOnce(u64)) {
        metrics::NFS_BAD_REQUESTS.inc();
        self.counters.bad_requests.add(1);
        self.complaints.say(log);
    }

    /// Counts an answer.
    pub(super) fn answered(&self, failed: bool) {
        metrics::NFS_REQUESTS.inc();
        self.counters.requests.add(1);
        if failed {
            metrics::NFS_ERRORS.inc();
            self.counters.errors.add(1);
        }
    }
}
