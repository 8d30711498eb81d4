//! A server at run time: is it well, may it be used, how much does it do.

use super::counters::ServerCounters;
use crate::proxy::config::model::{self, ServerAddress};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU8, AtomicU32};

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
    /// What was counted.
    pub counters: ServerCounters,
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
            maxconn: AtomicU32::new(server.maxconn.unwrap_or(0)),
            queued: AtomicU32::new(0),
            counters: ServerCounters::default(),
        }
    }
}
