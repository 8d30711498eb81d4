//! Replies of calls that must not be done twice, for clients that send them again (RFC 1813 section 4.5).
//!
//! A call is the same if client address, port, transaction, procedure and checksum of the arguments are. A
//! client that lost its connection may come back from another port: the replies of a connection that
//! did not end in order are found from any port of that address.

use core::net::IpAddr;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Identity of a call, without the client's port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct CallKey {
    pub(super) client: IpAddr,
    pub(super) xid: u32,
    /// Program and procedure.
    pub(super) procedure: (u32, u32),
    pub(super) checksum: u64,
}

impl CallKey {
    /// Hashes what distinguishes two calls: their length and the first bytes of their arguments.
    pub(super) fn new(client: IpAddr, xid: u32, procedure: (u32, u32), arguments: &[u8]) -> CallKey {
        const HASHED: usize = 1024;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(arguments.len() as u64).to_be_bytes());
        hasher.update(&arguments[..arguments.len().min(HASHED)]);
        let mut checksum = [0; 8];
        checksum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        CallKey { client, xid, procedure, checksum: u64::from_be_bytes(checksum) }
    }
}

/// Stands for "any port": no client has it.
const ANY_PORT: u16 = 0;
/// What an entry costs beside its reply.
const OVERHEAD: usize = 160;
/// A client gives up, or uses a transaction number for something else, long before.
const LIFETIME: Duration = Duration::from_secs(120);

/// What is known of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Not seen before; it is now in progress.
    New,
    /// Being done: the answer to the first copy is the answer.
    InProgress,
    /// Done, with this reply.
    Done(Vec<u8>),
}

#[derive(Debug)]
struct Entry {
    /// Place in `order`; `None` while in progress.
    place: Option<u64>,
    reply: Vec<u8>,
    since: Duration,
}

/// The cache. Time is handed in: the duration since any fixed moment.
#[derive(Debug)]
pub(super) struct ReplyCache {
    limit: usize,
    bytes: usize,
    entries: HashMap<(CallKey, u16), Entry>,
    /// Finished entries, oldest first.
    order: BTreeMap<u64, (CallKey, u16)>,
    /// Bytes by client: one that asks for much forgets its own replies first.
    held: HashMap<IpAddr, usize>,
    next_place: u64,
}

/// When room is needed, so many of the oldest entries are looked at for one of a client with more than its share.
const LOOKED_AT: usize = 64;

/// The cache in parts, each with a lock of its own: a call is always in the same part.
pub(super) struct ReplyCaches(Vec<Mutex<ReplyCache>>);

/// Parts of the cache: many more than threads that use it.
const PARTS: usize = 16;

impl ReplyCaches {
    /// Keeps replies of at most `limit` bytes in all.
    pub(super) fn new(limit: usize) -> ReplyCaches {
        ReplyCaches((0..PARTS).map(|_| Mutex::new(ReplyCache::new(limit / PARTS))).collect())
    }

    /// The part that knows of this call.
    pub(super) fn lock(&self, call: &CallKey) -> MutexGuard<'_, ReplyCache> {
        // Neighbouring transactions are in different parts; there is always one.
        let part = call.xid as usize % PARTS;
        self.0.get(part).unwrap_or(&self.0[0]).lock()
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.lock().bytes).sum()
    }

    /// A connection broke: its client may ask again from another port.
    pub(super) fn connection_lost(&self, client: IpAddr, port: u16) {
        self.0.iter().for_each(|part| part.lock().connection_lost(client, port));
    }
}

impl ReplyCache {
    /// Keeps replies of at most `limit` bytes in all.
    pub(super) fn new(limit: usize) -> ReplyCache {
        ReplyCache {
            limit,
            bytes: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            held: HashMap::new(),
            next_place: 0,
        }
    }

    /// A call arrived from `port`. After [`Seen::New`] the caller must `finish` or `abandon` it.
    pub(super) fn begin(&mut self, call: CallKey, port: u16, now: Duration) -> Seen {
        self.expire(now);
        for port in [port, ANY_PORT] {
            if let Some(entry) = self.entries.get(&(call, port)) {
                return match entry.place {
                    Some(_) => Seen::Done(entry.reply.clone()),
                    None => Seen::InProgress,
                };
            }
        }
        self.entries.insert((call, port), Entry { place: None, reply: Vec::new(), since: now });
        Seen::New
    }

