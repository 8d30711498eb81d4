//! What `status` shows of the server.

use ehpc_proto::{mount, nfs3, nfsacl, nlm, nsm};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A client that is connected now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientStats {
    /// Its address.
    pub address: IpAddr,
    /// Its connections.
    pub connections: u32,
    /// Its requests since its first connection.
    pub requests: u64,
}

/// The server since its start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Clients connected now, by address.
    pub clients: Vec<ClientStats>,
    /// Connections open now.
    pub connections: u32,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error status.
    pub errors: u64,
    /// Records or calls that could not be decoded.
    pub bad_requests: u64,
    /// Requests answered from the reply cache.
    pub replayed: u64,
    /// Requests by procedure, without those never called; those of other programs are prefixed with its name, as in `mount_mnt`, NFSACL's with `acl_`.
    pub operations: BTreeMap<String, u64>,
    /// What clients say they have mounted: (address, directory).
    pub mounts: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Client {
    connections: u32,
    requests: Arc<AtomicU64>,
}

/// Counts as the server works.
#[derive(Debug, Default)]
pub(super) struct Counters {
    clients: Mutex<BTreeMap<IpAddr, Client>>,
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) bad_requests: AtomicU64,
    pub(super) replayed: AtomicU64,
    nfs: [AtomicU64; nfs3::Procedure::ALL.len()],
    mount: [AtomicU64; mount::Procedure::ALL.len()],
    acl: [AtomicU64; nfsacl::Procedure::ALL.len()],
    nlm: [AtomicU64; nlm::Procedure::ALL.len()],
    nsm: [AtomicU64; nsm::Procedure::ALL.len()],
}

impl Counters {
    pub(super) fn nfs(&self, procedure: nfs3::Procedure) {
        self.nfs[procedure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn mount(&self, procedure: mount::Procedure) {
        self.mount[procedure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn nlm(&self, procedure: nlm::Procedure) {
        // Their numbers have a gap.
        let counted = nlm::Procedure::ALL.iter().zip(&self.nlm).find(|(other, _)| **other == procedure);
        if let Some((_, counter)) = counted {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn nsm(&self, procedure: nsm::Procedure) {
        self.nsm[procedure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acl(&self, procedure: nfsacl::Procedure) {
        self.acl[procedure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A client connected; returns the counter of its requests.
    pub(super) fn connected(&self, address: IpAddr) -> Arc<AtomicU64> {
        let mut clients = self.clients.lock();
        let client = clients.entry(address).or_default();
        client.connections += 1;
        Arc::clone(&client.requests)
    }

    pub(super) fn disconnected(&self, address: IpAddr) {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get_mut(&address) {
            client.connections -= 1;
            if client.connections == 0 {
                clients.remove(&address);
            }
        }
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> u32 {
        self.clients.lock().values().map(|client| client.connections).sum()
    }

    pub(super) fn snapshot(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let clients: Vec<ClientStats> = self
            .clients
            .lock()
            .iter()
            .map(|(address, client)| ClientStats {
                address: *address,
                connections: client.connections,
                requests: count(&client.requests),
            })
            .collect();
        let nfs = nfs3::Procedure::ALL.iter().zip(&self.nfs).map(|(p, n)| (p.name().to_owned(), count(n)));
        let mount = mount::Procedure::ALL
            .iter()
            .zip(&self.mount)
            .map(|(p, n)| (format!("mount_{}", p.name()), count(n)));
        let acl = nfsacl::Procedure::ALL
            .iter()
            .zip(&self.acl)
            .map(|(p, n)| (format!("acl_{}", p.name()), count(n)));
        let nlm =
            nlm::Procedure::ALL.iter().zip(&self.nlm).map(|(p, n)| (format!("nlm_{}", p.name()), count(n)));
        let nsm =
            nsm::Procedure::ALL.iter().zip(&self.nsm).map(|(p, n)| (format!("nsm_{}", p.name()), count(n)));
        Stats {
            connections: clients.iter().map(|client| client.connections).sum(),
            clients,
            requests: count(&self.requests),
            errors: count(&self.errors),
            bad_requests: count(&self.bad_requests),
            replayed: count(&self.replayed),
            operations: nfs.chain(mount).chain(acl).chain(nlm).chain(nsm).filter(|(_, n)| *n > 0).collect(),
            mounts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_while_connected() {
        let counters = Counters::default();
        let address = IpAddr::from([10, 0, 0, 1]);
        counters.connected(address).fetch_add(3, Ordering::Relaxed);
        counters.connected(address).fetch_add(4, Ordering::Relaxed);
        counters.nfs(nfs3::Procedure::Read);
        counters.mount(mount::Procedure::Mnt);
        let stats = counters.snapshot();
        assert_eq!(stats.clients, [ClientStats { address, connections: 2, requests: 7 }]);
        assert_eq!(stats.operations, [("mount_mnt".to_owned(), 1), ("read".to_owned(), 1)].into());
        counters.disconnected(address);
        counters.disconnected(address);
        assert_eq!(counters.snapshot().connections, 0);
        assert!(counters.snapshot().clients.is_empty());
    }
}
