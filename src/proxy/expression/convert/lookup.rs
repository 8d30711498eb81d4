//! Converters that look something up: maps, variables, masks, sections.

use super::texts::bytes;
use super::{Converter, row};
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::map::{self, Map};
use crate::proxy::expression::{Context, Kind, Sample, Scope};
use crate::proxy::stick::{Key, Row};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const T: Kind = Kind::Text;
const AROUND: &[Slot] = &[Slot::Text, Slot::Variable, Slot::Text];

pub(super) const TABLE: &[Converter] = &[
    row("concat", T, T, concat, "with a text, a variable and a text appended").takes(AROUND, 0),
    row("add_item", T, T, add_item, "the same, behind a delimiter where one is needed")
        .takes(AROUND, 1)
        .prepared(check_item),
    row("strcmp", T, Kind::Integer, strcmp, "compared with a variable").takes(&[Slot::Variable], 1),
    row("iif", Kind::Bool, T, iif, "one of two texts").takes(&[Slot::Text, Slot::Text], 2),
    row("ipmask", Kind::Address, Kind::Address, ipmask, "with a mask applied")
        .takes(&[Slot::Mask4, Slot::Mask6], 1),
    row("in_table", Kind::Any, Kind::Bool, in_table, "the key is in a stick table").takes(&[Slot::Table], 1),
    row(
        "table_server_id",
        Kind::Any,
        Kind::Integer,
        table_server_id,
        "number of the key's server, 0 without one",
    )
    .takes(&[Slot::Table], 1),
    row("table_expire", Kind::Any, Kind::Integer, table_expire, "milliseconds until the key is forgotten")
        .takes(&[Slot::Table, Slot::Integer], 1),
    row("table_idle", Kind::Any, Kind::Integer, table_idle, "milliseconds since the key was used")
        .takes(&[Slot::Table, Slot::Integer], 1),
    row("nbsrv", T, Kind::Integer, nbsrv, "usable servers of the backend of that name"),
    row("srv_queue", T, Kind::Integer, srv_queue, "requests in the queue of the server `backend/server`"),
];

fn concat<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let mut text = bytes(sample).into_owned();
    text.extend_from_slice(arguments.text(0));
    if let Some(Argument::Variable(variable)) = arguments.get(1)
        && let Some(value) = context.variable(*variable)
    {
        text.extend_from_slice(&value.borrow().into_text());
    }
    text.extend_from_slice(arguments.text(2));
    Some(Sample::made(text))
}

fn check_item(arguments: &mut Arguments, _: &Scope<'_>) -> Result<(), String> {
    if arguments.get(1).is_none() && arguments.text(2).is_empty() {
        return Err("it needs a variable or a suffix".to_owned());
    }
    Ok(())
}

fn add_item<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let mut item = Vec::new();
    if let Some(Argument::Variable(variable)) = arguments.get(1)
        && let Some(value) = context.variable(*variable)
    {
        item.extend_from_slice(&value.borrow().into_text());
    }
    item.extend_from_slice(arguments.text(2));
    let text = bytes(sample);
    if item.is_empty() {
        return Some(Sample::Text(text));
    }
    let delimiter = if text.is_empty() { b"" } else { arguments.text(0) };
    Some(Sample::made([&*text, delimiter, &item].concat()))
}

fn strcmp<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let Some(Argument::Variable(variable)) = arguments.get(0) else { return None };
    let other = context.variable(*variable)?.borrow().into_text();
    let text = bytes(sample);
    let common = text.iter().zip(other.iter()).find(|(a, b)| a != b);
    let result = match common {
        Some((a, b)) => i64::from(*a) - i64::from(*b),
        None => i64::try_from(text.len()).ok()? - i64::try_from(other.len()).ok()?,
    };
    Some(Sample::Integer(result))
}

fn iif<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(Sample::text(arguments.text(if sample.to_bool()? { 0 } else { 1 })))
}

fn ipmask<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let masked = match (sample.to_address()?, arguments.address(0), arguments.address(1)) {
        (IpAddr::V4(address), Some(IpAddr::V4(mask)), _) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & u32::from(mask)))
        }
        (IpAddr::V6(address), _, Some(IpAddr::V6(mask))) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & u128::from(mask)))
        }
        _ => return None,
    };
    Some(Sample::Address(masked))
}

/// The entry of a key, not touched; the outer `None` when the value is no key.
#[allow(clippy::option_option)]
fn entry(sample: Sample<'_>, arguments: &Arguments, context: &Context<'_>) -> Option<Option<Row>> {
    let table = context.running.proxies.get(arguments.section(0)?)?.stick_table.as_ref()?;
    let key = Key::new(table.kind(), sample)?;
    Some(table.peek(&key, Instant::now()))
}

