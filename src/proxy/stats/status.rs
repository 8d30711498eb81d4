//! The status column: what a frontend, a listener, a server, a backend is doing, in HAProxy's words.

use super::value::Value;
use crate::proxy::config::model::{self, Proxy};
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

/// In maintenance, by a command or by the file.
pub(super) fn in_maintenance(state: &Server) -> bool {
    let maintenance = Administration::MAINTENANCE | Administration::CONFIGURED_MAINTENANCE;
    state.administration.load(Relaxed) & maintenance != 0
}

/// Gets no requests at all.
pub(super) fn is_down(state: &Server) -> bool {
    in_maintenance(state) || state.operation.load(Relaxed) == Operation::Stopped as u8
}

/// A server's status.
pub(super) fn of_server(server: &model::Server, state: &Server) -> Value {
    let draining = state.administration.load(Relaxed) & Administration::DRAIN != 0;
    let operation = state.operation.load(Relaxed);
    if in_maintenance(state) {
        return "MAINT".into();
    }
    match operation {
        _ if operation == Operation::Stopped as u8 => "DOWN".into(),
        _ if operation == Operation::Stopping as u8 => "NOLB".into(),
        _ if draining => "DRAIN".into(),
        _ if server.check.is_none() => "no check".into(),
        _ => "UP".into(),
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
            let draining = state.administration.load(Relaxed) & Administration::DRAIN != 0;
            let weight = state.weight.load(Relaxed);
            if is_down(state)
                || draining
                || weight == 0
                || state.operation.load(Relaxed) == Operation::Stopping as u8
            {
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
