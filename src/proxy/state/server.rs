//! A server at run time: is it well, may it be used, how much does it do.
//!
//! Everything here may be read at any time. What decides who gets requests is changed through
//! [`Backend`](super::Backend) (`set_weight`, `set_administration`, `set_operation`, `set_maxconn`), which then arranges its
//! order anew and serves who waits.

use super::counters::ServerCounters;
use crate::proxy::balance::WEIGHT_SCALE;
use crate::proxy::config::model::{self, ServerAddress};
use crate::proxy::health::{CheckReport, CheckStatus, Health};
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// One server of a backend.
#[derive(Debug)]
pub struct Server {
    /// Its name in the file.
    pub name: String,
    /// Current address (`set server addr` changes it).
    pub address: RwLock<ServerAddress>,
    /// Current weight, 0 to 256.
    pub weight: AtomicU32,
    /// [`Administration`] bits.
    pub administration: AtomicU8,
    /// [`Operation`] as a number.
    pub operation: AtomicU8,
    /// Connections in use now.
    pub sessions: AtomicU32,
    /// 0 = no limit (`set maxconn server` changes it).
    pub maxconn: AtomicU32,
    /// Requests in its own queue.
    pub queued: AtomicU32,
    /// How far `slowstart` has come, in percent.
    pub warmth: AtomicU32,
    /// What was counted.
    pub counters: ServerCounters,
    /// Takes requests only when no other does.
    pub backup: bool,
    /// Limit while the backend is idle; it grows to `maxconn` with the backend's load. 0: `maxconn` always.
    pub minconn: u32,
    /// Longest own queue, 0 = no limit.
    pub maxqueue: u32,
    /// `slowstart`: how long it takes to have its full weight again.
    pub slowstart: Option<Duration>,
    /// What checks found; absent: it is not checked.
    pub check: Option<Mutex<Checked>>,
    /// When its state changed last, seconds since 1970 (`lastchg` is the time since then).
    pub last_change: AtomicU64,
    /// Seconds that it has been down, without the present time (`downtime`, see [`Server::down_time`]).
    pub(super) down_time: AtomicU64,
    /// `on-marked-down shutdown-sessions`, `on-marked-up shutdown-backup-sessions`.
    pub(super) shut_when_down: bool,
    pub(super) shut_backups_when_up: bool,
    /// Value of the turn at which its number of sessions changed last (`balance leastconn`, first of equals).
    pub(super) changed: AtomicU64,
    /// [`Server::generation`]; changes together with the address.
    pub(super) generation: AtomicU32,
}

/// What checks have found of a server.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Points.
    pub health: Health,
    /// The last finished check.
    pub last: CheckReport,
    /// A check is under way (`* ` before its status in stats).
    pub running: bool,
    /// `disable health` stops checks; the state stays as it is.
    pub enabled: bool,
}

/// What the operator wants, bits of [`Server::administration`]. 0: ready.
#[derive(Debug)]
pub struct Administration;

impl Administration {
    /// `set server state maint`, `disable server`.
    pub const MAINTENANCE: u8 = 1;
    /// `disabled` in the file.
    pub const CONFIGURED_MAINTENANCE: u8 = 2;
    /// `set server state drain`.
    pub const DRAIN: u8 = 4;
    /// Nobody gets through: either kind of maintenance.
    pub const ANY_MAINTENANCE: u8 = Administration::MAINTENANCE | Administration::CONFIGURED_MAINTENANCE;
}

/// What checks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Operation {
    Stopped = 0,
    Starting = 1,
    Running = 2,
    /// `http-check disable-on-404`: takes sticky clients only.
    Stopping = 3,
}

