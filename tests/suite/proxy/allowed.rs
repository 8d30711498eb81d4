//! Where the proxy differs from HAProxy 2.6 on purpose. An entry that no longer differs fails the test.

use super::compare::Allowed;
use super::compare::Difference::{Ours, Text};

const STRICT: &str = "refused: two readers of such a message may see different borders or targets";
const ERRORFILE: &str = "the configured file is served, where 2.6 answers with its built-in text";

const fn refused(case: &'static str) -> Allowed {
    Allowed { case, what: Ours(&["400 ", "<BADREQ>"]), reason: STRICT }
}

/// Each with its reason.
pub(crate) const LIST: &[Allowed] = &[
    refused("bad-requests/bare LF"),
    refused("bad-requests/NUL in a value"),
    refused("bad-requests/obs-fold"),
    refused("bad-requests/HTTP/9.9"),
    refused("bad-requests/HTTP/1.2"),
    refused("bad-requests/no host"),
    Allowed {
        case: "bad-requests/HTTP/2 preface",
        what: Ours(&["400 ", "<BADREQ>"]),
        reason: "HTTP/2 without TLS comes with a later version",
    },
    Allowed {
        case: "bad-requests/HTTP/1.0 chunked",
        what: Ours(&["400 ", "<BADREQ>"]),
        reason: "RFC 9112 6.1: an HTTP/1.0 message with Transfer-Encoding has faulty framing",
    },
    Allowed {
        case: "responses/HTTP/1.0 client, chunked response",
        what: Ours(&["hello world\n[closed]"]),
        reason: "RFC 9112 6.1: no Transfer-Encoding to a client that speaks HTTP/1.0; the connection's end ends the body",
    },
    Allowed {
        case: "interim/1xx to HTTP/1.0",
        what: Ours(&["client 1 got:\nHTTP/1.1 200 OK"]),
        reason: "RFC 9110 15.2: no interim response to a client that speaks HTTP/1.0",
    },
    Allowed {
        case: "error-files/400",
        what: Text("HTTP/1.1 400 Bad request", "HTTP/1.0 400 From-File"),
        reason: ERRORFILE,
    },
    Allowed {
        case: "error-files/408",
        what: Text("HTTP/1.1 408 Request Time-out", "HTTP/1.0 408 From-File"),
        reason: ERRORFILE,
    },
];
