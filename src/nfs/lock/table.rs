//! Every lock of the server, who waits for one, and DOS shares (pure: no clock, no socket).
//!
//! A lock that can be had is given at once, even when others wait for one that it is in the way of, as the kernel
//! does it for local files. What is released is given to those who wait in the order in which they asked. A waiter
//! that is served holds the lock from then on, and is told so by a callback until it says that it knows. Until then it
//! may say as well that it does not want it, and has again what it had before: so what it held exclusively stays so, and
//! nothing else is given to it there. Whatever else it does with these bytes means that it knows.

use super::ranges::{Client, Held, Owner, Range, Ranges};
use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Owners that are looked at when somebody begins to wait.
const DEADLOCK_STEPS: usize = 64;

/// A file, whatever it is called: the object's key.
pub(in crate::nfs) type FileKey = Arc<[u8]>;

/// Bounds on what clients can make the server hold.
#[derive(Clone, Copy, Debug)]
pub(in crate::nfs) struct Limits {
    /// Stretches and shares of one client.
    pub(in crate::nfs) per_client: usize,
    /// Stretches and shares of all.
    pub(in crate::nfs) total: usize,
    /// Waiting requests of one client.
    pub(in crate::nfs) waiting_per_client: usize,
    /// Waiting requests of all.
    pub(in crate::nfs) waiting: usize,
}

/// How a client that waits is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::nfs) struct Callback {
    /// The handle by which it knows the file.
    pub(in crate::nfs) file: Box<[u8]>,
    /// Version of NLM.
    pub(in crate::nfs) version: u32,
    /// It asked by LOCK_MSG.
    pub(in crate::nfs) message: bool,
}

/// A request for a lock.
#[derive(Clone, Debug)]
pub(in crate::nfs) struct Request {
    pub(in crate::nfs) owner: Arc<Owner>,
    pub(in crate::nfs) range: Range,
    pub(in crate::nfs) exclusive: bool,
    /// The client's state number; 0 = not told.
    pub(in crate::nfs) state: u32,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::nfs) enum Answer {
    Granted,
    Denied,
    /// It waits; a callback tells.
    Blocked,
    /// A limit is reached.
    NoLocks,
    /// Everybody would wait for ever.
    Deadlock,
}

/// A waiter has the lock: its client is to be told until it says that it knows.
#[derive(Clone, Debug)]
pub(in crate::nfs) struct Grant {
    /// Number of this grant.
    pub(in crate::nfs) ticket: u64,
    pub(in crate::nfs) request: Request,
    pub(in crate::nfs) callback: Callback,
}

#[derive(Debug)]
struct Waiter {
    request: Request,
    callback: Callback,
}

/// A DOS share.
#[derive(Debug)]
struct Share {
    client: Arc<Client>,
    owner: Box<[u8]>,
    deny: u32,
    access: u32,
    state: u32,
}

#[derive(Debug, Default)]
struct File {
    ranges: Ranges,
    /// In the order in which they asked.
    waiting: Vec<Waiter>,
    shares: Vec<Share>,
}

/// A grant of which the client has not said that it knows.
#[derive(Debug)]
struct Pending {
    file: FileKey,
    request: Request,
    /// What the owner held there before: given back to it if it does not want the lock any more.
    before: Vec<Held>,
}

/// What one client has.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Use {
    held: usize,
    waiting: usize,
}

/// The table.
#[derive(Debug)]
pub(in crate::nfs) struct Table {
    limits: Limits,
    files: HashMap<FileKey, File>,
    /// Files for which somebody waits, and perhaps others.
    blocked: HashSet<FileKey>,
    clients: BTreeMap<Arc<Client>, Use>,
    pending: BTreeMap<u64, Pending>,
    granted: Vec<Grant>,
    next_ticket: u64,
}

impl Table {
    pub(in crate::nfs) fn new(limits: Limits) -> Table {
        Table {
            limits,
            files: HashMap::new(),
            blocked: HashSet::new(),
            clients: BTreeMap::new(),
            pending: BTreeMap::new(),
            granted: Vec::new(),
            next_ticket: 1,
        }
    }

    /// Who keeps this request from being granted.
    pub(in crate::nfs) fn test(&self, file: &FileKey, request: &Request) -> Option<&Held> {
        self.files.get(file)?.ranges.conflict(&request.owner, request.range, request.exclusive)
    }

