//! Words of `defaults`, `frontend`, `backend` and `listen` (4 of the manual) that stand for themselves: no other section
//! is needed to understand them.

use super::draft::{BalanceChoice, Context, Draft, FormatChoice, LogChoice, Prefix};
use super::model::{LoadState, Mode, Reuse};
use super::values::{number, timeout};
use super::vocabulary::Class::{Honoured, Refused, WithoutMeaning};
use super::vocabulary::{DB, DF, DFB, FB, Handler, Places, Row, row};
use super::words::{Parsed, Words};
use super::{
    bind_words, check_words, cookie_words, error_words, log_words, option_words, server_words, stats_words,
    stick_words,
};
use std::path::PathBuf;

type Read = fn(&mut Draft, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>;

pub(super) const fn honoured(word: &'static str, places: Places, read: Read, help: &'static str) -> Row {
    row(word, places, Honoured(Handler::Proxy(read)), help)
}

pub(super) const fn refused(word: &'static str, places: Places, reason: &'static str) -> Row {
    row(word, places, Refused(reason), "")
}

pub(super) const fn meaningless(word: &'static str, places: Places, help: &'static str) -> Row {
    row(word, places, WithoutMeaning(0), help)
}

pub(super) fn set<T>(place: &mut T, value: T) -> Parsed<()> {
    *place = value;
    Ok(())
}

fn text(words: &mut Words<'_>) -> Parsed<String> {
    words.clone().demand("a text")?;
    Ok(words.rest().iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
}

/// 0 stands for "no limit of its own".
fn limit(words: &mut Words<'_>) -> Parsed<Option<u32>> {
    Ok(Some(number(words, "connections", 0..=i32::MAX.unsigned_abs())?).filter(|limit| *limit > 0))
}

fn mode(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.mode = match words.demand("http or tcp")? {
        "http" => Mode::Http,
        "tcp" => Mode::Tcp,
        "health" => {
            let next = "use `monitor-uri`, or `http-request return status 200`";
            return Err(words.problem_before("`mode health` was removed from HAProxy", "http or tcp", next));
        }
        other => return Err(words.problem_before(&format!("unknown mode `{other}`"), "http or tcp", "")),
    };
    Ok(())
}

fn log(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    if context.prefix == Prefix::No {
        draft.logs.clear();
        return Ok(());
    }
    let target = log_words::parse(words, context)?;
    let again = target == LogChoice::Global && draft.logs.contains(&target);
    if !again {
        draft.logs.push(target);
    }
    Ok(())
}

fn reuse(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let expected = "never, safe, aggressive or always";
    draft.reuse = match words.demand(expected)? {
        "never" => Reuse::Never,
        "safe" => Reuse::Safe,
        "aggressive" => Reuse::Aggressive,
        "always" => Reuse::Always,
        other => return Err(words.problem_before(&format!("unknown value `{other}`"), expected, "")),
    };
    Ok(())
}

fn balance(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let expected = "roundrobin, static-rr, leastconn, first, source, random, uri, url_param, hdr(NAME)";
    // `balance` alone means roundrobin.
    let name = words.next().unwrap_or("roundrobin");
    let hash = |words: &Words<'_>, text: String| {
        let mut place = context.line_of(text, None);
        if let crate::settings::Site::At { column, .. } = words.site_before() {
            place.words.iter_mut().for_each(|word| word.column = column);
        }
        BalanceChoice::Hash(place)
    };
    draft.balance = match name {
        "roundrobin" => BalanceChoice::RoundRobin,
        "static-rr" => BalanceChoice::StaticRoundRobin,
        "leastconn" => BalanceChoice::LeastConn,
        "first" => BalanceChoice::First,
        "source" => BalanceChoice::Source,
        "random" | "random(2)" => BalanceChoice::Random,
        "uri" => {
            let whole = words.take("whole");
            hash(words, if whole { "url" } else { "url,field(1,?)" }.to_owned())
        }
        "url_param" => {
            let parameter = words.demand("the name of a parameter")?.to_owned();
            hash(words, format!("url_param({parameter})"))
        }
        _ if name.starts_with("hdr(") && name.ends_with(')') => {
            // The first value decides, as in HAProxy.
            hash(words, format!("req.{},1)", name.trim_end_matches(')')))
        }
        "rdp-cookie" => {
            return Err(words.problem_before("`balance rdp-cookie` is not supported yet", expected, ""));
        }
        _ => {
            let what = format!("unknown way to balance `{name}`");
            return Err(words.problem_before(&what, expected, ""));
        }
    };
    Ok(())
}

fn hash_type(_: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    match (words.demand("map-based")?, words.next()) {
        ("map-based", None | Some("sdbm")) => Ok(()),
        _ => Err(words.problem_before("only `hash-type map-based sdbm` is supported yet", "map-based", "")),
    }
}

fn load_state(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let expected = "global, local or none";
    draft.load_state = match words.demand(expected)? {
        "global" => LoadState::Global,
        "local" => LoadState::Local,
        "none" => LoadState::None,
        other => return Err(words.problem_before(&format!("unknown value `{other}`"), expected, "")),
    };
    Ok(())
}

fn retry_on(_: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    match words.demand("conn-failure")? {
        "conn-failure" => Ok(()),
        _ => Err(words.problem_before(
            "requests are repeated when no connection is made, not otherwise yet",
            "conn-failure",
            "",
        )),
    }
}

fn default_backend(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let name = words.demand("the name of a backend")?.to_owned();
    draft.default_backend = Some((name, words.site_before()));
    Ok(())
}

/// Compiled when all sections are known.
fn log_format(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    words.demand("a format")?;
    draft.log_format = FormatChoice::Own(context.line.clone());
    Ok(())
}

/// Sections.
pub(crate) const ROWS: &[Row] = &[
    honoured("backlog", DF, |d, w, _| set(&mut d.backlog, limit(w)?), "length of the listen queues"),
    honoured("balance", DB, balance, "how servers are chosen"),
    honoured("bind", Places::FRONT, bind_words::bind, "listens on addresses"),
    honoured(
        "clitimeout",
        DF,
        |d, w, _| set(&mut d.timeouts.client, timeout(w)?),
        "timeout client of HAProxy 1.5",
    ),
    honoured(
        "contimeout",
        DB,
        |d, w, _| set(&mut d.timeouts.connect, timeout(w)?),
        "timeout connect of HAProxy 1.5",
    ),
    honoured("cookie", DB, cookie_words::cookie, "persistence by a cookie"),
    honoured("default-server", DB, server_words::default_server, "words for the servers that follow"),
    honoured("default_backend", DF, default_backend, "backend when no rule chose another"),
    honoured("description", FB, |d, w, _| set(&mut d.description, Some(text(w)?)), "text of the stats page"),
    honoured("disabled", DFB, |d, _, _| set(&mut d.disabled, true), "the section is not started"),
    honoured("enabled", DFB, |d, _, _| set(&mut d.disabled, false), "undoes `disabled`"),
    honoured("errorfile", DFB, error_words::error_file, "an answer from a file"),
    honoured("errorloc", DFB, error_words::error_location_302, "a redirection instead of an error"),
    honoured("errorloc302", DFB, error_words::error_location_302, "a redirection instead of an error"),
    honoured("errorloc303", DFB, error_words::error_location_303, "a redirection instead of an error"),
    honoured(
        "fullconn",
        DB,
        |d, w, _| set(&mut d.fullconn, limit(w)?),
        "load at which minconn limits are maxconn",
    ),
    honoured("load-server-state-from-file", DB, load_state, "states of servers are read at the start"),
    honoured(
        "server-state-file-name",
        DB,
        |d, w, _| {
            let name = w.next().filter(|name| *name != "use-backend-name");
            set(&mut d.state_file_name, name.map(PathBuf::from))
        },
        "file of a backend's states",
    ),
    honoured("hash-type", DB, hash_type, "only map-based"),
    honoured("http-check disable-on-404", DB, check_words::disable_on_404, "404 means: no new sessions"),
    honoured("http-check expect", DB, check_words::expect, "what a good answer is"),
    honoured("http-check send", DB, check_words::send, "what a check asks"),
    honoured("http-check send-state", DB, check_words::send_state, "tell servers their state"),
    honoured("http-reuse", DB, reuse, "sharing of server connections"),
    honoured(
        "id",
        FB,
        |d, w, _| set(&mut d.id, Some(number(w, "a number", 1..=i32::MAX.unsigned_abs())?)),
        "number in the statistics",
    ),
    honoured("log", DFB, log, "where log lines go"),
    honoured("log-format", DF, log_format, "what a log line says"),
    honoured(
        "log-tag",
        DFB,
        |d, w, _| set(&mut d.log_tag, Some(w.demand("a name")?.to_owned())),
        "program name in syslog headers",
    ),
    honoured("maxconn", DF, |d, w, _| set(&mut d.maxconn, limit(w)?), "connections of this section at once"),
    honoured("mode", DFB, mode, "http or tcp"),
    honoured(
        "monitor-uri",
        DF,
        |d, w, _| set(&mut d.monitor_uri, Some(w.demand("a URI")?.as_bytes().to_vec())),
        "URI that is answered 200 at once",
    ),
    honoured("redisp", DB, option_words::redispatch, "option redispatch of HAProxy 1.0"),
    honoured("redispatch", DB, option_words::redispatch, "option redispatch of HAProxy 1.2"),
    honoured(
        "retries",
        DB,
        |d, w, _| set(&mut d.retries, number(w, "retries", 0..=i32::MAX.unsigned_abs())?),
        "attempts after the first",
    ),
    honoured("retry-on", DB, retry_on, "only conn-failure"),
    honoured("server", Places::BACK, server_words::server, "a server"),
    honoured(
        "srvtimeout",
        DB,
        |d, w, _| set(&mut d.timeouts.server, timeout(w)?),
        "timeout server of HAProxy 1.5",
    ),
    honoured("stats auth", DFB, stats_words::auth, "user:password for the stats page"),
    honoured("stats enable", DFB, stats_words::enable, "the stats page"),
    honoured("stats hide-version", DFB, stats_words::hide_version, "no version on the stats page"),
    honoured("stats realm", DFB, stats_words::realm, "what the password is asked for"),
    honoured("stats refresh", DFB, stats_words::refresh, "the page reloads itself"),
    honoured("stats scope", DFB, stats_words::scope, "sections that the page shows"),
    honoured("stats show-desc", DFB, stats_words::show_desc, "a description on the page"),
    honoured("stats show-legends", DFB, stats_words::show_legends, "more details on the page"),
    honoured("stats show-node", DFB, stats_words::show_node, "the node's name on the page"),
    honoured("stats uri", DFB, stats_words::uri, "where the stats page is"),
    honoured("stick-table", FB, stick_words::table, "remembers servers by key"),
    honoured(
        "timeout check",
        DB,
        |d, w, _| set(&mut d.timeouts.check, timeout(w)?),
        "longest check after its connection",
    ),
    honoured(
        "timeout client",
        DF,
        |d, w, _| set(&mut d.timeouts.client, timeout(w)?),
        "longest silence of a client",
    ),
    honoured(
        "timeout client-fin",
        DF,
        |d, w, _| set(&mut d.timeouts.client_fin, timeout(w)?),
        "the same after it closed its side",
    ),
    honoured(
        "timeout connect",
        DB,
        |d, w, _| set(&mut d.timeouts.connect, timeout(w)?),
        "longest attempt to reach a server",
    ),
    honoured(
        "timeout http-keep-alive",
        DFB,
        |d, w, _| set(&mut d.timeouts.http_keep_alive, timeout(w)?),
        "longest wait for another request",
    ),
    honoured(
        "timeout http-request",
        DFB,
        |d, w, _| set(&mut d.timeouts.http_request, timeout(w)?),
        "longest wait for a whole request head",
    ),
    honoured(
        "timeout queue",
        DB,
        |d, w, _| set(&mut d.timeouts.queue, timeout(w)?),
        "longest wait for a server",
    ),
    honoured(
        "timeout server",
        DB,
        |d, w, _| set(&mut d.timeouts.server, timeout(w)?),
        "longest silence of a server",
    ),
    honoured(
        "timeout server-fin",
        DB,
        |d, w, _| set(&mut d.timeouts.server_fin, timeout(w)?),
        "the same after it closed its side",
    ),
    honoured(
        "timeout tarpit",
        DFB,
        |d, w, _| set(&mut d.timeouts.tarpit, timeout(w)?),
        "how long a tarpit holds",
    ),
    honoured(
        "timeout tunnel",
        DB,
        |d, w, _| set(&mut d.timeouts.tunnel, timeout(w)?),
        "longest silence of a tunnel",
    ),
    meaningless("bind-process", DFB, "there is one process"),
    refused("clitcpka-cnt", DF, "not supported yet"),
    refused("clitcpka-idle", DF, "not supported yet"),
    refused("clitcpka-intvl", DF, "not supported yet"),
    refused("compression", DFB, "compression is not supported yet"),
    refused("dispatch", FB, "use a backend with one server"),
    refused("email-alert", DFB, "mail alerts are not supported"),
    refused("error-log-format", DF, "not supported yet; use log-format"),
    refused("errorfiles", DFB, "groups of error files are not supported yet; use errorfile"),
    refused("external-check", DB, "programs are not run as checks; use option httpchk"),
    refused("filter", FB, "filters are not supported"),
    refused("http-check comment", DB, "not supported yet"),
    refused("http-check connect", DB, "not supported yet; checks use the server's address"),
    refused("http-check set-var", DB, "not supported yet"),
    refused("http-check unset-var", DB, "not supported yet"),
    refused("http-error", DFB, "not supported yet; use errorfile"),
    refused("http-send-name-header", DB, "not supported yet"),
    refused("max-keep-alive-queue", DB, "not supported yet"),
    refused("persist", DB, "not supported yet"),
    refused("rate-limit", DF, "rates are not limited yet; use maxconn"),
    refused("server-template", Places::BACK, "not supported yet; write the servers out"),
    refused("source", DB, "not supported yet"),
    refused("srvtcpka-cnt", DB, "not supported yet"),
    refused("srvtcpka-idle", DB, "not supported yet"),
    refused("srvtcpka-intvl", DB, "not supported yet"),
    refused("stats http-request", FB, "not supported yet; use stats auth"),
    refused("stats show-modules", DFB, "not supported"),
    refused(
        "tcp-check",
        DB,
        "scripted checks are not supported yet; a connection is checked, or use option httpchk",
    ),
    refused("transparent", DFB, "not supported yet"),
    refused("unique-id-format", DF, "not supported yet"),
    refused("unique-id-header", DF, "not supported yet"),
    refused("use-fcgi-app", Places::BACK, "FastCGI is not supported"),
];
