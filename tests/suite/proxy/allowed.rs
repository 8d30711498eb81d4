//! Where the proxy differs from HAProxy 2.6 on purpose. An entry that no longer differs fails the test.

use super::compare::Allowed;
use super::compare::Difference::{Ours, Text};

const STRICT: &str = "refused: two readers of such a message may see different borders or targets";
const ERRORFILE: &str = "the configured file is served, where 2.6 answers with its built-in text";

const fn refused(case: &'static str) -> Allowed {
    Allowed { case, what: Ours(&["400 ", "<BADREQ>"]), reason: STRICT }
}

const EARLY_CHUNK: &str = "what is wrong with a chunk is found when its turn comes, after the head was routed; HAProxy does the \
    same unless the chunk came together with the head";
const OWN_CLOSE: &str =
    "%B counts what is sent; HAProxy counts the file's `connection` line, which it does not send";
const HAND_OVER: &str =
    "%sc: a freed place goes to the next in the queue before the request that had it is logged";
const DRAINED: &str = "an own answer to a request with a body closes the connection, so that the body is never taken for a request";

const fn stats_question(case: &'static str) -> Allowed {
    Allowed {
        case,
        what: Ours(&["HTTP/1.1 401 Unauthorized", "www-authenticate: Basic realm=", "[kept]", " 401 "]),
        reason: "the connection lives on after the question for a password, and the log tells it; 2.6 closes and logs 400",
    }
}

const fn bad_chunk(case: &'static str) -> Allowed {
    Allowed { case, what: Ours(&["400 Bad request", "[closed]"]), reason: EARLY_CHUNK }
}

const fn own_close(case: &'static str) -> Allowed {
    Allowed { case, what: Text(" 503 127 ", " 503 112 "), reason: OWN_CLOSE }
}

const fn hand_over(case: &'static str) -> Allowed {
    Allowed { case, what: Text(" 2/2/1/0/0 0/0 ", " 2/2/1/1/0 0/0 "), reason: HAND_OVER }
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
    bad_chunk("bad-requests/chunk size of letters"),
    bad_chunk("bad-requests/chunk without its CRLF"),
    bad_chunk("bad-requests/huge chunk"),
    Allowed {
        case: "server-aborts/closes in a chunk",
        what: Text("\n2\\r\nha\\r\n", "\n5\\r\nha"),
        reason: "chunks are passed on as they were cut, not made anew: this one is incomplete at both proxies",
    },
    own_close("error-files/503 of Debian"),
    own_close("error-files/503 of Debian to HTTP/1.0"),
    own_close("error-files/503 of Debian, then more"),
    Allowed {
        case: "bad-responses/101 that nobody asked for",
        what: Text(" 502 250 ", " 502 209 "),
        reason: "%B counts what is sent, not the head that was refused",
    },
    Allowed {
        case: "http-response/deny",
        what: Text(" 502 268 ", " 502 266 "),
        reason: "%B counts what is sent, not the head that was refused",
    },
    Allowed {
        case: "logging/logasap",
        what: Text(" 200 +54 ", " 200 +49 "),
        reason: "logged when the head is sent: the body's bytes are not counted yet",
    },
    Allowed {
        case: "keeping/never",
        what: Ours(&["x: 1", "x: 2", " 200 "]),
        reason: "http-reuse never: a server connection serves one request; HAProxy keeps it for the same client",
    },
    Allowed {
        case: "slow-connect/no answer to SYN",
        what: Ours(&[" 503 217 - - sC--"]),
        reason: "each request is told that no server was reached; HAProxy closes in silence on the second of a connection",
    },
    Allowed {
        case: "timeouts/body that does not come",
        what: Ours(&[" 408 ", "cH--"]),
        reason: "both timeouts are due at once: the one is told that kept the other waiting",
    },
    Allowed {
        case: "bad-requests/two spaces",
        what: Text("\"GET / HTTP/1.1\"", "\"GET  / HTTP/1.1\""),
        reason: "%r is the line as it came",
    },
    Allowed {
        case: "tcp/rejected",
        what: Text("[reset]", "[closed]"),
        reason: "a rejected connection is closed, not reset: the client's kernel need not be told more",
    },
    hand_over("queue/leaves the queue"),
    Allowed {
        case: "bad-responses/bad chunk in a response",
        what: Text("/-1/0s 502 209 - - PH--", "/0s/0s 502 209 - - PH--"),
        reason: "%Tr: the head had been read when its first chunk turned out to be none",
    },
    hand_over("queue/waits, then served"),
    hand_over("queue/sticky server is full"),
    Allowed {
        case: "down/post, all down",
        what: Ours(&["<NOSRV>", " 503 ", "SC--", "[not kept]"]),
        reason: DRAINED,
    },
    Allowed {
        case: "dead/post to a dead server",
        what: Ours(&[" 503 ", "SC--", "[not kept]"]),
        reason: DRAINED,
    },
    Allowed {
        case: "http-request/deny a post",
        what: Ours(&[" 403 ", "PR--", "[not kept]"]),
        reason: DRAINED,
    },
    Allowed {
        case: "http-request/redirect a post",
        what: Text(" 303 104 ", " 303 89 "),
        reason: "%B counts what is sent, not `connection: close` as a field of the redirect",
    },
    Allowed {
        case: "client-aborts/abortonclose, closes while the server works",
        what: Text(" 400 206 - - CH--", " 400 0 - - CH--"),
        reason: "%B: nothing is sent to a client that has gone",
    },
    stats_question("monitor/stats without a password"),
    stats_question("monitor/stats with a wrong password"),
    Allowed {
        case: "error-files/400",
        what: Ours(&["HTTP/1.0 400 From-File", "X-File: 400", "\nfile\n[closed]", "PR--"]),
        reason: ERRORFILE,
    },
    Allowed {
        case: "error-files/408",
        what: Ours(&["HTTP/1.0 408 From-File", "X-File: 408", "\nfile\n[closed]", "cR--"]),
        reason: ERRORFILE,
    },
];
