//! `show table`, `set table`, `clear table`.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::{Level, Proxy, ProxyIndex, StickKey};
use crate::proxy::stick::{Key, Row, Table};
use std::fmt::Write as _;

/// A table that a command named.
struct Found<'r> {
    index: ProxyIndex,
    proxy: &'r Proxy,
    table: &'r Table,
}

fn tables<'r>(context: &Context<'r>) -> impl Iterator<Item = Found<'r>> {
    let sections = context.running.config.proxies.iter().zip(&context.running.proxies).enumerate();
    sections.filter_map(|(index, (proxy, state))| {
        state.stick_table.as_ref().map(|table| Found { index, proxy, table })
    })
}

fn find<'r>(context: &Context<'r>, name: &str) -> Result<Found<'r>, Answer> {
    tables(context).find(|found| found.proxy.name == name).ok_or_else(|| Answer::error("No such table\n"))
}

/// What stands behind a table's name.
enum Filter {
    All,
    Key(Key),
    /// `data.server_id OPERATOR NUMBER`
    Server(fn(u32, u32) -> bool, u32),
}

impl Filter {
    fn read(
        found: &Found<'_>,
        context: &Context<'_>,
        words: &[&str],
        otherwise: &str,
    ) -> Result<Filter, Answer> {
        match words {
            [] => Ok(Filter::All),
            ["key"] => Err(Answer::error("Key value expected\n")),
            ["key", key, ..] => Ok(Filter::Key(key_of(found, key)?)),
            [data, operator, number, ..] if *data == "data.server_id" && found.keeps_servers(context) => {
                let operator: fn(u32, u32) -> bool = match *operator {
                    "eq" => |one, other| one == other,
                    "ne" => |one, other| one != other,
                    "lt" => |one, other| one < other,
                    "le" => |one, other| one <= other,
                    "gt" => |one, other| one > other,
                    "ge" => |one, other| one >= other,
                    _ => {
                        return Err(Answer::error(
                            "Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \"gt\"\n",
                        ));
                    }
                };
                let number =
                    number.parse().map_err(|_| Answer::error("Require a valid integer value to store\n"))?;
                Ok(Filter::Server(operator, number))
            }
            [data, ..] if data.starts_with("data.") => {
                Err(Answer::error("Filter entry #1: Data type not stored in this table\n"))
            }
            _ => Err(Answer::error(otherwise)),
        }
    }

    fn wants(&self, row: &Row) -> bool {
        match self {
            Filter::All => true,
            Filter::Key(key) => row.key == *key,
            Filter::Server(operator, number) => operator(row.server_id, *number),
        }
    }
}

fn key_of(found: &Found<'_>, text: &str) -> Result<Key, Answer> {
    let kind = found.table.kind();
    let number = kind != StickKey::Integer || text.parse::<u32>().is_ok();
    Key::from_text(kind, text).filter(|_| number).ok_or_else(|| Answer::error("Invalid key\n"))
}

impl Found<'_> {
    /// Some rule writes servers into it.
    fn keeps_servers(&self, context: &Context<'_>) -> bool {
        let rules = context.running.config.proxies.iter().flat_map(|proxy| &proxy.stick_rules);
        rules.into_iter().any(|rule| rule.table == self.index)
    }

    fn heading(&self, out: &mut String) {
        let kind = match self.table.kind() {
            StickKey::Ip => "ip",
            StickKey::Ipv6 => "ipv6",
            StickKey::Integer => "integer",
            StickKey::String(_) => "string",
            StickKey::Binary(_) => "binary",
        };
        let (size, used) = (self.table.size(), self.table.used());
        let _ = writeln!(out, "# table: {}, type: {kind}, size:{size}, used:{used}", self.proxy.name);
    }

    fn row(&self, number: usize, row: &Row, with_server: bool, out: &mut String) {
        let left = row.expires_in.map_or(0, |left| left.as_millis());
        let _ = write!(out, "{:#x}: key={} use=0 exp={left}", number + 1, row.key.show(self.table.kind()));
        if with_server {
            let server = self.proxy.servers.iter().find(|server| server.id == row.server_id);
            let _ = write!(out, " server_id={}", row.server_id);
            let _ = write!(out, " server_key={}", server.map_or("-", |server| &server.name));
        }
        out.push('\n');
    }

    fn rows(&self, context: &Context<'_>, filter: &Filter) -> Vec<Row> {
        let now = context.moment.monotonic;
        match filter {
            Filter::Key(key) => self.table.peek(key, now).into_iter().collect(),
            _ => self.table.rows(now).into_iter().filter(|row| filter.wants(row)).collect(),
        }
    }
}

