//! Constants, clock, chance, variables; and what runs: queues, connections, servers.

use super::{Fetch, Run, row};
use crate::proxy::config::model::ProxyIndex;
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::{Context, Kind, Sample, Scope};
use crate::proxy::state::{Backend, Server};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

const CONSTANT: Run = Run::One(constant);

pub(super) const TABLE: &[Fetch] = &[
    row("always_true", Kind::Bool, Run::One(always_true), "true"),
    row("wait_end", Kind::Bool, Run::One(always_true), "true: content is not waited for"),
    row("always_false", Kind::Bool, Run::One(always_false), "false"),
    row("ssl_fc", Kind::Bool, Run::One(always_false), "the client's connection uses TLS: none does yet"),
    row("int", Kind::Integer, CONSTANT, "a number").takes(&[Slot::Integer], 1),
    row("str", Kind::Text, CONSTANT, "a text").takes(&[Slot::Text], 1),
    row("bool", Kind::Bool, CONSTANT, "a truth value").takes(&[Slot::Text], 1).prepared(prepare_bool),
    row("bin", Kind::Binary, CONSTANT, "bytes in hexadecimal").takes(&[Slot::Text], 1).prepared(prepare_bin),
    row("meth", Kind::Method, CONSTANT, "a method").takes(&[Slot::Text], 1),
    row("ipv4", Kind::Address, CONSTANT, "an address").takes(&[Slot::Address4], 1),
    row("ipv6", Kind::Address, CONSTANT, "an address").takes(&[Slot::Address6], 1),
    row("env", Kind::Text, CONSTANT, "a variable of the environment")
        .takes(&[Slot::Text], 1)
        .prepared(prepare_env),
    row("var", Kind::Any, Run::One(var), "a variable").takes(&[Slot::Variable, Slot::Text], 1),
    row("date", Kind::Integer, Run::One(date), "seconds since 1970")
        .takes(&[Slot::Integer, Slot::Text], 0)
        .prepared(prepare_date),
    row("date_us", Kind::Integer, Run::One(date_us), "microseconds of this second"),
    row("rand", Kind::Integer, Run::One(rand), "a random number").takes(&[Slot::Integer], 0),
    row("uuid", Kind::Text, Run::One(uuid), "a random UUID")
        .takes(&[Slot::Integer], 0)
        .prepared(prepare_uuid),
    row("hostname", Kind::Text, CONSTANT, "name of this machine").prepared(prepare_hostname),
    row("nbproc", Kind::Integer, Run::One(one), "number of processes: 1"),
    row("proc", Kind::Integer, Run::One(one), "number of this process: 1"),
    row("stopping", Kind::Bool, Run::One(stopping), "the process is stopping"),
    row("unique-id", Kind::Text, Run::One(unique_id), "unique id of the request"),
];

pub(super) const STATE: &[Fetch] = &[
    row("nbsrv", Kind::Integer, Run::One(nbsrv), "usable servers of a backend").takes(&[Slot::Backend], 0),
    row("queue", Kind::Integer, Run::One(queue), "requests in a backend's queues").takes(&[Slot::Backend], 0),
    row("avg_queue", Kind::Integer, Run::One(avg_queue), "the same for each server")
        .takes(&[Slot::Backend], 0),
    row("connslots", Kind::Integer, Run::One(connslots), "free connections and places in queues")
        .takes(&[Slot::Backend], 0),
    row("be_conn", Kind::Integer, Run::One(be_conn), "sessions of a backend").takes(&[Slot::Backend], 0),
    row("be_conn_free", Kind::Integer, Run::One(be_conn_free), "free connections of a backend")
        .takes(&[Slot::Backend], 0),
    row("fe_conn", Kind::Integer, Run::One(fe_conn), "sessions of a frontend").takes(&[Slot::Frontend], 0),
    row("table_cnt", Kind::Integer, Run::One(table_cnt), "entries of a stick table").takes(&[Slot::Table], 0),
    row("table_avl", Kind::Integer, Run::One(table_avl), "free entries of a stick table")
        .takes(&[Slot::Table], 0),
    row("srv_conn", Kind::Integer, Run::One(srv_conn), "connections of a server").takes(&[Slot::Server], 1),
    row("srv_conn_free", Kind::Integer, Run::One(srv_conn_free), "free connections of a server")
        .takes(&[Slot::Server], 1),
    row("srv_queue", Kind::Integer, Run::One(srv_queue), "requests in a server's queue")
        .takes(&[Slot::Server], 1),
    row("srv_is_up", Kind::Bool, Run::One(srv_is_up), "a server is usable").takes(&[Slot::Server], 1),
    row("srv_weight", Kind::Integer, Run::One(srv_weight), "a server's weight now").takes(&[Slot::Server], 1),
    row("srv_uweight", Kind::Integer, Run::One(srv_uweight), "a server's weight as set")
        .takes(&[Slot::Server], 1),
    row("srv_iweight", Kind::Integer, Run::One(srv_iweight), "a server's weight in the file")
        .takes(&[Slot::Server], 1),
];

