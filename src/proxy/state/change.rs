//! Changes of a server while requests run: by the operator, by its checks. Each arranges the backend's order anew, serves who
//! waits for a server that has become usable, sends away who waits for one that has not, and tells what happened in HAProxy's
//! words.

use super::backend::Backend;
use super::news::Happening;
use super::server::{Administration, Operation, Server};
use crate::proxy::config::model::{ServerAddress, ServerIndex};
use crate::proxy::health::{CheckReport, CheckResult, CheckStatus, Turn};
use crate::proxy::log::Severity;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Least share of its weight that a starting server has, in percent: one of HAProxy's sixteenths.
const COLDEST: u32 = 6;

/// Why a server changed, for the log: nothing, or `, reason: ...`.
type Reason = String;

/// What a server was before a reload.
#[derive(Debug)]
pub(super) struct Restored {
    pub administration: u8,
    /// Absent: the file's.
    pub weight: Option<u32>,
    /// Absent: the server counts as up.
    pub operation: Option<Operation>,
    /// The last check, points, and whether checks are enabled.
    pub check: Option<(CheckReport, u32, bool)>,
    pub last_change: u64,
}

impl Backend {
    /// Makes a server what it was, and tells nobody: nothing has happened to it.
    pub(super) fn restore(self: &Arc<Backend>, server: ServerIndex, restored: Restored) {
        let known = &self.servers[server];
        known.administration.store(restored.administration, Ordering::SeqCst);
        if let Some(weight) = restored.weight {
            known.weight.store(weight.min(crate::proxy::balance::MOST_WEIGHT), Ordering::SeqCst);
        }
        let mut operation = restored.operation;
        if let (Some(checked), Some((report, points, enabled))) = (&known.check, restored.check) {
            let mut checked = checked.lock();
            checked.health.set_points(points);
            checked.last = report;
            checked.enabled = enabled;
            // `rise` may have been changed in the file: points decide only together with the state.
            if checked.health.is_up() == (operation == Some(Operation::Stopped)) {
                checked.health.set(operation != Some(Operation::Stopped));
            }
        } else {
            operation = None;
        }
        known.operation.store(operation.unwrap_or(Operation::Running) as u8, Ordering::SeqCst);
        known.last_change.store(restored.last_change, Ordering::Relaxed);
        self.arrange();
        if self.usable() == (0, 0) {
            self.last_change.store(restored.last_change, Ordering::Relaxed);
        }
    }

    /// `set server weight`: 0 to 256 (more is taken as 256). 0: clients bound to it only.
    pub fn set_weight(self: &Arc<Backend>, server: ServerIndex, weight: u32) {
        let weight = weight.min(crate::proxy::balance::MOST_WEIGHT);
        self.servers[server].weight.store(weight, Ordering::SeqCst);
        self.changed(server);
    }

