//! Heads of requests.

use super::Limits;
use super::codes::{blank_len, token_len};
use super::fault::{BadMessage, Fault};
use super::fields::{Line, Progress, Tolerance, line_end, read_line};
use super::framing::{
    Announced, ConnectionOptions, Fate, Framing, apply, connection, list, too_heavy, trailers_only,
};
use super::target;
use crate::http::{FieldIndex, Method, RequestHead, Version};
use std::ops::Range;

/// What a request's head says beside its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedRequest {
    /// Bytes of the head, with empty lines before it: where the body begins.
    pub head_len: usize,
    /// Place of the request line, without its end (`%r`).
    pub line: Range<usize>,
    /// How the body is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// The client's connection can take another request after this one: its version, its `connection` fields, and
    /// whether the framing was in doubt (Content-Length beside Transfer-Encoding, RFC 9112 section 6.1).
    pub keep_alive: bool,
    /// `Expect: 100-continue`: the client may wait with the body.
    pub expect_continue: bool,
    /// What the client asks to go over to.
    pub upgrade: Upgrade,
}

/// `Connection: upgrade` and `Upgrade` of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upgrade {
    /// Not asked for.
    #[default]
    None,
    /// `connection` says `upgrade`, and no field says to what (or it went, because the request has a body).
    Unnamed,
    /// Asked for.
    Named,
    /// Asked for, to `websocket`: the answer must carry the handshake's second half.
    WebSocket,
}

/// Reads one request head; keeps its place between arrivals. Make a new one for each request.
#[derive(Clone, Debug, Default)]
pub struct RequestParser {
    progress: Progress,
    line: Option<Range<usize>>,
    announced: Announced,
    options: ConnectionOptions,
    host: Option<FieldIndex>,
    coding_at: usize,
    upgrade: bool,
    websocket: bool,
    websocket_key: bool,
    expect_continue: bool,
    fields: bool,
}

/// Reads a head from bytes that do not grow, see [`RequestParser::parse`].
pub fn parse_request(
    bytes: &[u8],
    limits: &Limits,
    lenient: bool,
    head: &mut RequestHead,
) -> Result<Option<ParsedRequest>, BadMessage> {
    RequestParser::default().parse(bytes, limits, lenient, head)
}

