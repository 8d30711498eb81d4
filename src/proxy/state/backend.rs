//! A backend at run time: which server a request gets. Who has to wait for one is in [`super::waiting`].

use super::counters::BackendCounters;
use super::news::News;
use super::server::Server;
use super::waiting::Ticket;
use crate::proxy::balance;
use crate::proxy::config::model::{self, Balance, Proxy, ProxyIndex, ServerIndex};
use crate::proxy::cookie::{Cookies, Standing};
use crate::proxy::queue::Queues;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Servers, their order, the queue.
#[derive(Debug)]
pub struct Backend {
    /// Its name in the file.
    pub name: String,
    /// As `Proxy::servers`.
    pub servers: Vec<Server>,
    /// What was counted.
    pub counters: BackendCounters,
    /// Requests in the backend's own queue (those that any server may serve).
    pub queued: AtomicU32,
    /// When it went down or came up last, seconds since 1970.
    pub last_change: AtomicU64,
    /// Seconds that it has been without servers, without the present time.
    pub(super) down_time: AtomicU64,
    /// Section, for the log.
    pub(super) index: ProxyIndex,
    /// What becomes known of it is told here.
    pub(super) news: Arc<News>,
    /// `cookie`: how clients stay with their server.
    pub cookies: Option<Cookies>,
    /// What the file says of choosing.
    pub(super) policy: Policy,
    pub(super) order: RwLock<Order>,
    /// One a choice; who takes it gets the next place of the wheel.
    turn: AtomicU64,
    /// Held while the order is made anew, so that the last change wins.
    pub(super) arranging: Mutex<()>,
    pub(super) queues: Mutex<Queues<Arc<Ticket>>>,
    /// Waiting in all queues together: read at the end of every connection, instead of the lock.
    pub(super) waiting: AtomicU32,
}

/// What the file says of choosing a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// `balance`.
    pub method: Method,
    /// `option allbackups`: without active servers all backups share the work, else the first has it.
    pub allbackups: bool,
    /// `option redispatch`: who waits for a server that goes down chooses another.
    pub redispatch: bool,
    /// `option persist`: a cookie holds even if its server is down.
    pub persist: bool,
    /// `fullconn`: sessions of the backend at which servers with `minconn` reach `maxconn`. 0: they always have it.
    pub fullconn: u32,
    /// `option log-health-checks`: every check that changes something is told.
    pub log_checks: bool,
}

/// [`Balance`] without what only the engine needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Method {
    RoundRobin,
    StaticRoundRobin,
    LeastConn,
    First,
    /// `source` and all others whose [`Wish::hash`] decides; without a hash in turn.
    Hash,
    Random,
}

/// Servers that balancing may choose now.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// In order of the file (`first`: in order of their numbers).
    pub usable: Vec<ServerIndex>,
    /// One turn: indices into the backend's servers.
    wheel: Vec<u32>,
    /// How many active and backup servers take new requests.
    pub active: u32,
    pub backups: u32,
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
    /// All are at their limit: wait in the queue ([`Backend::queue`]).
    Full,
    /// None is usable: 503.
    Nobody,
}

/// The right to one connection with a server. Dropping it gives the right to the next in the queue.
#[derive(Debug)]
pub struct Slot {
    pub(super) backend: Arc<Backend>,
    /// Which server.
    pub server: ServerIndex,
}

/// Where a request goes, before the server is asked for room.
pub(super) enum Target {
    /// This one and no other, even if it is full.
    Only(ServerIndex),
    /// Any of the order.
    Any,
    Nobody,
}

impl Backend {
    /// Nothing is opened.
    /// `fullconn` is the default of it: a tenth of the connections that its frontends may have.
    pub fn new(proxy: &Proxy, index: ProxyIndex, news: Arc<News>, fullconn: u32) -> Arc<Backend> {
        let policy = Policy {
            method: Method::from(&proxy.balance),
            allbackups: proxy.options.allbackups,
            redispatch: proxy.redispatch != 0,
            persist: proxy.options.persist,
            fullconn: proxy.fullconn.unwrap_or(fullconn),
            log_checks: proxy.options.log_health_checks,
        };
        let cookies = |policy: &model::CookiePolicy| {
            Cookies::new(policy.clone(), proxy.servers.iter().map(|server| server.cookie.clone()).collect())
        };
        let identity = (proxy.name.clone(), index, news);
        Backend::assemble(&proxy.servers, policy, proxy.cookie.as_ref().map(cookies), identity)
    }

    /// The same from its parts, without cookies; named `b`.
    pub fn build(servers: &[model::Server], policy: Policy) -> Arc<Backend> {
        Backend::assemble(servers, policy, None, ("b".to_owned(), 0, Arc::default()))
    }

