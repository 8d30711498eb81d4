//! `server` and `default-server` (5.2 of the manual).

use super::address::{self, Address, Port, Transport};
use super::bind_words::unknown;
use super::draft::{Context, Draft, Kind, ServerDraft};
use super::model::{ServerAddress, ServerPort};
use super::values::{Unit, number, time, timeout};
use super::vocabulary::Class::{Honoured, Refused, WithoutMeaning};
use super::vocabulary::{self, Handler, Places, Row, row};
use super::words::{Parsed, Words};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const P: Places = Places::SERVER;
const TLS: &str = "TLS is not supported yet";
const PROXY: &str = "the PROXY protocol is not supported yet";
const AGENT: &str = "agent checks are not supported yet";
const DNS: &str = "names are resolved once, when the file is read";
const POOL: &str = "idle connections are bounded otherwise";
const LATER: &str = "not supported yet";

const fn honoured(
    word: &'static str,
    read: fn(&mut ServerDraft, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>,
    help: &'static str,
) -> Row {
    row(word, P, Honoured(Handler::Server(read)), help)
}

const fn refused(word: &'static str, reason: &'static str) -> Row {
    row(word, P, Refused(reason), "")
}

const fn meaningless(word: &'static str, arguments: usize, help: &'static str) -> Row {
    row(word, P, WithoutMeaning(arguments), help)
}

fn set<T>(place: &mut T, value: T) -> Parsed<()> {
    *place = value;
    Ok(())
}

/// 0 stands for "no limit".
fn limit(words: &mut Words<'_>) -> Parsed<Option<u32>> {
    Ok(Some(number(words, "connections", 0..=i32::MAX.unsigned_abs())?).filter(|limit| *limit > 0))
}

/// A time between checks: not 0.
fn interval(words: &mut Words<'_>) -> Parsed<Duration> {
    let found = time(words, Unit::Milliseconds)?;
    if found.is_zero() {
        return Err(words.problem_before("the time between checks cannot be 0", "at least 1ms", "write 2s"));
    }
    Ok(found)
}

fn exactly(words: &mut Words<'_>, only: &str) -> Parsed<()> {
    match words.demand(only)? {
        word if word == only => Ok(()),
        word => {
            Err(words.problem_before(&format!("`{word}` cannot stand here"), only, &format!("write {only}")))
        }
    }
}

fn address(draft: &mut ServerDraft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let text = words.demand("an address")?;
    match address::parse(text, Transport::Stream, words, context)? {
        Address::Internet { ip, port: Port::None, .. } => draft.timing.address = Some(ip),
        Address::Internet { ip, port: Port::One(port), .. } => {
            draft.timing.address = Some(ip);
            draft.timing.port = Some(port);
        }
        _ => return Err(words.problem_before("checks go to an IP address", "ADDRESS or ADDRESS:PORT", "")),
    }
    Ok(())
}

fn http1_only(_: &mut ServerDraft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    exactly(words, "h1")?;
    context.meaningless("proto h1");
    Ok(())
}

/// Where addresses come from at the start: only the resolver is asked here.
fn init_addr(_: &mut ServerDraft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let text = words.demand("libc")?;
    if !text.split(',').any(|method| method == "libc") || text.split(',').any(|method| method == "none") {
        return Err(words.problem_before(
            "names are resolved when the file is read",
            "libc",
            "write init-addr libc",
        ));
    }
    context.meaningless("server init-addr");
    Ok(())
}

/// The words behind a server's address.
pub(crate) const ROWS: &[Row] = &[
    honoured("addr", address, "address of checks"),
    honoured("backup", |s, _, _| set(&mut s.server.backup, true), "used when no other server is up"),
    honoured("check", |s, _, _| set(&mut s.check, true), "ask it whether it is well"),
    honoured(
        "cookie",
        |s, w, _| set(&mut s.server.cookie, Some(w.demand("a value")?.as_bytes().to_vec())),
        "its value of the persistence cookie",
    ),
    honoured("disabled", |s, _, _| set(&mut s.server.disabled, true), "begins in maintenance"),
    honoured(
        "downinter",
        |s, w, _| set(&mut s.timing.downinter, Some(interval(w)?)),
        "time between checks while it is down",
    ),
    honoured("enabled", |s, _, _| set(&mut s.server.disabled, false), "undoes `disabled` of default-server"),
    honoured(
        "fall",
        |s, w, _| set(&mut s.timing.fall, number(w, "checks", 1..=i32::MAX.unsigned_abs())?),
        "failed checks until it is down",
    ),
    honoured(
        "fastinter",
        |s, w, _| set(&mut s.timing.fastinter, Some(interval(w)?)),
        "time between checks while its state changes",
    ),
    honoured(
        "id",
        |s, w, _| set(&mut s.id, Some(number(w, "a number", 1..=i32::MAX.unsigned_abs())?)),
        "number in the statistics",
    ),
    honoured("init-addr", init_addr, "only libc"),
    honoured("inter", |s, w, _| set(&mut s.timing.inter, interval(w)?), "time between checks"),
    honoured("maxconn", |s, w, _| set(&mut s.server.maxconn, limit(w)?), "connections to it at once"),
    honoured("maxqueue", |s, w, _| set(&mut s.server.maxqueue, limit(w)?), "requests waiting for it at most"),
    honoured(
        "minconn",
        |s, w, _| set(&mut s.server.minconn, limit(w)?),
        "its limit while the backend is idle",
    ),
    honoured("no-backup", |s, _, _| set(&mut s.server.backup, false), "undoes `backup` of default-server"),
    honoured("no-check", |s, _, _| set(&mut s.check, false), "undoes `check` of default-server"),
    honoured(
        "on-marked-down",
        |s, w, _| {
            exactly(w, "shutdown-sessions")?;
            set(&mut s.server.shutdown_sessions_when_down, true)
        },
        "`shutdown-sessions`: end its sessions when it goes down",
    ),
    honoured(
        "on-marked-up",
        |s, w, _| {
            exactly(w, "shutdown-backup-sessions")?;
            set(&mut s.server.shutdown_backup_sessions_when_up, true)
        },
        "`shutdown-backup-sessions`: end those of backup servers when it comes up",
    ),
    honoured(
        "port",
        |s, w, _| set(&mut s.timing.port, Some(number(w, "a port", 1..=65_535_u16)?)),
        "port of checks",
    ),
    honoured("proto", http1_only, "only h1"),
    honoured(
        "rise",
        |s, w, _| set(&mut s.timing.rise, number(w, "checks", 1..=i32::MAX.unsigned_abs())?),
        "good checks until it is up",
    ),
    honoured(
        "slowstart",
        |s, w, _| set(&mut s.server.slowstart, timeout(w)?),
        "time until it has its full weight",
    ),
    honoured("tcp-ut", |s, w, _| set(&mut s.server.tcp_user_timeout, timeout(w)?), "TCP user timeout"),
    honoured(
        "weight",
        |s, w, _| set(&mut s.server.weight, number(w, "a weight", 0..=256_u32)?),
        "its share of the requests",
    ),
    meaningless("no-agent-check", 0, "there are no agent checks"),
    meaningless("no-check-send-proxy", 0, "there is no PROXY protocol"),
    meaningless("no-check-ssl", 0, "there is no TLS"),
    meaningless("no-send-proxy", 0, "there is no PROXY protocol"),
    meaningless("no-send-proxy-v2", 0, "there is no PROXY protocol"),
    meaningless("no-send-proxy-v2-ssl", 0, "there is no PROXY protocol"),
    meaningless("no-send-proxy-v2-ssl-cn", 0, "there is no PROXY protocol"),
    meaningless("no-ssl", 0, "there is no TLS"),
    meaningless("no-tfo", 0, "TCP fast open is not used"),
    meaningless("stick", 0, "the default"),
    meaningless("tfo", 0, "TCP fast open is not used"),
    refused("agent-addr", AGENT),
    refused("agent-check", AGENT),
    refused("agent-inter", AGENT),
    refused("agent-port", AGENT),
    refused("agent-send", AGENT),
    refused("allow-0rtt", TLS),
    refused("alpn", TLS),
    refused("ca-file", TLS),
    refused("check-alpn", TLS),
    refused("check-proto", "checks speak HTTP/1"),
    refused("check-send-proxy", PROXY),
    refused("check-sni", TLS),
    refused("check-ssl", TLS),
    refused("check-via-socks4", LATER),
    refused("ciphers", TLS),
    refused("ciphersuites", TLS),
    refused("crl-file", TLS),
    refused("crt", TLS),
    refused("error-limit", LATER),
    refused("force-sslv3", TLS),
    refused("force-tlsv10", TLS),
    refused("force-tlsv11", TLS),
    refused("force-tlsv12", TLS),
    refused("force-tlsv13", TLS),
    refused("log-proto", LATER),
    refused("max-reuse", POOL),
    refused("namespace", LATER),
    refused("no-ssl-reuse", TLS),
    refused("no-sslv3", TLS),
    refused("no-tls-tickets", TLS),
    refused("no-tlsv10", TLS),
    refused("no-tlsv11", TLS),
    refused("no-tlsv12", TLS),
    refused("no-tlsv13", TLS),
    refused("no-verifyhost", TLS),
    refused("non-stick", LATER),
    refused("npn", TLS),
    refused("observe", LATER),
    refused("on-error", LATER),
    refused("pool-low-conn", POOL),
    refused("pool-max-conn", POOL),
    refused("pool-purge-delay", POOL),
    refused("proxy-v2-options", PROXY),
    refused("redir", LATER),
    refused("resolve-net", DNS),
    refused("resolve-opts", DNS),
    refused("resolve-prefer", DNS),
    refused("resolvers", DNS),
    refused("send-proxy", PROXY),
    refused("send-proxy-v2", PROXY),
    refused("send-proxy-v2-ssl", PROXY),
    refused("send-proxy-v2-ssl-cn", PROXY),
    refused("sni", TLS),
    refused("socks4", LATER),
    refused("source", LATER),
    refused("ssl", TLS),
    refused("ssl-max-ver", TLS),
    refused("ssl-min-ver", TLS),
    refused("ssl-reuse", TLS),
    refused("tls-tickets", TLS),
    refused("track", LATER),
    refused("usesrc", LATER),
    refused("verify", TLS),
    refused("verifyhost", TLS),
    refused("ws", LATER),
];

/// `default-server [words]`: for the servers that follow.
pub(crate) fn default_server(
    draft: &mut Draft,
    words: &mut Words<'_>,
    context: &mut Context<'_>,
) -> Parsed<()> {
    if words.peek().is_none() {
        return Err(words.problem_before(
            "`default-server` is not complete",
            "words of `server`",
            "add them",
        ));
    }
    let mut template = draft.default_server.clone();
    if words.clone().rest().iter().any(|found| found.text == "id") {
        return Err(words.problem(
            "`id` belongs to one server",
            "words that servers share",
            "write it at `server`",
        ));
    }
    words_of(&mut template, words, context)?;
    draft.default_server = template;
    Ok(())
}

/// `server NAME ADDRESS[:PORT] [words]`.
pub(crate) fn server(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    if draft.kind == Kind::Defaults {
        return Err(words.problem_before("`server` cannot stand in `defaults`", "default-server", "move it"));
    }
    let name = words.demand("a name and an address")?;
    let site = words.site_before();
    if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.:".contains(*c))) {
        let what = format!("the name `{name}` contains `{wrong}`");
        return Err(words.problem_before(&what, "letters, digits, - _ . :", "use another name"));
    }
    let text = words.demand("an address: 10.0.0.1:80, web1:80, /path")?;
    let address = match address::parse(text, Transport::Stream, words, context)? {
        Address::Unix(path) => ServerAddress::Unix(path),
        Address::Abstract(name) => ServerAddress::Abstract(name),
        Address::Descriptor(_) => {
            return Err(words.problem_before("a server is no inherited descriptor", "an address", ""));
        }
        Address::Internet { any: true, .. } => {
            return Err(words.problem_before(
                &format!("`{text}` names no host"),
                "HOST:PORT",
                "write 127.0.0.1",
            ));
        }
        Address::Internet { ip, name, port, .. } => tcp(ip, name, port, text, words)?,
    };
    let mut server = draft.default_server.clone();
    name.clone_into(&mut server.server.name);
    server.server.site = site;
    server.server.address = address;
    words_of(&mut server, words, context)?;
    let ServerAddress::Tcp { port: ServerPort::Mapped(_), .. } = server.server.address else {
        draft.servers.push(server);
        return Ok(());
    };
    if server.check && server.timing.port.is_none() {
        return Err(words.problem_before(
            &format!(
                "server `{}` has no port of its own, so its checks have none either",
                server.server.name
            ),
            "`port N`",
            "add the port of the checks, or write one in the address",
        ));
    }
    draft.servers.push(server);
    Ok(())
}

