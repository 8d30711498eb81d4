//! NFSv3, MOUNT3, NLM and NSM over TCP on one port, all but NFS over UDP too, for a table of exports.
//!
//! `exports` is the table, `access` who may use what; both are asked for every call.
//!
//! `server` accepts, `engine` has a thread per core, on each of which `connection`s take records in and replies out;
//! `dispatch` turns a record into a reply or a `job`, which is done there and then if it is quick, else by `workers`;
//! `procedures` and `mount` do what is asked through the [`Vfs`] seam. `lock` has the locks, `udp` serves datagrams,
//! `portmap` lets clients find the ports.

mod access;
mod budget;
mod complaints;
mod connection;
mod convert;
mod decisions;
mod dispatch;
mod engine;
mod exports;
mod handle;
mod input;
mod job;
mod lock;
mod lookup;
mod meters;
mod mount;
mod names;
mod offload;
mod output;
pub mod portmap;
mod procedures;
mod reply_cache;
mod rpc;
mod server;
mod slow;
mod spare;
mod stats;
mod turns;
mod udp;
mod workers;

#[cfg(test)]
mod tests;

pub use exports::{Crossing, Export, Exports, Table, TableError};
pub use handle::{HandleKey, HandleKeyError};
pub use lock::{LockOptions, MonitorError};
pub use meters::OTHER;
pub use server::{ServeError, Server, serve};
pub use stats::{ClientStats, ExportStats, ProcedureStats, Stats};

use std::time::Duration;

/// How it is served. Every number is a bound on what clients can make the server hold.
#[derive(Clone, Debug)]
pub struct Options {
    /// Makes file handles unforgeable; must survive a restart.
    pub handle_key: HandleKey,
    /// Groups of callers are those of this machine's user database, not those that the calls name.
    pub manage_gids: bool,
    /// Threads that serve connections; one per core.
    pub threads: usize,
    /// Threads for what may have to wait for a disk.
    pub workers: usize,
    /// Requests that may wait for a thread.
    pub queue: usize,
    /// Connections open at once; one more is closed at once.
    pub connections: usize,
    /// Requests of one connection that may be unanswered.
    pub in_flight: usize,
    /// Bytes of requests and replies held for all connections.
    pub memory: usize,
    /// Bytes of requests and replies held for one connection.
    pub connection_memory: usize,
    /// Bytes of replies kept for calls that are sent again.
    pub reply_cache: usize,
    /// A record must arrive, and a reply must be taken, within this time.
    pub stall: Duration,
    /// Requests that take longer are logged; zero: none is.
    pub slow_request: Duration,
    /// Requests get this long to finish on shutdown.
    pub drain: Duration,
    /// NLM and NSM, if locks are served.
    pub locks: Option<LockOptions>,
}

impl Options {
    /// The defaults, with this key.
    pub fn new(handle_key: HandleKey) -> Options {
        Options {
            handle_key,
            manage_gids: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            workers: 16,
            queue: 1024,
            connections: 16_384,
            in_flight: 128,
            memory: 64 << 20,
            connection_memory: 8 << 20,
            reply_cache: 8 << 20,
            stall: Duration::from_secs(60),
            slow_request: Duration::from_secs(1),
            drain: Duration::from_secs(10),
            locks: None,
        }
    }
}
