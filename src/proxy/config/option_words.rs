//! Words `option ...` of `defaults`, `frontend`, `backend` and `listen` (4.2 of the manual).

use super::check_words;
use super::draft::{Context, Draft, FormatChoice, Prefix};
use super::model::{ConnectionMode, ForwardFor, Options};
use super::proxy_words::{honoured, meaningless, refused, set};
use super::values::number;
use super::vocabulary::Class::Honoured;
use super::vocabulary::{DB, DF, DFB, Handler, Places, Row, row};
use super::words::{Parsed, Words};
use std::net::IpAddr;

fn http_format(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.log_format = if words.take("clf") { FormatChoice::HttpClf } else { FormatChoice::Http };
    Ok(())
}

fn connection(
    mode: ConnectionMode,
    draft: &mut Draft,
    words: &mut Words<'_>,
    context: &mut Context<'_>,
) -> Parsed<()> {
    match context.prefix {
        Prefix::None => draft.connection = mode,
        // `no` takes back this mode, not another that was chosen since.
        Prefix::No | Prefix::Default if draft.connection == mode => {
            draft.connection = ConnectionMode::default()
        }
        Prefix::No | Prefix::Default => {}
    }
    words.end()
}

pub(super) fn redispatch(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    draft.redispatch = match (context.prefix, words.peek()) {
        (Prefix::None, Some(_)) => number(words, "retries", -1_000_000..=1_000_000)?,
        (Prefix::None, None) => -1,
        (Prefix::No | Prefix::Default, _) => 0,
    };
    Ok(())
}

fn tcpka(draft: &mut Draft, _: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let on = context.prefix == Prefix::None;
    draft.options.tcpka_client = on;
    draft.options.tcpka_server = on;
    Ok(())
}

fn forward_for(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.forward_for = Some(address_header(words, b"x-forwarded-for", true)?);
    Ok(())
}

fn original_to(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.original_to = Some(address_header(words, b"x-original-to", false)?);
    Ok(())
}

fn address_header(words: &mut Words<'_>, header: &[u8], may_be_given: bool) -> Parsed<ForwardFor> {
    let mut found = ForwardFor { header: header.to_vec(), except: None, if_none: false };
    loop {
        if words.take("except") {
            found.except = Some(network(words)?);
        } else if words.take("header") {
            found.header = words.demand("the name of a header")?.to_ascii_lowercase().into_bytes();
        } else if may_be_given && words.take("if-none") {
            found.if_none = true;
        } else {
            break;
        }
    }
    words.end()?;
    Ok(found)
}

fn network(words: &mut Words<'_>) -> Parsed<(IpAddr, u8)> {
    let expected = "a network such as 127.0.0.0/8";
    let text = words.demand(expected)?;
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let found = ip.parse::<IpAddr>().ok().and_then(|ip| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), prefix_length);
        bits.filter(|bits| *bits <= most).map(|bits| (ip, bits))
    });
    found.ok_or_else(|| words.problem_before(&format!("`{text}` is not a network"), expected, ""))
}

/// `8` or `255.0.0.0`.
fn prefix_length(text: &str) -> Option<u8> {
    if let Ok(bits) = text.parse() {
        return Some(bits);
    }
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
    let bits = u8::try_from(mask.leading_ones()).ok()?;
    (mask.checked_shl(u32::from(bits)).unwrap_or(0) == 0).then_some(bits)
}

const fn switch(
    word: &'static str,
    places: Places,
    which: fn(&mut Options) -> &mut bool,
    help: &'static str,
) -> Row {
    row(word, places, Honoured(Handler::Switch(which)), help)
}

