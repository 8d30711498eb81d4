//! A bounded table with an expiry: shards, so that threads seldom meet; in each the entries in order of last use, which
//! is also the order in which they expire.

use super::Key;
use crate::proxy::config::model::{StickKey, StickTable};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// A table at run time.
#[derive(Debug)]
pub struct Table {
    kind: StickKey,
    size: usize,
    expire: Option<Duration>,
    /// When full, new keys are refused instead of old ones forgotten.
    nopurge: bool,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// One entry, for `show table`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Row {
    pub key: Key,
    /// Number of the server, 0 for none.
    pub server_id: u32,
    /// Since it was used.
    pub idle: Duration,
    /// Time left; absent without `expire`.
    pub expires_in: Option<Duration>,
}

const SHARDS: usize = 16;
/// Below this many entries a shard would be too small to be full evenly.
const SMALL: usize = 4096;
const NOBODY: usize = usize::MAX;

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, usize>,
    entries: Vec<Entry>,
    free: Vec<usize>,
    /// Least and most recently used.
    oldest: usize,
    newest: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    server_id: u32,
    used: Instant,
    older: usize,
    newer: usize,
}

impl Table {
    /// Empty. Memory grows with what is stored.
    pub fn new(configured: &StickTable) -> Table {
        let count = if configured.size < SMALL { 1 } else { SHARDS };
        let most = configured.size.div_ceil(count).max(1);
        let shard = || Mutex::new(Shard { most, oldest: NOBODY, newest: NOBODY, ..Shard::default() });
        Table {
            kind: configured.key,
            size: configured.size,
            expire: configured.expire,
            nopurge: configured.nopurge,
            hasher: RandomState::new(),
            shards: (0..count).map(|_| shard()).collect(),
        }
    }

    /// Type of its keys.
    pub fn kind(&self) -> StickKey {
        self.kind
    }

    /// How many entries fit.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many entries there are (expired ones that nobody has looked at are counted).
    pub fn used(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().places.len()).sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key.bytes()) & 0xffff).unwrap_or(0);
        &self.shards[hash % self.shards.len()]
    }

    /// Server of a key; the entry's time begins again.
    pub fn find(&self, key: &Key, now: Instant) -> Option<u32> {
        let mut shard = self.shard(key).lock();
        let place = shard.alive(key, self.expire, now)?;
        shard.touch(place, now);
        Some(shard.entries[place].server_id).filter(|id| *id > 0)
    }

    /// Server of a key and the time left, without touching the entry (converters `table_*`).
    pub fn peek(&self, key: &Key, now: Instant) -> Option<Row> {
        let mut shard = self.shard(key).lock();
        let place = shard.alive(key, self.expire, now)?;
        Some(self.row(&shard.entries[place], now))
    }

    /// Remembers the server of a key. Returns whether it did: a full table with `nopurge` refuses.
    pub fn store(&self, key: Key, server_id: u32, now: Instant) -> bool {
        let mut shard = self.shard(&key).lock();
        if let Some(place) = shard.alive(&key, self.expire, now) {
            shard.entries[place].server_id = server_id;
            shard.touch(place, now);
            return true;
        }
        if let Some(expire) = self.expire {
            shard.forget_expired(expire, now);
        }
        if shard.places.len() >= shard.most {
            if self.nopurge {
                return false;
            }
            let oldest = shard.oldest;
            shard.remove(oldest);
        }
        shard.insert(key, server_id, now);
        true
    }

    /// Forgets a key; whether it was there.
    pub fn remove(&self, key: &Key) -> bool {
        let mut shard = self.shard(key).lock();
        match shard.places.get(key).copied() {
            Some(place) => {
                shard.remove(place);
                true
            }
            None => false,
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let most = shard.most;
            *shard = Shard { most, oldest: NOBODY, newest: NOBODY, ..Shard::default() };
        }
    }

    /// All entries that have not expired. One shard is locked at a time.
    pub fn rows(&self, now: Instant) -> Vec<Row> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            if let Some(expire) = self.expire {
                shard.forget_expired(expire, now);
            }
            rows.extend(shard.places.values().map(|place| self.row(&shard.entries[*place], now)));
        }
        rows
    }

    fn row(&self, entry: &Entry, now: Instant) -> Row {
        let idle = now.saturating_duration_since(entry.used);
        let expires_in = self.expire.map(|expire| expire.saturating_sub(idle));
        Row { key: entry.key.clone(), server_id: entry.server_id, idle, expires_in }
    }

    /// How long entries live.
    pub fn expire(&self) -> Option<Duration> {
        self.expire
    }
}

impl Shard {
    /// Place of a key that has not expired; one that has is forgotten.
    fn alive(&mut self, key: &Key, expire: Option<Duration>, now: Instant) -> Option<usize> {
        let place = *self.places.get(key)?;
        if expire.is_some_and(|expire| now.saturating_duration_since(self.entries[place].used) >= expire) {
            self.remove(place);
            return None;
        }
        Some(place)
    }

    fn forget_expired(&mut self, expire: Duration, now: Instant) {
        while self.oldest != NOBODY && now.saturating_duration_since(self.entries[self.oldest].used) >= expire
        {
            self.remove(self.oldest);
        }
    }

    fn touch(&mut self, place: usize, now: Instant) {
        self.unlink(place);
        self.entries[place].used = now;
        self.append(place);
    }

