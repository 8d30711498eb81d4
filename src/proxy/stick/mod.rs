//! Stick tables (`stick-table`, `stick on` ... in 4.2 of the manual): which server a key was served by. The rules are
//! applied to an exchange before a server is chosen, and again when one has answered. The clock is passed in.

mod key;
mod table;

pub use key::Key;
pub use table::{Row, Table};

use super::config::model::{ProxyIndex, ServerIndex, StickRule};
use super::exchange::Exchange;
use super::expression::{Context, applies};
use super::state::Running;
use std::time::Instant;

/// Keys that will name the server, once there is one: (section of the table, key). At most one a table.
pub type Pending = smallvec::SmallVec<[(ProxyIndex, Key); 1]>;

fn table(running: &Running, section: ProxyIndex) -> Option<&Table> {
    running.proxies.get(section)?.stick_table.as_ref()
}

/// Applies the rules of a request; `backend` is the section they stand in. Returns the server that a table remembers;
/// whether it may be used is the caller's to know. Keys to store are kept in `exchange.stick`.
pub fn request(
    rules: &[StickRule],
    backend: ProxyIndex,
    exchange: &mut Exchange,
    running: &Running,
    now: Instant,
) -> Option<ServerIndex> {
    let mut found = None;
    for rule in rules.iter().filter(|rule| !rule.of_response) {
        // Only the first store of each table counts: rules go from the finest key to the coarsest.
        if exchange.stick.iter().any(|(known, _)| *known == rule.table) {
            continue;
        }
        let Some(table) = table(running, rule.table) else { continue };
        let Some(key) = key_of(rule, table, exchange, running) else { continue };
        if rule.matches {
            let id = table.find(&key, now);
            found = found.or_else(|| server_of(id?, backend, running));
        }
        if rule.stores {
            exchange.stick.push((rule.table, key));
        }
    }
    found
}

/// Applies `stick store-response`, then writes down which server it was. Call it when a server has answered.
pub fn response(
    rules: &[StickRule],
    server_id: u32,
    exchange: &mut Exchange,
    running: &Running,
    now: Instant,
) {
    for rule in rules.iter().filter(|rule| rule.of_response) {
        if exchange.stick.iter().any(|(known, _)| *known == rule.table) {
            continue;
        }
        let Some(table) = table(running, rule.table) else { continue };
        if let Some(key) = key_of(rule, table, exchange, running) {
            exchange.stick.push((rule.table, key));
        }
    }
    for (section, key) in exchange.stick.drain(..) {
        if let Some(table) = table(running, section) {
            table.store(key, server_id, now);
        }
    }
}

fn key_of(rule: &StickRule, table: &Table, exchange: &Exchange, running: &Running) -> Option<Key> {
    let context = Context { exchange, running };
    if !applies(rule.condition.as_ref(), &context) {
        return None;
    }
    rule.expression.evaluate(&context).and_then(|sample| Key::new(table.kind(), sample))
}

/// The server of that number (`id`), as tables remember it.
fn server_of(id: u32, backend: ProxyIndex, running: &Running) -> Option<ServerIndex> {
    running.config.proxies.get(backend)?.servers.iter().position(|server| server.id == id)
}