/// `option ...`.
pub(crate) const OPTIONS: &[Row] = &[
    switch(
        "option abortonclose",
        DB,
        |o| &mut o.abortonclose,
        "waiting requests of gone clients are dropped",
    ),
    switch(
        "option accept-invalid-http-request",
        DF,
        |o| &mut o.accept_invalid_request,
        "lenient with clients",
    ),
    switch(
        "option accept-invalid-http-response",
        DB,
        |o| &mut o.accept_invalid_response,
        "lenient with servers",
    ),
    switch("option allbackups", DB, |o| &mut o.allbackups, "all backup servers share the load"),
    switch("option clitcpka", DF, |o| &mut o.tcpka_client, "TCP keep-alive towards clients"),
    switch("option dontlog-normal", DF, |o| &mut o.dontlog_normal, "only what went wrong is logged"),
    switch("option dontlognull", DF, |o| &mut o.dontlognull, "connections without a byte are not logged"),
    switch(
        "option http-ignore-probes",
        DF,
        |o| &mut o.http_ignore_probes,
        "no 408 and no log for early closed ones",
    ),
    switch("option log-health-checks", DB, |o| &mut o.log_health_checks, "every change of a check is logged"),
    switch("option log-separate-errors", DF, |o| &mut o.log_separate_errors, "errors have the level err"),
    switch("option logasap", DF, |o| &mut o.logasap, "logged when the answer begins"),
    switch("option nolinger", DFB, |o| &mut o.nolinger, "connections are reset"),
    switch("option persist", DB, |o| &mut o.persist, "sticky servers are tried even when down"),
    switch("option socket-stats", DF, |o| &mut o.socket_stats, "statistics for each bind"),
    switch("option srvtcpka", DB, |o| &mut o.tcpka_server, "TCP keep-alive towards servers"),
    honoured(
        "option forceclose",
        DFB,
        |d, w, c| connection(ConnectionMode::Close, d, w, c),
        "option httpclose of HAProxy 1.5",
    ),
    honoured("option forwardfor", DFB, forward_for, "the client's address in a header"),
    honoured(
        "option http-keep-alive",
        DFB,
        |d, w, c| connection(ConnectionMode::KeepAlive, d, w, c),
        "both sides stay open",
    ),
    honoured(
        "option http-server-close",
        DFB,
        |d, w, c| connection(ConnectionMode::ServerClose, d, w, c),
        "the server's side is closed",
    ),
    honoured("option httpchk", DB, check_words::httpchk, "checks speak HTTP"),
    honoured(
        "option httpclose",
        DFB,
        |d, w, c| connection(ConnectionMode::Close, d, w, c),
        "both sides are closed",
    ),
    honoured("option httplog", DF, http_format, "HTTP log lines"),
    honoured("option mysql-check", DB, check_words::mysql_check, "checks speak MySQL"),
    honoured("option originalto", DFB, original_to, "the address that the client connected to, in a header"),
    honoured("option redispatch", DB, redispatch, "another server after failed attempts"),
    honoured("option tcp-check", DB, check_words::tcp_check, "checks connect"),
    honoured("option tcpka", DFB, tcpka, "TCP keep-alive on both sides"),
    honoured("option tcplog", DFB, |d, _, _| set(&mut d.log_format, FormatChoice::Tcp), "TCP log lines"),
    meaningless("option contstats", DF, "counters are always current"),
    meaningless("option disable-h2-upgrade", DF, "there is no HTTP/2 yet"),
    meaningless("option splice-auto", DFB, "data is not spliced"),
    meaningless("option splice-request", DFB, "data is not spliced"),
    meaningless("option splice-response", DFB, "data is not spliced"),
    meaningless("option tcp-smart-accept", DF, "how packets are acknowledged"),
    meaningless("option tcp-smart-connect", DB, "how packets are acknowledged"),
    meaningless("option http-no-delay", DFB, "what there is to send is sent at once"),
    refused("option checkcache", DB, "not supported yet"),
    refused("option external-check", DB, "programs are not run as checks; use option httpchk"),
    refused("option h1-case-adjust-bogus-client", DF, "header names are sent in lower case"),
    refused("option h1-case-adjust-bogus-server", DB, "header names are sent in lower case"),
    refused("option http-buffer-request", DFB, "not supported yet"),
    refused("option http-pretend-keepalive", DB, "not supported yet"),
    refused("option http-restrict-req-hdr-names", DFB, "not supported yet"),
    refused("option http-tunnel", DFB, "removed from HAProxy; use option http-server-close"),
    refused("option http-use-htx", DFB, "removed from HAProxy; it is always so"),
    refused("option http-use-proxy-header", DF, "not supported"),
    refused("option httpslog", DF, "TLS is not supported yet; use option httplog"),
    refused("option idle-close-on-response", DF, "not supported yet"),
    refused("option independent-streams", DFB, "not supported yet"),
    refused("option ldap-check", DB, "not supported yet; use option tcp-check"),
    refused("option pgsql-check", DB, "not supported yet; use option tcp-check"),
    refused("option prefer-last-server", DB, "not supported yet"),
    refused("option redis-check", DB, "not supported yet; use option tcp-check"),
    refused("option smtpchk", DB, "not supported yet; use option tcp-check"),
    refused("option spop-check", DB, "not supported; use option tcp-check"),
    refused("option ssl-hello-chk", DB, "TLS is not supported yet; use option tcp-check"),
    refused("option transparent", DFB, "not supported yet"),
];
