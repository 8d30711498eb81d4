//! Whose turn it is on a thread that serves several clients.
//!
//! A turn is a client's, whatever the number of its connections and of its calls that wait: clients with work take
//! turns of a few calls each, and so do the connections of one client among themselves. While a thread has the
//! connections of one client only, nobody asks.
//!
//! The rules are pure; the shell around them keeps wakers. Between two turns the dispatcher lets the runtime look for
//! new input, so that who has just arrived is in the next round.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

/// A connection of this thread.
pub(super) type Id = u64;

#[derive(Default)]
struct Client {
    connections: usize,
    waiting: VecDeque<Id>,
}

/// The rules.
#[derive(Default)]
struct Rules {
    clients: HashMap<IpAddr, Client>,
    /// Clients with waiting connections, the next one first.
    order: VecDeque<IpAddr>,
    holder: Option<Id>,
}

impl Rules {
    fn join(&mut self, client: IpAddr) {
        self.clients.entry(client).or_default().connections += 1;
    }

    fn leave(&mut self, client: IpAddr, id: Id) {
        self.release(id);
        let Some(state) = self.clients.get_mut(&client) else { return };
        state.waiting.retain(|waiting| *waiting != id);
        if state.waiting.is_empty() {
            self.order.retain(|waiting| *waiting != client);
        }
        state.connections -= 1;
        if state.connections == 0 {
            self.clients.remove(&client);
        }
    }

    /// Are there others that must have their turns?
    fn contended(&self) -> bool {
        self.clients.len() > 1
    }

    /// True: it is this connection's turn. Else it waits in line.
    fn ask(&mut self, client: IpAddr, id: Id) -> bool {
        if self.holder == Some(id) {
            return true;
        }
        let state = self.clients.entry(client).or_default();
        if state.waiting.is_empty() {
            self.order.push_back(client);
        }
        if !state.waiting.contains(&id) {
            state.waiting.push_back(id);
        }
        false
    }

    fn release(&mut self, id: Id) {
        if self.holder == Some(id) {
            self.holder = None;
        }
    }

    /// Gives the turn to the next, if nobody has it.
    fn grant(&mut self) -> Option<Id> {
        if self.holder.is_some() {
            return None;
        }
        let client = self.order.pop_front()?;
        let state = self.clients.get_mut(&client)?;
        let id = state.waiting.pop_front()?;
        if !state.waiting.is_empty() {
            self.order.push_back(client);
        }
        self.holder = Some(id);
        Some(id)
    }

    fn can_grant(&self) -> bool {
        self.holder.is_none() && !self.order.is_empty()
    }
}

/// The turns of one thread.
#[derive(Default)]
pub(super) struct Turns {
    rules: RefCell<Rules>,
    wakers: RefCell<HashMap<Id, Waker>>,
    dispatcher: RefCell<Option<Waker>>,
    next: RefCell<Id>,
}

impl Turns {
    /// A connection of `client` is served from here on.
    pub(super) fn join(&self, client: IpAddr) -> Id {
        self.rules.borrow_mut().join(client);
        let mut next = self.next.borrow_mut();
        *next += 1;
        *next
    }

    /// A connection is gone.
    pub(super) fn leave(&self, client: IpAddr, id: Id) {
        self.wakers.borrow_mut().remove(&id);
        self.rules.borrow_mut().leave(client, id);
        self.rouse();
    }

    /// Are there other clients on this thread?
    pub(super) fn contended(&self) -> bool {
        self.rules.borrow().contended()
    }

    /// Ready: it is this connection's turn, until [`Turns::release`].
    pub(super) fn poll_turn(&self, client: IpAddr, id: Id, cx: &Context<'_>) -> Poll<()> {
        if self.rules.borrow_mut().ask(client, id) {
            return Poll::Ready(());
        }
        self.wakers.borrow_mut().insert(id, cx.waker().clone());
        self.rouse();
        Poll::Pending
    }

    /// The turn, if this connection has it, is over.
    pub(super) fn release(&self, id: Id) {
        if self.rules.borrow().holder == Some(id) {
            self.rules.borrow_mut().release(id);
            self.rouse();
        }
    }

    fn rouse(&self) {
        if self.rules.borrow().can_grant()
            && let Some(dispatcher) = self.dispatcher.borrow_mut().take()
        {
            dispatcher.wake();
        }
    }

    /// Gives turns for ever.
    pub(super) async fn dispatch(&self) {
        loop {
            poll_fn(|cx| {
                if self.rules.borrow().can_grant() {
                    return Poll::Ready(());
                }
                *self.dispatcher.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            // The runtime looks for input before this goes on.
            tokio::task::yield_now().await;
            let granted = self.rules.borrow_mut().grant();
            if let Some(id) = granted {
                let waker = self.wakers.borrow_mut().remove(&id);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Everyone in `asks` always wants another turn; who gets `rounds` of them.
    fn turns(asks: &[(u8, Id)], rounds: usize) -> Vec<(u8, Id)> {
        let mut rules = Rules::default();
        for (who, _) in asks {
            rules.join(client(*who));
        }
        let mut had = Vec::new();
        for _ in 0..rounds {
            for (who, id) in asks {
                rules.ask(client(*who), *id);
            }
            let id = rules.grant().expect("someone waits");
            assert!(rules.grant().is_none(), "one at a time");
            let (who, id) = *asks.iter().find(|(_, other)| *other == id).unwrap();
            assert!(rules.ask(client(who), id), "it is its turn");
            rules.release(id);
            had.push((who, id));
        }
        had
    }

    #[test]
    fn a_client_with_a_thousand_connections_has_every_other_turn() {
        let mut asks: Vec<(u8, Id)> = (0..1000).map(|id| (1, id)).collect();
        asks.push((2, 5000));
        let had = turns(&asks, 2000);
        assert_eq!(had.iter().filter(|(who, _)| *who == 2).count(), 1000);
        // No two turns of the crowd in a row.
        assert!(had.windows(2).all(|pair| pair[0].0 != pair[1].0));
        // And within the crowd everyone has one.
        let mut ids: Vec<Id> = had.iter().filter(|(who, _)| *who == 1).map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn who_arrives_is_next_after_those_who_wait() {
        let mut rules = Rules::default();
        (1..=3).for_each(|who| rules.join(client(who)));
        assert!(!rules.ask(client(1), 1));
        assert_eq!(rules.grant(), Some(1));
        rules.ask(client(2), 2);
        rules.ask(client(3), 3);
        rules.release(1);
        rules.ask(client(1), 1);
        assert_eq!(rules.grant(), Some(2));
        rules.release(2);
        assert_eq!(rules.grant(), Some(3));
        rules.release(3);
        assert_eq!(rules.grant(), Some(1));
    }

    #[test]
    fn who_leaves_holds_nobody_up() {
        let mut rules = Rules::default();
        (1..=2).for_each(|who| rules.join(client(who)));
        assert!(rules.contended());
        rules.ask(client(1), 1);
        rules.ask(client(2), 2);
        assert_eq!(rules.grant(), Some(1));
        rules.leave(client(1), 1);
        assert!(!rules.contended());
        assert_eq!(rules.grant(), Some(2));
        rules.leave(client(2), 2);
        assert!(rules.clients.is_empty() && rules.order.is_empty() && rules.holder.is_none());
    }
}
