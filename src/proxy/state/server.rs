//! A server at run time: is it well, may it be used, how much does it do.
//!
//! Everything here may be read at any time. What decides who gets requests is changed through
//! [`Backend`](super::Backend) (`set_weight`, `set_administration`, `set_operation`, `set_maxconn`), which then arranges its
//! order anew and serves who waits.

use super::counters::ServerCounters;
use crate::proxy::balance::WEIGHT_SCALE;
use crate::proxy::config::model::{self, ServerAddress};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// One server of a backend.
#[derive(Debug)]
pub struct Server {
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
    /// Value of the turn at which its number of sessions changed last (`balance leastconn`, first of equals).
    pub(super) changed: AtomicU64,
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
        Server {
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
            changed: AtomicU64::new(0),
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

    /// It may be connected to: not in maintenance, not down. Clients that are bound to it keep it.
    pub fn is_up(&self) -> bool {
        self.administration() & Administration::ANY_MAINTENANCE == 0 && self.operation() != Operation::Stopped
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
