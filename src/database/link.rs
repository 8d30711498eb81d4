//! What the database needs of a connection between the two hosts. `cli` makes it out of `replication`.

use bytes::Bytes;
use ehpc_proto::replication::wire::Payload;
use std::future::Future;
use std::pin::Pin;

/// A future behind a trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections to the other host.
pub trait Dial: Send + Sync + 'static {
    /// One attempt; the error is for people. Back-off is the caller's.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>>;
}

/// An authenticated connection that carries whole messages in both directions.
pub trait Wire: Send {
    /// Its two halves.
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>);
}

/// The receiving half.
pub trait WireIn: Send {
    /// The next message, still encoded; `None` at an orderly end. Not safe to cancel: use it in a task of its own.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
}

/// The sending half.
pub trait WireOut: Send {
    /// Hands over one encoded message; it may be held back until `flush`.
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>>;
    /// Everything handed over goes out.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>>;
    /// Everything handed over goes out, and then an orderly end, which the other side's [`WireIn::next`] tells from a
    /// fault. (Dropping a wire just cuts it.)
    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        self.flush()
    }
}