fn tcp(ip: IpAddr, host: Option<String>, port: Port, text: &str, words: &Words<'_>) -> Parsed<ServerAddress> {
    let (number, port) = match port {
        Port::One(number) if number > 0 => (number, ServerPort::Fixed),
        Port::One(_) | Port::None => (0, ServerPort::Mapped(0)),
        Port::Offset(offset) => (0, ServerPort::Mapped(offset)),
        Port::Range(..) => {
            return Err(words.problem_before(&format!("`{text}` has a range of ports"), "one port", ""));
        }
    };
    Ok(ServerAddress::Tcp { host, at: SocketAddr::new(ip, number), port })
}

fn words_of(server: &mut ServerDraft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    while let Some(word) = words.next() {
        match vocabulary::find(P, word, None).map(|row| row.class) {
            Some(Honoured(Handler::Server(read))) => read(server, words, context)?,
            Some(WithoutMeaning(arguments)) => {
                context.meaningless(&format!("server {word}"));
                (0..arguments).try_for_each(|_| words.demand("its argument").map(drop))?;
            }
            Some(Refused(reason)) => {
                let what = format!("`{word}` is refused: {reason}");
                return Err(words.problem_before(&what, "", "remove it"));
            }
            _ => return Err(unknown(P, word, words)),
        }
    }
    Ok(())
}
