//! Connections to servers that wait for the next request (`http-reuse`, 4.2 of the manual), of one thread.

use super::stream::Stream;
use super::thread::Thread;
use crate::proxy::config::Config;
use crate::proxy::config::model::{ProxyIndex, Reuse, ServerIndex};
use crate::proxy::state::Running;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Section and server.
type Place = (ProxyIndex, ServerIndex);

/// How long an unused connection is kept (HAProxy's `pool-purge-delay`).
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Purges as long as the thread lives.
pub(crate) async fn keep_house(thread: Rc<Thread>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        thread.idle.purge(&thread.running);
        if thread.calmed_down() {
            crate::host::trim_memory();
        }
    }
}

/// A waiting connection.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) stream: Stream,
    /// It has served more than one request: its server really keeps connections, so that with `safe` and `aggressive`
    /// it may be given more easily.
    pub(crate) proven: bool,
    /// Of the server's address when it was made.
    generation: u32,
    since: Instant,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct IdleConnections {
    /// By section, then by server.
    waiting: RefCell<Vec<Vec<Vec<Idle>>>>,
}

impl IdleConnections {
    /// Room for every server.
    pub(crate) fn new(config: &Config) -> IdleConnections {
        let servers = |count: usize| (0..count).map(|_| Vec::new()).collect();
        let waiting = config.proxies.iter().map(|proxy| servers(proxy.servers.len())).collect();
        IdleConnections { waiting: RefCell::new(waiting) }
    }

    /// A connection for a request, the one used last, to the server's address of `generation`. `first`: nothing came on
    /// its client's connection before, so that the client does not expect that it may have to repeat it.
    pub(crate) fn take(
        &self,
        (proxy, server): Place,
        generation: u32,
        reuse: Reuse,
        first: bool,
    ) -> Option<Idle> {
        let mut waiting = self.waiting.borrow_mut();
        let list = waiting.get_mut(proxy)?.get_mut(server)?;
        loop {
            let at = match (reuse, first) {
                (Reuse::Never, _) | (Reuse::Safe, true) => None,
                (Reuse::Aggressive, true) => list.iter().rposition(|idle| idle.proven),
                _ => list.len().checked_sub(1),
            };
            let idle = list.remove(at?);
            if idle.generation == generation && !idle.stream.is_stale() {
                return Some(idle);
            }
        }
    }

    /// Keeps a connection for the next request, at most `most` of them: with `safe` every new client makes a new one,
    /// and more than there are requests at once are of no use to anybody. `generation`: of the server's address when it
    /// was made.
    pub(crate) fn give(
        &self,
        (proxy, server): Place,
        generation: u32,
        stream: Stream,
        proven: bool,
        most: usize,
    ) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(list) = waiting.get_mut(proxy).and_then(|servers| servers.get_mut(server)) {
            if list.len() >= most {
                list.remove(0);
            }
            list.push(Idle { stream, proven, generation, since: Instant::now() });
        }
    }

    /// Closes those that their server closed, that go where it is no longer, or that nobody has wanted for a while.
    pub(crate) fn purge(&self, running: &Running) {
        let now = Instant::now();
        for (servers, state) in self.waiting.borrow_mut().iter_mut().zip(&running.proxies) {
            let Some(backend) = &state.backend else { continue };
            for (list, server) in servers.iter_mut().zip(&backend.servers) {
                let generation = server.generation();
                list.retain(|idle| {
                    idle.generation == generation
                        && now.duration_since(idle.since) < KEPT_FOR
                        && !idle.stream.is_stale()
                });
            }
        }
    }

    /// Closes all of them; whether there was one.
    pub(crate) fn clear(&self) -> bool {
        let mut some = false;
        for list in self.waiting.borrow_mut().iter_mut().flatten() {
            some |= !list.is_empty();
            list.clear();
        }
        some
    }
}
