//! `show ...` that change nothing.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::{Bind, BindAddress, Level};
use crate::proxy::stats::{self, Form, PRODUCT, Selection, View, info};

/// `show backend`.
pub(super) fn backends(context: &Context<'_>, _: &Caller, _: &[&str]) -> Answer {
    let backends = context.running.config.proxies.iter().filter(|proxy| proxy.back && !proxy.disabled);
    let lines = backends.map(|proxy| format!("{}\n", proxy.name));
    Answer::Text(std::iter::once("# name\n".to_owned()).chain(lines).collect())
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::User => "user",
        Level::Operator => "operator",
        Level::Admin => "admin",
    }
}

/// `show cli level`.
pub(super) fn level(_: &Context<'_>, caller: &Caller, _: &[&str]) -> Answer {
    Answer::info(format!("{}\n", level_word(caller.level)))
}

/// `show cli sockets`.
pub(super) fn sockets(context: &Context<'_>, _: &Caller, _: &[&str]) -> Answer {
    let mut out = "# socket lvl processes\n".to_owned();
    for socket in &context.running.config.global.stats_sockets {
        out.push_str(&format!("{} {} all\n", socket_name(socket), level_word(socket.level)));
    }
    Answer::Text(out)
}

fn socket_name(socket: &Bind) -> String {
    match &socket.address {
        BindAddress::Tcp(std::net::SocketAddr::V4(address)) => format!("ipv4@{address}"),
        BindAddress::Tcp(address) => format!("ipv6@{address}"),
        BindAddress::Unix(path) => format!("unix@{}", path.display()),
        BindAddress::Abstract(name) => format!("abns@{}", String::from_utf8_lossy(name)),
        BindAddress::Descriptor(number) => format!("sockpair@{number}"),
    }
}

/// `show env [NAME]`.
pub(super) fn environment(_: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let text = |name: &std::ffi::OsStr, value: &std::ffi::OsStr| {
        format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy())
    };
    match arguments.first() {
        None => Answer::Text(std::env::vars_os().map(|(name, value)| text(&name, &value)).collect()),
        Some(name) => match std::env::vars_os().find(|(known, _)| *known == **name) {
            Some((name, value)) => Answer::Text(text(&name, &value)),
            None => Answer::error("Variable not found\n"),
        },
    }
}

/// Words behind `show stat` and `show info`; those of no meaning are passed over, as HAProxy does.
fn form(arguments: &[&str]) -> (Form, bool) {
    let mut form = Form::Csv;
    for argument in arguments {
        match *argument {
            "typed" => form = Form::Typed,
            "json" => form = Form::Json,
            _ => {}
        }
    }
    (form, arguments.contains(&"desc"))
}

/// `show metrics`: what the exporter says, for who serves it elsewhere (the dashboard of `ehpc-store up`).
pub(super) fn metrics(context: &Context<'_>, _: &Caller, _: &[&str]) -> Answer {
    Answer::Text(stats::prometheus::render(context.running, context.process, context.moment))
}

/// `show info`.
pub(super) fn info(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let (form, describe) = form(arguments);
    let facts = info::Facts { running: context.running, process: context.process, moment: context.moment };
    Answer::Text(info::show(&facts, form, describe))
}

/// `show stat [IID|NAME TYPE SID] ...`.
pub(super) fn stat(context: &Context<'_>, caller: &Caller, arguments: &[&str]) -> Answer {
    let mut selection = Selection::default();
    let mut words = arguments;
    if let [proxy, kinds, id, rest @ ..] = arguments {
        let named = context.running.config.proxies.iter().find(|known| known.name == *proxy);
        let number = named.map(|known| i64::from(known.id)).or_else(|| leading_number(proxy));
        match number {
            None | Some(0) => return Answer::error("No such proxy.\n"),
            Some(number) => selection.proxy = u32::try_from(number).ok(),
        }
        selection.kinds = leading_number(kinds).and_then(|kinds| u32::try_from(kinds).ok());
        selection.id = leading_number(id).and_then(|id| u32::try_from(id).ok());
        words = rest;
    }
    selection.up = words.contains(&"up");
    selection.without_maintenance = words.contains(&"no-maint");
    let legends = caller.level >= Level::Operator;
    let view = View { running: context.running, moment: context.moment, legends };
    let rows = stats::rows(&view, &selection);
    let (form, describe) = form(words);
    Answer::Text(stats::dump(&rows, form, describe))
}

/// A number as `atoi` reads it, `None` when there is none. -1 stands for all.
fn leading_number(text: &str) -> Option<i64> {
    let sign = usize::from(text.starts_with('-'));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    text[..sign + digits].parse().ok()
}

/// `show startup-logs`: what the configuration was warned of.
pub(super) fn startup_logs(context: &Context<'_>, _: &Caller, _: &[&str]) -> Answer {
    Answer::Text(context.running.config.warnings.iter().map(|line| format!("[WARNING] {line}\n")).collect())
}

/// `show version`.
pub(super) fn version(_: &Context<'_>, _: &Caller, _: &[&str]) -> Answer {
    Answer::info(format!("{}\n", PRODUCT.1))
}
