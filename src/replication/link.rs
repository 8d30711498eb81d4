//! The link as the sender sees it: blocking calls on one connection, which either work or say that it is down.
//!
//! `connector` implements these over TLS; tests implement them in memory.

use bytes::Bytes;
use ehpc_proto::replication::message::{Answer, Blob, Query};
use ehpc_proto::replication::{Hash, Position, StreamId};
use std::sync::Arc;

/// Why there is no connection (any more).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LinkDown {
    /// This host has no paired backup.
    #[error("not paired with a backup: run `ehpc-store pair` (the code is shown on the backup)")]
    NotPaired,
    /// The backup could not be reached, or the connection could not be secured.
    #[error("cannot connect to the backup at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// The backup ended the link and said why.
    #[error("the backup refuses: {reason}")]
    Refused { reason: String },
    /// The connection broke.
    #[error("the connection to the backup was lost: {reason}")]
    Lost { reason: String },
    /// The peer said something that the protocol does not allow.
    #[error("the backup does not keep to the protocol: {reason}")]
    Protocol { reason: String },
    /// This side is shutting down.
    #[error("the link is closed: this host is shutting down")]
    Closed,
}

/// What the primary says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Name of the export.
    pub export: String,
    /// Stream that will be written if the backup has none.
    pub stream: StreamId,
    /// Where the shadow stands; `None` without one.
    pub position: Option<Position>,
}

/// What the backup answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Last durable batch; `None` when the backup holds no stream yet. The next batch must chain on it
    /// (on `Position::start` of the hello's stream if `None`).
    pub position: Option<Position>,
    /// The hello's position is part of the backup's history.
    pub shadow_known: bool,
}

/// One connection, used by the sender's thread. After an error the link is of no use: connect anew.
pub trait Link: Send {
    /// Sends blobs (at most 1 MiB together, or one larger page); blocks until there is credit for them.
    fn send_blobs(&mut self, blobs: Vec<Blob>) -> Result<(), LinkDown>;
    /// Which of these (at most 4,096) does the backup lack? One round trip.
    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, LinkDown>;
    /// Sends an encoded batch; blocks while 8 batches, or 16 MiB of them, are not acknowledged.
    fn send_batch(&mut self, number: u64, encoded: Bytes) -> Result<(), LinkDown>;
    /// The newest acknowledged batch, if it was not returned before.
    fn poll_acks(&mut self) -> Option<u64>;
    /// Asks and waits for the answer; the parts of a long one are put together.
    fn ask(&mut self, query: Query) -> Result<Answer, LinkDown>;
    /// Whether the connection stands. (Acknowledgements that came before it broke are still polled.)
    fn check(&self) -> Result<(), LinkDown>;
    /// `wake` is called, quickly and from another thread, whenever an acknowledgement arrives or the link goes down.
    fn on_event(&mut self, wake: Arc<dyn Fn() + Send + Sync>);
}

/// Makes connections.
pub trait Connector: Send {
    /// One attempt, after the back-off that earlier failures earned; blocks until welcomed or failed.
    fn connect(&mut self, hello: Hello) -> Result<(Welcome, Box<dyn Link>), LinkDown>;
}
