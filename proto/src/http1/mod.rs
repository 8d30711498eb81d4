//! HTTP/1.0 and HTTP/1.1 on the wire (RFC 9112), as a proxy needs it: strict in what it takes for a message, so that
//! the peers behind it never see other message borders than it does.
//!
//! - [`RequestParser`], [`ResponseParser`]: bytes -> heads of [`crate::http`], and what they say of body and
//!   connection. One pass over the bytes however they arrive; nothing is allocated for a field.
//! - [`Body`]: which of the bytes behind a head go on to the other side, and where they end.
//! - [`prepare_request`], [`prepare_response`]: what the next hop is told of its connection.
//! - [`write_request`], [`write_response`]: heads -> bytes.
//!
//! The heads that come out are clean: one `content-length` or one `transfer-encoding: chunked` at most, one `host`,
//! `connection` without `close` and `keep-alive` (those are facts of the parsed message; the writer of the next hop
//! adds its own, see [`connection`]).

mod body;
mod chunked;
mod codes;
pub mod connection;
mod fault;
mod fields;
mod framing;
mod request;
mod response;
mod target;
mod write;

pub use body::{Body, Step, write_chunk};
pub use connection::{Client, Mode, Outgoing, prepare_request, prepare_response};
pub use fault::{BadMessage, Fault};
pub use framing::Framing;
pub use request::{ParsedRequest, RequestParser, Upgrade, parse_request};
pub use response::{Asked, ParsedResponse, ResponseParser, parse_response};
pub use write::{write_request, write_response};

/// Bounds of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most that a head may weigh, in bytes: `tune.bufsize` without `tune.maxrewrite`. Weighed as HAProxy 2.6 does:
    /// start line and fields without separators, 8 more a field, 85 in all (measured to the byte).
    pub head: usize,
    /// Most fields: `tune.http.maxhdr` without one.
    pub fields: usize,
}

impl Default for Limits {
    /// HAProxy's own: 16384 - 1024, 101 - 1.
    fn default() -> Limits {
        Limits { head: 15_360, fields: 100 }
    }
}

#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod response_tests;
