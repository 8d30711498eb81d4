//! Writes a log line. Nothing is allocated but what expressions make.

use super::variable::Variable;
use super::{Flags, LogFormat, Step, Use, moment};
use crate::proxy::config::model::{Mode, ServerAddress};
use crate::proxy::exchange::{Endpoint, Times};
use crate::proxy::expression::Context;
use crate::proxy::expression::fetch::line_words;
use core::net::IpAddr;
use std::time::Instant;

pub(super) fn render(format: &LogFormat, context: &Context<'_>, out: &mut Vec<u8>) {
    out.reserve(256);
    let mut line = Line { context, out, use_: format.use_ };
    let mut last_was_space = true;
    for step in &format.steps {
        let before = line.out.len();
        match step {
            Step::Literal(text) => line.out.extend_from_slice(text),
            Step::Separator => {
                if !last_was_space {
                    line.out.push(b' ');
                }
                last_was_space = true;
                continue;
            }
            Step::Variable(variable, flags) => {
                line.variable(*variable, *flags);
                // Even when it is empty.
                last_was_space &= *variable != Variable::Query;
            }
            Step::Expression(expression, flags) => {
                let value = expression.evaluate(context);
                let text = value.map(super::super::Sample::into_text).unwrap_or_default();
                match line.use_ {
                    Use::Log => line.text(&text, *flags),
                    // HAProxy quotes variables only, not expressions, in what is not a log line.
                    Use::Text => line.bare(&text, *flags, b'%', &CONTROL),
                }
            }
        }
        last_was_space &= line.out.len() == before;
    }
}

struct Line<'l, 'e> {
    context: &'l Context<'e>,
    out: &'l mut Vec<u8>,
    use_: Use,
}

/// Bytes that are encoded.
type Class = [bool; 256];

const fn class(low: &[u8], high: u8, others: &[u8]) -> Class {
    let mut class = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        class[byte] = value >= high && high > 0;
        let mut range = 0;
        while range < low.len() {
            class[byte] |= value >= low[range] && value <= low[range + 1];
            range += 2;
        }
        let mut other = 0;
        while other < others.len() {
            class[byte] |= value == others[other];
            other += 1;
        }
        byte += 1;
    }
    class
}

/// What a header value may not hold (RFC 9110 section 5.5).
static CONTROL: Class = class(&[0, 8, 10, 31, 127, 127], 0, b"");
/// 8.6 of the manual, for request lines.
static UNPRINTABLE: Class = class(&[0, 31], 127, b"\"#");
/// The same for captured headers.
static UNPRINTABLE_IN_HEADER: Class = class(&[0, 31], 127, b"\"#{|}");

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

impl Line<'_, '_> {
    /// Text as it is, quoted or escaped if asked for; `-` when a log line's is missing.
    fn text(&mut self, text: &[u8], flags: Flags) {
        if text.is_empty() && flags.mandatory && !flags.quote {
            self.out.push(b'-');
            return;
        }
        self.quote(flags);
        if flags.escape {
            for byte in text {
                if matches!(byte, b'"' | b'\\' | b']') {
                    self.out.push(b'\\');
                }
                self.out.push(*byte);
            }
        } else {
            self.out.extend_from_slice(text);
        }
        self.quote(flags);
    }

    fn quote(&mut self, flags: Flags) {
        if flags.quote {
            self.out.push(b'"');
        }
    }

    /// Text whose bytes of a class are written as `mark` and two digits.
    fn encoded(&mut self, text: &[u8], flags: Flags, mark: u8, class: &Class) {
        self.quote(flags);
        self.bare(text, flags, mark, class);
        self.quote(flags);
    }