    /// Grants, denies, or lets wait if there is a `callback`.
    pub(in crate::nfs) fn lock(
        &mut self,
        file: &FileKey,
        request: Request,
        callback: Option<Callback>,
    ) -> Answer {
        if self.pending.values().any(|pending| pending.is_of(file, &request)) {
            // It asks again instead of waiting for the callback.
            self.settle(file, &request.owner, request.range);
            self.serve(file);
            return Answer::Granted;
        }
        if self.test(file, &request).is_none() {
            if self.room(&request.owner.client, 2) {
                self.set_aside(file, &request);
                self.settle(file, &request.owner, request.range);
                self.give(file, &request);
                // A write lock that became a read lock lets readers in.
                self.serve(file);
                return Answer::Granted;
            }
            return Answer::NoLocks;
        }
        let Some(callback) = callback else { return Answer::Denied };
        let waiting = self.clients.get(&request.owner.client).map_or(0, |used| used.waiting);
        let full = waiting >= self.limits.waiting_per_client
            || self.clients.values().map(|used| used.waiting).sum::<usize>() >= self.limits.waiting;
        let entry = self.files.entry(Arc::clone(file)).or_default();
        if let Some(waiter) = entry.waiting.iter_mut().find(|waiter| waiter.is_of(&request)) {
            // Asked again: it keeps its place.
            (waiter.callback, waiter.request) = (callback, request);
            return Answer::Blocked;
        }
        if full {
            return Answer::NoLocks;
        }
        if self.would_wait_for_itself(file, &request) {
            return Answer::Deadlock;
        }
        self.blocked.insert(Arc::clone(file));
        let entry = self.files.entry(Arc::clone(file)).or_default();
        self.clients.entry(Arc::clone(&request.owner.client)).or_default().waiting += 1;
        entry.waiting.push(Waiter { request, callback });
        Answer::Blocked
    }

    /// Takes the bytes from their owner. What nobody holds is no error.
    pub(in crate::nfs) fn unlock(&mut self, file: &FileKey, owner: &Owner, range: Range) {
        self.settle(file, owner, range);
        self.change(file, &owner.client, |ranges| ranges.release(owner, range));
        self.serve(file);
    }

    /// Ends waiting; a grant that crossed the cancellation is taken back. False: there was nothing.
    pub(in crate::nfs) fn cancel(&mut self, file: &FileKey, request: &Request) -> bool {
        let crossed =
            self.pending.iter().find(|(_, pending)| pending.is_of(file, request)).map(|(ticket, _)| *ticket);
        if let Some(ticket) = crossed {
            self.refused(ticket);
            return true;
        }
        let waited = self.set_aside(file, request);
        self.forget_if_unused(file, &request.owner.client);
        waited
    }

    /// The client knows of a grant.
    pub(in crate::nfs) fn acknowledged(&mut self, ticket: u64) {
        let Some(Pending { file, request, .. }) = self.pending.get(&ticket) else { return };
        let (file, owner, range) = (Arc::clone(file), Arc::clone(&request.owner), request.range);
        self.settle(&file, &owner, range);
        self.serve(&file);
    }

    /// The client does not want what it was granted.
    pub(in crate::nfs) fn refused(&mut self, ticket: u64) {
        let Some(Pending { file, request, before }) = self.pending.remove(&ticket) else { return };
        self.change(&file, &request.owner.client, |ranges| {
            ranges.release(&request.owner, request.range);
            before.into_iter().for_each(|held| ranges.grant(held));
        });
        self.serve(&file);
    }

    /// The client is still to be told of this grant.
    pub(in crate::nfs) fn is_unacknowledged(&self, ticket: u64) -> bool {
        self.pending.contains_key(&ticket)
    }

    /// Who is to be told of this grant.
    pub(in crate::nfs) fn client_of(&self, ticket: u64) -> Option<&Arc<Client>> {
        self.pending.get(&ticket).map(|pending| &pending.request.owner.client)
    }

    /// What was granted to waiters since this was last asked: their clients are to be told.
    pub(in crate::nfs) fn take_granted(&mut self) -> Vec<Grant> {
        std::mem::take(&mut self.granted)
    }

    /// DOS open modes: what the owner does (`access`), and what it denies to others.
    pub(in crate::nfs) fn share(
        &mut self,
        file: &FileKey,
        owner: (&Arc<Client>, &[u8]),
        (deny, access): (u32, u32),
        state: u32,
    ) -> Answer {
        let (client, handle) = owner;
        let is_own = |share: &Share| share.client == *client && *share.owner == *handle;
        let room = self.room(client, 1);
        let entry = self.files.entry(Arc::clone(file)).or_default();
        let in_the_way = |share: &&Share| !is_own(share) && (share.deny & access | share.access & deny) != 0;
        let answer = if entry.shares.iter().find(in_the_way).is_some() {
            Answer::Denied
        } else if let Some(share) = entry.shares.iter_mut().find(|share| is_own(share)) {
            (share.deny, share.access, share.state) = (deny, access, state);
            Answer::Granted
        } else if room {
            let share = Share { client: Arc::clone(client), owner: handle.into(), deny, access, state };
            entry.shares.push(share);
            self.clients.entry(Arc::clone(client)).or_default().held += 1;
            Answer::Granted
        } else {
            Answer::NoLocks
        };
        self.forget_if_unused(file, client);
        answer
    }