fn in_table<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let row = entry(sample, arguments, context)?;
    Some(Sample::Bool(row.is_some()))
}

fn table_server_id<'e>(
    sample: Sample<'e>,
    arguments: &'e Arguments,
    context: &Context<'e>,
) -> Option<Sample<'e>> {
    let row = entry(sample, arguments, context)?;
    Some(Sample::Integer(row.map_or(0, |row| row.server_id.into())))
}

fn milliseconds(duration: Duration) -> Option<Sample<'static>> {
    i64::try_from(duration.as_millis()).ok().map(Sample::Integer)
}

fn table_expire<'e>(
    sample: Sample<'e>,
    arguments: &'e Arguments,
    context: &Context<'e>,
) -> Option<Sample<'e>> {
    match entry(sample, arguments, context)? {
        Some(row) => milliseconds(row.expires_in.unwrap_or_default()),
        None => arguments.integer(1).map(Sample::Integer),
    }
}

fn table_idle<'e>(sample: Sample<'e>, arguments: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    match entry(sample, arguments, context)? {
        Some(row) => milliseconds(row.idle),
        None => arguments.integer(1).map(Sample::Integer),
    }
}

/// A backend by a name that is known only now: few, so that a search is cheap.
fn nbsrv<'e>(sample: Sample<'e>, _: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let name = bytes(sample);
    let index =
        context.config().proxies.iter().position(|proxy| proxy.back && proxy.name.as_bytes() == &*name)?;
    crate::proxy::expression::fetch::usable(context, index).map(Sample::Integer)
}

fn srv_queue<'e>(sample: Sample<'e>, _: &'e Arguments, context: &Context<'e>) -> Option<Sample<'e>> {
    let name = bytes(sample);
    let slash = name.iter().position(|byte| *byte == b'/')?;
    let proxies = &context.config().proxies;
    let backend = proxies.iter().position(|proxy| proxy.back && proxy.name.as_bytes() == &name[..slash])?;
    let servers = &proxies.get(backend)?.servers;
    let server = servers.iter().position(|server| server.name.as_bytes() == &name[slash + 1..])?;
    let running = context.running.proxies.get(backend)?.backend.as_ref()?.servers.get(server)?;
    Some(Sample::Integer(running.queued.load(std::sync::atomic::Ordering::Relaxed).into()))
}

/// Reads the file of a map converter and puts the map in its place.
pub(in crate::proxy::expression) fn prepare_map(
    name: &str,
    arguments: &mut Arguments,
    scope: &Scope<'_>,
) -> Result<(Kind, Kind), String> {
    let (method, output) = map::of_name(name).ok_or_else(|| format!("there is no converter `{name}`"))?;
    let file = String::from_utf8_lossy(arguments.text(0)).into_owned();
    let content = (scope.read)(Path::new(&file)).map_err(|error| format!("{file}: {error}"))?;
    let map = Map::read(&content, method, output).map_err(|fault| format!("{file}: {fault}"))?;
    if arguments.get(1).is_some() {
        let default = String::from_utf8_lossy(arguments.text(1)).into_owned();
        let fault = |_| format!("argument 2: `{default}` has not the type of the values");
        match output {
            map::Output::Integer => arguments.put(
                1,
                Argument::Integer(
                    default.parse().map_err(|e: std::num::ParseIntError| fault(e.to_string()))?,
                ),
            ),
            map::Output::Address => arguments.put(
                1,
                Argument::Address(
                    default.parse().map_err(|e: core::net::AddrParseError| fault(e.to_string()))?,
                ),
            ),
            map::Output::Text | map::Output::Groups => {}
        }
    }
    arguments.put(0, Argument::Map(Arc::new(map)));
    let input = match method {
        crate::proxy::expression::pattern::Method::Integer => Kind::Integer,
        crate::proxy::expression::pattern::Method::Address => Kind::Address,
        _ => Kind::Text,
    };
    let output = match output {
        map::Output::Integer => Kind::Integer,
        map::Output::Address => Kind::Address,
        map::Output::Text | map::Output::Groups => Kind::Text,
    };
    Ok((input, output))
}

/// The map converters.
pub(in crate::proxy::expression) fn map<'e>(
    sample: Sample<'e>,
    arguments: &'e Arguments,
    _: &Context<'e>,
) -> Option<Sample<'e>> {
    let Some(Argument::Map(map)) = arguments.get(0) else { return None };
    map.find(&sample).or_else(|| match arguments.get(1)? {
        Argument::Text(text) => Some(Sample::text(text)),
        Argument::Integer(value) => Some(Sample::Integer(*value)),
        Argument::Address(address) => Some(Sample::Address(*address)),
        _ => None,
    })
}