    fn assemble(
        servers: &[model::Server],
        policy: Policy,
        cookies: Option<Cookies>,
        (name, index, news): (String, ProxyIndex, Arc<News>),
    ) -> Arc<Backend> {
        let backend = Arc::new(Backend {
            name,
            last_change: AtomicU64::new(super::seconds()),
            down_time: AtomicU64::new(0),
            index,
            news,
            servers: servers.iter().map(Server::new).collect(),
            counters: BackendCounters::default(),
            queued: AtomicU32::new(0),
            cookies,
            policy,
            order: RwLock::new(Order::default()),
            turn: AtomicU64::new(0),
            arranging: Mutex::new(()),
            queues: Mutex::new(Queues::new(servers.len())),
            waiting: AtomicU32::new(0),
        });
        backend.arrange();
        backend
    }

    /// Chooses a server and takes a slot of it. Called for every request by every thread; wait-free but for a read lock
    /// that only changes of weight or health write.
    pub fn choose(self: &Arc<Backend>, wish: Wish) -> Choice {
        let order = self.order.read();
        match self.target(wish, &order) {
            Target::Nobody => Choice::Nobody,
            Target::Only(server) => {
                if !self.has_room(server) || !self.enter(server) {
                    return Choice::Full;
                }
                if wish.sticky != Some(server) {
                    self.count_choice(server);
                }
                Choice::Server(Slot { backend: self.clone(), server })
            }
            Target::Any if self.queued.load(Ordering::SeqCst) > 0 => Choice::Full,
            Target::Any => match self.balance(wish.avoid, &order) {
                Some(server) => {
                    if wish.avoid != Some(server) {
                        self.count_choice(server);
                    }
                    Choice::Server(Slot { backend: self.clone(), server })
                }
                None => Choice::Full,
            },
        }
    }

    /// How many servers take new requests: active ones, and backups.
    pub fn usable(&self) -> (u32, u32) {
        let order = self.order.read();
        (order.active, order.backups)
    }

    /// Whether a client bound to `server` gets it.
    pub fn keeps(&self, server: ServerIndex) -> bool {
        self.servers.get(server).is_some_and(|known| self.policy.persist || known.is_up())
    }

    /// The same for [`Cookies::request`].
    pub fn standing(&self, server: ServerIndex) -> Standing {
        match self.servers.get(server) {
            Some(known) if known.is_up() => Standing::Up,
            Some(_) if self.policy.persist => Standing::DownButKept,
            _ => Standing::Down,
        }
    }

    pub(super) fn target(&self, wish: Wish, order: &Order) -> Target {
        if let Some(sticky) = wish.sticky
            && self.keeps(sticky)
        {
            return Target::Only(sticky);
        }
        let Some(&first) = order.usable.first() else { return Target::Nobody };
        // The only backup server of several is no group to balance over: HAProxy gives it all, full or not.
        if order.active == 0 && !self.policy.allbackups {
            return Target::Only(first);
        }
        match (self.policy.method, wish.hash) {
            (Method::Hash, Some(hash)) if !order.wheel.is_empty() => {
                Target::Only(order.wheel[hash as usize % order.wheel.len()] as usize)
            }
            _ => Target::Any,
        }
    }

    /// One of the order that has room, with its slot taken.
    fn balance(&self, avoid: Option<ServerIndex>, order: &Order) -> Option<ServerIndex> {
        let found = match self.policy.method {
            Method::LeastConn => self.least(avoid, order),
            Method::First => self.in_order(avoid, order, 0),
            Method::Random => self.random(avoid, order),
            Method::RoundRobin | Method::StaticRoundRobin | Method::Hash => self.in_turn(avoid, order),
        };
        found.or_else(|| avoid.filter(|server| order.usable.contains(server) && self.try_enter(*server)))
    }

    /// Next place of the wheel; if that one is full, the next that is not.
    fn in_turn(&self, avoid: Option<ServerIndex>, order: &Order) -> Option<ServerIndex> {
        let length = order.wheel.len();
        let start = self.turn.fetch_add(1, Ordering::Relaxed) as usize % length.max(1);
        // As many places as there are servers: enough for equal weights; the search below finds the others.
        let near = order.usable.len().min(length);
        let places = (0..near).map(|ahead| order.wheel[(start + ahead) % length] as usize);
        places
            .enumerate()
            .filter(|(_, server)| Some(*server) != avoid)
            .find(|(_, server)| self.try_enter(*server))
            .map(|(ahead, server)| {
                // Those that were passed over have had their turn.
                if ahead > 0 {
                    self.turn.fetch_add(ahead as u64, Ordering::Relaxed);
                }
                server
            })
            .or_else(|| self.in_order(avoid, order, start))
    }

    /// The first one with room, beginning anywhere.
    fn in_order(&self, avoid: Option<ServerIndex>, order: &Order, start: usize) -> Option<ServerIndex> {
        let length = order.usable.len();
        (0..length)
            .map(|ahead| order.usable[(start + ahead) % length])
            .filter(|server| Some(*server) != avoid)
            .find(|server| self.try_enter(*server))
    }