/// `show table [NAME [FILTER]]`.
pub(super) fn show(context: &Context<'_>, caller: &Caller, arguments: &[&str]) -> Answer {
    const OTHERWISE: &str =
        "Optional argument only supports \"data.<store_data_type>\" <operator> <value> and key <key>\n";
    let mut out = String::new();
    let Some((name, words)) = arguments.split_first() else {
        // HAProxy shows the last one first.
        let found: Vec<Found<'_>> = tables(context).collect();
        found.iter().rev().for_each(|found| found.heading(&mut out));
        return Answer::Text(out);
    };
    let found = match find(context, name) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let filter = match Filter::read(&found, context, words, OTHERWISE) {
        Ok(filter) => filter,
        Err(answer) => return answer,
    };
    let rows = found.rows(context, &filter);
    if matches!(filter, Filter::Key(_)) && rows.is_empty() {
        return Answer::Done;
    }
    found.heading(&mut out);
    if caller.level < Level::Operator {
        out.push_str("# contents not dumped due to insufficient privileges\n");
        return Answer::Text(out);
    }
    let with_server = found.keeps_servers(context);
    for (number, row) in rows.iter().enumerate() {
        found.row(number, row, with_server, &mut out);
    }
    Answer::Text(out)
}

/// `clear table NAME [FILTER]`.
pub(super) fn clear(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    const OTHERWISE: &str =
        "Required arguments: <table> \"data.<store_data_type>\" <operator> <value> or <table> key <key>\n";
    let Some((name, words)) = arguments.split_first() else { return Answer::error(OTHERWISE) };
    let found = match find(context, name) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    match Filter::read(&found, context, words, OTHERWISE) {
        Err(answer) => return answer,
        Ok(Filter::All) => found.table.clear(),
        Ok(filter) => {
            for row in found.rows(context, &filter) {
                found.table.remove(&row.key);
            }
        }
    }
    Answer::Done
}

/// `set table NAME key KEY [data.server_id NUMBER]`.
pub(super) fn set(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    const USAGE: &str = "Required arguments: <table> key <key> [data.<store_data_type> <value>]*\n";
    let Some((name, words)) = arguments.split_first() else { return Answer::error(USAGE) };
    let found = match find(context, name) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let (key, data) = match words {
        [] => return Answer::Done,
        ["key"] => return Answer::error("Key value expected\n"),
        ["key", key, data @ ..] => (*key, data),
        _ => return Answer::error(USAGE),
    };
    if matches!(found.table.kind(), StickKey::Binary(_)) {
        return Answer::error(
            "Inserting keys into tables of type other than ip, ipv6, string and integer is not supported\n",
        );
    }
    let key = match key_of(&found, key) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let server = match data {
        [] => None,
        ["data.server_id", number, ..] if found.keeps_servers(context) => match number.parse::<u32>() {
            Ok(number) => Some(number),
            Err(_) => return Answer::error("Require a valid integer value to store\n"),
        },
        _ => return Answer::error("Data type not stored in this table\n"),
    };
    // Without data an entry that is there keeps its server.
    let known = found.table.peek(&key, context.moment.monotonic).map_or(0, |row| row.server_id);
    if found.table.store(key, server.unwrap_or(known), context.moment.monotonic) {
        Answer::Done
    } else {
        Answer::error("Unable to allocate a new entry\n")
    }
}
