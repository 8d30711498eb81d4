//! Clients that stay with their server (4.2 `cookie`): finding the cookie in a request and taking it out, putting it into an
//! answer. Pure. All forms are HAProxy 2.6's; `cookie_tests` compares with what it did.
//!
//! ```text
//! insert, rewrite, passive   NAME=SERVER  or, with maxidle or maxlife,  NAME=SERVER|LAST[|FIRST]
//! prefix                     NAME=SERVER~WHAT THE SERVER SET
//! ```
//! LAST and FIRST are dates: five base64 digits that count units of four seconds since 1970.

use super::config::model::{CookieKind, CookiePolicy, ServerIndex};
use super::crumbs::{self, Crumb};
use ehpc_proto::http::{FieldIndex, Fields, Method};
use smallvec::SmallVec;
use std::time::Duration;

/// A date far ahead is believed up to one day: clocks that were set wrong do not expire everybody.
const BELIEVED_AHEAD: u64 = 86_400;

/// What a backend does with cookies; made once when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cookies {
    policy: CookiePolicy,
    /// A server each; `None`: it has no cookie.
    servers: Vec<Option<Vec<u8>>>,
}

/// Whether a client may have the server that its cookie names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is up.
    Up,
    /// It is down, but `option persist` keeps its clients with it.
    DownButKept,
    /// It is down or in maintenance.
    Down,
}

/// What a request said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Server to take.
    pub server: Option<ServerIndex>,
    /// For the log (`Ending::client_cookie`): `N` no cookie, `I` unknown server, `D` its server is down, `V` valid, `E` idle for
    /// too long, `O` too old.
    pub letter: u8,
    /// Dates in the cookie, seconds since 1970.
    last: Option<u64>,
    first: Option<u64>,
}

/// An answer that is on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'m> {
    /// What the request said.
    pub found: Found,
    /// Server that made the answer.
    pub server: ServerIndex,
    /// What was asked for.
    pub method: &'m Method,
    /// Status of the answer.
    pub status: u16,
    /// Seconds since 1970.
    pub now: u64,
}

impl Default for Found {
    fn default() -> Found {
        Found { server: None, letter: b'N', last: None, first: None }
    }
}

impl Found {
    /// Its server could not be reached and another one was chosen: from now on the cookie counts for nothing.
    pub fn redispatched(&mut self) {
        self.server = None;
        if self.letter == b'V' {
            self.letter = b'D';
        }
    }
}

impl Cookies {
    /// `servers`: the cookie of each server of the backend.
    pub fn new(policy: CookiePolicy, servers: Vec<Option<Vec<u8>>>) -> Cookies {
        Cookies { policy, servers }
    }

    /// Finds the cookie of a request. `insert indirect`: takes it out, `prefix`: takes the server's part out, so that no server
    /// sees it.
    pub fn request(
        &self,
        fields: &mut Fields,
        now: u64,
        standing: impl Fn(ServerIndex) -> Standing,
    ) -> Found {
        let mut found = Found::default();
        let places: SmallVec<[FieldIndex; 4]> = fields.all(b"cookie").map(|(place, _)| place).collect();
        let mut gone: SmallVec<[FieldIndex; 4]> = SmallVec::new();
        for place in places {
            let Some((_, value)) = fields.at(place) else { continue };
            let Some(changed) = self.line(value, &mut found, now, &standing) else { continue };
            if changed.is_empty() {
                gone.push(place);
            } else {
                fields.replace(place, &changed);
            }
        }
        // From behind, so that the places before stay right.
        gone.iter().rev().for_each(|place| fields.remove_at(*place));
        if self.policy.kind == CookieKind::Passive {
            found.letter = b'-';
        }
        found
    }

    /// One `Cookie` line: what becomes of it, `None` if it stays.
    fn line(
        &self,
        value: &[u8],
        found: &mut Found,
        now: u64,
        standing: &impl Fn(ServerIndex) -> Standing,
    ) -> Option<SmallVec<[u8; 256]>> {
        let indirect = self.policy.kind == CookieKind::Insert && self.policy.indirect;
        let mut kept = Kept::default();
        for crumb in crumbs::of_request(value) {
            let own = crumb.name(value) == self.policy.name && crumb.has_value();
            if crumb.is_attribute(value) {
                kept.attribute(value, &crumb);
            } else if !own {
                kept.cookie(value, &crumb);
            } else {
                let content = crumb.value(value);
                let split = self.read(content, found, now, standing);
                if self.policy.kind == CookieKind::Prefix && split < content.len() {
                    kept.shortened(value, &crumb, split + 1);
                } else if indirect {
                    kept.drop_one();
                } else {
                    kept.cookie(value, &crumb);
                }
            }
        }
        kept.finish()
    }

