//! Words that refer to other sections, to conditions or to expressions: their lines wait until all sections are known
//! (`compile` reads them). And words that HAProxy removed, with the modern form.

use super::vocabulary::Class::{Honoured, Refused};
use super::vocabulary::{DF, DFB, FB, Handler, Places, Row, row};

const fn deferred(word: &'static str, places: Places, help: &'static str) -> Row {
    row(word, places, Honoured(Handler::Deferred), help)
}

const fn refused(word: &'static str, places: Places, reason: &'static str) -> Row {
    row(word, places, Refused(reason), "")
}

const FRONT: Places = Places::FRONT;
const BACK: Places = Places::BACK;

/// Lines that are compiled later.
pub(crate) const ROWS: &[Row] = &[
    deferred("acl", FB, "names a condition"),
    deferred("capture cookie", FRONT, "a cookie in the log"),
    deferred("capture request", FRONT, "`header`: a request header in the log"),
    deferred("capture response", FRONT, "`header`: a response header in the log"),
    deferred("declare capture", FRONT, "a place for http-request capture"),
    deferred("http-after-response", DFB, "rules for answers of servers and of this proxy"),
    deferred("http-request", DFB, "rules for requests"),
    deferred("http-response", DFB, "rules for answers of servers"),
    deferred("monitor fail", FRONT, "when monitor-uri answers 503"),
    deferred("redirect", FB, "http-request redirect"),
    deferred("stats admin", FB, "who may change states on the stats page"),
    deferred("stick match", BACK, "the server that a table remembers"),
    deferred("stick on", BACK, "match and store-request"),
    deferred("stick store-request", BACK, "remember the chosen server"),
    deferred("stick store-response", BACK, "remember the server by its answer"),
    deferred("tcp-request connection", DF, "rules for new connections"),
    deferred("tcp-request content", DFB, "rules for first bytes"),
    deferred("tcp-request inspect-delay", DFB, "no effect: no rule has to wait"),
    deferred("tcp-request session", DF, "rules for new sessions"),
    deferred("use_backend", FRONT, "a backend when a condition holds"),
    refused("force-persist", FB, "not supported yet"),
    refused("ignore-persist", FB, "not supported yet"),
    refused("log-format-sd", DF, "not supported yet"),
    refused("tcp-response", DFB, "not supported yet"),
    refused("use-server", BACK, "not supported yet"),
];

/// Words of older versions.
pub(crate) const REMOVED: &[Row] = &[
    refused("appsession", DFB, "removed from HAProxy; use stick on with a cookie"),
    refused("block", DFB, "removed from HAProxy; use http-request deny"),
    refused(
        "monitor-net",
        DF,
        "removed from HAProxy; use monitor-uri, or http-request return with an acl on src",
    ),
    refused("reqadd", DFB, "removed from HAProxy; use http-request add-header"),
    refused("reqallow", DFB, "removed from HAProxy; use http-request allow"),
    refused("reqdel", DFB, "removed from HAProxy; use http-request del-header"),
    refused("reqdeny", DFB, "removed from HAProxy; use http-request deny"),
    refused("reqiallow", DFB, "removed from HAProxy; use http-request allow"),
    refused("reqidel", DFB, "removed from HAProxy; use http-request del-header"),
    refused("reqideny", DFB, "removed from HAProxy; use http-request deny"),
    refused("reqipass", DFB, "removed from HAProxy; use http-request allow"),
    refused("reqirep", DFB, "removed from HAProxy; use http-request replace-header or replace-path"),
    refused("reqisetbe", DFB, "removed from HAProxy; use use_backend with an acl"),
    refused("reqitarpit", DFB, "removed from HAProxy; use http-request tarpit"),
    refused("reqpass", DFB, "removed from HAProxy; use http-request allow"),
    refused("reqrep", DFB, "removed from HAProxy; use http-request replace-header or replace-path"),
    refused("reqsetbe", DFB, "removed from HAProxy; use use_backend with an acl"),
    refused("reqtarpit", DFB, "removed from HAProxy; use http-request tarpit"),
    refused("rspadd", DFB, "removed from HAProxy; use http-response add-header"),
    refused("rspdel", DFB, "removed from HAProxy; use http-response del-header"),
    refused("rspdeny", DFB, "removed from HAProxy; use http-response deny"),
    refused("rspidel", DFB, "removed from HAProxy; use http-response del-header"),
    refused("rspideny", DFB, "removed from HAProxy; use http-response deny"),
    refused("rspirep", DFB, "removed from HAProxy; use http-response replace-header"),
    refused("rsprep", DFB, "removed from HAProxy; use http-response replace-header"),
    refused("cliexp", DFB, "removed from HAProxy; use timeout client"),
    refused("srvexp", DFB, "removed from HAProxy; use timeout server"),
];