impl RequestParser {
    /// Reads on. `bytes` begin with the same bytes as before and have grown; `head` is the one of the call before.
    /// `None`: the head is incomplete. `lenient` is `option accept-invalid-http-request`: a second byte class for
    /// names and targets, bare line feeds, folded lines, NUL, any version, no Host or another one; what frames the
    /// message is checked all the same.
    ///
    /// # Errors
    /// A head that is refused, or is larger than `limits` before it is complete. The parser is used up then.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        lenient: bool,
        head: &mut RequestHead,
    ) -> Result<Option<ParsedRequest>, BadMessage> {
        let tolerance = if lenient { Tolerance::LENIENT } else { Tolerance::default() };
        let complete = loop {
            if !self.progress.worth_reading(bytes, tolerance.folded && self.fields) {
                break false;
            }
            if !self.fields {
                match self.first_line(bytes, tolerance, head)? {
                    FirstLine::Incomplete => break false,
                    FirstLine::Read => continue,
                    FirstLine::Http09 => break true,
                }
            }
            match read_line(bytes, self.progress.line, tolerance, &mut head.fields)? {
                Line::Incomplete => break false,
                Line::End(next) => {
                    self.progress.advance(next);
                    break true;
                }
                Line::Field { value, next } => {
                    self.interpret(value, head)?;
                    if head.fields.len() > limits.fields {
                        return Err(BadMessage::new(Fault::TooManyFields, self.progress.line));
                    }
                    self.progress.advance(next);
                }
            }
        };
        if complete {
            return self.complete(limits, lenient, head).map(Some);
        }
        self.progress.wait(bytes);
        if bytes.len() > limits.head {
            return Err(BadMessage::new(Fault::TooLarge, limits.head));
        }
        Ok(None)
    }

    /// An empty line before the request, or the request line.
    fn first_line(
        &mut self,
        bytes: &[u8],
        tolerance: Tolerance,
        head: &mut RequestHead,
    ) -> Result<FirstLine, BadMessage> {
        let start = self.progress.line;
        if matches!(bytes[start], b'\r' | b'\n') {
            let Some(next) = line_end(bytes, start, tolerance.bare_line_feed)? else {
                return Ok(FirstLine::Incomplete);
            };
            self.progress.advance(next);
            return Ok(FirstLine::Read);
        }
        let method_end = start + token_len(&bytes[start..]);
        match bytes.get(method_end) {
            None => return Ok(FirstLine::Incomplete),
            Some(b' ' | b'\t') if method_end > start => {}
            Some(_) => return Err(BadMessage::new(Fault::Method, method_end)),
        }
        let target_start = method_end + blank_len(&bytes[method_end..]);
        let target_end = target_start + target_len(&bytes[target_start..], tolerance);
        let version_start = target_end + blank_len(&bytes[target_end..]);
        let version_len = bytes[version_start..].iter().position(|byte| !is_version_byte(*byte));
        let Some(stop) = version_len.map(|len| version_start + len) else { return Ok(FirstLine::Incomplete) };
        if !matches!(bytes[target_end], b' ' | b'\t' | b'\r' | b'\n') || target_start == target_end {
            return Err(BadMessage::new(Fault::Target, target_end));
        }
        if !matches!(bytes[stop], b'\r' | b'\n') {
            return Err(BadMessage::new(Fault::Version, stop));
        }
        let Some(next) = line_end(bytes, stop, tolerance.bare_line_feed)? else {
            return Ok(FirstLine::Incomplete);
        };
        head.clear();
        head.method = Method::new(&bytes[start..method_end]);
        head.target.extend_from_slice(&bytes[target_start..target_end]);
        self.line = Some(start..stop);
        self.fields = true;
        self.progress.advance(next);
        let version = &bytes[version_start..stop];
        head.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            b"" if !tolerance.odd_names || head.method != Method::Get => {
                return Err(BadMessage::new(Fault::NoVersion, stop));
            }
            b"" => {
                head.version = Version::Http10;
                return Ok(FirstLine::Http09);
            }
            _ if !tolerance.odd_names => return Err(BadMessage::new(Fault::Version, version_start)),
            // As HAProxy reads it: one digit each side of the dot, from 1.1 up.
            [_, _, _, _, b'/', major, b'.', minor] if (*major, *minor) >= (b'1', b'1') => Version::Http11,
            _ => Version::Http10,
        };
        Ok(FirstLine::Read)
    }

    /// What the field that was just appended means for the message.
    fn interpret(&mut self, value_at: usize, head: &mut RequestHead) -> Result<(), BadMessage> {
        let index = head.fields.len() - 1;
        let Some((name, value)) = head.fields.at(index) else { return Ok(()) };
        let bad = |fault| BadMessage::new(fault, value_at);
        let fate = match name {
            b"host" => match self.host.and_then(|first| head.fields.at(first)) {
                None => {
                    self.host = Some(index);
                    Fate::Keep
                }
                Some((_, first)) if first.eq_ignore_ascii_case(value) => Fate::Drop,
                Some(_) => return Err(bad(Fault::HostsDiffer)),
            },
            b"content-length" => self.announced.content_length(value).map_err(bad)?,
            b"transfer-encoding" => {
                self.coding_at = value_at;
                self.announced.transfer_encoding(value).map_err(bad)?
            }
            b"connection" => connection(value, &mut self.options),
            b"te" => trailers_only(value),
            b"upgrade" => {
                self.upgrade = true;
                self.websocket |= list(value).any(|item| item.eq_ignore_ascii_case(b"websocket"));
                Fate::Keep
            }
            b"sec-websocket-key" => {
                self.websocket_key = true;
                Fate::Keep
            }
            b"expect" => {
                self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
                Fate::Keep
            }
            _ => Fate::Keep,
        };
        apply(fate, index, &mut head.fields);
        Ok(())
    }

    fn complete(
        &self,
        limits: &Limits,
        lenient: bool,
        head: &mut RequestHead,
    ) -> Result<ParsedRequest, BadMessage> {
        let line = self.line.clone().unwrap_or_default();
        if self.progress.line > limits.head || too_heavy(line.len(), &head.fields, limits.head) {
            return Err(BadMessage::new(Fault::TooLarge, self.progress.line));
        }
        let at_target = BadMessage::new(Fault::TargetForm, line.start + head.method.as_bytes().len() + 1);
        self.check_target(lenient, head).map_err(|fault| BadMessage { fault, ..at_target })?;
        let (framing, doubtful) = self.framing(lenient, head)?;
        let upgrade = match (self.options.upgrade, self.upgrade && framing.is_empty()) {
            (true, true) if self.websocket => Upgrade::WebSocket,
            (true, true) => Upgrade::Named,
            (true, false) => Upgrade::Unnamed,
            (false, _) => Upgrade::None,
        };
        if upgrade == Upgrade::WebSocket && !self.websocket_key && !lenient {
            return Err(BadMessage::new(Fault::WebSocketKey, self.progress.line));
        }
        if upgrade == Upgrade::Unnamed && self.upgrade {
            head.fields.remove(b"upgrade");
        }
        Ok(ParsedRequest {
            head_len: self.progress.line,
            line,
            framing,
            keep_alive: !doubtful
                && !self.options.close
                && (head.version == Version::Http11 || self.options.keep_alive),
            expect_continue: self.expect_continue && head.version == Version::Http11 && !framing.is_empty(),
            upgrade,
        })
    }

    fn check_target(&self, lenient: bool, head: &mut RequestHead) -> Result<(), Fault> {
        if self.host.is_none() && head.version == Version::Http11 && !lenient {
            return Err(Fault::NoHost);
        }
        if !lenient {
            target::check_form(&head.method, &head.target)?;
        }
        let host = self.host.and_then(|index| head.fields.at(index)).map(|(_, value)| value);
        match target::agree(&head.method, &mut head.target, host) {
            Ok(Some(host)) => {
                if let Some(index) = self.host {
                    head.fields.replace(index, &host);
                }
            }
            Ok(None) => {}
            Err(_) if lenient => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// The framing, and whether a peer could have seen another one.
    fn framing(&self, lenient: bool, head: &mut RequestHead) -> Result<(Framing, bool), BadMessage> {
        if let Some(fault) = self.announced.coding_fault() {
            return Err(BadMessage::new(fault, self.coding_at));
        }
        if head.method == Method::Connect {
            // It has no body: what follows is the tunnel's, or the next request (RFC 9110 section 9.3.6). Whoever
            // announces one all the same may mean something else.
            let announced = self.announced.coded || self.announced.length.is_some();
            if announced {
                head.fields.retain(|name, _| name != b"content-length" && name != b"transfer-encoding");
            }
            return Ok((Framing::None, announced));
        }
        if !self.announced.coded {
            return Ok((self.announced.length.map_or(Framing::None, Framing::Length), false));
        }
        let old = head.version == Version::Http10;
        if old && !lenient {
            return Err(BadMessage::new(Fault::TransferEncodingInHttp10, self.coding_at));
        }
        if old {
            // Whoever reads it next must take the chunks for chunks.
            head.version = Version::Http11;
        }
        // Transfer-Encoding wins, the other goes, and nothing more is read from this connection.
        let both = self.announced.length.is_some();
        if both {
            head.fields.remove(b"content-length");
        }
        Ok((Framing::Chunked, both || old))
    }
}

enum FirstLine {
    Incomplete,
    Read,
    /// A lenient parser met `GET /path` without a version: the head is complete.
    Http09,
}

fn target_len(bytes: &[u8], tolerance: Tolerance) -> usize {
    let allowed = |byte: u8| match byte {
        b'#' | 0x7f.. => tolerance.odd_names,
        byte => byte > b' ',
    };
    bytes.iter().position(|byte| !allowed(*byte)).unwrap_or(bytes.len())
}

fn is_version_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'/' | b'.')
}