    /// Reads a value; where the server's part ends.
    fn read(
        &self,
        content: &[u8],
        found: &mut Found,
        now: u64,
        standing: &impl Fn(ServerIndex) -> Standing,
    ) -> usize {
        let prefix = self.policy.kind == CookieKind::Prefix;
        let delimiter = if prefix { b'~' } else { b'|' };
        let split = content.iter().position(|byte| *byte == delimiter).unwrap_or(content.len());
        let mut name = &content[..split];
        if !prefix && split < content.len() {
            let dates = &content[split + 1..];
            found.last = date(dates).or(found.last);
            if let Some(bar) = dates.iter().position(|byte| *byte == b'|') {
                found.first = date(&dates[bar + 1..]).or(found.first);
            }
        }
        if passed(found.first, self.policy.maxlife, now) {
            (found.letter, name) = (b'O', b"");
            (found.last, found.first) = (None, None);
        } else if passed(found.last, self.policy.maxidle, now) {
            (found.letter, name) = (b'E', b"");
            (found.last, found.first) = (None, None);
        }
        // Of two cookies the first that names a server wins. No name is no server's.
        if found.server.is_none() && !name.is_empty() {
            self.find(name, found, standing);
        }
        if found.letter == b'N' {
            found.letter = b'I';
        }
        split
    }

    /// The first server with this cookie that is up: several may share one, a backup with its active server.
    fn find(&self, name: &[u8], found: &mut Found, standing: &impl Fn(ServerIndex) -> Standing) {
        let servers = self.servers.iter().enumerate();
        for (server, _) in servers.filter(|(_, cookie)| cookie.as_deref() == Some(name)) {
            match standing(server) {
                Standing::Up => (found.letter, found.server) = (b'V', Some(server)),
                Standing::DownButKept => (found.letter, found.server) = (b'D', Some(server)),
                Standing::Down => {
                    found.letter = b'D';
                    continue;
                }
            }
            return;
        }
    }

    /// Changes the answer's `Set-Cookie` fields as the policy says, and adds one when the client must learn of its server. The
    /// letter for the log (`Ending::server_cookie`): `N` nothing, `I` inserted, `U` updated, `P` the server's was left, `R`
    /// rewritten, `D` deleted. Not for 1xx answers, nor for those that this process makes.
    pub fn answer(&self, fields: &mut Fields, answer: Answer<'_>) -> u8 {
        let direct = answer.found.server == Some(answer.server);
        let own = self.servers.get(answer.server).and_then(|cookie| cookie.as_deref());
        let (letter, provided) = self.change_own(fields, own);
        if !self.must_tell(&answer, direct, provided) {
            return if self.policy.kind == CookieKind::Passive { b'-' } else { letter };
        }
        let cacheable = self.policy.nocache && is_cacheable(fields, answer.method, answer.status);
        fields.push(b"set-cookie", &self.set_cookie(own, &answer));
        if cacheable {
            // HTTP/1.0 caches would hand this client's server to everybody.
            fields.push(b"cache-control", b"private");
        }
        if own.is_some() && direct { b'U' } else { b'I' }
    }