    /// Ends a share. What there is not, is no error.
    pub(in crate::nfs) fn unshare(&mut self, file: &FileKey, client: &Arc<Client>, owner: &[u8]) {
        let Some(entry) = self.files.get_mut(file) else { return };
        let before = entry.shares.len();
        entry.shares.retain(|share| share.client != *client || *share.owner != *owner);
        let gone = before - entry.shares.len();
        if let Some(used) = self.clients.get_mut(client) {
            used.held -= gone;
        }
        self.forget_if_unused(file, client);
    }

    /// Releases whatever `clients` hold and wait for, but what they locked in their new state `except` (0 = nothing).
    pub(in crate::nfs) fn release_clients(&mut self, clients: &[Arc<Client>], except: u32) {
        let gone =
            |client: &Arc<Client>, state: u32| (except == 0 || state != except) && clients.contains(client);
        self.pending.retain(|_, pending| !gone(&pending.request.owner.client, pending.request.state));
        for pending in self.pending.values_mut() {
            pending.before.retain(|held| !gone(&held.owner.client, held.state));
        }
        let mut files: Vec<FileKey> = self.files.keys().cloned().collect();
        files.sort_unstable();
        for file in &files {
            if let Some(entry) = self.files.get_mut(file) {
                entry.ranges.forget(|held| gone(&held.owner.client, held.state));
                entry.waiting.retain(|waiter| !gone(&waiter.request.owner.client, waiter.request.state));
                entry.shares.retain(|share| !gone(&share.client, share.state));
            }
        }
        for client in clients {
            let used = self.count(client);
            if used == Use::default() {
                self.clients.remove(client);
            } else {
                self.clients.insert(Arc::clone(client), used);
            }
        }
        files.iter().for_each(|file| self.serve(file));
        self.files.retain(|_, entry| !entry.is_unused());
    }

