//! What is said of connections to the next hop, and whether they live on: the fields that HAProxy 2.6 adds, byte for
//! byte. What concerns one hop only has gone on arrival ([`super::RequestParser`]); fields that `connection` names are
//! passed on with it, as HAProxy does.

use super::framing::{Framing, decimal};
use super::request::{ParsedRequest, Upgrade};
use super::response::ParsedResponse;
use crate::http::{Fields, RequestHead, ResponseHead, Version};

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

/// What the fields of a head say of its framing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// What it is.
    Right,
    /// Nothing, though there is a body.
    Nothing,
    /// Something else: rules have changed them.
    Wrong,
}

/// Whether a field says that a message is framed so; `None`: it says nothing of that.
fn says(name: &[u8], value: &[u8], framing: Framing) -> Option<bool> {
    match (name, framing) {
        (b"content-length", Framing::Length(length)) => Some(decimal(value) == Some(length)),
        (b"transfer-encoding", Framing::Chunked) => Some(value.eq_ignore_ascii_case(b"chunked")),
        (b"content-length" | b"transfer-encoding", _) => Some(false),
        _ => None,
    }
}

fn told(fields: &Fields, framing: Framing) -> Told {
    let (mut right, mut wrong) = (0, 0);
    for (name, value) in fields.iter() {
        match says(name, value, framing) {
            None => {}
            Some(true) => right += 1,
            Some(false) => wrong += 1,
        }
    }
    let silent = matches!(framing, Framing::None | Framing::UntilClose);
    match (right, wrong) {
        (0, 0) if silent => Told::Right,
        (0, 0) => Told::Nothing,
        (1, 0) => Told::Right,
        _ => Told::Wrong,
    }
}

/// Takes away what frames a message.
fn unframe(fields: &mut Fields) {
    fields.retain(|name, _| name != b"content-length" && name != b"transfer-encoding");
}

/// Takes away what frames a message otherwise than it is; whether something is left that says what it is.
fn unframe_but(fields: &mut Fields, framing: Framing) -> bool {
    let mut left = false;
    fields.retain(|name, value| match says(name, value, framing) {
        None => true,
        Some(right) => right && !std::mem::replace(&mut left, true),
    });
    left
}

/// Writes what frames a message.
fn frame(fields: &mut Fields, framing: Framing) {
    match framing {
        Framing::Length(length) => fields.push(b"content-length", length.to_string().as_bytes()),
        Framing::Chunked => fields.push(b"transfer-encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Makes a request ready for its server, and says how its body is sent. Call it last, after all rules. Whatever rules
/// have done to Content-Length and Transfer-Encoding, the server is told what comes: where the length has gone, chunks
/// (HTTP/1.0 has none, and gets the length back); where it was changed, what it was.
pub fn prepare_request(head: &mut RequestHead, parsed: &ParsedRequest, mode: Mode) -> Framing {
    let told = match told(&head.fields, parsed.framing) {
        Told::Nothing if parsed.framing.is_empty() => Told::Right,
        told => told,
    };
    let framing = match (told, parsed.framing) {
        (Told::Nothing, Framing::Length(_)) if head.version == Version::Http11 => Framing::Chunked,
        (_, framing) => framing,
    };
    let right = told == Told::Right || told == Told::Wrong && unframe_but(&mut head.fields, framing);
    match (mode, head.version) {
        _ if parsed.upgrade != Upgrade::None => {} // `connection: upgrade` must stay the only one
        (Mode::KeepAlive, Version::Http10) => head.fields.push(b"connection", b"keep-alive"),
        (Mode::ServerClose | Mode::Close, Version::Http11) => head.fields.push(b"connection", b"close"),
        _ => {}
    }
    if !right {
        frame(&mut head.fields, framing);
    }
    framing
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
/// (or a response) of HTTP/1.0 gets no chunks: its body ends with the connection. Rules may have changed the status, so
/// that there is no body any more, or the fields that frame it: the client is told what comes, as in
/// [`prepare_request`].
pub fn prepare_response(head: &mut ResponseHead, parsed: &ParsedResponse, client: Client) -> Outgoing {
    if head.status < 200 || head.status == 204 {
        // They frame nothing (RFC 9110 section 8.6).
        unframe(&mut head.fields);
    }
    if parsed.interim || parsed.tunnel {
        return Outgoing { framing: Framing::None, keep_alive: parsed.interim && client.keep_alive };
    }
    let old = client.version == Version::Http10 || head.version == Version::Http10;
    if old {
        head.fields.remove(b"transfer-encoding");
    }
    let bodiless = parsed.to_head || head.status < 200 || matches!(head.status, 204 | 304);
    // What a head says that has no body frames nothing.
    let told = if bodiless { Told::Right } else { told(&head.fields, parsed.framing) };
    let (framing, told) = match parsed.framing {
        _ if bodiless => (Framing::None, told),
        // Another status has taken the place of one without a body.
        Framing::None => (if old { Framing::Length(0) } else { Framing::Chunked }, Told::Wrong),
        Framing::Chunked if old => (Framing::UntilClose, Told::Wrong),
        Framing::Length(_) if told == Told::Nothing && old => (Framing::UntilClose, told),
        Framing::Length(_) if told == Told::Nothing => (Framing::Chunked, told),
        framing => (framing, told),
    };
    let right = told == Told::Right || told == Told::Wrong && unframe_but(&mut head.fields, framing);
    let endless = [framing, parsed.framing].contains(&Framing::UntilClose);
    // The server's own field is not among them any more: a rule wrote this one.
    let ended = !parsed.upgrade
        && head.fields.get(b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    if ended {
        head.fields.remove(b"connection");
    }
    let keep_alive = client.keep_alive && !endless && !ended && head.status >= 200;
    match (keep_alive, old, head.version) {
        _ if parsed.upgrade => {}
        (true, true, _) => head.fields.push(b"connection", b"keep-alive"),
        (false, _, Version::Http11) => head.fields.push(b"connection", b"close"),
        _ => {}
    }
    if !right {
        frame(&mut head.fields, framing);
    }
    Outgoing { framing, keep_alive }
}