    fn bare(&mut self, text: &[u8], flags: Flags, mark: u8, class: &Class) {
        if flags.escape {
            for byte in text {
                match byte {
                    b'"' | b'\\' | b']' => self.out.extend([b'\\', *byte]),
                    _ if class[usize::from(*byte)] && *byte != b'"' => self.byte(mark, *byte),
                    _ => self.out.push(*byte),
                }
            }
            return;
        }
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| class[usize::from(*byte)]) {
            self.out.extend_from_slice(&rest[..at]);
            self.byte(mark, rest[at]);
            rest = &rest[at + 1..];
        }
        self.out.extend_from_slice(rest);
    }

    fn byte(&mut self, mark: u8, byte: u8) {
        self.out.extend([mark, DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }

    fn number(&mut self, value: impl Into<i64>) {
        push_number(self.out, value.into());
    }

    fn unsigned(&mut self, value: u64) {
        push_number(self.out, i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// At least four digits.
    fn hexadecimal(&mut self, value: u64) {
        let mut shift = 60;
        while shift > 12 && value >> shift == 0 {
            shift -= 4;
        }
        loop {
            self.out.push(DIGITS[usize::try_from(value >> shift & 15).unwrap_or(0)]);
            if shift == 0 {
                break;
            }
            shift -= 4;
        }
    }

    fn number_or_hexadecimal(&mut self, value: u64, flags: Flags) {
        if flags.hexadecimal { self.hexadecimal(value) } else { self.unsigned(value) }
    }

    fn variable(&mut self, variable: Variable, flags: Flags) {
        let context = self.context;
        let exchange = context.exchange;
        let (session, times, counts) = (&exchange.session, &exchange.times, &exchange.counts);
        match variable {
            Variable::ClientIp => self.ip(session.client, flags),
            Variable::ClientPort => self.port(session.client, flags),
            Variable::FrontendIp => self.ip(session.local, flags),
            Variable::FrontendPort => self.port(session.local, flags),
            Variable::ServerIp | Variable::ServerPort => self.server_address(variable, flags),
            Variable::Frontend | Variable::FrontendTransport => {
                self.text(context.frontend().map_or(b"", |proxy| proxy.name.as_bytes()), flags);
            }
            Variable::Backend => {
                self.text(context.backend().map_or(b"", |proxy| proxy.name.as_bytes()), flags)
            }
            Variable::Server => self.server(flags),
            Variable::Mode => {
                let http = context.frontend().is_some_and(|proxy| proxy.mode == Mode::Http);
                self.text(if http { b"HTTP" } else { b"TCP" }, flags);
            }
            Variable::RequestCookie => self.text(exchange.cookies.0.as_deref().unwrap_or_default(), flags),
            Variable::ResponseCookie => self.text(exchange.cookies.1.as_deref().unwrap_or_default(), flags),
            Variable::Hostname => {
                let name = rustix::system::uname();
                self.text(name.nodename().to_bytes(), flags);
            }
            Variable::UniqueId => self.text(exchange.unique_id.as_deref().unwrap_or_default(), flags),
            Variable::Status => match exchange.response.status {
                0 => self.number(-1),
                status => self.number(status),
            },
            Variable::BytesOut => self.early_unsigned(counts.bytes_out),
            Variable::BytesIn => self.unsigned(counts.bytes_in),
            Variable::Active => self.number(counts.active),
            Variable::FrontendActive => self.number(counts.frontend_active),
            Variable::BackendActive => self.number(counts.backend_active),
            Variable::ServerActive => self.number(counts.server_active),
            Variable::ServerQueue => self.number(counts.server_queue),
            Variable::BackendQueue => self.number(counts.backend_queue),
            Variable::Retries => {
                if counts.redispatched {
                    self.out.push(b'+');
                }
                self.number(counts.retries);
            }
            Variable::Pid => self.number_or_hexadecimal(std::process::id().into(), flags),
            Variable::Counter => self.number_or_hexadecimal(exchange.number, flags),
            Variable::Ending | Variable::EndingWithCookies => self.ending(variable),
            Variable::RequestCaptures => self.captures(&exchange.request_captures, true, flags),
            Variable::ResponseCaptures => self.captures(&exchange.response_captures, false, flags),
            Variable::RequestCaptureList => self.capture_list(&exchange.request_captures, true, flags),
            Variable::ResponseCaptureList => self.capture_list(&exchange.response_captures, false, flags),
            Variable::Method
            | Variable::UriWithoutQuery
            | Variable::PathOnly
            | Variable::Query
            | Variable::Uri
            | Variable::Version
            | Variable::RequestLine => self.request_line(variable, flags),
            Variable::AcceptDate
            | Variable::AcceptDateGmt
            | Variable::AcceptDateLocal
            | Variable::RequestDate
            | Variable::RequestDateGmt
            | Variable::RequestDateLocal
            | Variable::AcceptSeconds
            | Variable::AcceptMilliseconds => self.date(variable, flags),
            _ => self.duration(variable, times),
        }
    }

    fn ip(&mut self, endpoint: Endpoint, flags: Flags) {
        match endpoint {
            Endpoint::Tcp(address) => self.address(address.ip().to_canonical(), flags),
            Endpoint::Unix => self.text(b"unix", flags),
        }
    }

    fn address(&mut self, address: IpAddr, flags: Flags) {
        match address {
            _ if flags.hexadecimal => match address {
                IpAddr::V4(address) => address.octets().iter().for_each(|byte| self.pair(*byte)),
                IpAddr::V6(address) => address.octets().iter().for_each(|byte| self.pair(*byte)),
            },
            IpAddr::V4(address) => {
                self.quote(flags);
                for (place, byte) in address.octets().into_iter().enumerate() {
                    if place > 0 {
                        self.out.push(b'.');
                    }
                    self.number(byte);
                }
                self.quote(flags);
            }
            IpAddr::V6(address) => self.text(address.to_string().as_bytes(), flags),
        }
    }

    fn pair(&mut self, byte: u8) {
        self.out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }

    fn port(&mut self, endpoint: Endpoint, flags: Flags) {
        match endpoint {
            Endpoint::Tcp(address) => self.number_or_hexadecimal(address.port().into(), flags),
            Endpoint::Unix => {
                let bind = self
                    .context
                    .frontend()
                    .and_then(|proxy| proxy.binds.get(self.context.exchange.session.bind));
                self.number(bind.map_or(0, |bind| bind.id));
            }
        }
    }

    fn server_address(&mut self, variable: Variable, flags: Flags) {
        let known = self.context.server().and_then(|server| match &server.address {
            ServerAddress::Tcp { at, .. } => Some(*at),
            _ => None,
        });
        match (known, variable) {
            (Some(address), Variable::ServerIp) => self.address(address.ip().to_canonical(), flags),
            (Some(address), _) => self.number_or_hexadecimal(address.port().into(), flags),
            (None, _) => self.text(b"", flags),
        }
    }

    fn server(&mut self, flags: Flags) {
        let route = &self.context.exchange.route;
        match (self.context.server(), route.service) {
            (_, Some(service)) => self.text(service.as_bytes(), flags),
            (Some(server), None) => self.text(server.name.as_bytes(), flags),
            (None, None) => self.text(b"<NOSRV>", flags),
        }
    }

    /// With `option logasap` what is still growing is marked.
    fn early(&mut self) {
        if self.context.frontend().is_some_and(|proxy| proxy.options.logasap) {
            self.out.push(b'+');
        }
    }

    fn early_unsigned(&mut self, value: u64) {
        self.early();
        self.unsigned(value);
    }

    fn ending(&mut self, variable: Variable) {
        let ending = self.context.exchange.ending;
        self.out.extend([ending.cause, ending.state]);
        if variable == Variable::EndingWithCookies {
            self.out.extend([ending.client_cookie, ending.server_cookie]);
        }
    }

    /// How many captures the frontend declares.
    fn declared(&self, request: bool) -> usize {
        self.context.frontend().map_or(0, |proxy| match request {
            true => proxy.captures.request.len(),
            false => proxy.captures.response.len(),
        })
    }

    /// `{first|second}`; nothing when nothing is declared.
    fn captures(&mut self, list: &[Option<Vec<u8>>], request: bool, flags: Flags) {
        let count = self.declared(request);
        // Of a request that could not be read HAProxy captures nothing, not even emptiness.
        let unread = self.context.exchange.request_line.is_empty()
            && self.context.frontend().is_some_and(|proxy| proxy.mode == Mode::Http);
        if count == 0 || unread {
            return;
        }
        self.quote(flags);
        self.out.push(b'{');
        for place in 0..count {
            if place > 0 {
                self.out.push(b'|');
            }
            if let Some(Some(value)) = list.get(place) {
                self.bare(value, flags, b'#', &UNPRINTABLE_IN_HEADER);
            }
        }
        self.out.push(b'}');
        self.quote(flags);
    }

    /// `"first" "second"`
    fn capture_list(&mut self, list: &[Option<Vec<u8>>], request: bool, flags: Flags) {
        for place in 0..self.declared(request) {
            if place > 0 {
                self.out.push(b' ');
            }
            match list.get(place) {
                Some(Some(value)) => self.encoded(value, flags, b'#', &UNPRINTABLE_IN_HEADER),
                _ if flags.quote => self.out.extend(b"\"\""),
                _ => self.out.push(b'-'),
            }
        }
    }

    /// The request line as received, or a part of it.
    fn request_line(&mut self, variable: Variable, flags: Flags) {
        let line = &self.context.exchange.request_line[..];
        if line.is_empty() {
            return self.encoded(b"<BADREQ>", flags, b'#', &UNPRINTABLE);
        }
        let mut words = line_words(line);
        let (method, target, version) = (words.next(), words.next(), words.next());
        let target = target.unwrap_or_default();
        let mark = target.iter().position(|byte| *byte == b'?');
        let part: &[u8] = match variable {
            Variable::Method => method.unwrap_or_default(),
            Variable::Uri => target,
            Variable::UriWithoutQuery => &target[..mark.unwrap_or(target.len())],
            Variable::PathOnly => {
                let path = &target[..mark.unwrap_or(target.len())];
                let authority = memchr::memmem::find(path, b"://").map_or(0, |scheme| scheme + 3);
                path[authority..]
                    .iter()
                    .position(|byte| *byte == b'/')
                    .map_or(b"" as &[u8], |at| &path[authority + at..])
            }
            Variable::Query => mark.map_or(b"", |mark| &target[mark..]),
            Variable::Version => version.unwrap_or(b"HTTP/0.9"),
            _ => line,
        };
        self.encoded(part, flags, b'#', &UNPRINTABLE);
    }

    fn date(&mut self, variable: Variable, flags: Flags) {
        let exchange = self.context.exchange;
        let (accepted, started) = (exchange.session.accepted, exchange.times.request_started);
        match variable {
            Variable::AcceptDate => moment::with_milliseconds(accepted, self.out),
            Variable::AcceptDateGmt => moment::with_zone(accepted, true, self.out),
            Variable::AcceptDateLocal => moment::with_zone(accepted, false, self.out),
            Variable::RequestDate => moment::with_milliseconds(started, self.out),
            Variable::RequestDateGmt => moment::with_zone(started, true, self.out),
            Variable::RequestDateLocal => moment::with_zone(started, false, self.out),
            Variable::AcceptSeconds => {
                self.number_or_hexadecimal(moment::split(accepted).0.unsigned_abs(), flags);
            }
            _ => {
                let milliseconds = moment::split(accepted).1;
                if flags.hexadecimal {
                    return self.pair_of(milliseconds);
                }
                let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
                self.out.extend([digit(milliseconds / 100), digit(milliseconds / 10), digit(milliseconds)]);
            }
        }
    }

    /// At least two digits.
    fn pair_of(&mut self, value: u32) {
        if value > 0xff {
            self.out.push(DIGITS[usize::try_from(value >> 8 & 15).unwrap_or(0)]);
        }
        self.pair(u8::try_from(value & 0xff).unwrap_or(0));
    }

    /// 8.4 of the manual: -1 for what was not reached.
    fn duration(&mut self, variable: Variable, times: &Times) {
        let start = times.request_started_at;
        let since = |moment: Option<Instant>| moment.map(|moment| milliseconds(start, moment));
        let (head, dequeued) = (since(times.request_head), since(times.dequeued));
        let (connected, answered) = (since(times.connected), since(times.response_head));
        let ended = since(times.ended).unwrap_or_default();
        let idle = i64::try_from(times.idle.as_millis()).unwrap_or(i64::MAX);
        let between = |from: Option<i64>, to: Option<i64>| to.map_or(-1, |to| to - from.unwrap_or(0));
        match variable {
            Variable::Handshake => self.number(0),
            Variable::Idle => self.number(idle),
            Variable::RequestTime => self.number(head.unwrap_or(-1)),
            Variable::AllRequestTime => self.number(head.map_or(-1, |head| head + idle)),
            Variable::QueueTime => self.number(between(head, dequeued)),
            Variable::ConnectTime => self.number(between(dequeued, connected)),
            Variable::ResponseTime => self.number(between(connected, answered)),
            Variable::DataTime => self.number(answered.map_or(-1, |answered| ended - answered)),
            Variable::ActiveTime => {
                self.early();
                self.number(ended);
            }
            Variable::TotalTime => {
                self.early();
                self.number(ended + idle);
            }
            _ => {
                self.early();
                self.number(ended);
            }
        }
    }
}

fn milliseconds(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

/// Decimal digits without an allocation.
fn push_number(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