    /// Fewest connections for its weight; of equals the one that has been left alone longest.
    fn least(&self, avoid: Option<ServerIndex>, order: &Order) -> Option<ServerIndex> {
        // Another thread may take the last place of the one found: then once more, never for ever.
        for _ in 0..=order.usable.len() {
            let candidates = order.usable.iter().filter(|server| Some(**server) != avoid);
            let best = candidates
                .filter(|server| self.has_room(**server))
                .min_by_key(|server| {
                    let known = &self.servers[**server];
                    let busy = u64::from(known.sessions.load(Ordering::SeqCst))
                        + u64::from(known.queued.load(Ordering::SeqCst));
                    (load(busy, known.effective_weight()), known.changed.load(Ordering::SeqCst), **server)
                })
                .copied()?;
            if self.enter(best) {
                return Some(best);
            }
        }
        None
    }

    /// The less busy one of two that were drawn by weight.
    fn random(&self, avoid: Option<ServerIndex>, order: &Order) -> Option<ServerIndex> {
        let draw = || {
            let place = rand::random::<u32>() as usize % order.wheel.len().max(1);
            order.wheel.get(place).map(|server| *server as usize)
        };
        let (one, other) = (draw()?, draw()?);
        let rank = |server: ServerIndex| {
            let known = &self.servers[server];
            let busy = u64::from(known.sessions.load(Ordering::SeqCst));
            (Some(server) == avoid, !self.has_room(server), load(busy, known.effective_weight()))
        };
        let best = if rank(other) < rank(one) { other } else { one };
        if Some(best) != avoid && self.try_enter(best) {
            return Some(best);
        }
        self.in_order(avoid, order, best)
    }

    fn count_choice(&self, server: ServerIndex) {
        self.counters.balanced.add(1);
        self.servers[server].counters.balanced.add(1);
    }

    fn try_enter(&self, server: ServerIndex) -> bool {
        self.has_room(server) && self.enter(server)
    }

    /// Nobody waits for it, and it has fewer connections than its limit.
    fn has_room(&self, server: ServerIndex) -> bool {
        let known = &self.servers[server];
        let limit = self.limit(known);
        limit == 0
            || (known.queued.load(Ordering::SeqCst) == 0 && known.sessions.load(Ordering::SeqCst) < limit)
    }

    fn limit(&self, server: &Server) -> u32 {
        server.limit(|| (self.counters.now.load(Ordering::Relaxed), self.policy.fullconn))
    }

    /// Takes a connection of a server if it has room, whoever waits.
    pub(super) fn enter(&self, server: ServerIndex) -> bool {
        let known = &self.servers[server];
        let entered = known.enter(self.limit(known));
        if entered {
            self.note_change(known);
        }
        entered
    }

    /// Gives a connection back.
    fn leave(self: &Arc<Backend>, server: ServerIndex) {
        let known = &self.servers[server];
        known.sessions.fetch_sub(1, Ordering::SeqCst);
        self.note_change(known);
        // Who begins to wait counts itself first and then looks for room: one of the two sees the other.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(server);
        }
    }

    fn note_change(&self, server: &Server) {
        if self.policy.method == Method::LeastConn {
            server.changed.store(self.turn.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// Makes the order anew from what the servers say of themselves.
    pub(super) fn arrange(&self) {
        let _one_at_a_time = self.arranging.lock();
        let taking = |backup: bool| {
            let chosen = self.servers.iter().enumerate();
            let chosen = chosen.filter(move |(_, known)| known.backup == backup && known.takes_new());
            chosen.map(|(server, _)| server).collect::<Vec<ServerIndex>>()
        };
        let (active, mut backups) = (taking(false), taking(true));
        let counts = (active.len() as u32, backups.len() as u32);
        if !self.policy.allbackups {
            backups.truncate(1);
        }
        let usable = if active.is_empty() { backups } else { active };
        let mut weights = vec![0; self.servers.len()];
        for &server in &usable {
            weights[server] = self.servers[server].effective_weight();
        }
        let wheel = match self.policy.method {
            Method::RoundRobin => balance::round_robin(&weights),
            Method::StaticRoundRobin | Method::Hash | Method::Random => balance::map(&weights),
            Method::LeastConn | Method::First => Vec::new(),
        };
        *self.order.write() = Order { usable, wheel, active: counts.0, backups: counts.1 };
    }
}

/// Connections for a weight, as `balance leastconn` compares them: an idle server is always first.
fn load(busy: u64, weight: u32) -> u64 {
    let most = u64::from(balance::MOST_WEIGHT * balance::WEIGHT_SCALE);
    if busy == 0 { 0 } else { (busy + 1) * most / u64::from(weight.max(1)) }
}

impl From<&Balance> for Method {
    fn from(balance: &Balance) -> Method {
        match balance {
            Balance::RoundRobin => Method::RoundRobin,
            Balance::StaticRoundRobin => Method::StaticRoundRobin,
            Balance::LeastConn => Method::LeastConn,
            Balance::First => Method::First,
            Balance::Source | Balance::Hash(_) => Method::Hash,
            Balance::Random => Method::Random,
        }
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
        self.backend.leave(self.server);
    }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
pub(in crate::proxy) mod tests;
