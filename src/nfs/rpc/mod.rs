//! Small RPC beside the NFS connections: a client for port mappers and lock callbacks, and servers for UDP and for
//! port 111, where calls are few and short.

pub(super) mod client;
pub(super) mod datagrams;
pub(super) mod streams;

use std::net::{IpAddr, SocketAddr};

/// Longest call and reply of these servers over TCP, and longest datagram that is read.
pub(super) const MAX_CALL: usize = 16 * 1024;

/// Where a call came from, and where it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival {
    /// The caller.
    pub(super) from: SocketAddr,
    /// The address of ours that he used, unspecified if the socket does not tell.
    pub(super) at: IpAddr,
    /// Over TCP.
    pub(super) stream: bool,
}

/// Takes the reply to a call, without a record mark. Dropping it answers nothing.
pub(super) type Reply = Box<dyn FnOnce(Vec<u8>) + Send>;

/// Answers calls; must not block.
pub(super) trait Answerer: Send + Sync + 'static {
    /// `call` is a whole RPC message without a record mark.
    fn answer(&self, arrival: Arrival, call: Vec<u8>, reply: Reply);
}
