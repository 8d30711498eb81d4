//! Start lines: request and response heads.

use super::Fields;

/// HTTP version of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// Request method (RFC 9110 section 9; case matters).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Connect,
    Trace,
    Patch,
    /// Any other token.
    Other(Box<[u8]>),
}

impl Method {
    /// From its bytes on the wire (a token; the caller has checked that).
    pub fn new(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"CONNECT" => Method::Connect,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            other => Method::Other(other.into()),
        }
    }

    /// Its bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Method::Get => b"GET",
            Method::Head => b"HEAD",
            Method::Post => b"POST",
            Method::Put => b"PUT",
            Method::Delete => b"DELETE",
            Method::Options => b"OPTIONS",
            Method::Connect => b"CONNECT",
            Method::Trace => b"TRACE",
            Method::Patch => b"PATCH",
            Method::Other(token) => token,
        }
    }

    /// May be sent again when nothing of an answer came (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        !matches!(self, Method::Post | Method::Patch | Method::Connect | Method::Other(_))
    }
}

/// Head of a request.
#[derive(Clone, Default, Debug)]
pub struct RequestHead {
    /// What is asked for.
    pub method: Method,
    /// Request target as received: origin, absolute, authority or asterisk form (RFC 9112 section 3.2).
    pub target: Vec<u8>,
    /// Version the client speaks.
    pub version: Version,
    /// Header fields.
    pub fields: Fields,
}

impl RequestHead {
    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.target.clear();
        self.version = Version::Http11;
        self.fields.clear();
    }

    /// Path of the target: without scheme and authority, up to `?`. Empty for authority form; `*` is no path.
    /// (HAProxy's fetch `path`.)
    pub fn path(&self) -> &[u8] {
        let (path, _) = self.path_and_query();
        path
    }

    /// Query string after `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.path_and_query().1
    }

    /// Start and end of path and query within [`RequestHead::target`].
    pub fn path_start(&self) -> usize {
        let target = &self.target;
        if target.first() == Some(&b'/') {
            return 0;
        }
        let Some(scheme) = target.windows(3).position(|w| w == b"://") else { return target.len() };
        let authority = scheme + 3;
        target[authority..]
            .iter()
            .position(|b| matches!(b, b'/' | b'?'))
            .map_or(target.len(), |at| authority + at)
    }

    fn path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        let rest = &self.target[self.path_start()..];
        match rest.iter().position(|b| *b == b'?') {
            Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
            None => (rest, None),
        }
    }
}

/// Head of a response.
#[derive(Clone, Default, Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// Reason phrase, may be empty.
    pub reason: Vec<u8>,
    /// Version the server speaks.
    pub version: Version,
    /// Header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.reason.clear();
        self.version = Version::Http11;
        self.fields.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_of_every_form() {
        let of = |target: &str| {
            let head = RequestHead { target: target.into(), ..RequestHead::default() };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(head.path()), head.query().map(text))
        };
        assert_eq!(of("/a/b?c=d?e"), ("/a/b".into(), Some("c=d?e".into())));
        assert_eq!(of("/"), ("/".into(), None));
        assert_eq!(of("http://h:80/x"), ("/x".into(), None));
        assert_eq!(of("http://h"), (String::new(), None));
        assert_eq!(of("http://h?q"), (String::new(), Some("q".into())));
        assert_eq!(of("h:443"), (String::new(), None));
        assert_eq!(of("*"), (String::new(), None));
    }

    #[test]
    fn a_method_is_what_it_was() {
        for token in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "get", "PROPFIND",
        ] {
            assert_eq!(Method::new(token.as_bytes()).as_bytes(), token.as_bytes());
        }
    }
}
