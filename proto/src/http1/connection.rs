//! What is said of connections to the next hop, and whether they live on: the fields that HAProxy 2.6 adds, byte for
//! byte. What concerns one hop only has gone on arrival ([`super::RequestParser`]); fields that `connection` names are
//! passed on with it, as HAProxy does.

use super::framing::Framing;
use super::request::{ParsedRequest, Upgrade};
use super::response::ParsedResponse;
use crate::http::{RequestHead, ResponseHead, Version};

/// How connections are used: `option http-keep-alive`, `http-server-close`, `httpclose` (4.2 of the manual).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Both sides are kept.
    #[default]
    KeepAlive,
    /// The client's is kept, the server's serves one request.
    ServerClose,
    /// Both serve one request.
    Close,
}

/// Makes a request ready for its server. Call it last, after all rules.
pub fn prepare_request(head: &mut RequestHead, upgrade: Upgrade, mode: Mode) {
    if upgrade != Upgrade::None {
        return; // `connection: upgrade` must stay the only one
    }
    match (mode, head.version) {
        (Mode::KeepAlive, Version::Http10) => head.fields.push(b"connection", b"keep-alive"),
        (Mode::ServerClose | Mode::Close, Version::Http11) => head.fields.push(b"connection", b"close"),
        _ => {}
    }
}

/// The client's side of an exchange, as far as the answer depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// Version of its request.
    pub version: Version,
    /// Its connection may take another request: what its request said, the mode, and whatever else the caller knows
    /// (a soft stop, a request body that is not going to be read).
    pub keep_alive: bool,
}

impl Client {
    /// Of a request. `version` is that of the head as it arrived.
    pub fn new(version: Version, parsed: &ParsedRequest, mode: Mode) -> Client {
        Client { version, keep_alive: parsed.keep_alive && mode != Mode::Close }
    }

    /// Whether it may be sent interim (1xx) responses (RFC 9110 section 15.2: not over HTTP/1.0).
    pub fn takes_interim(self) -> bool {
        self.version == Version::Http11
    }
}

/// How an answer is sent to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Framing of the body on the client's connection. [`Framing::None`]: nothing follows the head.
    pub framing: Framing,
    /// The client's connection lives on after the body. Not meaningful for interim responses and tunnels.
    pub keep_alive: bool,
}

/// Makes a response ready for the client. Call it last, after all rules, for each head that is sent to it. A client
/// (or a response) of HTTP/1.0 gets no chunks: its body ends with the connection.
pub fn prepare_response(head: &mut ResponseHead, parsed: &ParsedResponse, client: Client) -> Outgoing {
    if head.status < 200 || head.status == 204 {
        // They frame nothing (RFC 9110 section 8.6).
        head.fields.retain(|name, _| name != b"content-length" && name != b"transfer-encoding");
    }
    if parsed.interim || parsed.tunnel {
        return Outgoing { framing: Framing::None, keep_alive: parsed.interim && client.keep_alive };
    }
    let old = client.version == Version::Http10 || head.version == Version::Http10;
    if old {
        head.fields.remove(b"transfer-encoding");
    }
    let framing = match parsed.framing {
        Framing::Chunked if old => Framing::UntilClose,
        framing => framing,
    };
    let keep_alive = client.keep_alive && framing != Framing::UntilClose;
    match (keep_alive, old, head.version) {
        _ if parsed.upgrade => {}
        (true, true, _) => head.fields.push(b"connection", b"keep-alive"),
        (false, _, Version::Http11) => head.fields.push(b"connection", b"close"),
        _ => {}
    }
    Outgoing { framing, keep_alive }
}