    /// The call's reply is about to be sent.
    pub(super) fn finish(&mut self, call: CallKey, port: u16, reply: &[u8], now: Duration) {
        for port in [port, ANY_PORT] {
            let Some(entry) = self.entries.get_mut(&(call, port)) else { continue };
            if entry.place.is_some() {
                continue;
            }
            let place = self.next_place;
            self.next_place += 1;
            *entry = Entry { place: Some(place), reply: reply.to_vec(), since: now };
            self.order.insert(place, (call, port));
            self.bytes += reply.len() + OVERHEAD;
            *self.held.entry(call.client).or_default() += reply.len() + OVERHEAD;
            break;
        }
        while self.bytes > self.limit && self.make_room() {}
    }

    /// Forgets the oldest reply of a client that holds more than its share, or else the oldest of all.
    fn make_room(&mut self) -> bool {
        let share = self.limit / self.held.len().max(1);
        let greedy = |(_, (call, _)): &(&u64, &(CallKey, u16))| {
            self.held.get(&call.client).is_some_and(|&bytes| bytes > share)
        };
        let place = self.order.iter().take(LOOKED_AT).find(greedy).or_else(|| self.order.first_key_value());
        place.map(|(place, _)| *place).is_some_and(|place| self.forget(place))
    }

    fn forget(&mut self, place: u64) -> bool {
        let Some(key) = self.order.remove(&place) else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            let bytes = entry.reply.len() + OVERHEAD;
            self.bytes -= bytes;
            if let Some(held) = self.held.get_mut(&key.0.client) {
                *held = held.saturating_sub(bytes);
                if *held == 0 {
                    self.held.remove(&key.0.client);
                }
            }
        }
        true
    }

    /// The call was not done and gets no reply.
    pub(super) fn abandon(&mut self, call: CallKey, port: u16) {
        for port in [port, ANY_PORT] {
            if self.entries.get(&(call, port)).is_some_and(|entry| entry.place.is_none()) {
                self.entries.remove(&(call, port));
                return;
            }
        }
    }

    /// A connection broke: its client may ask again from another port.
    pub(super) fn connection_lost(&mut self, client: IpAddr, port: u16) {
        let of_connection = |(call, from): &&(CallKey, u16)| call.client == client && *from == port;
        let lost: Vec<_> = self.entries.keys().filter(of_connection).copied().collect();
        for (call, port) in lost {
            if self.entries.contains_key(&(call, ANY_PORT)) {
                continue;
            }
            if let Some(entry) = self.entries.remove(&(call, port)) {
                if let Some(place) = entry.place {
                    self.order.insert(place, (call, ANY_PORT));
                }
                self.entries.insert((call, ANY_PORT), entry);
            }
        }
    }

    fn expire(&mut self, now: Duration) {
        while let Some((&place, key)) = self.order.first_key_value() {
            match self.entries.get(key) {
                Some(entry) if now.saturating_sub(entry.since) < LIFETIME => return,
                _ => self.forget(place),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MKDIR: (u32, u32) = (100_003, 9);
    const NOW: Duration = Duration::from_secs(1000);

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn call(xid: u32) -> CallKey {
        CallKey::new(client(1), xid, MKDIR, b"arguments")
    }

    #[test]
    fn a_call_sent_again_gets_the_first_reply() {
        let mut cache = ReplyCache::new(1 << 20);
        assert_eq!(cache.begin(call(1), 700, NOW), Seen::New);
        assert_eq!(cache.begin(call(1), 700, NOW), Seen::InProgress);
        cache.finish(call(1), 700, b"reply", NOW);
        assert_eq!(cache.begin(call(1), 700, NOW), Seen::Done(b"reply".to_vec()));
    }

    #[test]
    fn another_call_is_not_it() {
        let mut cache = ReplyCache::new(1 << 20);
        assert_eq!(cache.begin(call(1), 700, NOW), Seen::New);
        cache.finish(call(1), 700, b"reply", NOW);
        let others = [
            (call(2), 700),
            (CallKey::new(client(2), 1, MKDIR, b"arguments"), 700),
            (CallKey::new(client(1), 1, (100_003, 10), b"arguments"), 700),
            (CallKey::new(client(1), 1, (100_227, 9), b"arguments"), 700),
            (CallKey::new(client(1), 1, MKDIR, b"argumentz"), 700),
            (CallKey::new(client(1), 1, MKDIR, b"arguments\0"), 700),
            (call(1), 701),
        ];
        for (other, port) in others {
            assert_eq!(cache.begin(other, port, NOW), Seen::New, "{other:?} {port}");
        }
    }

    #[test]
    fn after_a_lost_connection_any_port_finds_it() {
        let mut cache = ReplyCache::new(1 << 20);
        for (xid, port) in [(1, 700), (2, 700), (3, 701)] {
            cache.begin(call(xid), port, NOW);
        }
        cache.finish(call(1), 700, b"one", NOW);
        cache.finish(call(3), 701, b"three", NOW);
        cache.connection_lost(client(1), 700);
        assert_eq!(cache.begin(call(1), 900, NOW), Seen::Done(b"one".to_vec()));
        assert_eq!(cache.begin(call(2), 900, NOW), Seen::InProgress);
        cache.finish(call(2), 700, b"two", NOW);
        assert_eq!(cache.begin(call(2), 900, NOW), Seen::Done(b"two".to_vec()));
        assert_eq!(cache.begin(call(3), 900, NOW), Seen::New, "that connection did not break");
    }

    #[test]
    fn an_abandoned_call_may_be_tried_again() {
        let mut cache = ReplyCache::new(1 << 20);
        cache.begin(call(1), 700, NOW);
        cache.abandon(call(1), 700);
        assert_eq!(cache.begin(call(1), 700, NOW), Seen::New);
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_goes_first() {
        let mut cache = ReplyCache::new(10 * (100 + OVERHEAD));
        for xid in 0..1000 {
            cache.begin(call(xid), 700, NOW);
            cache.finish(call(xid), 700, &[0; 100], NOW);
            assert!(cache.bytes <= cache.limit);
        }
        assert_eq!(cache.entries.len(), 10);
        assert_eq!(cache.order.len(), 10);
        assert!(matches!(cache.begin(call(999), 700, NOW), Seen::Done(_)));
        assert!(matches!(cache.begin(call(990), 700, NOW), Seen::Done(_)));
        assert_eq!(cache.begin(call(989), 700, NOW), Seen::New);
    }

    #[test]
    fn a_busy_client_forgets_its_own_replies_first() {
        let mut cache = ReplyCache::new(100 * (100 + OVERHEAD));
        let of = |last: u8, xid: u32| CallKey::new(client(last), xid, MKDIR, b"arguments");
        for xid in 0..10 {
            cache.begin(of(2, xid), 700, NOW);
            cache.finish(of(2, xid), 700, &[0; 100], NOW);
        }
        for xid in 0..10_000 {
            cache.begin(of(1, xid), 700, NOW);
            cache.finish(of(1, xid), 700, &[0; 100], NOW);
        }
        assert!(cache.bytes <= cache.limit && cache.entries.len() == 100);
        for xid in 0..10 {
            assert!(matches!(cache.begin(of(2, xid), 700, NOW), Seen::Done(_)), "{xid}");
        }
        // And what expires is nobody's any more.
        cache.begin(of(3, 1), 700, NOW + LIFETIME);
        assert_eq!((cache.bytes, cache.held.len(), cache.order.len()), (0, 0, 0));
    }

    #[test]
    fn replies_expire() {
        let mut cache = ReplyCache::new(1 << 20);
        cache.begin(call(1), 700, NOW);
        cache.finish(call(1), 700, b"reply", NOW);
        assert!(matches!(
            cache.begin(call(1), 700, NOW + LIFETIME - Duration::from_millis(1)),
            Seen::Done(_)
        ));
        assert_eq!(cache.begin(call(1), 700, NOW + LIFETIME), Seen::New);
        assert_eq!(cache.bytes, 0);
    }
}