fn constant<'e>(_: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    match arguments.get(0) {
        Some(Argument::Integer(value)) => match arguments.get(1) {
            // A truth value, see `prepare_bool`.
            Some(Argument::Integer(_)) => Some(Sample::Bool(*value != 0)),
            _ => Some(Sample::Integer(*value)),
        },
        Some(Argument::Address(address)) => Some(Sample::Address(*address)),
        Some(Argument::Text(text)) => match arguments.get(1) {
            // Bytes, see `prepare_bin`.
            Some(Argument::Integer(_)) => Some(Sample::Binary(text.into())),
            _ => Some(Sample::text(text)),
        },
        _ => None,
    }
}

fn prepare_bool(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let value = match arguments.text(0) {
        b"true" | b"1" => 1,
        b"false" | b"0" => 0,
        _ => return Err("it is `true` or `false`".to_owned()),
    };
    arguments.put(0, Argument::Integer(value));
    arguments.put(1, Argument::Integer(1));
    Ok(())
}

fn prepare_bin(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let bytes = from_hex(arguments.text(0)).ok_or("it is pairs of hexadecimal digits")?;
    arguments.put(0, Argument::Text(bytes));
    arguments.put(1, Argument::Integer(1));
    Ok(())
}

/// Pairs of hexadecimal digits.
pub(in crate::proxy::expression) fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn prepare_env(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let name = String::from_utf8_lossy(arguments.text(0)).into_owned();
    let value = std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec);
    arguments.put(0, value.map_or(Argument::Absent, Argument::Text));
    Ok(())
}

fn prepare_hostname(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    arguments.put(0, Argument::Text(name));
    Ok(())
}

fn always_true<'e>(_: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(true))
}

fn always_false<'e>(_: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(false))
}

fn one<'e>(_: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(1))
}

fn var<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let Some(Argument::Variable(variable)) = arguments.get(0) else { return None };
    match context.variable(*variable) {
        Some(value) => Some(value.borrow()),
        None => arguments.get(1).map(|_| Sample::text(arguments.text(1))),
    }
}

fn prepare_date(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    match arguments.text(1) {
        b"" | b"s" | b"ms" | b"us" => Ok(()),
        _ => Err("the unit is s, ms or us".to_owned()),
    }
}

fn date<'e>(_: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let value = match arguments.text(1) {
        b"ms" => i64::try_from(now.as_millis()).ok()?,
        b"us" => i64::try_from(now.as_micros()).ok()?,
        _ => i64::try_from(now.as_secs()).ok()?,
    };
    Some(Sample::Integer(value.wrapping_add(arguments.integer(0).unwrap_or(0))))
}

fn date_us<'e>(_: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Sample::Integer(now.subsec_micros().into()))
}

fn rand<'e>(_: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let value: u32 = rand::random();
    let value = match arguments.integer(0).and_then(|range| u64::try_from(range).ok()) {
        Some(range) => (u64::from(value) * range.min(1 << 32)) >> 32,
        None => value.into(),
    };
    i64::try_from(value).ok().map(Sample::Integer)
}

fn prepare_uuid(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    match arguments.integer(0) {
        None | Some(4) => Ok(()),
        Some(_) => Err("only version 4 is supported".to_owned()),
    }
}

fn uuid<'e>(_: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let text = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        bits >> 80 & 0xffff,
        bits >> 64 & 0xffff,
        bits >> 48 & 0xffff,
        bits & 0xffff_ffff_ffff
    );
    Some(Sample::made(text.into_bytes()))
}

fn stopping<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(context.running.stopping.load(Ordering::Relaxed)))
}

fn unique_id<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    context.exchange.unique_id.as_deref().map(Sample::text)
}

fn backend<'e>(context: &Context<'e>, arguments: &Arguments) -> Option<&'e Arc<Backend>> {
    context.running.proxies.get(arguments.section(0)?)?.backend.as_ref()
}

fn server<'e>(context: &Context<'e>, arguments: &Arguments) -> Option<&'e Server> {
    let Some(Argument::Server(backend, server)) = arguments.get(0) else { return None };
    context.running.proxies.get(*backend)?.backend.as_ref()?.servers.get(*server)
}

