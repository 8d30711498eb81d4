//! From a record to what is to be done with it.

use super::access::Claim;
use super::job::{Job, Target};
use super::reply_cache::{CallKey, Seen};
use super::server::Shared;
use crate::observe::metrics;
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfs3::{self, MAX_IO, arguments};
use ehpc_proto::rpc::{Call, CallError, Reply};
use ehpc_proto::xdr::Decode;
use ehpc_proto::{mount, nfsacl, record};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// What is to be done with a record.
pub(super) enum Action {
    /// The answer is known: a whole record.
    Answer(Vec<u8>),
    /// It takes a worker to answer.
    Run(Box<Job>),
    /// A copy of a call that is being done: the first one will be answered.
    Ignore,
    /// No RPC call at all: the connection cannot be trusted.
    Close,
}

/// No call but WRITE has arguments of this size.
const LARGE_CALL: usize = 64 * 1024;
/// What the reply to anything but READ, listings and DUMP may hold.
const SMALL_REPLY: usize = 1024;

/// Reads a record from `peer`.
pub(super) fn read(shared: &Shared, peer: SocketAddr, record: Vec<u8>) -> Action {
    let mut input = Decoder::new(&record);
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
            return Action::Answer(header_only(shared, xid, reply));
        }
    };
    match target(&call) {
        Ok(target) => call_to(shared, peer, &call, target, input.rest(), record.len()).finish(record),
        Err(reply) => {
            // Every Linux client asks for NFSv4 or the ACL program once: no fault of anybody.
            shared.complaints.say(|held_back| {
                tracing::info!(client = %peer, program = call.program, version = call.version,
                    procedure = call.procedure, held_back, "an RPC call for what is not served here");
            });
            Action::Answer(header_only(shared, call.xid, reply))
        }
    }
}

/// Which procedure of which program is called, or the header that says why none.
fn target(call: &Call<'_>) -> Result<Target, Reply> {
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

/// An action that may still need the record.
enum Decision {
    Now(Action),
    Run(Box<Job>),
}

impl Decision {
    fn finish(self, record: Vec<u8>) -> Action {
        match self {
            Decision::Now(action) => action,
            Decision::Run(mut job) => {
                job.record = record;
                Action::Run(job)
            }
        }
    }
}

fn call_to(
    shared: &Shared,
    peer: SocketAddr,
    call: &Call<'_>,
    target: Target,
    arguments: &[u8],
    record_len: usize,
) -> Decision {
    shared.count(target);
    if target.is_null() {
        return Decision::Now(Action::Answer(header_only(shared, call.xid, Reply::Success)));
    }
    let Some(reply_bound) = reply_bound(target, arguments, record_len) else {
        shared.bad_request(|held_back| {
            tracing::warn!(client = %peer, procedure = target.name(), held_back,
                "an RPC call with arguments that cannot be decoded");
        });
        return Decision::Now(Action::Answer(header_only(shared, call.xid, Reply::GarbageArguments)));
    };
    let replay = if target.is_replayed() {
        let key = CallKey::new(peer.ip(), call.xid, (call.program, call.procedure), arguments);
        let seen = shared.cache.lock().begin(key, peer.port(), shared.now());
        match seen {
            Seen::New => Some(key),
            Seen::InProgress => return Decision::Now(Action::Ignore),
            Seen::Done(reply) => {
                shared.counters.replayed.fetch_add(1, Ordering::Relaxed);
                return Decision::Now(Action::Answer(reply));
            }
        }
    } else {
        None
    };
    Decision::Run(Box::new(Job {
        record: Vec::new(),
        arguments: record_len - arguments.len(),
        xid: call.xid,
        target,
        claim: Claim::of(&call.credential),
        replay,
        peer,
        cost: record_len + reply_bound,
    }))
}

/// Most bytes that the reply will hold; `None` if the arguments are certainly garbage.
fn reply_bound(target: Target, arguments: &[u8], record_len: usize) -> Option<usize> {
    let procedure = match target {
        Target::Nfs(procedure) => procedure,
        Target::Mount(mount::Procedure::Dump) => return Some(MAX_IO),
        Target::Mount(_) => return Some(SMALL_REPLY),
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
fn header_only(shared: &Shared, xid: u32, reply: Reply) -> Vec<u8> {
    let mut out = Encoder::with_capacity(64);
    out.u32(0);
    reply.encode(xid, &mut out);
    shared.answered(reply != Reply::Success);
    seal(out)
}

/// Turns four bytes of room and a reply into a record.
pub(super) fn seal(out: Encoder) -> Vec<u8> {
    let mut bytes = out.finish();
    let mark = record::mark(bytes.len().saturating_sub(4));
    if let Some(room) = bytes.first_chunk_mut::<4>() {
        *room = mark;
    }
    bytes
}

impl Shared {
    /// Counts input that cannot be served, and logs it now and then.
    pub(super) fn bad_request(&self, log: impl FnOnce(u64)) {
        metrics::NFS_BAD_REQUESTS.inc();
        self.counters.bad_requests.fetch_add(1, Ordering::Relaxed);
        self.complaints.say(log);
    }

    /// Counts an answer.
    pub(super) fn answered(&self, failed: bool) {
        metrics::NFS_REQUESTS.inc();
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            metrics::NFS_ERRORS.inc();
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, target: Target) {
        match target {
            Target::Nfs(procedure) => self.counters.nfs(procedure),
            Target::Mount(procedure) => self.counters.mount(procedure),
            Target::Acl(procedure) => self.counters.acl(procedure),
        }
    }
}