    /// Sets and clears [`Administration`] bits: ready, drain, maint. How many requests left its queue for another server.
    pub fn set_administration(self: &Arc<Backend>, server: ServerIndex, set: u8, clear: u8) -> u32 {
        let known = &self.servers[server];
        let change = |bits: u8| Some((bits & !clear) | set);
        let before =
            known.administration.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).unwrap_or_default();
        let after = known.administration();
        let (was_shut, is_shut) =
            (before & Administration::ANY_MAINTENANCE != 0, after & Administration::ANY_MAINTENANCE != 0);
        let (drained, drains) = (before & Administration::DRAIN != 0, after & Administration::DRAIN != 0);
        match (was_shut, is_shut) {
            (false, true) => self.enter_maintenance(server),
            (true, false) => self.leave_maintenance(server, drains),
            (true, true) => 0,
            (false, false) if drained != drains => self.drain(server, drains),
            (false, false) => 0,
        }
    }

    /// `set server state ready`: neither draining nor in maintenance, whatever the file says.
    pub fn make_ready(self: &Arc<Backend>, server: ServerIndex) {
        self.set_administration(server, 0, Administration::ANY_MAINTENANCE | Administration::DRAIN);
    }

    /// `set server state drain`: clients that are bound to it only.
    pub fn make_drain(self: &Arc<Backend>, server: ServerIndex) {
        self.set_administration(server, Administration::DRAIN, Administration::ANY_MAINTENANCE);
    }

    /// `set server state maint`, `disable server`: nobody.
    pub fn make_maintenance(self: &Arc<Backend>, server: ServerIndex) {
        self.set_administration(server, Administration::MAINTENANCE, 0);
    }

    /// `enable server`: what it was besides maintenance.
    pub fn end_maintenance(self: &Arc<Backend>, server: ServerIndex) {
        self.set_administration(server, 0, Administration::ANY_MAINTENANCE);
    }

    /// `enable health`, `disable health`: whether checks go on; the server stays as it is. `false`: it has none.
    pub fn enable_checks(&self, server: ServerIndex, enabled: bool) -> bool {
        let check = self.servers[server].check.as_ref();
        check.inspect(|checked| checked.lock().enabled = enabled).is_some()
    }

    /// `set server health`: what checks are made to have said. How many requests left its queue for another server.
    pub fn set_operation(self: &Arc<Backend>, server: ServerIndex, operation: Operation) -> u32 {
        let known = &self.servers[server];
        if let Some(checked) = &known.check {
            checked.lock().health.set(operation != Operation::Stopped);
        }
        if known.operation() == operation {
            return 0;
        }
        self.turn(server, operation, ", changed from CLI".to_owned())
    }

    /// How far `slowstart` has come, 0 to 100 percent.
    pub fn set_warmth(self: &Arc<Backend>, server: ServerIndex, percent: u32) {
        self.servers[server].warmth.store(percent.min(100), Ordering::SeqCst);
        self.changed(server);
    }

    /// `set maxconn server`: 0 = no limit. Nobody is thrown out.
    pub fn set_maxconn(self: &Arc<Backend>, server: ServerIndex, maxconn: u32) {
        self.servers[server].maxconn.store(maxconn, Ordering::SeqCst);
        self.serve(server);
    }

    /// `set server addr`: requests from now on go there, also those for which a connection to the old address waits.
    pub fn set_address(&self, server: ServerIndex, address: ServerAddress) {
        let known = &self.servers[server];
        let mut current = known.address.write();
        *current = address;
        known.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// What a check found: counts it, tells it, and takes the server in or out.
    pub fn report(self: &Arc<Backend>, server: ServerIndex, mut report: CheckReport) {
        let known = &self.servers[server];
        let Some(checked) = &known.check else { return };
        let operation = known.operation();
        // A server that is down is not brought up by a conditional success.
        if operation == Operation::Stopped && report.status.result() == CheckResult::ConditionallyPassed {
            report.status = CheckStatus::Layer7Status;
        }
        let result = report.status.result();
        let (turn, line) = {
            let mut checked = checked.lock();
            checked.running = false;
            if known.is_in_maintenance() || !checked.enabled {
                return;
            }
            let before = (checked.last.status, checked.health);
            let turn = if result == CheckResult::Failed {
                if checked.health.is_up() {
                    known.counters.failed_checks.add(1);
                }
                checked.health.fail()
            } else {
                checked.health.pass()
            };
            let told = self.policy.log_checks && before != (report.status, checked.health);
            let line = told.then(|| self.check_line(known, &report, checked.health));
            checked.last = report.clone();
            (turn, line)
        };
        if let Some(line) = line {
            self.tell(Severity::Notice, line);
        }
        let reason = if self.policy.log_checks { String::new() } else { format!(", {}", report.reason()) };
        match (result, turn, operation) {
            (CheckResult::ConditionallyPassed, _, Operation::Running | Operation::Starting) => {
                self.turn(server, Operation::Stopping, reason);
            }
            (CheckResult::Passed, Turn::Up, _) | (CheckResult::Passed, _, Operation::Stopping) => {
                self.turn(server, self.started(server), reason);
            }
            (_, Turn::Down, _) => {
                self.turn(server, Operation::Stopped, reason);
            }
            _ => {}
        }
    }

    /// Lets servers that start slowly have more: called about every second. `now`: seconds since 1970.
    pub fn warm(self: &Arc<Backend>, now: u64) {
        for (index, known) in self.servers.iter().enumerate() {
            if known.operation() != Operation::Starting {
                continue;
            }
            let whole = known.slowstart.map_or(0, |time| time.as_millis() as u64);
            let since = now.saturating_sub(known.last_change.load(Ordering::Relaxed)) * 1000;
            if since >= whole {
                known.operation.store(Operation::Running as u8, Ordering::SeqCst);
                self.set_warmth(index, 100);
            } else {
                self.set_warmth(index, ((100 * since / whole) as u32).max(COLDEST));
            }
        }
    }

    /// What a server that comes up is: running, or starting if it has `slowstart`.
    fn started(&self, server: ServerIndex) -> Operation {
        let known = &self.servers[server];
        if known.operation() == Operation::Stopping || known.slowstart.is_none() {
            return Operation::Running;
        }
        known.warmth.store(COLDEST, Ordering::SeqCst);
        Operation::Starting
    }

    /// A server goes up, down, or stops slowly.
    fn turn(self: &Arc<Backend>, server: ServerIndex, operation: Operation, reason: Reason) -> u32 {
        let known = &self.servers[server];
        let before = known.operation();
        known.operation.store(operation as u8, Ordering::SeqCst);
        if matches!(operation, Operation::Running | Operation::Stopping) {
            known.warmth.store(100, Ordering::SeqCst);
        }
        let in_maintenance = known.is_in_maintenance();
        if !in_maintenance {
            self.note_time(known, before == Operation::Stopped);
        }
        let stopped = operation == Operation::Stopped;
        if stopped {
            known.counters.downs.add(1);
        }
        let gone = self.changed_telling(server, |backend, gone| {
            if in_maintenance {
                return None;
            }
            let title = backend.title(known);
            Some(match operation {
                Operation::Stopped => {
                    let severity =
                        if before == Operation::Stopping { Severity::Notice } else { Severity::Alert };
                    (severity, format!("{title} is DOWN{reason}. {}", backend.left(known, gone)))
                }
                Operation::Stopping => (
                    Severity::Notice,
                    format!("{title} is stopping{reason}. {}", backend.online(known, gone)),
                ),
                Operation::Running | Operation::Starting => {
                    (Severity::Notice, format!("{title} is UP{reason}. {}", backend.online(known, gone)))
                }
            })
        });
        if stopped && known.shut_when_down {
            self.news.tell(Happening::ShutSessions(self.index, server));
        }
        if before == Operation::Stopped && !stopped && known.shut_backups_when_up {
            let backups = self.servers.iter().enumerate().filter(|(_, other)| other.backup);
            backups.for_each(|(backup, _)| self.news.tell(Happening::ShutSessions(self.index, backup)));
        }
        gone
    }

    fn enter_maintenance(self: &Arc<Backend>, server: ServerIndex) -> u32 {
        let known = &self.servers[server];
        let was_up = known.operation() != Operation::Stopped;
        if was_up {
            known.counters.downs.add(1);
            self.note_time(known, false);
        }
        let gone = self.changed_telling(server, |backend, gone| {
            let title = backend.title(known);
            Some(if was_up {
                (
                    Severity::Alert,
                    format!("{title} is going DOWN for maintenance. {}", backend.left(known, gone)),
                )
            } else {
                (Severity::Notice, format!("{title} was DOWN and now enters maintenance."))
            })
        });
        if was_up && known.shut_when_down {
            self.news.tell(Happening::ShutSessions(self.index, server));
        }
        gone
    }

    /// It is taken for well until a check says otherwise.
    fn leave_maintenance(self: &Arc<Backend>, server: ServerIndex, drains: bool) -> u32 {
        let known = &self.servers[server];
        if let Some(checked) = &known.check {
            checked.lock().health.reset();
        }
        known.operation.store(Operation::Stopped as u8, Ordering::SeqCst);
        known.operation.store(self.started(server) as u8, Ordering::SeqCst);
        // HAProxy does not count maintenance as time down.
        known.last_change.store(super::seconds(), Ordering::Relaxed);
        self.changed_telling(server, |backend, _| {
            let state = if drains { "DRAIN" } else { "READY" };
            let title = backend.title(known);
            let line = format!("{title} is UP/{state} (leaving forced maintenance).");
            backend.tell(Severity::Notice, line);
            drains.then(|| (Severity::Notice, format!("{title} remains in forced drain mode.")))
        })
    }

    fn drain(self: &Arc<Backend>, server: ServerIndex, begins: bool) -> u32 {
        let known = &self.servers[server];
        known.last_change.store(super::seconds(), Ordering::Relaxed);
        self.changed_telling(server, |backend, gone| {
            let title = backend.title(known);
            Some(if begins {
                (Severity::Notice, format!("{title} enters drain state. {}", backend.online(known, gone)))
            } else {
                let state = if known.operation() == Operation::Stopped { "DOWN" } else { "UP" };
                (Severity::Notice, format!("{title} is {state} (leaving forced drain)."))
            })
        })
    }

    fn changed(self: &Arc<Backend>, server: ServerIndex) -> u32 {
        self.changed_telling(server, |_, _| None)
    }

    /// Arranges the order anew, moves who waits, and tells: first what `line` says (with the number that left the queue), then
    /// whether the backend has any server left.
    fn changed_telling(
        self: &Arc<Backend>,
        server: ServerIndex,
        line: impl FnOnce(&Arc<Backend>, u32) -> Option<(Severity, String)>,
    ) -> u32 {
        let before = self.usable();
        self.arrange();
        let after = self.usable();
        let gone = if self.servers[server].is_up() { 0 } else { self.redistribute(server) };
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Another one may have become the backup in charge: all are offered to those who wait.
            (0..self.servers.len()).for_each(|each| self.serve(each));
        }
        if let Some((severity, line)) = line(self, gone) {
            self.tell(severity, line);
        }
        let now = super::seconds();
        if before != (0, 0) && after == (0, 0) {
            self.counters.downs.add(1);
            self.last_change.store(now, Ordering::Relaxed);
            self.tell(Severity::Emergency, format!("backend {} has no server available!", self.name));
        } else if before == (0, 0) && after != (0, 0) {
            let since = now.saturating_sub(self.last_change.swap(now, Ordering::Relaxed));
            self.down_time.fetch_add(since, Ordering::Relaxed);
        }
        gone
    }

    /// Seconds that it has been without servers, at `now` (seconds since 1970).
    pub fn down_time(&self, now: u64) -> u64 {
        let before = self.down_time.load(Ordering::Relaxed);
        let present = now.saturating_sub(self.last_change.load(Ordering::Relaxed));
        if self.usable() == (0, 0) { before + present } else { before }
    }

    fn note_time(&self, known: &Server, was_down: bool) {
        let now = super::seconds();
        let since = now.saturating_sub(known.last_change.swap(now, Ordering::Relaxed));
        if was_down {
            known.down_time.fetch_add(since, Ordering::Relaxed);
        }
    }

    fn tell(&self, severity: Severity, line: String) {
        self.news.tell(Happening::Line(self.index, severity, line));
    }

    /// `Server b/s`, `Backup Server b/s`.
    fn title(&self, known: &Server) -> String {
        format!("{}Server {}/{}", if known.backup { "Backup " } else { "" }, self.name, known.name)
    }

    fn check_line(
        &self,
        known: &Server,
        report: &CheckReport,
        health: crate::proxy::health::Health,
    ) -> String {
        let how = match report.status.result() {
            CheckResult::Passed => "succeeded",
            CheckResult::ConditionallyPassed => "conditionally succeeded",
            _ => "failed",
        };
        let ((points, of), state) = (health.shown(), if health.is_up() { "UP" } else { "DOWN" });
        format!(
            "Health check for {}server {}/{} {how}, {}, status: {points}/{of} {state}.",
            if known.backup { "backup " } else { "" },
            self.name,
            known.name,
            report.reason()
        )
    }

    fn on_backup(&self) -> &'static str {
        match self.usable() {
            (0, backups) if backups > 0 => " Running on backup.",
            _ => "",
        }
    }

    /// What is left when a server has gone.
    fn left(&self, known: &Server, gone: u32) -> String {
        let (active, backups) = self.usable();
        format!(
            "{active} active and {backups} backup servers left.{} {} sessions active, {gone} requeued, {} remaining in queue.",
            self.on_backup(),
            known.sessions.load(Ordering::Relaxed),
            known.queued.load(Ordering::Relaxed)
        )
    }

    /// What there is when a server has come.
    fn online(&self, known: &Server, gone: u32) -> String {
        let (active, backups) = self.usable();
        format!(
            "{active} active and {backups} backup servers online.{} {gone} sessions requeued, {} total in queue.",
            self.on_backup(),
            known.queued.load(Ordering::Relaxed)
        )
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
