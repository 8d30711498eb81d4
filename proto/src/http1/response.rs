//! Heads of responses.

use super::Limits;
use super::codes::{blank_len, line_stop};
use super::fault::{BadMessage, Fault};
use super::fields::{Line, Progress, Tolerance, line_end, read_line};
use super::framing::{Announced, ConnectionOptions, Fate, Framing, apply, connection, too_heavy};
use super::request::{ParsedRequest, Upgrade};
use crate::http::{Method, RequestHead, ResponseHead, Version};

/// What a response's meaning depends on: the request as it was sent to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// HEAD: whatever the head says, no body follows.
    pub head: bool,
    /// CONNECT: after a 2xx the connection is a tunnel.
    pub connect: bool,
    /// What was asked to go over to.
    pub upgrade: Upgrade,
}

impl Asked {
    /// Of a request.
    pub fn new(head: &RequestHead, parsed: &ParsedRequest) -> Asked {
        Asked {
            head: head.method == Method::Head,
            connect: head.method == Method::Connect,
            upgrade: parsed.upgrade,
        }
    }
}

/// What a response's head says beside its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    /// Bytes of the head: where the body begins.
    pub head_len: usize,
    /// How the body is delimited. [`Framing::None`] for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// The server's connection can take another request after this body.
    pub keep_alive: bool,
    /// 1xx but 101: another head follows, the answer is still to come.
    pub interim: bool,
    /// 101 or a 2xx to CONNECT: what follows is no HTTP, in both directions.
    pub tunnel: bool,
    /// `connection` says `upgrade`.
    pub upgrade: bool,
    /// It answers HEAD: no body follows, whatever status rules give it.
    pub to_head: bool,
}

/// Reads one response head; keeps its place between arrivals. Make a new one for each head.
#[derive(Clone, Debug, Default)]
pub struct ResponseParser {
    progress: Progress,
    announced: Announced,
    options: ConnectionOptions,
    line_len: usize,
    coding_at: usize,
    upgrade: bool,
    accept: bool,
    fields: bool,
}

/// Reads a head from bytes that do not grow, see [`ResponseParser::parse`].
pub fn parse_response(
    bytes: &[u8],
    limits: &Limits,
    lenient: bool,
    asked: Asked,
    head: &mut ResponseHead,
) -> Result<Option<ParsedResponse>, BadMessage> {
    ResponseParser::default().parse(bytes, limits, lenient, asked, head)
}