impl Server {
    /// As the file says: up until a check says otherwise.
    pub fn new(server: &model::Server) -> Server {
        let administration = if server.disabled { Administration::CONFIGURED_MAINTENANCE } else { 0 };
        let check = server.check.as_ref().map(|timing| {
            Mutex::new(Checked {
                health: Health::new(timing.rise, timing.fall),
                last: CheckReport::new(CheckStatus::Initializing),
                running: false,
                enabled: true,
            })
        });
        Server {
            name: server.name.clone(),
            address: RwLock::new(server.address.clone()),
            weight: AtomicU32::new(server.weight),
            administration: AtomicU8::new(administration),
            operation: AtomicU8::new(Operation::Running as u8),
            sessions: AtomicU32::new(0),
            // `minconn` alone is a limit, too (5.2 `minconn`).
            maxconn: AtomicU32::new(server.maxconn.or(server.minconn).unwrap_or(0)),
            queued: AtomicU32::new(0),
            warmth: AtomicU32::new(100),
            counters: ServerCounters::default(),
            backup: server.backup,
            minconn: server.minconn.unwrap_or(0),
            maxqueue: server.maxqueue.unwrap_or(0),
            slowstart: server.slowstart.filter(|time| !time.is_zero()),
            check,
            last_change: AtomicU64::new(super::seconds()),
            down_time: AtomicU64::new(0),
            shut_when_down: server.shutdown_sessions_when_down,
            shut_backups_when_up: server.shutdown_backup_sessions_when_up,
            changed: AtomicU64::new(0),
            generation: AtomicU32::new(0),
        }
    }

    /// What checks say now.
    pub fn operation(&self) -> Operation {
        match self.operation.load(Ordering::SeqCst) {
            0 => Operation::Stopped,
            1 => Operation::Starting,
            2 => Operation::Running,
            _ => Operation::Stopping,
        }
    }

    /// The operator's bits now ([`Administration`]).
    pub fn administration(&self) -> u8 {
        self.administration.load(Ordering::SeqCst)
    }

    /// It is in maintenance, by the operator or by the file.
    pub fn is_in_maintenance(&self) -> bool {
        self.administration() & Administration::ANY_MAINTENANCE != 0
    }

    /// Which of its addresses it has, from 0: a connection that was made under another one leads elsewhere. Exact
    /// only together with [`Server::address`], which is not to be changed meanwhile.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// A copy of what checks have found, if it is checked.
    pub fn checked(&self) -> Option<Checked> {
        self.check.as_ref().map(|checked| checked.lock().clone())
    }

    /// Seconds that it has been down, at `now` (seconds since 1970).
    pub fn down_time(&self, now: u64) -> u64 {
        let before = self.down_time.load(Ordering::Relaxed);
        let present = now.saturating_sub(self.last_change.load(Ordering::Relaxed));
        if self.is_up() { before } else { before + present }
    }

    /// It may be connected to: not in maintenance, not down. Clients that are bound to it keep it.
    pub fn is_up(&self) -> bool {
        !self.is_in_maintenance() && self.operation() != Operation::Stopped
    }

    /// Balancing may choose it: up, neither draining nor stopping, weight above 0.
    pub fn takes_new(&self) -> bool {
        self.administration() == 0
            && matches!(self.operation(), Operation::Starting | Operation::Running)
            && self.weight.load(Ordering::SeqCst) > 0
    }

    /// Weight in sixteenths, less while it starts slowly.
    pub fn effective_weight(&self) -> u32 {
        let full = self.weight.load(Ordering::SeqCst) * WEIGHT_SCALE;
        (full * self.warmth.load(Ordering::SeqCst).min(100)).div_ceil(100).max(full.min(1))
    }

    /// How many connections it may have now, 0 = no limit. `load`: sessions of the backend, and its `fullconn`.
    pub(super) fn limit(&self, load: impl FnOnce() -> (u32, u32)) -> u32 {
        let most = self.maxconn.load(Ordering::SeqCst);
        if most == 0 {
            return 0;
        }
        let mut limit = most;
        if self.minconn > 0 && self.minconn < most {
            let (now, full) = load();
            if now < full {
                let grown = u64::from(now) * u64::from(most) / u64::from(full);
                limit = u32::try_from(grown).unwrap_or(most).max(self.minconn);
            }
        }
        let warmth = self.warmth.load(Ordering::Relaxed);
        if warmth < 100 { (limit * warmth / 100).max(1) } else { limit }
    }

    /// Takes a connection if there are fewer than `limit` (0 = no limit).
    pub(super) fn enter(&self, limit: u32) -> bool {
        let before = if limit == 0 {
            Ok(self.sessions.fetch_add(1, Ordering::SeqCst))
        } else {
            let room = |now: u32| (now < limit).then(|| now + 1);
            self.sessions.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
        };
        let Ok(before) = before else { return false };
        if before + 1 > self.counters.most.load(Ordering::Relaxed) {
            self.counters.most.fetch_max(before + 1, Ordering::Relaxed);
        }
        true
    }
}
