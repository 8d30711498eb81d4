//! Tickets of operations under way: a fence waits for those that were open when it began.
//!
//! Tickets count in one of two epochs. A fence turns the epoch and waits until the former one is empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use tokio::sync::{Mutex, Notify};

#[derive(Default)]
pub(super) struct Tickets {
    /// Its lowest bit names the epoch in which tickets are opened.
    epoch: AtomicUsize,
    open: [AtomicUsize; 2],
    /// Someone waits for an epoch to become empty.
    awaited: AtomicBool,
    emptied: Notify,
    /// One fence at a time turns the epoch.
    turn: Mutex<()>,
}

/// Open while an operation that will note a change is under way (invariant: taken before the system call).
/// Dropping it closes it.
pub struct Ticket {
    tickets: Arc<Tickets>,
    epoch: usize,
}

impl Tickets {
    pub(super) fn open(tickets: &Arc<Tickets>) -> Ticket {
        loop {
            let epoch = tickets.epoch.load(SeqCst) & 1;
            tickets.open[epoch].fetch_add(1, SeqCst);
            // Counted before the epoch was turned, or else counted again in the new one: then a fence
            // that turned it either sees this ticket or began before it.
            if tickets.epoch.load(SeqCst) & 1 == epoch {
                return Ticket { tickets: Arc::clone(tickets), epoch };
            }
            tickets.close(epoch);
        }
    }

    fn close(&self, epoch: usize) {
        if self.open[epoch].fetch_sub(1, SeqCst) == 1 && self.awaited.load(SeqCst) {
            self.emptied.notify_one();
        }
    }

    pub(super) async fn closed(&self) {
        let _turn = self.turn.lock().await;
        // A fence that was given up may have left tickets in the epoch that is to be opened anew.
        self.empty((self.epoch.load(SeqCst) + 1) & 1).await;
        let former = self.epoch.fetch_add(1, SeqCst) & 1;
        self.empty(former).await;
    }

    async fn empty(&self, epoch: usize) {
        self.awaited.store(true, SeqCst);
        while self.open[epoch].load(SeqCst) != 0 {
            self.emptied.notified().await;
        }
        self.awaited.store(false, SeqCst);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.close(self.epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_fence_waits_for_the_tickets_before_it_only() {
        let tickets = Arc::<Tickets>::default();
        let before = Tickets::open(&tickets);
        let mut fence = pin!(tickets.closed());
        assert!(poll(fence.as_mut()).is_pending());
        let after = Tickets::open(&tickets);
        assert!(poll(fence.as_mut()).is_pending());
        drop(before);
        assert!(poll(fence.as_mut()).is_ready());
        drop(after);
    }

    #[test]
    fn an_abandoned_fence_hides_no_ticket_from_the_next() {
        let tickets = Arc::<Tickets>::default();
        let old = Tickets::open(&tickets);
        {
            let mut fence = pin!(tickets.closed());
            assert!(poll(fence.as_mut()).is_pending());
        }
        let young = Tickets::open(&tickets);
        let mut fence = pin!(tickets.closed());
        assert!(poll(fence.as_mut()).is_pending());
        drop(young);
        assert!(poll(fence.as_mut()).is_pending(), "the old ticket is still open");
        drop(old);
        assert!(poll(fence.as_mut()).is_ready());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn under_load_no_ticket_slips_through() {
        let tickets = Arc::<Tickets>::default();
        // Each worker publishes the number of its open ticket; a fence must see it closed.
        let counter = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let begun: Arc<[AtomicUsize; 2]> = Arc::default();
        let done: Arc<[AtomicUsize; 2]> = Arc::default();
        let workers: Vec<_> = (0..2)
            .map(|me| {
                let (tickets, stop) = (Arc::clone(&tickets), Arc::clone(&stop));
                let (begun, done, counter) = (Arc::clone(&begun), Arc::clone(&done), Arc::clone(&counter));
                std::thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        let ticket = Tickets::open(&tickets);
                        begun[me].fetch_add(1, SeqCst);
                        counter.fetch_add(1, SeqCst);
                        std::thread::yield_now();
                        done[me].fetch_add(1, SeqCst);
                        drop(ticket);
                    }
                })
            })
            .collect();
        let mut fences = 0;
        while fences < 500 || counter.load(SeqCst) < 10_000 {
            fences += 1;
            let before: Vec<usize> = begun.iter().map(|n| n.load(SeqCst)).collect();
            tickets.closed().await;
            for (me, &before) in before.iter().enumerate() {
                assert!(done[me].load(SeqCst) >= before, "worker {me} was still inside");
            }
        }
        stop.store(true, SeqCst);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}
