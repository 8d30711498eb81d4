//! Who waits for a server: a future that ends when a slot has been freed for it, on whatever thread that happened.

use super::backend::{Backend, Choice, Slot, Target, Wish};
use crate::proxy::config::model::ServerIndex;
use crate::proxy::queue::{Place, Queues};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// One who waits, as the queue knows it.
#[derive(Debug)]
pub(super) struct Ticket(Mutex<(News, Option<Waker>)>);

/// What has happened to one who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Nothing,
    /// It has a connection of this server (already counted).
    Served(ServerIndex, Place, u32),
    /// Its server went down: choose again.
    SentAway(Place, u32),
    /// It knows.
    Told,
}

/// The wait for a slot; made by [`Backend::queue`]. Dropping it leaves the queue; a slot that was on its way goes to the
/// next. Ends with `None` when there is no server left to wait for, or its queue is at `maxqueue`: 503.
#[derive(Debug)]
pub struct Waiting {
    backend: Arc<Backend>,
    wish: Wish,
    line: Line,
    passed: (u32, u32),
}

#[derive(Debug)]
enum Line {
    Waits(Arc<Ticket>, Place, u64),
    Has(Option<Slot>),
}

impl Backend {
    /// Waits for what [`Backend::choose`] could not give at once: from this call on the request has its place in the queue.
    pub fn queue(self: &Arc<Backend>, wish: Wish) -> Waiting {
        let line = self.stand(wish);
        Waiting { backend: self.clone(), wish, line, passed: (0, 0) }
    }

    fn stand(self: &Arc<Backend>, mut wish: Wish) -> Line {
        let target = self.target(wish, &self.order.read());
        let place = match target {
            Target::Only(server) => {
                let known = &self.servers[server];
                let full = known.maxqueue > 0 && known.queued.load(Ordering::SeqCst) >= known.maxqueue;
                if !full {
                    Place::Server(server)
                } else if wish.sticky == Some(server) && self.policy.redispatch {
                    wish.sticky = None;
                    match self.choose(wish) {
                        Choice::Server(slot) => return Line::Has(Some(slot)),
                        Choice::Full => return self.stand(wish),
                        Choice::Nobody => return Line::Has(None),
                    }
                } else {
                    return Line::Has(None);
                }
            }
            Target::Any => Place::Backend,
            Target::Nobody => return Line::Has(None),
        };
        let ticket = Arc::new(Ticket(Mutex::new((News::Nothing, None))));
        let key = {
            let mut queues = self.queues.lock();
            let key = queues.join(place, ticket.clone());
            self.note_lengths(&queues);
            key
        };
        // A slot may have been freed between the attempt and this.
        match place {
            Place::Server(server) => self.serve(server),
            Place::Backend => (0..self.servers.len()).for_each(|server| self.serve(server)),
        }
        Line::Waits(ticket, place, key)
    }

