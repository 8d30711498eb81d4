//! What is counted of every call: by procedure, by client, by export.

use super::job::Target;
use crate::observe::{Latency, LatencyCounts, Sharded};
use ehpc_proto::{mount, nfs3, nfsacl, nlm, nsm};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Clients that are counted one by one; what the others do is counted together.
const CLIENTS: usize = 256;
/// The name of all others.
pub const OTHER: &str = "other";

/// Statuses that are told apart: nfsstat3 (RFC 1813 section 2.6), of which mountstat3 (5.1.5) is a part, and what RPC
/// itself answers (as [`GARBAGE`] and [`FAULT`]). The last one stands for the rest.
const STATUSES: [(u32, &str); 31] = [
    (1, "PERM"),
    (2, "NOENT"),
    (5, "IO"),
    (6, "NXIO"),
    (13, "ACCES"),
    (17, "EXIST"),
    (18, "XDEV"),
    (19, "NODEV"),
    (20, "NOTDIR"),
    (21, "ISDIR"),
    (22, "INVAL"),
    (27, "FBIG"),
    (28, "NOSPC"),
    (30, "ROFS"),
    (31, "MLINK"),
    (63, "NAMETOOLONG"),
    (66, "NOTEMPTY"),
    (69, "DQUOT"),
    (70, "STALE"),
    (71, "REMOTE"),
    (10_001, "BADHANDLE"),
    (10_002, "NOT_SYNC"),
    (10_003, "BAD_COOKIE"),
    (10_004, "NOTSUPP"),
    (10_005, "TOOSMALL"),
    (10_006, "SERVERFAULT"),
    (10_007, "BADTYPE"),
    (10_008, "JUKEBOX"),
    (GARBAGE, "GARBAGE_ARGS"),
    (FAULT, "SYSTEM_ERR"),
    (u32::MAX, OTHER),
];
/// Stands for RPC's GARBAGE_ARGS.
pub(super) const GARBAGE: u32 = 0x8000_0004;
/// Stands for RPC's SYSTEM_ERR.
pub(super) const FAULT: u32 = 0x8000_0005;

/// Procedures of all programs, in one row.
const PROCEDURES: usize = NLM + nlm::Procedure::ALL.len() + nsm::Procedure::ALL.len();
/// Where MOUNT begins in it.
const MOUNT: usize = nfs3::Procedure::ALL.len();
/// Where NFSACL begins.
const ACL: usize = MOUNT + mount::Procedure::ALL.len();
/// Where NLM begins: its versions are counted together.
const NLM: usize = ACL + nfsacl::Procedure::ALL.len();

/// The place of a procedure in the row.
fn place(target: Target) -> usize {
    match target {
        Target::Nfs(procedure) => procedure as usize,
        Target::Mount(procedure) => MOUNT + procedure as usize,
        Target::Acl(procedure) => ACL + procedure as usize,
        // Their numbers have a gap.
        Target::Nlm(_, procedure) => {
            NLM + nlm::Procedure::ALL.iter().position(|other| *other == procedure).unwrap_or(0)
        }
        Target::Nsm(procedure) => NLM + nlm::Procedure::ALL.len() + procedure as usize,
    }
}

/// Every procedure, in the row's order.
fn every() -> impl Iterator<Item = Target> {
    let nfs = nfs3::Procedure::ALL.into_iter().map(Target::Nfs);
    let mount = mount::Procedure::ALL.into_iter().map(Target::Mount);
    let acl = nfsacl::Procedure::ALL.into_iter().map(Target::Acl);
    let nlm = nlm::Procedure::ALL.into_iter().map(|procedure| Target::Nlm(4, procedure));
    nfs.chain(mount).chain(acl).chain(nlm).chain(nsm::Procedure::ALL.into_iter().map(Target::Nsm))
}

/// What went through for one client or one export.
#[derive(Debug, Default)]
pub(super) struct Traffic(Sharded<Flow>);

