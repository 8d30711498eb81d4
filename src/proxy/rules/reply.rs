//! Answers that the proxy makes itself: HAProxy's built-in texts, errorfiles.

use crate::proxy::config::model::Proxy;
use ehpc_proto::http::{ResponseHead, Version};
use std::borrow::Cow;
use std::sync::Arc;

/// An answer. Its head goes through the same writer as a server's (which adds `connection`), a file as it is.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Bytes of an `errorfile`, head and body, sent as they are; then the connection is closed.
    #[allow(missing_docs)]
    File { status: u16, content: Arc<[u8]> },
    /// A head with its `content-length`, and a body. The connection may live on.
    #[allow(missing_docs)]
    Message { head: Box<ResponseHead>, body: ReplyBody },
}

/// Body of a reply; not sent in answer to HEAD.
pub type ReplyBody = Cow<'static, [u8]>;

/// Status, reason, text of the body.
type BuiltIn = (u16, &'static str, &'static str);

/// The texts of HAProxy 2.6 (`http_err_msgs`): `(status, reason, second line of the page)`.
const BUILT_IN: &[BuiltIn] = &[
    (200, "OK", "Service ready."),
    (400, "Bad request", "Your browser sent an invalid request."),
    (401, "Unauthorized", "You need a valid user and password to access this content."),
    (403, "Forbidden", "Request forbidden by administrative rules."),
    (404, "Not Found", "The resource could not be found."),
    (
        405,
        "Method Not Allowed",
        "A request was made of a resource using a request method not supported by that resource",
    ),
    (407, "Unauthorized", "You need a valid user and password to access this content."),
    (408, "Request Time-out", "Your browser didn't send a complete request in time."),
    (410, "Gone", "The resource is no longer available and will not be available again."),
    (413, "Payload Too Large", "The request entity exceeds the maximum allowed."),
    (421, "Misdirected Request", "Request sent to a non-authoritative server."),
    (422, "Unprocessable Content", "The server cannot process the contained instructions."),
    (425, "Too Early", "Your browser sent early data."),
    (429, "Too Many Requests", "You have sent too many requests in a given amount of time."),
    (500, "Internal Server Error", "An internal server error occurred."),
    (
        501,
        "Not Implemented",
        ".The server does not support the functionality required to fulfill the request.",
    ),
    (502, "Bad Gateway", "The server returned an invalid or incomplete response."),
    (503, "Service Unavailable", "No server is available to handle this request."),
    (504, "Gateway Time-out", "The server didn't respond in time."),
];

/// What is known of the built-in texts.
#[derive(Debug)]
pub(super) struct ErrorText;

impl ErrorText {
    /// Whether there is one for a status.
    pub(super) fn exists(status: u16) -> bool {
        BUILT_IN.iter().any(|(known, ..)| *known == status)
    }
}

impl Reply {
    /// What is answered with an error `status`: the section's `errorfile`, else HAProxy's built-in text. A status that
    /// HAProxy has no text for becomes 500.
    pub fn error(proxy: &Proxy, status: u16) -> Reply {
        match proxy.error_files.get(&status) {
            Some(file) => Reply::File { status, content: Arc::clone(&file.content) },
            None => Reply::built_in(status),
        }
    }

    /// The same of an exchange that has come to a backend: its file, else the frontend's.
    pub fn error_of(backend: Option<&Proxy>, frontend: &Proxy, status: u16) -> Reply {
        let own = backend.filter(|backend| backend.error_files.contains_key(&status));
        Reply::error(own.unwrap_or(frontend), status)
    }

    /// HAProxy's built-in text.
    pub fn built_in(status: u16) -> Reply {
        let known = BUILT_IN.iter().find(|(known, ..)| *known == status);
        let Some((_, reason, text)) = known else { return Reply::built_in(500) };
        let page = format!("<html><body><h1>{status} {reason}</h1>\n{text}\n</body></html>\n");
        let mut reply = Reply::message(status, page.into_bytes());
        if let Reply::Message { head, .. } = &mut reply {
            head.reason = reason.as_bytes().to_vec();
            head.fields.push(b"cache-control", b"no-cache");
            head.fields.push(b"content-type", b"text/html");
        }
        reply
    }

    /// HAProxy's built-in text as it is sent to what is no request: its own spelling of names, 400 and 408 with
    /// `Connection: close`.
    pub fn bare(status: u16) -> Vec<u8> {
        let known = BUILT_IN.iter().find(|(known, ..)| *known == status);
        let (status, reason, text) =
            known.copied().unwrap_or((400, "Bad request", "Your browser sent an invalid request."));
        let page = format!("<html><body><h1>{status} {reason}</h1>\n{text}\n</body></html>\n");
        let close = if matches!(status, 400 | 408) { "Connection: close\r\n" } else { "" };
        let length = page.len();
        let head =
            format!("HTTP/1.1 {status} {reason}\r\nContent-length: {length}\r\nCache-Control: no-cache\r\n");
        format!("{head}{close}Content-Type: text/html\r\n\r\n{page}").into_bytes()
    }

    /// A head with `content-length` only, and a body.
    pub fn message(status: u16, body: impl Into<ReplyBody>) -> Reply {
        let body = body.into();
        let mut head = ResponseHead {
            status,
            reason: reason(status).as_bytes().to_vec(),
            version: Version::Http11,
            ..ResponseHead::default()
        };
        head.fields.push(b"content-length", body.len().to_string().as_bytes());
        Reply::Message { head: Box::new(head), body }
    }

    /// Its status, for counters and the log.
    pub fn status(&self) -> u16 {
        match self {
            Reply::File { status, .. } => *status,
            Reply::Message { head, .. } => head.status,
        }
    }
}

/// Reason phrase of a status that nothing more is known of.
fn class(status: u16) -> &'static str {
    match status {
        100..200 => "Informational",
        200..300 => "Success",
        300..400 => "Redirection",
        400..500 => "Client Error",
        500..600 => "Server Error",
        _ => "Other",
    }
}

/// Reason phrase as HAProxy writes it (`http_get_reason`).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        210 => "Content Different",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        310 => "Too many Redirects",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested range unsatisfiable",
        417 => "Expectation failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable entity",
        423 => "Locked",
        424 => "Method failure",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        449 => "Retry With",
        450 => "Blocked by Windows Parental Controls",
        451 => "Unavailable For Legal Reasons",
        456 => "Unrecoverable Error",
        499 => "client has closed connection",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version not supported",
        506 => "Variant also negotiate",
        507 => "Insufficient storage",
        508 => "Loop detected",
        509 => "Bandwidth Limit Exceeded",
        510 => "Not extended",
        511 => "Network authentication required",
        520 => "Web server is returning an unknown error",
        _ => class(status),
    }
}