    fn insert(&mut self, key: Key, server_id: u32, now: Instant) {
        let entry = Entry { key: key.clone(), server_id, used: now, older: NOBODY, newer: NOBODY };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(key, place);
        self.append(place);
    }

    fn remove(&mut self, place: usize) {
        self.unlink(place);
        let key = self.entries[place].key.clone();
        self.places.remove(&key);
        self.free.push(place);
    }

    /// At the end of the newest.
    fn append(&mut self, place: usize) {
        let before = self.newest;
        (self.entries[place].older, self.entries[place].newer) = (before, NOBODY);
        match before {
            NOBODY => self.oldest = place,
            before => self.entries[before].newer = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: usize) {
        let (older, newer) = (self.entries[place].older, self.entries[place].newer);
        match older {
            NOBODY => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
        match newer {
            NOBODY => self.newest = older,
            newer => self.entries[newer].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::expression::Sample;
    use crate::settings::Site;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn table(size: usize, expire: Option<u64>, nopurge: bool) -> Table {
        Table::new(&StickTable {
            site: Site::Flag("test"),
            key: StickKey::Integer,
            size,
            expire: expire.map(Duration::from_secs),
            nopurge,
        })
    }

    fn key(value: i64) -> Key {
        Key::new(StickKey::Integer, Sample::Integer(value)).unwrap()
    }

    /// Against a plain list, with a clock of its own.
    #[test]
    fn a_table_does_what_a_list_would() {
        for seed in 0..200 {
            println!("seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            let (size, expire) = (random.random_range(1..8), random.random_range(1..20));
            let nopurge = random.random_bool(0.3);
            let table = table(size, Some(expire), nopurge);
            // (key, server, last use), oldest first
            let mut list: Vec<(i64, u32, u64)> = Vec::new();
            let start = Instant::now();
            let mut clock = 0;
            for _ in 0..400 {
                clock += random.random_range(0..3);
                let now = start + Duration::from_secs(clock);
                list.retain(|(.., used)| clock - used < expire);
                let wanted = random.random_range(0..10);
                let place = list.iter().position(|(known, ..)| *known == wanted);
                match random.random_range(0..4) {
                    0 => {
                        let expected = place.map(|place| {
                            let (known, server, _) = list.remove(place);
                            list.push((known, server, clock));
                            server
                        });
                        assert_eq!(table.find(&key(wanted), now), expected);
                    }
                    1 => {
                        let row = table.peek(&key(wanted), now);
                        let expected = place.map(|place| (list[place].1, expire - (clock - list[place].2)));
                        let got = row.map(|row| (row.server_id, row.expires_in.unwrap().as_secs()));
                        assert_eq!(got, expected);
                    }
                    2 => {
                        assert_eq!(table.rows(now).len(), list.len());
                        assert_eq!(table.used(), list.len());
                    }
                    _ => {
                        let server = random.random_range(1..4);
                        let stored = table.store(key(wanted), server, now);
                        if let Some(place) = place {
                            list.remove(place);
                        } else if list.len() == size {
                            assert_eq!(stored, !nopurge);
                            if nopurge {
                                continue;
                            }
                            list.remove(0);
                        }
                        assert!(stored);
                        list.push((wanted, server, clock));
                    }
                }
            }
        }
    }

    #[test]
    fn threads_share_a_bounded_table() {
        let table = table(10_000, None, false);
        let now = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for value in 0..20_000 {
                        let own = value * 4 + thread;
                        table.store(key(own), 1 + u32::try_from(thread).unwrap(), now);
                        // Others may have pushed it out, but never changed it.
                        let found = table.find(&key(own), now);
                        assert!(found.is_none_or(|id| i64::from(id) == thread + 1));
                    }
                });
            }
        });
        assert!(table.used() <= 10_000 + SHARDS && table.used() > 9_000, "{}", table.used());
        table.clear();
        assert_eq!(table.used(), 0);
    }

    #[test]
    fn keys_are_cast_to_the_type_of_the_table() {
        let show = |kind, sample: Sample<'_>| Key::new(kind, sample).map(|key| key.show(kind).to_string());
        let ip = |text: &str| Sample::Address(text.parse().unwrap());
        assert_eq!(show(StickKey::Ip, ip("10.1.2.3")).unwrap(), "10.1.2.3");
        assert_eq!(show(StickKey::Ip, ip("::ffff:10.1.2.3")).unwrap(), "10.1.2.3");
        assert_eq!(show(StickKey::Ip, ip("2001:db8::1")), None);
        assert_eq!(show(StickKey::Ip, Sample::text(b"10.1.2.3")).unwrap(), "10.1.2.3");
        assert_eq!(show(StickKey::Ip, Sample::text(b"x")), None);
        assert_eq!(show(StickKey::Ipv6, ip("10.1.2.3")).unwrap(), "::ffff:10.1.2.3");
        assert_eq!(show(StickKey::Integer, Sample::Integer(-1)).unwrap(), "4294967295");
        assert_eq!(show(StickKey::String(3), Sample::text(b"a b\\c")).unwrap(), "a\\ b");
        assert_eq!(show(StickKey::String(3), Sample::text(b"")), None);
        assert_eq!(show(StickKey::Binary(4), Sample::Binary((&[1, 0xfe][..]).into())).unwrap(), "01FE0000");
        assert_eq!(Key::from_text(StickKey::Integer, "7"), Some(key(7)));
    }
}