#[derive(Debug, Default)]
struct Flow {
    requests: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Flow {
    fn add(&self, requests: u64, read: u64, written: u64) {
        for (counter, n) in
            [(&self.requests, requests), (&self.read_bytes, read), (&self.written_bytes, written)]
        {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }
}

impl Traffic {
    /// A call has come.
    pub(super) fn asked(&self) {
        self.0.here().add(1, 0, 0);
    }

    /// A call read or wrote so many bytes.
    pub(super) fn moved(&self, read: u32, written: u32) {
        if (read, written) != (0, 0) {
            self.0.here().add(0, read.into(), written.into());
        }
    }

    /// A call was answered, and moved so many bytes.
    pub(super) fn answered(&self, read: u32, written: u32) {
        self.0.here().add(1, read.into(), written.into());
    }

    /// Requests, bytes read, bytes written.
    pub(super) fn load(&self) -> (u64, u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.0.iter().fold((0, 0, 0), |(requests, read, written), flow| {
            let more = (count(&flow.requests), count(&flow.read_bytes), count(&flow.written_bytes));
            (requests + more.0, read + more.1, written + more.2)
        })
    }

    fn take_over(&self, other: &Traffic) {
        let (requests, read, written) = other.load();
        self.0.here().add(requests, read, written);
    }
}

/// What one client did since it was first seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientStats {
    /// Its address; `None`: all those that are not counted one by one.
    pub address: Option<IpAddr>,
    /// Its connections now.
    pub connections: u32,
    /// Its requests.
    pub requests: u64,
    /// Bytes that it read.
    pub read_bytes: u64,
    /// Bytes that it wrote.
    pub written_bytes: u64,
}

/// What one procedure did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcedureStats {
    /// Lower case; those of other programs are prefixed: `mount_`, `acl_`, `nlm_`, `nsm_`.
    pub name: String,
    /// From the last byte of the request to the reply being ready to be sent.
    pub latency: LatencyCounts,
    /// Answers with an error, by status.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Client {
    connections: u32,
    traffic: Arc<Traffic>,
}

/// Clients by address, those that left included, until there are too many.
#[derive(Debug, Default)]
struct Clients {
    known: BTreeMap<IpAddr, Client>,
    other: Client,
}

impl Clients {
    /// Makes room for one more: of those that left, the one that did least is counted with the others from now on.
    fn make_room(&mut self) {
        if self.known.len() < CLIENTS {
            return;
        }
        let left = self.known.iter().filter(|(_, client)| client.connections == 0);
        let least = left.min_by_key(|(_, client)| client.traffic.load().0).map(|(address, _)| *address);
        if let Some(client) = least.and_then(|address| self.known.remove(&address)) {
            self.other.traffic.take_over(&client.traffic);
        }
    }
}

/// Everything that is counted by name.
#[derive(Debug)]
pub(super) struct Meters {
    latency: Vec<Latency>,
    errors: Vec<[AtomicU64; STATUSES.len()]>,
    clients: Mutex<Clients>,
}

impl Default for Meters {
    fn default() -> Meters {
        Meters {
            latency: (0..PROCEDURES).map(|_| Latency::default()).collect(),
            errors: (0..PROCEDURES).map(|_| [const { AtomicU64::new(0) }; STATUSES.len()]).collect(),
            clients: Mutex::default(),
        }
    }
}