    /// Clients that hold or wait for something.
    pub(in crate::nfs) fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.keys()
    }

    /// Those of them that call from an address.
    pub(in crate::nfs) fn clients_at(&self, address: IpAddr) -> Vec<Arc<Client>> {
        self.clients.keys().filter(|client| client.address == address).cloned().collect()
    }

    /// (stretches and shares held, requests waiting).
    pub(in crate::nfs) fn counts(&self) -> (usize, usize) {
        self.clients.values().fold((0, 0), |(held, waiting), used| (held + used.held, waiting + used.waiting))
    }

    /// Those in the way of this request wait, in the end, for its owner.
    fn would_wait_for_itself(&mut self, file: &FileKey, request: &Request) -> bool {
        let files = &self.files;
        self.blocked.retain(|file| files.get(file).is_some_and(|entry| !entry.waiting.is_empty()));
        let in_the_way = |file: &FileKey, request: &Request| -> Vec<Arc<Owner>> {
            let Some(entry) = self.files.get(file) else { return Vec::new() };
            let Request { owner, range, exclusive, .. } = request;
            entry.ranges.conflicts(owner, *range, *exclusive).map(|held| Arc::clone(&held.owner)).collect()
        };
        let mut seen: Vec<Arc<Owner>> = Vec::new();
        let mut next = in_the_way(file, request);
        while let Some(owner) = next.pop() {
            if *owner == *request.owner {
                return true;
            }
            // A chain that is longer than this is not followed: everybody waits, as without this look.
            if seen.contains(&owner) || seen.len() >= DEADLOCK_STEPS {
                continue;
            }
            for file in &self.blocked {
                let waiting = self.files.get(file).into_iter().flat_map(|entry| &entry.waiting);
                for waiter in waiting.filter(|waiter| *waiter.request.owner == *owner) {
                    next.extend(in_the_way(file, &waiter.request));
                }
            }
            seen.push(owner);
        }
        false
    }

    /// The owner knows of what it was granted in this range.
    fn settle(&mut self, file: &FileKey, owner: &Owner, range: Range) {
        let known: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.is_within(file, owner, range))
            .map(|(ticket, _)| *ticket)
            .collect();
        for Pending { request, before, .. } in
            known.iter().filter_map(|ticket| self.pending.remove(ticket)).collect::<Vec<_>>()
        {
            let Request { exclusive, state, .. } = request;
            self.change(file, &owner.client, |ranges| {
                before.into_iter().for_each(|held| ranges.grant(Held { exclusive, state, ..held }));
            });
        }
    }

    /// Whether a client may hold `more` stretches.
    fn room(&self, client: &Arc<Client>, more: usize) -> bool {
        let held = self.clients.get(client).map_or(0, |used| used.held);
        held + more <= self.limits.per_client && self.counts().0 + more <= self.limits.total
    }

    /// Takes a waiting request out of the queue; whether there was one.
    fn set_aside(&mut self, file: &FileKey, request: &Request) -> bool {
        let Some(entry) = self.files.get_mut(file) else { return false };
        let Some(at) = entry.waiting.iter().position(|waiter| waiter.is_of(request)) else { return false };
        entry.waiting.remove(at);
        if let Some(used) = self.clients.get_mut(&request.owner.client) {
            used.waiting -= 1;
        }
        true
    }

    fn give(&mut self, file: &FileKey, request: &Request) {
        self.files.entry(Arc::clone(file)).or_default();
        let Request { owner, range, exclusive, state } = request.clone();
        let client = Arc::clone(&owner.client);
        self.change(file, &client, |ranges| ranges.grant(Held { owner, range, exclusive, state }));
    }

    /// Changes what one client holds of a file, and counts.
    fn change(&mut self, file: &FileKey, client: &Arc<Client>, change: impl FnOnce(&mut Ranges)) {
        let Some(entry) = self.files.get_mut(file) else { return };
        let before = entry.ranges.len();
        change(&mut entry.ranges);
        let after = entry.ranges.len();
        let used = self.clients.entry(Arc::clone(client)).or_default();
        used.held = used.held + after - before;
        if *used == Use::default() {
            self.clients.remove(client);
        }
    }

    /// Gives what is free to those who wait for it, in their order.
    fn serve(&mut self, file: &FileKey) {
        loop {
            let Some(entry) = self.files.get_mut(file) else { return };
            let pending = &self.pending;
            let free = |waiter: &Waiter| {
                let Request { owner, range, exclusive, .. } = &waiter.request;
                entry.ranges.conflict(owner, *range, *exclusive).is_none()
                    && !pending.values().any(|pending| pending.is_within(file, owner, *range))
            };
            let Some(at) = entry.waiting.iter().position(free) else { break };
            let Waiter { request, callback } = entry.waiting.remove(at);
            let before = entry.ranges.within(&request.owner, request.range);
            if let Some(used) = self.clients.get_mut(&request.owner.client) {
                used.waiting -= 1;
            }
            self.give(file, &request);
            let exclusive: Vec<Held> = before.iter().filter(|held| held.exclusive).cloned().collect();
            self.change(file, &request.owner.client, |ranges| {
                exclusive.into_iter().for_each(|held| ranges.grant(held));
            });
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.pending.insert(ticket, Pending { file: Arc::clone(file), request: request.clone(), before });
            self.granted.push(Grant { ticket, request, callback });
        }
        if self.files.get(file).is_some_and(File::is_unused) {
            self.files.remove(file);
        }
    }

    fn forget_if_unused(&mut self, file: &FileKey, client: &Arc<Client>) {
        if self.files.get(file).is_some_and(File::is_unused) {
            self.files.remove(file);
        }
        if self.clients.get(client) == Some(&Use::default()) {
            self.clients.remove(client);
        }
    }

    fn count(&self, client: &Arc<Client>) -> Use {
        let mut used = Use::default();
        for entry in self.files.values() {
            used.held += entry.ranges.iter().filter(|held| held.owner.client == *client).count();
            used.held += entry.shares.iter().filter(|share| share.client == *client).count();
            used.waiting +=
                entry.waiting.iter().filter(|waiter| waiter.request.owner.client == *client).count();
        }
        used
    }
}

impl File {
    fn is_unused(&self) -> bool {
        self.ranges.is_empty() && self.waiting.is_empty() && self.shares.is_empty()
    }
}

impl Waiter {
    fn is_of(&self, request: &Request) -> bool {
        self.request.is_same(request)
    }
}

impl Pending {
    fn is_of(&self, file: &FileKey, request: &Request) -> bool {
        self.file == *file && self.request.is_same(request)
    }

    fn is_within(&self, file: &FileKey, owner: &Owner, range: Range) -> bool {
        self.file == *file && *self.request.owner == *owner && self.request.range.overlaps(range)
    }
}

impl Request {
    fn is_same(&self, other: &Request) -> bool {
        self.range == other.range && self.exclusive == other.exclusive && *self.owner == *other.owner
    }
}
