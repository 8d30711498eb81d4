//! Changes of a server while requests run: by the operator, by its checks. Each arranges the backend's order anew, serves who
//! waits for a server that has become usable, and sends away who waits for one that has not.

use super::backend::Backend;
use super::server::{Administration, Operation};
use crate::proxy::config::model::{ServerAddress, ServerIndex};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Backend {
    /// `set server weight`: 0 to 256 (more is taken as 256). 0: clients bound to it only.
    pub fn set_weight(self: &Arc<Backend>, server: ServerIndex, weight: u32) {
        let weight = weight.min(crate::proxy::balance::MOST_WEIGHT);
        self.servers[server].weight.store(weight, Ordering::SeqCst);
        self.changed(server);
    }

    /// Sets and clears [`Administration`] bits: ready, drain, maint. How many requests left its queue for another server.
    pub fn set_administration(self: &Arc<Backend>, server: ServerIndex, set: u8, clear: u8) -> u32 {
        let change = |bits: u8| Some((bits & !clear) | set);
        let _ = self.servers[server].administration.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        self.changed(server)
    }

    /// `set server state ready`: neither draining nor in maintenance, whatever the file says.
    pub fn make_ready(self: &Arc<Backend>, server: ServerIndex) {
        self.set_administration(server, 0, Administration::ANY_MAINTENANCE | Administration::DRAIN);
    }

    /// What checks say now. How many requests left its queue for another server.
    pub fn set_operation(self: &Arc<Backend>, server: ServerIndex, operation: Operation) -> u32 {
        self.servers[server].operation.store(operation as u8, Ordering::SeqCst);
        self.changed(server)
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

    /// `set server addr`: connections made from now on go there.
    pub fn set_address(&self, server: ServerIndex, address: ServerAddress) {
        *self.servers[server].address.write() = address;
    }

    fn changed(self: &Arc<Backend>, server: ServerIndex) -> u32 {
        self.arrange();
        let gone = if self.servers[server].is_up() { 0 } else { self.redistribute(server) };
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Another one may have become the backup in charge: all are offered to those who wait.
            (0..self.servers.len()).for_each(|each| self.serve(each));
        }
        gone
    }
}