    /// Gives what room a server has to those who wait for it.
    pub(super) fn serve(self: &Arc<Backend>, server: ServerIndex) {
        let from_backend = self.order.read().usable.contains(&server);
        let mut woken = Vec::new();
        {
            let mut queues = self.queues.lock();
            let waits = |queues: &Queues<_>| {
                queues.waiting(Place::Server(server)) > 0
                    || (from_backend && queues.waiting(Place::Backend) > 0)
            };
            while waits(&queues) && self.enter(server) {
                if let Some(next) = queues.next(server, from_backend) {
                    woken.extend(next.who.tell(News::Served(server, next.place, next.position)));
                }
            }
            self.note_lengths(&queues);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Sends away who waits for a server that went down (`option redispatch`): how many.
    pub(super) fn redistribute(self: &Arc<Backend>, server: ServerIndex) -> u32 {
        if !self.policy.redispatch || self.policy.persist {
            return 0;
        }
        let gone = {
            let mut queues = self.queues.lock();
            let gone = queues.send_away(server);
            self.note_lengths(&queues);
            gone
        };
        let count = gone.len() as u32;
        for (ticket, position) in gone {
            if let Some(waker) = ticket.tell(News::SentAway(Place::Server(server), position)) {
                waker.wake();
            }
        }
        count
    }

    /// Lengths for those who look without the lock.
    fn note_lengths(&self, queues: &Queues<Arc<Ticket>>) {
        let length = |place| u32::try_from(queues.waiting(place)).unwrap_or(u32::MAX);
        let mut all = length(Place::Backend);
        self.queued.store(all, Ordering::SeqCst);
        for (index, server) in self.servers.iter().enumerate() {
            let own = length(Place::Server(index));
            server.queued.store(own, Ordering::SeqCst);
            all += own;
        }
        self.waiting.store(all, Ordering::SeqCst);
    }

    /// The most that have waited at once (`qmax`) for a server, or in the backend's queue.
    pub fn most_queued(&self, server: Option<ServerIndex>) -> u32 {
        let queues = self.queues.lock();
        u32::try_from(queues.most(server.map_or(Place::Backend, Place::Server))).unwrap_or(u32::MAX)
    }
}

impl Ticket {
    fn tell(&self, news: News) -> Option<Waker> {
        let mut inside = self.0.lock();
        inside.0 = news;
        inside.1.take()
    }
}

impl Waiting {
    /// Requests before this one in the server's and in the backend's queue, itself included (`%sq`, `%bq`): so far, or
    /// in all when it has ended.
    pub fn positions(&self) -> (u32, u32) {
        let (mut server, mut backend) = self.passed;
        if let Line::Waits(_, place, key) = &self.line {
            let here = self.backend.queues.lock().position(*place, *key).unwrap_or(0);
            match place {
                Place::Server(_) => server += here,
                Place::Backend => backend += here,
            }
        }
        (server, backend)
    }

    /// Leaves the queue unserved and says how far it had come: [`Waiting::positions`] for the log of a request whose time
    /// is up.
    pub fn give_up(mut self) -> (u32, u32) {
        self.leave();
        self.passed
    }

    fn pass(&mut self, place: Place, position: u32) {
        match place {
            Place::Server(_) => self.passed.0 += position,
            Place::Backend => self.passed.1 += position,
        }
    }

    fn leave(&mut self) {
        let Line::Waits(ticket, place, key) = std::mem::replace(&mut self.line, Line::Has(None)) else {
            return;
        };
        let left = {
            let mut queues = self.backend.queues.lock();
            let left = queues.leave(place, key);
            self.backend.note_lengths(&queues);
            left
        };
        if let Some(position) = left {
            self.pass(place, position);
            return;
        }
        let news = std::mem::replace(&mut ticket.0.lock().0, News::Told);
        match news {
            News::Served(server, place, position) => {
                self.pass(place, position);
                drop(Slot { backend: self.backend.clone(), server });
            }
            News::SentAway(place, position) => self.pass(place, position),
            News::Nothing | News::Told => {}
        }
    }
}

impl Future for Waiting {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Slot>> {
        loop {
            let ticket = match &mut self.line {
                Line::Has(slot) => return Poll::Ready(slot.take()),
                Line::Waits(ticket, ..) => ticket.clone(),
            };
            let news = {
                let mut inside = ticket.0.lock();
                if inside.0 == News::Nothing {
                    inside.1 = Some(context.waker().clone());
                    return Poll::Pending;
                }
                std::mem::replace(&mut inside.0, News::Told)
            };
            match news {
                News::Served(server, place, position) => {
                    self.pass(place, position);
                    let slot = Slot { backend: self.backend.clone(), server };
                    self.line = Line::Has(None);
                    return Poll::Ready(Some(slot));
                }
                News::SentAway(place, position) => {
                    self.pass(place, position);
                    self.wish.sticky = None;
                    let next = match self.backend.choose(self.wish) {
                        Choice::Server(slot) => Line::Has(Some(slot)),
                        Choice::Full => self.backend.stand(self.wish),
                        Choice::Nobody => Line::Has(None),
                    };
                    self.line = next;
                }
                News::Nothing | News::Told => return Poll::Pending,
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