    /// What happens to cookies of this name that the server sets; the log's letter, and whether there was one.
    fn change_own(&self, fields: &mut Fields, own: Option<&[u8]>) -> (u8, bool) {
        let mut letter = b'N';
        let mut gone: SmallVec<[FieldIndex; 4]> = SmallVec::new();
        let places: SmallVec<[FieldIndex; 4]> = fields.all(b"set-cookie").map(|(place, _)| place).collect();
        for place in places {
            let Some((_, value)) = fields.at(place) else { continue };
            let Some(crumb) = crumbs::of_response(value) else { continue };
            if !crumb.has_value() {
                continue;
            }
            let policy = &self.policy;
            if crumb.name(value) != policy.name {
                if let Some(changed) = tight(value, &crumb) {
                    fields.replace(place, &changed);
                }
                continue;
            }
            letter = b'P';
            let (own, end) = match (policy.kind, own) {
                (CookieKind::Insert, _) if !policy.preserve => {
                    gone.push(place);
                    letter = b'D';
                    continue;
                }
                (CookieKind::Rewrite, Some(own)) => (own, crumb.value.end),
                (CookieKind::Prefix, Some(own)) => (own, crumb.value.start),
                _ => {
                    if let Some(changed) = tight(value, &crumb) {
                        fields.replace(place, &changed);
                    }
                    continue;
                }
            };
            let mut changed: SmallVec<[u8; 256]> = SmallVec::new();
            changed.extend_from_slice(crumb.name(value));
            changed.push(b'=');
            changed.extend_from_slice(own);
            if policy.kind == CookieKind::Prefix {
                changed.push(b'~');
            }
            changed.extend_from_slice(&value[end..]);
            fields.replace(place, &changed);
            letter = b'R';
        }
        gone.iter().rev().for_each(|place| fields.remove_at(*place));
        (letter, letter != b'N')
    }

    /// Whether the client must be told of its server: it does not know it, or its dates must be renewed.
    fn must_tell(&self, answer: &Answer<'_>, direct: bool, provided: bool) -> bool {
        let policy = &self.policy;
        let found = &answer.found;
        let renew = (policy.maxidle.is_some() || found.last.is_some())
            && found.last.is_none_or(|last| last < answer.now);
        let life = policy.maxlife.is_some() != found.first.is_some();
        policy.kind == CookieKind::Insert
            && !(provided && policy.preserve)
            && (!direct || renew || life)
            && (!policy.postonly || *answer.method == Method::Post)
    }

    fn set_cookie(&self, own: Option<&[u8]>, answer: &Answer<'_>) -> SmallVec<[u8; 256]> {
        let policy = &self.policy;
        let mut text: SmallVec<[u8; 256]> = SmallVec::new();
        text.extend_from_slice(&policy.name);
        text.push(b'=');
        match own {
            // A server without a cookie (a backup, say): what the client had is taken away.
            None => text.extend_from_slice(b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/"),
            Some(own) => {
                text.extend_from_slice(own);
                let now = answer.now.saturating_add(3) >> 2;
                if policy.maxidle.is_some() || policy.maxlife.is_some() {
                    text.push(b'|');
                    text.extend_from_slice(&digits(now));
                }
                if policy.maxlife.is_some() {
                    text.push(b'|');
                    text.extend_from_slice(&digits(answer.found.first.map_or(now, |first| first >> 2)));
                }
                text.extend_from_slice(b"; path=/");
            }
        }
        for domain in &policy.domains {
            text.extend_from_slice(b"; domain=");
            text.extend_from_slice(domain);
        }
        if policy.httponly {
            text.extend_from_slice(b"; HttpOnly");
        }
        if policy.secure {
            text.extend_from_slice(b"; Secure");
        }
        for attribute in &policy.attributes {
            text.extend_from_slice(b"; ");
            text.extend_from_slice(attribute);
        }
        text
    }
}

/// A `Cookie` line as it is put together again; copied only from the first change on.
#[derive(Default)]
struct Kept {
    text: SmallVec<[u8; 256]>,
    /// Something was left out since the last thing that was kept.
    left_out: bool,
    /// The line is no longer as it came.
    changed: bool,
    /// A cookie is in it.
    cookies: bool,
}

impl Kept {
    fn put(&mut self, value: &[u8], crumb: &Crumb) {
        if !self.left_out {
            self.text.extend_from_slice(&value[crumb.start..crumb.name.start]);
        } else if !self.text.is_empty() {
            while self.text.last().is_some_and(|byte| crumbs::is_space(*byte)) {
                self.text.pop();
            }
            self.text.push(value[crumb.start]);
            self.text.push(b' ');
        }
        self.left_out = false;
        self.text.extend_from_slice(crumb.name(value));
        if crumb.has_value() {
            // White space around `=` is dropped, as HAProxy does.
            self.changed |= crumb.name.end + 1 != crumb.value.start;
            self.text.push(b'=');
            self.text.extend_from_slice(&value[crumb.value.start..crumb.end]);
        } else {
            self.text.extend_from_slice(&value[crumb.name.end..crumb.end]);
        }
    }