fn integer(value: impl Into<i64>) -> Option<Sample<'static>> {
    Some(Sample::Integer(value.into()))
}

/// Servers that a backend would use now: active ones; without any the first backup, or all with `option allbackups`.
pub(in crate::proxy::expression) fn usable(context: &Context<'_>, section: ProxyIndex) -> Option<i64> {
    let (active, backups) = context.running.proxies.get(section)?.backend.as_ref()?.usable();
    let all = context.config().proxies.get(section)?.options.allbackups;
    Some(match (active, all) {
        (0, false) => backups.min(1).into(),
        (0, true) => backups.into(),
        _ => active.into(),
    })
}

fn nbsrv<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    usable(context, arguments.section(0)?).and_then(integer)
}

fn pending(backend: &Backend) -> i64 {
    let servers: i64 =
        backend.servers.iter().map(|server| i64::from(server.queued.load(Ordering::Relaxed))).sum();
    servers + i64::from(backend.queued.load(Ordering::Relaxed))
}

fn queue<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    backend(context, arguments).and_then(|backend| integer(pending(backend)))
}

fn avg_queue<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let usable = usable(context, arguments.section(0)?)?;
    let pending = pending(backend(context, arguments)?);
    // Without any server the whole queue is the average, as HAProxy has it.
    integer(if usable > 0 { (pending + usable - 1) / usable } else { pending })
}

fn connslots<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let index = arguments.section(0)?;
    let backend = backend(context, arguments)?;
    let configured = &context.config().proxies.get(index)?.servers;
    let mut slots: i64 = 0;
    for (server, file) in backend.servers.iter().zip(configured).filter(|(server, _)| server.is_up()) {
        let (maxconn, maxqueue) = (server.maxconn.load(Ordering::Relaxed), file.maxqueue.unwrap_or(0));
        if maxconn == 0 || maxqueue == 0 {
            // No limit: HAProxy says that the question makes no sense.
            return integer(-1);
        }
        slots += i64::from(maxconn) - i64::from(server.sessions.load(Ordering::Relaxed))
            + i64::from(maxqueue)
            - i64::from(server.queued.load(Ordering::Relaxed));
    }
    integer(slots)
}

fn be_conn<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    integer(backend(context, arguments)?.counters.now.load(Ordering::Relaxed))
}

fn be_conn_free<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let index = arguments.section(0)?;
    let backend = backend(context, arguments)?;
    let configured = &context.config().proxies.get(index)?.servers;
    let only_backups = backend.usable().0 == 0;
    let mut free: i64 = 0;
    for (server, file) in backend.servers.iter().zip(configured).filter(|(server, _)| server.is_up()) {
        if file.backup && !only_backups {
            continue;
        }
        match free_of(server) {
            -1 => return integer(-1),
            slots => free += slots,
        }
    }
    integer(free)
}

/// Free connections of a server; -1 without a limit.
fn free_of(server: &Server) -> i64 {
    match server.maxconn.load(Ordering::Relaxed) {
        0 => -1,
        limit => (i64::from(limit) - i64::from(server.sessions.load(Ordering::Relaxed))).max(0),
    }
}

fn table_cnt<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let table = context.running.proxies.get(arguments.section(0)?)?.stick_table.as_ref()?;
    i64::try_from(table.used()).ok().map(Sample::Integer)
}

fn table_avl<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let table = context.running.proxies.get(arguments.section(0)?)?.stick_table.as_ref()?;
    i64::try_from(table.size().saturating_sub(table.used())).ok().map(Sample::Integer)
}

fn fe_conn<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let frontend = context.running.proxies.get(arguments.section(0)?)?.frontend.as_ref()?;
    integer(frontend.gate.now())
}

fn srv_conn<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    integer(server(context, arguments)?.sessions.load(Ordering::Relaxed))
}

fn srv_conn_free<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    integer(free_of(server(context, arguments)?))
}

fn srv_queue<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    integer(server(context, arguments)?.queued.load(Ordering::Relaxed))
}

fn srv_is_up<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(server(context, arguments)?.is_up()))
}

fn srv_weight<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let server = server(context, arguments)?;
    integer(if server.is_up() { server.weight.load(Ordering::Relaxed) } else { 0 })
}

fn srv_uweight<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    integer(server(context, arguments)?.weight.load(Ordering::Relaxed))
}

fn srv_iweight<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let Some(Argument::Server(backend, server)) = arguments.get(0) else { return None };
    integer(context.config().proxies.get(*backend)?.servers.get(*server)?.weight)
}