impl Meters {
    /// A call was answered: 0 is success.
    pub(super) fn answered(&self, target: Target, status: u32, took: Duration) {
        if let Some(latency) = self.latency.get(place(target)) {
            latency.add(took);
        }
        if status == 0 {
            return;
        }
        let at = STATUSES.iter().position(|(number, _)| *number == status).unwrap_or(STATUSES.len() - 1);
        if let Some(counter) = self.errors.get(place(target)).and_then(|statuses| statuses.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client connected: what counts its traffic.
    pub(super) fn connected(&self, address: IpAddr) -> Arc<Traffic> {
        let mut clients = self.clients.lock();
        if !clients.known.contains_key(&address) {
            clients.make_room();
        }
        let room = clients.known.len() < CLIENTS;
        let client = match clients.known.contains_key(&address) || room {
            true => clients.known.entry(address).or_default(),
            false => &mut clients.other,
        };
        client.connections += 1;
        Arc::clone(&client.traffic)
    }

    /// A connection of this client that was given this traffic has ended.
    pub(super) fn disconnected(&self, address: IpAddr, traffic: &Arc<Traffic>) {
        let mut clients = self.clients.lock();
        let client = match clients.known.get_mut(&address) {
            Some(client) if Arc::ptr_eq(&client.traffic, traffic) => client,
            _ => &mut clients.other,
        };
        client.connections = client.connections.saturating_sub(1);
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> u32 {
        let clients = self.clients.lock();
        clients.known.values().map(|client| client.connections).sum::<u32>() + clients.other.connections
    }

    /// Clients by address, then all others if there are any.
    pub(super) fn clients(&self) -> Vec<ClientStats> {
        let clients = self.clients.lock();
        let told = |address, client: &Client| {
            let (requests, read_bytes, written_bytes) = client.traffic.load();
            ClientStats { address, connections: client.connections, requests, read_bytes, written_bytes }
        };
        let mut all: Vec<_> =
            clients.known.iter().map(|(address, client)| told(Some(*address), client)).collect();
        let other = told(None, &clients.other);
        all.extend((other.requests > 0 || other.connections > 0).then_some(other));
        all
    }

    /// Procedures that were called.
    pub(super) fn procedures(&self) -> Vec<ProcedureStats> {
        let one = |(target, (latency, errors)): (Target, (&Latency, &[AtomicU64; STATUSES.len()]))| {
            let latency = latency.counts();
            let errors = STATUSES.iter().zip(errors).map(|((_, name), n)| (*name, n.load(Ordering::Relaxed)));
            let errors = errors.filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect();
            let called = latency.count > 0;
            called.then(|| ProcedureStats { name: target.full_name(), latency, errors })
        };
        every().zip(self.latency.iter().zip(&self.errors)).filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Target = Target::Nfs(nfs3::Procedure::Read);

    #[test]
    fn every_procedure_has_a_place_of_its_own() {
        let places: Vec<usize> = every().map(place).collect();
        assert_eq!(places, Vec::from_iter(0..PROCEDURES));
    }

    #[test]
    fn procedures_and_their_errors() {
        let meters = Meters::default();
        for status in [0, 0, 70, 70, 13, 12_345, GARBAGE] {
            meters.answered(READ, status, Duration::from_micros(10));
        }
        meters.answered(Target::Mount(mount::Procedure::Mnt), 0, Duration::ZERO);
        let [read, mnt] = &meters.procedures()[..] else { panic!("{:?}", meters.procedures()) };
        assert_eq!((read.name.as_str(), read.latency.count, read.latency.p99_us), ("read", 7, 10));
        let errors = [("ACCES", 1), ("GARBAGE_ARGS", 1), ("STALE", 2), ("other", 1)];
        assert_eq!(read.errors, errors.map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!((mnt.name.as_str(), mnt.errors.len()), ("mount_mnt", 0));
    }

    #[test]
    fn too_many_clients_are_counted_together_and_nothing_is_lost() {
        let meters = Meters::default();
        let address = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]);
        let visit = |n: usize, bytes: u32| {
            let traffic = meters.connected(address(n));
            traffic.asked();
            traffic.moved(bytes, 0);
            traffic
        };
        let busy = visit(0, 1);
        (0..1000).for_each(|_| busy.asked());
        meters.disconnected(address(0), &busy);
        for n in 1..2 * CLIENTS {
            meters.disconnected(address(n), &visit(n, 10));
        }
        assert_eq!(meters.connections(), 0);
        let clients = meters.clients();
        assert_eq!(clients.len(), CLIENTS + 1);
        assert_eq!(clients[0].requests, 1001, "the most active is kept");
        let total: u64 = clients.iter().map(|client| client.read_bytes).sum();
        assert_eq!(total, 1 + 10 * (2 * CLIENTS as u64 - 1));
        // All connected at once: the last ones share a counter.
        let held: Vec<_> = (0..CLIENTS + 5).map(|n| (n + 1000, visit(n + 1000, 1))).collect();
        assert_eq!(meters.connections() as usize, CLIENTS + 5);
        let other = meters.clients().pop().unwrap();
        assert_eq!((other.address, other.connections), (None, 5));
        for (n, traffic) in &held {
            meters.disconnected(address(*n), traffic);
        }
        assert_eq!(meters.connections(), 0);
    }
}