    fn cookie(&mut self, value: &[u8], crumb: &Crumb) {
        self.cookies = true;
        self.put(value, crumb);
    }

    /// `$Path` and the like belong to the cookie before them.
    fn attribute(&mut self, value: &[u8], crumb: &Crumb) {
        if !self.left_out {
            self.put(value, crumb);
        }
    }

    fn drop_one(&mut self) {
        self.left_out = true;
        self.changed = true;
    }

    /// Our cookie without the first `skip` bytes of its value.
    fn shortened(&mut self, value: &[u8], crumb: &Crumb, skip: usize) {
        let mut shorter = crumb.clone();
        let cut = crumb.value.start + skip;
        shorter.value.start = cut.min(crumb.value.end);
        self.cookies = true;
        self.put(value, &shorter);
        self.changed = true;
    }

    fn finish(self) -> Option<SmallVec<[u8; 256]>> {
        match (self.changed, self.cookies) {
            (false, _) => None,
            (true, true) => Some(self.text),
            // Only our cookie and its attributes were in it: nothing stays.
            (true, false) => Some(SmallVec::new()),
        }
    }
}

/// A `Set-Cookie` without the white space around its `=`; `None` if it has none.
fn tight(value: &[u8], crumb: &Crumb) -> Option<SmallVec<[u8; 256]>> {
    (crumb.name.end + 1 != crumb.value.start).then(|| {
        let mut text = SmallVec::from_slice(&value[..crumb.name.end]);
        text.push(b'=');
        text.extend_from_slice(&value[crumb.value.start..]);
        text
    })
}

/// Whether a date is longer ago than allowed, or so far ahead that it cannot be right.
fn passed(date: Option<u64>, longest: Option<Duration>, now: u64) -> bool {
    let (Some(date), Some(longest)) = (date, longest) else { return false };
    now.saturating_sub(date) > longest.as_secs() || date.saturating_sub(now) > BELIEVED_AHEAD
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Thirty bits as five digits.
fn digits(number: u64) -> [u8; 5] {
    [24, 18, 12, 6, 0].map(|shift| DIGITS[(number >> shift) as usize & 63])
}

/// The date at the beginning of `text`, seconds since 1970. 0 is no date.
fn date(text: &[u8]) -> Option<u64> {
    let digits = text.get(..5)?;
    let value = digits.iter().try_fold(0_u64, |value, byte| {
        DIGITS.iter().position(|digit| digit == byte).map(|digit| value << 6 | digit as u64)
    })?;
    (value > 0).then_some(value << 2)
}

/// Whether a cache may keep an answer (RFC 9111 section 3), as far as HAProxy looks: a safe method and a status that may be
/// kept, or `public`; nothing against it; and something by which its age can be told.
fn is_cacheable(fields: &Fields, method: &Method, status: u16) -> bool {
    let is = |value: &[u8], word: &[u8]| value.eq_ignore_ascii_case(word);
    if fields.get(b"pragma").is_some_and(|value| is(value, b"no-cache")) {
        return false;
    }
    let safe = matches!(method.as_bytes(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
    let by_status = matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 404 | 405 | 410 | 414 | 501);
    let (mut cacheable, mut dated) = (safe && by_status, fields.contains(b"expires"));
    for value in fields.all(b"cache-control").flat_map(|(_, line)| crumbs::list(line)) {
        let begins = |word: &[u8]| value.get(..word.len()).is_some_and(|start| is(start, word));
        if is(value, b"public") {
            cacheable = true;
        } else if FORBIDDING.iter().any(|word| is(value, word)) {
            cacheable = false;
        } else if begins(b"max-age") || begins(b"s-maxage") {
            dated = true;
        }
    }
    cacheable && (dated || fields.contains(b"etag") || fields.contains(b"last-modified"))
}

/// Values of `Cache-Control` that keep caches away.
const FORBIDDING: &[&[u8]] = &[b"private", b"no-cache", b"no-store", b"max-age=0", b"s-maxage=0"];

#[cfg(test)]
#[path = "cookie_tests.rs"]
mod tests;
