//! `bind` (5.1 of the manual) and global `stats socket`: an address, then words.

use super::address::{self, Address, Port, Transport};
use super::draft::{Context, Draft};
use super::identity;
use super::model::{Bind, BindAddress, Global, Level};
use super::values::{mode, number, timeout};
use super::vocabulary::Class::{Honoured, Refused, WithoutMeaning};
use super::vocabulary::{self, Handler, Places, Row, row};
use super::words::{Parsed, Words};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

const P: Places = Places::BIND;
/// Listening addresses of one section.
const MOST_BINDS: usize = 65_535;
const TLS: &str = "TLS is not supported yet";
const PROXY: &str = "the PROXY protocol is not supported yet";

const fn honoured(
    word: &'static str,
    read: fn(&mut Bind, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>,
    help: &'static str,
) -> Row {
    row(word, P, Honoured(Handler::Bind(read)), help)
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

/// 0 stands for "no limit of its own".
fn limit(words: &mut Words<'_>) -> Parsed<Option<u32>> {
    Ok(Some(number(words, "connections", 0..=i32::MAX.unsigned_abs())?).filter(|limit| *limit > 0))
}

fn level(bind: &mut Bind, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    bind.level = match words.demand("user, operator or admin")? {
        "user" => Level::User,
        "operator" => Level::Operator,
        "admin" => Level::Admin,
        other => {
            let what = format!("unknown level `{other}`");
            return Err(words.problem_before(&what, "user, operator or admin", ""));
        }
    };
    Ok(())
}

fn expose(bind: &mut Bind, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    if words.demand("listeners")? != "listeners" {
        return Err(words.problem_before(
            "only listeners can be exposed",
            "listeners",
            "write expose-fd listeners",
        ));
    }
    bind.expose_listeners = true;
    Ok(())
}

fn http1_only(_: &mut Bind, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    match words.demand("h1")? {
        "h1" => context.meaningless("proto h1"),
        other => {
            let what = format!("`proto {other}` is not supported yet");
            return Err(words.problem_before(&what, "h1", "remove it"));
        }
    }
    Ok(())
}

/// The words behind an address.
pub(crate) const ROWS: &[Row] = &[
    honoured("backlog", |b, w, _| set(&mut b.backlog, limit(w)?), "length of the listen queue"),
    honoured("defer-accept", |b, _, _| set(&mut b.defer_accept, true), "wait for data before accepting"),
    honoured("expose-fd", expose, "`listeners`: hand over listening sockets (stats socket)"),
    honoured("gid", |b, w, _| set(&mut b.unix_group, identity::id(w)?), "group of a Unix socket, by number"),
    honoured(
        "group",
        |b, w, c| set(&mut b.unix_group, identity::group(w, c)?),
        "group of a Unix socket, by name",
    ),
    honoured(
        "id",
        |b, w, _| set(&mut b.id, number(w, "a number", 1..=i32::MAX.unsigned_abs())?),
        "number in the statistics",
    ),
    honoured(
        "interface",
        |b, w, _| set(&mut b.interface, Some(w.demand("an interface")?.to_owned())),
        "only through this interface",
    ),
    honoured("level", level, "rights on a stats socket"),
    honoured("maxconn", |b, w, _| set(&mut b.maxconn, limit(w)?), "connections of this listener at once"),
    honoured("mode", |b, w, _| set(&mut b.unix_mode, Some(mode(w)?)), "file mode of a Unix socket"),
    honoured(
        "name",
        |b, w, _| set(&mut b.name, Some(w.demand("a name")?.to_owned())),
        "name in the statistics",
    ),
    honoured("proto", http1_only, "only h1"),
    honoured("tcp-ut", |b, w, _| set(&mut b.tcp_user_timeout, timeout(w)?), "TCP user timeout"),
    honoured("uid", |b, w, _| set(&mut b.unix_user, identity::id(w)?), "owner of a Unix socket, by number"),
    honoured(
        "user",
        |b, w, c| set(&mut b.unix_user, identity::user(w, c)?),
        "owner of a Unix socket, by name",
    ),
    honoured("v4v6", |b, _, _| set(&mut b.v6only, Some(false)), "IPv4 through an IPv6 socket too"),
    honoured("v6only", |b, _, _| set(&mut b.v6only, Some(true)), "no IPv4 through an IPv6 socket"),
    meaningless("nice", 1, "priority inside of HAProxy"),
    meaningless("process", 1, "threads share listeners"),
    meaningless("shards", 1, "threads share listeners"),
    meaningless("tfo", 0, "TCP fast open is the kernel's matter"),
    meaningless("thread", 1, "threads share listeners"),
    refused("accept-netscaler-cip", PROXY),
    refused("accept-proxy", PROXY),
    refused("mss", "not supported yet"),
    refused("namespace", "not supported yet; start the proxy in the namespace"),
    refused("severity-output", "not supported yet"),
    refused("transparent", "not supported yet"),
    refused("ssl", TLS),
    refused("allow-0rtt", TLS),
    refused("alpn", TLS),
    refused("ca-file", TLS),
    refused("ca-ignore-err", TLS),
    refused("ca-sign-file", TLS),
    refused("ca-sign-pass", TLS),
    refused("ca-verify-file", TLS),
    refused("ciphers", TLS),
    refused("ciphersuites", TLS),
    refused("crl-file", TLS),
    refused("crt", TLS),
    refused("crt-ignore-err", TLS),
    refused("crt-list", TLS),
    refused("curves", TLS),
    refused("ecdhe", TLS),
    refused("force-sslv3", TLS),
    refused("force-tlsv10", TLS),
    refused("force-tlsv11", TLS),
    refused("force-tlsv12", TLS),
    refused("force-tlsv13", TLS),
    refused("generate-certificates", TLS),
    refused("no-ca-names", TLS),
    refused("no-sslv3", TLS),
    refused("no-tls-tickets", TLS),
    refused("no-tlsv10", TLS),
    refused("no-tlsv11", TLS),
    refused("no-tlsv12", TLS),
    refused("no-tlsv13", TLS),
    refused("npn", TLS),
    refused("prefer-client-ciphers", TLS),
    refused("ssl-max-ver", TLS),
    refused("ssl-min-ver", TLS),
    refused("strict-sni", TLS),
    refused("tls-ticket-keys", TLS),
    refused("verify", TLS),
];

/// `bind ADDRESS[,ADDRESS]... [words]`.
pub(crate) fn bind(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let binds = read(words, context)?;
    draft.binds.extend(binds);
    match draft.binds.len() > MOST_BINDS {
        false => Ok(()),
        true => {
            draft.binds.truncate(MOST_BINDS);
            let what = format!("the section has more than {MOST_BINDS} addresses");
            Err(words.problem_before(&what, "fewer ports", "use a smaller range"))
        }
    }
}

/// `stats socket ADDRESS [words]`.
pub(crate) fn stats_socket(
    global: &mut Global,
    words: &mut Words<'_>,
    context: &mut Context<'_>,
) -> Parsed<()> {
    global.stats_sockets.extend(read(words, context)?);
    Ok(())
}

fn read(words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<Vec<Bind>> {
    let text = words.demand("an address: *:80, 10.0.0.1:80, /path, fd@3")?;
    let site = words.site_before();
    let mut addresses = Vec::new();
    // HAProxy ignores a comma at the end.
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let address = address::parse(part, Transport::Stream, words, context)?;
        add(&mut addresses, address, part, words)?;
        if addresses.len() > MOST_BINDS {
            return Err(words.problem_before("too many ports", "a smaller range", ""));
        }
    }
    if addresses.is_empty() {
        return Err(words.problem_before("there is no address", "*:80, 10.0.0.1:80, /path, fd@3", ""));
    }
    let mut pattern = Bind::new(BindAddress::Descriptor(-1), site);
    words_of(&mut pattern, words, context)?;
    let unix = &*context.unix_bind;
    let bind = |address: BindAddress| match address {
        BindAddress::Unix(path) => Bind {
            address: BindAddress::Unix(prefixed(&unix.prefix, path)),
            unix_mode: pattern.unix_mode.or(unix.mode),
            unix_user: pattern.unix_user.clone().or_else(|| unix.user.clone()),
            unix_group: pattern.unix_group.clone().or_else(|| unix.group.clone()),
            ..pattern.clone()
        },
        address => Bind { address, ..pattern.clone() },
    };
    Ok(addresses.into_iter().map(bind).collect())
}

/// As HAProxy: the prefix is put before the path, whatever that begins with.
fn prefixed(prefix: &str, path: PathBuf) -> PathBuf {
    if prefix.is_empty() {
        return path;
    }
    let mut whole = OsString::from(prefix);
    whole.push(path);
    PathBuf::from(whole)
}

/// Global `unix-bind [prefix TEXT] [mode MODE] [user NAME] [uid ID] [group NAME] [gid ID]`.
pub(crate) fn unix_bind(_: &mut Global, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let mut unix = context.unix_bind.clone();
    while let Some(word) = words.next() {
        match word {
            "prefix" => words.demand("a text")?.clone_into(&mut unix.prefix),
            "mode" => unix.mode = Some(mode(words)?),
            "user" => unix.user = identity::user(words, context)?,
            "uid" => unix.user = identity::id(words)?,
            "group" => unix.group = identity::group(words, context)?,
            "gid" => unix.group = identity::id(words)?,
            other => {
                let what = format!("unknown word `{other}`");
                return Err(words.problem_before(&what, "prefix, mode, user, uid, group, gid", ""));
            }
        }
    }
    *context.unix_bind = unix;
    Ok(())
}

fn add(addresses: &mut Vec<BindAddress>, address: Address, text: &str, words: &Words<'_>) -> Parsed<()> {
    let refuse =
        |what: &str, next: &str| Err(words.problem_before(&format!("`{text}` {what}"), "ADDRESS:PORT", next));
    match address {
        Address::Unix(path) => addresses.push(BindAddress::Unix(path)),
        Address::Abstract(name) => addresses.push(BindAddress::Abstract(name)),
        Address::Descriptor(number) => addresses.push(BindAddress::Descriptor(number)),
        Address::Internet { ip, port, .. } => {
            let (low, high) = match port {
                Port::One(0) => return refuse("has port 0", "write a port"),
                Port::One(port) => (port, port),
                Port::Range(low, high) => (low, high),
                Port::None => return refuse("has no port", "write *:80 or 10.0.0.1:80"),
                Port::Offset(_) => return refuse("has a port offset", "write the port itself"),
            };
            addresses.extend((low..=high).map(|port| BindAddress::Tcp(SocketAddr::new(ip, port))));
        }
    }
    Ok(())
}

fn words_of(bind: &mut Bind, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    while let Some(word) = words.next() {
        match vocabulary::find(P, word, None).map(|row| row.class) {
            Some(Honoured(Handler::Bind(read))) => read(bind, words, context)?,
            Some(WithoutMeaning(arguments)) => {
                context.meaningless(&format!("bind {word}"));
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

/// A word that is in no table.
pub(crate) fn unknown(places: Places, word: &str, words: &Words<'_>) -> Box<crate::settings::Problem> {
    let next = match vocabulary::suggest(places, word, None) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "see the list of words: -dKall".to_owned(),
    };
    words.problem_before(&format!("unknown word `{word}`"), "", &next)
}
