//! What can be wrong with an HTTP/1 message: a variant a fault, with the place where it was seen.

use thiserror::Error;

/// A message that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{fault}, at byte {at}")]
pub struct BadMessage {
    /// What is wrong.
    pub fault: Fault,
    /// Where, counted from the first byte that the parser was given (of a body: from the start of the piece).
    pub at: usize,
}

impl BadMessage {
    pub(super) fn new(fault: Fault, at: usize) -> BadMessage {
        BadMessage { fault, at }
    }

    /// Status of the answer to a request with this fault (HAProxy answers a head that is too large with 400 too).
    pub fn status(&self) -> u16 {
        match self.fault {
            Fault::UnsupportedCoding => 422,
            _ => 400,
        }
    }
}

/// Faults of heads and bodies. RFC 9112 unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[allow(missing_docs)] // the message says it
pub enum Fault {
    #[error("a byte that may not stand in a method (section 3.1)")]
    Method,
    #[error("a byte that may not stand in a request target (section 3.2)")]
    Target,
    #[error("a request target that is neither a path, nor an absolute URI, nor `*` (section 3.2)")]
    TargetForm,
    #[error("CONNECT wants `host:port` as its target (section 3.2.3)")]
    ConnectTarget,
    #[error("no version in the request line: HTTP/0.9 is not served")]
    NoVersion,
    #[error("a version other than HTTP/1.0 and HTTP/1.1 (section 2.3)")]
    Version,
    #[error("a status line that does not begin with an HTTP version and three digits (section 4)")]
    StatusLine,
    #[error("a line feed without a carriage return before it (section 2.2)")]
    BareLineFeed,
    #[error("a carriage return without a line feed after it (section 2.2)")]
    BareCarriageReturn,
    #[error("a NUL byte (RFC 9110 section 5.5)")]
    Nul,
    #[error("a field continued on a second line (section 5.2)")]
    FoldedLine,
    #[error("a byte that may not stand in a field's name (section 5.1)")]
    FieldName,
    #[error("white space between a field's name and its colon (section 5.1)")]
    SpaceBeforeColon,
    #[error("a field without a name (section 5.1)")]
    EmptyFieldName,
    #[error("a field without a colon (section 5.1)")]
    NoColon,
    #[error("more fields than are allowed (`tune.http.maxhdr`)")]
    TooManyFields,
    #[error("a head larger than the buffer (`tune.bufsize` without `tune.maxrewrite`)")]
    TooLarge,
    #[error("a Content-Length that is not a number of bytes (section 6.2)")]
    ContentLength,
    #[error("two Content-Lengths that differ (section 6.3)")]
    ContentLengthsDiffer,
    #[error("a Transfer-Encoding that does not end in `chunked`, once (section 6.1)")]
    TransferEncoding,
    #[error("a transfer coding other than `chunked` (section 6.1)")]
    UnsupportedCoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message (section 6.1)")]
    TransferEncodingInHttp10,
    #[error("no Host in an HTTP/1.1 request (section 3.2)")]
    NoHost,
    #[error("two Hosts that differ (section 3.2)")]
    HostsDiffer,
    #[error("a Host that is not the one of the request target (section 3.2.2)")]
    HostMismatch,
    #[error("a WebSocket handshake without its key (RFC 6455 section 4)")]
    WebSocketKey,
    #[error(
        "101 Switching Protocols that was not asked for, or does not say to what (RFC 9110 section 15.2.2)"
    )]
    UnexpectedUpgrade,
    #[error("a chunk size that is not a hexadecimal number, or too large (section 7.1)")]
    ChunkSize,
    #[error("a byte that may not stand in a chunk extension (section 7.1.1)")]
    ChunkExtension,
    #[error("chunk extensions larger than is allowed")]
    ChunkExtensionTooLarge,
    #[error("no CR LF where a chunk ends (section 7.1)")]
    ChunkEnd,
    #[error("a field that may not stand in a trailer section (RFC 9110 section 6.5.1)")]
    ForbiddenTrailer,
}