impl ResponseParser {
    /// Reads on, see [`super::RequestParser::parse`]. Bare line feeds and folded lines of servers are taken as HAProxy
    /// takes them (they are written properly to the client); `lenient` (`option accept-invalid-http-response`) also
    /// lets NUL and odd names pass.
    ///
    /// # Errors
    /// A head that is refused, or is larger than `limits` before it is complete.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        lenient: bool,
        asked: Asked,
        head: &mut ResponseHead,
    ) -> Result<Option<ParsedResponse>, BadMessage> {
        let tolerance = if lenient { Tolerance::LENIENT } else { Tolerance::RESPONSE };
        while self.progress.worth_reading(bytes, self.fields) {
            if !self.fields {
                if self.first_line(bytes, tolerance, head)? {
                    continue;
                }
                break;
            }
            match read_line(bytes, self.progress.line, tolerance, &mut head.fields)? {
                Line::Incomplete => break,
                Line::End(next) => {
                    self.progress.advance(next);
                    return self.complete(limits, asked, head).map(Some);
                }
                Line::Field { value, next } => {
                    self.interpret(value, head)?;
                    if head.fields.len() > limits.fields {
                        return Err(BadMessage::new(Fault::TooManyFields, self.progress.line));
                    }
                    self.progress.advance(next);
                }
            }
        }
        self.progress.wait(bytes);
        if bytes.len() > limits.head {
            return Err(BadMessage::new(Fault::TooLarge, limits.head));
        }
        Ok(None)
    }

    /// An empty line before the response, or the status line; whether it was complete.
    fn first_line(
        &mut self,
        bytes: &[u8],
        tolerance: Tolerance,
        head: &mut ResponseHead,
    ) -> Result<bool, BadMessage> {
        let start = self.progress.line;
        if matches!(bytes[start], b'\r' | b'\n') {
            let next = line_end(bytes, start, true)?;
            self.progress.advance(next.unwrap_or(start));
            return Ok(next.is_some());
        }
        let line = &bytes[start..];
        // A peer that speaks something else is known by its first bytes: nothing more is waited for.
        if line.iter().zip(b"HTTP/").any(|(found, wanted)| found != wanted) {
            return Err(BadMessage::new(Fault::StatusLine, start));
        }
        let mut stop = line_stop(line);
        while tolerance.nul && line.get(stop) == Some(&0) {
            stop += 1;
            stop += line_stop(&line[stop..]);
        }
        let Some(next) = line_end(bytes, start + stop, true)? else { return Ok(false) };
        let line = &line[..stop];
        let bad = BadMessage::new(Fault::StatusLine, start);
        let (version, rest) = line.split_at_checked(8).ok_or(bad)?;
        head.clear();
        head.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            // As HAProxy reads and writes it: one digit each side of the dot, from 1.1 up it is 1.1.
            [.., major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                if (*major, *minor) >= (b'1', b'1') { Version::Http11 } else { Version::Http10 }
            }
            _ => return Err(BadMessage::new(Fault::Version, start)),
        };
        let blanks = blank_len(rest);
        let (digits, reason) = rest[blanks..].split_at_checked(3).ok_or(bad)?;
        if blanks == 0 || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return Err(bad);
        }
        let after = blank_len(reason);
        if after == 0 && !reason.is_empty() {
            return Err(bad);
        }
        head.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        head.reason.extend_from_slice(&reason[after..]);
        self.line_len = stop;
        self.fields = true;
        self.progress.advance(next);
        Ok(true)
    }

    fn interpret(&mut self, value_at: usize, head: &mut ResponseHead) -> Result<(), BadMessage> {
        let index = head.fields.len() - 1;
        let Some((name, value)) = head.fields.at(index) else { return Ok(()) };
        let bad = |fault| BadMessage::new(fault, value_at);
        let fate = match name {
            b"content-length" => self.announced.content_length(value).map_err(bad)?,
            b"transfer-encoding" => {
                self.coding_at = value_at;
                self.announced.transfer_encoding(value).map_err(bad)?
            }
            b"connection" => connection(value, &mut self.options),
            b"upgrade" => {
                self.upgrade = true;
                Fate::Keep
            }
            b"sec-websocket-accept" => {
                self.accept = true;
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
        asked: Asked,
        head: &mut ResponseHead,
    ) -> Result<ParsedResponse, BadMessage> {
        if self.progress.line > limits.head || too_heavy(self.line_len, &head.fields, limits.head) {
            return Err(BadMessage::new(Fault::TooLarge, self.progress.line));
        }
        let announced = &self.announced;
        if let Some(fault) = announced.coding_fault() {
            return Err(BadMessage::new(fault, self.coding_at));
        }
        let switches = head.status == 101;
        if switches {
            let named = matches!(asked.upgrade, Upgrade::Named | Upgrade::WebSocket);
            let shaken = asked.upgrade != Upgrade::WebSocket || self.accept;
            if !named || !self.options.upgrade || !self.upgrade || !shaken {
                return Err(BadMessage::new(Fault::UnexpectedUpgrade, self.progress.line));
            }
        }
        let interim = head.status < 200 && !switches;
        let tunnel = switches || asked.connect && (200..300).contains(&head.status);
        // Transfer-Encoding wins (RFC 9112 section 6.3).
        if announced.length.is_some() && announced.coded {
            head.fields.remove(b"content-length");
        }
        let bodiless = interim || switches || head.status == 204;
        let framing = match announced.length {
            _ if tunnel || bodiless || asked.head || head.status == 304 => Framing::None,
            _ if announced.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        let old = head.version == Version::Http10;
        let doubtful = announced.coded && (announced.length.is_some() || old);
        Ok(ParsedResponse {
            head_len: self.progress.line,
            framing,
            keep_alive: !doubtful
                && !tunnel
                && framing != Framing::UntilClose
                && !self.options.close
                && (!old || self.options.keep_alive),
            interim,
            tunnel,
            upgrade: self.options.upgrade,
            to_head: asked.head,
        })
    }
}
