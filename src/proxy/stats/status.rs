//! The status column: what a frontend, a listener, a server, a backend is doing, in HAProxy's words.

use super::value::Value;
use crate::proxy::config::model::Proxy;
use crate::proxy::state::{Administration, Backend, Frontend, Listener, Operation, Server};
use std::sync::atomic::Ordering::Relaxed;

/// `OPEN`, or `PAUSED` after `disable frontend`.
pub(super) fn of_frontend(state: &Frontend) -> &'static str {
    if state.paused.load(Relaxed) { "PAUSED" } else { "OPEN" }
}

/// `OPEN`, `FULL` at its `maxconn`, `WAITING` while its frontend does not accept.
pub(super) fn of_listener(state: &Frontend, listener: &Listener) -> &'static str {
    let full = |gate: &crate::proxy::state::Gate| gate.now() >= gate.limit();
    match &listener.gate {
        Some(gate) if full(gate) => "FULL",
        _ if full(&state.gate) => "FULL",
        _ if state.paused.load(Relaxed) => "WAITING",
        _ => "OPEN",
    }
}

/// A server's status: with its points while checks are changing it.
pub(super) fn of_server(state: &Server) -> Value {
    if state.is_in_maintenance() {
        return "MAINT".into();
    }
    let checked = state.checked().filter(|checked| checked.enabled);
    let points = checked.as_ref().map(|checked| &checked.health).filter(|health| health.is_in_transition());
    let word = match state.operation() {
        Operation::Stopped => "DOWN",
        Operation::Stopping => "NOLB",
        _ if state.administration() & Administration::DRAIN != 0 => "DRAIN",
        _ if checked.is_none() => "no check",
        _ => "UP",
    };
    match points.map(|health| health.shown()) {
        Some((now, of)) => format!("{word} {now}/{of}").into(),
        None => word.into(),
    }
}

/// Sums over a backend's servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    /// Servers that new requests may go to, by kind.
    pub(super) active: u32,
    pub(super) backup: u32,
    /// Weight of those in use: the active ones, or the backup ones when no active one is left.
    pub(super) weight: u32,
    all: u32,
}

impl Totals {
    pub(super) fn of(proxy: &Proxy, state: &Backend) -> Totals {
        let mut totals = Totals::default();
        let (mut active_weight, mut backup_weight) = (0, 0);
        for (server, state) in proxy.servers.iter().zip(&state.servers) {
            totals.all += 1;
            let weight = state.weight.load(Relaxed);
            if !state.takes_new() {
                continue;
            }
            if server.backup {
                totals.backup += 1;
                if backup_weight == 0 || proxy.options.allbackups {
                    backup_weight += weight;
                }
            } else {
                totals.active += 1;
                active_weight += weight;
            }
        }
        totals.weight = if totals.active > 0 { active_weight } else { backup_weight };
        totals
    }

    /// `UP` or `DOWN`; with `count` how many of how many servers are up.
    pub(super) fn status(&self, proxy: &Proxy, count: bool) -> Value {
        let up = self.weight > 0 || proxy.servers.is_empty();
        let word = if up { "UP" } else { "DOWN" };
        match count {
            true => format!("{word} ({}/{})", self.active + self.backup, self.all).into(),
            false => word.into(),
        }
    }
}
